//! Tables whose greatest outputs are found without reading all of them: the upper bits of every number first, the rest only
//! of rows that can still be among the greatest.
//!
//! A number of Q8_0 is `scale * q`, and `q = 8 upper + rest` with `upper` in -16..=15 and `rest` in -4..=7 (beyond 3 where
//! `upper` has reached its end): a matrix of Q5_0 whose scales are eight times as large, and one of Q4_0. An output is the
//! f32 sum of both products, whoever asks for it. By Cauchy and Schwarz the second is at most the length of the row's rest
//! times that of the input as it was rounded; so a row whose first product is further than that below outputs that are
//! known in full is not among the greatest. Nothing is estimated: the answer is that of reading everything.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::activations::{BLOCK, Quantized};
use super::formats::{Block, Q4_0, Weights};
use super::matmul::{self, Input, Int8, Job, SIDE_BY_SIDE, TileProduct};
use super::pack::{IN_GROUP, PackedMatrix};
use super::pack_fast::{pack_rest, pack_upper};
use super::pool::Pool;
use super::rows::{self, Elementwise};
use super::simd::{Kernel, LANES, Simd};
use super::{FEW_ROWS, Level, SendPtr};
use crate::ops::{Activation, Matrix, Projection, ShapeError, Store};
use crate::quant::{self, Format};

/// Inputs of the widest table that is stored so. The bound is reached by a rest that points where the input does, and the
/// rests of real tables point anywhere: it is the looser the more inputs there are.
const MOST_INPUTS: usize = 1024;
/// How much longer an input is taken to be than it is: more than rows' lengths and products of so many inputs may be off
/// by, rounded to f32 at every step.
const MARGIN: f64 = 3e-4;
/// Panels whose rests a thread reads at a time, and those whose bounds it looks at.
const RESTS: usize = 16;
const BOUNDS: usize = 1024;

/// A table `[rows, cols]` in two parts.
#[derive(Debug)]
pub(crate) struct Screened {
    upper: Matrix,
    rest: Matrix,
    /// How long the rest of each row is; whole panels, the last one filled up with zeros.
    lengths: Vec<f32>,
    /// `[rows]`: the second products that were asked for last.
    second: Mutex<Vec<f32>>,
}

/// The greatest outputs, and how many panels were read in full for them.
struct Found {
    tokens: Vec<(u32, f32)>,
    #[cfg_attr(not(test), expect(dead_code, reason = "what tests hold against the whole"))]
    panels: usize,
}

impl Screened {
    /// Splits a table; `None` where it is none of those that it pays for, or holds scales that are too large.
    pub(super) fn new(
        pool: &Pool,
        level: Level,
        format: Format,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Option<Self>, ShapeError> {
        quant::check(format, rows, cols, bytes)?;
        if format != Format::Q8_0 || cols == 0 || cols > MOST_INPUTS {
            return Ok(None);
        }
        let row_bytes = bytes.len() / rows.max(1);
        let of_rows = |rows: Range<usize>| &bytes[rows.start * row_bytes..rows.end * row_bytes];
        let fits = AtomicBool::new(true);
        let upper = PackedMatrix::by_panel(pool, Format::Q5_0, rows, cols, |rows, group, panel| {
            if !pack_upper(group, of_rows(rows), row_bytes, panel) {
                fits.store(false, Ordering::Relaxed);
            }
        });
        if !fits.into_inner() {
            return Ok(None);
        }
        let mut lengths = vec![0.0f32; rows.next_multiple_of(LANES)];
        let to = SendPtr(lengths.as_mut_ptr());
        let rest = PackedMatrix::by_panel(pool, Format::Q4_0, rows, cols, |rows, group, panel| {
            pack_rest(group, of_rows(rows.clone()), row_bytes, panel);
            // SAFETY: the level was detected; the panel is packed, and its lengths are its own.
            unsafe { level.run(Lengths { panel, blocks: cols / BLOCK, lengths: to.get().add(rows.start) }) };
        });
        let matrix = |packed| Matrix { rows, cols, store: Store::Packed(packed) };
        let (upper, rest) = (matrix(upper), matrix(rest));
        Ok(Some(Self { upper, rest, lengths, second: Mutex::new(vec![0.0; rows]) }))
    }

    /// The matrix of the first products, `[rows, cols]`.
    pub(crate) fn upper(&self) -> &Matrix {
        &self.upper
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.upper.bytes() + self.rest.bytes() + size_of::<f32>() * (self.lengths.len() + self.upper.rows)
    }

    /// Bytes that finding the greatest outputs reads in any case.
    pub(crate) fn bytes_for_best(&self) -> usize {
        self.upper.bytes() + size_of_val(self.lengths.as_slice())
    }

    /// The numbers of one row.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let mut rest = vec![0.0; out.len()];
        matmul::packed(&self.upper).row(row, out);
        matmul::packed(&self.rest).row(row, &mut rest);
        // Exact: the products of a scale's 11 bits with 8.
        out.iter_mut().zip(rest).for_each(|(upper, rest)| *upper += rest);
    }

