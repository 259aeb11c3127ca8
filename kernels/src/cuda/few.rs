//! Products of few rows of activations with a matrix, with what stands around them in a decoding step: the residual
//! stream and its norm in front, a gated activation or a soft cap behind.

use super::matrix::{GROUP_INPUTS, MOST_PARTS};
use super::repack::{group_bytes, head_bytes};
use super::{Arg, Arrangement, Buffer, CudaError, DeviceMatrix, Launch, Strided};
use crate::quant::Format;

/// Most rows with bf16 activations.
pub const MOST_ROWS: usize = 16;

/// Most rows for which [`Input::Normed`] is worth it: every block computes the norms of all rows for itself. With more,
/// [`add_norm`](super::rows::add_norm) in front and [`Input::Plain`] give the same bits sooner.
pub const MOST_NORMED_ROWS: usize = 2;

/// Rows of activations that one mma takes, and that a block takes in f32.
const TILE_ROWS: usize = 8;
const WARPS: usize = 8;
/// As `PARTIAL_STRIDE` in `few.cu`.
const PARTIAL_STRIDE: usize = 20;
/// Lengths that a warp's ring may have, in steps; longer ones keep more loads under way.
const STAGES: [usize; 4] = [8, 4, 3, 2];
/// With fewer, one block on a multiprocessor is better than two.
const ENOUGH_STAGES: usize = 3;
/// Shared memory that the hardware takes for itself from each block.
const RESERVED_SHARED: usize = 1 << 10;
/// Shared memory of the kernels' table of parts, and more.
const TABLE_SHARED: usize = 512;

/// A residual stream that is brought up to date, and the norm of it that is multiplied with the matrix:
/// `out = residual + update`, `x = rmsnorm(out) * norm`.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    /// f32 `[first + n, cols]`.
    pub residual: &'a Buffer,
    /// What comes to it.
    pub update: Option<Update<'a>>,
    /// f32 `[first + n, cols]`, overwritten from row `first` on; not the buffer of `residual`.
    pub out: &'a Buffer,
    /// f32 `[cols]`.
    pub norm: &'a Buffer,
    /// What is added to the mean of the squares, in both norms.
    pub eps: f32,
    /// Rows of `residual`, `y` and `out` that are left out at the front.
    pub first: usize,
}

/// A sublayer's output on its way into the residual stream.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// f32 `[first + n, cols]`.
    pub y: &'a Buffer,
    /// f32 `[cols]`: `rmsnorm(y) * norm` is added and not `y`.
    pub norm: Option<&'a Buffer>,
}

