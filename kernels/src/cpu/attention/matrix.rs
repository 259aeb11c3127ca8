//! Softmax attention of many rows on AMX: scores and sums of values are products of bf16 tiles, weights come
//! from a softmax that streams over blocks of keys.
//!
//! Everything is computed turned: a tile of scores has a key in each row and a query in each lane, so that
//! greatest scores, weights and totals need nothing across lanes, and two rows of weights side by side are what the
//! second product wants. Keys then stand as they are stored, and values are turned once, before all queries of the pass
//! (heads of a group times tokens) share them.
//!
//! Queries, keys, values and weights are rounded to bf16, sums are f32. Blocks stand at absolute positions and a key that a
//! row does not see adds zero, so a row's bits depend neither on the rows beside it nor on where its window begins.
//!
//! *Bound.* With `d = 2^-8 scale sum_i |q_i k_i|`, the most that rounding moves a score, an output is at most
//! `(e^(2 d) - 1 + 2^-7) max |v|` from the exact one, over the keys that it sees.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use super::halves::{self, Scratch};
use crate::cpu::SendPtr;
use crate::cpu::pack::Aligned;
use crate::cpu::pool::Pool;

/// Queries, or keys, or numbers of a value, along each side of a tile of sums.
pub(super) const SIDE: usize = 16;
/// Numbers of a tile's row: what one instruction adds up.
pub(super) const DEEP: usize = 32;
/// Bytes of a tile.
pub(super) const TILE: usize = 1024;
/// Bytes of turned keys and values made at a time, where that is more than one head's.
const ROUND_BYTES: usize = 8 << 20;
/// A row of numbers as it is stored.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Row {
    F32(*const f32),
    F16(*const f16),
    /// In 8 bits, with a scale.
    Q8(*const u8, f32),
}

/// Attention of many rows. A query row here is one head of one token.
pub(in crate::cpu) struct Job<'a> {
    /// Width of a head.
    pub(in crate::cpu) dim: usize,
    /// Heads of keys and values.
    pub(in crate::cpu) kv_heads: usize,
    /// Query rows that read each of these heads.
    pub(in crate::cpu) rows: usize,
    /// Index in `q` and `out` of the first number of a row, by head of keys and row.
    pub(in crate::cpu) place: &'a (dyn Fn(usize, usize) -> usize + Sync),
    /// The keys that a row sees; neither end ever moves back from one row to the next.
    pub(in crate::cpu) visible: &'a (dyn Fn(usize) -> Range<usize> + Sync),
    /// Key and value of a head at a position that some row sees.
    pub(in crate::cpu) stored: &'a (dyn Fn(usize, usize) -> [Row; 2] + Sync),
    /// What `q . k` is multiplied with.
    pub(in crate::cpu) scale: f32,
    /// `cap * tanh(score / cap)`.
    pub(in crate::cpu) soft_cap: Option<f32>,
    pub(in crate::cpu) q: &'a [f32],
    pub(in crate::cpu) out: SendPtr<f32>,
}

/// Sizes of what a head's keys and values become.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Tiles across a key.
    pub(super) depth: usize,
    /// Tiles across a value.
    pub(super) widths: usize,
    /// The position of the first key.
    pub(super) first: usize,
    /// Groups of [`DEEP`] keys.
    pub(super) groups: usize,
}

impl Shape {
    /// Bytes of keys, `[groups, 2, depth]` tiles of `[SIDE keys, DEEP numbers]`.
    pub(super) fn key_bytes(self) -> usize {
        self.groups * 2 * self.depth * TILE
    }
    /// Bytes of keys and values; values are `[widths, groups]` tiles of `[SIDE numbers, DEEP keys]`.
    fn bytes(self) -> usize {
        self.key_bytes() + self.widths * self.groups * TILE
    }
}

thread_local! {
    /// Turned keys and values, of the thread that asks for attention.
    static TURNED: RefCell<Aligned> = RefCell::new(Aligned::zeroed(0));
    /// What a thread works in.
    static SCRATCH: RefCell<Aligned> = RefCell::new(Aligned::zeroed(0));
}

/// A thread's own memory of at least so many bytes; what stands in it does not matter.
fn with_memory<R>(
    memory: &'static std::thread::LocalKey<RefCell<Aligned>>,
    bytes: usize,
    work: impl FnOnce(*mut u8) -> R,
) -> R {
    memory.with_borrow_mut(|memory| {
        if memory.len() < bytes {
            *memory = Aligned::zeroed(bytes);
        }
        work(memory.as_mut_ptr())
    })
}

