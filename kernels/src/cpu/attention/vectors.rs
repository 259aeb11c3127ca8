//! Attention over pages on vectors: a tile of query rows goes through blocks of keys.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use half::f16;

use super::Heads;
use super::element::{Byte, Element};
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::kv::{KvFormat, PAGE_TOKENS};
use crate::ops::Attention;

/// Query rows of a tile, at most.
pub(super) const ROWS: usize = 8;
/// Keys of a block.
pub(super) const BLOCK: usize = 256;
/// How many keys ahead of its use a key is asked for; a multiple of those that are read at a time.
const KEYS_AHEAD: usize = 8;

/// Query rows of a head of keys.
pub(super) struct Tile<'a> {
    pub(super) heads: Heads<'a>,
    pub(super) kv_head: usize,
    pub(super) rows: Range<usize>,
}

/// What a row has of the blocks so far, or of one block: the greatest score and the sum of all weights, taken
/// against it.
#[derive(Clone, Copy)]
struct Weights {
    greatest: f32,
    total: f32,
}

impl Weights {
    const NONE: Self = Self { greatest: f32::NEG_INFINITY, total: 0.0 };

    /// Both together, and what the sums of each are to be multiplied with.
    #[inline(always)]
    fn join(self, block: Self) -> (Self, [f32; 2]) {
        if block.greatest == f32::NEG_INFINITY {
            return (self, [1.0, 0.0]);
        }
        let greatest = self.greatest.max(block.greatest);
        let shares = [(self.greatest - greatest).exp(), (block.greatest - greatest).exp()];
        (Self { greatest, total: self.total * shares[0] + block.total * shares[1] }, shares)
    }
}

/// All blocks of a tile.
pub(super) struct Whole<'a> {
    pub(super) tile: Tile<'a>,
    /// `[ROWS, dim]`
    pub(super) sums: *mut f32,
}

impl Kernel for Whole<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, sums } = self;
        let (rows, dim) = (tile.rows.len(), tile.heads.dim);
        let seen = tile.seen();
        let mut so_far = [Weights::NONE; ROWS];
        // SAFETY: sums are `rows` rows of `dim` numbers; pages have the layout's format and size.
        unsafe {
            std::ptr::write_bytes(sums, 0, rows * dim);
            for block in seen.start / BLOCK..seen.end.div_ceil(BLOCK) {
                let mut scores = [0.0f32; ROWS * BLOCK];
                let weights = tile.weigh::<S>(block, &mut scores);
                let mut shares = [[0.0; 2]; ROWS];
                for r in 0..rows {
                    (so_far[r], shares[r]) = so_far[r].join(weights[r]);
                }
                tile.add_values::<S>(block, &scores, &shares, sums);
            }
            tile.write::<S>(sums, &so_far);
        }
    }
}

/// One block of a tile.
pub(super) struct Piece<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) block: usize,
    /// `[ROWS, dim]`, then greatest score and total of each row.
    pub(super) part: *mut f32,
}

impl Kernel for Piece<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, block, part } = self;
        let (rows, dim) = (tile.rows.len(), tile.heads.dim);
        let mut scores = [0.0f32; ROWS * BLOCK];
        // SAFETY: as for the whole tile.
        unsafe {
            let weights = tile.weigh::<S>(block, &mut scores);
            std::ptr::write_bytes(part, 0, rows * dim);
            tile.add_values::<S>(block, &scores, &[[0.0, 1.0]; ROWS], part);
            for r in 0..rows {
                *part.add(ROWS * dim + 2 * r) = weights[r].greatest;
                *part.add(ROWS * dim + 2 * r + 1) = weights[r].total;
            }
        }
    }
}

/// The blocks of a tile, one after the other.
pub(super) struct Join<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) parts: *mut f32,
    pub(super) blocks: usize,
}

