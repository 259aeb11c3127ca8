//! Attention at every level this machine has, against the oracle, over random shapes.

use super::tests::{assert_close, backends};
use super::*;
use crate::kv::{KvFormat, KvLayout, KvPage, PAGE_TOKENS};
use crate::ops::Span;
use crate::reference::Reference;
use crate::testing::Random;

#[derive(Clone)]
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: Option<usize>,
    spans: Vec<Span>,
    soft_cap: Option<f32>,
    format: KvFormat,
}

/// A case with its numbers.
struct Sequence {
    case: Case,
    tokens: usize,
    layout: KvLayout,
    pages: Vec<KvPage>,
    /// `[tokens, heads * dim]`
    q: Vec<f32>,
}

const SCALE: f32 = 0.3;
/// The second of two layers of different widths.
const LAYER: usize = 1;

impl Sequence {
    fn new(random: &mut Random, case: &Case, tokens: usize) -> Self {
        let layout = KvLayout::new(case.format, [(2, 8), (case.kv_heads, case.dim)]);
        let mut pages = vec![KvPage::new(&layout); tokens.div_ceil(PAGE_TOKENS)];
        for t in 0..tokens {
            let width = case.kv_heads * case.dim;
            let (k, v) = (random.numbers(width), random.numbers(width));
            pages[t / PAGE_TOKENS].store(&layout, LAYER, t % PAGE_TOKENS, &k, &v);
        }
        let q = random.numbers(tokens * case.heads * case.dim);
        Self { case: case.clone(), tokens, layout, pages, q }
    }

    fn row(&self) -> usize {
        self.case.heads * self.case.dim
    }

    fn attend(&self, ops: &dyn Ops, tokens: Range<usize>) -> Vec<f32> {
        let Case { heads, window, soft_cap, ref spans, .. } = self.case;
        let q = &self.q[tokens.start * self.row()..tokens.end * self.row()];
        let mut out = vec![f32::NAN; q.len()];
        // Only the pages that the window reaches: nothing before them may be read.
        let oldest = window.map_or(0, |window| (tokens.start + 1).saturating_sub(window));
        let pages: Vec<&KvPage> = self.pages[oldest / PAGE_TOKENS..].iter().collect();
        ops.attention(Attention {
            q,
            start: tokens.start,
            heads,
            scale: SCALE,
            soft_cap,
            window,
            spans,
            layout: &self.layout,
            layer: LAYER,
            pages: &pages,
            pages_from: oldest / PAGE_TOKENS * PAGE_TOKENS,
            out: &mut out,
        });
        out
    }

    /// Whether a pass of so many tokens goes to matrix units.
    fn tiled(&self, cpu: &Cpu, tokens: usize) -> bool {
        cpu.level() == Level::Amx && self.case.format != KvFormat::F32 && tokens > 16
    }

    /// The most that rounding to bf16 may move an output of a head at a position, as `attention::matrix` states it.
    fn bound(&self, position: usize, head: usize) -> f32 {
        let Case { heads, kv_heads, dim, window, ref spans, .. } = self.case;
        let kv_head = head / (heads / kv_heads);
        let q = &self.q[position * self.row() + head * dim..][..dim];
        let (mut moved, mut greatest) = (0.0f32, 0.0f32);
        for t in crate::ops::visible(window, spans, position) {
            let (page, slot) = (&self.pages[t / PAGE_TOKENS], t % PAGE_TOKENS);
            let size = |(i, q): (usize, &f32)| (q * page.key(&self.layout, LAYER, kv_head, slot, i)).abs();
            moved = moved.max(SCALE * q.iter().enumerate().map(size).sum::<f32>() / 256.0);
            for i in 0..dim {
                greatest = greatest.max(page.value(&self.layout, LAYER, kv_head, slot, i).abs());
            }
        }
        ((2.0 * moved).exp() - 1.0 + 1.0 / 128.0) * greatest
    }

