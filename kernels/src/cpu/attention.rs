//! Softmax attention over pages of keys and values: a tile of query rows shares every key and value it reads.
//!
//! Rows are ordered by position, then by head within the group that shares a key head, so that with
//! MQA a tile is the heads of one token and with MHA one head of several tokens. Keys outside the window
//! are never read. The softmax streams over blocks of keys: each block has its own greatest score, weights and sums, which
//! are then joined to those of the blocks before it. Blocks stand at absolute positions, a key's SIMD lane is its
//! position modulo 16, and a block in which a row sees nothing leaves no trace. So a row's bits depend neither on
//! the tile it is in, nor on where its window begins, nor on whether one thread goes through all blocks or
//! several share them, which they do where there are fewer tiles than threads.
//!
//! Many rows of keys that are rounded anyway go to matrix units, see `attention_amx`.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::kv::{KvFormat, KvPage, PAGE_TOKENS};
use crate::ops::{Attention, Span};

/// Query rows of a tile, at most.
const ROWS: usize = 8;
/// Keys of a block.
const BLOCK: usize = 256;
/// Tokens of a pass up to which a row has the same bits as alone, at every level.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 16;

thread_local! {
    /// What a thread sums up in.
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// Sums of single blocks, of the thread that asks for attention.
    static BLOCKS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A thread's own numbers, at least so many; what stands in them does not matter.
fn with_numbers<R>(
    numbers: &'static std::thread::LocalKey<RefCell<Vec<f32>>>,
    len: usize,
    work: impl FnOnce(&mut [f32]) -> R,
) -> R {
    numbers.with_borrow_mut(|numbers| {
        if numbers.len() < len {
            numbers.resize(len, 0.0);
        }
        work(&mut numbers[..len])
    })
}

/// Softmax attention; see [`crate::Ops::attention`].
pub(crate) fn attention(pool: &Pool, level: Level, args: Attention<'_>) {
    let dim = args.layout.head_dim(args.layer);
    let kv_heads = args.layout.kv_heads(args.layer);
    let n = args.q.len() / (args.heads * dim).max(1);
    let group = args.heads / kv_heads;
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
    let heads = Heads { args: &args, out, group, dim };
    #[cfg(target_arch = "x86_64")]
    if level == Level::Amx && n > FEW && args.layout.format() != KvFormat::F32 {
        return heads.on_tiles(pool, n);
    }
    let tiles = (n * group).div_ceil(ROWS);
    let items = kv_heads * tiles;
    let tile = |item: usize| {
        // The last tiles see the most keys: they go first, so that no thread is left with one at the end.
        let (kv_head, tile) = (item % kv_heads, tiles - 1 - item / kv_heads);
        let rows = tile * ROWS..((tile + 1) * ROWS).min(n * group);
        Tile { heads, kv_head, rows }
    };
    let seen = args.visible(args.start).start..args.visible(args.start + n.max(1) - 1).end;
    let blocks = seen.start / BLOCK..seen.end.div_ceil(BLOCK);
    if items >= 2 * pool.threads() || blocks.len() < 2 || pool.threads() == 1 {
        pool.run(items, &|item| {
            with_numbers(&SUMS, ROWS * dim, |sums| {
                // SAFETY: the level was detected; tiles write different rows of `out`.
                unsafe { level.run(Whole { tile: tile(item), sums: sums.as_mut_ptr() }) };
            });
        });
        return;
    }
    let left: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(blocks.len())).collect();
    let part = ROWS * (dim + 2);
    with_numbers(&BLOCKS, items * blocks.len() * part, |numbers| {
        let numbers = SendPtr(numbers.as_mut_ptr());
        pool.run(items * blocks.len(), &|i| {
            // Tiles of the same keys at the same time: one thread's reading serves the other's.
            let (item, block) = (i % items, i / items);
            let parts = numbers.get().wrapping_add(item * blocks.len() * part);
            let piece = Piece {
                tile: tile(item),
                block: blocks.start + block,
                part: parts.wrapping_add(block * part),
            };
            // SAFETY: the level was detected; every piece has its own part of the numbers.
            unsafe { level.run(piece) };
            if left[item].fetch_sub(1, Ordering::AcqRel) == 1 {
                // SAFETY: as above; all pieces of the tile are done, and their numbers seen.
                unsafe { level.run(Join { tile: tile(item), parts, blocks: blocks.len() }) };
            }
        });
    });
}

/// What all tiles share.
#[derive(Clone, Copy)]
struct Heads<'a> {
    args: &'a Attention<'a>,
    out: SendPtr<f32>,
    group: usize,
    dim: usize,
}

impl<'a> Heads<'a> {
    /// Index in `q` and `out` of a row's first number.
    #[inline(always)]
    fn place(&self, kv_head: usize, row: usize) -> usize {
        let (t, head) = (row / self.group, kv_head * self.group + row % self.group);
        (t * self.args.heads + head) * self.dim
    }

    /// Keys that a row sees.
    #[inline(always)]
    fn visible(&self, row: usize) -> Range<usize> {
        self.args.visible(self.args.start + row / self.group)
    }

