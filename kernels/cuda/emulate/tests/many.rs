//! Products of many rows of activations with a matrix, held against the oracle.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

mod numbers;

use gemma_emulation::{Emulated, Schedule, covers, devices, hopper};
use gemma_kernels::cuda::many::{Many, ManyOutput, Plan, SCRATCH_BYTES, many, many_as};
use gemma_kernels::cuda::{Arrangement, Buffer, Device, DeviceMatrix, Part, Strided};
use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Activation, Format, Ops, Projection, Reference};
use numbers::{activations, error, read_activations, rounded};

const MEMORY: u64 = 16 << 20;
/// Rows of x in a block's tile.
const TILES: [usize; 4] = [32, 64, 128, 256];

/// A matrix of parts, some activations, and a bias.
struct Case {
    parts: Vec<(Format, usize, Vec<u8>)>,
    arrangement: Arrangement,
    cols: usize,
    n: usize,
    x: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn new(parts: &[(Format, usize)], cols: usize, n: usize) -> Self {
        let mut random = Random::new((cols * n + parts.len()) as u64);
        let x = rounded(&random.numbers(n * cols));
        let parts = parts.iter().map(|&(format, rows)| (format, rows, random.matrix(format, rows, cols)));
        Self { parts: parts.collect(), arrangement: Arrangement::Stacked, cols, n, x, bias: None }
    }

    fn gate_up(self) -> Self {
        Self { arrangement: Arrangement::GateUp, ..self }
    }

    fn biased(self) -> Self {
        Self { bias: Some(Random::new(7).numbers(self.rows())), ..self }
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|(_, rows, _)| rows).sum()
    }

    fn matrix(&self, device: &Device) -> DeviceMatrix {
        let part = |(format, rows, bytes): &(Format, usize, Vec<u8>)| (*format, *rows, bytes.clone());
        let owned: Vec<_> = self.parts.iter().map(part).collect();
        let parts: Vec<Part<'_>> =
            owned.iter().map(|(format, rows, bytes)| Part { format: *format, rows: *rows, bytes }).collect();
        DeviceMatrix::new(device, &parts, self.cols, self.arrangement, false).expect("it has room")
    }

    /// The products as the oracle has them, `[n, rows]`.
    fn products(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.rows()];
        let mut before = 0;
        for (format, rows, bytes) in &self.parts {
            let matrix = Reference.matrix(*format, *rows, self.cols, bytes).expect("bytes of this shape");
            let mut part = vec![0.0; self.n * rows];
            let bias = self.bias.as_ref().map(|bias| &bias[before..before + rows]);
            let projection = Projection { bias, ..Projection::new(&matrix, &mut part) };
            Reference.project(&self.x, self.n, Activation::F32, &mut [projection]);
            for (to, from) in out.chunks_exact_mut(self.rows()).zip(part.chunks_exact(*rows)) {
                to[before..before + rows].copy_from_slice(from);
            }
            before += rows;
        }
        out
    }

    /// `gelu_tanh(gate) * up` as the oracle has it, `[n, rows / 2]`.
    fn gated(&self) -> Vec<f32> {
        let products = self.products();
        let rows = products.chunks_exact(self.rows());
        rows.flat_map(|row| {
            let (gate, up) = row.split_at(row.len() / 2);
            let mut gate = gate.to_vec();
            Reference.geglu(&mut gate, up);
            gate
        })
        .collect()
    }
}

/// A case on a device.
struct OnDevice {
    matrix: DeviceMatrix,
    x: Buffer,
    bias: Option<Buffer>,
    scratch: Buffer,
    n: usize,
}

impl OnDevice {
    fn new(device: &Device, case: &Case) -> Self {
        Self {
            matrix: case.matrix(device),
            x: activations(device, &case.x, false),
            bias: case.bias.as_ref().map(|bias| device.numbers(bias).expect("the device does it")),
            scratch: device.buffer(1 << 20).expect("the device does it"),
            n: case.n,
        }
    }

    fn product<'a>(&'a self, output: ManyOutput<'a>) -> Many<'a> {
        Many {
            matrix: &self.matrix,
            diagonal: 1,
            n: self.n,
            x: Strided::whole(&self.x, self.matrix.cols()),
            bias: self.bias.as_ref(),
            low_rank: None,
            output,
            scratch: &self.scratch,
        }
    }
}

