//! Softmax attention over pages of keys and values: a tile of four query rows shares every key and
//! value it reads.
//!
//! Rows are ordered by position, then by head within the group that shares a key head, so that with
//! MQA a tile is the heads of one token and with MHA one head of four tokens. Keys outside the window
//! are never read. A key's SIMD lane is its absolute position modulo 16, so a row's bits do not depend on the
//! tile it is in nor on where its window begins.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::kv::{KvFormat, KvPage, PAGE_TOKENS};
use crate::ops::{Attention, Span};

/// Query rows of a tile.
const ROWS: usize = 4;

/// Softmax attention; see [`crate::Ops::attention`].
pub(crate) fn attention(pool: &Pool, level: Level, args: Attention<'_>) {
    let dim = args.layout.head_dim(args.layer);
    let kv_heads = args.layout.kv_heads(args.layer);
    let n = args.q.len() / (args.heads * dim).max(1);
    let group = args.heads / kv_heads;
    let tiles = (n * group).div_ceil(ROWS);
    assert_eq!(args.out.len(), args.q.len(), "attention writes what it reads");
    let reach = args.pages_from + args.pages.len() * PAGE_TOKENS;
    assert!(args.start + n <= reach, "keys reach up to the last query");
    assert!(
        args.pages_from <= args.visible(args.start).start,
        "keys reach back to the first that the first query sees"
    );
    assert!(args.pages_from.is_multiple_of(PAGE_TOKENS), "pages begin at whole pages");
    let cut = |span: &Span| span.start < args.start + n && args.start + n < span.end;
    assert!(!args.spans.iter().any(cut), "queries do not stop inside a span");
    let out = SendPtr(args.out.as_mut_ptr());
    let args = &args;
    pool.run(kv_heads * tiles, &|item| {
        // The last tiles see the most keys: they go first, so that no thread is left with one at the end.
        let (kv_head, tile) = (item % kv_heads, tiles - 1 - item / kv_heads);
        let rows = tile * ROWS..((tile + 1) * ROWS).min(n * group);
        let tile = Tile { args, out, kv_head, group, dim, rows };
        // SAFETY: the level was detected; tiles write different rows of `out`.
        unsafe { level.run(tile) };
    });
}

struct Tile<'a> {
    args: &'a Attention<'a>,
    out: SendPtr<f32>,
    kv_head: usize,
    group: usize,
    dim: usize,
    rows: std::ops::Range<usize>,
}

/// A number of a page, widened to f32 vectors.
trait Element: Copy {
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    fn wide(self) -> f32;
    fn page(page: &KvPage) -> *const Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::F32(numbers) => numbers.as_ptr(),
            KvPage::F16(_) | KvPage::Device(_) => unreachable!("pages have their layout's format"),
        }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::F16(numbers) => numbers.as_ptr(),
            KvPage::F32(_) | KvPage::Device(_) => unreachable!("pages have their layout's format"),
        }
    }
}

impl Kernel for Tile<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: pages have the layout's format and size.
        unsafe {
            match self.args.layout.format() {
                KvFormat::F32 => self.attend::<S, f32>(),
                KvFormat::F16 => self.attend::<S, f16>(),
            }
        }
    }
}