impl Kernel for Join<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tile, parts, blocks } = self;
        let (rows, dim) = (tile.rows.len(), tile.heads.dim);
        let mut so_far = [Weights::NONE; ROWS];
        // SAFETY: the parts of all blocks are complete; the first becomes the sum of all.
        unsafe {
            for block in 0..blocks {
                let part = parts.add(block * ROWS * (dim + 2));
                for r in 0..rows {
                    let weights = part.add(ROWS * dim + 2 * r);
                    let weights = Weights { greatest: *weights, total: *weights.add(1) };
                    let (sum, block_sum) = (parts.add(r * dim), part.add(r * dim));
                    let shares;
                    (so_far[r], shares) = so_far[r].join(weights);
                    // The first block meets sums of zero.
                    let before = if block == 0 { 0.0 } else { shares[0] };
                    let mut i = 0;
                    while i + LANES <= dim {
                        let old = S::mul(S::load(sum.add(i)), S::splat(before));
                        let new = S::fma(S::load(block_sum.add(i)), S::splat(shares[1]), old);
                        S::store(sum.add(i), new);
                        i += LANES;
                    }
                    for i in i..dim {
                        *sum.add(i) = *block_sum.add(i) * shares[1] + *sum.add(i) * before;
                    }
                }
            }
            tile.write::<S>(parts, &so_far);
        }
    }
}