/// The case's f32 products on a device.
fn numbers(device: &Device, case: &Case, plan: Option<Plan>) -> Vec<f32> {
    let on_device = OnDevice::new(device, case);
    let out = device.buffer(4 * case.n * case.rows()).expect("the device does it");
    let product = on_device.product(ManyOutput::Numbers(Strided::whole(&out, case.rows())));
    plan.map_or_else(|| many(&product), |plan| many_as(&product, plan)).expect("the device does it");
    out.read_numbers(0, case.n * case.rows()).expect("the device does it")
}

#[test]
fn every_format_multiplies_as_the_oracle_does() {
    for (i, format) in FORMATS.into_iter().enumerate() {
        // The last group of inputs is half empty where a format allows it.
        let cols = if format.block_len() == 256 { 512 } else { 352 };
        let case = Case::new(&[(format, 72)], cols, 35);
        let want = case.products();
        for (j, rows) in TILES.into_iter().enumerate() {
            let (name, device) = devices(MEMORY).swap_remove((i + j) % 5);
            let error = error(&numbers(&device, &case, Some(Plan { rows, splits: 1 })), &want);
            let most = match format {
                Format::BF16 => 1e-5,
                // Weights are rounded to bf16, scales too.
                _ => 4e-3,
            };
            assert!(error < most, "{format:?} on {name}, tiles of {rows} rows: {error}");
        }
    }
    covers(&["many_32", "many_64", "many_128", "many_256"]);
}

#[test]
fn parts_and_rows_of_any_size_fill_tiles_of_any_shape() {
    let parts = [(Format::BF16, 132), (Format::Q8_0, 7), (Format::Q4_0, 21)];
    for (rows, n) in [(32, 33), (64, 130), (128, 150), (256, 17)] {
        let case = Case::new(&parts, 96, n).biased();
        let want = case.products();
        for (name, device) in devices(MEMORY) {
            let error = error(&numbers(&device, &case, Some(Plan { rows, splits: 1 })), &want);
            assert!(error < 4e-3, "{n} rows on {name}, tiles of {rows}: {error}");
        }
    }
}

#[test]
fn inputs_split_over_blocks_are_summed_up() {
    let case = Case::new(&[(Format::BF16, 48), (Format::BF16, 36)], 64 * 7, 40).biased();
    let want = case.products();
    for (name, device) in devices(MEMORY) {
        for splits in [2, 3] {
            let error = error(&numbers(&device, &case, Some(Plan { rows: 64, splits })), &want);
            assert!(error < 1e-5, "{splits} splits on {name}: {error}");
        }
        let error = error(&numbers(&device, &case, None), &want);
        assert!(error < 1e-5, "as it is fastest on {name}: {error}");
    }
    covers(&["many_64", "many_sum"]);
}

#[test]
fn gates_meet_what_they_gate() {
    let bf16 = Format::BF16;
    let whole = Case::new(&[(bf16, 160), (bf16, 160)], 64, 40).gate_up();
    let odd = Case::new(&[(Format::Q8_0, 37), (Format::Q8_0, 37)], 96, 33).gate_up().biased();
    let mixed = Case::new(&[(Format::Q4_0, 40), (bf16, 40)], 96, 33).gate_up().biased();
    for (case, rows, splits) in
        [(&whole, 64, 1), (&whole, 32, 2), (&odd, 128, 1), (&odd, 32, 2), (&mixed, 64, 1)]
    {
        let (want, columns) = (case.gated(), case.rows() / 2);
        for (name, device) in devices(MEMORY) {
            // Scratch memory for some rows of a product that has to go through it.
            let mut on_device = OnDevice::new(&device, case);
            on_device.scratch = device.buffer(4 * case.rows().next_multiple_of(4) * splits * 20).unwrap();
            let out = device.buffer(2 * case.n * columns).unwrap();
            many_as(
                &on_device.product(ManyOutput::Gated(Strided::whole(&out, columns))),
                Plan { rows, splits },
            )
            .unwrap();
            let error = error(&read_activations(&out, false), &want);
            assert!(error < 5e-3, "{columns} gates on {name}, tiles of {rows}, {splits} splits: {error}");
        }
    }
    covers(&["many_32", "many_64", "many_128", "many_sum"]);
}

