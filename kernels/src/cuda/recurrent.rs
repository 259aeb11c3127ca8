//! Griffin's recurrent block on a device (De et al. 2024): causal convolution, block-diagonal gates, the RG-LRU and
//! `gelu(y) * h`, going on from any state.

use super::rows::{address, assert_activations, assert_numbers, int, numbers};
use super::states::States;
use super::{Address, Arg, Buffer, CudaError, Device, Launch, MatrixError, Place};
use crate::quant::{Format, dequantize};

/// Threads of a block, and of one of the scan.
const THREADS: u32 = 256;
const SCAN_THREADS: u32 = 128;
/// Outputs and inputs of a tile of weights.
const TILE: usize = 16;
/// The most rows of [`recurrent_few`].
pub const FEW: usize = 16;
/// The most taps of the convolution and the most channels of a block of the gates' diagonal: see [`fits`].
const TAPS: usize = 4;
const SIDE: usize = 256;
/// Rows of a chunk of [`recurrent_many`].
const CHUNK: usize = 64;
/// Channels that a block of `recurrent_gates` takes, and its shared memory.
const GROUP: usize = 128;
const GATES_SHARED: usize = 2 * 4 * CHUNK * (GROUP + 4);

/// Whether a recurrent block is one that the kernels can run.
pub fn fits(taps: usize, side: usize) -> bool {
    (1..=TAPS).contains(&taps) && (1..=SIDE).contains(&side)
}

/// A gate's block-diagonal matrix on the device.
///
/// Each block is cut into tiles of 16 outputs x 16 inputs, zeros at the edges, and the tiles of a row of tiles follow
/// each other along the inputs. A tile lies in the order of registers of a tensor core's A operand: with `g = lane / 4`
/// and `t = lane % 4` a lane has, one pair after the other, outputs `g, g + 8, g, g + 8` for inputs `2t, 2t + 1` (twice)
/// and `2t + 8, 2t + 9` (twice). In bf16 a lane's eight numbers lie together; in f32 first four of all lanes, then the
/// other four.
#[derive(Debug)]
pub struct GateMatrix {
    buffer: Buffer,
    blocks: usize,
    side: usize,
    exact: bool,
}

impl GateMatrix {
    /// Brings the blocks of a diagonal to the device, each `[side, side]` as [`crate::Ops::matrix`] takes it. They are
    /// kept in f32 if all is to be `exact`, else in bf16. Panics unless [`fits`] allows the side.
    pub fn new(
        device: &Device,
        format: Format,
        side: usize,
        blocks: &[&[u8]],
        exact: bool,
    ) -> Result<Self, MatrixError> {
        assert!(fits(1, side), "blocks of {side} channels");
        let padded = side.next_multiple_of(TILE);
        let size = if exact { 4 } else { 2 };
        let mut image = Vec::with_capacity(blocks.len() * padded * padded * size);
        for bytes in blocks {
            let block = dequantize(format, side, side, bytes)?;
            for (output, input) in tiles(side) {
                let number = |(row, col): (usize, usize)| {
                    let (row, col) = (output + row, input + col);
                    if row < side && col < side { block[row * side + col] } else { 0.0 }
                };
                let numbers = tile_order(exact).map(number);
                if exact {
                    image.extend(numbers.flat_map(f32::to_le_bytes));
                } else {
                    image.extend(numbers.flat_map(|n| half::bf16::from_f32(n).to_le_bytes()));
                }
            }
        }
        Ok(Self { buffer: device.buffer_of(&image)?, blocks: blocks.len(), side, exact })
    }

    /// Channels of the recurrence.
    pub fn width(&self) -> usize {
        self.blocks * self.side
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }
}

/// First output and first input of each tile of a block.
fn tiles(side: usize) -> impl Iterator<Item = (usize, usize)> {
    let firsts = move || (0..side).step_by(TILE);
    firsts().flat_map(move |output| firsts().map(move |input| (output, input)))
}

/// Output and input in a tile of each of its numbers, as they lie in memory.
fn tile_order(exact: bool) -> impl Iterator<Item = (usize, usize)> {
    // Numbers that a lane has side by side.
    let together = if exact { 4 } else { 8 };
    (0..TILE * TILE).map(move |at| {
        let (lane, i) = (at / together % 32, at / (32 * together) * together + at % together);
        (lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8)
    })
}

