//! Products of activations with packed weights: a panel of 16 outputs against a tile of rows.
//!
//! The order in which an output's terms are added up is fixed by the columns alone, never by the
//! tile: a row has the same bits alone and among 512.
//!
//! Loops over vectors count by index: an iterator's or a closure's body is a function of its own, and
//! where the compiler does not inline it, it is compiled without the level's instructions.
#![allow(clippy::needless_range_loop)]

mod blocks;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::FEW_ROWS;
use super::activations::Quantized;
#[cfg(target_arch = "x86_64")]
use super::amx::{self, tiles::Parts};
#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::formats::{AHEAD, AHEAD_OF_SEVERAL, Block, Place, Plain, Weights, by_format};
use super::low_rank::{self, Addend};
use super::pack::{IN_GROUP, PackedMatrix};
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::cpu::pool::Pool;
use crate::ops::{Activation, Matrix, Projection, Store};
#[cfg(target_arch = "x86_64")]
use crate::quant::Format;
pub(crate) use blocks::project_blocks;

/// Rows of activations that share one reading of the weights.
const TILE: usize = 8;
/// Panels that a row meets at a time where there are few registers: processors of that level read several streams up to
/// half as fast again as one.
pub(super) const SIDE_BY_SIDE: usize = 4;
/// Panels that a thread takes at a time, at most: of one row more, since each beginning is a stream that memory does not expect.
const PANELS: usize = 16;
const PANELS_OF_ONE_ROW: usize = 64;
/// More rows than these are multiplied faster by matrix units, where there are some.
#[cfg(target_arch = "x86_64")]
const ROWS_OF_VECTORS: usize = 4;

/// How a product meets its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In f32.
    F32,
    /// In 8 bits, by vectors.
    Int8,
    /// The same numbers by matrix units.
    #[cfg(target_arch = "x86_64")]
    Int8Tiles,
    /// In bf16, by matrix units.
    #[cfg(target_arch = "x86_64")]
    Bf16(Parts),
}

impl Way {
    fn of(matrix: &PackedMatrix, level: Level, activation: Activation, n: usize) -> Self {
        let quantized = matrix.format.block_len() > 1 && matrix.cols.is_multiple_of(32);
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (level, n);
        #[cfg(target_arch = "x86_64")]
        if activation == Activation::Rounded && level == Level::Amx {
            match (matrix.format, n) {
                (Format::BF16, ..=FEW_ROWS) => return Self::Bf16(Parts::Split),
                (Format::BF16, _) => return Self::Bf16(Parts::Rounded),
                (_, ..=ROWS_OF_VECTORS) => {}
                (_, ..=FEW_ROWS) if quantized => return Self::Int8Tiles,
                _ if quantized => return Self::Bf16(Parts::Rounded),
                _ => {}
            }
        }
        match activation {
            Activation::Rounded if quantized => Self::Int8,
            _ => Self::F32,
        }
    }
}

/// Activations, rounded in each way that one of several products wants.
struct Inputs {
    int8: Option<Quantized>,
    #[cfg(target_arch = "x86_64")]
    int8_tiles: Option<amx::int8::Tiles>,
    #[cfg(target_arch = "x86_64")]
    rounded: Option<amx::tiles::Tiles>,
    #[cfg(target_arch = "x86_64")]
    split: Option<amx::tiles::Tiles>,
}

impl Inputs {
    fn new(pool: &Pool, level: Level, x: &[f32], n: usize, ways: &[Way]) -> Self {
        #[cfg(target_arch = "x86_64")]
        let bf16 = |parts| {
            let columns = amx::tiles::Columns::all(x, n);
            ways.contains(&Way::Bf16(parts)).then(|| amx::tiles::Tiles::new(pool, columns, n, parts))
        };
        Self {
            int8: ways.contains(&Way::Int8).then(|| Quantized::of(pool, level, x, n)),
            #[cfg(target_arch = "x86_64")]
            int8_tiles: ways.contains(&Way::Int8Tiles).then(|| amx::int8::Tiles::new(pool, x, n)),
            #[cfg(target_arch = "x86_64")]
            rounded: bf16(Parts::Rounded),
            #[cfg(target_arch = "x86_64")]
            split: bf16(Parts::Split),
        }
    }

