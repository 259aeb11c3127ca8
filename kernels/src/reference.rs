//! Each operation in plain scalar Rust: the oracle. Sums run in f64, so that what a fast kernel
//! differs by is its own rounding.

use std::ops::Range;

use crate::kv::PAGE_TOKENS;
use crate::ops::{
    Activation, Attention, BlockProjection, CausalConv, DenseAttention, LowRank, Matrix, Ops, Projection,
    RgLru, Rope, ShapeError, Span, Store,
};
use crate::quant::{Format, dequantize};

/// The oracle backend: every weight as f32, one thread, no SIMD. Slow and simple.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// `x * Phi(x)` in its tanh approximation (Hendrycks and Gimpel 2016).
pub fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    (0.5 * x * (1.0 + inner.tanh())) as f32
}

/// Rotates one head, its first half against its second.
pub(crate) fn rotate_half(head: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    let (low, high) = head.split_at_mut(cos.len());
    for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

/// A row times one output of a matrix.
fn product(x: &[f32], matrix: &Matrix, output: usize) -> f64 {
    dot(x.iter().copied(), plain(matrix)[output * matrix.cols..][..matrix.cols].iter().copied())
}

/// What a row is to the second factor of an adapter.
fn between(x: &[f32], low_rank: &LowRank<'_>) -> Vec<f32> {
    let ranks = low_rank.first..low_rank.first + low_rank.up.cols;
    ranks.map(|output| product(x, low_rank.down, output) as f32).collect()
}

fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}

fn plain(matrix: &Matrix) -> &[f32] {
    match &matrix.store {
        Store::Plain(values) => values,
        Store::Packed(_) | Store::Screened(_) => unreachable!("a matrix is used by the backend that made it"),
    }
}

/// Weighs `values` by the softmax of `scores`.
fn weighted_sum(scores: &[f64], value: impl Fn(usize, usize) -> f32, out: &mut [f32]) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (i, o) in out.iter_mut().enumerate() {
        let sum: f64 = weights.iter().enumerate().map(|(t, w)| w * f64::from(value(t, i))).sum();
        *o = (sum / total) as f32;
    }
}

impl Ops for Reference {
    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Matrix, ShapeError> {
        let values = dequantize(format, rows, cols, bytes)?;
        Ok(Matrix { rows, cols, store: Store::Plain(values) })
    }

    fn best(
        &self,
        x: &[f32],
        table: &Matrix,
        _: &[f32],
        count: usize,
        among: Option<&[u32]>,
    ) -> Vec<(u32, f32)> {
        let among = among.map_or_else(|| (0..table.rows as u32).collect(), <[u32]>::to_vec);
        let outputs = among.into_iter().map(|o| (o, product(x, table, o as usize) as f32));
        let mut outputs: Vec<_> = outputs.filter(|output| !output.1.is_nan()).collect();
        outputs.sort_by(|a, b| b.1.total_cmp(&a.1));
        outputs.truncate(count);
        outputs
    }

    fn finish(&self, x: &[f32], table: &Matrix, products: &mut [f32]) {
        products.iter_mut().enumerate().for_each(|(o, out)| *out = product(x, table, o) as f32);
    }