    /// Adds the second products to the first ones of `n` rows `x`, of the `outputs` that are in `out`.
    pub(super) fn finish(
        &self,
        pool: &Pool,
        level: Level,
        x: &[f32],
        n: usize,
        outputs: Range<usize>,
        out: &mut [f32],
    ) {
        let (cols, width) = (self.upper.cols, outputs.len());
        let mut second = vec![0.0; n.min(FEW_ROWS) * width];
        for first in (0..n).step_by(FEW_ROWS) {
            let count = FEW_ROWS.min(n - first);
            let (x, second) = (&x[first * cols..(first + count) * cols], &mut second[..count * width]);
            let mut product = Projection::new(&self.rest, second);
            if width == self.rest.rows {
                matmul::project(
                    pool,
                    level,
                    x,
                    count,
                    Activation::Rounded,
                    std::slice::from_mut(&mut product),
                );
            } else {
                matmul::project_part(pool, level, x, Activation::Rounded, product, outputs.clone());
            }
            let out = &mut out[first * width..(first + count) * width];
            rows::elementwise(pool, level, Elementwise::Add, out, second);
        }
    }

    /// See [`crate::Ops::best`]; how many of which are wanted.
    pub(super) fn best(
        &self,
        pool: &Pool,
        level: Level,
        x: &[f32],
        first: &[f32],
        wanted: (usize, Option<&[u32]>),
    ) -> Vec<(u32, f32)> {
        self.find(pool, level, x, first, wanted).tokens
    }

    fn find(
        &self,
        pool: &Pool,
        level: Level,
        x: &[f32],
        first: &[f32],
        (count, among): (usize, Option<&[u32]>),
    ) -> Found {
        let rows = self.upper.rows;
        assert_eq!((x.len(), first.len()), (self.upper.cols, rows), "a row and its first products");
        let x = Quantized::of(pool, level, x, 1);
        let candidates = match among {
            Some(among) => self.bounds_of(&x, first, among),
            None => self.bounds(pool, level, &x, first),
        };
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut tokens, mut panels) = (Vec::new(), 0);
        let mut know = |those: &mut dyn Iterator<Item = &Bound>, least: f32, tokens: &mut Vec<(u32, f32)>| {
            let those: Vec<Bound> = those.copied().collect();
            let mut read: Vec<usize> = those.iter().map(|bound| bound.row as usize / LANES).collect();
            // No panel may be there twice, whatever the caller's order: threads write what they read of it.
            read.sort_unstable();
            read.dedup();
            self.read(pool, level, &x, &read, &mut second);
            panels += read.len();
            let rows = those.iter().flat_map(|bound| bound.row..(bound.row + bound.rows).min(rows as u32));
            let outputs = rows.map(|row| (row, first[row as usize] + second[row as usize]));
            tokens.extend(outputs.filter(|&(_, output)| output >= least));
        };
        // Those that the first products say are the greatest are most often the greatest: known in full, they
        // leave few others.
        let likely = kth_greatest(candidates.iter().map(|bound| bound.first), count);
        know(&mut candidates.iter().filter(|bound| bound.first >= likely), f32::NEG_INFINITY, &mut tokens);
        let known = kth_greatest(tokens.iter().map(|token| token.1), count);
        let can_reach = |bound: &&Bound| bound.first < likely && bound.most >= known;
        know(&mut candidates.iter().filter(can_reach), known, &mut tokens);
        x.keep();
        tokens.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        tokens.truncate(count);
        Found { tokens, panels }
    }

    /// What some outputs can be at most, one by one.
    fn bounds_of(&self, x: &Quantized, first: &[f32], among: &[u32]) -> Vec<Bound> {
        let size = size(x);
        let bound = |&row: &u32| {
            let first = first[row as usize];
            let most = first + self.lengths[row as usize] * size;
            // As in panels, what is not a number is less than any.
            Bound { row, rows: 1, first: first.max(f32::NEG_INFINITY), most: most.max(f32::NEG_INFINITY) }
        };
        among.iter().map(bound).collect()
    }

    /// What each panel's outputs can be at most.
    fn bounds(&self, pool: &Pool, level: Level, x: &Quantized, first: &[f32]) -> Vec<Bound> {
        let size = size(x);
        let mut bounds = vec![Bound::default(); first.len().div_ceil(LANES)];
        let to = SendPtr(bounds.as_mut_ptr());
        pool.run(bounds.len().div_ceil(BOUNDS), &|piece| {
            let start = piece * BOUNDS * LANES;
            let end = (start + BOUNDS * LANES).min(first.len());
            let lengths = &self.lengths[start..end.next_multiple_of(LANES)];
            // SAFETY: the level was detected; pieces have panels of their own.
            unsafe {
                let bounds = to.get().add(piece * BOUNDS);
                let start = start as u32;
                level.run(Bounds { start, first: &first[start as usize..end], lengths, size, bounds });
            }
        });
        bounds
    }

    /// Computes the second products of some panels.
    fn read(&self, pool: &Pool, level: Level, x: &Quantized, panels: &[usize], second: &mut [f32]) {
        let out = SendPtr(second.as_mut_ptr());
        let matrix = matmul::packed(&self.rest);
        pool.run(panels.len().div_ceil(RESTS), &|piece| {
            let (bias, added, input) = (None, None, Input::Int8(x));
            let (first_output, out_stride) = (0, matrix.rows);
            let all = 0..matrix.panels();
            let job = Job {
                matrix,
                bias,
                added,
                level,
                input,
                n: 1,
                out,
                first_output,
                out_stride,
                panels: all,
                chunk: 1,
            };
            let panels = &panels[piece * RESTS..panels.len().min((piece + 1) * RESTS)];
            // SAFETY: the level was detected; `second` has an output for each row, and no panel is there twice.
            unsafe { level.run(Rests { job: &job, panels }) };
        });
    }
}

