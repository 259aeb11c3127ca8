//! Products on ARM: quarters of a panel against tiles of rows, so that the sums of a tile stay in 32 registers
//! of four lanes each, which a whole panel's would not.
//!
//! Every output adds up the same terms in the same order as in `matmul`, so the bits are those of the other
//! levels. Many rows are multiplied two by two where the processor has products of small matrices (2 rows by
//! 8 columns by 2 outputs): two vectors of a panel, four columns each, interleave to what these read.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]
#![allow(unused_unsafe, reason = "newer compilers find NEON safe on ARM")]

use std::arch::aarch64::*;
use std::ops::Range;

use super::activations::{Quantized, SERIAL};
use super::formats::{Block, Place, Plain, by_format};
use super::matmul::{Input, Job};
use super::neon::{Bytes, DotProducts, Quarter, Widening, small_matrix};
use super::pool::Pool;
use super::simd::{LANES, Simd};
use super::{Level, SendPtr};
use crate::quant::Format;

/// Lanes of a register.
const QUARTER: usize = 4;
/// Registers of a panel's outputs.
const PARTS: usize = LANES / QUARTER;
/// Bytes of a block of 32 columns of two rows.
const PAIR_BYTES: usize = 64;
/// Numbers that a block of a pair has besides.
const PAIR_FACTORS: usize = 8;

/// Activations in 8 bits, two rows interleaved by eight columns.
#[derive(Default)]
pub(crate) struct Pairs {
    /// `[pair, block of 32, 4, 2 rows, 8 columns]`.
    q: Vec<i8>,
    /// `[pair, block of 32, 8]`: the scale of the first row twice and of the second twice; the same for the
    /// negative sum of what was rounded.
    factors: Vec<f32>,
}

impl Pairs {
    /// The whole pairs of the `n` rows of `x`, in the place of those before.
    pub(crate) fn fill(&mut self, pool: &Pool, x: &Quantized, n: usize) {
        let (pairs, blocks) = (n / 2, x.scales.len() / n.max(1));
        self.q.resize(pairs * blocks * PAIR_BYTES, 0);
        self.factors.resize(pairs * blocks * PAIR_FACTORS, 0.0);
        let (q, factors) = (SendPtr(self.q.as_mut_ptr()), SendPtr(self.factors.as_mut_ptr()));
        let interleave = |pair: usize| {
            // SAFETY: a pair's part of both vectors is its own, and they outlive the loop.
            let (q, factors) = unsafe {
                let (bytes, numbers) = (blocks * PAIR_BYTES, blocks * PAIR_FACTORS);
                (
                    std::slice::from_raw_parts_mut(q.get().add(pair * bytes), bytes),
                    std::slice::from_raw_parts_mut(factors.get().add(pair * numbers), numbers),
                )
            };
            let to = q.chunks_exact_mut(PAIR_BYTES).zip(factors.chunks_exact_mut(PAIR_FACTORS));
            for (b, (q, factors)) in to.enumerate() {
                for r in 0..2 {
                    let block = (2 * pair + r) * blocks + b;
                    let row = x.q[32 * block..32 * (block + 1)].chunks_exact(8);
                    q.chunks_exact_mut(16).zip(row).for_each(|(to, eight)| {
                        to[8 * r..8 * (r + 1)].copy_from_slice(eight);
                    });
                    let scale = x.scales[block];
                    factors[2 * r..2 * (r + 1)].fill(scale);
                    factors[4 + 2 * r..4 + 2 * (r + 1)].fill(x.scaled_sums[block]);
                }
            }
        };
        if self.q.len() <= SERIAL { (0..pairs).for_each(interleave) } else { pool.run(pairs, &interleave) }
    }
}

