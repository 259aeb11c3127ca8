//! Attention on a device, held against the oracle under every schedule.

// Clippy's leave to unwrap in tests does not reach what they share.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use gemma_emulation::{Emulated, Schedule, covers, devices, hopper};
use gemma_kernels::cuda::attention::{
    Attend, Dense, Turn, attend_dense, attend_exact, attend_few, attend_many, dense_scratch_bytes,
    scratch_bytes,
};
use gemma_kernels::cuda::{Device, DevicePage, PageMemory, Place, Standing, Strided};
use gemma_kernels::testing::Random;
use gemma_kernels::{
    Activation, Attention, DenseAttention, KvFormat, KvLayout, KvPage, Ops, PAGE_TOKENS, Reference, Rope,
    Span,
};
use half::{bf16, f16};

/// Which of the ways is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Few,
    Many,
    Exact,
}

/// A layer and a pass through it.
#[derive(Debug, Clone)]
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    rotated: usize,
    norms: bool,
    cap: Option<f32>,
    window: Option<usize>,
    spans: Vec<Span>,
    start: usize,
    n: usize,
    pages_from: usize,
    /// How far rotary positions are ahead of places in the sequence.
    ahead: usize,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            heads: 2,
            kv_heads: 1,
            dim: 16,
            rotated: 16,
            norms: false,
            cap: None,
            window: None,
            spans: Vec::new(),
            start: 0,
            n: 1,
            pages_from: 0,
            ahead: 3,
        }
    }
}

/// The layer that is computed, of two: the other one's keys and values must stay as they are.
const LAYER: usize = 1;
const EPS: f32 = 1e-6;

/// What a case consists of in numbers, and what the oracle makes of it.
struct Worked {
    layout: KvLayout,
    scale: f32,
    qkv: Vec<f32>,
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
    frequencies: Vec<f32>,
    before: Vec<KvPage>,
    behind: Vec<KvPage>,
    out: Vec<f32>,
}

impl Case {
    /// What the query at a position sees.
    fn visible(&self, position: usize) -> (usize, usize) {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        match self.spans.iter().find(|span| (span.start..span.end).contains(&position)) {
            Some(span) if span.windowed => (first, span.end),
            Some(span) => (first.min(span.start), span.end),
            None => (first, position + 1),
        }
    }

    fn rows(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.n
    }

    /// Whether a key is in the pages before the pass and is seen in it.
    fn is_read(&self, key: usize) -> bool {
        key < self.start && self.rows().any(|row| (self.visible(row).0..self.visible(row).1).contains(&key))
    }