    fn of<'a>(&'a self, way: Way, x: &'a [f32], stride: usize) -> Input<'a> {
        let rounded = match way {
            Way::F32 => None,
            Way::Int8 => self.int8.as_ref().map(Input::Int8),
            #[cfg(target_arch = "x86_64")]
            Way::Int8Tiles => self.int8_tiles.as_ref().map(Input::Int8Tiles),
            #[cfg(target_arch = "x86_64")]
            Way::Bf16(Parts::Rounded) => self.rounded.as_ref().map(|x| Input::Bf16(x.block(0))),
            #[cfg(target_arch = "x86_64")]
            Way::Bf16(Parts::Split) => self.split.as_ref().map(|x| Input::Bf16(x.block(0))),
        };
        rounded.unwrap_or(Input::F32 { x, stride })
    }
}

/// What the products read.
pub(super) enum Input<'a> {
    F32 {
        /// Begins at the first row's first number.
        x: &'a [f32],
        /// From one row to the next.
        stride: usize,
    },
    Int8(&'a Quantized),
    #[cfg(target_arch = "x86_64")]
    Int8Tiles(&'a amx::int8::Tiles),
    #[cfg(target_arch = "x86_64")]
    Bf16(amx::tiles::BlockTiles<'a>),
}

/// `out = x w^T` for every part; see [`crate::Ops::project`].
pub(crate) fn project(
    pool: &Pool,
    level: Level,
    x: &[f32],
    n: usize,
    activation: Activation,
    parts: &mut [Projection<'_>],
) {
    for part in &*parts {
        assert_eq!(part.out.len(), n * part.matrix.rows, "an output row has one number a row of the matrix");
    }
    project_columns(pool, level, x, n, activation, parts, None);
}

/// Some outputs of one row; see [`crate::Ops::project_part`].
pub(crate) fn project_part(
    pool: &Pool,
    level: Level,
    x: &[f32],
    activation: Activation,
    part: Projection<'_>,
    outputs: Range<usize>,
) {
    let rows = part.matrix.rows;
    assert!(outputs.start.is_multiple_of(LANES) && outputs.end <= rows, "a part is made of whole panels");
    assert!(outputs.end.is_multiple_of(LANES) || outputs.end == rows, "a part is made of whole panels");
    assert_eq!(part.out.len(), outputs.len(), "an output has one number a row of the part");
    project_columns(pool, level, x, 1, activation, &mut [part], Some(outputs));
}

/// Products of `n` rows; of one row, those of the outputs asked for.
fn project_columns(
    pool: &Pool,
    level: Level,
    x: &[f32],
    n: usize,
    activation: Activation,
    parts: &mut [Projection<'_>],
    outputs: Option<Range<usize>>,
) {
    let way = |matrix: &Matrix| Way::of(packed(matrix), level, activation, n);
    let mut ways: Vec<Way> = parts.iter().map(|part| way(part.matrix)).collect();
    let down = parts.iter().find_map(|part| part.low_rank.map(|low_rank| low_rank.down));
    ways.extend(down.map(way));
    let inputs = Inputs::new(pool, level, x, n, &ways);
    let between =
        down.map(|down| low_rank::between(pool, level, inputs.of(way(down), x, down.cols), n, down));
    let jobs: Vec<Job<'_>> = parts
        .iter_mut()
        .zip(&ways)
        .map(|(part, &way)| {
            let matrix = packed(part.matrix);
            assert_eq!(x.len(), n * matrix.cols, "an input row is as wide as the matrix");
            assert!(
                part.bias.is_none_or(|bias| bias.len() == matrix.rows),
                "a bias has one number an output"
            );
            let input = inputs.of(way, x, matrix.cols);
            let outputs = outputs.clone().unwrap_or(0..matrix.rows);
            let panels = outputs.start / LANES..outputs.end.div_ceil(LANES);
            let mut chunk = pool.chunk(panels.len(), if n == 1 { PANELS_OF_ONE_ROW } else { PANELS });
            if !matches!(way, Way::F32 | Way::Int8) {
                // Matrix units take panels in pairs.
                chunk = (chunk & !1).max(2);
            }
            let out = SendPtr(part.out.as_mut_ptr());
            let (first_output, out_stride) = (outputs.start, outputs.len());
            let added = part.low_rank.zip(between.as_ref());
            let added =
                added.map(|(low_rank, between)| low_rank::addend(pool, way, &low_rank, between, matrix));
            let bias = part.bias;
            Job { matrix, bias, added, level, input, n, out, first_output, out_stride, panels, chunk }
        })
        .collect();
    run(pool, level, &jobs);
    drop(jobs);
    if let Some(quantized) = inputs.int8 {
        quantized.keep();
    }
}

/// Computes all jobs in one loop of the pool.
pub(super) fn run(pool: &Pool, level: Level, jobs: &[Job<'_>]) {
    let items: usize = jobs.iter().map(Job::items).sum();
    pool.run(items, &|mut item| {
        for job in jobs {
            if item < job.items() {
                let first = job.panels.start + item * job.chunk;
                let panels = first..(first + job.chunk).min(job.panels.end);
                compute(level, job, panels.clone());
                if job.added.as_ref().is_some_and(|added| !added.is_in_tiles()) {
                    // SAFETY: the level was detected; the outputs of these panels were written just now, by this thread.
                    unsafe { level.run(low_rank::Add { job, panels }) };
                }
                return;
            }
            item -= job.items();
        }
    });
}

/// Computes a few panels of a job.
fn compute(level: Level, job: &Job<'_>, panels: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    if matches!(job.input, Input::Bf16(_) | Input::Int8Tiles(_)) {
        return tiles(job, panels);
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::project(job, panels.clone()) {
        return;
    }
    // SAFETY: the level was detected; chunks of panels write different columns.
    #[cfg(not(target_arch = "aarch64"))]
    unsafe {
        level.run(Panels { job, panels })
    };
    // The other levels have products of their own there, and these need not be compiled for them.
    #[cfg(target_arch = "aarch64")]
    match level {
        // SAFETY: plain code runs anywhere.
        Level::Portable => unsafe { Panels { job, panels }.run::<super::simd::Portable>() },
        _ => super::neon_products::project(job, panels),
    }
}

/// Computes a few panels of a job by matrix units.
#[cfg(target_arch = "x86_64")]
fn tiles(job: &Job<'_>, panels: Range<usize>) {
    match job.input {
        Input::Int8Tiles(x) => by_format!(
            job.matrix.format,
            B => amx::int8::project::<B>(job, x, panels),
            _ => unreachable!("plain numbers are not rounded to 8 bits"),
        ),
        Input::Bf16(x) => by_format!(
            job.matrix.format,
            B => amx::bf16::project_widened::<B>(job, x, panels),
            _ => amx::bf16::project(job, x, panels),
        ),
        _ => unreachable!("other inputs go to vectors"),
    }
}

/// The matrix in panels; of a screened one its first part.
pub(crate) fn packed(matrix: &Matrix) -> &PackedMatrix {
    match &matrix.store {
        Store::Packed(packed) => packed,
        Store::Screened(table) => packed(table.upper()),
        Store::Plain(_) => unreachable!("a matrix is used by the backend that made it"),
    }
}

pub(crate) struct Job<'a> {
    pub(crate) matrix: &'a PackedMatrix,
    pub(crate) bias: Option<&'a [f32]>,
    /// What an adapter adds.
    pub(super) added: Option<Addend<'a>>,
    pub(crate) level: Level,
    pub(super) input: Input<'a>,
    pub(crate) n: usize,
    pub(crate) out: SendPtr<f32>,
    /// The matrix's output that an output row begins with.
    pub(crate) first_output: usize,
    /// From one output row to the next.
    pub(crate) out_stride: usize,
    /// Those that are computed.
    pub(super) panels: Range<usize>,
    /// Panels a thread takes at a time.
    pub(super) chunk: usize,
}

impl Job<'_> {
    /// Where a panel's outputs of row `t` go.
    ///
    /// # Safety
    /// The panel is one that is computed, the row below `n`.
    #[inline(always)]
    pub(super) unsafe fn outputs(&self, panel: usize, t: usize) -> *mut f32 {
        // SAFETY: the caller's contract.
        unsafe { self.out.get().add(t * self.out_stride + panel * LANES - self.first_output) }
    }

    fn items(&self) -> usize {
        self.panels.len().div_ceil(self.chunk)
    }
}

struct Panels<'a> {
    job: &'a Job<'a>,
    panels: Range<usize>,
}

impl Kernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the panels are the matrix's own, the input and output have `n` rows.
        unsafe {
            by_format!(
                self.job.matrix.format,
                B => self.quantized::<S, B>(),
                P => self.tiles::<S, P>(),
            )
        }
    }
}

