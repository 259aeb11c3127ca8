//! Quantised weights against 8-bit activations: the weights of some columns are unpacked once for all rows, unless they are
//! bytes as they lie, and four rows share each of their vectors.
//!
//! Products of two are added up in 16 bits as far as they fit there; with VNNI four are in 32 bits at once.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::activations::Quantized;
use super::super::formats::{AHEAD, Block, Place, Weights, by_format};
use super::super::matmul::{Int8, Job, TileProduct, store};
use super::super::pack::{IN_GROUP, PackedMatrix};
use super::super::scratch::Scratch;
use super::super::simd::{LANES, Simd};
use super::super::x86::{Avx2, products_in_16_bits};
use super::sums::{self, Halves, ROWS};

/// Blocks of 32 columns that are unpacked at a time: 22 KiB, which stay in a first-level cache.
const BLOCKS: usize = 32;

/// A block's weights, unpacked; `quants` only where they are not multiplied as they lie.
#[repr(C, align(64))]
struct Unpacked {
    /// Vectors of four columns.
    quants: [[u8; 64]; 8],
    /// Scales of the groups, then the minimum.
    factors: [[f32; LANES]; 3],
}

/// Computes these panels of a job whose input is in 8 bits. `VNNI`: its instructions may be used.
///
/// # Safety
/// The level is AVX2 or that with VNNI, the panels are the matrix's own, and input and output have the job's rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn project<const VNNI: bool>(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    // SAFETY: as the caller's; only quantised formats meet rounded activations.
    unsafe {
        by_format!(
            job.matrix.format,
            B => project_as::<B, VNNI>(job, x, panels),
            _ => unreachable!("plain numbers meet plain numbers"),
        )
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn project_as<B: Block, const VNNI: bool>(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    let (n, blocks) = (job.n, job.matrix.cols / 32);
    let whole = n - n % ROWS;
    let unpacked = Scratch::new(BLOCKS * size_of::<Unpacked>());
    let sums = Scratch::new(n * LANES * size_of::<f32>());
    let (unpacked, sums) = (unpacked.as_ptr().cast::<Unpacked>(), sums.as_ptr().cast::<f32>());
    for panel in panels {
        // SAFETY: as the caller's; memory was taken for so many blocks and for all rows.
        unsafe {
            for first in (0..blocks).step_by(BLOCKS) {
                let count = BLOCKS.min(blocks - first);
                for b in 0..count {
                    let group = Place::group::<B>(job.matrix, panel, first + b);
                    let weights = Weights::read::<B>(group, (first + b) % IN_GROUP, AHEAD);
                    unpack::<B, VNNI>(weights, unpacked.add(b));
                }
                for t in (0..whole).step_by(ROWS) {
                    let to = sums.add(t * LANES);
                    let mut acc: Halves<__m256> = [[_mm256_setzero_ps(); 2]; ROWS];
                    if first > 0 {
                        for r in 0..ROWS {
                            acc[r] = Avx2::load(to.add(r * LANES));
                        }
                    }
                    for b in 0..count {
                        if t == 0 {
                            prefetch::<B>(job.matrix, panel, first + count + b);
                        }
                        let w = unpacked.add(b);
                        let quants = if as_they_lie::<B, VNNI>() {
                            Place::of::<B>(job.matrix, panel, first + b).quants
                        } else {
                            (&raw const (*w).quants).cast()
                        };
                        add_block::<B, VNNI>(
                            quants,
                            &(*w).factors,
                            x,
                            t * blocks + first + b,
                            blocks,
                            &mut acc,
                        );
                    }
                    for r in 0..ROWS {
                        Avx2::store(to.add(r * LANES), acc[r]);
                    }
                }
            }
            for t in 0..whole {
                store::<Avx2>(job, panel, t, Avx2::load(sums.add(t * LANES)));
            }
            let mut t = whole;
            while t < n {
                t += match n - t {
                    2.. => Int8::<B>::tile::<Avx2, 2, 1>(job, [panel], t),
                    _ => Int8::<B>::tile::<Avx2, 1, 1>(job, [panel], t),
                };
            }
        }
    }
}

/// Asks for a block's weights, so that memory is read while others are multiplied. Behind the last block of a panel the next
/// panel begins.
#[inline(always)]
fn prefetch<B: Block>(matrix: &PackedMatrix, panel: usize, block: usize) {
    let quants = Place::of::<B>(matrix, panel, block).quants;
    for line in (0..B::QUANTS).step_by(64) {
        // SAFETY: an address that is not there is passed over.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(quants.wrapping_add(line).cast()) };
    }
}

/// Whether a panel's quants are multiplied as they are; VNNI wants unsigned ones.
const fn as_they_lie<B: Block, const VNNI: bool>() -> bool {
    B::MOST.is_none() && !VNNI
}

#[inline(always)]
unsafe fn unpack<B: Block, const VNNI: bool>(weights: Weights<Avx2>, to: *mut Unpacked) {
    // SAFETY: the caller's pointer.
    unsafe {
        if !as_they_lie::<B, VNNI>() {
            for (to, quants) in (*to).quants.iter_mut().zip(weights.quants) {
                for h in 0..2 {
                    // Flipping the sign bit adds 128.
                    let raised = _mm256_xor_si256(quants[h], _mm256_set1_epi8(-128));
                    let quants = if B::MOST.is_none() { raised } else { quants[h] };
                    _mm256_store_si256(to.as_mut_ptr().add(32 * h).cast(), quants);
                }
            }
        }
        let factors = [weights.scale[0], weights.scale[1], weights.minimum];
        for (to, factor) in (*to).factors.iter_mut().zip(factors) {
            Avx2::store(to.as_mut_ptr(), factor);
        }
    }
}

/// Adds a block's products with four rows to their sums. The block of the first row is `first`, from one row to the next
/// there are `stride`.
///
/// # Safety
/// The level is AVX2, the rows have these blocks, and `quants` points to the block's vectors, on a cache line.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block<B: Block, const VNNI: bool>(
    quants: *const u8,
    factors: &[[f32; LANES]; 3],
    x: &Quantized,
    first: usize,
    stride: usize,
    acc: &mut Halves<__m256>,
) {
    let offset = B::OFFSET + if VNNI && B::MOST.is_none() { 128 } else { 0 };
    let per_group = 8 / B::GROUPS;
    // SAFETY: the caller's rows have these blocks.
    unsafe {
        for g in 0..B::GROUPS {
            let q = x.q.as_ptr().add(32 * first + 4 * per_group * g);
            let dots = dots::<B, VNNI>(quants.add(64 * per_group * g), q, 32 * stride);
            let scale = Avx2::load(factors[g].as_ptr());
            for r in 0..ROWS {
                let block = first + r * stride;
                let x_scale = _mm256_broadcast_ss(x.scales.get_unchecked(block));
                for h in 0..2 {
                    let mut dot = _mm256_cvtepi32_ps(dots[r][h]);
                    if offset != 0 {
                        // Exact: whole numbers below 2^24.
                        let sum = if B::GROUPS == 1 {
                            x.sums.get_unchecked(block)
                        } else {
                            x.half_sums.get_unchecked(2 * block + g)
                        };
                        dot = _mm256_fmadd_ps(_mm256_broadcast_ss(sum), _mm256_set1_ps(-offset as f32), dot);
                    }
                    acc[r][h] = _mm256_fmadd_ps(_mm256_mul_ps(dot, scale[h]), x_scale, acc[r][h]);
                }
            }
        }
        if B::MINIMUM {
            let minimum = Avx2::load(factors[2].as_ptr());
            for r in 0..ROWS {
                let sum = _mm256_broadcast_ss(x.scaled_sums.get_unchecked(first + r * stride));
                for h in 0..2 {
                    acc[r][h] = _mm256_fmadd_ps(minimum[h], sum, acc[r][h]);
                }
            }
        }
    }
}