/// A recurrent layer's weights.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentWeights<'a> {
    /// `[taps, width]`, f32; the last tap meets the newest input.
    pub convolution: &'a Buffer,
    /// `[width]`, f32, as the following.
    pub convolution_bias: &'a Buffer,
    /// The input gate's bias.
    pub input_bias: &'a Buffer,
    /// The recurrence gate's bias.
    pub recurrence_bias: &'a Buffer,
    /// `-8 softplus(parameter)`, the logarithm of the strongest decay.
    pub decay: &'a Buffer,
    /// The input gate.
    pub input_gate: &'a GateMatrix,
    /// The recurrence gate.
    pub recurrence_gate: &'a GateMatrix,
}

/// Arguments of [`recurrent_few`] and [`recurrent_many`].
#[derive(Debug, Clone, Copy)]
pub struct Recurrent<'a> {
    /// f32 `[n, 2 * width]`: the x branch of a row, then its y branch, biases already added.
    pub xy: &'a Buffer,
    /// Rows.
    pub n: usize,
    /// Where the pass stands; of it only the number of tokens before it is read.
    pub place: &'a Place,
    /// What it goes on from and what it leaves.
    pub states: &'a States,
    /// Where the layer's numbers begin in a state.
    pub offset: usize,
    /// The layer's weights.
    pub weights: RecurrentWeights<'a>,
    /// At least [`scratch_bytes`] bytes; used by [`recurrent_many`] alone.
    pub scratch: &'a Buffer,
    /// Activation numbers `[n, width]`: `gelu_tanh(y) * h`.
    pub out: &'a Buffer,
}

/// Bytes of scratch memory that passes of up to `n` rows need.
pub fn scratch_bytes(n: usize, width: usize) -> usize {
    4 * width * (2 * n + 2 * n.div_ceil(CHUNK)).max(1)
}

/// The block over up to [`FEW`] rows, in one launch. Sums are f32 over f32 activations, also where the gates are bf16;
/// a row's bits do not depend on the rows beside it.
pub fn recurrent_few(args: &Recurrent<'_>) -> Result<(), CudaError> {
    assert!(args.n <= FEW, "few rows");
    args.check();
    args.part(0, args.n, 0)
}

/// The block over any number of rows.
///
/// Exact, it is [`recurrent_few`] again and again, with its bits. Otherwise the gates' products run on tensor cores
/// with activations rounded to bf16, and the recurrence in chunks of 64 rows: a chunk's steps are combined to one,
/// `a` and `b` multiplied up in f32 in a fixed order, and carried from chunk to chunk; from there on a chunk goes step
/// by step. Against a recurrence that goes step by step throughout, the state differs by a few parts in 10^6 of its size.
pub fn recurrent_many(args: &Recurrent<'_>) -> Result<(), CudaError> {
    args.check();
    assert_numbers(args.scratch, scratch_bytes(args.n, args.width()) / 4);
    if args.weights.input_gate.exact {
        let firsts = (0..args.n).step_by(FEW);
        return firsts
            .into_iter()
            .try_for_each(|first| args.part(first, FEW.min(args.n - first), args.scratch.address()));
    }
    if args.n == 0 {
        return Ok(());
    }
    args.gates()?;
    args.scan()
}

