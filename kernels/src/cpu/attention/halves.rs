//! Two halves of a tile of query rows on AMX: while matrix units multiply for one, vectors turn the other's scores into
//! weights.
//!
//! A block of keys takes four products, scores and sums of values for each half. The second half's scores are
//! multiplied beside the first one's weights, the first one's values beside the second one's weights.

use std::arch::x86_64::*;
use std::ops::Range;

use super::matrix::{DEEP, Job, Row, SIDE, Shape, TILE, lanes, rounded, transpose};
use super::registers::{begin, begin_two, end, end_two, four, two};
use crate::cpu::amx::{WHOLE, configure, release};

/// Query rows of a half: two tiles.
const HALF: usize = 2 * SIDE;
/// Query rows that are worked on together.
pub(super) const ROWS: usize = 2 * HALF;
/// Keys between two looks at the greatest score.
const BLOCK: usize = 256;
/// A score that no weight comes from.
const UNSEEN: f32 = -1e30;
/// Below any score of a key that is seen, above [`UNSEEN`].
const NOTHING_YET: f32 = -1e20;
/// How much a score, as a power of two, may exceed the one that weights are taken against before what was
/// summed up is scaled down: weights stay below 2^8.
const SLACK: f32 = 8.0;

/// What a half is computed in, within the first two caches.
pub(super) struct Scratch {
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
        [shape.depth * 2 * TILE, BLOCK * HALF * 4, BLOCK * HALF * 2, shape.widths * 2 * TILE]
    }

    /// Bytes of a half's.
    pub(super) fn bytes(shape: Shape) -> usize {
        Self::parts(shape).iter().sum()
    }

    /// Both halves' in memory that has room for them.
    pub(super) fn both(memory: *mut u8, shape: Shape) -> [Self; 2] {
        let [queries, scores, weights, _] = Self::parts(shape);
        [0, Self::bytes(shape)].map(|at| {
            let memory = memory.wrapping_add(at);
            let scores_at = memory.wrapping_add(queries);
            let weights_at = scores_at.wrapping_add(scores);
            Self {
                queries: memory,
                scores: scores_at.cast(),
                weights: weights_at,
                sums: weights_at.wrapping_add(weights).cast(),
            }
        })
    }
}

/// Attention of up to [`ROWS`] query rows over the turned keys and values at `stored`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
pub(super) unsafe fn attend(
    job: &Job<'_>,
    shape: Shape,
    head: usize,
    rows: Range<usize>,
    stored: *const u8,
    [first, second]: [Scratch; 2],
) {
    let middle = rows.end.min(rows.start + HALF);
    // SAFETY: the caller's: memory of whole tiles, and rows that are this call's.
    unsafe {
        let mut first = Half::new(job, shape, head, rows.start..middle, stored, first);
        if middle == rows.end {
            configure(WHOLE);
            for block in first.seen.clone().step_by_blocks() {
                first.take(block);
                first.multiply_keys(None);
                first.find_greatest();
                first.weigh(usize::MAX);
                first.multiply_values(None);
            }
            release();
            first.write();
            return;
        }
        let mut second = Half::new(job, shape, head, middle..rows.end, stored, second);
        configure(WHOLE);
        for block in (first.seen.start..second.seen.end).step_by_blocks() {
            first.take(block);
            second.take(block);
            first.multiply_keys(None);
            first.find_greatest();
            second.multiply_keys(Some(&mut first));
            second.find_greatest();
            first.multiply_values(Some(&mut second));
            second.multiply_values(None);
        }
        release();
        first.write();
        second.write();
    }
}

/// The blocks that a range of keys reaches into.
trait Blocks {
    fn step_by_blocks(self) -> impl Iterator<Item = usize>;
}

impl Blocks for Range<usize> {
    fn step_by_blocks(self) -> impl Iterator<Item = usize> {
        (self.start / BLOCK * BLOCK..self.end).step_by(BLOCK)
    }
}

/// Two tiles of query rows on their way through the keys.
struct Half<'a> {
    job: &'a Job<'a>,
    shape: Shape,
    stored: *const u8,
    scratch: Scratch,
    /// First numbers of the rows in `q` and `out`.
    places: [usize; HALF],
    rows: usize,
    /// Keys that any row sees, and those that all see.
    seen: Range<usize>,
    whole: Range<usize>,
    parts: [Part; 2],
    /// Whether nothing was summed up yet.
    fresh: bool,
    /// Keys of the block, whole groups of [`DEEP`]; how many of them have their weights.
    keys: Range<usize>,
    weighed: usize,
}

