//! What sampling needs of a vocabulary's logits: the best tokens of each row and the constant that turns logits into
//! log-probabilities, so that a few hundred bytes come back and not all logits.

use super::{Arg, Buffer, CudaError, Launch};

/// Tokens of a row that come back.
pub const BEST: usize = 64;

/// Logits that a block of the first launch takes.
const SLICE: usize = 8192;
/// Slices whose candidates fit one block of the second launch.
const MOST_SLICES: usize = SLICE / BEST;
const THREADS: u32 = 256;

fn slices(vocab: usize) -> usize {
    vocab.div_ceil(SLICE)
}

/// Bytes of memory that [`best`] needs for itself.
pub fn scratch_bytes(n: usize, vocab: usize) -> usize {
    n * slices(vocab) * (8 * BEST + 8)
}

/// Bytes of the result of [`best`]: ids u32 `[n, BEST]`, logits f32 `[n, BEST]`, sums f32 `[n]`.
pub const fn out_bytes(n: usize) -> usize {
    n * (8 * BEST + 4)
}

/// The [`BEST`] greatest of each row of `logits` f32 `[n, vocab]`, greatest first and of equal ones the lowest id
/// first, and `ln(sum(e^x))` of each row; [`out_bytes`] says how they lie in `out`, and [`read`] reads them.
///
/// With fewer tokens the rest has the id `u32::MAX`. What is not a number counts as less than every number.
pub fn best(
    logits: &Buffer,
    n: usize,
    vocab: usize,
    scratch: &Buffer,
    out: &Buffer,
) -> Result<(), CudaError> {
    let slices = slices(vocab);
    assert!((1..=MOST_SLICES).contains(&slices), "a vocabulary of {vocab}");
    assert!(4 * n * vocab <= logits.bytes(), "{n} rows of {vocab} logits");
    assert!(scratch_bytes(n, vocab) <= scratch.bytes() && out_bytes(n) <= out.bytes(), "room for the best");
    let softmaxes = Arg::Address(scratch.address() + (n * slices * 8 * BEST) as u64);
    let candidates = Arg::Address(scratch.address());
    let of_slices = Launch {
        kernel: "best_of_slices",
        grid: [slices as u32, n as u32, 1],
        block: THREADS,
        shared: 0,
        overlaps: true,
        args: &[Arg::Address(logits.address()), Arg::Int(vocab as i32), candidates, softmaxes],
    };
    let at = |numbers: usize| Arg::Address(out.address() + 4 * (n * numbers) as u64);
    let of_rows = Launch {
        kernel: "best_of_rows",
        grid: [n as u32, 1, 1],
        block: THREADS,
        shared: 0,
        overlaps: true,
        args: &[candidates, softmaxes, Arg::Int(slices as i32), at(0), at(BEST), at(2 * BEST)],
    };
    // SAFETY: the arguments are the kernels', and the buffers are as long as was asserted.
    unsafe {
        logits.device().launch(&of_slices)?;
        logits.device().launch(&of_rows)
    }
}

/// What [`best`] finds in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Tokens and their logits, the best first.
    pub tokens: Vec<(u32, f32)>,
    /// `ln(sum(e^x))` over all logits of the row.
    pub log_sum_exp: f32,
}

/// Brings the result of [`best`] back, row by row; waits for it.
pub fn read(out: &Buffer, n: usize) -> Result<Vec<Best>, CudaError> {
    let mut bytes = vec![0; out_bytes(n)];
    out.download(0, &mut bytes)?;
    let word =
        |i: usize| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
    let number = |i: usize| f32::from_bits(word(i));
    let row = |row: usize| Best {
        tokens: (row * BEST..(row + 1) * BEST)
            .map(|i| (word(i), number(n * BEST + i)))
            .filter(|&(id, _)| id != u32::MAX)
            .collect(),
        log_sum_exp: number(2 * n * BEST + row),
    };
    Ok((0..n).map(row).collect())
}
