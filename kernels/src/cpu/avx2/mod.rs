//! Products of several rows on AVX2, with VNNI or without, whose 16 registers hold half a vector of [`super::simd`] each:
//! too few for the loops over whole tiles of rows that the other levels share.
//!
//! Every output adds up the same terms in the same order as in `matmul`, so the bits are those of the other levels.

mod int8;
mod sums;
mod widened;

use std::ops::Range;

use super::Level;
use super::matmul::{Input, Job};

/// Rows of bytes from which on it pays to unpack some columns' weights first.
const FEWEST_ROUNDED: usize = 4;
/// Rows of f32 from which on it pays to widen some columns' weights first.
const FEWEST_EXACT: usize = 6;

/// Computes these panels of a job, if there are rows enough; tells whether it did.
pub(super) fn project(job: &Job<'_>, panels: Range<usize>) -> bool {
    if !matches!(job.level, Level::Avx2 | Level::AvxVnni) || job.matrix.cols == 0 {
        return false;
    }
    // SAFETY: the level was detected; the panels are the matrix's own, input and output have the job's rows.
    unsafe {
        match &job.input {
            Input::F32 { x, stride } if job.n >= FEWEST_EXACT => widened::project(job, x, *stride, panels),
            Input::Int8(x) if job.n >= FEWEST_ROUNDED => {
                if job.level == Level::AvxVnni {
                    int8::project::<true>(job, x, panels);
                } else {
                    int8::project::<false>(job, x, panels);
                }
            }
            _ => return false,
        }
    }
    true
}