/// Computes a job. AMX is available.
pub(in crate::cpu) fn attend(pool: &Pool, job: &Job<'_>) {
    if job.rows == 0 {
        return;
    }
    let first = (job.visible)(0).start / DEEP * DEEP;
    let end = (job.visible)(job.rows - 1).end;
    let shape = Shape {
        depth: job.dim.div_ceil(DEEP),
        widths: job.dim.div_ceil(SIDE),
        first,
        groups: (end - first).div_ceil(DEEP),
    };
    let at_once = (ROUND_BYTES / shape.bytes()).clamp(1, job.kv_heads);
    let tiles = job.rows.div_ceil(halves::ROWS);
    with_memory(&TURNED, at_once * shape.bytes(), |turned| {
        let turned = SendPtr(turned);
        for round in (0..job.kv_heads).step_by(at_once) {
            let heads = at_once.min(job.kv_heads - round);
            pool.run(heads * shape.groups, &|item| {
                let (head, group) = (item / shape.groups, item % shape.groups);
                // SAFETY: each item writes tiles of its own; the level has the instructions.
                unsafe {
                    turn(job, shape, round + head, group, turned.get().add(head * shape.bytes()));
                }
            });
            pool.run(heads * tiles, &|item| {
                // The last rows see the most keys: they go first, so that no thread is left with them at the end.
                let (head, tile) = (item % heads, tiles - 1 - item / heads);
                let rows = tile * halves::ROWS..((tile + 1) * halves::ROWS).min(job.rows);
                let scratch = 2 * Scratch::bytes(shape);
                with_memory(&SCRATCH, scratch, |scratch| {
                    // SAFETY: keys and values are whole, each item writes rows of its own.
                    unsafe {
                        let stored = turned.get().add(head * shape.bytes());
                        halves::attend(job, shape, round + head, rows, stored, Scratch::both(scratch, shape));
                    }
                });
            });
        }
    });
}

/// Lanes of sixteen numbers from `i` on that lie below `dim`.
#[inline(always)]
pub(super) fn lanes(dim: usize, i: usize) -> __mmask16 {
    let count = dim.saturating_sub(i).min(16) as u32;
    ((1u32 << count) - 1) as __mmask16
}

/// Sixteen numbers of a row from `i` on, zeros from `dim` on, multiplied and rounded to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
pub(super) unsafe fn rounded(row: &Row, dim: usize, i: usize, factor: __m512) -> __m256i {
    let mask = lanes(dim, i);
    // SAFETY: what a mask leaves out is not read.
    let numbers = unsafe {
        match row {
            Row::F32(p) => _mm512_maskz_loadu_ps(mask, p.wrapping_add(i)),
            Row::F16(p) => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p.wrapping_add(i).cast())),
            Row::Q8(p, scale) => {
                let bytes = _mm_maskz_loadu_epi8(mask, p.wrapping_add(i).cast());
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), _mm512_set1_ps(*scale))
            }
        }
    };
    let rounded = _mm512_cvtneps_pbh(_mm512_mul_ps(numbers, factor));
    // SAFETY: both are 256 bits.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(rounded) }
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: &mut [__m512i; 16]) {
    let mut pairs = *rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Row `4 i + j` now holds, in each quarter `l`, column `4 l + j` of four rows.
    let mut fours = pairs;
    for i in [0, 4, 8, 12] {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for j in 0..4 {
        let even = [
            _mm512_shuffle_i32x4::<0x88>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0x88>(fours[8 + j], fours[12 + j]),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0xdd>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[8 + j], fours[12 + j]),
        ];
        rows[j] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        rows[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        rows[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        rows[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
}

/// Brings a group of keys and values of a head into tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
unsafe fn turn(job: &Job<'_>, shape: Shape, head: usize, group: usize, to: *mut u8) {
    let keys = to.wrapping_add(group * 2 * shape.depth * TILE);
    let values = to.wrapping_add(shape.key_bytes());
    let from = shape.first + group * DEEP;
    let one = _mm512_set1_ps(1.0);
    // Positions that no row sees may not be there at all; zeros leave no trace.
    let seen = (job.visible)(0).start..(job.visible)(job.rows - 1).end;
    let mut stored = [None; DEEP];
    for (slot, stored) in stored.iter_mut().enumerate() {
        *stored = seen.contains(&(from + slot)).then(|| (job.stored)(head, from + slot));
    }
    // SAFETY: the tiles of the group belong to this call, rows have `dim` numbers.
    unsafe {
        for (slot, stored) in stored.iter().enumerate() {
            let row = keys.add((slot / SIDE * shape.depth) * TILE + slot % SIDE * 64);
            for half in 0..2 * shape.depth {
                let numbers = match stored {
                    Some([key, _]) => rounded(key, job.dim, half * 16, one),
                    None => _mm256_setzero_si256(),
                };
                _mm256_storeu_si256(row.add(half / 2 * TILE + half % 2 * 32).cast(), numbers);
            }
        }
        for w in 0..shape.widths {
            let mut pairs = [_mm512_setzero_si512(); 16];
            for (j, pair) in pairs.iter_mut().enumerate() {
                let mut halves = [_mm512_setzero_si512(); 2];
                for (half, row) in halves.iter_mut().zip(&stored[2 * j..]) {
                    if let Some([_, value]) = row {
                        *half = _mm512_cvtepu16_epi32(rounded(value, job.dim, w * SIDE, one));
                    }
                }
                *pair = _mm512_or_si512(halves[0], _mm512_slli_epi32::<16>(halves[1]));
            }
            transpose(&mut pairs);
            let tile = values.add((w * shape.groups + group) * TILE);
            for (i, row) in pairs.iter().enumerate() {
                _mm512_storeu_si512(tile.add(i * 64).cast(), *row);
            }
        }
    }
}