    fn project(&self, x: &[f32], n: usize, _: Activation, parts: &mut [Projection<'_>]) {
        for part in parts {
            let (rows, cols) = (part.matrix.rows, part.matrix.cols);
            for t in 0..n {
                let row = &x[t * cols..(t + 1) * cols];
                let added = part.low_rank.map(|low_rank| (low_rank.up, between(row, &low_rank)));
                for o in 0..rows {
                    let bias = part.bias.map_or(0.0, |bias| f64::from(bias[o]));
                    let added = added.as_ref().map_or(0.0, |(up, between)| product(between, up, o));
                    part.out[t * rows + o] = (product(row, part.matrix, o) + bias + added) as f32;
                }
            }
        }
    }

    fn project_part(&self, x: &[f32], activation: Activation, part: Projection<'_>, outputs: Range<usize>) {
        let mut all = vec![0.0; part.matrix.rows];
        self.project(x, 1, activation, &mut [Projection { out: &mut all, ..part }]);
        part.out.copy_from_slice(&all[outputs]);
    }

    fn project_blocks(&self, x: &[f32], n: usize, _: Activation, parts: &mut [BlockProjection<'_>]) {
        for part in parts {
            let Some(block) = part.blocks.first() else { continue };
            let (rows, cols, count) = (block.rows, block.cols, part.blocks.len());
            for t in 0..n {
                for (b, block) in part.blocks.iter().enumerate() {
                    let row = &x[(t * count + b) * cols..][..cols];
                    for (o, weights) in plain(block).chunks_exact(cols).enumerate() {
                        part.out[(t * count + b) * rows + o] =
                            dot(row.iter().copied(), weights.iter().copied()) as f32;
                    }
                }
            }
        }
    }

    fn causal_conv(&self, args: CausalConv<'_>) {
        let width = args.bias.len();
        let inputs = [args.carried, args.x].concat();
        for (t, row) in args.out.chunks_exact_mut(width).enumerate() {
            for (c, out) in row.iter_mut().enumerate() {
                let taps = args.weight.chunks_exact(width).map(|tap| tap[c]);
                let seen = inputs[t * width..].chunks_exact(width).map(|row| row[c]);
                *out = (f64::from(args.bias[c]) + dot(taps, seen)) as f32;
            }
        }
    }

    fn rg_lru(&self, args: RgLru<'_>) {
        let width = args.decay.len();
        let sigmoid = |x: f32, bias: f32| 1.0 / (1.0 + (-(f64::from(x) + f64::from(bias))).exp());
        for (t, out) in args.out.chunks_exact_mut(width).enumerate() {
            for (c, out) in out.iter_mut().enumerate() {
                let at = t * width + c;
                let gated = f64::from(args.x[at]) * sigmoid(args.input_gate[at], args.input_bias[c]);
                let log_a =
                    f64::from(args.decay[c]) * sigmoid(args.recurrence_gate[at], args.recurrence_bias[c]);
                let h = if args.start + t == 0 {
                    gated
                } else {
                    let multiplier = (-(2.0 * log_a).exp_m1()).sqrt();
                    log_a.exp() * f64::from(args.state[c]) + multiplier * gated
                };
                *out = h as f32;
                args.state[c] = *out;
            }
        }
    }

    fn embed(&self, table: &Matrix, ids: &[u32], scale: f32, out: &mut [f32]) {
        let w = plain(table);
        for (row, &id) in out.chunks_exact_mut(table.cols).zip(ids) {
            let from = id as usize * table.cols;
            for (o, &v) in row.iter_mut().zip(&w[from..from + table.cols]) {
                *o = v * scale;
            }
        }
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        out.copy_from_slice(x);
        self.rms_norm_in_place(out, weight, eps);
    }

    fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        for row in x.chunks_exact_mut(weight.len()) {
            let mean = dot(row.iter().copied(), row.iter().copied()) / row.len() as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            for (v, &w) in row.iter_mut().zip(weight) {
                *v = (f64::from(*v) * scale * f64::from(w)) as f32;
            }
        }
    }

    fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, start: usize, rope: &Rope) {
        for (t, row) in x.chunks_exact_mut(heads * head_dim).enumerate() {
            for head in row.chunks_exact_mut(head_dim) {
                rotate_half(&mut head[..rope.dim()], rope.at(start + t));
            }
        }
    }

