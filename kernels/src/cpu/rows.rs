//! Operations that work on each row, or each number, alone: norms, rotary embedding, GELU, soft cap, pooling.

use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::cpu::pool::Pool;
use crate::ops::Rope;
use crate::reference::rotate_half;

/// Numbers below which one thread is faster than waking others.
const SERIAL: usize = 16 * 1024;

/// Splits `len` numbers into pieces of whole `row`s and calls `body` with each piece's range.
fn in_pieces(pool: &Pool, len: usize, row: usize, body: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
    let rows = len / row.max(1);
    let rows_each = if len < SERIAL { rows } else { rows.div_ceil(4 * pool.threads()) }.max(1);
    pool.run(rows.div_ceil(rows_each), &|i| {
        body(i * rows_each * row..((i + 1) * rows_each).min(rows) * row);
    });
}

/// `x / rms(x) * weight` from `x` to `out`, which may be the same memory.
pub(crate) fn rms_norm(pool: &Pool, level: Level, x: *const f32, out: &mut [f32], weight: &[f32], eps: f32) {
    let (to, from) = (SendPtr(out.as_mut_ptr()), SendPtr(x.cast_mut()));
    in_pieces(pool, out.len(), weight.len(), &|piece| {
        for at in piece.step_by(weight.len()) {
            // SAFETY: the level was detected; both sides have the piece's rows, which no other piece has.
            unsafe { level.run(Norm { x: from.get().add(at), out: to.get().add(at), weight, eps }) };
        }
    });
}

struct Norm<'a> {
    x: *const f32,
    out: *mut f32,
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for Norm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let len = self.weight.len();
        let vectors = len / LANES * LANES;
        // SAFETY: `x`, `out` and `weight` are `len` long.
        unsafe {
            // Two sums, so that one addition need not wait for the other.
            let mut squares = [S::splat(0.0); 2];
            for i in (0..vectors).step_by(LANES) {
                let x = S::load(self.x.add(i));
                squares[i / LANES % 2] = S::fma(x, x, squares[i / LANES % 2]);
            }
            let mut sum = S::sum(S::add(squares[0], squares[1]));
            for i in vectors..len {
                sum += *self.x.add(i) * *self.x.add(i);
            }
            let scale = 1.0 / (sum / len as f32 + self.eps).sqrt();
            for i in (0..vectors).step_by(LANES) {
                let x = S::mul(S::load(self.x.add(i)), S::splat(scale));
                S::store(self.out.add(i), S::mul(x, S::load(self.weight.as_ptr().add(i))));
            }
            for i in vectors..len {
                *self.out.add(i) = *self.x.add(i) * scale * self.weight[i];
            }
        }
    }
}

/// What a layer norm does behind the scaling.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) eps: f32,
}

/// See [`crate::Ops::layer_norm`].
pub(crate) fn layer_norm(pool: &Pool, level: Level, x: &[f32], out: &mut [f32], affine: Affine<'_>) {
    let len = affine.weight.len();
    assert!(x.len() == out.len() && affine.bias.len() == len, "a norm writes what it reads");
    let to = SendPtr(out.as_mut_ptr());
    in_pieces(pool, x.len(), len, &|piece| {
        for at in piece.step_by(len) {
            // SAFETY: the level was detected; rows are disjoint parts of `out`.
            unsafe {
                let out = std::slice::from_raw_parts_mut(to.get().add(at), len);
                level.run(LayerNorm { x: &x[at..at + len], out, affine });
            }
        }
    });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    affine: Affine<'a>,
}

