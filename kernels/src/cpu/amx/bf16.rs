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
use super::super::pack::PackedMatrix;
use super::super::scratch::Scratch;
use super::super::simd::{Kernel, LANES, Simd};
use super::tile_products::{Stretch, Sums, TILE_BYTES, column, line, line_split, one, one_split, square};
use super::tiles::{BlockTiles, DEPTH, Parts};
use super::widen::widen;
use super::{TILE_ROWS, WHOLE, configure, release};

/// Computes a few panels of a job of bf16 weights against all rows. AMX is available.
pub(crate) fn project(job: &Job<'_>, x: BlockTiles<'_>, panels: Range<usize>) {
    if job.n <= 2 * TILE_ROWS {
        let weights = |first| Weights::of(job.matrix, panels.start, first);
        return multiply(job, x, panels.clone(), |_, _| {}, weights);
    }
    // Read again and again, weights are better copied: panels that lie a power of two apart drive each other out of the
    // cache.
    multiply_prepared(job, x, panels, |panel, columns, to| {
        let from = Weights::of(job.matrix, panel, columns.start).first;
        // SAFETY: the panel has these tiles, and there is room for them.
        unsafe { std::ptr::copy_nonoverlapping(from, to, columns.len() * TILE_BYTES) };
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
    let weights = |first| Weights { first: place(panels.start, first), stride: DEPTH * TILE_BYTES };
    multiply(job, x, panels.clone(), prepare, weights);
}

/// The loops of all products. `prepare` is called for the tiles of a panel before they are used; `weights` gives those of a
/// group of columns, by its first.
#[inline(always)]
fn multiply(
    job: &Job<'_>,
    x: BlockTiles<'_>,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>),
    weights: impl Fn(usize) -> Weights,
) {
    let sums = Scratch::new(job.n.div_ceil(TILE_ROWS) * panels.len() * SUM * 4);
    let rows = Rows::of(job, &panels);
    add_up(job, x, panels.clone(), prepare, weights, sums.as_ptr().cast(), &rows);
    let first = rows.row_tiles * TILE_ROWS;
    // SAFETY: there are that many sums, all but those of the rows before written; rows and columns are the job's.
    unsafe { job.level.run(Write { job, panels, first, sums: sums.as_ptr().cast() }) };
}

/// Numbers of a tile of sums.
const SUM: usize = TILE_ROWS * LANES;

/// Outputs that whole tiles of sums are stored to at last, those of the first row tiles: without a bias there is nothing
/// else to do.
struct Rows {
    /// Those of the first row and panel.
    out: *mut f32,
    /// Numbers from a row to the next.
    stride: usize,
    row_tiles: usize,
}

impl Rows {
    fn of(job: &Job<'_>, panels: &Range<usize>) -> Self {
        let whole = job.bias.is_none() && panels.end * LANES <= job.matrix.rows;
        // No product has a part of its row tiles among these: four are the most.
        let row_tiles = if whole { (job.n / TILE_ROWS) & !3 } else { 0 };
        // SAFETY: the panel is the job's, and where it has no rows nothing is written.
        Self { out: unsafe { job.outputs(panels.start, 0) }, stride: job.out_stride, row_tiles }
    }
}

/// Fills `sums`, a tile for each row tile and panel, but for those that end up in `rows`.
#[inline(always)]
fn add_up(
    job: &Job<'_>,
    x: BlockTiles<'_>,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>),
    weights: impl Fn(usize) -> Weights,
    sums: *mut f32,
    rows: &Rows,
) {
    let mut behind = columns_behind(job, panels.start).peekable();
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
        let base = Group { x, columns: group(first), weights: weights(first) };
        let ends = first + DEPTH >= x.tiles.columns;
        let second = behind.next_if(|_| ends);
        let rows = (ends && behind.peek().is_none()).then_some(rows);
        Addition { group: base, second, panels: panels.len(), fresh: first == 0, sums, rows }.run(after);
    }
    while let Some(group) = behind.next() {
        let rows = behind.peek().is_none().then_some(rows);
        Addition { group, second: None, panels: panels.len(), fresh: false, sums, rows }.run(|_| {});
    }
    release();
}

/// What an adapter adds to the sums of the panels from `panel` on, in groups of columns behind those of the base.
fn columns_behind<'a>(job: &'a Job<'_>, panel: usize) -> impl Iterator<Item = Group<'a>> {
    let tiles = job.added.as_ref().and_then(|added| Some((added.up, added.tiles.as_ref()?)));
    tiles.into_iter().flat_map(move |(up, tiles)| {
        (0..tiles.columns).step_by(DEPTH).map(move |first| Group {
            x: tiles.block(0),
            columns: first..(first + DEPTH).min(tiles.columns),
            weights: Weights::of(up, panel, first),
        })
    })
}

/// Where some panels' tiles of a group of columns lie.
#[derive(Clone, Copy)]
struct Weights {
    /// Those of the first panel, one after the other.
    first: *const u8,
    /// Bytes from a panel to the next.
    stride: usize,
}

impl Weights {
    /// In a matrix of bf16, from a panel on.
    fn of(matrix: &PackedMatrix, panel: usize, column: usize) -> Self {
        let first = matrix.panel(panel).wrapping_add(column * TILE_BYTES);
        Self { first, stride: matrix.shape.bytes() }
    }
}

/// Activations and weights of some columns.
struct Group<'a> {
    x: BlockTiles<'a>,
    columns: Range<usize>,
    weights: Weights,
}

