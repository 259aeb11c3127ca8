//! Softmax attention of many rows on AMX: scores and sums of values are products of bf16 tiles, weights come
//! from a softmax that streams over blocks of keys.
//!
//! Everything is computed turned: a tile of scores has a key in each row and a query in each lane, so that
//! greatest scores, weights and totals need nothing across lanes, and two rows of weights side by side are what the second
//! product wants. Keys then stand as they are stored, and values are turned once, before all queries of the pass
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

use super::SendPtr;
use super::amx::{configure, release};
use super::pack::Aligned;
use super::pool::Pool;

/// Queries, or keys, or numbers of a value, along each side of a tile of sums.
const SIDE: usize = 16;
/// Numbers of a tile's row: what one instruction adds up.
const DEEP: usize = 32;
/// Bytes of a tile.
const TILE: usize = 1024;
/// Query rows that are worked on together: two tiles.
const ROWS: usize = 2 * SIDE;
/// Keys between two looks at the greatest score.
const BLOCK: usize = 256;
/// Bytes of turned keys and values made at a time, where that is more than one head's.
const ROUND_BYTES: usize = 8 << 20;
/// A score that no weight comes from.
const UNSEEN: f32 = -1e30;
/// Below any score of a key that is seen, above [`UNSEEN`].
const NOTHING_YET: f32 = -1e20;
/// How much a score, as a power of two, may exceed the one that weights are taken against before what was
/// summed up is scaled down: weights stay below 2^8.
const SLACK: f32 = 8.0;

/// A row of numbers as it is stored.
#[derive(Clone, Copy)]
pub(super) enum Row {
    F32(*const f32),
    F16(*const f16),
    /// In 8 bits, with a scale.
    Q8(*const u8, f32),
}

/// Attention of many rows. A query row here is one head of one token.
pub(super) struct Job<'a> {
    /// Width of a head.
    pub(super) dim: usize,
    /// Heads of keys and values.
    pub(super) kv_heads: usize,
    /// Query rows that read each of these heads.
    pub(super) rows: usize,
    /// Index in `q` and `out` of the first number of a row, by head of keys and row.
    pub(super) place: &'a (dyn Fn(usize, usize) -> usize + Sync),
    /// The keys that a row sees; neither end ever moves back from one row to the next.
    pub(super) visible: &'a (dyn Fn(usize) -> Range<usize> + Sync),
    /// Key and value of a head at a position that some row sees.
    pub(super) stored: &'a (dyn Fn(usize, usize) -> [Row; 2] + Sync),
    /// What `q . k` is multiplied with.
    pub(super) scale: f32,
    /// `cap * tanh(score / cap)`.
    pub(super) soft_cap: Option<f32>,
    pub(super) q: &'a [f32],
    pub(super) out: SendPtr<f32>,
}

/// Sizes of what a head's keys and values become.
#[derive(Clone, Copy)]
struct Shape {
    /// Tiles across a key.
    depth: usize,
    /// Tiles across a value.
    widths: usize,
    /// The position of the first key.
    first: usize,
    /// Groups of [`DEEP`] keys.
    groups: usize,
}

impl Shape {
    /// Bytes of keys, `[groups, 2, depth]` tiles of `[SIDE keys, DEEP numbers]`.
    fn key_bytes(self) -> usize {
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
pub(super) fn attend(pool: &Pool, job: &Job<'_>) {
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
    let tiles = job.rows.div_ceil(ROWS);
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
                let rows = tile * ROWS..((tile + 1) * ROWS).min(job.rows);
                let scratch = Scratch::bytes(shape);
                with_memory(&SCRATCH, scratch, |scratch| {
                    // SAFETY: keys and values are whole, each item writes rows of its own.
                    unsafe {
                        let stored = turned.get().add(head * shape.bytes());
                        attend_rows(job, shape, round + head, rows, stored, &Scratch::new(scratch, shape));
                    }
                });
            });
        }
    });
}

/// What a tile of queries is computed in, within the first two caches.
struct Scratch {
    /// `[depth, 2]` tiles of `[DEEP / 2 pairs of numbers, SIDE rows]`.
    queries: *mut u8,
    /// `[BLOCK / SIDE, 2]` tiles of `[SIDE keys, SIDE rows]` in f32.
    scores: *mut f32,
    /// `[BLOCK / DEEP, 2]` tiles of `[DEEP / 2 pairs of keys, SIDE rows]`.
    weights: *mut u8,
    /// `[widths, 2]` tiles of `[SIDE numbers, SIDE rows]` in f32.
    sums: *mut f32,
}