impl Tile<'_> {
    /// Index in `q` and `out` of a row's first number. A tile's missing rows repeat its last one.
    #[inline(always)]
    fn row(&self, r: usize) -> usize {
        let row = self.clamped(r);
        let (t, head) = (row / self.group, self.kv_head * self.group + row % self.group);
        (t * self.args.heads + head) * self.dim
    }

    /// The page of a position.
    #[inline(always)]
    fn page(&self, position: usize) -> &KvPage {
        self.args.pages[(position - self.args.pages_from) / PAGE_TOKENS]
    }

    #[inline(always)]
    fn clamped(&self, r: usize) -> usize {
        (self.rows.start + r).min(self.rows.end - 1)
    }

    /// Keys that a row sees.
    #[inline(always)]
    fn visible(&self, r: usize) -> std::ops::Range<usize> {
        self.args.visible(self.args.start + self.clamped(r) / self.group)
    }

    #[inline(always)]
    unsafe fn attend<S: Simd, E: Element>(&self) {
        // Neither end of what is visible ever moves back from one position to the next.
        let first = self.visible(0).start / LANES * LANES;
        let end = self.visible(ROWS - 1).end;
        let span = (end - first).next_multiple_of(LANES);
        let mut scores = vec![0.0f32; ROWS * span];
        // SAFETY: as `run`.
        unsafe {
            self.scores::<S, E>(first, end, span, &mut scores);
            let mut inverse = [0.0; ROWS];
            for r in 0..ROWS {
                let visible = self.visible(r);
                let row = &mut scores[r * span..(r + 1) * span];
                let part = visible.start - first..visible.end - first;
                inverse[r] = softmax::<S>(row, self.args.scale, self.args.soft_cap, part);
            }
            self.values::<S, E>(first, end, span, &scores, inverse);
        }
    }

    /// Scores of the keys `first..end`, unscaled, in rows of `span`.
    #[inline(always)]
    unsafe fn scores<S: Simd, E: Element>(&self, first: usize, end: usize, span: usize, scores: &mut [f32]) {
        let (dim, vectors) = (self.dim, self.dim / LANES * LANES);
        let key = self.args.layout.key(self.args.layer, self.kv_head);
        // SAFETY: keys of a head are `PAGE_TOKENS` rows of `dim` numbers; queries have `dim` numbers.
        unsafe {
            let q = [0, 1, 2, 3].map(|r| self.args.q.as_ptr().add(self.row(r)));
            let mut t = first;
            while t < end {
                // Four keys at a time; a page is a multiple of four, and keys past `end` are masked later.
                let page = E::page(self.page(t));
                let k = page.add(key + t % PAGE_TOKENS * dim);
                let mut acc = [[S::splat(0.0); 4]; ROWS];
                let mut i = 0;
                while i < vectors {
                    let keys = [
                        E::load::<S>(k.add(i)),
                        E::load::<S>(k.add(dim + i)),
                        E::load::<S>(k.add(2 * dim + i)),
                        E::load::<S>(k.add(3 * dim + i)),
                    ];
                    for r in 0..ROWS {
                        let query = S::load(q[r].add(i));
                        for c in 0..4 {
                            acc[r][c] = S::fma(query, keys[c], acc[r][c]);
                        }
                    }
                    i += LANES;
                }
                for r in 0..ROWS {
                    for c in 0..4 {
                        let mut score = S::sum(acc[r][c]);
                        for i in vectors..dim {
                            score += *q[r].add(i) * (*k.add(c * dim + i)).wide();
                        }
                        *scores.get_unchecked_mut(r * span + t - first + c) = score;
                    }
                }
                t += 4;
            }
        }
    }

    /// Sums of the values by their weights.
    #[inline(always)]
    unsafe fn values<S: Simd, E: Element>(
        &self,
        first: usize,
        end: usize,
        span: usize,
        weights: &[f32],
        inverse: [f32; ROWS],
    ) {
        let (dim, wide) = (self.dim, 4 * LANES);
        let value = self.args.layout.value(self.args.layer, self.kv_head);
        let rows = self.rows.len();
        // SAFETY: values of a head are `PAGE_TOKENS` rows of `dim` numbers; `out` has the queries' shape.
        unsafe {
            let mut i = 0;
            while i + wide <= dim {
                let mut acc = [[S::splat(0.0); 4]; ROWS];
                let mut t = first;
                while t < end {
                    let page = E::page(self.page(t));
                    let v = page.add(value + t % PAGE_TOKENS * dim + i);
                    let count = (PAGE_TOKENS - t % PAGE_TOKENS).min(end - t);
                    for slot in 0..count {
                        let v = v.add(slot * dim);
                        let values = [
                            E::load::<S>(v),
                            E::load::<S>(v.add(LANES)),
                            E::load::<S>(v.add(2 * LANES)),
                            E::load::<S>(v.add(3 * LANES)),
                        ];
                        for r in 0..ROWS {
                            let weight = S::splat(*weights.get_unchecked(r * span + t + slot - first));
                            for c in 0..4 {
                                acc[r][c] = S::fma(weight, values[c], acc[r][c]);
                            }
                        }
                    }
                    t += count;
                }
                for r in 0..rows {
                    let out = self.out.get().add(self.row(r) + i);
                    for c in 0..4 {
                        S::store(out.add(c * LANES), S::mul(acc[r][c], S::splat(inverse[r])));
                    }
                }
                i += wide;
            }
            // Heads whose width is no multiple of 64 exist only in tests.
            for i in i..dim {
                for r in 0..rows {
                    let mut sum = 0.0;
                    for t in first..end {
                        let page = E::page(self.page(t));
                        let v = (*page.add(value + t % PAGE_TOKENS * dim + i)).wide();
                        sum += *weights.get_unchecked(r * span + t - first) * v;
                    }
                    *self.out.get().add(self.row(r) + i) = sum * inverse[r];
                }
            }
        }
    }
}

/// Scales, caps and masks a row of scores, turns them into weights that add up to `1 / result`.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(
    row: &mut [f32],
    scale: f32,
    soft_cap: Option<f32>,
    visible: std::ops::Range<usize>,
) -> f32 {
    // SAFETY: `row` is a multiple of 16 long.
    unsafe {
        let scale = S::splat(scale);
        for i in (0..row.len()).step_by(LANES) {
            let p = row.as_mut_ptr().add(i);
            let mut x = S::mul(S::load(p), scale);
            if let Some(cap) = soft_cap {
                x = S::mul(S::tanh(S::div(x, S::splat(cap))), S::splat(cap));
            }
            S::store(p, x);
        }
        row[..visible.start].fill(f32::NEG_INFINITY);
        row[visible.end..].fill(f32::NEG_INFINITY);
        let mut greatest = S::splat(f32::NEG_INFINITY);
        for i in (0..row.len()).step_by(LANES) {
            greatest = S::max(greatest, S::load(row.as_ptr().add(i)));
        }
        let greatest = S::splat(S::greatest(greatest));
        for i in (0..row.len()).step_by(LANES) {
            let p = row.as_mut_ptr().add(i);
            S::store(p, S::exp(S::sub(S::load(p), greatest)));
        }
        row[..visible.start].fill(0.0);
        row[visible.end..].fill(0.0);
        let mut total = S::splat(0.0);
        for i in (0..row.len()).step_by(LANES) {
            total = S::add(total, S::load(row.as_ptr().add(i)));
        }
        1.0 / S::sum(total)
    }
}
