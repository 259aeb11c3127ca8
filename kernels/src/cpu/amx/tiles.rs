//! Activations rounded to bf16, as tiles.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::SendPtr;
use super::super::pack::TILE_COLS;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::TILE_ROWS;
use super::tile_products::TILE_BYTES;

/// Tiles of columns worked on before the next: two row tiles and two panels of so many lie in the first cache together,
/// and so many of a chunk of panels in the second.
pub(super) const DEPTH: usize = 8;

/// Activations in tiles `[block, column tiles / DEPTH, row tile, DEPTH, part]` (the last group of columns may be narrower),
/// the order in which they are read; columns past a block's last are zero, rows past the last whatever.
pub(crate) struct Tiles {
    tiles: Scratch,
    row_tiles: usize,
    /// Tiles of columns of a block.
    pub(super) columns: usize,
    pub(super) parts: Parts,
}

/// What a product reads of them.
#[derive(Clone, Copy)]
pub(crate) struct BlockTiles<'a> {
    pub(super) tiles: &'a Tiles,
    block: usize,
    /// The first row tile, and how many.
    first: usize,
    pub(super) row_tiles: usize,
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
    pub(crate) fn new(pool: &Pool, x: Columns<'_>, n: usize, parts: Parts) -> Self {
        let (blocks, row_tiles) = (x.blocks, n.div_ceil(TILE_ROWS));
        assert!(parts == Parts::Rounded || row_tiles <= 1, "few rows are split");
        let columns = x.width().div_ceil(TILE_COLS);
        let tiles = Scratch::new(blocks * row_tiles * columns * parts as usize * TILE_BYTES);
        let to = SendPtr(tiles.as_ptr().cast::<u16>());
        pool.run(row_tiles, &|row_tile| {
            let rows = row_tile * TILE_ROWS * x.stride..((row_tile + 1) * TILE_ROWS).min(n) * x.stride;
            let rows = Columns { x: &x.x[rows], ..x.clone() };
            let place = Place { row_tile, row_tiles, columns };
            // SAFETY: AMX's level has these instructions; row tiles are disjoint parts of the memory, with room for as many
            // tiles as there are parts for each tile of columns.
            unsafe { round_rows(&rows, parts, place, to.get()) };
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
    pub(super) fn at(self, row_tile: usize, first: usize) -> *const u8 {
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

/// Numbers of a tile.
const TILE: usize = TILE_ROWS * TILE_COLS;

/// Rounds the rows of a row tile.
///
/// # Safety
/// The level of AMX is there; behind `to` there is room for all tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_rows(rows: &Columns<'_>, parts: Parts, place: Place, to: *mut u16) {
    let width = rows.width();
    for (r, row) in rows.x.chunks_exact(rows.stride).enumerate() {
        for (block, row) in row[rows.range.clone()].chunks_exact(width.max(1)).enumerate() {
            for (column, numbers) in row.chunks(TILE_COLS).enumerate() {
                let at = place.tile(block, column) * parts as usize * TILE + r * TILE_COLS;
                for half in 0..2 {
                    let numbers = numbers.get(half * HALF..).unwrap_or_default();
                    // SAFETY: a row of a tile has two halves, and there are as many tiles as parts.
                    unsafe { round_half(numbers, parts, to.add(at + half * HALF)) };
                }
            }
        }
    }
}

/// Numbers that are rounded at a time, half a row of a tile.
const HALF: usize = TILE_COLS / 2;

/// Rounds the first sixteen numbers to the nearest bf16, ties to even; where there are fewer, zeros follow.
///
/// # Safety
/// As [`round_rows`]; there is room for them at `to`, and in the next tile for what they leave where there are two parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_half(numbers: &[f32], parts: Parts, to: *mut u16) {
    let mask = ((1u32 << numbers.len().min(HALF)) - 1) as __mmask16;
    // SAFETY: what the mask leaves out is not read; the caller's.
    unsafe {
        let x = _mm512_maskz_loadu_ps(mask, numbers.as_ptr());
        let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
        _mm256_storeu_si256(to.cast(), rounded);
        if parts == Parts::Split {
            let back = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded));
            let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(back));
            let rest = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(rest));
            _mm256_storeu_si256(to.add(TILE).cast(), rest);
        }
    }
}