    fn attention(&self, args: Attention<'_>) {
        let Attention {
            q,
            start,
            heads,
            scale,
            soft_cap,
            window,
            spans,
            layout,
            layer,
            pages,
            pages_from,
            out,
        } = args;
        let dim = layout.head_dim(layer);
        let group = heads / layout.kv_heads(layer);
        for (row, (q, out)) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
            let (position, kv_head) = (start + row / heads, row % heads / group);
            let sees = |key: usize| {
                let near = window.is_none_or(|window| position < key + window);
                let both = |span: &&Span| (span.start..span.end).contains(&position) && key < span.end;
                match spans.iter().find(both).filter(|span| key >= span.start) {
                    Some(span) => near || !span.windowed,
                    None => near && key <= position,
                }
            };
            let end = spans.iter().map(|span| span.end).fold(position + 1, usize::max);
            let seen: Vec<usize> = (pages_from..end).filter(|&key| sees(key)).collect();
            let page = |t: usize| pages[(t - pages_from) / PAGE_TOKENS];
            let key = |t: usize, i: usize| page(t).key(layout, layer, kv_head, t % PAGE_TOKENS, i);
            let value = |t: usize, i: usize| page(t).value(layout, layer, kv_head, t % PAGE_TOKENS, i);
            let scores: Vec<f64> = seen
                .iter()
                .map(|&t| {
                    let score = dot(q.iter().copied(), (0..dim).map(|i| key(t, i))) * f64::from(scale);
                    match soft_cap.map(f64::from) {
                        Some(cap) => cap * (score / cap).tanh(),
                        None => score,
                    }
                })
                .collect();
            weighted_sum(&scores, |t, i| value(seen[t], i), out);
        }
    }

    fn dense_attention(&self, args: DenseAttention<'_>) {
        let DenseAttention { q, k, v, heads, head_dim, scale, activation: _, out } = args;
        let width = heads * head_dim;
        let head = |of: &'_ [f32], t: usize, head: usize| -> Vec<f32> {
            of[t * width + head * head_dim..][..head_dim].to_vec()
        };
        for (row, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
            let h = row % heads;
            let scores: Vec<f64> = (0..k.len() / width)
                .map(|t| dot(q.iter().copied(), head(k, t, h).into_iter()) * f64::from(scale))
                .collect();
            weighted_sum(&scores, |t, i| v[t * width + h * head_dim + i], out);
        }
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let len = weight.len();
        for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
            let mean = x.iter().copied().map(f64::from).sum::<f64>() / len as f64;
            let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / len as f64;
            let scale = 1.0 / (variance + f64::from(eps)).sqrt();
            for (i, o) in out.iter_mut().enumerate() {
                *o = ((f64::from(x[i]) - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])) as f32;
            }
        }
    }

    fn gelu(&self, x: &mut [f32]) {
        for v in x {
            *v = gelu_tanh(*v);
        }
    }

    fn average_pool(&self, x: &[f32], side: usize, kernel: usize, out: &mut [f32]) {
        let (width, small) = (x.len() / (side * side), side / kernel);
        for (i, o) in out.iter_mut().enumerate() {
            let (cell, channel) = (i / width, i % width);
            let (top, left) = (cell / small * kernel, cell % small * kernel);
            let square = (0..kernel * kernel).map(|j| (top + j / kernel) * side + left + j % kernel);
            let sum: f64 = square.map(|at| f64::from(x[at * width + channel])).sum();
            *o = (sum / (kernel * kernel) as f64) as f32;
        }
    }

    fn geglu(&self, gate: &mut [f32], up: &[f32]) {
        for (g, &u) in gate.iter_mut().zip(up) {
            *g = gelu_tanh(*g) * u;
        }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        for (x, &y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }

    fn soft_cap(&self, x: &mut [f32], cap: f32) {
        for v in x {
            *v = (f64::from(cap) * (f64::from(*v) / f64::from(cap)).tanh()) as f32;
        }
    }

    fn greatest(&self, x: &[f32]) -> usize {
        let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        x.iter().position(|&v| v == top).unwrap_or(0)
    }

    fn log_sum_exp(&self, x: &[f32]) -> f32 {
        let max = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = x.iter().map(|&v| (f64::from(v) - max).exp()).sum();
        (max + sum.ln()) as f32
    }
}
