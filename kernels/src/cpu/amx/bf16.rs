//! Products in bf16 with f32 sums.
//!
//! Weights are what a panel of bf16 holds, or a panel of quantised weights, widened a piece at a time. Activations
//! enter rounded, or, against few rows of bf16 weights, as the sum of two bf16 (the rounding, and the rounding of what
//! that left), so that 16 bits of them count and not 8: twice the products, where memory is what takes the time.
//! Every output adds up its columns in order, whatever is computed beside it.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::super::formats::Block;
use super::super::matmul::{Job, store};
use super::super::pack::{PackedMatrix, TILE_COLS};
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::simd::{Kernel, LANES, Simd};
use super::super::{Level, SendPtr};
use super::tile_products::{TILE_BYTES, line, line_split, one, one_split, square};
use super::widen::widen;
use super::{TILE_ROWS, WHOLE, configure, release};

/// Tiles of columns worked on before the next: two row tiles and two panels of so many lie in the first cache together,
/// and so many of a chunk of panels in the second.
const DEPTH: usize = 8;

/// Activations in tiles `[block, column tiles / DEPTH, row tile, DEPTH, part]` (the last group of columns may be narrower),
/// the order in which they are read; columns past a block's last are zero, rows past the last whatever.
pub(crate) struct Tiles {
    tiles: Scratch,
    row_tiles: usize,
    /// Tiles of columns of a block.
    columns: usize,
    parts: Parts,
}

/// What a product reads of them.
#[derive(Clone, Copy)]
pub(crate) struct BlockTiles<'a> {
    tiles: &'a Tiles,
    block: usize,
    /// The first row tile, and how many.
    first: usize,
    row_tiles: usize,
}

/// What is kept of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The nearest bf16.
    Rounded = 1,
    /// And the nearest bf16 of what that leaves; of one row tile at most.
    Split = 2,
}

/// Columns of activations `x [rows, stride]`, cut into blocks of equal width.
#[derive(Clone)]
pub(crate) struct Columns<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) range: Range<usize>,
    pub(crate) blocks: usize,
}

impl<'a> Columns<'a> {
    /// All columns of `n` rows.
    pub(crate) fn all(x: &'a [f32], n: usize) -> Self {
        let stride = x.len() / n.max(1);
        Self { x, stride, range: 0..stride, blocks: 1 }
    }

    /// Columns of a block.
    fn width(&self) -> usize {
        self.range.len() / self.blocks
    }
}

impl Tiles {
    /// Rounds `n` rows.
    pub(crate) fn new(pool: &Pool, level: Level, x: Columns<'_>, n: usize, parts: Parts) -> Self {
        let (blocks, row_tiles) = (x.blocks, n.div_ceil(TILE_ROWS));
        assert!(parts == Parts::Rounded || row_tiles <= 1, "few rows are split");
        let columns = x.width().div_ceil(TILE_COLS);
        let tiles = Scratch::new(blocks * row_tiles * columns * parts as usize * TILE_BYTES);
        let to = SendPtr(tiles.as_ptr().cast::<u16>());
        pool.run(row_tiles, &|row_tile| {
            let rows = row_tile * TILE_ROWS * x.stride..((row_tile + 1) * TILE_ROWS).min(n) * x.stride;
            let rows = Columns { x: &x.x[rows], ..x.clone() };
            let place = Place { row_tile, row_tiles, columns };
            // SAFETY: the level was detected; row tiles are disjoint parts of the memory.
            unsafe { level.run(RoundRows { rows, parts, place, to: to.get() }) };
        });
        Self { tiles, row_tiles, columns, parts }
    }

    /// One of the blocks.
    pub(crate) fn block(&self, block: usize) -> BlockTiles<'_> {
        BlockTiles { tiles: self, block, first: 0, row_tiles: self.row_tiles }
    }
}