impl Group<'_> {
    /// What the row tiles and panels from these on have to multiply.
    #[inline(always)]
    fn stretch<const X: usize, const W: usize>(&self, row_tile: usize, panel: usize) -> Stretch<X, W> {
        Stretch {
            x: std::array::from_fn(|r| self.x.at(row_tile + r, self.columns.start)),
            w: std::array::from_fn(|p| self.weights.first.wrapping_add((panel + p) * self.weights.stride)),
            depth: self.columns.len(),
        }
    }
}

/// A group of columns that is added to sums, and a second one behind it: an adapter's, for which sums are not loaded and
/// stored once more.
struct Addition<'a> {
    group: Group<'a>,
    second: Option<Group<'a>>,
    panels: usize,
    /// Whether the sums begin at zero.
    fresh: bool,
    sums: *mut f32,
    /// Where sums go that are whole with this.
    rows: Option<&'a Rows>,
}

impl Addition<'_> {
    /// All row tiles and panels. `after` is called with the number of tiles of sums that are done.
    #[inline(always)]
    fn run(&self, mut after: impl FnMut(usize)) {
        let mut done = 0;
        let mut did = |tiles: usize| {
            done += tiles;
            after(done);
        };
        // Four sums at a time wherever there are as many: with fewer, a product waits for the one before.
        let (pairs, wide) = (self.group.x.row_tiles & !1, self.panels & !1);
        for row_tile in (0..pairs).step_by(2) {
            for panel in (0..wide).step_by(2) {
                self.add(square, row_tile, panel);
                did(4);
            }
        }
        if wide < self.panels {
            let fours = pairs & !3;
            for row_tile in (0..fours).step_by(4) {
                self.add(column, row_tile, wide);
                did(4);
            }
            for row_tile in fours..pairs {
                self.add(one, row_tile, wide);
                did(1);
            }
        }
        if pairs < self.group.x.row_tiles {
            let (four, single): (Product<1, 4, 4>, Product<1, 1, 1>) = match self.group.x.tiles.parts {
                Parts::Rounded => (line, one),
                Parts::Split => (line_split, one_split),
            };
            let fours = self.panels & !3;
            for panel in (0..fours).step_by(4) {
                self.add(four, pairs, panel);
                did(4);
            }
            for panel in fours..self.panels {
                self.add(single, pairs, panel);
                did(1);
            }
        }
    }

    /// Sums of `X` row tiles and `W` panels.
    #[inline(always)]
    fn add<const X: usize, const W: usize, const N: usize>(
        &self,
        product: Product<X, W, N>,
        row_tile: usize,
        panel: usize,
    ) {
        let place = |i| (row_tile + i / W, panel + i % W);
        let kept: [_; N] = std::array::from_fn(|i| {
            let (row_tile, panel) = place(i);
            self.sums.wrapping_add((row_tile * self.panels + panel) * SUM)
        });
        let (to, stride) = match self.rows.filter(|rows| row_tile < rows.row_tiles) {
            Some(rows) => {
                let to = std::array::from_fn(|i| {
                    let (row_tile, panel) = place(i);
                    rows.out.wrapping_add(row_tile * TILE_ROWS * rows.stride + panel * LANES)
                });
                (to, rows.stride)
            }
            None => (kept, LANES),
        };
        let sums = Sums { from: kept.map(<*mut f32>::cast_const), to, stride: stride * size_of::<f32>() };
        let first = self.group.stretch(row_tile, panel);
        // SAFETY: the tiles are configured; all pointers lead to as many whole tiles of the activations and the panels as
        // the groups have columns, and to whole tiles of sums or rows of outputs of this thread.
        unsafe {
            match &self.second {
                Some(second) => product(&[first, second.stretch(row_tile, panel)], &sums, self.fresh),
                None => product(&[first], &sums, self.fresh),
            }
        }
    }
}

/// A function that adds stretches of columns of `X` row tiles and `W` panels to their `N` tiles of sums.
type Product<const X: usize, const W: usize, const N: usize> = unsafe fn(&[Stretch<X, W>], &Sums<N>, bool);

/// Copies sums to their rows, with the bias: a row's panels one after the other.
struct Write<'a> {
    job: &'a Job<'a>,
    panels: Range<usize>,
    /// The first row.
    first: usize,
    sums: *const f32,
}

impl Kernel for Write<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for t in self.first..self.job.n {
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
