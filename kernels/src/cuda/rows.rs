//! Operations row by row on a device: norms, sums, activation functions, pooling. Contracts as in [`crate::Ops`].
//!
//! *Activation numbers* are what the next product reads: f32 where all is exact, else bf16.

use super::few::Stream;
use super::{Arg, Buffer, CudaError, Launch};

/// Threads of a block.
const THREADS: u32 = 256;

/// The sum of `n` rows of a stream, and `x = rms_norm(sum) * norm`: activation numbers `[n, width]`.
pub fn add_norm(stream: &Stream<'_>, n: usize, x: &Buffer, exact: bool) -> Result<(), CudaError> {
    let Stream { residual, update, out, norm, eps, first } = *stream;
    let width = numbers(norm);
    assert!(width.is_multiple_of(4), "rows of {width} numbers, taken four at a time");
    let y = update.map(|update| update.y);
    for rows in [Some(residual), Some(out), y].into_iter().flatten() {
        assert_numbers(rows, (first + n) * width);
    }
    assert_ne!(residual.address(), out.address(), "the sum has a buffer of its own");
    assert_activations(x, n * width, exact);
    let post = update.and_then(|update| update.norm);
    post.into_iter().for_each(|post| assert_numbers(post, width));
    let args = [
        address(residual),
        optional(y),
        optional(post),
        address(out),
        address(norm),
        address(x),
        int(first),
        int(usize::from(exact)),
        int(width),
        Arg::Float(eps),
    ];
    // SAFETY: the arguments are the kernel's, and all buffers are as long as is said.
    unsafe { launch(x, "add_norm", [n, 1], 4 * width, &args) }
}