    fn work(&self, format: KvFormat, random: &mut Random) -> Worked {
        let Self { heads, kv_heads, dim, n, start, pages_from, .. } = *self;
        let layout = KvLayout::new(format, [(kv_heads, dim), (kv_heads, dim), (1, 2)]);
        let (theta, factor, scale) = (100.0f32, 2.0, (dim as f32).powf(-0.5) * 2.0);
        let count = (start + n - pages_from).div_ceil(PAGE_TOKENS);
        let mut before = vec![KvPage::new(&layout); count];
        for key in pages_from..start {
            let slot = key % PAGE_TOKENS;
            let page = &mut before[(key - pages_from) / PAGE_TOKENS];
            page.store(
                &layout,
                LAYER,
                slot,
                &random.numbers(kv_heads * dim),
                &random.numbers(kv_heads * dim),
            );
        }
        let norm = |random: &mut Random| (0..dim).map(|_| 1.0 + 0.5 * random.number()).collect::<Vec<f32>>();
        let (q_norm, k_norm) = (norm(random), norm(random));
        let qkv = random.numbers(n * (heads + 2 * kv_heads) * dim);
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for row in qkv.chunks_exact((heads + 2 * kv_heads) * dim) {
            q.extend(&row[..heads * dim]);
            k.extend(&row[heads * dim..(heads + kv_heads) * dim]);
            v.extend(&row[(heads + kv_heads) * dim..]);
        }
        if self.norms {
            Reference.rms_norm_in_place(&mut q, &q_norm, EPS);
            Reference.rms_norm_in_place(&mut k, &k_norm, EPS);
        }
        let mut rope = Rope::new(self.rotated, theta, factor);
        rope.cover(start + self.ahead, n);
        Reference.rope(&mut q, heads, dim, start + self.ahead, &rope);
        Reference.rope(&mut k, kv_heads, dim, start + self.ahead, &rope);
        let mut behind = before.clone();
        for (row, (k, v)) in k.chunks(kv_heads * dim).zip(v.chunks(kv_heads * dim)).enumerate() {
            let key = start + row;
            behind[(key - pages_from) / PAGE_TOKENS].store(&layout, LAYER, key % PAGE_TOKENS, k, v);
        }
        let mut out = vec![0.0; n * heads * dim];
        Reference.attention(Attention {
            q: &q,
            start,
            heads,
            scale,
            soft_cap: self.cap,
            window: self.window,
            spans: &self.spans,
            layout: &layout,
            layer: LAYER,
            pages: &behind.iter().collect::<Vec<_>>(),
            pages_from,
            out: &mut out,
        });
        let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / self.rotated as f32) / factor;
        let frequencies = (0..self.rotated / 2).map(frequency).collect();
        Worked { layout, scale, qkv, q_norm, k_norm, frequencies, before, behind, out }
    }

    /// A page's bytes with NaN for every key and value that nothing may be made of.
    fn page_bytes(&self, worked: &Worked, index: usize) -> Vec<u8> {
        let (layout, mut page) = (&worked.layout, worked.before[index].clone());
        let nothing = vec![f32::NAN; self.kv_heads * self.dim];
        for slot in 0..PAGE_TOKENS {
            if !self.is_read(self.pages_from + index * PAGE_TOKENS + slot) {
                page.store(layout, LAYER, slot, &nothing, &nothing);
            }
        }
        bytes(&page)
    }

    fn place(&self, device: &Device, pages: &[DevicePage]) -> Place {
        let mut place = Place::new(device, self.n + 3, pages.len() + 2, 2).unwrap();
        let own = self.rows().map(|row| self.visible(row)).collect();
        let other = self.rows().map(|row| (row, row + 1)).collect();
        let position = self.start + self.ahead;
        let (start, pages_from) = (self.start, self.pages_from);
        let pages: &Vec<_> = &pages.iter().map(|page| page.to_write().unwrap()).collect();
        place.set(Standing { start, position, pages_from, pages, ranges: &[other, own] }).unwrap();
        place
    }

    /// Runs it on a device, holds results and pages against the oracle's, and gives the results' bytes.
    fn run(&self, way: Way, device: &Device, worked: &Worked, name: &str) -> Vec<u8> {
        let pages = (0..worked.before.len()).map(|i| self.page_bytes(worked, i));
        let memory = PageMemory::new(device, 1 << 30);
        let pages: Vec<_> = pages.map(|page| DevicePage::of(&memory, page.into())).collect();
        let out = self.attend(way, device, worked, &pages);
        let told = format!("{name} {way:?} {self:?}");
        let number = if way == Way::Exact { 4 } else { 2 };
        let numbers: Vec<f32> = out.chunks_exact(number).map(activation).collect();
        let most = if way == Way::Exact { 1e-5 } else { 6e-3 };
        for (head, (ours, theirs)) in numbers.chunks(self.dim).zip(worked.out.chunks(self.dim)).enumerate() {
            let error = distance(ours, theirs);
            assert!(error < most, "row and head {head}: {error}: {told}");
        }
        for (index, page) in pages.iter().enumerate() {
            let now = page.contents().unwrap();
            self.check_page(
                &now,
                &self.page_bytes(worked, index),
                &bytes(&worked.behind[index]),
                index,
                &told,
            );
        }
        out
    }

    fn attend(&self, way: Way, device: &Device, worked: &Worked, pages: &[DevicePage]) -> Vec<u8> {
        let place = self.place(device, pages);
        let [qkv, q_norm, k_norm, frequencies] =
            [&worked.qkv, &worked.q_norm, &worked.k_norm, &worked.frequencies]
                .map(|numbers| device.numbers(numbers).unwrap());
        let bytes =
            scratch_bytes(device, self.heads, self.kv_heads, self.dim, self.n, worked.layout.format());
        let mut scratch = device.buffer(bytes).unwrap();
        scratch.fill(0).unwrap();
        let number = if way == Way::Exact { 4 } else { 2 };
        let out = device.buffer(self.n * self.heads * self.dim * number).unwrap();
        let args = Attend {
            qkv: &qkv,
            place: &place,
            sight: 1,
            layout: &worked.layout,
            layer: LAYER,
            heads: self.heads,
            scale: worked.scale,
            soft_cap: self.cap,
            turn: Turn {
                q_norm: self.norms.then_some(&q_norm),
                k_norm: self.norms.then_some(&k_norm),
                eps: EPS,
                frequencies: &frequencies,
            },
            scratch: &scratch,
            out: &out,
        };
        let attend = match way {
            Way::Few => attend_few,
            Way::Many => attend_many,
            Way::Exact => attend_exact,
        };
        attend(&args).unwrap();
        let mut result = vec![0; out.bytes()];
        out.download(0, &mut result).unwrap();
        // The counters are as they were found: a second launch gives the same.
        let other = device.buffer(out.bytes()).unwrap();
        attend(&Attend { out: &other, ..args }).unwrap();
        let mut again = vec![0; out.bytes()];
        other.download(0, &mut again).unwrap();
        assert_eq!(result, again, "{way:?} twice: {self:?}");
        result
    }

    /// New keys and values are the oracle's to their rounding, all else is untouched.
    fn check_page(&self, now: &[u8], before: &[u8], oracle: &[u8], index: usize, told: &str) {
        let layer = 2 * self.kv_heads * PAGE_TOKENS * self.dim;
        let number = now.len() / (2 * layer + 2 * PAGE_TOKENS * 2);
        let read = |bytes: &[u8], at: usize| kept(&bytes[at * number..(at + 1) * number]);
        for at in 0..now.len() / number {
            let key = self.pages_from + index * PAGE_TOKENS + at / self.dim % PAGE_TOKENS;
            if (LAYER * layer..(LAYER + 1) * layer).contains(&at) && self.rows().contains(&key) {
                let (ours, theirs) = (read(now, at), read(oracle, at));
                let most = if number == 4 { 3e-6 } else { 2e-3 };
                assert!((ours - theirs).abs() <= most, "stored {ours}, not {theirs}, of key {key}: {told}");
            } else {
                let bytes = at * number..(at + 1) * number;
                assert_eq!(now[bytes.clone()], before[bytes], "number {at} of page {index}: {told}");
            }
        }
    }
}