    /// Holds outputs of matrix units against the oracle's.
    fn assert_rounded(&self, got: &[f32], want: &[f32], what: &str) {
        let Case { heads, dim, .. } = self.case;
        let mut squares = 0.0;
        for (row, (got, want)) in got.chunks_exact(dim).zip(want.chunks_exact(dim)).enumerate() {
            let bound = self.bound(row / heads, row % heads);
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                assert!((g - w).abs() <= bound, "{what}: number {i} of row {row} is {g}, not {w}");
                squares += f64::from(g - w).powi(2);
            }
        }
        // The bound is what could happen; as a rule, roundings cancel each other.
        let typical = (squares / got.len() as f64).sqrt();
        assert!(typical < 1.0 / 256.0, "{what}: {typical} apart as a rule");
    }

    /// `tokens`, made longer where it would begin or end inside a span.
    fn whole(&self, tokens: Range<usize>) -> Range<usize> {
        let inside = |at: usize| self.case.spans.iter().find(move |s| s.start < at && at < s.end);
        let start = inside(tokens.start).map_or(tokens.start, |span| span.start);
        start..inside(tokens.end).map_or(tokens.end, |span| span.end)
    }

    fn check(&self, random: &mut Random) {
        let (tokens, row) = (self.tokens, self.row());
        let want = self.attend(&Reference, 0..tokens);
        let mut fused: Option<Vec<f32>> = None;
        for cpu in backends() {
            let what = format!(
                "{tokens} tokens, window {:?}, {} of {} heads of {}, {:?}, {:?}",
                self.case.window,
                self.case.heads,
                self.case.kv_heads,
                self.case.dim,
                self.case.format,
                cpu.level()
            );
            let all = self.attend(&cpu, 0..tokens);
            let tiled = self.tiled(&cpu, tokens);
            if tiled {
                self.assert_rounded(&all, &want, &what);
            } else {
                assert_close(&all, &want, 3e-6, &what);
                if cpu.level() > Level::Portable {
                    assert_eq!(*fused.get_or_insert_with(|| all.clone()), all, "{what}");
                }
            }
            let start = random.below(tokens);
            for end in [start + 1, start + 1 + random.below(16), start + 17, tokens] {
                let piece = self.whole(start..end.min(tokens));
                let part = self.attend(&cpu, piece.clone());
                let numbers = piece.start * row..piece.end * row;
                let what = format!("{what}, {piece:?}");
                if self.tiled(&cpu, piece.len()) == tiled {
                    assert_eq!(part, all[numbers], "{what}");
                } else {
                    assert_close(&part, &want[numbers], 3e-6, &what);
                    let last = self.whole(piece.end - 1..piece.end);
                    if !self.tiled(&cpu, last.len()) {
                        let alone = self.attend(&cpu, last.clone());
                        assert_eq!(alone, part[(last.start - piece.start) * row..], "{what}, the last");
                    }
                }
            }
        }
    }
}

const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];

#[test]
fn attention_agrees_with_the_oracle_and_does_not_depend_on_the_batch() {
    let mut random = Random::new(13);
    let shapes = [(4, 1, 64), (8, 8, 16), (8, 4, 256), (3, 1, 20), (6, 2, 72), (8, 1, 36)];
    for (i, (heads, kv_heads, dim)) in shapes.into_iter().enumerate() {
        for (j, window) in [None, Some(1), Some(5), Some(16), Some(33)].into_iter().enumerate() {
            for (k, spans) in [vec![], prefix(&mut random), pictures(&mut random)].into_iter().enumerate() {
                let soft_cap = (i % 3 == j % 2).then_some(2.0);
                let format = FORMATS[(i + j + k) % 3];
                let tokens = spans.last().map_or(1, |span: &Span| span.end) + random.below(75);
                let case = Case { heads, kv_heads, dim, window, spans, soft_cap, format };
                Sequence::new(&mut random, &case, tokens).check(&mut random);
            }
        }
    }
}

/// A prompt that sees itself in both directions.
fn prefix(random: &mut Random) -> Vec<Span> {
    vec![Span { start: 0, end: 1 + random.below(60), windowed: false }]
}

