//! Weights against activations in f32: registers hold the sums of six rows and little else, so the weights of some columns
//! are widened once for all rows, and then read as they are.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    _MM_HINT_T1, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_load_ps, _mm256_setzero_ps,
    _mm256_store_ps,
};
use std::ops::Range;

use super::super::formats::{AHEAD, Block, Place, Plain, Weights, by_format};
use super::super::matmul::{Dequantized, Job, store};
use super::super::pack::{IN_GROUP, PackedMatrix};
use super::super::scratch::Scratch;
use super::super::simd::{LANES, Simd};
use super::super::x86::Avx2;

/// Columns that are widened at a time: 16 KiB, half of the smallest first-level cache.
const COLUMNS: usize = 256;
/// Rows whose sums stay in registers.
const ROWS: usize = 6;

/// Weights that become f32.
trait Widen {
    /// Chains in which an output's terms are added up: that of column `k` is `k % CHAINS`.
    const CHAINS: usize;

    /// Writes these columns of a panel, which begin at a whole block, as vectors of 16 outputs.
    ///
    /// # Safety
    /// As [`Simd`]; `to` has room for a vector a column, and for one more.
    unsafe fn widen(matrix: &PackedMatrix, panel: usize, columns: Range<usize>, to: *mut f32);
}

impl<P: Plain> Widen for P {
    const CHAINS: usize = 2;

    #[inline(always)]
    unsafe fn widen(matrix: &PackedMatrix, panel: usize, columns: Range<usize>, to: *mut f32) {
        // SAFETY: the columns are the matrix's, and `to` has room.
        unsafe {
            let from = matrix.panel(panel).add(columns.start / 2 * P::PAIR);
            for pair in 0..columns.len().div_ceil(2) {
                // What is widened next comes from memory while rows are multiplied. An address that is not there is passed over.
                let next = from.wrapping_add((pair + COLUMNS / 2) * P::PAIR);
                for line in (0..P::PAIR).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
                }
                let last = 2 * pair + 1 == columns.len();
                let (first, second) = P::pair::<Avx2>(from.add(pair * P::PAIR), last);
                Avx2::store(to.add(2 * pair * LANES), first);
                Avx2::store(to.add((2 * pair + 1) * LANES), second);
            }
        }
    }
}

impl<B: Block> Widen for Dequantized<B> {
    const CHAINS: usize = 1;

    #[inline(always)]
    unsafe fn widen(matrix: &PackedMatrix, panel: usize, columns: Range<usize>, to: *mut f32) {
        // SAFETY: the columns are the matrix's, and `to` has room.
        unsafe {
            for (i, block) in (columns.start / 32..columns.end / 32).enumerate() {
                let group = Place::group::<B>(matrix, panel, block);
                let w = Weights::<Avx2>::read::<B>(group, block % IN_GROUP, AHEAD);
                for j in 0..8 {
                    let numbers = w.numbers::<B>(j);
                    for k in 0..4 {
                        Avx2::store(to.add((32 * i + 4 * j + k) * LANES), numbers[k]);
                    }
                }
            }
        }
    }
}

/// Computes these panels of a job whose input is in f32: `x` begins at its first number, with `stride` from one row to the next.
///
/// # Safety
/// The level is AVX2 or higher, the panels are the matrix's own, and input and output have the job's rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn project(job: &Job<'_>, x: &[f32], stride: usize, panels: Range<usize>) {
    let rows = Rows { job, x, stride };
    // SAFETY: as the caller's.
    unsafe {
        by_format!(
            job.matrix.format,
            B => rows.panels::<Dequantized<B>>(panels),
            P => rows.panels::<P>(panels),
        )
    }
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    job: &'a Job<'a>,
    x: &'a [f32],
    stride: usize,
}

impl Rows<'_> {
    #[inline(always)]
    unsafe fn panels<W: Widen>(self, panels: Range<usize>) {
        let (n, cols) = (self.job.n, self.job.matrix.cols);
        let wide = Scratch::new((COLUMNS + 1) * LANES * size_of::<f32>());
        // `[n, CHAINS, LANES]`
        let sums = Scratch::new(n * W::CHAINS * LANES * size_of::<f32>());
        let (wide, sums) = (wide.as_ptr().cast::<f32>(), sums.as_ptr().cast::<f32>());
        for panel in panels {
            // SAFETY: as the caller's; tiles stay below `n`, and memory was taken for all of these sums and columns.
            unsafe {
                for first in (0..cols).step_by(COLUMNS) {
                    let columns = first..(first + COLUMNS).min(cols);
                    W::widen(self.job.matrix, panel, columns.clone(), wide);
                    let mut t = 0;
                    while t < n {
                        t += match n - t {
                            // Two tiles of four and not one of six: two rows have too few sums under way.
                            8 => self.tile::<W, 4>(t, &columns, wide, sums),
                            ROWS.. => self.tile::<W, ROWS>(t, &columns, wide, sums),
                            4.. => self.tile::<W, 4>(t, &columns, wide, sums),
                            2.. => self.tile::<W, 2>(t, &columns, wide, sums),
                            _ => self.tile::<W, 1>(t, &columns, wide, sums),
                        };
                    }
                }
                for t in 0..n {
                    let chains = sums.add(t * W::CHAINS * LANES);
                    let mut sum = Avx2::load(chains);
                    if W::CHAINS == 2 {
                        sum = Avx2::add(sum, Avx2::load(chains.add(LANES)));
                    }
                    store::<Avx2>(self.job, panel, t, sum);
                }
            }
        }
    }

    /// Adds the products of these columns with `R` rows from row `t` on to their sums; returns how many rows these were.
    #[inline(always)]
    unsafe fn tile<W: Widen, const R: usize>(
        self,
        t: usize,
        columns: &Range<usize>,
        wide: *const f32,
        sums: *mut f32,
    ) -> usize {
        // SAFETY: the caller's rows and columns.
        unsafe {
            let x = self.x.as_ptr().add(t * self.stride + columns.start);
            for chain in 0..W::CHAINS {
                let sum = |r: usize| sums.add(((t + r) * W::CHAINS + chain) * LANES);
                let mut acc = [[_mm256_setzero_ps(); 2]; R];
                if columns.start > 0 {
                    for r in 0..R {
                        acc[r] = [_mm256_load_ps(sum(r)), _mm256_load_ps(sum(r).add(8))];
                    }
                }
                let mut k = chain;
                while k < columns.len() {
                    let w = wide.add(k * LANES);
                    let w = [_mm256_load_ps(w), _mm256_load_ps(w.add(8))];
                    for r in 0..R {
                        let x = _mm256_broadcast_ss(&*x.add(r * self.stride + k));
                        acc[r][0] = _mm256_fmadd_ps(w[0], x, acc[r][0]);
                        acc[r][1] = _mm256_fmadd_ps(w[1], x, acc[r][1]);
                    }
                    k += W::CHAINS;
                }
                for r in 0..R {
                    _mm256_store_ps(sum(r), acc[r][0]);
                    _mm256_store_ps(sum(r).add(8), acc[r][1]);
                }
            }
        }
        R
    }
}