fn bytes(page: &KvPage) -> Vec<u8> {
    match page {
        KvPage::F32(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        KvPage::F16(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        KvPage::Q8(numbers) => numbers.to_vec(),
        KvPage::Device(page) => page.contents().unwrap().into(),
    }
}

/// A number of a page.
fn kept(bytes: &[u8]) -> f32 {
    match *bytes {
        [a, b] => f16::from_le_bytes([a, b]).to_f32(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => panic!("two bytes or four"),
    }
}

/// A number of the result.
fn activation(bytes: &[u8]) -> f32 {
    match *bytes {
        [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
        _ => kept(bytes),
    }
}

/// How far two vectors are from each other, by the second's length.
fn distance(ours: &[f32], theirs: &[f32]) -> f32 {
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|n| n * n).sum::<f32>();
    let apart = square(&mut ours.iter().zip(theirs).map(|(a, b)| a - b));
    let error = (apart / square(&mut theirs.iter().copied())).sqrt();
    if error.is_nan() { f32::INFINITY } else { error }
}

fn check(way: Way, cases: &[Case]) {
    let format = if way == Way::Exact { KvFormat::F32 } else { KvFormat::F16 };
    for (i, case) in cases.iter().enumerate() {
        let worked = case.work(format, &mut Random::new(i as u64 + 1));
        let mut results = HashMap::new();
        for (name, device) in devices(1 << 26) {
            let result = case.run(way, &device, &worked, &name);
            let first = results.entry(device.properties().shared_bytes).or_insert_with(|| result.clone());
            assert!(result == *first, "{name}: another order gives other bits: {case:?}");
        }
    }
}

/// Shapes that every way takes.
fn shapes() -> Vec<Case> {
    let span = |start, end, windowed| Span { start, end, windowed };
    vec![
        // The first token of all.
        Case::default(),
        // Several key heads, a page's middle, norms, half of a head rotated.
        Case { heads: 4, kv_heads: 2, rotated: 8, norms: true, start: 21, n: 5, ..Case::default() },
        // Far in the sequence, where an angle is thousands of turns.
        Case { start: 3, n: 2, ahead: 100_000, ..Case::default() },
        // Heads of an odd width, all their own.
        Case { heads: 3, kv_heads: 3, dim: 12, rotated: 6, start: 47, n: 2, ..Case::default() },
        // A soft cap, and a group that does not divide 16.
        Case { heads: 10, dim: 64, rotated: 32, cap: Some(2.0), start: 70, n: 3, ..Case::default() },
        // Windows shorter than the pass; the pages begin where the first row sees.
        Case { window: Some(7), start: 133, n: 16, pages_from: 112, ..Case::default() },
        // A window over a long context.
        Case {
            heads: 4,
            kv_heads: 2,
            dim: 64,
            rotated: 64,
            window: Some(100),
            start: 300,
            pages_from: 192,
            ..Case::default()
        },
        // Spans: one that all see whole, one inside a window.
        Case { spans: vec![span(20, 31, false)], window: Some(9), start: 18, n: 15, ..Case::default() },
        Case { spans: vec![span(33, 37, true)], window: Some(6), start: 30, n: 9, ..Case::default() },
        // A long context, a group of eight: chunks of eight pages go around several times.
        Case { heads: 8, dim: 32, rotated: 32, start: 611, n: 2, ..Case::default() },
    ]
}

#[test]
fn few_rows_attend() {
    let wide = [
        Case {
            heads: 2,
            kv_heads: 1,
            dim: 256,
            rotated: 256,
            norms: true,
            start: 37,
            n: 2,
            ..Case::default()
        },
        Case { heads: 1, kv_heads: 1, dim: 128, rotated: 128, start: 150, n: 1, ..Case::default() },
    ];
    check(Way::Few, &[shapes(), wide.to_vec()].concat());
    covers(&["attend_few_32", "attend_few_128", "attend_few_256"]);
}

#[test]
fn many_rows_attend() {
    let more = [
        // More queries than a block has.
        Case { heads: 4, dim: 32, rotated: 32, start: 5, n: 40, ..Case::default() },
        // More tiles than the device holds at once: no splits.
        Case {
            heads: 8,
            kv_heads: 8,
            dim: 8,
            rotated: 8,
            start: 90,
            n: 67,
            window: Some(50),
            ..Case::default()
        },
        Case { heads: 2, dim: 256, rotated: 256, cap: Some(3.0), start: 37, n: 17, ..Case::default() },
        Case { heads: 2, dim: 128, rotated: 128, start: 20, n: 18, ..Case::default() },
    ];
    check(Way::Many, &[shapes(), more.to_vec()].concat());
    covers(&["attend_turn", "attend_many_32", "attend_many_80", "attend_many_128", "attend_many_256"]);
}

#[test]
fn exact_rows_attend() {
    let more = [
        Case {
            heads: 2,
            dim: 40,
            rotated: 20,
            norms: true,
            cap: Some(3.0),
            start: 260,
            n: 3,
            ..Case::default()
        },
        Case { heads: 2, kv_heads: 2, dim: 6, rotated: 6, start: 5, n: 40, ..Case::default() },
    ];
    check(Way::Exact, &[shapes(), more.to_vec()].concat());
    covers(&["attend_turn_exact", "attend_exact"]);
}

/// A device with as many multiprocessors as an H100: keys are dealt to many blocks.
fn large() -> Device {
    let properties = gemma_kernels::cuda::Properties { multiprocessors: 132, ..hopper(1 << 26) };
    Device::new(Arc::new(Emulated::of(properties, Schedule::Random(5))))
}

#[test]
fn many_blocks_share_the_keys() {
    let cases = [
        // A page for each of 64 blocks, and a second one for some.
        Case { heads: 1, dim: 16, start: 1100, n: 2, ..Case::default() },
        // The blocks that have a part go around.
        Case { heads: 1, window: Some(900), start: 1500, pages_from: 592, n: 3, ..Case::default() },
        Case { heads: 16, kv_heads: 2, cap: Some(2.0), start: 700, n: 3, ..Case::default() },
    ];
    let device = large();
    for (i, case) in cases.iter().enumerate() {
        let worked = case.work(KvFormat::F16, &mut Random::new(i as u64 + 60));
        case.run(Way::Few, &device, &worked, "132 multiprocessors");
        case.run(Way::Many, &device, &worked, "132 multiprocessors");
    }
}

/// The last of several rows has the bits that it has alone.
#[test]
fn the_rows_beside_one_do_not_change_it() {
    let cases = [
        // Some rows of a block see a second chunk of keys, some do not.
        (62, 3, None),
        (125, 9, None),
        (240, 16, None),
        (300, 12, Some(140)),
    ];
    for (start, n, window) in cases {
        let together = Case { heads: 6, dim: 32, rotated: 32, start, n, window, ..Case::default() };
        let worked = together.work(KvFormat::F16, &mut Random::new(7));
        let device = &large();
        let memory = PageMemory::new(device, 1 << 30);
        let pages = worked.before.iter().map(|page| DevicePage::of(&memory, bytes(page).into()));
        let pages: Vec<_> = pages.collect();
        let all = together.attend(Way::Few, device, &worked, &pages);
        for row in [0, n / 2, n - 1] {
            let alone = Case { start: start + row, n: 1, ..together.clone() };
            let width = (together.heads + 2) * together.dim;
            let own = Worked {
                layout: worked.layout.clone(),
                qkv: worked.qkv[row * width..(row + 1) * width].to_vec(),
                q_norm: Vec::new(),
                k_norm: Vec::new(),
                frequencies: worked.frequencies.clone(),
                before: Vec::new(),
                behind: Vec::new(),
                out: Vec::new(),
                ..worked
            };
            let result = alone.attend(Way::Few, device, &own, &pages);
            let len = 2 * together.heads * together.dim;
            assert_eq!(result, all[row * len..(row + 1) * len], "row {row} of {n} from {start} on");
        }
    }
}

#[test]
fn pictures_attend() {
    // Queries, keys, heads, width of a head.
    for (i, (m, n, heads, dim)) in
        [(70, 70, 2, 72), (3, 37, 3, 12), (130, 33, 1, 64), (9, 5, 5, 32)].into_iter().enumerate()
    {
        let mut random = Random::new(i as u64 + 40);
        let width = heads * dim;
        let [q, k, v] = [m, n, n].map(|rows| random.numbers(rows * width));
        let mut oracle = vec![0.0; m * width];
        let scale = 2.0 * (dim as f32).powf(-0.5);
        Reference.dense_attention(DenseAttention {
            q: &q,
            k: &k,
            v: &v,
            heads,
            head_dim: dim,
            scale,
            activation: Activation::F32,
            out: &mut oracle,
        });
        // Keys and values in one buffer, a key's row beside its value's.
        let pairs = k.chunks(width).zip(v.chunks(width)).flat_map(|(k, v)| [k, v].concat());
        let pairs: Vec<f32> = pairs.collect();
        for (name, device) in devices(1 << 26) {
            let (q, kv) = (device.numbers(&q).unwrap(), device.numbers(&pairs).unwrap());
            for exact in [false, true] {
                let bytes = dense_scratch_bytes(&device, m, n, heads, dim, exact);
                let mut scratch = device.buffer(bytes).unwrap();
                scratch.fill(0).unwrap();
                let number = if exact { 4 } else { 2 };
                let out = device.buffer(number * m * width).unwrap();
                attend_dense(&Dense {
                    q: Strided { buffer: &q, first: 0, stride: width },
                    k: Strided { buffer: &kv, first: 0, stride: 2 * width },
                    v: Strided { buffer: &kv, first: width, stride: 2 * width },
                    queries: m,
                    keys: n,
                    heads,
                    head_dim: dim,
                    scale,
                    exact,
                    scratch: &scratch,
                    out: &out,
                })
                .unwrap();
                let mut result = vec![0; out.bytes()];
                out.download(0, &mut result).unwrap();
                let ours: Vec<f32> = result.chunks_exact(number).map(activation).collect();
                let most = if exact { 1e-5 } else { 6e-3 };
                for (ours, theirs) in ours.chunks(dim).zip(oracle.chunks(dim)) {
                    let error = distance(ours, theirs);
                    assert!(error < most, "{name}: {m} to {n}, heads of {dim}, exact {exact}: {error}");
                }
            }
        }
    }
    covers(&["attend_pack", "attend_many_32", "attend_many_80", "attend_pack_exact", "attend_exact"]);
}
