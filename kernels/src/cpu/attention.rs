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
//! Many rows of keys that are rounded anyway go to matrix units, see `matrix`.

mod element;
#[cfg(target_arch = "x86_64")]
mod halves;
#[cfg(target_arch = "x86_64")]
pub(super) mod matrix;
#[cfg(target_arch = "x86_64")]
mod registers;
mod vectors;

pub(super) use vectors::softmax;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::Pool;
use super::{Level, SendPtr};
#[cfg(target_arch = "x86_64")]
use crate::kv::KvFormat;
use crate::kv::{KvPage, PAGE_TOKENS};
use crate::ops::{Attention, Span};
use vectors::{BLOCK, Join, Piece, ROWS, Tile, Whole};

/// Tokens of a pass up to which a row has the same bits as alone, at every level.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 16;

/// Most numbers of sums of single blocks, where tiles share these: 4 MiB.
const MOST_PARTS: usize = 1 << 20;

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
    let tiles = (n * group).div_ceil(ROWS);
    let heads = Heads { args: &args, out, group, dim, tiles };
    #[cfg(target_arch = "x86_64")]
    if level == Level::Amx && n > FEW && args.layout.format() != KvFormat::F32 {
        return heads.on_tiles(pool, n);
    }
    let items = kv_heads * tiles;
    let tile = |item: usize| {
        // The last tiles see the most keys: they go first, so that no thread is left with one at the end.
        let (kv_head, tile) = (item % kv_heads, tiles - 1 - item / kv_heads);
        let rows = tile * ROWS..((tile + 1) * ROWS).min(n * group);
        Tile { heads, kv_head, rows }
    };
    let seen = args.visible(args.start).start..args.visible(args.start + n.max(1) - 1).end;
    let blocks = seen.start / BLOCK..seen.end.div_ceil(BLOCK);
    let part = ROWS * (dim + 2);
    let enough = 2 * pool.threads();
    // A block of keys that stays in a cache for all tiles is read once; else tiles alone may be too few.
    let shared = tiles > 1 && kv_heads * blocks.len() >= enough && items * blocks.len() * part <= MOST_PARTS;
    let split = items < enough && pool.threads() > 1;
    if blocks.len() < 2 || !(shared || split) {
        pool.run(items, &|item| {
            with_numbers(&SUMS, ROWS * dim, |sums| {
                // SAFETY: the level was detected; tiles write different rows of `out`.
                unsafe { level.run(Whole { tile: tile(item), sums: sums.as_mut_ptr() }) };
            });
        });
        return;
    }
    let left: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(blocks.len())).collect();
    let groups = if shared { kv_heads } else { items };
    with_numbers(&BLOCKS, items * blocks.len() * part, |numbers| {
        let numbers = SendPtr(numbers.as_mut_ptr());
        pool.run(groups * blocks.len(), &|i| {
            let block = i / groups;
            for item in (i % groups..items).step_by(groups) {
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
    /// Tiles of query rows that read each head of keys.
    tiles: usize,
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
        use matrix::{Job, Row, attend};
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