impl Scratch {
    fn parts(shape: Shape) -> [usize; 4] {
        [shape.depth * 2 * TILE, BLOCK * ROWS * 4, BLOCK * ROWS * 2, shape.widths * 2 * TILE]
    }

    fn bytes(shape: Shape) -> usize {
        Self::parts(shape).iter().sum()
    }

    fn new(memory: *mut u8, shape: Shape) -> Self {
        let [queries, scores, weights, _] = Self::parts(shape);
        let scores_at = memory.wrapping_add(queries);
        let weights_at = scores_at.wrapping_add(scores);
        Self {
            queries: memory,
            scores: scores_at.cast(),
            weights: weights_at,
            sums: weights_at.wrapping_add(weights).cast(),
        }
    }
}

/// Lanes of sixteen numbers from `i` on that lie below `dim`.
#[inline(always)]
fn lanes(dim: usize, i: usize) -> __mmask16 {
    let count = dim.saturating_sub(i).min(16) as u32;
    ((1u32 << count) - 1) as __mmask16
}

/// Sixteen numbers of a row from `i` on, zeros from `dim` on, multiplied and rounded to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
unsafe fn rounded(row: &Row, dim: usize, i: usize, factor: __m512) -> __m256i {
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
fn transpose(rows: &mut [__m512i; 16]) {
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
        for slot in 0..DEEP {
            let row = keys.add((slot / SIDE * shape.depth) * TILE + slot % SIDE * 64);
            for half in 0..2 * shape.depth {
                let numbers = match &stored[slot] {
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

/// Attention of a tile of query rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
unsafe fn attend_rows(
    job: &Job<'_>,
    shape: Shape,
    head: usize,
    rows: Range<usize>,
    stored: *const u8,
    scratch: &Scratch,
) {
    let Shape { depth, widths, first, groups: all_groups } = shape;
    let values = stored.wrapping_add(shape.key_bytes());
    let last = (job.visible)(rows.end - 1);
    let sees_first = (job.visible)(rows.start);
    let seen = sees_first.start..last.end;
    // Scores come out of the product as powers of two, or as what tanh is made of.
    let exponent = std::f32::consts::LOG2_E * job.scale * job.soft_cap.map_or(1.0, |cap| 2.0 / cap);
    let mut parts = [Part::new(job, &rows, 0), Part::new(job, &rows, SIDE)];
    let mut fresh = true;
    // SAFETY: tiles are configured, pointers lead to whole tiles of scratch memory and of the head's keys and
    // values; rows of `q` and `out` are this call's.
    unsafe {
        load_queries(job, depth, head, &rows, exponent, scratch);
        configure();
        for block in (seen.start / BLOCK * BLOCK..seen.end).step_by(BLOCK) {
            let from = block.max(seen.start / DEEP * DEEP);
            let to = (block + BLOCK).min(seen.end.next_multiple_of(DEEP));
            let (group, groups) = ((from - first) / DEEP, (to - from) / DEEP);
            for g in 0..groups {
                let keys = stored.wrapping_add((group + g) * 2 * depth * TILE);
                let sums = scratch.scores.add(g * DEEP * ROWS);
                four([keys, keys.wrapping_add(depth * TILE)], scratch.queries, sums, depth, true);
            }
            for (i, part) in parts.iter_mut().enumerate() {
                let whole = last.start..sees_first.end;
                let grown = part.weigh(from..to, &whole, job.soft_cap, i, scratch);
                if let Some(factor) = grown.filter(|_| !fresh) {
                    for row in 0..widths * SIDE {
                        let sum = scratch.sums.add(row / SIDE * 2 * 256 + i * 256 + row % SIDE * 16);
                        _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), factor));
                    }
                }
            }
            for w in (0..widths).step_by(2) {
                let values = values.wrapping_add((w * all_groups + group) * TILE);
                let sums = scratch.sums.add(w * 2 * 256);
                if w + 1 < widths {
                    let next = values.wrapping_add(all_groups * TILE);
                    four([values, next], scratch.weights, sums, groups, fresh);
                } else {
                    two(values, scratch.weights, sums, groups, fresh);
                }
            }
            fresh = false;
        }
        release();
        for (i, part) in parts.iter().enumerate() {
            let rows = rows.start + i * SIDE..rows.end.min(rows.start + (i + 1) * SIDE);
            let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), _mm512_add_ps(part.totals[0], part.totals[1]));
            for w in 0..widths {
                let tile = scratch.sums.add((2 * w + i) * 256);
                let mut sums = [_mm512_setzero_si512(); 16];
                for (j, row) in sums.iter_mut().enumerate() {
                    *row = _mm512_castps_si512(_mm512_mul_ps(_mm512_loadu_ps(tile.add(j * 16)), inverse));
                }
                transpose(&mut sums);
                for (row, &numbers) in rows.clone().zip(&sums) {
                    let to = job.out.get().add((job.place)(head, row) + w * SIDE);
                    _mm512_mask_storeu_ps(to, lanes(job.dim, w * SIDE), _mm512_castsi512_ps(numbers));
                }
            }
        }
    }
}