impl Panels<'_> {
    #[inline(always)]
    unsafe fn quantized<S: Simd, B: Block>(self) {
        // SAFETY: as `run`.
        unsafe {
            match self.job.input {
                Input::Int8(_) => self.tiles::<S, Int8<B>>(),
                _ => self.tiles::<S, Dequantized<B>>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles<S: Simd, T: TileProduct>(self) {
        let Range { mut start, end } = self.panels;
        if S::FEW_REGISTERS && self.job.n == 1 {
            // Each stream goes through panels that follow each other.
            let each = (end - start) / SIDE_BY_SIDE;
            for panel in start..start + each {
                let panels: [usize; SIDE_BY_SIDE] = std::array::from_fn(|stream| panel + stream * each);
                // SAFETY: as `run`.
                unsafe { T::tile::<S, 1, SIDE_BY_SIDE>(self.job, panels, 0) };
            }
            start += each * SIDE_BY_SIDE;
        }
        for panel in start..end {
            let mut t = 0;
            while t < self.job.n {
                let rows = self.job.n - t;
                // SAFETY: as `run`; the tiles stay below `n`.
                t += unsafe {
                    match rows {
                        TILE.. => T::tile::<S, TILE, 1>(self.job, [panel], t),
                        // A few rows are what a keystroke and a draft cost: the weights are unpacked once for
                        // four or two of them.
                        4.. => T::tile::<S, 4, 1>(self.job, [panel], t),
                        2.. => T::tile::<S, 2, 1>(self.job, [panel], t),
                        _ => T::tile::<S, 1, 1>(self.job, [panel], t),
                    }
                };
            }
        }
    }
}

/// `C` panels against `M` rows from row `t` on; returns how many rows these were.
pub(super) trait TileProduct {
    unsafe fn tile<S: Simd, const M: usize, const C: usize>(
        job: &Job<'_>,
        panels: [usize; C],
        t: usize,
    ) -> usize;
}

/// Quantised weights against 8-bit activations.
pub(super) struct Int8<B>(std::marker::PhantomData<B>);

impl<B: Block> TileProduct for Int8<B> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const C: usize>(
        job: &Job<'_>,
        panels: [usize; C],
        t: usize,
    ) -> usize {
        let Input::Int8(x) = &job.input else { return M };
        let (matrix, cols) = (job.matrix, job.matrix.cols);
        // SAFETY: all pointers stay inside the panel and inside the rows `t..t + M` of the activations.
        unsafe {
            let mut acc = [[S::splat(0.0); M]; C];
            for first in (0..cols / 32).step_by(IN_GROUP) {
                let groups = panels.map(|panel| Place::group::<B>(matrix, panel, first));
                for b in 0..IN_GROUP.min(cols / 32 - first) {
                    for c in 0..C {
                        let w = Weights::<S>::read::<B>(groups[c], b, ahead(C));
                        for m in 0..M {
                            let block = (t + m) * cols / 32 + first + b;
                            acc[c][m] = Self::add_block::<S>(&w, x, block, acc[c][m]);
                        }
                    }
                }
            }
            store_tile::<S, M, C>(job, panels, t, acc);
        }
        M
    }
}

impl<B: Block> Int8<B> {
    /// Adds the products of 32 columns with a row's block of so many to a sum.
    #[inline(always)]
    unsafe fn add_block<S: Simd>(w: &Weights<S>, x: &Quantized, block: usize, mut acc: S::F) -> S::F {
        let offset = B::OFFSET + if B::MOST.is_none() { S::SIGNED_OFFSET } else { 0 };
        let per_group = 8 / B::GROUPS;
        // SAFETY: the caller's row has this block.
        unsafe {
            let x_scale = S::splat(*x.scales.get_unchecked(block));
            for g in 0..B::GROUPS {
                let q = x.q.as_ptr().add(32 * block + 4 * per_group * g);
                let mut dot = S::to_f(S::dots(&w.quants[g * per_group..(g + 1) * per_group], q, B::MOST));
                if offset != 0 {
                    // Exact: whole numbers below 2^24.
                    let sum = if B::GROUPS == 1 {
                        *x.sums.get_unchecked(block)
                    } else {
                        *x.half_sums.get_unchecked(2 * block + g)
                    };
                    dot = S::fma(S::splat(sum), S::splat(-offset as f32), dot);
                }
                acc = S::fma(S::mul(dot, w.scale[g]), x_scale, acc);
            }
            if B::MINIMUM {
                acc = S::fma(w.minimum, S::splat(*x.scaled_sums.get_unchecked(block)), acc);
            }
            acc
        }
    }
}

/// Quantised weights, as numbers, against f32 activations.
pub(super) struct Dequantized<B>(std::marker::PhantomData<B>);

impl<B: Block> TileProduct for Dequantized<B> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const C: usize>(
        job: &Job<'_>,
        panels: [usize; C],
        t: usize,
    ) -> usize {
        let Input::F32 { x, stride } = job.input else { return M };
        let (matrix, cols) = (job.matrix, job.matrix.cols);
        // SAFETY: all pointers stay inside the panel and inside the rows `t..t + M` of the activations.
        unsafe {
            let x = x.as_ptr().add(t * stride);
            let mut acc = [[S::splat(0.0); M]; C];
            for first in (0..cols / 32).step_by(IN_GROUP) {
                let groups = panels.map(|panel| Place::group::<B>(matrix, panel, first));
                for b in 0..IN_GROUP.min(cols / 32 - first) {
                    for c in 0..C {
                        let w = Weights::<S>::read::<B>(groups[c], b, ahead(C));
                        for j in 0..8 {
                            let numbers = w.numbers::<B>(j);
                            for k in 0..4 {
                                for m in 0..M {
                                    let column = 32 * (first + b) + 4 * j + k;
                                    let x = S::splat(*x.add(m * stride + column));
                                    acc[c][m] = S::fma(numbers[k], x, acc[c][m]);
                                }
                            }
                        }
                    }
                }
            }
            store_tile::<S, M, C>(job, panels, t, acc);
        }
        M
    }
}