impl Kernel for LayerNorm<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, out, affine: Affine { weight, bias, eps } } = self;
        let len = x.len();
        let vectors = len / LANES * LANES;
        // SAFETY: all four are `len` long.
        unsafe {
            let mut sum = S::splat(0.0);
            for i in (0..vectors).step_by(LANES) {
                sum = S::add(sum, S::load(x.as_ptr().add(i)));
            }
            let mut total = S::sum(sum);
            for v in &x[vectors..] {
                total += v;
            }
            let mean = total / len as f32;
            let mut squares = S::splat(0.0);
            for i in (0..vectors).step_by(LANES) {
                let d = S::sub(S::load(x.as_ptr().add(i)), S::splat(mean));
                squares = S::fma(d, d, squares);
            }
            let mut total = S::sum(squares);
            for v in &x[vectors..] {
                total += (v - mean) * (v - mean);
            }
            let scale = 1.0 / (total / len as f32 + eps).sqrt();
            for i in (0..vectors).step_by(LANES) {
                let d = S::mul(S::sub(S::load(x.as_ptr().add(i)), S::splat(mean)), S::splat(scale));
                let y = S::fma(d, S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
                S::store(out.as_mut_ptr().add(i), y);
            }
            for i in vectors..len {
                out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

/// See [`crate::Ops::average_pool`].
pub(crate) fn average_pool(pool: &Pool, x: &[f32], side: usize, kernel: usize, out: &mut [f32]) {
    let width = x.len() / (side * side).max(1);
    let small = side / kernel.max(1);
    assert_eq!(out.len(), small * small * width, "every square has a row");
    let base = SendPtr(out.as_mut_ptr());
    in_pieces(pool, out.len(), width, &|piece| {
        for at in piece.step_by(width) {
            // SAFETY: rows are disjoint parts of `out`.
            let out = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), width) };
            let (top, left) = (at / width / small * kernel, at / width % small * kernel);
            out.fill(0.0);
            for row in (0..kernel * kernel).map(|j| (top + j / kernel) * side + left + j % kernel) {
                for (o, v) in out.iter_mut().zip(&x[row * width..]) {
                    *o += v;
                }
            }
            let count = (kernel * kernel) as f32;
            out.iter_mut().for_each(|o| *o /= count);
        }
    });
}

/// See [`crate::Ops::rope`].
pub(crate) fn rope(pool: &Pool, x: &mut [f32], heads: usize, head_dim: usize, start: usize, rope: &Rope) {
    let row = heads * head_dim;
    let base = SendPtr(x.as_mut_ptr());
    in_pieces(pool, x.len(), row, &|piece| {
        for at in piece.step_by(row) {
            // SAFETY: rows are disjoint parts of `x`.
            let numbers = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), row) };
            for head in numbers.chunks_exact_mut(head_dim) {
                rotate_half(&mut head[..rope.dim()], rope.at(start + at / row));
            }
        }
    });
}

/// What an element-wise operation does to `x`, with `y` beside it.
#[derive(Clone, Copy)]
pub(crate) enum Elementwise {
    /// `gelu_tanh(x) * y`
    Geglu,
    /// `gelu_tanh(x)`; `y` is not read.
    Gelu,
    /// `x + y`
    Add,
    /// `cap * tanh(x / cap)`; `y` is not read.
    SoftCap(f32),
}

/// Applies an operation to all numbers of `x`; `y` is as long, or empty where it is not read.
pub(crate) fn elementwise(pool: &Pool, level: Level, op: Elementwise, x: &mut [f32], y: &[f32]) {
    assert!(
        matches!(op, Elementwise::Gelu | Elementwise::SoftCap(_)) || x.len() == y.len(),
        "both sides are as long"
    );
    let base = SendPtr(x.as_mut_ptr());
    in_pieces(pool, x.len(), 1, &|range: std::ops::Range<usize>| {
        // SAFETY: the level was detected; ranges are disjoint parts of `x`.
        unsafe {
            let x = std::slice::from_raw_parts_mut(base.get().add(range.start), range.len());
            level.run(Map { op, x, y: y.get(range).unwrap_or_default() });
        }
    });
}

struct Map<'a> {
    op: Elementwise,
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Map<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let len = self.x.len();
        let (x, y) = (self.x.as_mut_ptr(), self.y.as_ptr());
        let mut i = 0;
        // SAFETY: `x` has `len` numbers, and so has `y` where it is read.
        unsafe {
            while i + LANES <= len {
                let other = if self.y.is_empty() { S::splat(0.0) } else { S::load(y.add(i)) };
                S::store(x.add(i), apply::<S>(self.op, S::load(x.add(i)), other));
                i += LANES;
            }
            // The rest takes the same path as a filled-up vector: a number's bits must not depend on
            // where a piece ends.
            let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
            a[..len - i].copy_from_slice(&self.x[i..]);
            b[..self.y.len() - i.min(self.y.len())].copy_from_slice(&self.y[i.min(self.y.len())..]);
            let result = apply::<S>(self.op, S::load(a.as_ptr()), S::load(b.as_ptr()));
            S::store(a.as_mut_ptr(), result);
            self.x[i..].copy_from_slice(&a[..len - i]);
        }
    }
}

