//! Activations rounded to 8 bits, as the products with quantised weights read them.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::cell::Cell;

use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::cpu::pool::Pool;

/// Numbers that share a scale.
pub(super) const BLOCK: usize = 2 * LANES;

/// Numbers below which one thread is faster than waking others.
pub(super) const SERIAL: usize = 32 * 1024;

/// Numbers up to which the memory of rows is kept for the next ones: a few rows, which would be allocated for each
/// product of a token.
const KEPT: usize = 1 << 20;

/// Activations in 8 bits: `x = scale * q` in blocks of 32.
#[derive(Default)]
pub(super) struct Quantized {
    pub(super) q: Vec<i8>,
    pub(super) scales: Vec<f32>,
    /// Sums of the `q` of each 16, exact.
    pub(super) half_sums: Vec<f32>,
    /// Sums of the `q` of each 32, exact.
    pub(super) sums: Vec<f32>,
    /// The same with the scale, negative: what a minimum is multiplied with.
    pub(super) scaled_sums: Vec<f32>,
    /// The same numbers two rows at a time, at the level that multiplies them so.
    #[cfg(target_arch = "aarch64")]
    pub(super) pairs: super::neon_products::Pairs,
}

thread_local! {
    static SPARE: Cell<Quantized> = Cell::default();
}

impl Quantized {
    /// The `n` rows of `x`, whole blocks each.
    pub(super) fn of(pool: &Pool, level: Level, x: &[f32], n: usize) -> Self {
        let cols = x.len() / n.max(1);
        let (len, blocks) = (n * cols, cols / BLOCK);
        let mut this = SPARE.take();
        this.q.resize(len, 0);
        this.scales.resize(n * blocks, 0.0);
        this.half_sums.resize(2 * n * blocks, 0.0);
        this.sums.resize(n * blocks, 0.0);
        this.scaled_sums.resize(n * blocks, 0.0);
        let q = SendPtr(this.q.as_mut_ptr());
        let scales = SendPtr(this.scales.as_mut_ptr());
        let half_sums = SendPtr(this.half_sums.as_mut_ptr());
        let sums = SendPtr(this.sums.as_mut_ptr());
        let scaled_sums = SendPtr(this.scaled_sums.as_mut_ptr());
        let row = |t: usize| {
            // SAFETY: the level was detected; a row's parts are its own, and the vectors outlive the loop.
            unsafe {
                level.run(Quantize {
                    x: &x[t * cols..(t + 1) * cols],
                    q: q.get().add(t * cols),
                    scales: scales.get().add(t * blocks),
                    half_sums: half_sums.get().add(2 * t * blocks),
                    sums: sums.get().add(t * blocks),
                    scaled_sums: scaled_sums.get().add(t * blocks),
                });
            }
        };
        if len <= SERIAL {
            (0..n).for_each(row)
        } else {
            pool.run(n, &row)
        }
        #[cfg(target_arch = "aarch64")]
        {
            let mut pairs = std::mem::take(&mut this.pairs);
            pairs.fill(pool, &this, if level == Level::I8mm { n } else { 0 });
            this.pairs = pairs;
        }
        this
    }

    /// Keeps the memory for the next rows of this thread.
    pub(super) fn keep(self) {
        if self.q.len() <= KEPT {
            SPARE.set(self);
        }
    }
}

/// One row. The pointers are valid for its numbers and its blocks.
struct Quantize<'a> {
    x: &'a [f32],
    q: *mut i8,
    scales: *mut f32,
    half_sums: *mut f32,
    sums: *mut f32,
    scaled_sums: *mut f32,
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: as the structure says.
        unsafe {
            for b in 0..self.x.len() / BLOCK {
                let (x, q) = (self.x.as_ptr().add(b * BLOCK), self.q.add(b * BLOCK));
                let (scale, halves) = quantize_block::<S>(x, q);
                *self.scales.add(b) = scale;
                *self.half_sums.add(2 * b) = halves[0];
                *self.half_sums.add(2 * b + 1) = halves[1];
                let sum = halves[0] + halves[1];
                *self.sums.add(b) = sum;
                *self.scaled_sums.add(b) = -scale * sum;
            }
        }
    }
}

/// Rounds 32 numbers from `x` to `q`; their scale, and the sums of each half, exact.
///
/// # Safety
/// As [`Simd`]; both pointers are valid for 32 numbers.
#[inline(always)]
pub(super) unsafe fn quantize_block<S: Simd>(x: *const f32, q: *mut i8) -> (f32, [f32; 2]) {
    // SAFETY: the caller's pointers.
    unsafe {
        let x = [S::load(x), S::load(x.add(LANES))];
        let zero = S::splat(0.0);
        let sizes = [S::max(x[0], S::sub(zero, x[0])), S::max(x[1], S::sub(zero, x[1]))];
        let greatest = S::greatest(S::max(sizes[0], sizes[1]));
        // Of nothing, or next to nothing, it is infinite.
        let inverse = 127.0 / greatest;
        let inverse = S::splat(if inverse.is_finite() { inverse } else { 0.0 });
        let mut sums = [0.0; 2];
        for half in 0..2 {
            let whole = S::round(S::mul(x[half], inverse));
            S::store_i8(q.add(half * LANES), whole);
            sums[half] = S::sum(whole);
        }
        (greatest / 127.0, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn rows_are_rounded_to_the_nearest_of_255_at_every_level() {
        let mut random = Random::new(20);
        // From one row on the caller's thread to many on the pool's, larger and smaller in turn.
        for (n, cols) in [(1, 32), (3, 640), (40, 1024), (2, 96), (0, 64)] {
            let mut x: Vec<f32> = (0..n * cols).map(|i| random.number() * (i % 77) as f32).collect();
            for (block, size) in x.chunks_exact_mut(BLOCK).zip([0.0, 1e-38, 1e30].into_iter().cycle()) {
                block.iter_mut().for_each(|v| *v *= size);
            }
            for level in Level::available() {
                for threads in [1, 3] {
                    let got = Quantized::of(&Pool::new(threads), level, &x, n);
                    assert_eq!((got.q.len(), got.scales.len()), (n * cols, n * cols / BLOCK));
                    check(&x, &got, level);
                    got.keep();
                }
            }
        }
    }

    /// Each block against plain code.
    fn check(x: &[f32], got: &Quantized, level: Level) {
        for (b, (x, q)) in x.chunks_exact(BLOCK).zip(got.q.chunks_exact(BLOCK)).enumerate() {
            let greatest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let inverse = 127.0 / greatest;
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            let want: Vec<i8> = x.iter().map(|v| (v * inverse).round_ties_even() as i8).collect();
            assert_eq!(q, want, "block {b} at {level:?}");
            assert_eq!(got.scales[b], greatest / 127.0, "block {b} at {level:?}");
            let sum = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum::<i32>() as f32;
            assert_eq!(got.half_sums[2 * b..2 * b + 2], [sum(&q[..LANES]), sum(&q[LANES..])]);
            assert_eq!(got.sums[b], sum(q));
            assert_eq!(got.scaled_sums[b], -got.scales[b] * sum(q));
        }
    }
}
