//! Griffin's recurrent block, held against the oracle: passes of every length that go on from each other.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

use std::sync::Arc;

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::recurrent::{
    FEW, GateMatrix, Recurrent, RecurrentWeights, recurrent_few, recurrent_many, scratch_bytes,
};
use gemma_kernels::cuda::{Buffer, CudaError, Device, Place, Standing, States};
use gemma_kernels::testing::Random;
use gemma_kernels::{
    Activation, BlockProjection, CausalConv, Format, Matrix, Ops, PAGE_TOKENS, Reference, RgLru,
};
use half::bf16;

/// Numbers of other layers in front of and behind the layer's own in a state.
const ASIDE: usize = 5;

#[derive(Debug, Clone, Copy)]
struct Shape {
    blocks: usize,
    side: usize,
    taps: usize,
}

impl Shape {
    fn width(self) -> usize {
        self.blocks * self.side
    }
}

/// A layer on the host.
struct Layer {
    shape: Shape,
    convolution: Vec<f32>,
    convolution_bias: Vec<f32>,
    input_bias: Vec<f32>,
    recurrence_bias: Vec<f32>,
    decay: Vec<f32>,
    /// Bytes of each block of the input gate and of the recurrence gate.
    gates: [Vec<Vec<u8>>; 2],
    format: Format,
}

impl Layer {
    fn new(random: &mut Random, shape: Shape, format: Format) -> Self {
        let width = shape.width();
        let mut gate = || (0..shape.blocks).map(|_| random.matrix(format, shape.side, shape.side)).collect();
        let gates = [gate(), gate()];
        Self {
            shape,
            convolution: random.numbers(shape.taps * width),
            convolution_bias: random.numbers(width),
            input_bias: random.numbers(width),
            recurrence_bias: random.numbers(width),
            // From channels that remember thousands of steps to such that forget at once.
            decay: (0..width).map(|_| -8.0 * 10f32.powf(-4.0 * random.number().abs())).collect(),
            gates,
            format,
        }
    }

    /// `gelu(y) * h` of the rows, and the state behind each of them; the first of them stands at `start` behind
    /// `state`. `rounded`: the gates read bf16.
    fn run(&self, xy: &[f32], start: usize, state: &[f32], rounded: bool) -> (Vec<f32>, Vec<Vec<f32>>) {
        let width = self.shape.width();
        let branch = |of: usize| -> Vec<f32> {
            xy.chunks_exact(2 * width).flat_map(|row| row[of * width..(of + 1) * width].to_vec()).collect()
        };
        let (x, mut y) = (branch(0), branch(1));
        let (recurrence, carried) = state.split_at(width);
        let mut convolved = vec![0.0; x.len()];
        let (weight, bias) = (&self.convolution, &self.convolution_bias);
        Reference.causal_conv(CausalConv { x: &x, carried, weight, bias, out: &mut convolved });
        let seen = convolved.iter().map(|&v| if rounded { bf16::from_f32(v).to_f32() } else { v });
        let (seen, n) = (seen.collect::<Vec<_>>(), x.len() / width);
        let matrix = |bytes: &Vec<u8>| {
            Reference.matrix(self.format, self.shape.side, self.shape.side, bytes).expect("a matrix")
        };
        let [input, recurrence_gate] = self.gates.each_ref().map(|gate| {
            let blocks: Vec<Matrix> = gate.iter().map(matrix).collect();
            let mut out = vec![0.0; x.len()];
            let part = BlockProjection { blocks: &blocks, out: &mut out };
            Reference.project_blocks(&seen, n, Activation::F32, &mut [part]);
            out
        });
        let mut states = vec![0.0; x.len()];
        Reference.rg_lru(RgLru {
            x: &convolved,
            input_gate: &input,
            recurrence_gate: &recurrence_gate,
            input_bias: &self.input_bias,
            recurrence_bias: &self.recurrence_bias,
            decay: &self.decay,
            start,
            state: &mut recurrence.to_vec(),
            out: &mut states,
        });
        let inputs = [carried, &x].concat();
        let behind = |row: usize| {
            let last = &inputs[(row + 1) * width..][..(self.shape.taps - 1) * width];
            [&states[row * width..][..width], last].concat()
        };
        Reference.geglu(&mut y, &states);
        (y, (0..n).map(behind).collect())
    }
}

/// The layer's weights on a device, and where its passes stand.
struct OnDevice {
    device: Device,
    shape: Shape,
    exact: bool,
    channels: [Buffer; 5],
    gates: [GateMatrix; 2],
    place: Place,
    states: States,
}

impl OnDevice {
    fn new(device: &Device, layer: &Layer, exact: bool) -> Self {
        let channels = [
            &layer.convolution,
            &layer.convolution_bias,
            &layer.input_bias,
            &layer.recurrence_bias,
            &layer.decay,
        ];
        let gate = |blocks: &Vec<Vec<u8>>| {
            let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            GateMatrix::new(device, layer.format, layer.shape.side, &blocks, exact).expect("the device works")
        };
        Self {
            device: device.clone(),
            shape: layer.shape,
            exact,
            channels: channels.map(|numbers| device.numbers(numbers).expect("the device works")),
            gates: layer.gates.each_ref().map(gate),
            place: Place::new(device, 1, 1, 1).expect("the device works"),
            states: States::new(device, layer.shape.width() * layer.shape.taps + 2 * ASIDE, 50)
                .expect("the device works"),
        }
    }

