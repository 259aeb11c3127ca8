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
use super::super::pack::{Aligned, TILE_COLS};
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::simd::{Kernel, LANES, Simd};
use super::super::{Level, SendPtr};
use super::widen::widen;
use super::{TILE_ROWS, WHOLE, configure, release};

/// Bytes of a tile.
const TILE_BYTES: usize = TILE_ROWS * TILE_COLS * 2;
/// Tiles of columns worked on before the next: two row tiles and two panels of so many lie in the first cache together,
/// and so many of a chunk of panels in the second.
const DEPTH: usize = 8;

/// Activations in tiles `[column tiles / DEPTH, row tile, DEPTH, part]` (the last group of columns may be narrower), the
/// order in which they are read; columns past the last are zero, rows past the last whatever.
pub(crate) struct Tiles {
    tiles: Scratch,
    row_tiles: usize,
    /// Tiles of columns.
    columns: usize,
    parts: Parts,
}

/// What is kept of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The nearest bf16.
    Rounded = 1,
    /// And the nearest bf16 of what that leaves; of one row tile at most.
    Split = 2,
}

/// Columns of activations `x [rows, stride]`.
#[derive(Clone)]
pub(crate) struct Columns<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) range: Range<usize>,
}

impl<'a> Columns<'a> {
    /// All columns of `n` rows.
    pub(crate) fn all(x: &'a [f32], n: usize) -> Self {
        let stride = x.len() / n.max(1);
        Self { x, stride, range: 0..stride }
    }
}