/// Pictures among text, some of them next to each other.
fn pictures(random: &mut Random) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = random.below(5);
    while at < 60 {
        let end = at + 1 + random.below(20);
        spans.push(Span { start: at, end, windowed: true });
        at = end + random.below(8);
    }
    spans
}

#[test]
fn a_row_has_the_same_bits_whatever_blocks_of_keys_come_before_and_whoever_adds_them_up() {
    let mut random = Random::new(41);
    for (heads, kv_heads, dim, window) in
        [(4, 1, 32, None), (2, 2, 20, Some(300)), (8, 1, 16, Some(257)), (2, 1, 64, Some(512))]
    {
        for format in FORMATS {
            let spans = vec![Span { start: 250, end: 275, windowed: true }];
            let case = Case { heads, kv_heads, dim, window, spans, soft_cap: None, format };
            let tokens = 520 + random.below(300);
            let sequence = Sequence::new(&mut random, &case, tokens);
            sequence.check(&mut random);
            // One token at the end: with one thread a tile goes through all blocks, with more they share them.
            for level in Level::available() {
                let alone = |threads| sequence.attend(&Cpu::new(threads, level), tokens - 1..tokens);
                assert_eq!(alone(1), alone(2), "{format:?} {level:?}");
                assert_eq!(alone(1), alone(5), "{format:?} {level:?}");
            }
        }
    }
}

#[test]
fn scores_that_grow_from_block_to_block_leave_no_early_weight() {
    // Each block's keys fit the query better than all before: what was summed up has to be scaled down each time.
    let (dim, tokens) = (32, 1100);
    for format in FORMATS {
        let case = Case { heads: 1, kv_heads: 1, dim, window: None, spans: vec![], soft_cap: None, format };
        let mut random = Random::new(42);
        let mut sequence = Sequence::new(&mut random, &case, tokens);
        sequence.q = vec![1.0; tokens * dim];
        for t in 0..tokens {
            let key: Vec<f32> = (0..dim).map(|_| t as f32 / 100.0 + random.number() / 64.0).collect();
            let value = random.numbers(dim);
            sequence.pages[t / PAGE_TOKENS].store(&sequence.layout, LAYER, t % PAGE_TOKENS, &key, &value);
        }
        let want = sequence.attend(&Reference, 0..tokens);
        for cpu in backends() {
            let what = format!("{format:?} {:?}", cpu.level());
            let got = sequence.attend(&cpu, 0..tokens);
            if sequence.tiled(&cpu, tokens) {
                for (row, (got, want)) in got.chunks(dim).zip(want.chunks(dim)).enumerate() {
                    let bound = sequence.bound(row, 0);
                    let near = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= bound);
                    assert!(near, "{what}, row {row}");
                }
            } else {
                // Scores of up to 100 in f32.
                assert_close(&got, &want, 1e-4, &what);
            }
        }
    }
}

