//! Embedding: rows of a table of weights, picked by ids that lie on the device.

use super::{Arg, Buffer, CudaError, DeviceMatrix, Launch};

const THREADS: u32 = 256;

/// `out[i] = scale * table[ids[i]]`: `ids` is u32 `[n]`, `out` f32 `[n, cols]`. The table has one part and a multiple
/// of 8 columns. An id behind its end gives its last row.
pub fn embed(
    table: &DeviceMatrix,
    ids: &Buffer,
    n: usize,
    scale: f32,
    out: &Buffer,
) -> Result<(), CudaError> {
    let [part] = table.parts() else { panic!("a table has one part") };
    let cols = table.cols();
    assert!(part.rows > 0 && cols.is_multiple_of(8), "a table of {} x {cols}", part.rows);
    assert!(4 * n <= ids.bytes() && 4 * n * cols <= out.bytes(), "{n} rows of {cols} fit");
    let launch = Launch {
        kernel: "embed_rows",
        grid: [n as u32, 1, 1],
        block: THREADS,
        shared: 0,
        overlaps: true,
        args: &[
            Arg::Address(table.address(part)),
            Arg::Int(part.code()),
            Arg::Int(part.rows as i32),
            Arg::Int(cols as i32),
            Arg::Address(ids.address()),
            Arg::Float(scale),
            Arg::Address(out.address()),
        ],
    };
    // SAFETY: the arguments are the kernel's, the buffers are as long as was asserted, and ids are kept in the table.
    unsafe { table.device().launch(&launch) }
}
