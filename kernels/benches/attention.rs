//! Milliseconds and TFLOP/s of attention at the shapes of published models, at each level that this machine has:
//! `cargo bench -p gemma-kernels --bench attention [-- THREADS [FILTER]]`.
//!
//! Operations are those of the keys that a row sees: two products of a multiplication and an addition each. Times are
//! the least of many repetitions.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::time::{Duration, Instant};

use gemma_kernels::{
    Activation, Attention, Cpu, DenseAttention, KvFormat, KvLayout, KvPage, Level, Ops, PAGE_TOKENS, visible,
};

struct Shape {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
    start: usize,
    tokens: usize,
}

const DIM: usize = 256;

const SHAPES: [Shape; 10] = [
    Shape {
        name: "270M, 512 tokens at 0",
        heads: 4,
        kv_heads: 1,
        window: Some(512),
        soft_cap: None,
        start: 0,
        tokens: 512,
    },
    Shape {
        name: "270M, 512 tokens at 2048",
        heads: 4,
        kv_heads: 1,
        window: Some(512),
        soft_cap: None,
        start: 2048,
        tokens: 512,
    },
    Shape {
        name: "270M, all keys, 512 tokens at 2048",
        heads: 4,
        kv_heads: 1,
        window: None,
        soft_cap: None,
        start: 2048,
        tokens: 512,
    },
    Shape {
        name: "2B, soft cap, 512 tokens at 512",
        heads: 8,
        kv_heads: 1,
        window: None,
        soft_cap: Some(50.0),
        start: 512,
        tokens: 512,
    },
    Shape {
        name: "7B, 512 tokens at 0",
        heads: 16,
        kv_heads: 16,
        window: None,
        soft_cap: None,
        start: 0,
        tokens: 512,
    },
    Shape {
        name: "7B, 512 tokens at 2048",
        heads: 16,
        kv_heads: 16,
        window: None,
        soft_cap: None,
        start: 2048,
        tokens: 512,
    },
    Shape {
        name: "270M, 4 tokens at 2048",
        heads: 4,
        kv_heads: 1,
        window: None,
        soft_cap: None,
        start: 2048,
        tokens: 4,
    },
    Shape {
        name: "270M, 1 token at 700",
        heads: 4,
        kv_heads: 1,
        window: Some(512),
        soft_cap: None,
        start: 700,
        tokens: 1,
    },
    Shape {
        name: "270M, 1 token at 8000",
        heads: 4,
        kv_heads: 1,
        window: None,
        soft_cap: None,
        start: 8000,
        tokens: 1,
    },
    Shape {
        name: "7B, 1 token at 2048",
        heads: 16,
        kv_heads: 16,
        window: None,
        soft_cap: None,
        start: 2048,
        tokens: 1,
    },
];

fn main() {
    let numbers: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let threads = numbers.first().map_or_else(Cpu::physical_cores, |threads| threads.parse().unwrap());
    let filter = numbers.get(1).map_or("", String::as_str);
    println!("{threads} threads");
    let levels = Level::available().into_iter().filter(|&level| level > Level::Portable);
    let cpus: Vec<Cpu> = levels.map(|level| Cpu::new(threads, level)).collect();
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(filter)) {
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
            for cpu in &cpus {
                paged(cpu, shape, format);
            }
        }
    }
    for patches in [256, 1024, 4096] {
        let name = format!("SigLIP, {patches} patches");
        for cpu in cpus.iter().filter(|_| name.contains(filter)) {
            for activation in [Activation::F32, Activation::Rounded] {
                dense(cpu, &name, patches, activation);
            }
        }
    }
}

/// Numbers that look random.
fn numbers(len: usize) -> Vec<f32> {
    let hash = |i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
    (0..len as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn paged(cpu: &Cpu, shape: &Shape, format: KvFormat) {
    let &Shape { name, heads, kv_heads, window, soft_cap, start, tokens } = shape;
    let layout = KvLayout::new(format, [(kv_heads, DIM)]);
    let mut pages = vec![KvPage::new(&layout); (start + tokens).div_ceil(PAGE_TOKENS)];
    let (keys, values) = (numbers(kv_heads * DIM + 977), numbers(kv_heads * DIM + 991));
    for t in 0..start + tokens {
        let page = &mut pages[t / PAGE_TOKENS];
        page.store(
            &layout,
            0,
            t % PAGE_TOKENS,
            &keys[t % 977..][..kv_heads * DIM],
            &values[t % 991..][..kv_heads * DIM],
        );
    }
    let pages: Vec<&KvPage> = pages.iter().collect();
    let q = numbers(tokens * heads * DIM);
    let mut out = vec![0.0; q.len()];
    let seen: usize = (start..start + tokens).map(|t| visible(window, &[], t).len()).sum();
    report(name, &format!("{format:?}"), cpu, (4 * seen * heads * DIM) as f64, || {
        cpu.attention(Attention {
            q: &q,
            start,
            heads,
            scale: 1.0 / 16.0,
            soft_cap,
            window,
            spans: &[],
            layout: &layout,
            layer: 0,
            pages: &pages,
            pages_from: 0,
            out: &mut out,
        });
    });
}

fn dense(cpu: &Cpu, name: &str, patches: usize, activation: Activation) {
    let (heads, head_dim) = (16, 72);
    let [q, k, v] = [(); 3].map(|()| numbers(patches * heads * head_dim));
    let mut out = vec![0.0; q.len()];
    let operations = (4 * patches * patches * heads * head_dim) as f64;
    report(name, &format!("{activation:?}"), cpu, operations, || {
        let scale = (head_dim as f32).powf(-0.5);
        cpu.dense_attention(DenseAttention {
            q: &q,
            k: &k,
            v: &v,
            heads,
            head_dim,
            scale,
            activation,
            out: &mut out,
        });
    });
}

fn report(name: &str, numbers: &str, cpu: &Cpu, operations: f64, mut work: impl FnMut()) {
    let begun = Instant::now();
    let mut least = f64::INFINITY;
    let mut times = 0;
    while times < 3 || (begun.elapsed() < Duration::from_millis(250) && times < 200) {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
        times += 1;
    }
    let level = format!("{:?}", cpu.level());
    println!(
        "{name:36} {numbers:8} {level:8} {:9.3} ms {:7.3} TFLOP/s",
        least * 1e3,
        operations / least / 1e12
    );
}