#[test]
fn keys_and_values_in_eight_bits_stay_near_those_in_f32() {
    let mut random = Random::new(43);
    for (heads, kv_heads, dim, window) in [(4, 1, 256, None), (2, 2, 72, Some(40)), (8, 2, 36, None)] {
        let case = Case { heads, kv_heads, dim, window, spans: vec![], soft_cap: None, format: KvFormat::Q8 };
        let tokens = 90;
        let seed = random.bits();
        let rounded = Sequence::new(&mut Random::new(seed), &case, tokens);
        let exact = Case { format: KvFormat::F32, ..case };
        let exact = Sequence::new(&mut Random::new(seed), &exact, tokens);
        let want = exact.attend(&Reference, 0..tokens);
        for cpu in backends() {
            // Single rows: few of them are never rounded any further.
            for position in [0, 1, 50, tokens - 1] {
                let got = rounded.attend(&cpu, position..position + 1);
                for head in 0..heads {
                    // Numbers are below 1, so a key's move by at most half a step of 1/127 and half of 2^-11.
                    let step = 0.5 / 127.0 + 0.5 / 2048.0;
                    let q = &exact.q[position * exact.row() + head * dim..][..dim];
                    let moved = SCALE * step * q.iter().map(|q| q.abs()).sum::<f32>();
                    let bound = (2.0 * moved).exp() - 1.0 + step + 1e-5;
                    let rows = (got[head * dim..].iter()).zip(&want[position * exact.row() + head * dim..]);
                    for (g, w) in rows.take(dim) {
                        assert!((g - w).abs() <= bound, "{g} is not {w} within {bound}, {:?}", cpu.level());
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_in_eight_bits_keeps_its_greatest_number_and_zeros() {
    let layout = KvLayout::new(KvFormat::Q8, [(1, 4), (2, 3)]);
    // Two layers of 16 tokens: keys and values, and a scale for each.
    assert_eq!(layout.page_bytes(), 16 * 2 * ((4 + 2) + 2 * (3 + 2)));
    let mut page = KvPage::new(&layout);
    page.store(&layout, 1, 15, &[0.0, 0.0, 0.0, 5.0, -2.0, 1e-3], &[1e-30, 0.0, 0.0, -3e4, 3e4, 1.0]);
    page.store(&layout, 0, 0, &[1.0; 4], &[-1.0; 4]);
    let key = |head, i| page.key(&layout, 1, head, 15, i);
    let value = |head, i| page.value(&layout, 1, head, 15, i);
    assert_eq!([0, 1, 2].map(|i| key(0, i)), [0.0; 3]);
    assert!((key(1, 0) - 5.0).abs() < 5.0 / 2048.0);
    assert!((key(1, 1) + 2.0).abs() < 0.5 * 5.0 / 127.0 + 2.0 / 2048.0);
    assert_eq!([0, 1, 2].map(|i| value(0, i)), [0.0; 3], "too small for a scale");
    assert!((value(1, 0) + 3e4).abs() < 3e4 / 2048.0 && value(1, 1) == -value(1, 0));
    assert!((page.key(&layout, 0, 0, 0, 3) - 1.0).abs() < 1.0 / 1024.0, "the other layer is another");
}

#[test]
fn dense_attention_agrees_with_the_oracle_and_does_not_depend_on_the_batch() {
    let mut random = Random::new(17);
    for (heads, head_dim, n) in
        [(1, 1, 1), (2, 72, 16), (3, 12, 37), (16, 72, 50), (2, 64, 200), (4, 20, 33), (1, 72, 600)]
    {
        let width = heads * head_dim;
        let [q, k, v] = [(); 3].map(|()| random.numbers(n * width));
        let attend = |ops: &dyn Ops, activation, rows: Range<usize>| {
            let q = &q[rows.start * width..rows.end * width];
            let mut out = vec![f32::NAN; q.len()];
            ops.dense_attention(DenseAttention {
                q,
                k: &k,
                v: &v,
                heads,
                head_dim,
                scale: 0.7,
                activation,
                out: &mut out,
            });
            out
        };
        let want = attend(&Reference, Activation::F32, 0..n);
        // As for attention over pages: what rounding may move a score by, and the rest.
        let bound = (2.0 * 0.7 * head_dim as f32 / 256.0).exp() - 1.0 + 1.0 / 128.0;
        let mut fused: Option<Vec<f32>> = None;
        for cpu in backends() {
            for activation in [Activation::F32, Activation::Rounded] {
                let what = format!("{n} rows, {heads} heads of {head_dim}, {:?}", cpu.level());
                let all = attend(&cpu, activation, 0..n);
                let start = random.below(n);
                let part = attend(&cpu, activation, start..n);
                assert_eq!(part, all[start * width..], "{what}, from {start} on");
                if activation == Activation::Rounded && cpu.level() == Level::Amx {
                    let apart = all.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(apart <= bound.min(0.03), "{what}: {apart} apart");
                } else {
                    assert_close(&all, &want, 3e-6, &what);
                    if cpu.level() > Level::Portable {
                        assert_eq!(*fused.get_or_insert_with(|| all.clone()), all, "{what}");
                    }
                }
            }
        }
    }
}