#[test]
fn outputs_are_rounded_activated_or_added_where_they_belong() {
    // Two numbers of one row, then its products, then three numbers: in fours and not.
    for (before, rows, stride) in [(4, 40, 48), (2, 40, 45)] {
        let case = Case::new(&[(Format::BF16, rows)], 72, 33).biased();
        let products = case.products();
        let mut activated = products.clone();
        Reference.gelu(&mut activated);
        let old = Random::new(3).numbers(before + case.n * stride);
        let rows_of = |all: &[f32]| -> Vec<f32> {
            all[before..].chunks(stride).flat_map(|row| row[..rows].to_vec()).collect()
        };
        let added: Vec<f32> = products.iter().zip(rows_of(&old)).map(|(a, b)| a + b).collect();
        for (name, device) in devices(MEMORY) {
            for splits in [1, 2] {
                let on_device = OnDevice::new(&device, &case);
                let (short, long) = (activations(&device, &old, false), device.numbers(&old).unwrap());
                let at = |buffer| Strided { buffer, first: before, stride };
                let run = |output| many_as(&on_device.product(output), Plan { rows: 32, splits }).unwrap();

                run(ManyOutput::Rounded(at(&short)));
                let got = read_activations(&short, false);
                assert!(error(&rows_of(&got), &products) < 3e-3, "rounded on {name}, {splits} splits");
                run(ManyOutput::Gelu(at(&short)));
                let got = read_activations(&short, false);
                assert!(error(&rows_of(&got), &activated) < 3e-3, "GELU on {name}, {splits} splits");
                run(ManyOutput::Added(at(&long)));
                let got = long.read_numbers(0, old.len()).unwrap();
                assert!(error(&rows_of(&got), &added) < 1e-5, "added on {name}, {splits} splits");
                let beside = |all: &[f32]| -> Vec<f32> {
                    let mut all = all.to_vec();
                    all[before..].chunks_mut(stride).for_each(|row| row[..rows].fill(0.0));
                    all
                };
                assert_eq!(beside(&got), beside(&old), "what stands beside on {name}");
            }
        }
    }
    covers(&["many_32", "many_sum"]);
}

#[test]
fn blocks_on_the_diagonal_meet_their_own_columns() {
    let (blocks, side, n) = (2, 128, 33);
    let weights = Case::new(&[(Format::BF16, blocks * side)], side, 1);
    let wide = Case::new(&[(Format::BF16, 1)], blocks * side, n);
    let mut want = vec![0.0; n * blocks * side];
    for block in 0..blocks {
        let bytes = &weights.parts[0].2[block * side * side * 2..][..side * side * 2];
        let columns = wide.x.chunks(blocks * side).flat_map(|row| row[block * side..][..side].to_vec());
        let case = Case {
            parts: vec![(Format::BF16, side, bytes.to_vec())],
            n,
            x: columns.collect(),
            ..Case::new(&[], side, 1)
        };
        for (to, from) in want.chunks_mut(blocks * side).zip(case.products().chunks(side)) {
            to[block * side..][..side].copy_from_slice(from);
        }
    }
    for (name, device) in devices(MEMORY) {
        let on_device =
            OnDevice { x: activations(&device, &wide.x, false), n, ..OnDevice::new(&device, &weights) };
        let out = device.buffer(4 * want.len()).unwrap();
        let output = ManyOutput::Numbers(Strided::whole(&out, blocks * side));
        let x = Strided::whole(&on_device.x, blocks * side);
        many(&Many { diagonal: blocks, x, ..on_device.product(output) }).unwrap();
        let error = error(&out.read_numbers(0, want.len()).unwrap(), &want);
        assert!(error < 1e-5, "{name}: {error}");
    }
}

#[test]
fn a_plan_fills_the_device() {
    let mut properties = hopper(1 << 30);
    properties.multiprocessors = 132;
    let device = Device::new(std::sync::Arc::new(Emulated::of(properties, Schedule::Forward)));
    let (rows, cols) = (2048, 2048);
    let part = Part { format: Format::BF16, rows, bytes: &vec![0; 2 * rows * cols] };
    let matrix = DeviceMatrix::new(&device, &[part], cols, Arrangement::Stacked, false).unwrap();
    let buffer = device.buffer(4 * 4096 * rows).unwrap();
    let plan = |n, scratch: &Buffer| {
        let (x, output) = (Strided::whole(&buffer, cols), ManyOutput::Numbers(Strided::whole(&buffer, rows)));
        Plan::new(&Many { matrix: &matrix, diagonal: 1, n, x, bias: None, low_rank: None, output, scratch })
    };
    let (scratch, none) = (device.buffer(SCRATCH_BYTES).unwrap(), device.buffer(0).unwrap());
    assert_eq!(plan(2048, &scratch), Plan { rows: 256, splits: 1 });
    let short = plan(20, &scratch);
    assert!(short.rows == 32 && short.splits > 1, "16 blocks of 132: {short:?}");
    assert_eq!(plan(20, &none), Plan { rows: 32, splits: 1 });
}