/// Even and odd columns of plain numbers add up apart.
impl<P: Plain> TileProduct for P {
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const C: usize>(
        job: &Job<'_>,
        panels: [usize; C],
        t: usize,
    ) -> usize {
        let Input::F32 { x, stride } = job.input else { return M };
        let cols = job.matrix.cols;
        let base: [*const u8; C] = std::array::from_fn(|c| job.matrix.panel(panels[c]));
        // SAFETY: all pointers stay inside the panels and inside the rows `t..t + M` of the activations.
        unsafe {
            let x = x.as_ptr().add(t * stride);
            let (mut even, mut odd) = ([[S::splat(0.0); M]; C], [[S::splat(0.0); M]; C]);
            for pair in 0..cols / 2 {
                for c in 0..C {
                    let at = base[c].add(pair * P::PAIR);
                    for line in (0..P::PAIR).step_by(64) {
                        S::prefetch(at.wrapping_add(ahead(C) + line));
                    }
                    let (first, second) = P::pair::<S>(at, false);
                    for m in 0..M {
                        even[c][m] = S::fma(first, S::splat(*x.add(m * stride + 2 * pair)), even[c][m]);
                    }
                    for m in 0..M {
                        odd[c][m] = S::fma(second, S::splat(*x.add(m * stride + 2 * pair + 1)), odd[c][m]);
                    }
                }
            }
            for c in 0..C {
                if !cols.is_multiple_of(2) {
                    let (first, _) = P::pair::<S>(base[c].add(cols / 2 * P::PAIR), true);
                    for m in 0..M {
                        even[c][m] = S::fma(first, S::splat(*x.add(m * stride + cols - 1)), even[c][m]);
                    }
                }
                for m in 0..M {
                    even[c][m] = S::add(even[c][m], odd[c][m]);
                }
            }
            store_tile::<S, M, C>(job, panels, t, even);
        }
        M
    }
}