/// Brings queries into tiles, multiplied with `exponent`; rows past the last are zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
unsafe fn load_queries(
    job: &Job<'_>,
    depth: usize,
    head: usize,
    rows: &Range<usize>,
    exponent: f32,
    scratch: &Scratch,
) {
    let exponent = _mm512_set1_ps(exponent);
    for part in 0..2 {
        for d in 0..depth {
            let mut tile = [_mm512_setzero_si512(); 16];
            for (r, to) in tile.iter_mut().enumerate() {
                let row = rows.start + part * SIDE + r;
                if row < rows.end {
                    let query = Row::F32(job.q[(job.place)(head, row)..][..job.dim].as_ptr());
                    // SAFETY: the row has `dim` numbers.
                    let [low, high] =
                        unsafe { [0, 16].map(|i| rounded(&query, job.dim, d * DEEP + i, exponent)) };
                    *to = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                }
            }
            transpose(&mut tile);
            for (i, row) in tile.iter().enumerate() {
                // SAFETY: the scratch memory has `depth` pairs of tiles.
                unsafe {
                    let to = scratch.queries.add((2 * d + part) * TILE + i * 64);
                    _mm512_storeu_si512(to.cast(), *row);
                }
            }
        }
    }
}

/// `2^x` within 2^-18 of itself, 0 far below; `x` at most 127.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(0.009_666_369);
    for c in [0.055_921_976, 0.240_223_49, 0.693_121_05, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// Sixteen query rows on their way through the keys.
struct Part {
    /// The keys that each row sees.
    from: __m512i,
    to: __m512i,
    /// What scores are taken against.
    greatest: __m512,
    /// Weights of even and of odd keys so far.
    totals: [__m512; 2],
}

impl Part {
    #[target_feature(enable = "avx512f")]
    fn new(job: &Job<'_>, rows: &Range<usize>, first: usize) -> Self {
        let (mut from, mut to) = ([0i32; SIDE], [0i32; SIDE]);
        for r in 0..SIDE {
            let visible = (job.visible)((rows.start + first + r).min(rows.end - 1));
            (from[r], to[r]) = (visible.start as i32, visible.end as i32);
        }
        // SAFETY: both are 16 numbers.
        let [from, to] = unsafe { [from, to].map(|ends| _mm512_loadu_si512(ends.as_ptr().cast())) };
        let greatest = _mm512_set1_ps(NOTHING_YET);
        Self { from, to, greatest, totals: [_mm512_setzero_ps(); 2] }
    }

    /// Turns the scores of the keys `keys` into weights; what sums so far have to be multiplied with, if
    /// anything. `whole` are keys that all rows see.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn weigh(
        &mut self,
        keys: Range<usize>,
        whole: &Range<usize>,
        soft_cap: Option<f32>,
        part: usize,
        scratch: &Scratch,
    ) -> Option<__m512> {
        let base = keys.start;
        let count = keys.len();
        // SAFETY: a block of scores and weights.
        let score =
            |key: usize| unsafe { scratch.scores.add(key / SIDE * 512 + part * 256 + key % SIDE * 16) };
        let mut greatest = [_mm512_set1_ps(UNSEEN); 2];
        for group in (0..count).step_by(DEEP) {
            if let Some(cap) = soft_cap {
                for key in group..group + DEEP {
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_ps(score(key), capped(_mm512_loadu_ps(score(key)), cap)) };
                }
            }
            let first = base + group;
            if first < whole.start || first + DEEP > whole.end {
                for key in group..group + DEEP {
                    let position = _mm512_set1_epi32((base + key) as i32);
                    let seen = _mm512_cmple_epi32_mask(self.from, position)
                        & _mm512_cmpgt_epi32_mask(self.to, position);
                    // SAFETY: as above.
                    unsafe {
                        let kept = _mm512_mask_loadu_ps(_mm512_set1_ps(UNSEEN), seen, score(key));
                        _mm512_storeu_ps(score(key), kept);
                    }
                }
            }
            for key in (group..group + DEEP).step_by(2) {
                // SAFETY: as above.
                unsafe {
                    greatest[0] = _mm512_max_ps(greatest[0], _mm512_loadu_ps(score(key)));
                    greatest[1] = _mm512_max_ps(greatest[1], _mm512_loadu_ps(score(key + 1)));
                }
            }
        }
        let greatest = _mm512_max_ps(greatest[0], greatest[1]);
        let grown =
            _mm512_cmp_ps_mask::<_CMP_GT_OQ>(greatest, _mm512_add_ps(self.greatest, _mm512_set1_ps(SLACK)));
        let mut factor = None;
        if grown != 0 {
            let next = _mm512_mask_mov_ps(self.greatest, grown, greatest);
            let share = exp2(_mm512_sub_ps(self.greatest, next));
            self.greatest = next;
            self.totals = self.totals.map(|total| _mm512_mul_ps(total, share));
            factor = Some(share);
        }
        // Number `2 i` of the first, then number `i` of the second.
        let mixed: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: 32 numbers of 16 bits.
        let mixed = unsafe { _mm512_loadu_si512(mixed.as_ptr().cast()) };
        for key in (0..count).step_by(2) {
            // SAFETY: as above.
            unsafe {
                let even = exp2(_mm512_sub_ps(_mm512_loadu_ps(score(key)), self.greatest));
                let odd = exp2(_mm512_sub_ps(_mm512_loadu_ps(score(key + 1)), self.greatest));
                self.totals[0] = _mm512_add_ps(self.totals[0], even);
                self.totals[1] = _mm512_add_ps(self.totals[1], odd);
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                let at = (key / DEEP * 2 + part) * TILE + key % DEEP / 2 * 64;
                let to = scratch.weights.add(at);
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(mixed, both));
            }
        }
        factor
    }
}

