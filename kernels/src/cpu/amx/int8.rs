//! Products of quantised weights with several rows in whole numbers: a tile is a block of 32 columns (16 where a
//! format scales those apart), its sums are exact, and vectors scale and add them in the order of one row's
//! product. So a row has the bits that vectors give it alone.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::SendPtr;
use super::super::activations::quantize_block;
use super::super::formats::{Block, Place};
use super::super::matmul::{Job, store};
use super::super::pack::Aligned;
use super::super::pool::Pool;
use super::super::simd::{LANES, Simd};
use super::super::x86::Avx512;
use super::{TILE_ROWS, configure, release};

/// Blocks of columns whose weights are unpacked before they are used: they stay in the first cache.
const DEPTH: usize = 32;

/// Activations in 8 bits as [`super::super::activations::Quantized`] has them, in tiles `[row tile, block]` of 16 rows
/// by 32 columns. Rows past the last are zero.
pub(crate) struct Tiles {
    q: Aligned,
    /// `[row tile, block, row]`.
    scales: Vec<f32>,
    /// `-scale * (sum of the q)`, `[row tile, block, row]`.
    shares: Vec<f32>,
    blocks: usize,
}

impl Tiles {
    /// Rounds `x [n, cols]`.
    pub(crate) fn new(pool: &Pool, x: &[f32], n: usize) -> Self {
        let cols = x.len() / n.max(1);
        let (row_tiles, blocks) = (n.div_ceil(TILE_ROWS), cols / 32);
        let facts = row_tiles * blocks * TILE_ROWS;
        let mut this = Self {
            q: Aligned::zeroed(facts * 32),
            scales: vec![0.0; facts],
            shares: vec![0.0; facts],
            blocks,
        };
        let q = SendPtr(this.q.as_mut_ptr().cast::<i8>());
        let (scales, shares) = (SendPtr(this.scales.as_mut_ptr()), SendPtr(this.shares.as_mut_ptr()));
        pool.run(n, &|t| {
            let row = &x[t * cols..(t + 1) * cols];
            // SAFETY: the level of AMX has the instructions; places of different rows are different.
            unsafe { round_row(row, t, blocks, q, scales, shares) };
        });
        this
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn round_row(
    row: &[f32],
    t: usize,
    blocks: usize,
    q: SendPtr<i8>,
    scales: SendPtr<f32>,
    shares: SendPtr<f32>,
) {
    for (b, numbers) in row.chunks_exact(32).enumerate() {
        let fact = (t / TILE_ROWS * blocks + b) * TILE_ROWS + t % TILE_ROWS;
        // SAFETY: the memory has 32 numbers, a scale and a share for each row and block.
        unsafe {
            let (scale, sums) = quantize_block::<Avx512>(numbers.as_ptr(), q.get().add(32 * fact));
            *scales.get().add(fact) = scale;
            *shares.get().add(fact) = -scale * (sums[0] + sums[1]);
        }
    }
}

/// Weights of a panel as signed bytes, in tiles, and their scales.
#[repr(C, align(64))]
struct Unpacked {
    q: [MaybeUninit<[u8; 512]>; DEPTH],
    /// By block: scales of the groups, then the minimums.
    scales: [MaybeUninit<[f32; 3 * LANES]>; DEPTH],
}

/// Computes a few panels of a job against all rows. AMX is available.
pub(crate) fn project<B: Block>(job: &Job<'_>, x: &Tiles, panels: Range<usize>) {
    // The last row tile is cut short where that is half of it or less, and so is the only one.
    let row_tiles = job.n.div_ceil(TILE_ROWS);
    let halved = job.n.wrapping_sub(1) % TILE_ROWS < TILE_ROWS / 2;
    let whole = row_tiles - usize::from(halved);
    let mut sums = vec![[0.0f32; TILE_ROWS * LANES]; row_tiles];
    let mut unpacked =
        Box::new(Unpacked { q: [MaybeUninit::uninit(); DEPTH], scales: [MaybeUninit::uninit(); DEPTH] });
    for panel in panels {
        for first in (0..x.blocks).step_by(DEPTH) {
            let blocks = first..(first + DEPTH).min(x.blocks);
            // SAFETY: AMX comes with the vectors' level; blocks and row tiles are the matrix's and the rows'.
            unsafe {
                unpack::<B>(job, panel, blocks.clone(), &mut unpacked);
                if whole > 0 {
                    configure(shape::<B>(TILE_ROWS));
                    for (t, sums) in sums.iter_mut().enumerate().take(whole) {
                        multiply::<B, TILE_ROWS>(job, x, &unpacked, blocks.clone(), panel, t, sums);
                    }
                }
                if halved {
                    configure(shape::<B>(TILE_ROWS / 2));
                    let sums = &mut sums[whole];
                    multiply::<B, { TILE_ROWS / 2 }>(job, x, &unpacked, blocks, panel, whole, sums);
                }
            }
        }
    }
    release();
}

/// Tiles 0 and 1 are sums, 2 and 3 activations, 4 and 5 weights.
fn shape<B: Block>(rows: usize) -> [(u8, u16); 8] {
    let columns = 32 / B::GROUPS;
    let (sums, activations) = ((rows as u8, 64), (rows as u8, columns as u16));
    let weights = (columns as u8 / 4, 64);
    [sums, sums, activations, activations, weights, weights, sums, sums]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack<B: Block>(job: &Job<'_>, panel: usize, blocks: Range<usize>, to: &mut Unpacked) {
    // SAFETY: the blocks are the panel's, and `to` has room for `DEPTH` of them.
    unsafe {
        let offset = _mm512_set1_epi8(B::OFFSET as i8);
        for (i, b) in blocks.enumerate() {
            let place = Place::of::<B>(job.matrix, panel, b);
            let w = B::quants::<Avx512>(place.quants);
            let tile = to.q[i].as_mut_ptr().cast::<__m512i>();
            for j in 0..8 {
                _mm512_store_si512(tile.add(j), _mm512_sub_epi8(w[j], offset));
            }
            let (scale, minimum) = place.scales::<Avx512, B>();
            let scales = to.scales[i].as_mut_ptr().cast::<f32>();
            Avx512::store(scales, scale[0]);
            Avx512::store(scales.add(LANES), scale[1]);
            Avx512::store(scales.add(2 * LANES), minimum);
        }
    }
}

/// Adds some blocks of a panel to the sums of a row tile, of which `ROWS` rows count; writes them with the last block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn multiply<B: Block, const ROWS: usize>(
    job: &Job<'_>,
    x: &Tiles,
    weights: &Unpacked,
    blocks: Range<usize>,
    panel: usize,
    row_tile: usize,
    sums: &mut [f32; TILE_ROWS * LANES],
) {
    #[repr(C, align(64))]
    struct Dots([[i32; TILE_ROWS * LANES]; 2]);
    let mut dots = Dots([[0; TILE_ROWS * LANES]; 2]);
    // SAFETY: tiles are configured for `ROWS`; all pointers lead to whole blocks of the panel and the row tile.
    unsafe {
        let (begins, ends) = (blocks.start == 0, blocks.end == x.blocks);
        let mut acc = [Avx512::splat(0.0); ROWS];
        if !begins {
            for r in 0..ROWS {
                acc[r] = Avx512::load(sums.as_ptr().add(r * LANES));
            }
        }
        for (i, b) in blocks.enumerate() {
            let fact = (row_tile * x.blocks + b) * TILE_ROWS;
            let q = x.q.as_ptr().add(32 * fact);
            let tile = weights.q[i].as_ptr().cast::<u8>();
            let to = dots.0.as_mut_ptr().cast::<i32>();
            if B::GROUPS == 1 {
                one_tile(q, tile, to);
            } else {
                two_tiles(q, tile, to);
            }
            let scales = weights.scales[i].as_ptr().cast::<f32>();
            let x_scales = x.scales.as_ptr().add(fact);
            for g in 0..B::GROUPS {
                let scale = Avx512::load(scales.add(g * LANES));
                for r in 0..ROWS {
                    let dot =
                        _mm512_cvtepi32_ps(_mm512_load_si512(to.add((g * TILE_ROWS + r) * LANES).cast()));
                    acc[r] = Avx512::fma(Avx512::mul(dot, scale), Avx512::splat(*x_scales.add(r)), acc[r]);
                }
            }
            if B::MINIMUM {
                let minimum = Avx512::load(scales.add(2 * LANES));
                let shares = x.shares.as_ptr().add(fact);
                for r in 0..ROWS {
                    acc[r] = Avx512::fma(minimum, Avx512::splat(*shares.add(r)), acc[r]);
                }
            }
        }
        for r in 0..ROWS {
            let t = row_tile * TILE_ROWS + r;
            if !ends {
                Avx512::store(sums.as_mut_ptr().add(r * LANES), acc[r]);
            } else if t < job.n {
                store::<Avx512>(job, panel, t, acc[r]);
            }
        }
    }
}

/// The sums of 32 columns.
///
/// # Safety
/// Tiles have the shape of one group; pointers lead to 16 rows of 32 numbers, to 512 weights and to 16 rows of sums.
#[inline(always)]
unsafe fn one_tile(x: *const u8, w: *const u8, to: *mut i32) {
    // SAFETY: the caller's contract; nothing but tiles and the sums is written.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tileloadd tmm2, [{x} + {narrow}]",
            "tileloadd tmm4, [{w} + {row}]",
            "tdpbssd tmm0, tmm2, tmm4",
            "tilestored [{to} + {row}], tmm0",
            x = in(reg) x, w = in(reg) w, to = in(reg) to,
            narrow = in(reg) 32usize, row = in(reg) 64usize,
            out("tmm0") _, out("tmm2") _, out("tmm4") _,
            options(nostack, preserves_flags),
        );
    }
}

/// The sums of twice 16 columns.
///
/// # Safety
/// As [`one_tile`], with tiles of two groups and room for twice the sums.
#[inline(always)]
unsafe fn two_tiles(x: *const u8, w: *const u8, to: *mut i32) {
    // SAFETY: the caller's contract; nothing but tiles and the sums is written.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tileloadd tmm2, [{x} + {narrow}]",
            "tileloadd tmm4, [{w} + {row}]",
            "tdpbssd tmm0, tmm2, tmm4",
            "tilezero tmm1",
            "tileloadd tmm3, [{x} + {narrow} + 16]",
            "tileloadd tmm5, [{w} + {row} + 256]",
            "tdpbssd tmm1, tmm3, tmm5",
            "tilestored [{to} + {row}], tmm0",
            "tilestored [{to} + {row} + 1024], tmm1",
            x = in(reg) x, w = in(reg) w, to = in(reg) to,
            narrow = in(reg) 32usize, row = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack, preserves_flags),
        );
    }
}