/// Sixteen query rows of a half.
#[derive(Clone, Copy)]
struct Part {
    /// The keys that each row sees.
    from: __m512i,
    to: __m512i,
    /// What scores are taken against.
    greatest: __m512,
    /// Weights of even and of odd keys so far.
    totals: [__m512; 2],
}

impl<'a> Half<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn new(
        job: &'a Job<'a>,
        shape: Shape,
        head: usize,
        rows: Range<usize>,
        stored: *const u8,
        scratch: Scratch,
    ) -> Self {
        // Rows past the last repeat it, and are not written.
        let row = |r: usize| (rows.start + r).min(rows.end - 1);
        let (first, last) = ((job.visible)(rows.start), (job.visible)(rows.end - 1));
        let mut ends = [[0i32; SIDE]; 4];
        for r in 0..HALF {
            let visible = (job.visible)(row(r));
            ends[r / SIDE * 2][r % SIDE] = visible.start as i32;
            ends[r / SIDE * 2 + 1][r % SIDE] = visible.end as i32;
        }
        let parts = [0, 2].map(|i| Part {
            // SAFETY: both are 16 numbers.
            from: unsafe { _mm512_loadu_si512(ends[i].as_ptr().cast()) },
            // SAFETY: as above.
            to: unsafe { _mm512_loadu_si512(ends[i + 1].as_ptr().cast()) },
            greatest: _mm512_set1_ps(NOTHING_YET),
            totals: [_mm512_setzero_ps(); 2],
        });
        let half = Self {
            job,
            shape,
            stored,
            scratch,
            places: std::array::from_fn(|r| (job.place)(head, row(r))),
            rows: rows.len(),
            seen: first.start..last.end,
            whole: last.start..first.end,
            parts,
            fresh: true,
            keys: 0..0,
            weighed: 0,
        };
        // SAFETY: as the caller's.
        unsafe { half.load_queries() };
        half
    }

    /// Brings queries into tiles, multiplied so that their products with keys are powers of two, or what tanh is
    /// made of.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn load_queries(&self) {
        let cap = self.job.soft_cap.map_or(1.0, |cap| 2.0 / cap);
        let factor = _mm512_set1_ps(std::f32::consts::LOG2_E * self.job.scale * cap);
        for part in 0..2 {
            let places = &self.places[part * SIDE..(part + 1) * SIDE];
            for d in 0..self.shape.depth {
                let mut tile = [_mm512_setzero_si512(); SIDE];
                for (to, &place) in tile.iter_mut().zip(places) {
                    let query = Row::F32(self.job.q[place..][..self.job.dim].as_ptr());
                    // SAFETY: the row has `dim` numbers.
                    let [low, high] =
                        unsafe { [0, 16].map(|i| rounded(&query, self.job.dim, d * DEEP + i, factor)) };
                    *to = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                }
                transpose(&mut tile);
                for (i, row) in tile.iter().enumerate() {
                    // SAFETY: the scratch memory has `depth` pairs of tiles.
                    unsafe {
                        let to = self.scratch.queries.add((2 * d + part) * TILE + i * 64);
                        _mm512_storeu_si512(to.cast(), *row);
                    }
                }
            }
        }
    }

    /// Goes on to a block, or to what is seen of it.
    fn take(&mut self, block: usize) {
        let from = block.max(self.seen.start / DEEP * DEEP);
        let to = (block + BLOCK).min(self.seen.end.next_multiple_of(DEEP));
        self.keys = from..to.max(from);
        self.weighed = self.keys.len();
    }

    /// The first group of the block among those that were turned, and how many there are.
    fn groups(&self) -> (usize, usize) {
        (self.keys.start.saturating_sub(self.shape.first) / DEEP, self.keys.len() / DEEP)
    }

    /// Scores of the block's keys. `beside`: whose weights are computed meanwhile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn multiply_keys(&mut self, mut beside: Option<&mut Half<'_>>) {
        let depth = self.shape.depth;
        let (first, groups) = self.groups();
        let share = beside.as_ref().map_or(0, |half| half.left().div_ceil((groups * depth).max(1)));
        // SAFETY: tiles are configured; pointers lead to whole tiles of the keys, the queries and the scores.
        unsafe {
            for g in 0..groups {
                let keys = self.stored.wrapping_add((first + g) * 2 * depth * TILE);
                begin(self.scratch.scores, true);
                for d in 0..depth {
                    let a = keys.wrapping_add(d * TILE);
                    four(a, a.wrapping_add(depth * TILE), self.scratch.queries.wrapping_add(2 * d * TILE));
                    if let Some(half) = &mut beside {
                        half.weigh(share);
                    }
                }
                end(self.scratch.scores.wrapping_add(g * DEEP * HALF));
            }
            if let Some(half) = beside {
                half.weigh(usize::MAX);
            }
        }
    }

    /// Adds the block's values by their weights. `beside`: whose weights are computed meanwhile.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn multiply_values(&mut self, mut beside: Option<&mut Half<'_>>) {
        let Shape { widths, groups: all, .. } = self.shape;
        let (first, groups) = self.groups();
        let steps = widths.div_ceil(2) * groups;
        let share = beside.as_ref().map_or(0, |half| half.left().div_ceil(steps.max(1)));
        let values = self.stored.wrapping_add(self.shape.key_bytes() + first * TILE);
        // SAFETY: tiles are configured; pointers lead to whole tiles of the values, the weights and the sums.
        unsafe {
            for w in (0..widths).step_by(2).filter(|_| groups > 0) {
                let sums = self.scratch.sums.wrapping_add(w * 2 * 256);
                let pair = w + 1 < widths;
                if pair {
                    begin(sums, self.fresh);
                } else {
                    begin_two(sums, self.fresh);
                }
                for g in 0..groups {
                    let a = values.wrapping_add((w * all + g) * TILE);
                    let b = self.scratch.weights.wrapping_add(2 * g * TILE);
                    if pair {
                        four(a, a.wrapping_add(all * TILE), b);
                    } else {
                        two(a, b);
                    }
                    if let Some(half) = &mut beside {
                        half.weigh(share);
                    }
                }
                if pair {
                    end(sums);
                } else {
                    end_two(sums);
                }
            }
            if let Some(half) = beside {
                half.weigh(usize::MAX);
            }
        }
        self.fresh &= groups == 0;
    }

    /// Caps and masks the block's scores and finds what weights are taken against. Where that grows, what was summed
    /// up is scaled down.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn find_greatest(&mut self) {
        self.weighed = 0;
        for i in 0..2 {
            let mut part = self.parts[i];
            let mut greatest = [_mm512_set1_ps(UNSEEN); 2];
            for group in (0..self.keys.len()).step_by(DEEP) {
                let first = self.keys.start + group;
                let all_seen = first >= self.whole.start && first + DEEP <= self.whole.end;
                for key in (group..group + DEEP).step_by(2) {
                    // SAFETY: scores of a block.
                    unsafe {
                        let mut pair = [key, key + 1].map(|key| _mm512_loadu_ps(self.score(i, key)));
                        if let Some(cap) = self.job.soft_cap {
                            pair = pair.map(|score| capped(score, cap));
                        }
                        if !all_seen {
                            for (odd, score) in pair.iter_mut().enumerate() {
                                let position = _mm512_set1_epi32((first + key - group + odd) as i32);
                                let seen = _mm512_cmple_epi32_mask(part.from, position)
                                    & _mm512_cmpgt_epi32_mask(part.to, position);
                                *score = _mm512_mask_mov_ps(_mm512_set1_ps(UNSEEN), seen, *score);
                            }
                        }
                        if self.job.soft_cap.is_some() || !all_seen {
                            _mm512_storeu_ps(self.score(i, key), pair[0]);
                            _mm512_storeu_ps(self.score(i, key + 1), pair[1]);
                        }
                        greatest[0] = _mm512_max_ps(greatest[0], pair[0]);
                        greatest[1] = _mm512_max_ps(greatest[1], pair[1]);
                    }
                }
            }
            let greatest = _mm512_max_ps(greatest[0], greatest[1]);
            let most = _mm512_add_ps(part.greatest, _mm512_set1_ps(SLACK));
            let grown = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(greatest, most);
            if grown != 0 {
                let next = _mm512_mask_mov_ps(part.greatest, grown, greatest);
                // Rows that stay as they are must stay to the bit, which the polynomial does not promise.
                let share = exp2(_mm512_sub_ps(part.greatest, next), COARSE);
                let factor = _mm512_mask_mov_ps(_mm512_set1_ps(1.0), grown, share);
                part.greatest = next;
                part.totals = part.totals.map(|total| _mm512_mul_ps(total, factor));
                // SAFETY: the sums are whole tiles.
                unsafe { self.scale_sums(i, factor) };
            }
            self.parts[i] = part;
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn scale_sums(&self, part: usize, factor: __m512) {
        if self.fresh {
            return;
        }
        for row in 0..self.shape.widths * SIDE {
            // SAFETY: as the caller's.
            unsafe {
                let sum = self.scratch.sums.add((row / SIDE * 2 + part) * 256 + row % SIDE * SIDE);
                _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), factor));
            }
        }
    }

    /// Where the scores of a key of the block stand.
    #[inline(always)]
    fn score(&self, part: usize, key: usize) -> *mut f32 {
        self.scratch.scores.wrapping_add((key / SIDE * 2 + part) * 256 + key % SIDE * SIDE)
    }

    /// Pairs of keys of the block that have no weights yet.
    fn left(&self) -> usize {
        (self.keys.len() - self.weighed) / 2
    }

    /// Turns the scores of the next so many pairs of keys into weights.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,f16c")]
    unsafe fn weigh(&mut self, pairs: usize) {
        // Number `i` of the first, then number `i` of the second.
        const MIXED: [u16; 32] = {
            let mut mixed = [0; 32];
            let mut i = 0;
            while i < 32 {
                mixed[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            mixed
        };
        let pairs = pairs.min(self.left());
        // SAFETY: 32 numbers of 16 bits; then scores and weights of a block.
        unsafe {
            let mixed = _mm512_loadu_si512(MIXED.as_ptr().cast());
            for key in (self.weighed..self.weighed + 2 * pairs).step_by(2) {
                for i in 0..2 {
                    let part = &mut self.parts[i];
                    let scores =
                        self.scratch.scores.wrapping_add((key / SIDE * 2 + i) * 256 + key % SIDE * SIDE);
                    let even = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores), part.greatest), COARSE);
                    let odd = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores.add(SIDE)), part.greatest), COARSE);
                    part.totals[0] = _mm512_add_ps(part.totals[0], even);
                    part.totals[1] = _mm512_add_ps(part.totals[1], odd);
                    let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                    let at = (key / DEEP * 2 + i) * TILE + key % DEEP / 2 * 64;
                    _mm512_storeu_si512(
                        self.scratch.weights.add(at).cast(),
                        _mm512_permutexvar_epi16(mixed, both),
                    );
                }
            }
        }
        self.weighed += 2 * pairs;
    }

    /// Sums over totals.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn write(&self) {
        for (i, part) in self.parts.iter().enumerate() {
            let places = &self.places[..self.rows];
            let places = &places[(i * SIDE).min(places.len())..places.len().min((i + 1) * SIDE)];
            let total = _mm512_add_ps(part.totals[0], part.totals[1]);
            let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), total);
            for w in 0..self.shape.widths {
                // SAFETY: sums are whole tiles; the rows of `out` are this call's.
                unsafe {
                    let tile = self.scratch.sums.add((2 * w + i) * 256);
                    let mut sums = [_mm512_setzero_si512(); SIDE];
                    for (j, row) in sums.iter_mut().enumerate() {
                        let sum = _mm512_loadu_ps(tile.add(j * SIDE));
                        *row = _mm512_castps_si512(_mm512_mul_ps(sum, inverse));
                    }
                    transpose(&mut sums);
                    for (&place, &numbers) in places.iter().zip(&sums) {
                        let to = self.job.out.get().add(place + w * SIDE);
                        let mask = lanes(self.job.dim, w * SIDE);
                        _mm512_mask_storeu_ps(to, mask, _mm512_castsi512_ps(numbers));
                    }
                }
            }
        }
    }
}

