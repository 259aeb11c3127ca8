//! The bits that every fused level gives, on x86 and on ARM: what one machine computed is what another computes.

use super::*;
use crate::kv::{KvFormat, KvLayout, KvPage, PAGE_TOKENS};

/// What the sums of [`everything`] are wherever products are fused. To change them is to change what every model answers,
/// by rounding.
const EXPECTED: [(&str, u64); 9] = [
    ("products", 0x007d_252d_5e85_d765),
    ("norms", 0x30c1_40c8_b631_08d9),
    ("activations", 0xf5ce_6d0f_e321_9de9),
    ("soft cap", 0x1b8e_5ec8_e583_886e),
    ("sums of exponentials", 0xc11b_c5bb_171d_6d77),
    ("attention", 0xc63b_f520_776e_6af4),
    ("dense attention", 0x9822_262d_f947_e437),
    ("scan", 0x69f4_9f85_e988_6968),
    ("convolution", 0x67e0_939f_3f0a_b999),
];

/// FNV-1a of the bits.
fn digest(numbers: &[f32]) -> u64 {
    numbers.iter().fold(0xcbf2_9ce4_8422_2325, |hash, number| {
        (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Rows in tiles of every size: 8, 4, 2 and 1.
const ROWS: usize = 15;

fn products(cpu: &Cpu) -> Vec<f32> {
    let mut random = Random::new(40);
    let (rows, cols) = (39, 512);
    let x = random.numbers(ROWS * cols);
    let mut out = Vec::new();
    for format in FORMATS {
        let m = cpu.matrix(format, rows, cols, &random.matrix(format, rows, cols)).unwrap();
        out.extend(project(cpu, &m, &x, ROWS, Activation::F32));
        // Matrix units add up bf16 in an order of their own.
        if format.block_len() > 1 {
            out.extend(project(cpu, &m, &x, ROWS, Activation::Rounded));
        }
    }
    out
}

/// One pass behind others, with a window, a soft cap and a width that is no whole number of vectors.
fn attention(cpu: &Cpu) -> Vec<f32> {
    let mut random = Random::new(41);
    let (heads, kv_heads, dim, tokens, window) = (4, 2, 40, 300usize, 250);
    let mut all = Vec::new();
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        let layout = KvLayout::new(format, [(kv_heads, dim)]);
        let mut pages = vec![KvPage::new(&layout); tokens.div_ceil(PAGE_TOKENS)];
        for t in 0..tokens {
            let (k, v) = (random.numbers(kv_heads * dim), random.numbers(kv_heads * dim));
            pages[t / PAGE_TOKENS].store(&layout, 0, t % PAGE_TOKENS, &k, &v);
        }
        let q = random.numbers(ROWS * heads * dim);
        let mut out = vec![f32::NAN; q.len()];
        cpu.attention(Attention {
            q: &q,
            start: tokens - ROWS,
            heads,
            scale: 0.3,
            soft_cap: Some(2.0),
            window: Some(window),
            spans: &[],
            layout: &layout,
            layer: 0,
            pages: &pages.iter().collect::<Vec<_>>(),
            pages_from: 0,
            out: &mut out,
        });
        all.extend(out);
    }
    all
}

fn dense_attention(cpu: &Cpu) -> Vec<f32> {
    let mut random = Random::new(42);
    let (heads, head_dim, n) = (2, 24, 37);
    let [q, k, v] = [0; 3].map(|_| random.numbers(n * heads * head_dim));
    let mut out = vec![f32::NAN; q.len()];
    let (activation, scale) = (Activation::F32, 0.2);
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
    out
}

fn convolution(cpu: &Cpu) -> Vec<f32> {
    let mut random = Random::new(43);
    let (width, taps) = (60, 4);
    let (x, carried) = (random.numbers(ROWS * width), random.numbers((taps - 1) * width));
    let (weight, bias) = (random.numbers(taps * width), random.numbers(width));
    let mut out = vec![f32::NAN; x.len()];
    cpu.causal_conv(CausalConv { x: &x, carried: &carried, weight: &weight, bias: &bias, out: &mut out });
    out
}

/// Digests of one result of every kind.
fn everything(cpu: &Cpu) -> Vec<(&'static str, u64)> {
    let mut random = Random::new(44);
    let x = random.numbers(ROWS * 520);
    let (weight, bias) = (random.numbers(520), random.numbers(520));
    let mut norms = vec![0.0; 2 * x.len()];
    let (rms, layer) = norms.split_at_mut(x.len());
    cpu.rms_norm(&x, &weight, 1e-6, rms);
    cpu.layer_norm(&x, &weight, &bias, 1e-6, layer);
    let (mut activations, mut capped) = (x.clone(), x.clone());
    cpu.gelu(&mut activations);
    cpu.geglu(&mut activations, &x);
    cpu.soft_cap(&mut capped, 0.7);
    let recurrence = Recurrence::new(&mut random, 60, ROWS);
    let scan = recurrence.run(cpu, 0..ROWS, 3, &mut recurrence.state.clone());
    vec![
        ("products", digest(&products(cpu))),
        ("norms", digest(&norms)),
        ("activations", digest(&activations)),
        ("soft cap", digest(&capped)),
        ("sums of exponentials", digest(&[cpu.log_sum_exp(&x)])),
        ("attention", digest(&attention(cpu))),
        ("dense attention", digest(&dense_attention(cpu))),
        ("scan", digest(&scan)),
        ("convolution", digest(&convolution(cpu))),
    ]
}

#[test]
fn fused_levels_give_the_same_bits_on_every_processor() {
    for cpu in backends() {
        if cpu.level() > Level::Portable {
            assert_eq!(everything(&cpu), EXPECTED, "{:?}", cpu.level());
        }
    }
}