impl Tile<'_> {
    /// Index in `q` and `out` of a row's first number. A tile's missing rows repeat its last one.
    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        self.heads.place(self.kv_head, (self.rows.start + r).min(self.rows.end - 1))
    }

    /// Keys that any row sees: neither end ever moves back from one row to the next.
    #[inline(always)]
    fn seen(&self) -> Range<usize> {
        self.heads.visible(self.rows.start).start..self.heads.visible(self.rows.end - 1).end
    }

    /// The keys of a block that any row sees.
    #[inline(always)]
    fn keys(&self, block: usize) -> Range<usize> {
        let seen = self.seen();
        let keys = seen.start.max(block * BLOCK)..seen.end.min((block + 1) * BLOCK);
        // A tile may see less than the pass it belongs to.
        keys.start.min(keys.end)..keys.end
    }

    /// The scale of a key in 8 bits.
    fn key_scale(&self, position: usize) -> f32 {
        let Attention { layout, layer, .. } = *self.heads.args;
        self.heads.page(position).scale(layout.key_scale(layer, self.kv_head), position % PAGE_TOKENS)
    }

    /// The scale of a value in 8 bits.
    fn value_scale(&self, position: usize) -> f32 {
        let Attention { layout, layer, .. } = *self.heads.args;
        self.heads.page(position).scale(layout.value_scale(layer, self.kv_head), position % PAGE_TOKENS)
    }

    /// Weights of a block's keys into rows of `BLOCK`, zero where a row sees no key.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, block: usize, scores: &mut [f32; ROWS * BLOCK]) -> [Weights; ROWS] {
        let Attention { scale, soft_cap, layout, .. } = *self.heads.args;
        let keys = self.keys(block);
        let mut weights = [Weights::NONE; ROWS];
        if keys.is_empty() {
            return weights;
        }
        // SAFETY: pages have the layout's format and size.
        unsafe {
            match layout.format() {
                KvFormat::F32 => self.scores::<S, f32>(block, &keys, scores),
                KvFormat::F16 => self.scores::<S, f16>(block, &keys, scores),
                KvFormat::Q8 => self.scores::<S, Byte>(block, &keys, scores),
            }
            // Whole vectors from the block's first key on.
            let len = (keys.end - block * BLOCK).next_multiple_of(LANES);
            for r in 0..self.rows.len() {
                let visible = self.heads.visible(self.rows.start + r);
                let part = visible.start.max(keys.start)..visible.end.min(keys.end);
                let part = part.start.min(part.end) - block * BLOCK..part.end - block * BLOCK;
                let row = &mut scores[r * BLOCK..r * BLOCK + len];
                (weights[r].greatest, weights[r].total) = softmax::<S>(row, scale, soft_cap, part);
            }
            if layout.format() == KvFormat::Q8 {
                // What the values have to be multiplied with yet, the weights may be as well.
                for t in keys.clone() {
                    let scale = self.value_scale(t);
                    for r in 0..self.rows.len() {
                        scores[r * BLOCK + t - block * BLOCK] *= scale;
                    }
                }
            }
        }
        weights
    }

    #[inline(always)]
    unsafe fn scores<S: Simd, E: Element>(
        &self,
        block: usize,
        keys: &Range<usize>,
        scores: &mut [f32; ROWS * BLOCK],
    ) {
        // SAFETY: as the caller's.
        unsafe {
            match self.rows.len() {
                1 => self.scores_of::<S, E, 1, 4>(block, keys, 0, scores),
                rows if S::FEW_REGISTERS => {
                    for from in (0..rows).step_by(2) {
                        self.scores_of::<S, E, 2, 2>(block, keys, from, scores);
                    }
                }
                2 => self.scores_of::<S, E, 2, 4>(block, keys, 0, scores),
                3 | 4 => self.scores_of::<S, E, 4, 4>(block, keys, 0, scores),
                _ => self.scores_of::<S, E, 8, 2>(block, keys, 0, scores),
            }
        }
    }

    /// Scores of `R` rows, from row `from` of the tile on, against the keys, unscaled, `C` keys at a time.
    #[inline(always)]
    unsafe fn scores_of<S: Simd, E: Element, const R: usize, const C: usize>(
        &self,
        block: usize,
        keys: &Range<usize>,
        from: usize,
        scores: &mut [f32; ROWS * BLOCK],
    ) {
        let (dim, vectors) = (self.heads.dim, self.heads.dim / LANES * LANES);
        let key = self.heads.args.layout.key(self.heads.args.layer, self.kv_head);
        // SAFETY: keys of a head are `PAGE_TOKENS` rows of `dim` numbers; queries have `dim` numbers.
        unsafe {
            let q: [*const f32; R] =
                std::array::from_fn(|r| self.heads.args.q.as_ptr().add(self.place(from + r)));
            // A page is a multiple of `C`, and keys that no row sees are masked later.
            let mut t = keys.start / C * C;
            while t < keys.end {
                // Several tiles share what they read, and find it in a cache.
                if from == 0 && self.heads.tiles == 1 {
                    self.ask_for::<S, E, C>(t, keys.end);
                }
                let page = E::page(self.heads.page(t));
                let k = page.add(key + t % PAGE_TOKENS * dim);
                let mut scales = [1.0; C];
                if E::SCALED {
                    for c in 0..C {
                        scales[c] = self.key_scale(t + c);
                    }
                }
                let mut acc = [[S::splat(0.0); C]; R];
                let mut i = 0;
                while i < vectors {
                    let mut keys = [S::splat(0.0); C];
                    for c in 0..C {
                        keys[c] = E::load::<S>(k.add(c * dim + i));
                    }
                    for r in 0..R {
                        let query = S::load(q[r].add(i));
                        for c in 0..C {
                            acc[r][c] = S::fma(query, keys[c], acc[r][c]);
                        }
                    }
                    i += LANES;
                }
                for r in 0..R {
                    for c in 0..C {
                        let mut score = S::sum(acc[r][c]);
                        for i in vectors..dim {
                            score += *q[r].add(i) * (*k.add(c * dim + i)).wide();
                        }
                        if E::SCALED {
                            score *= scales[c];
                        }
                        *scores.get_unchecked_mut((from + r) * BLOCK + t - block * BLOCK + c) = score;
                    }
                }
                t += C;
            }
        }
    }

    /// Asks for `C` keys some way behind key `t`, if they are before `end`, and for the values that go with key `t` and
    /// those next to it: pages lie apart, and values are read by columns, neither of which a processor foresees.
    #[inline(always)]
    fn ask_for<S: Simd, E: Element, const C: usize>(&self, t: usize, end: usize) {
        let Attention { layout, layer, .. } = *self.heads.args;
        self.ask::<S, E, C>(t, layout.value(layer, self.kv_head));
        if t + KEYS_AHEAD < end {
            self.ask::<S, E, C>(t + KEYS_AHEAD, layout.key(layer, self.kv_head));
        }
    }

    /// Asks for the rows of `C` positions of one page, in which the head's rows begin at number `first`.
    #[inline(always)]
    fn ask<S: Simd, E: Element, const C: usize>(&self, position: usize, first: usize) {
        let row = first + position % PAGE_TOKENS * self.heads.dim;
        let numbers = E::page(self.heads.page(position)).wrapping_add(row).cast::<u8>();
        for line in (0..C * self.heads.dim * size_of::<E>()).step_by(64) {
            S::prefetch(numbers.wrapping_add(line));
        }
    }

    /// Multiplies sums `[rows, dim]` with the first share of their row, and adds the block's values by their
    /// weights and the second share.
    #[inline(always)]
    unsafe fn add_values<S: Simd>(
        &self,
        block: usize,
        weights: &[f32; ROWS * BLOCK],
        shares: &[[f32; 2]; ROWS],
        sums: *mut f32,
    ) {
        let keys = self.keys(block);
        // SAFETY: pages have the layout's format and size, sums are the caller's.
        unsafe {
            match self.heads.args.layout.format() {
                KvFormat::F32 => self.add_by_rows::<S, f32>(block, &keys, weights, shares, sums),
                KvFormat::F16 => self.add_by_rows::<S, f16>(block, &keys, weights, shares, sums),
                KvFormat::Q8 => self.add_by_rows::<S, Byte>(block, &keys, weights, shares, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn add_by_rows<S: Simd, E: Element>(
        &self,
        block: usize,
        keys: &Range<usize>,
        weights: &[f32; ROWS * BLOCK],
        shares: &[[f32; 2]; ROWS],
        sums: *mut f32,
    ) {
        // SAFETY: as the caller's.
        unsafe {
            match self.rows.len() {
                1 if S::FEW_REGISTERS => {
                    self.add_values_of::<S, E, 1, 4>(block, keys, weights, shares, sums, 0)
                }
                rows if S::FEW_REGISTERS => {
                    for from in (0..rows).step_by(2) {
                        self.add_values_of::<S, E, 2, 2>(block, keys, weights, shares, sums, from);
                    }
                }
                1 => self.add_values_of::<S, E, 1, 8>(block, keys, weights, shares, sums, 0),
                2 => self.add_values_of::<S, E, 2, 8>(block, keys, weights, shares, sums, 0),
                3 | 4 => self.add_values_of::<S, E, 4, 4>(block, keys, weights, shares, sums, 0),
                _ => self.add_values_of::<S, E, 8, 2>(block, keys, weights, shares, sums, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn add_values_of<S: Simd, E: Element, const R: usize, const V: usize>(
        &self,
        block: usize,
        keys: &Range<usize>,
        weights: &[f32; ROWS * BLOCK],
        shares: &[[f32; 2]; ROWS],
        sums: *mut f32,
        from: usize,
    ) {
        let dim = self.heads.dim;
        // SAFETY: as the caller's; vectors stay below `dim`.
        unsafe {
            let mut i = 0;
            while i + V * LANES <= dim {
                self.add_vectors::<S, E, R, V>(block, keys, (weights, shares), sums, from, i);
                i += V * LANES;
            }
            while i + LANES <= dim {
                self.add_vectors::<S, E, R, 1>(block, keys, (weights, shares), sums, from, i);
                i += LANES;
            }
            // Heads whose width is no multiple of 16 exist only in tests.
            let value = self.heads.args.layout.value(self.heads.args.layer, self.kv_head);
            for i in i..dim {
                for r in from..self.rows.len().min(from + R) {
                    let mut sum = 0.0;
                    for t in keys.clone() {
                        let page = E::page(self.heads.page(t));
                        let v = (*page.add(value + t % PAGE_TOKENS * dim + i)).wide();
                        sum += weights[r * BLOCK + t - block * BLOCK] * v;
                    }
                    let at = sums.add(r * dim + i);
                    *at = sum * shares[r][1] + *at * shares[r][0];
                }
            }
        }
    }

    /// `V` vectors of the sums of `R` rows, from row `from` and number `i` on.
    #[inline(always)]
    unsafe fn add_vectors<S: Simd, E: Element, const R: usize, const V: usize>(
        &self,
        block: usize,
        keys: &Range<usize>,
        (weights, shares): (&[f32; ROWS * BLOCK], &[[f32; 2]; ROWS]),
        sums: *mut f32,
        from: usize,
        i: usize,
    ) {
        let dim = self.heads.dim;
        let value = self.heads.args.layout.value(self.heads.args.layer, self.kv_head);
        // SAFETY: values of a head are `PAGE_TOKENS` rows of `dim` numbers.
        unsafe {
            let mut acc = [[S::splat(0.0); V]; R];
            let mut t = keys.start;
            while t < keys.end {
                let page = E::page(self.heads.page(t));
                let v = page.add(value + t % PAGE_TOKENS * dim + i);
                let count = (PAGE_TOKENS - t % PAGE_TOKENS).min(keys.end - t);
                for slot in 0..count {
                    let v = v.add(slot * dim);
                    let mut values = [S::splat(0.0); V];
                    for c in 0..V {
                        values[c] = E::load::<S>(v.add(c * LANES));
                    }
                    for r in 0..R {
                        let at = (from + r) * BLOCK + t + slot - block * BLOCK;
                        let weight = S::splat(*weights.get_unchecked(at));
                        for c in 0..V {
                            acc[r][c] = S::fma(weight, values[c], acc[r][c]);
                        }
                    }
                }
                t += count;
            }
            for r in 0..R.min(self.rows.len() - from) {
                for c in 0..V {
                    let sum = sums.add((from + r) * dim + i + c * LANES);
                    let old = S::mul(S::load(sum), S::splat(shares[from + r][0]));
                    S::store(sum, S::fma(acc[r][c], S::splat(shares[from + r][1]), old));
                }
            }
        }
    }

    /// Sums over totals.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, sums: *const f32, weights: &[Weights; ROWS]) {
        let dim = self.heads.dim;
        for r in 0..self.rows.len() {
            let inverse = 1.0 / weights[r].total;
            // SAFETY: `out` has the queries' shape, and the row is this tile's.
            unsafe {
                let (sum, out) = (sums.add(r * dim), self.heads.out.get().add(self.place(r)));
                let mut i = 0;
                while i + LANES <= dim {
                    S::store(out.add(i), S::mul(S::load(sum.add(i)), S::splat(inverse)));
                    i += LANES;
                }
                for i in i..dim {
                    *out.add(i) = *sum.add(i) * inverse;
                }
            }
        }
    }
}

/// Scales, caps and masks a row of scores and turns them into weights against the greatest; gives that and the
/// weights' sum. Where nothing is visible all weights are zero.
#[inline(always)]
pub(in crate::cpu) unsafe fn softmax<S: Simd>(
    row: &mut [f32],
    scale: f32,
    soft_cap: Option<f32>,
    visible: Range<usize>,
) -> (f32, f32) {
    if visible.is_empty() {
        row.fill(0.0);
        return (f32::NEG_INFINITY, 0.0);
    }
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
        let greatest = S::greatest(greatest);
        let against = S::splat(greatest);
        for i in (0..row.len()).step_by(LANES) {
            let p = row.as_mut_ptr().add(i);
            S::store(p, S::exp(S::sub(S::load(p), against)));
        }
        row[..visible.start].fill(0.0);
        row[visible.end..].fill(0.0);
        let mut total = S::splat(0.0);
        for i in (0..row.len()).step_by(LANES) {
            total = S::add(total, S::load(row.as_ptr().add(i)));
        }
        (greatest, S::sum(total))
    }
}