    /// A state full of numbers that are nobody's.
    fn state(&self) -> Arc<Buffer> {
        Arc::new(self.device.numbers(&vec![0.75; self.states.len()]).expect("the device works"))
    }

    /// The layer's part of a state; what is not its own must not have been written.
    fn layers_part(&self, state: &Buffer) -> Vec<f32> {
        let all = state.read_numbers(0, self.states.len()).expect("the device works");
        let own = ASIDE..all.len() - ASIDE;
        assert!(all[..own.start].iter().chain(&all[own.end..]).all(|&v| v == 0.75), "other layers' state");
        all[own].to_vec()
    }

    /// Where the next pass stands and what it goes on from; the states that it will leave behind `rows`.
    fn stand(&mut self, start: usize, from: &Arc<Buffer>, rows: &[usize]) -> Vec<Arc<Buffer>> {
        // No pages: nothing is attended to. RoPE's position is another one where a picture stands in front.
        let (position, pages_from) = (start + 7, start.next_multiple_of(PAGE_TOKENS));
        let standing = Standing { start, position, pages_from, pages: &[], ranges: &[Vec::new()] };
        self.place.set(standing).expect("the device works");
        let left: Vec<_> = rows.iter().map(|&row| (row, self.state())).collect();
        self.states.set(from, &left).expect("the device works");
        left.into_iter().map(|(_, state)| state).collect()
    }

    /// Room for scratch and for what comes out of `n` rows.
    fn room(&self, n: usize) -> [Buffer; 2] {
        let (width, size) = (self.shape.width(), if self.exact { 4 } else { 2 });
        [scratch_bytes(n, width), size * n * width]
            .map(|bytes| self.device.buffer(bytes).expect("the device works"))
    }

    fn launch(&self, xy: &Buffer, n: usize, [scratch, out]: &[Buffer; 2]) -> Result<(), CudaError> {
        let [convolution, convolution_bias, input_bias, recurrence_bias, decay] = &self.channels;
        let [input_gate, recurrence_gate] = &self.gates;
        let weights = RecurrentWeights {
            convolution,
            convolution_bias,
            input_bias,
            recurrence_bias,
            decay,
            input_gate,
            recurrence_gate,
        };
        let (place, states) = (&self.place, &self.states);
        let args = Recurrent { xy, n, place, states, offset: ASIDE, weights, scratch, out };
        if n <= FEW { recurrent_few(&args) } else { recurrent_many(&args) }
    }

    fn activations(&self, [_, out]: &[Buffer; 2]) -> Vec<f32> {
        let mut bytes = vec![0; out.bytes()];
        out.download(0, &mut bytes).expect("the device works");
        if self.exact {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        } else {
            bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
    }

    /// One pass over `xy` at `start`: what comes out, and the states behind `rows`.
    fn pass(
        &mut self,
        xy: &[f32],
        start: usize,
        from: &Arc<Buffer>,
        rows: &[usize],
    ) -> (Vec<f32>, Vec<Arc<Buffer>>) {
        let n = xy.len() / (2 * self.shape.width());
        let left = self.stand(start, from, rows);
        let room = self.room(n);
        let xy = self.device.numbers(xy).expect("the device works");
        self.launch(&xy, n, &room).expect("the device works");
        (self.activations(&room), left)
    }
}

/// Equal to `relative` of the numbers' size, all of them together: a channel's state may be close to zero by chance.
fn assert_close(found: &[f32], expected: &[f32], relative: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|v| v * v).sum::<f32>().sqrt() / (expected.len() as f32).sqrt();
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= relative * e.abs().max(size), "{what}, number {i}: {f} for {e}");
    }
}

/// Feeds passes of these lengths one behind the other and checks all that they give.
fn check_passes(device: &Device, shape: Shape, format: Format, exact: bool, lengths: &[usize], name: &str) {
    let mut random = Random::new(shape.side as u64);
    let layer = Layer::new(&mut random, shape, format);
    let mut there = OnDevice::new(device, &layer, exact);
    let mut expected_state = vec![0.0; shape.width() * shape.taps];
    // Where a sequence begins, whatever stands in the state does not count.
    let mut state = there.state();
    let mut start = 0;
    for &n in lengths {
        let what = format!("{name}, {shape:?}, {format:?}, exact: {exact}, {n} rows at {start}");
        let xy = random.numbers(2 * n * shape.width());
        let (expected, states) = layer.run(&xy, start, &expected_state, !exact && n > FEW);
        let rows: Vec<usize> = (0..n).filter(|row| row % 15 == 2 || row + 3 > n).collect();
        let (found, left) = there.pass(&xy, start, &state, &rows);
        assert_close(&found, &expected, if exact { 5e-6 } else { 1.0 / 256.0 }, &what);
        for (row, left) in rows.iter().zip(&left) {
            let found = there.layers_part(left);
            let what = format!("{what}, the state behind row {row}");
            assert_close(&found[..shape.width()], &states[*row][..shape.width()], 2e-6, &what);
            assert_eq!(found[shape.width()..], states[*row][shape.width()..], "{what}: the inputs");
        }
        state = left.last().cloned().expect("the last row's state is left");
        // From what the device found, so that errors do not pile up.
        expected_state = there.layers_part(&state);
        start += n;
    }
}