/// The `k`-th greatest number, negative infinity where there are fewer; what is none is less than any.
fn kth_greatest(numbers: impl Iterator<Item = f32>, k: usize) -> f32 {
    let mut numbers: Vec<f32> = numbers.filter(|number| !number.is_nan()).collect();
    if k == 0 || k > numbers.len() {
        return f32::NEG_INFINITY;
    }
    *numbers.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// How long an input is, at most.
fn size(x: &Quantized) -> f32 {
    let squares = x.q.chunks_exact(BLOCK).zip(&x.scales).map(|(q, &scale)| {
        let square: i32 = q.iter().map(|&q| i32::from(q) * i32::from(q)).sum();
        f64::from(square) * f64::from(scale).powi(2)
    });
    (squares.sum::<f64>().sqrt() * (1.0 + MARGIN)) as f32
}

/// What is known of some outputs of one panel by their first products.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    /// The first of them, and how many there may be.
    row: u32,
    rows: u32,
    /// The greatest first product.
    first: f32,
    /// What an output may be at most.
    most: f32,
}

struct Bounds<'a> {
    /// The row of the first of them.
    start: u32,
    first: &'a [f32],
    /// Whole panels of them.
    lengths: &'a [f32],
    /// Length of the input.
    size: f32,
    /// One for each panel.
    bounds: *mut Bound,
}

impl Kernel for Bounds<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut last = [f32::NAN; LANES];
        // SAFETY: there are as many lengths as whole panels have rows, and as many bounds as there are panels.
        unsafe {
            let none = S::splat(f32::NEG_INFINITY);
            let size = S::splat(self.size);
            for panel in 0..self.lengths.len() / LANES {
                let at = panel * LANES;
                let mut from = self.first.as_ptr().wrapping_add(at);
                if at + LANES > self.first.len() {
                    last[..self.first.len() - at].copy_from_slice(&self.first[at..]);
                    from = last.as_ptr();
                }
                let first = S::load(from);
                let most = S::fma(S::load(self.lengths.as_ptr().add(at)), size, first);
                *self.bounds.add(panel) = Bound {
                    row: self.start + at as u32,
                    rows: LANES as u32,
                    first: S::greatest(S::max(first, none)),
                    most: S::greatest(S::max(most, none)),
                };
            }
        }
    }
}

/// The second products of some panels of one row.
struct Rests<'a> {
    job: &'a Job<'a>,
    panels: &'a [usize],
}

impl Kernel for Rests<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (together, left) = self.panels.as_chunks::<SIDE_BY_SIDE>();
        // SAFETY: the panels are the matrix's, which is of Q4_0.
        unsafe {
            for &panels in together {
                Int8::<Q4_0>::tile::<S, 1, SIDE_BY_SIDE>(self.job, panels, 0);
            }
            for &panel in left {
                Int8::<Q4_0>::tile::<S, 1, 1>(self.job, [panel], 0);
            }
        }
    }
}

/// How long the rows of a panel of rests are.
struct Lengths<'a> {
    panel: &'a [u8],
    /// In a row.
    blocks: usize,
    /// One for each row of a whole panel.
    lengths: *mut f32,
}

impl Kernel for Lengths<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the panel has so many blocks of Q4_0, and the lengths are 16.
        unsafe {
            let mut squares = S::splat(0.0);
            for block in 0..self.blocks {
                let group = self.panel.as_ptr().add(Q4_0::LAID_OUT.all_scales(block));
                let weights = Weights::<S>::read::<Q4_0>(group, block % IN_GROUP, 0);
                for j in 0..BLOCK / 4 {
                    let numbers = weights.numbers::<Q4_0>(j);
                    for k in 0..numbers.len() {
                        squares = S::fma(numbers[k], numbers[k], squares);
                    }
                }
            }
            S::store(self.lengths, S::sqrt(squares));
        }
    }
}

#[cfg(test)]
#[path = "screened_tests.rs"]
mod tests;