/// Computes these panels of a job at one of the ARM levels.
pub(crate) fn project(job: &Job<'_>, panels: Range<usize>) {
    // SAFETY: the level was detected; the panels are the matrix's own, the input and output have `n` rows.
    unsafe {
        match (&job.input, job.level) {
            (&Input::F32 { x, stride }, _) => exact(job, x, stride, panels),
            (Input::Int8(x), Level::I8mm) => i8mm(job, x, panels),
            (Input::Int8(x), Level::Dotprod) => dotprod(job, x, panels),
            (Input::Int8(x), _) => rounded::<Widening, false>(job, x, panels),
        }
    }
}

#[target_feature(enable = "dotprod")]
unsafe fn dotprod(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    // SAFETY: as the caller's.
    unsafe { rounded::<DotProducts, false>(job, x, panels) }
}

#[target_feature(enable = "dotprod,i8mm")]
unsafe fn i8mm(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    // SAFETY: as the caller's.
    unsafe { rounded::<DotProducts, true>(job, x, panels) }
}

/// Activations in f32: no instruction that some ARM lacks.
unsafe fn exact(job: &Job<'_>, x: &[f32], stride: usize, panels: Range<usize>) {
    let rows = Rows { x, stride };
    // SAFETY: as the caller's.
    unsafe {
        by_format!(
            job.matrix.format,
            B => rows.tiles::<Dequantized<B>>(job, panels),
            P => rows.tiles::<Numbers<P>>(job, panels),
        )
    }
}

/// Activations in 8 bits. `I8MM`: products of small matrices may be used.
#[inline(always)]
unsafe fn rounded<D: Bytes, const I8MM: bool>(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    // SAFETY: as the caller's; only quantised formats meet rounded activations.
    unsafe {
        by_format!(
            job.matrix.format,
            B => int8::<D, B, I8MM>(job, x, panels),
            _ => unreachable!("plain numbers meet plain numbers"),
        )
    }
}

#[inline(always)]
unsafe fn int8<D: Bytes, B: Block, const I8MM: bool>(job: &Job<'_>, x: &Quantized, panels: Range<usize>) {
    for panel in panels {
        // SAFETY: the tiles stay below `n`.
        unsafe {
            let mut t = 0;
            if I8MM {
                while t + 8 <= job.n {
                    pair_tile::<D, B, 2, 4>(job, &x.pairs, panel, 0, t);
                    pair_tile::<D, B, 2, 4>(job, &x.pairs, panel, 2, t);
                    t += 8;
                }
                if t + 4 <= job.n {
                    pair_tile::<D, B, 4, 2>(job, &x.pairs, panel, 0, t);
                    t += 4;
                }
                if t + 2 <= job.n {
                    pair_tile::<D, B, 4, 1>(job, &x.pairs, panel, 0, t);
                    t += 2;
                }
            } else {
                while t + 8 <= job.n {
                    int8_tile::<D, B, 2, 8>(job, x, panel, 0, t);
                    int8_tile::<D, B, 2, 8>(job, x, panel, 2, t);
                    t += 8;
                }
                if t + 4 <= job.n {
                    int8_tile::<D, B, 4, 4>(job, x, panel, 0, t);
                    t += 4;
                }
                if t + 2 <= job.n {
                    int8_tile::<D, B, 4, 2>(job, x, panel, 0, t);
                    t += 2;
                }
            }
            while t < job.n {
                int8_tile::<D, B, 4, 1>(job, x, panel, 0, t);
                t += 1;
            }
        }
    }
}

/// Quants of a block for the outputs of register `part`, four columns a vector.
#[inline(always)]
unsafe fn quants<S: Simd, B: Block>(place: Place, part: usize) -> [S::B; 8] {
    // SAFETY: the block is inside the panel.
    unsafe { B::quants::<S>(place.quants.add(part * 4 * QUARTER)) }
}

/// Scales and minimum of a block for the outputs of register `part`.
#[inline(always)]
unsafe fn scales<S: Simd, B: Block>(place: Place, part: usize) -> ([S::F; 2], S::F) {
    // Below scales in f16 those of a block are bytes, else f16 themselves.
    let bytes = if B::PER_256 > 0 { 1 } else { 2 };
    // SAFETY: the block is inside the panel.
    unsafe {
        let (per_256, per_32) =
            (place.per_256.add(part * 2 * QUARTER), place.per_32.add(part * bytes * QUARTER));
        B::scales::<S>(per_256, per_32)
    }
}