const SMALL: Shape = Shape { blocks: 2, side: 20, taps: 4 };
const WHOLE: Shape = Shape { blocks: 1, side: 256, taps: 4 };

#[test]
fn few_rows_go_on_from_any_state() {
    for (name, device) in devices(1 << 26) {
        for exact in [true, false] {
            let check = |shape, format, lengths: &[usize]| {
                check_passes(&device, shape, format, exact, lengths, &name);
            };
            check(SMALL, Format::BF16, &[1, 1, 2, 16, 3, 1]);
            check(WHOLE, Format::BF16, &[5, 1]);
            for taps in 1..4 {
                check(Shape { blocks: 3, side: 7, taps }, Format::BF16, &[2, 5]);
            }
        }
        check_passes(&device, SMALL, Format::F32, true, &[4], &name);
        check_passes(&device, Shape { blocks: 2, side: 32, taps: 4 }, Format::Q8_0, true, &[3], &name);
    }
    covers(&["recurrent_few"]);
}

#[test]
fn many_rows_are_scanned_in_chunks() {
    for (name, device) in devices(1 << 26) {
        check_passes(&device, SMALL, Format::BF16, false, &[17, 64, 65, 150], &name);
        check_passes(&device, Shape { blocks: 1, side: 150, taps: 4 }, Format::BF16, false, &[100], &name);
        check_passes(&device, WHOLE, Format::BF16, false, &[70], &name);
        check_passes(&device, Shape { blocks: 1, side: 20, taps: 2 }, Format::BF16, false, &[70, 20], &name);
        check_passes(&device, Shape { blocks: 1, side: 16, taps: 4 }, Format::BF16, false, &[600], &name);
    }
    covers(&["recurrent_gates", "recurrent_scan"]);
}

#[test]
fn exact_passes_have_the_bits_of_single_rows() {
    for (name, device) in devices(1 << 26) {
        check_passes(&device, SMALL, Format::F32, true, &[35, 17], &name);
        for (exact, n) in [(true, 40), (false, FEW)] {
            let mut random = Random::new(9);
            let layer = Layer::new(&mut random, SMALL, Format::BF16);
            let mut there = OnDevice::new(&device, &layer, exact);
            let xy = random.numbers(2 * n * SMALL.width());
            let empty = there.state();
            let (together, left) = there.pass(&xy, 0, &empty, &[n - 1]);
            let mut state = there.state();
            for (row, xy) in xy.chunks_exact(2 * SMALL.width()).enumerate() {
                let (alone, left) = there.pass(xy, row, &state, &[0]);
                let beside = &together[row * SMALL.width()..][..SMALL.width()];
                assert_eq!(alone, beside, "{name}, exact: {exact}, row {row}");
                state = left[0].clone();
            }
            assert_eq!(there.layers_part(&state), there.layers_part(&left[0]), "{name}, exact: {exact}");
        }
    }
    covers(&["recurrent_few"]);
}

#[test]
fn a_recorded_step_goes_from_state_to_state() {
    for (name, device) in devices(1 << 26) {
        let mut random = Random::new(10);
        let layer = Layer::new(&mut random, SMALL, Format::BF16);
        let [mut live, mut recorded] = [(); 2].map(|()| OnDevice::new(&device, &layer, false));
        let [mut from, mut from_recorded] = [live.state(), recorded.state()];
        let room = recorded.room(1);
        let mut xy = device.buffer(4 * 2 * SMALL.width()).unwrap();
        recorded.stand(0, &from_recorded, &[0]);
        let step = device.record(|| recorded.launch(&xy, 1, &room)).unwrap();
        for start in 0..5 {
            let numbers = random.numbers(2 * SMALL.width());
            let (expected, left) = live.pass(&numbers, start, &from, &[0]);
            // A row that the step does not have leaves nothing.
            let left_recorded = recorded.stand(start, &from_recorded, &[0, 1]);
            xy.copy_from(&device.numbers(&numbers).unwrap()).unwrap();
            step.replay().unwrap();
            assert_eq!(recorded.activations(&room), expected, "{name}, step {start}");
            [from, from_recorded] = [left[0].clone(), left_recorded[0].clone()];
            let untouched = left_recorded[1].read_numbers(0, recorded.states.len()).unwrap();
            assert!(untouched.iter().all(|&v| v == 0.75), "{name}, step {start}: a row that is not there");
        }
        assert_eq!(recorded.layers_part(&from_recorded), live.layers_part(&from), "{name}");
    }
    covers(&["recurrent_few"]);
}