/// How many bytes ahead weights of so many panels at a time are asked for.
const fn ahead(panels: usize) -> usize {
    if panels > 1 { AHEAD_OF_SEVERAL } else { AHEAD }
}

/// Writes the outputs of `C` panels and `M` rows.
#[inline(always)]
unsafe fn store_tile<S: Simd, const M: usize, const C: usize>(
    job: &Job<'_>,
    panels: [usize; C],
    t: usize,
    acc: [[S::F; M]; C],
) {
    for c in 0..C {
        for m in 0..M {
            // SAFETY: as the caller's.
            unsafe { store::<S>(job, panels[c], t + m, acc[c][m]) };
        }
    }
}

/// Writes a panel's outputs of one row with their bias, fewer than 16 at the matrix's end.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(job: &Job<'_>, panel: usize, t: usize, acc: S::F) {
    let rows = job.matrix.rows;
    let first = panel * LANES;
    // SAFETY: `t < n` and `first` is the first of a panel that is computed, so the row's columns from it on are in
    // the output, and `project_columns` has checked that the bias has `rows` numbers.
    unsafe {
        let to = job.outputs(panel, t);
        let bias = job.bias.map(|bias| bias.as_ptr().add(first));
        if first + LANES <= rows {
            let sum = if let Some(bias) = bias { S::add(acc, S::load(bias)) } else { acc };
            S::store(to, sum);
        } else {
            let mut lanes = [0.0f32; LANES];
            S::store(lanes.as_mut_ptr(), acc);
            for i in 0..rows - first {
                *to.add(i) = if let Some(bias) = bias { lanes[i] + *bias.add(i) } else { lanes[i] };
            }
        }
    }
}