/// `H` registers of a panel, from `part` on, against the `M` rows from `t` on.
#[inline(always)]
unsafe fn int8_tile<D: Bytes, B: Block, const H: usize, const M: usize>(
    job: &Job<'_>,
    x: &Quantized,
    panel: usize,
    part: usize,
    t: usize,
) {
    let cols = job.matrix.cols;
    // SAFETY: all pointers stay inside the panel and inside the rows `t..t + M` of the activations.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); M]; H];
        for b in 0..cols / 32 {
            let place = Place::of::<B>(job.matrix, panel, b);
            for h in 0..H {
                let w = quants::<Quarter<D>, B>(place, part + h);
                let (scale, minimum) = scales::<Quarter<D>, B>(place, part + h);
                for m in 0..M {
                    let row = (t + m) * cols + 32 * b;
                    let q = x.q.as_ptr().add(row);
                    let (low, high) = (vld1q_s8(q), vld1q_s8(q.add(16)));
                    let x_scale = *x.scales.get_unchecked(row / 32);
                    let sum = *x.sums.get_unchecked(row / 32);
                    let first = half_dot::<D>(vdupq_n_s32(0), [w[0], w[1], w[2], w[3]], low);
                    let second = if B::GROUPS == 1 { first } else { vdupq_n_s32(0) };
                    let second = half_dot::<D>(second, [w[4], w[5], w[6], w[7]], high);
                    for g in 0..B::GROUPS {
                        let mut dot = vcvtq_f32_s32(if g + 1 == B::GROUPS { second } else { first });
                        if B::OFFSET != 0 {
                            // Exact: whole numbers below 2^24.
                            let sum =
                                if B::GROUPS == 1 { sum } else { *x.half_sums.get_unchecked(row / 16 + g) };
                            dot = vfmaq_n_f32(dot, vdupq_n_f32(-B::OFFSET as f32), sum);
                        }
                        acc[h][m] = vfmaq_n_f32(acc[h][m], vmulq_f32(dot, scale[g]), x_scale);
                    }
                    if B::MINIMUM {
                        acc[h][m] = vfmaq_n_f32(acc[h][m], minimum, -x_scale * sum);
                    }
                }
            }
        }
        store_tile(job, panel, part, t, &acc);
    }
}

/// Sixteen columns, of which `x` has one row's numbers.
#[inline(always)]
unsafe fn half_dot<D: Bytes>(acc: int32x4_t, w: [uint8x16_t; 4], x: int8x16_t) -> int32x4_t {
    // SAFETY: the level has the instructions.
    unsafe {
        let acc = D::dot::<0>(acc, vreinterpretq_s8_u8(w[0]), x);
        let acc = D::dot::<1>(acc, vreinterpretq_s8_u8(w[1]), x);
        let acc = D::dot::<2>(acc, vreinterpretq_s8_u8(w[2]), x);
        D::dot::<3>(acc, vreinterpretq_s8_u8(w[3]), x)
    }
}