impl<'a> BlockTiles<'a> {
    /// The same in groups of at most so many row tiles, each with its first row.
    pub(crate) fn by_rows(self, row_tiles: usize) -> impl Iterator<Item = (usize, BlockTiles<'a>)> {
        let firsts = (0..self.row_tiles).step_by(row_tiles);
        firsts.map(move |first| {
            let row_tiles = row_tiles.min(self.row_tiles - first);
            (first * TILE_ROWS, BlockTiles { first: self.first + first, row_tiles, ..self })
        })
    }

    /// Row tiles.
    pub(crate) fn row_tiles(self) -> usize {
        self.row_tiles
    }

    /// The tiles of a row tile, from the first of a group of columns on.
    fn at(self, row_tile: usize, first: usize) -> *const u8 {
        let Tiles { row_tiles, columns, parts, ref tiles } = *self.tiles;
        let tile = Place { row_tile: self.first + row_tile, row_tiles, columns }.tile(self.block, first);
        tiles.as_ptr().wrapping_add(tile * parts as usize * TILE_BYTES)
    }
}

/// Where the tiles of a row tile lie.
#[derive(Clone, Copy)]
struct Place {
    row_tile: usize,
    row_tiles: usize,
    columns: usize,
}

impl Place {
    #[inline(always)]
    fn tile(self, block: usize, column: usize) -> usize {
        let first = column / DEPTH * DEPTH;
        let depth = DEPTH.min(self.columns - first);
        (block * self.columns + first) * self.row_tiles + self.row_tile * depth + column - first
    }
}

struct RoundRows<'a> {
    rows: Columns<'a>,
    parts: Parts,
    place: Place,
    to: *mut u16,
}

impl Kernel for RoundRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (r, row) in self.rows.x.chunks_exact(self.rows.stride).enumerate() {
            let row = &row[self.rows.range.clone()];
            for (block, row) in row.chunks_exact(self.rows.width()).enumerate() {
                for (tile, numbers) in row.chunks(TILE_COLS).enumerate() {
                    let tile = self.place.tile(block, tile);
                    // SAFETY: the row tile has room for as many tiles as there are parts for each tile of columns.
                    unsafe {
                        self.round(numbers, self.to.add(tile * self.parts as usize * TILE + r * TILE_COLS))
                    };
                }
            }
        }
    }
}

/// Numbers of a tile.
const TILE: usize = TILE_ROWS * TILE_COLS;

impl RoundRows<'_> {
    /// Rounds a row of a tile, or less at a block's end.
    ///
    /// # Safety
    /// There is room for a row in the tile `to`, and in the one behind it where there are two parts.
    #[inline(always)]
    unsafe fn round(&self, numbers: &[f32], to: *mut u16) {
        let mut padded = [0.0; TILE_COLS];
        let numbers: &[f32; TILE_COLS] = numbers.try_into().unwrap_or_else(|_| {
            padded[..numbers.len()].copy_from_slice(numbers);
            &padded
        });
        for i in 0..TILE_COLS {
            // SAFETY: the caller's.
            unsafe { *to.add(i) = round(numbers[i]) };
        }
        if self.parts == Parts::Split {
            for i in 0..TILE_COLS {
                let rest = numbers[i] - f32::from_bits(u32::from(round(numbers[i])) << 16);
                // SAFETY: the caller's.
                unsafe { *to.add(TILE + i) = round(rest) };
            }
        }
    }
}

/// The nearest bf16, ties to even. Finite numbers only: infinities of a network gone wrong stay infinite or
/// become NaN.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Computes a few panels of a job of bf16 weights against all rows. AMX is available.
pub(crate) fn project(job: &Job<'_>, x: BlockTiles<'_>, panels: Range<usize>) {
    let tiles = |panel: usize, first: usize| job.matrix.panel(panel).wrapping_add(first * TILE_BYTES);
    if job.n <= 2 * TILE_ROWS {
        return multiply(job, x, panels, |_, _| {}, tiles);
    }
    // Read again and again, weights are better copied: panels that lie a power of two apart drive each other out of the
    // cache.
    multiply_prepared(job, x, panels, |panel, columns, to| {
        // SAFETY: the panel has these tiles, and there is room for them.
        unsafe { std::ptr::copy_nonoverlapping(tiles(panel, columns.start), to, columns.len() * TILE_BYTES) };
    });
}