    /// The page of a position.
    #[inline(always)]
    fn page(&self, position: usize) -> &'a KvPage {
        self.args.pages[(position - self.args.pages_from) / PAGE_TOKENS]
    }

    #[cfg(target_arch = "x86_64")]
    fn on_tiles(&self, pool: &Pool, n: usize) {
        use super::attention_amx::{Job, Row, attend};
        let (layout, layer) = (self.args.layout, self.args.layer);
        let stored = |head: usize, position: usize| {
            let (page, row) = (self.page(position), position % PAGE_TOKENS * self.dim);
            let scales = [layout.key_scale(layer, head), layout.value_scale(layer, head)];
            let at = [layout.key(layer, head), layout.value(layer, head)];
            [0, 1].map(|i| match page {
                KvPage::F16(numbers) => Row::F16(numbers[at[i] + row..][..self.dim].as_ptr()),
                KvPage::F32(numbers) => Row::F32(numbers[at[i] + row..][..self.dim].as_ptr()),
                KvPage::Q8(numbers) => {
                    let scale = page.scale(scales[i], position % PAGE_TOKENS);
                    Row::Q8(numbers[at[i] + row..][..self.dim].as_ptr(), scale)
                }
                KvPage::Device(_) => unreachable!("pages have their layout's format"),
            })
        };
        attend(
            pool,
            &Job {
                dim: self.dim,
                kv_heads: self.args.heads / self.group,
                rows: n * self.group,
                place: &|kv_head, row| self.place(kv_head, row),
                visible: &|row| self.visible(row),
                stored: &stored,
                scale: self.args.scale,
                soft_cap: self.args.soft_cap,
                q: self.args.q,
                out: self.out,
            },
        );
    }
}

/// A number of a page, widened to f32 vectors.
trait Element: Copy {
    /// Whether what is read has still to be multiplied with its row's scale.
    const SCALED: bool = false;
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
            KvPage::F16(_) | KvPage::Q8(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
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
            KvPage::F32(_) | KvPage::Q8(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
        }
    }
}

/// A number in 8 bits, without its scale.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Byte(u8);

impl Element for Byte {
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load_i8(p.cast()) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from(self.0 as i8)
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::Q8(numbers) => numbers.as_ptr().cast(),
            KvPage::F32(_) | KvPage::F16(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
        }
    }
}

/// Query rows of a head of keys.
struct Tile<'a> {
    heads: Heads<'a>,
    kv_head: usize,
    rows: Range<usize>,
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
struct Whole<'a> {
    tile: Tile<'a>,
    /// `[ROWS, dim]`
    sums: *mut f32,
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
struct Piece<'a> {
    tile: Tile<'a>,
    block: usize,
    /// `[ROWS, dim]`, then greatest score and total of each row.
    part: *mut f32,
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
struct Join<'a> {
    tile: Tile<'a>,
    parts: *mut f32,
    blocks: usize,
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
                1 => self.scores_of::<S, E, 1, 4>(block, keys, scores),
                2 => self.scores_of::<S, E, 2, 4>(block, keys, scores),
                3 | 4 => self.scores_of::<S, E, 4, 4>(block, keys, scores),
                _ => self.scores_of::<S, E, 8, 2>(block, keys, scores),
            }
        }
    }

    /// Scores of `R` rows against the keys, unscaled, `C` keys at a time.
    #[inline(always)]
    unsafe fn scores_of<S: Simd, E: Element, const R: usize, const C: usize>(
        &self,
        block: usize,
        keys: &Range<usize>,
        scores: &mut [f32; ROWS * BLOCK],
    ) {
        let (dim, vectors) = (self.heads.dim, self.heads.dim / LANES * LANES);
        let key = self.heads.args.layout.key(self.heads.args.layer, self.kv_head);
        // SAFETY: keys of a head are `PAGE_TOKENS` rows of `dim` numbers; queries have `dim` numbers.
        unsafe {
            let q: [*const f32; R] = std::array::from_fn(|r| self.heads.args.q.as_ptr().add(self.place(r)));
            // A page is a multiple of `C`, and keys that no row sees are masked later.
            let mut t = keys.start / C * C;
            while t < keys.end {
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
                        *scores.get_unchecked_mut(r * BLOCK + t - block * BLOCK + c) = score;
                    }
                }
                t += C;
            }
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
                1 => self.add_values_of::<S, E, 1, 8>(block, keys, weights, shares, sums),
                2 => self.add_values_of::<S, E, 2, 8>(block, keys, weights, shares, sums),
                3 | 4 => self.add_values_of::<S, E, 4, 4>(block, keys, weights, shares, sums),
                _ => self.add_values_of::<S, E, 8, 2>(block, keys, weights, shares, sums),
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
    ) {
        let dim = self.heads.dim;
        // SAFETY: as the caller's; vectors stay below `dim`.
        unsafe {
            let mut i = 0;
            while i + V * LANES <= dim {
                self.add_vectors::<S, E, R, V>(block, keys, (weights, shares), sums, i);
                i += V * LANES;
            }
            while i + LANES <= dim {
                self.add_vectors::<S, E, R, 1>(block, keys, (weights, shares), sums, i);
                i += LANES;
            }
            // Heads whose width is no multiple of 16 exist only in tests.
            let value = self.heads.args.layout.value(self.heads.args.layer, self.kv_head);
            for i in i..dim {
                for r in 0..self.rows.len() {
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

    /// `V` vectors of the sums of `R` rows, from number `i` on.
    #[inline(always)]
    unsafe fn add_vectors<S: Simd, E: Element, const R: usize, const V: usize>(
        &self,
        block: usize,
        keys: &Range<usize>,
        (weights, shares): (&[f32; ROWS * BLOCK], &[[f32; 2]; ROWS]),
        sums: *mut f32,
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
                        let at = r * BLOCK + t + slot - block * BLOCK;
                        let weight = S::splat(*weights.get_unchecked(at));
                        for c in 0..V {
                            acc[r][c] = S::fma(weight, values[c], acc[r][c]);
                        }
                    }
                }
                t += count;
            }
            for r in 0..R.min(self.rows.len()) {
                for c in 0..V {
                    let sum = sums.add(r * dim + i + c * LANES);
                    let old = S::mul(S::load(sum), S::splat(shares[r][0]));
                    S::store(sum, S::fma(acc[r][c], S::splat(shares[r][1]), old));
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
pub(super) unsafe fn softmax<S: Simd>(
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