/// `H` registers of a panel, from `part` on, against the `P` pairs of rows from row `t` on, an even one.
#[inline(always)]
unsafe fn pair_tile<D: Bytes, B: Block, const H: usize, const P: usize>(
    job: &Job<'_>,
    x: &Pairs,
    panel: usize,
    part: usize,
    t: usize,
) {
    let blocks = job.matrix.cols / 32;
    let groups = 4 / B::GROUPS;
    // SAFETY: all pointers stay inside the panel and inside the pairs, of which there are `n / 2`.
    unsafe {
        let q = x.q.as_ptr().add(t / 2 * blocks * PAIR_BYTES);
        let factors = x.factors.as_ptr().add(t / 2 * blocks * PAIR_FACTORS);
        // Two outputs each: those of the first row, then those of the second.
        let mut acc = [[[vdupq_n_f32(0.0); 2]; P]; H];
        for b in 0..blocks {
            let place = Place::of::<B>(job.matrix, panel, b);
            for h in 0..H {
                let w = quants::<Quarter<D>, B>(place, part + h);
                let mut eights = [[vdupq_n_s8(0); 2]; 4];
                for k in 0..4 {
                    let offset = vdupq_n_s8(B::OFFSET as i8);
                    let first = vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_u8(w[2 * k]), offset));
                    let second = vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_u8(w[2 * k + 1]), offset));
                    eights[k][0] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                    eights[k][1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                }
                let (scale, minimum) = scales::<Quarter<D>, B>(place, part + h);
                for p in 0..P {
                    let q = q.add((p * blocks + b) * PAIR_BYTES);
                    let factors = factors.add((p * blocks + b) * PAIR_FACTORS);
                    let (x_scale, share) = (vld1q_f32(factors), vld1q_f32(factors.add(4)));
                    for g in 0..B::GROUPS {
                        let mut dots = [vdupq_n_s32(0); 2];
                        for k in g * groups..(g + 1) * groups {
                            let x = vld1q_s8(q.add(16 * k));
                            dots[0] = small_matrix(dots[0], x, eights[k][0]);
                            dots[1] = small_matrix(dots[1], x, eights[k][1]);
                        }
                        for o in 0..2 {
                            let product = vmulq_f32(vcvtq_f32_s32(dots[o]), twice(scale[g], o));
                            acc[h][p][o] = vfmaq_f32(acc[h][p][o], product, x_scale);
                        }
                    }
                    if B::MINIMUM {
                        for o in 0..2 {
                            acc[h][p][o] = vfmaq_f32(acc[h][p][o], twice(minimum, o), share);
                        }
                    }
                }
            }
        }
        for h in 0..H {
            for p in 0..P {
                let [low, high] = acc[h][p];
                let first = vcombine_f32(vget_low_f32(low), vget_low_f32(high));
                let second = vcombine_f32(vget_high_f32(low), vget_high_f32(high));
                store(job, panel, part + h, t + 2 * p, first);
                store(job, panel, part + h, t + 2 * p + 1, second);
            }
        }
    }
}

/// Half `o` of `a`, in both halves.
#[inline(always)]
unsafe fn twice(a: float32x4_t, o: usize) -> float32x4_t {
    // SAFETY: NEON belongs to the target.
    unsafe {
        let half = if o == 0 { vget_low_f32(a) } else { vget_high_f32(a) };
        vcombine_f32(half, half)
    }
}

/// Rows of f32.
struct Rows<'a> {
    /// Begins at the first row's first number.
    x: &'a [f32],
    /// From one row to the next.
    stride: usize,
}

/// Registers that are no different from one level to the next.
type Four = Quarter<Widening>;

/// `H` registers of a panel, from `part` on, against the `M` rows from `t` on.
trait Tile {
    unsafe fn tile<const H: usize, const M: usize>(
        x: &Rows<'_>,
        job: &Job<'_>,
        panel: usize,
        part: usize,
        t: usize,
    );
}

impl Rows<'_> {
    unsafe fn tiles<T: Tile>(&self, job: &Job<'_>, panels: Range<usize>) {
        for panel in panels {
            // SAFETY: the tiles stay below `n`.
            unsafe {
                let mut t = 0;
                while t + 8 <= job.n {
                    for part in 0..PARTS {
                        T::tile::<1, 8>(self, job, panel, part, t);
                    }
                    t += 8;
                }
                if t + 4 <= job.n {
                    T::tile::<2, 4>(self, job, panel, 0, t);
                    T::tile::<2, 4>(self, job, panel, 2, t);
                    t += 4;
                }
                if t + 2 <= job.n {
                    T::tile::<4, 2>(self, job, panel, 0, t);
                    t += 2;
                }
                if t < job.n {
                    T::tile::<4, 1>(self, job, panel, 0, t);
                }
            }
        }
    }
}