#[inline(always)]
unsafe fn apply<S: Simd>(op: Elementwise, x: S::F, y: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        match op {
            Elementwise::Add => S::add(x, y),
            Elementwise::Geglu => S::mul(gelu::<S>(x), y),
            Elementwise::Gelu => gelu::<S>(x),
            Elementwise::SoftCap(cap) => S::mul(S::tanh(S::div(x, S::splat(cap))), S::splat(cap)),
        }
    }
}

/// `x * Phi(x)` in its tanh approximation: `x / (1 + e^(-2u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
unsafe fn gelu<S: Simd>(x: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        let cubic = S::fma(S::mul(S::mul(x, x), S::splat(0.044_715)), x, x);
        let e = S::exp(S::mul(cubic, S::splat(-1.595_769)));
        S::div(x, S::add(S::splat(1.0), e))
    }
}

/// A number of each piece of the numbers; the pieces are short, and as long with one thread as with several.
fn of_pieces(pool: &Pool, x: &[f32], number: &(dyn Fn(&[f32], &mut f32) + Sync)) -> Vec<f32> {
    let mut of_each = vec![0.0f32; x.len().div_ceil(SERIAL)];
    let to = SendPtr(of_each.as_mut_ptr());
    pool.run(of_each.len(), &|i| {
        // SAFETY: each piece has a number of its own.
        number(&x[i * SERIAL..((i + 1) * SERIAL).min(x.len())], unsafe { &mut *to.get().add(i) });
    });
    of_each
}

fn greatest_of_pieces(pool: &Pool, level: Level, x: &[f32]) -> Vec<f32> {
    of_pieces(pool, x, &|x, greatest| {
        // SAFETY: the level was detected.
        unsafe { level.run(Greatest { x, greatest }) };
    })
}

/// See [`crate::Ops::greatest`].
pub(crate) fn greatest(pool: &Pool, level: Level, x: &[f32]) -> usize {
    let of_pieces = greatest_of_pieces(pool, level, x);
    let top = of_pieces.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let first = of_pieces.iter().position(|&greatest| greatest == top).unwrap_or(0) * SERIAL;
    x[first..].iter().position(|&v| v == top).map_or(0, |at| first + at)
}

struct Greatest<'a> {
    x: &'a [f32],
    greatest: &'a mut f32,
}

impl Kernel for Greatest<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        // SAFETY: chunks are whole vectors.
        unsafe {
            let mut greatest = S::splat(f32::NEG_INFINITY);
            for chunk in chunks {
                // The second where the first is not a number.
                greatest = S::max(S::load(chunk.as_ptr()), greatest);
            }
            *self.greatest = rest.iter().copied().fold(S::greatest(greatest), f32::max);
        }
    }
}

/// See [`crate::Ops::log_sum_exp`]. Pieces have a fixed length, so that the sum does not depend on the
/// number of threads.
pub(crate) fn log_sum_exp(pool: &Pool, level: Level, x: &[f32]) -> f32 {
    let max = greatest_of_pieces(pool, level, x).into_iter().fold(f32::NEG_INFINITY, f32::max);
    let sums = of_pieces(pool, x, &|x, sum| {
        // SAFETY: the level was detected.
        unsafe { level.run(SumExp { x, max, sum }) };
    });
    let total: f64 = sums.iter().copied().map(f64::from).sum();
    (f64::from(max) + total.ln()) as f32
}

struct SumExp<'a> {
    x: &'a [f32],
    max: f32,
    sum: &'a mut f32,
}

impl Kernel for SumExp<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        // SAFETY: chunks are whole vectors.
        unsafe {
            let mut sum = S::splat(0.0);
            for chunk in chunks {
                sum = S::add(sum, S::exp(S::sub(S::load(chunk.as_ptr()), S::splat(self.max))));
            }
            *self.sum = S::sum(sum) + rest.iter().map(|v| (v - self.max).exp()).sum::<f32>();
        }
    }
}