/// `log2(e) cap tanh(x)`, where `2^score = e^(2 x)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn capped(score: __m512, cap: f32) -> __m512 {
    let above = _mm512_add_ps(exp2(_mm512_min_ps(score, _mm512_set1_ps(60.0))), _mm512_set1_ps(1.0));
    let guess = _mm512_rcp14_ps(above);
    let twice = _mm512_mul_ps(guess, _mm512_fnmadd_ps(above, guess, _mm512_set1_ps(2.0)));
    let cap = cap * std::f32::consts::LOG2_E;
    _mm512_fnmadd_ps(twice, _mm512_set1_ps(2.0 * cap), _mm512_set1_ps(cap))
}

/// Adds the products of `depth` tiles of each of `a` with `depth` pairs of tiles at `b` to the four tiles at `sums`, which
/// begin at zero where they are `fresh`.
///
/// # Safety
/// Tiles are configured; pointers lead to as many tiles.
unsafe fn four(a: [*const u8; 2], b: *const u8, sums: *mut f32, depth: usize, fresh: bool) {
    // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
    unsafe {
        std::arch::asm!(
            "test {fresh}, {fresh}",
            "jz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{c} + {row}]",
            "tileloadd tmm1, [{c} + {row} + 1024]",
            "tileloadd tmm2, [{c} + {row} + 2048]",
            "tileloadd tmm3, [{c} + {row} + 3072]",
            "2:",
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b}, 2048",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            "tilestored [{c} + {row} + 2048], tmm2",
            "tilestored [{c} + {row} + 3072], tmm3",
            row = in(reg) 64usize,
            a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _, b = inout(reg) b => _,
            c = in(reg) sums,
            depth = inout(reg) depth => _,
            fresh = in(reg) usize::from(fresh),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// As [`four`] with one row of tiles and two tiles of sums, in the same order.
///
/// # Safety
/// As [`four`].
unsafe fn two(a: *const u8, b: *const u8, sums: *mut f32, depth: usize, fresh: bool) {
    // SAFETY: as in `four`.
    unsafe {
        std::arch::asm!(
            "test {fresh}, {fresh}",
            "jz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{c} + {row}]",
            "tileloadd tmm1, [{c} + {row} + 1024]",
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, 1024",
            "add {b}, 2048",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            row = in(reg) 64usize,
            a = inout(reg) a => _, b = inout(reg) b => _, c = in(reg) sums,
            depth = inout(reg) depth => _,
            fresh = in(reg) usize::from(fresh),
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