/// Quantised weights, as numbers.
struct Dequantized<B>(std::marker::PhantomData<B>);

impl<B: Block> Tile for Dequantized<B> {
    #[inline(always)]
    unsafe fn tile<const H: usize, const M: usize>(
        x: &Rows<'_>,
        job: &Job<'_>,
        panel: usize,
        part: usize,
        t: usize,
    ) {
        // SAFETY: all pointers stay inside the panel and inside the rows `t..t + M` of the activations.
        unsafe {
            let row = x.x.as_ptr().add(t * x.stride);
            let mut acc = [[vdupq_n_f32(0.0); M]; H];
            for b in 0..job.matrix.cols / 32 {
                let place = Place::of::<B>(job.matrix, panel, b);
                for h in 0..H {
                    let w = quants::<Four, B>(place, part + h);
                    let (scale, minimum) = scales::<Four, B>(place, part + h);
                    for j in 0..8 {
                        let q = if B::MOST.is_none() {
                            [
                                Four::byte_signed::<0>(w[j]),
                                Four::byte_signed::<1>(w[j]),
                                Four::byte_signed::<2>(w[j]),
                                Four::byte_signed::<3>(w[j]),
                            ]
                        } else {
                            [
                                Four::byte::<0>(w[j]),
                                Four::byte::<1>(w[j]),
                                Four::byte::<2>(w[j]),
                                Four::byte::<3>(w[j]),
                            ]
                        };
                        let mut weights = [minimum; 4];
                        for k in 0..4 {
                            let q = vsubq_f32(q[k], vdupq_n_f32(B::OFFSET as f32));
                            weights[k] = vsubq_f32(vmulq_f32(q, scale[j * B::GROUPS / 8]), minimum);
                        }
                        for m in 0..M {
                            let four = vld1q_f32(row.add(m * x.stride + 32 * b + 4 * j));
                            acc[h][m] = vfmaq_laneq_f32::<0>(acc[h][m], weights[0], four);
                            acc[h][m] = vfmaq_laneq_f32::<1>(acc[h][m], weights[1], four);
                            acc[h][m] = vfmaq_laneq_f32::<2>(acc[h][m], weights[2], four);
                            acc[h][m] = vfmaq_laneq_f32::<3>(acc[h][m], weights[3], four);
                        }
                    }
                }
            }
            store_tile(job, panel, part, t, &acc);
        }
    }
}

/// Plain numbers; even and odd columns add up apart.
struct Numbers<P>(std::marker::PhantomData<P>);

impl<P: Plain> Tile for Numbers<P> {
    #[inline(always)]
    unsafe fn tile<const H: usize, const M: usize>(
        x: &Rows<'_>,
        job: &Job<'_>,
        panel: usize,
        part: usize,
        t: usize,
    ) {
        let cols = job.matrix.cols;
        // Pairs of bf16 are as wide as an f32.
        let lane = if job.matrix.format == Format::F16 { 2 } else { 4 };
        let base = job.matrix.panel(panel).wrapping_add(part * lane * QUARTER);
        // SAFETY: all pointers stay inside the panel and inside the rows `t..t + M` of the activations.
        unsafe {
            let row = x.x.as_ptr().add(t * x.stride);
            let mut even = [[vdupq_n_f32(0.0); M]; H];
            let mut odd = [[vdupq_n_f32(0.0); M]; H];
            let mut k = 0;
            while k + 4 <= cols {
                let mut four = [vdupq_n_f32(0.0); M];
                for m in 0..M {
                    four[m] = vld1q_f32(row.add(m * x.stride + k));
                }
                for h in 0..H {
                    let from = base.add(k / 2 * P::PAIR + h * lane * QUARTER);
                    let (first, second) = P::pair::<Four>(from, false);
                    let (third, fourth) = P::pair::<Four>(from.add(P::PAIR), false);
                    for m in 0..M {
                        even[h][m] = vfmaq_laneq_f32::<0>(even[h][m], first, four[m]);
                        odd[h][m] = vfmaq_laneq_f32::<1>(odd[h][m], second, four[m]);
                    }
                    for m in 0..M {
                        even[h][m] = vfmaq_laneq_f32::<2>(even[h][m], third, four[m]);
                        odd[h][m] = vfmaq_laneq_f32::<3>(odd[h][m], fourth, four[m]);
                    }
                }
                k += 4;
            }
            while k < cols {
                let last = k + 1 == cols;
                for h in 0..H {
                    let from = base.add(k / 2 * P::PAIR + h * lane * QUARTER);
                    let (first, second) = P::pair::<Four>(from, last);
                    for m in 0..M {
                        let at = row.add(m * x.stride + k);
                        even[h][m] = vfmaq_n_f32(even[h][m], first, *at);
                        if !last {
                            odd[h][m] = vfmaq_n_f32(odd[h][m], second, *at.add(1));
                        }
                    }
                }
                k += 2;
            }
            for h in 0..H {
                for m in 0..M {
                    even[h][m] = vaddq_f32(even[h][m], odd[h][m]);
                }
            }
            store_tile(job, panel, part, t, &even);
        }
    }
}