/// Sums of the products of a group of columns with the bytes at `x` and, `stride` bytes further each, of three more rows.
///
/// # Safety
/// As [`add_block`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<B: Block, const VNNI: bool>(w: *const u8, x: *const i8, stride: usize) -> Halves<__m256i> {
    if VNNI {
        // SAFETY: the caller's pointers.
        return unsafe {
            if B::GROUPS == 1 { sums::vnni_eight(w, x, stride) } else { sums::vnni_four(w, x, stride) }
        };
    }
    let Some(most) = B::MOST else {
        // SAFETY: the caller's pointers.
        return unsafe { sums::signed_eight(w, x, stride) };
    };
    let depth = products_in_16_bits(most);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for first in (0..8 / B::GROUPS).step_by(depth) {
        // SAFETY: the caller's pointers.
        let pairs = unsafe {
            let (w, x) = (w.add(64 * first), x.add(4 * first));
            match depth {
                8 => sums::eight(w, x, stride),
                4 => sums::four(w, x, stride),
                _ => sums::two(w, x, stride),
            }
        };
        for r in 0..ROWS {
            for h in 0..2 {
                let pairs = _mm256_madd_epi16(pairs[r][h], _mm256_set1_epi16(1));
                sums[r][h] = _mm256_add_epi32(sums[r][h], pairs);
            }
        }
    }
    sums
}