impl Recurrent<'_> {
    fn width(&self) -> usize {
        self.weights.input_gate.width()
    }

    fn taps(&self) -> usize {
        numbers(self.weights.convolution) / self.width().max(1)
    }

    fn chunks(&self) -> usize {
        self.n.div_ceil(CHUNK)
    }

    /// In the scratch memory: `a` and `b` of every row's step, `[n, width]`, and of every chunk's, `[chunks, width]`.
    fn steps(&self) -> [Arg; 4] {
        let from_row = |row: usize| Arg::Address(self.scratch.address() + (4 * self.width() * row) as u64);
        [0, self.n, 2 * self.n, 2 * self.n + self.chunks()].map(from_row)
    }

    /// Panics unless everything has the size that the kernels take for granted.
    fn check(&self) {
        let Self { xy, n, states, offset, weights: w, out, .. } = *self;
        let (width, taps, gate) = (self.width(), self.taps(), w.input_gate);
        let alike = |other: &GateMatrix| {
            (other.blocks, other.side, other.exact) == (gate.blocks, gate.side, gate.exact)
        };
        assert!(alike(w.recurrence_gate), "both gates of one shape");
        assert!(fits(taps, gate.side), "{taps} taps over blocks of {}", gate.side);
        assert_numbers(xy, n * 2 * width);
        assert_eq!(numbers(w.convolution), taps * width, "whole taps");
        for channels in [w.convolution_bias, w.input_bias, w.recurrence_bias, w.decay] {
            assert_numbers(channels, width);
        }
        assert_activations(out, n * width, gate.exact);
        assert!(states.is_set() && states.rows() <= n, "states of rows of this pass");
        assert!(offset + taps * width <= states.len(), "the layer's part of a state");
    }

    /// Launches rows `first` to `first + n`; `carry` holds the recurrence between parts of a pass, or is null.
    fn part(&self, first: usize, n: usize, carry: Address) -> Result<(), CudaError> {
        if n == 0 {
            return Ok(());
        }
        let Self { xy, place, states, offset, weights: w, out, .. } = *self;
        let gate = w.input_gate;
        let launch = Launch {
            kernel: "recurrent_few",
            grid: [(gate.blocks * gate.side.div_ceil(TILE)) as u32, 1, 1],
            block: THREADS,
            shared: 0,
            overlaps: true,
            args: &[
                address(xy),
                int(first),
                int(n),
                int(self.width()),
                int(gate.side),
                int(self.taps()),
                int(usize::from(gate.exact)),
                Arg::Address(place.head()),
                Arg::Address(states.addresses()),
                Arg::Address(states.kept()),
                int(offset),
                address(w.convolution),
                address(w.convolution_bias),
                address(w.input_bias),
                address(w.recurrence_bias),
                address(w.decay),
                address(&gate.buffer),
                address(&w.recurrence_gate.buffer),
                Arg::Address(carry),
                address(out),
            ],
        };
        // SAFETY: the arguments are the kernel's, and what it reads and writes was checked to be there.
        unsafe { xy.device().launch(&launch) }
    }

    /// Launches the convolution and the gates of all rows, for their steps.
    fn gates(&self) -> Result<(), CudaError> {
        let Self { xy, n, place, states, offset, weights: w, .. } = *self;
        let gate = w.input_gate;
        let [a, b, chunk_a, chunk_b] = self.steps();
        let groups = gate.side.next_multiple_of(TILE).div_ceil(GROUP);
        let launch = Launch {
            kernel: "recurrent_gates",
            grid: [(gate.blocks * groups) as u32, self.chunks() as u32, 1],
            block: THREADS,
            shared: GATES_SHARED as u32,
            overlaps: true,
            args: &[
                address(xy),
                int(n),
                int(self.width()),
                int(gate.side),
                int(self.taps()),
                Arg::Address(place.head()),
                Arg::Address(states.addresses()),
                int(offset),
                address(w.convolution),
                address(w.convolution_bias),
                address(w.input_bias),
                address(w.recurrence_bias),
                address(w.decay),
                address(&gate.buffer),
                address(&w.recurrence_gate.buffer),
                a,
                b,
                chunk_a,
                chunk_b,
            ],
        };
        // SAFETY: the arguments are the kernel's, and what it reads and writes was checked to be there.
        unsafe { xy.device().launch(&launch) }
    }

    /// Launches the recurrence over the steps.
    fn scan(&self) -> Result<(), CudaError> {
        let Self { xy, n, place, states, offset, out, .. } = *self;
        let [a, b, chunk_a, chunk_b] = self.steps();
        let launch = Launch {
            kernel: "recurrent_scan",
            grid: [(self.width() as u32).div_ceil(SCAN_THREADS), self.chunks() as u32, 1],
            block: SCAN_THREADS,
            shared: 0,
            overlaps: true,
            args: &[
                address(xy),
                int(n),
                int(self.width()),
                int(self.taps()),
                Arg::Address(place.head()),
                Arg::Address(states.addresses()),
                Arg::Address(states.kept()),
                int(offset),
                a,
                b,
                chunk_a,
                chunk_b,
                address(out),
            ],
        };
        // SAFETY: the arguments are the kernel's, and what it reads and writes was checked to be there.
        unsafe { xy.device().launch(&launch) }
    }
}