impl Tiles {
    /// Rounds `n` rows.
    pub(crate) fn new(pool: &Pool, level: Level, x: Columns<'_>, n: usize, parts: Parts) -> Self {
        let row_tiles = n.div_ceil(TILE_ROWS);
        assert!(parts == Parts::Rounded || row_tiles <= 1, "few rows are split");
        let columns = x.range.len().div_ceil(TILE_COLS);
        let tiles = Scratch::new(row_tiles * columns * parts as usize * TILE_BYTES);
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

    /// The tiles of a row tile, from the first of a group of columns on.
    fn at(&self, row_tile: usize, first: usize) -> *const u8 {
        let tile = Place { row_tile, row_tiles: self.row_tiles, columns: self.columns }.tile(first);
        self.tiles.as_ptr().wrapping_add(tile * self.parts as usize * TILE_BYTES)
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
    fn tile(self, column: usize) -> usize {
        let first = column / DEPTH * DEPTH;
        let depth = DEPTH.min(self.columns - first);
        first * self.row_tiles + self.row_tile * depth + column - first
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
        const TILE: usize = TILE_ROWS * TILE_COLS;
        for (r, row) in self.rows.x.chunks_exact(self.rows.stride).enumerate() {
            for (tile, numbers) in row[self.rows.range.clone()].chunks(TILE_COLS).enumerate() {
                let tile = self.place.tile(tile);
                // SAFETY: the row tile has room for as many tiles as there are parts for each tile of columns.
                let to = unsafe { self.to.add(tile * self.parts as usize * TILE + r * TILE_COLS) };
                let mut padded = [0.0; TILE_COLS];
                let numbers = numbers.try_into().unwrap_or_else(|_| {
                    padded[..numbers.len()].copy_from_slice(numbers);
                    &padded
                });
                for i in 0..TILE_COLS {
                    // SAFETY: as above.
                    unsafe { *to.add(i) = round(numbers[i]) };
                }
                if self.parts == Parts::Split {
                    for i in 0..TILE_COLS {
                        let rest = numbers[i] - f32::from_bits(u32::from(round(numbers[i])) << 16);
                        // SAFETY: as above.
                        unsafe { *to.add(TILE + i) = round(rest) };
                    }
                }
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
pub(crate) fn project(job: &Job<'_>, x: &Tiles, panels: Range<usize>) {
    let tiles = |panel: usize, first: usize| job.matrix.panel(panel).wrapping_add(first * TILE_BYTES);
    if job.n <= 2 * TILE_ROWS {
        return multiply(job, x, panels, |_| {}, tiles);
    }
    // Read again and again, weights are better copied: panels that lie a power of two apart drive each other out of the
    // cache.
    multiply_prepared(job, x, panels, |panel, group, to| {
        // SAFETY: the panel has these tiles, and there is room for them.
        unsafe { std::ptr::copy_nonoverlapping(tiles(panel, group.start), to, group.len() * TILE_BYTES) };
    });
}

/// Computes a few panels of a job of quantised weights against all rows. AMX is available.
pub(crate) fn project_widened<B: Block>(job: &Job<'_>, x: &Tiles, panels: Range<usize>) {
    multiply_prepared(job, x, panels, |panel, group, to| {
        // SAFETY: the vectors' level comes with AMX; there is room for the group's tiles.
        unsafe { widen::<B>(job.matrix, panel, group, to) };
    });
}

/// Products with tiles that `prepare` writes: those of a panel, from a group of columns.
#[inline(always)]
fn multiply_prepared(
    job: &Job<'_>,
    x: &Tiles,
    panels: Range<usize>,
    prepare: impl Fn(usize, Range<usize>, *mut u8),
) {
    let memory = Scratch::new(panels.len() * DEPTH * TILE_BYTES);
    let place = |panel: usize| memory.as_ptr().wrapping_add((panel - panels.start) * DEPTH * TILE_BYTES);
    let prepare =
        |group: Range<usize>| panels.clone().for_each(|panel| prepare(panel, group.clone(), place(panel)));
    multiply(job, x, panels.clone(), prepare, |panel, _| place(panel).cast_const());
}

/// The loops of all products. `prepare` is called with each range of column tiles before it is used; `weights` gives the
/// tiles of a panel from such a range's first on.
#[inline(always)]
fn multiply(
    job: &Job<'_>,
    x: &Tiles,
    panels: Range<usize>,
    mut prepare: impl FnMut(Range<usize>),
    weights: impl Fn(usize, usize) -> *const u8,
) {
    let sums = Scratch::new(job.n.div_ceil(TILE_ROWS) * panels.len() * SUM * 4);
    add_up(job, x, panels.clone(), &mut prepare, weights, sums.as_ptr().cast());
    // SAFETY: there are that many sums, all of them written; rows and columns are the job's.
    unsafe { job.level.run(Write { job, panels, sums: sums.as_ptr().cast() }) };
}

/// Numbers of a tile of sums.
const SUM: usize = TILE_ROWS * LANES;

/// Fills `sums`, a tile for each row tile and panel.
#[inline(always)]
fn add_up(
    job: &Job<'_>,
    x: &Tiles,
    panels: Range<usize>,
    prepare: &mut impl FnMut(Range<usize>),
    weights: impl Fn(usize, usize) -> *const u8,
    sums: *mut f32,
) {
    configure(WHOLE);
    for first in (0..x.columns).step_by(DEPTH) {
        let columns = first..x.columns.min(first + DEPTH);
        prepare(columns.clone());
        add_columns(x, columns, panels.clone(), first == 0, |panel| weights(panel, first), sums);
    }
    // What an adapter adds are columns behind those of the base.
    if let Some((added, x)) = job.added.as_ref().and_then(|added| Some((added, added.tiles.as_ref()?))) {
        for first in (0..x.columns).step_by(DEPTH) {
            let columns = first..x.columns.min(first + DEPTH);
            let weights = |panel| added.up.panel(panel).wrapping_add(first * TILE_BYTES);
            add_columns(x, columns, panels.clone(), false, weights, sums);
        }
    }
    release();
}

/// Adds a group of columns to the sums, which begin at zero if `fresh`; `weights` gives a panel's tiles of them.
#[inline(always)]
fn add_columns(
    x: &Tiles,
    columns: Range<usize>,
    panels: Range<usize>,
    fresh: bool,
    weights: impl Fn(usize) -> *const u8,
    sums: *mut f32,
) {
    let depth = columns.len();
    for row_tile in (0..x.row_tiles).step_by(2) {
        let pair = row_tile + 1 < x.row_tiles;
        let mut panel = panels.start;
        while panel < panels.end {
            let weights = |c: usize| weights(panel + c);
            let activations = |r: usize| x.at(row_tile + r, columns.start);
            let sum = |r: usize, c: usize| {
                sums.wrapping_add(((row_tile + r) * panels.len() + panel + c - panels.start) * SUM)
            };
            // SAFETY: the tiles are configured; all pointers lead to `depth` whole tiles of the
            // activations and the panels, and to whole tiles of sums of this thread.
            panel += unsafe {
                match (pair, panels.end - panel, x.parts) {
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

/// Multiplies tiles in the first cache over and over, as [`square`] does; the floating-point operations that were done.
pub(crate) fn busy(steps: usize) -> f64 {
    let (x, w) = (Aligned::zeroed(2 * DEPTH * TILE_BYTES), Aligned::zeroed(2 * TILE_BYTES));
    let mut sums = Aligned::zeroed(4 * TILE_BYTES);
    let to = sums.as_mut_ptr().cast::<f32>();
    configure(WHOLE);
    // SAFETY: tiles are configured; with a step of 0 all pointers stay at tiles that are there.
    unsafe {
        std::arch::asm!(
            "2:",
            "tileloadd tmm4, [{x} + {row}]",
            "tileloadd tmm5, [{x} + {row} + 1024]",
            "tileloadd tmm6, [{w} + {row}]",
            "tileloadd tmm7, [{w} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{to} + {row}], tmm0",
            row = in(reg) 64usize, x = in(reg) x.as_ptr(), w = in(reg) w.as_ptr(), to = in(reg) to,
            steps = inout(reg) steps.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    release();
    std::hint::black_box(&mut sums);
    // Four products of 16 x 16 x 32 a step, a multiplication and an addition each.
    (steps.max(1) * 4 * 16 * 16 * 32 * 2) as f64
}

/// Adds `depth` tiles of two row tiles against two panels to four tiles of sums, which begin at zero if `fresh`.
///
/// # Safety
/// Tiles are configured; pointers lead to `depth` tiles (activations, panels) and to a tile
/// each (sums).
unsafe fn square(x: [*const u8; 2], w: [*const u8; 2], sums: [*mut f32; 4], depth: usize, fresh: bool) {
    // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {fresh}, {fresh}",
            "jnz 2f",
            "tileloadd tmm0, [{c0} + {row}]",
            "tileloadd tmm1, [{c1} + {row}]",
            "tileloadd tmm2, [{c2} + {row}]",
            "tileloadd tmm3, [{c3} + {row}]",
            "2:",
            "tileloadd tmm6, [{w0} + {row}]",
            "tileloadd tmm4, [{x0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x0}, 1024",
            "add {x1}, 1024",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c0} + {row}], tmm0",
            "tilestored [{c1} + {row}], tmm1",
            "tilestored [{c2} + {row}], tmm2",
            "tilestored [{c3} + {row}], tmm3",
            row = in(reg) 64usize, fresh = in(reg) usize::from(fresh),
            x0 = inout(reg) x[0] => _, x1 = inout(reg) x[1] => _,
            w0 = inout(reg) w[0] => _, w1 = inout(reg) w[1] => _,
            c0 = in(reg) sums[0], c1 = in(reg) sums[1], c2 = in(reg) sums[2], c3 = in(reg) sums[3],
            depth = inout(reg) depth => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Writes a function that adds `depth` tiles of one row tile against four panels, in the order of [`square`].
macro_rules! line {
    ($name:ident, $x_step:literal, [$($second:literal,)*]) => {
        /// Adds `depth` tiles of one row tile against four panels to four tiles of sums, which begin at zero if `fresh`.
        ///
        /// # Safety
        /// As [`square`].
        unsafe fn $name(x: *const u8, w: [*const u8; 4], sums: [*mut f32; 4], depth: usize, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {fresh}, {fresh}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c0} + {row}]",
                    "tileloadd tmm1, [{c1} + {row}]",
                    "tileloadd tmm2, [{c2} + {row}]",
                    "tileloadd tmm3, [{c3} + {row}]",
                    "2:",
                    "tileloadd tmm4, [{x} + {row}]",
                    "tileloadd tmm5, [{w0} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm5",
                    "tileloadd tmm6, [{w1} + {row}]",
                    "tdpbf16ps tmm1, tmm4, tmm6",
                    "tileloadd tmm7, [{w2} + {row}]",
                    "tdpbf16ps tmm2, tmm4, tmm7",
                    $($second,)*
                    concat!("add {x}, ", $x_step),
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "add {w2}, 1024",
                    "add {w3}, 1024",
                    "dec {depth}",
                    "jnz 2b",
                    "tilestored [{c0} + {row}], tmm0",
                    "tilestored [{c1} + {row}], tmm1",
                    "tilestored [{c2} + {row}], tmm2",
                    "tilestored [{c3} + {row}], tmm3",
                    row = in(reg) 64usize, fresh = in(reg) usize::from(fresh),
                    x = inout(reg) x => _,
                    w0 = inout(reg) w[0] => _, w1 = inout(reg) w[1] => _,
                    w2 = inout(reg) w[2] => _, w3 = inout(reg) w[3] => _,
                    c0 = in(reg) sums[0], c1 = in(reg) sums[1], c2 = in(reg) sums[2], c3 = in(reg) sums[3],
                    depth = inout(reg) depth => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

line!(line, "1024", ["tileloadd tmm5, [{w3} + {row}]", "tdpbf16ps tmm3, tmm4, tmm5",]);
// The weights of the first panel are loaded twice: there is one tile too few.
line!(
    line_split,
    "2048",
    [
        "tileloadd tmm5, [{x} + {row} + 1024]",
        "tdpbf16ps tmm1, tmm5, tmm6",
        "tdpbf16ps tmm2, tmm5, tmm7",
        "tileloadd tmm6, [{w3} + {row}]",
        "tdpbf16ps tmm3, tmm4, tmm6",
        "tileloadd tmm7, [{w0} + {row}]",
        "tdpbf16ps tmm3, tmm5, tmm6",
        "tdpbf16ps tmm0, tmm5, tmm7",
    ]
);

/// Writes a function that adds `depth` tiles of one row tile against one panel, in the order of [`square`].
macro_rules! one {
    ($name:ident, $x_step:literal, [$($second:literal,)*]) => {
        /// Adds `depth` tiles of one row tile against one panel to a tile of sums, which begins at zero if `fresh`.
        ///
        /// # Safety
        /// As [`square`].
        unsafe fn $name(x: *const u8, w: *const u8, sums: *mut f32, depth: usize, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "test {fresh}, {fresh}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c} + {row}]",
                    "2:",
                    "tileloadd tmm6, [{w} + {row}]",
                    "tileloadd tmm4, [{x} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    $($second,)*
                    concat!("add {x}, ", $x_step),
                    "add {w}, 1024",
                    "dec {depth}",
                    "jnz 2b",
                    "tilestored [{c} + {row}], tmm0",
                    row = in(reg) 64usize, fresh = in(reg) usize::from(fresh),
                    x = inout(reg) x => _, w = inout(reg) w => _, c = in(reg) sums,
                    depth = inout(reg) depth => _,
                    out("tmm0") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    };
}

one!(one, "1024", []);
one!(one_split, "2048", ["tileloadd tmm5, [{x} + {row} + 1024]", "tdpbf16ps tmm0, tmm5, tmm6",]);