/// `2^x` in 0..1 to 2^-13 of itself, less than weights are rounded by.
const COARSE: [f32; 4] = [0.078_967_26, 0.224_693_16, 0.696_324_77, 0.999_900_3];
/// `2^x` in 0..1 to 2^-18 of itself, since a cap multiplies what is wrong.
const FINE: [f32; 5] = [0.013_670_31, 0.051_744_998, 0.241_604_36, 0.692_972_9, 1.000_003_5];

/// `2^x`, 0 far below; `x` at most 127. The polynomial's highest coefficient comes first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2<const N: usize>(x: __m512, polynomial: [f32; N]) -> __m512 {
    // What is above the whole number below; the instruction at the end takes that for itself.
    let r = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(x);
    let mut p = _mm512_set1_ps(polynomial[0]);
    for c in &polynomial[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, x)
}

/// `log2(e) cap tanh(x)`, where `2^score = e^(2 x)`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn capped(score: __m512, cap: f32) -> __m512 {
    let above = _mm512_add_ps(exp2(_mm512_min_ps(score, _mm512_set1_ps(60.0)), FINE), _mm512_set1_ps(1.0));
    let guess = _mm512_rcp14_ps(above);
    let twice = _mm512_mul_ps(guess, _mm512_fnmadd_ps(above, guess, _mm512_set1_ps(2.0)));
    let cap = cap * std::f32::consts::LOG2_E;
    _mm512_fnmadd_ps(twice, _mm512_set1_ps(2.0 * cap), _mm512_set1_ps(cap))
}