/// Writes `H` registers of a panel, from `part` on, of the `M` rows from `t` on.
#[inline(always)]
unsafe fn store_tile<const H: usize, const M: usize>(
    job: &Job<'_>,
    panel: usize,
    part: usize,
    t: usize,
    sums: &[[float32x4_t; M]; H],
) {
    for h in 0..H {
        for m in 0..M {
            // SAFETY: as the caller's.
            unsafe { store(job, panel, part + h, t + m, sums[h][m]) };
        }
    }
}

/// Writes the outputs of a panel's register `part` of one row with their bias, fewer than four at the
/// matrix's end.
#[inline(always)]
unsafe fn store(job: &Job<'_>, panel: usize, part: usize, t: usize, acc: float32x4_t) {
    let rows = job.matrix.rows;
    let first = panel * LANES + part * QUARTER;
    if first >= rows {
        return;
    }
    // SAFETY: `t < n` and `first` is an output of a panel that is computed, so the row's columns from it on are in
    // the output; the bias has `rows` numbers.
    unsafe {
        let to = job.out.get().add(t * job.out_stride + first - job.first_output);
        let bias = job.bias.map(|bias| bias.as_ptr().add(first));
        if first + QUARTER <= rows {
            let sum = if let Some(bias) = bias { vaddq_f32(acc, vld1q_f32(bias)) } else { acc };
            vst1q_f32(to, sum);
        } else {
            let mut lanes = [0.0f32; QUARTER];
            vst1q_f32(lanes.as_mut_ptr(), acc);
            for i in 0..rows - first {
                *to.add(i) = if let Some(bias) = bias { lanes[i] + *bias.add(i) } else { lanes[i] };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn pairs_are_those_of_the_last_rows() {
        let (mut random, mut pairs, pool) = (Random::new(45), Pairs::default(), Pool::new(3));
        for (n, cols) in [(2, 64), (41, 1024), (5, 96), (1, 32), (4, 32)] {
            let (x, blocks) = (Quantized::of(&pool, Level::Neon, &random.numbers(n * cols), n), cols / 32);
            pairs.fill(&pool, &x, n);
            assert_eq!(pairs.q.len(), n / 2 * 2 * cols);
            for (t, c) in (0..n / 2 * 2).flat_map(|t| (0..cols).map(move |c| (t, c))) {
                let (pair, row) = (t / 2 * blocks + c / 32, t * blocks + c / 32);
                let q = pairs.q[pair * PAIR_BYTES + c % 32 / 8 * 16 + t % 2 * 8 + c % 8];
                assert_eq!(q, x.q[t * cols + c]);
                let factors = &pairs.factors[pair * PAIR_FACTORS + t % 2 * 2..];
                assert_eq!(factors[..2], [x.scales[row]; 2]);
                assert_eq!(factors[4..6], [-x.scales[row] * x.sums[row]; 2]);
            }
        }
    }
}