/// Computes a few panels of a job of quantised weights against all rows. AMX is available.
pub(crate) fn project_widened<B: Block>(job: &Job<'_>, x: BlockTiles<'_>, panels: Range<usize>) {
    multiply_prepared(job, x, panels, |panel, columns, to| {
        // SAFETY: the vectors' level comes with AMX; there is room for these tiles.
        unsafe { widen::<B>(job.matrix, panel, columns, to) };
    });
}

/// Products with tiles that `prepare` writes: some of a panel, from some tiles of columns.
#[inline(always)]
fn multiply_prepared(
    job: &Job<'_>,
    x: BlockTiles<'_>,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>, *mut u8),
) {
    // A group of columns that is multiplied, and the next one.
    let memory = Scratch::new(2 * panels.len() * DEPTH * TILE_BYTES);
    let place = |panel: usize, column: usize| {
        let group = column / DEPTH % 2 * panels.len() + panel - panels.start;
        memory.as_ptr().wrapping_add((group * DEPTH + column % DEPTH) * TILE_BYTES)
    };
    let prepare = |panel: usize, columns: Range<usize>| {
        let to = place(panel, columns.start);
        prepare(panel, columns, to);
    };
    multiply(job, x, panels.clone(), prepare, |panel, first| place(panel, first).cast_const());
}

/// The loops of all products. `prepare` is called for the tiles of a panel before they are used; `weights` gives them from
/// the first of a group of columns on.
#[inline(always)]
fn multiply(
    job: &Job<'_>,
    x: BlockTiles<'_>,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>),
    weights: impl Fn(usize, usize) -> *const u8,
) {
    let sums = Scratch::new(job.n.div_ceil(TILE_ROWS) * panels.len() * SUM * 4);
    add_up(job, x, panels.clone(), prepare, weights, sums.as_ptr().cast());
    // SAFETY: there are that many sums, all of them written; rows and columns are the job's.
    unsafe { job.level.run(Write { job, panels, sums: sums.as_ptr().cast() }) };
}

/// Numbers of a tile of sums.
const SUM: usize = TILE_ROWS * LANES;

/// Fills `sums`, a tile for each row tile and panel.
#[inline(always)]
fn add_up(
    job: &Job<'_>,
    x: BlockTiles<'_>,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>),
    weights: impl Fn(usize, usize) -> *const u8,
    sums: *mut f32,
) {
    let group = |first: usize| first..(first + DEPTH).min(x.tiles.columns);
    // Prepares some of a group's tiles, counted panel by panel.
    let prepare = |columns: &Range<usize>, tiles: Range<usize>| {
        let mut tile = tiles.start;
        while tile < tiles.end {
            let (panel, at) = (tile / columns.len(), tile % columns.len());
            let end = columns.len().min(at + tiles.end - tile);
            prepare(panels.start + panel, columns.start + at..columns.start + end);
            tile += end - at;
        }
    };
    configure(WHOLE);
    prepare(&group(0), 0..group(0).len() * panels.len());
    for first in (0..x.tiles.columns).step_by(DEPTH) {
        // The next group is prepared a little after each product: vectors work while matrix units do, and memory is
        // waited for by neither.
        let next = group((first + DEPTH).min(x.tiles.columns));
        let (all, mut prepared) = (x.row_tiles * panels.len(), 0);
        let after = |done: usize| {
            let due = next.len() * panels.len() * done / all;
            prepare(&next, prepared..due);
            prepared = due;
        };
        add_columns(x, group(first), panels.clone(), first == 0, |panel| weights(panel, first), sums, after);
    }
    if let Some((added, x)) = job.added.as_ref().and_then(|added| Some((added, added.tiles.as_ref()?))) {
        add_behind(added.up, x.block(0), panels, sums);
    }
    release();
}