/// `x = rms_norm(x) * norm` over `n` rows, f32.
pub fn norm_in_place(x: &Buffer, norm: &Buffer, eps: f32, n: usize) -> Result<(), CudaError> {
    let width = numbers(norm);
    assert!(width.is_multiple_of(4), "rows of {width} numbers, taken four at a time");
    assert_numbers(x, n * width);
    let args = [address(x), address(norm), int(width), Arg::Float(eps)];
    // SAFETY: the arguments are the kernel's, and both buffers are as long as is said.
    unsafe { launch(x, "norm_in_place", [n, 1], 0, &args) }
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias` over `n` rows of f32, to activation numbers.
pub fn layer_norm(
    x: &Buffer,
    (weight, bias): (&Buffer, &Buffer),
    eps: f32,
    n: usize,
    out: &Buffer,
    exact: bool,
) -> Result<(), CudaError> {
    let width = numbers(weight);
    assert!(width.is_multiple_of(4), "rows of {width} numbers, taken four at a time");
    assert_numbers(bias, width);
    assert_numbers(x, n * width);
    assert_activations(out, n * width, exact);
    let args = [
        address(x),
        address(weight),
        address(bias),
        address(out),
        int(usize::from(exact)),
        int(width),
        Arg::Float(eps),
    ];
    // SAFETY: the arguments are the kernel's, and all buffers are as long as is said.
    unsafe { launch(out, "layer_norm", [n, 1], 4 * width, &args) }
}

/// `x += y` over `len` f32 numbers.
pub fn add(x: &Buffer, y: &Buffer, len: usize) -> Result<(), CudaError> {
    assert_numbers(x, len);
    assert_numbers(y, len);
    let args = [address(x), address(y), int(len)];
    // SAFETY: the arguments are the kernel's, and both buffers are as long as is said.
    unsafe { launch(x, "add_rows", blocks(len), 0, &args) }
}

/// `out = x`, `len` numbers from f32 to bf16.
pub fn round(x: &Buffer, len: usize, out: &Buffer) -> Result<(), CudaError> {
    assert_numbers(x, len);
    assert_activations(out, len, false);
    let args = [address(x), address(out), int(len)];
    // SAFETY: the arguments are the kernel's, and both buffers are as long as is said.
    unsafe { launch(out, "round_rows", blocks(len), 0, &args) }
}

/// `out = gelu_tanh(x)`, `len` numbers from f32 to activation numbers. `out` may be `x` where all is exact.
pub fn gelu(x: &Buffer, len: usize, out: &Buffer, exact: bool) -> Result<(), CudaError> {
    gelu_times(x, None, len, out, exact)
}

/// `out = gelu_tanh(gate) * up`, `len` numbers from f32 to activation numbers. `out` may be `gate` or `up` where all
/// is exact.
pub fn geglu(gate: &Buffer, up: &Buffer, len: usize, out: &Buffer, exact: bool) -> Result<(), CudaError> {
    gelu_times(gate, Some(up), len, out, exact)
}

fn gelu_times(
    x: &Buffer,
    up: Option<&Buffer>,
    len: usize,
    out: &Buffer,
    exact: bool,
) -> Result<(), CudaError> {
    [Some(x), up].into_iter().flatten().for_each(|from| assert_numbers(from, len));
    assert_activations(out, len, exact);
    let apart = |from: &Buffer| exact || from.address() != out.address();
    assert!(apart(x) && up.is_none_or(apart), "numbers of another size have a buffer of their own");
    let args = [address(x), optional(up), address(out), int(usize::from(exact)), int(len)];
    // SAFETY: the arguments are the kernel's, and all buffers are as long as is said.
    unsafe { launch(out, "gelu_rows", blocks(len), 0, &args) }
}

/// Means over squares of `kernel x kernel` rows of a picture `x [side, side, width]`, to
/// `out [side / kernel, side / kernel, width]`, f32. `kernel` divides `side`.
pub fn average_pool(
    x: &Buffer,
    side: usize,
    kernel: usize,
    width: usize,
    out: &Buffer,
) -> Result<(), CudaError> {
    assert!(side.is_multiple_of(kernel), "squares of {kernel} tile a side of {side}");
    let squares = (side / kernel).pow(2);
    assert_numbers(x, side * side * width);
    assert_numbers(out, squares * width);
    let args = [address(x), address(out), int(side), int(kernel), int(width)];
    let grid = [width.div_ceil(THREADS as usize), squares];
    // SAFETY: the arguments are the kernel's, and both buffers are as long as is said.
    unsafe { launch(out, "average_pool", grid, 0, &args) }
}

/// Launches a kernel of this module.
///
/// # Safety
/// As [`super::Device::launch`].
unsafe fn launch(
    on: &Buffer,
    kernel: &'static str,
    [x, y]: [usize; 2],
    shared: usize,
    args: &[Arg],
) -> Result<(), CudaError> {
    if x * y == 0 {
        return Ok(());
    }
    let grid = [x as u32, y as u32, 1];
    let launch = Launch { kernel, grid, block: THREADS, shared: shared as u32, overlaps: true, args };
    // SAFETY: the caller vouches for it.
    unsafe { on.device().launch(&launch) }
}

/// Blocks that take a number a thread.
fn blocks(len: usize) -> [usize; 2] {
    [len.div_ceil(THREADS as usize), 1]
}

/// How many f32 numbers a buffer is.
pub(super) fn numbers(buffer: &Buffer) -> usize {
    buffer.bytes() / size_of::<f32>()
}

pub(super) fn assert_numbers(buffer: &Buffer, len: usize) {
    assert!(numbers(buffer) >= len, "{len} numbers fit a buffer of {}", numbers(buffer));
}

pub(super) fn assert_activations(buffer: &Buffer, len: usize, exact: bool) {
    let bytes = if exact { 4 * len } else { 2 * len };
    assert!(buffer.bytes() >= bytes, "{len} activation numbers fit {} bytes", buffer.bytes());
}

pub(super) fn address(buffer: &Buffer) -> Arg {
    Arg::Address(buffer.address())
}

fn optional(buffer: Option<&Buffer>) -> Arg {
    Arg::Address(buffer.map_or(0, Buffer::address))
}

/// A size as a kernel's `int`.
pub(super) fn int(size: usize) -> Arg {
    Arg::Int(i32::try_from(size).expect("sizes are below 2^31"))
}
