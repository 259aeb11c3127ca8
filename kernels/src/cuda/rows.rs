//! Operations row by row on a device.

use super::{Arg, Buffer, CudaError, Launch};

/// Threads of a block.
const THREADS: u32 = 256;

/// `x += y` over `len` f32 numbers.
pub fn add(x: &mut Buffer, y: &Buffer, len: usize) -> Result<(), CudaError> {
    assert!(4 * len <= x.bytes().min(y.bytes()), "{len} numbers fit both buffers");
    let launch = Launch {
        kernel: "add_rows",
        grid: [(len as u32).div_ceil(THREADS), 1, 1],
        block: THREADS,
        shared: 0,
        overlaps: true,
        args: &[Arg::Address(x.address()), Arg::Address(y.address()), Arg::Int(len as i32)],
    };
    // SAFETY: the arguments are the kernel's, and both buffers are as long as is said.
    unsafe { x.device().launch(&launch) }
}