/// Adds what an adapter has to the sums: columns behind those of the base.
fn add_behind(up: &PackedMatrix, x: BlockTiles<'_>, panels: Range<usize>, sums: *mut f32) {
    for first in (0..x.tiles.columns).step_by(DEPTH) {
        let columns = first..(first + DEPTH).min(x.tiles.columns);
        let weights = |panel| up.panel(panel).wrapping_add(first * TILE_BYTES);
        add_columns(x, columns, panels.clone(), false, weights, sums, |_| {});
    }
}

/// Adds a group of columns to the sums, which begin at zero if `fresh`; `weights` gives a panel's tiles of them. `after` is
/// called with the number of tiles of sums that are done.
#[inline(always)]
fn add_columns(
    x: BlockTiles<'_>,
    columns: Range<usize>,
    panels: Range<usize>,
    fresh: bool,
    weights: impl Fn(usize) -> *const u8,
    sums: *mut f32,
    mut after: impl FnMut(usize),
) {
    let (depth, row_tiles) = (columns.len(), x.row_tiles);
    let mut done = 0;
    for row_tile in (0..row_tiles).step_by(2) {
        let pair = row_tile + 1 < row_tiles;
        let mut panel = panels.start;
        while panel < panels.end {
            let weights = |c: usize| weights(panel + c);
            let activations = |r: usize| x.at(row_tile + r, columns.start);
            let sum = |r: usize, c: usize| {
                sums.wrapping_add(((row_tile + r) * panels.len() + panel + c - panels.start) * SUM)
            };
            // SAFETY: the tiles are configured; all pointers lead to `depth` whole tiles of the
            // activations and the panels, and to whole tiles of sums of this thread.
            let wide = unsafe {
                match (pair, panels.end - panel, x.tiles.parts) {
                    (true, 2.., _) => {
                        let x = [activations(0), activations(1)];
                        let w = [weights(0), weights(1)];
                        let sums = [sum(0, 0), sum(0, 1), sum(1, 0), sum(1, 1)];
                        square(x, w, sums, depth, fresh);
                        2
                    }
                    (false, 4.., parts) => {
                        let w = [0, 1, 2, 3].map(weights);
                        let sums = [0, 1, 2, 3].map(|c| sum(0, c));
                        match parts {
                            Parts::Rounded => line(activations(0), w, sums, depth, fresh),
                            Parts::Split => line_split(activations(0), w, sums, depth, fresh),
                        }
                        4
                    }
                    (_, _, parts) => {
                        for r in 0..1 + usize::from(pair) {
                            match parts {
                                Parts::Rounded => one(activations(r), weights(0), sum(r, 0), depth, fresh),
                                Parts::Split => {
                                    one_split(activations(r), weights(0), sum(r, 0), depth, fresh)
                                }
                            }
                        }
                        1
                    }
                }
            };
            panel += wide;
            done += wide * (1 + usize::from(pair));
            after(done);
        }
    }
}

/// Copies sums to their rows, with the bias: a row's panels one after the other.
struct Write<'a> {
    job: &'a Job<'a>,
    panels: Range<usize>,
    sums: *const f32,
}

impl Kernel for Write<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for t in 0..self.job.n {
            for (i, panel) in self.panels.clone().enumerate() {
                let tile = t / TILE_ROWS * self.panels.len() + i;
                // SAFETY: the tile is one of the sums; the row and the panel are the job's.
                unsafe {
                    let sum = S::load(self.sums.add(tile * SUM + t % TILE_ROWS * LANES));
                    store::<S>(self.job, panel, t, sum);
                }
            }
        }
    }
}