/// What is multiplied with the matrix.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Activation numbers `[n, cols]`: f32 where the matrix is exact, else bf16, `cols` a multiple of 8 (f32: 4).
    Plain(&'a Buffer),
    /// The norm of a residual stream; `cols` is a multiple of 4.
    Normed(Stream<'a>),
}

/// What becomes of the products.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// f32 `[n, rows]`.
    Numbers(&'a Buffer),
    /// Activation numbers `[n, rows]`.
    Rounded(&'a Buffer),
    /// Activation numbers `[n, rows / 2]` of an [`Arrangement::GateUp`]: `gelu_tanh(gate) * up`.
    Gated(&'a Buffer),
    /// Activation numbers `[n, rows]`: `gelu_tanh(product)`.
    Gelu(&'a Buffer),
    /// f32 `[n, rows]`.
    Logits {
        /// Where to.
        out: &'a Buffer,
        /// `cap * tanh(product / cap)`.
        soft_cap: Option<f32>,
    },
}

/// `input * matrix^T + bias` for up to [`MOST_ROWS`] rows, or any number of them where the matrix is exact. `bias` is
/// f32 `[n, rows]`, of a gated matrix gate's and then up's, or [the same for all](Strided::repeated).
///
/// A row's bits do not depend on how many rows are computed beside it.
///
/// Panics where a buffer is too small, or output and matrix do not belong together.
pub fn few(
    matrix: &DeviceMatrix,
    n: usize,
    input: Input<'_>,
    bias: Option<Strided<'_>>,
    output: Output<'_>,
) -> Result<(), CudaError> {
    assert!(n > 0 && (matrix.exact() || n <= MOST_ROWS), "{n} rows are few");
    let plan = Plan::new(matrix, n, matches!(input, Input::Normed(_)));
    let mut args = matrix_args(matrix);
    args.extend([n, plan.rows_a_block, plan.stages, plan.stage_bytes, plan.weight_bytes].map(int));
    args.push(Arg::Int(i32::from(plan.staged)));
    args.extend(input_args(matrix, n, input));
    args.extend(bias_args(matrix, n, bias));
    args.extend(output_args(matrix, n, output));
    let launch = Launch {
        kernel: match (matrix.exact(), plan.rows_a_block > TILE_ROWS) {
            (true, _) => "few_exact",
            (false, false) => "few_eight",
            (false, true) => "few_sixteen",
        },
        grid: [plan.blocks as u32, n.div_ceil(plan.rows_a_block) as u32, 1],
        block: 32 * WARPS as u32,
        shared: plan.shared as u32,
        overlaps: true,
        args: &args,
    };
    // SAFETY: the arguments are the kernel's in their order, each buffer was asserted to be as long as is read or
    // written, and the plan's shared memory is as much as the kernel divides up.
    unsafe { matrix.device().launch(&launch) }
}

/// How a product is divided.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rows_a_block: usize,
    stages: usize,
    /// Bytes of the ring for a step, and those of them for its weights.
    stage_bytes: usize,
    weight_bytes: usize,
    /// Whether a block keeps all its activations in shared memory.
    staged: bool,
    shared: usize,
    /// Blocks along the outputs.
    blocks: usize,
}

impl Plan {
    /// As many rows in a block as fit, since each block of rows reads all weights again; then two blocks on a
    /// multiprocessor rather than one; then activations that are copied once, where a block needs them several times.
    fn new(matrix: &DeviceMatrix, n: usize, normed: bool) -> Self {
        let properties = matrix.device().properties();
        let whole = properties.shared_bytes as usize - TABLE_SHARED;
        let half = (whole - TABLE_SHARED - RESERVED_SHARED) / 2;
        let parts = matrix.parts();
        let group_rows = parts.iter().map(|part| part.group_rows());
        let jobs = if gate_up(matrix) { parts[0].group_rows() } else { group_rows.sum() };
        let most = n.min(if matrix.exact() { TILE_ROWS } else { MOST_ROWS });
        let rows = [most, 8, 4, 2, 1].into_iter().filter(|&rows| rows <= most);
        rows.flat_map(|rows| [(rows, 2, half, ENOUGH_STAGES), (rows, 1, whole, 2)])
            .find_map(|(rows, resident, limit, least)| {
                let blocks = jobs.min(resident * properties.multiprocessors as usize);
                let staged = normed || jobs > blocks;
                let plan = Self::longest(matrix, rows, staged, limit, least);
                let unstaged = || Self::longest(matrix, rows, false, limit, least).filter(|_| !normed);
                plan.or_else(unstaged).map(|plan| Self { blocks, ..plan })
            })
            .expect("a row of any model fits a multiprocessor")
    }

    /// With the longest ring that fits.
    fn longest(matrix: &DeviceMatrix, rows: usize, staged: bool, limit: usize, least: usize) -> Option<Self> {
        let largest = |of: fn(Format) -> usize| {
            matrix.parts().iter().map(|part| of(part.format)).max().expect("a matrix has parts")
        };
        let weight_bytes = largest(|format| step_groups(format) * group_bytes(format) + head_bytes(format));
        let slice = rows * GROUP_INPUTS * number_bytes(matrix.exact());
        let stage_bytes = weight_bytes + if staged { 0 } else { largest(step_groups) * slice };
        let activations = if staged { matrix.groups() * slice } else { 0 };
        let sums = 2 * (1 + usize::from(gate_up(matrix))) * WARPS * rows * PARTIAL_STRIDE * 4;
        let shared = |stages: usize| WARPS * stages * stage_bytes + activations + sums;
        let stages = STAGES.into_iter().find(|&stages| stages >= least && shared(stages) <= limit)?;
        Some(Self {
            rows_a_block: rows,
            stages,
            stage_bytes,
            weight_bytes,
            staged,
            shared: shared(stages),
            blocks: 0,
        })
    }
}

fn gate_up(matrix: &DeviceMatrix) -> bool {
    matrix.arrangement() == Arrangement::GateUp
}

/// Groups that a warp takes in a step, as `step_groups` in `few.cu`.
fn step_groups(format: Format) -> usize {
    match format {
        Format::F32 => 1,
        Format::F16 | Format::BF16 | Format::Q8_0 => 2,
        _ => 4,
    }
}

/// Bytes of an activation number.
fn number_bytes(exact: bool) -> usize {
    if exact { 4 } else { 2 }
}

fn int(number: usize) -> Arg {
    Arg::Int(i32::try_from(number).expect("sizes of a product are ints"))
}

/// A buffer's argument, once it is known to have so many bytes.
fn whole(buffer: &Buffer, bytes: usize, name: &str) -> Arg {
    part(buffer, 0, bytes, name)
}

/// As [`whole`], of the bytes behind the first `at`.
fn part(buffer: &Buffer, at: usize, bytes: usize, name: &str) -> Arg {
    assert!(at + bytes <= buffer.bytes(), "{name}: {bytes} bytes from {at} on of {}", buffer.bytes());
    Arg::Address(buffer.address() + at as u64)
}

/// From `part0` to `cols`.
fn matrix_args(matrix: &DeviceMatrix) -> Vec<Arg> {
    let parts = matrix.parts();
    let get = |i: usize| parts.get(i);
    let mut args: Vec<Arg> =
        (0..MOST_PARTS).map(|i| Arg::Address(get(i).map_or(0, |p| matrix.address(p)))).collect();
    let formats = parts.iter().enumerate().fold(0, |all, (i, part)| all | part.code() << (8 * i));
    args.push(Arg::Int(formats));
    args.extend((0..MOST_PARTS).map(|i| int(get(i).map_or(0, |p| p.rows))));
    args.push(Arg::Int(i32::from(gate_up(matrix))));
    args.push(int(matrix.cols()));
    args
}

/// From `plain` to `eps`.
fn input_args(matrix: &DeviceMatrix, n: usize, input: Input<'_>) -> [Arg; 7] {
    const NONE: Arg = Arg::Address(0);
    let cols = matrix.cols();
    match input {
        Input::Plain(x) => {
            let number = number_bytes(matrix.exact());
            assert!((cols * number).is_multiple_of(16), "rows of whole 16 bytes");
            [whole(x, n * cols * number, "x"), NONE, NONE, NONE, NONE, NONE, Arg::Float(0.0)]
        }
        Input::Normed(Stream { residual, update, out, norm, eps, first }) => {
            assert!(cols.is_multiple_of(4), "rows of whole 16 bytes");
            assert_ne!(residual.address(), out.address(), "blocks read one while the first writes the other");
            let rows = |buffer, name| part(buffer, 4 * first * cols, 4 * n * cols, name);
            let post_norm = update.and_then(|update| update.norm);
            [
                NONE,
                rows(residual, "residual"),
                update.map_or(NONE, |update| rows(update.y, "y")),
                post_norm.map_or(NONE, |norm| whole(norm, 4 * cols, "norm of y")),
                whole(norm, 4 * cols, "norm"),
                rows(out, "residual out"),
                Arg::Float(eps),
            ]
        }
    }
}

/// `bias` and `bias_stride`.
fn bias_args(matrix: &DeviceMatrix, n: usize, bias: Option<Strided<'_>>) -> [Arg; 2] {
    let Some(Strided { buffer, first, stride }) = bias else { return [Arg::Address(0), Arg::Int(0)] };
    let numbers = (n - 1) * stride + matrix.rows();
    [part(buffer, 4 * first, 4 * numbers, "bias"), int(stride)]
}

/// From `out` to `soft_cap`.
fn output_args(matrix: &DeviceMatrix, n: usize, output: Output<'_>) -> [Arg; 3] {
    const NUMBERS: i32 = 0;
    const GATED: i32 = 1;
    const GELU: i32 = 2;
    const ROUNDED: i32 = 3;
    let rows = matrix.rows();
    assert_eq!(gate_up(matrix), matches!(output, Output::Gated(_)), "gate and up are for a gated activation");
    let number = number_bytes(matrix.exact());
    let (out, bytes, kind, soft_cap) = match output {
        Output::Numbers(out) => (out, 4 * rows, NUMBERS, None),
        Output::Rounded(out) => (out, number * rows, ROUNDED, None),
        Output::Gated(out) => (out, number * rows / 2, GATED, None),
        Output::Gelu(out) => (out, number * rows, GELU, None),
        Output::Logits { out, soft_cap } => (out, 4 * rows, NUMBERS, soft_cap),
    };
    [whole(out, n * bytes, "out"), Arg::Int(kind), Arg::Float(soft_cap.unwrap_or(0.0))]
}
