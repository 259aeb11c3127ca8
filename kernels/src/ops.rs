//! The operations, each with its contract: shapes, types and what is fused.
//!
//! All matrices of activations are row-major f32, one row a token. *Batch invariance:* the bits of a
//! row's result do not depend on how many rows are computed beside it, nor on the number of threads,
//! so that a cached run and a cold one agree exactly.

use std::ops::Range;

use thiserror::Error;

use crate::cpu::{PackedMatrix, Screened};
use crate::kv::{KvLayout, KvPage};
use crate::quant::Format;

/// A matrix whose bytes do not fit its shape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a {rows} x {cols} matrix of {format:?} does not take {bytes} bytes")]
pub struct ShapeError {
    /// Storage format.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bytes that were given.
    pub bytes: usize,
}

/// How activations meet weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Rounded as the machine multiplies fastest: against quantised weights to 8 bits with one scale per 32
    /// numbers (sums are exact integers within such a block), against bf16 weights to 16 bits where there
    /// are matrix units for bf16; there more than [`FEW_ROWS`](crate::cpu::FEW_ROWS) rows are rounded to bf16,
    /// and quantised weights too. Against other weights they stay f32.
    Rounded,
    /// Kept in f32.
    F32,
}

/// A weight matrix in the layout its backend reads. Made by [`Ops::matrix`].
#[derive(Debug)]
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) store: Store,
}

#[derive(Debug)]
pub(crate) enum Store {
    Packed(PackedMatrix),
    Screened(Box<Screened>),
    Plain(Vec<f32>),
}

impl Matrix {
    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::Packed(packed) => packed.bytes(),
            Store::Screened(table) => table.bytes(),
            Store::Plain(values) => size_of_val(values.as_slice()),
        }
    }

    /// Bytes that are read of it, at least, where [`Ops::best`] is asked and not all outputs.
    pub fn bytes_for_best(&self) -> usize {
        match &self.store {
            Store::Screened(table) => table.bytes_for_best(),
            _ => self.bytes(),
        }
    }

    /// The matrix `[rows, cols]` whose products [`Ops::best`] begins with; `None` where it has no use for them.
    pub fn upper(&self) -> Option<&Self> {
        match &self.store {
            Store::Screened(table) => Some(table.upper()),
            _ => None,
        }
    }
}

/// One product of [`Ops::project`].
pub struct Projection<'a> {
    /// `[out, in]`.
    pub matrix: &'a Matrix,
    /// `[out]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// What an adapter adds.
    pub low_rank: Option<LowRank<'a>>,
    /// `[n, out]`, overwritten.
    pub out: &'a mut [f32],
}

impl<'a> Projection<'a> {
    /// A product without anything added.
    pub fn new(matrix: &'a Matrix, out: &'a mut [f32]) -> Self {
        Self { matrix, bias: None, low_rank: None, out }
    }
}

/// What a low-rank adapter adds to a product over `x` (LoRA, Hu et al. 2021):
/// `(x down^T)[first..first + rank] up^T`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `[ranks, in]`: the first factors of all products of one call, one behind the other; the same for all of them.
    pub down: &'a Matrix,
    /// `[out, rank]`: F32 or BF16, its scale already in it.
    pub up: &'a Matrix,
    /// Where this product's rank begins among the outputs of `down`.
    pub first: usize,
}

/// One product of [`Ops::project_blocks`].
pub struct BlockProjection<'a> {
    /// The blocks on the diagonal, each `[out, in]`, left to right; all of one shape.
    pub blocks: &'a [Matrix],
    /// `[n, blocks * out]`, overwritten.
    pub out: &'a mut [f32],
}

/// Cosines and sines of rotary position embedding, f32, for a stretch of positions.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f32>,
    /// Position of the table's first row.
    first: usize,
    table: Vec<f32>,
}

impl Rope {
    /// Frequencies `theta^(-2i / dim) / factor` (RoFormer, with linear position scaling), for the first
    /// `dim` numbers of each head. `dim` is even.
    pub fn new(dim: usize, theta: f32, factor: f32) -> Self {
        // The reference computes the frequencies in f32; the table must round where it does.
        let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / dim as f32) / factor;
        Self { frequencies: (0..dim / 2).map(frequency).collect(), first: 0, table: Vec::new() }
    }

    /// `[dim / 2]`: what a position is multiplied with to give the angles.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Numbers of a head that are rotated.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Computes positions `start..start + n`. No more is kept: a sequence without end must not make the
    /// table grow.
    pub fn cover(&mut self, start: usize, n: usize) {
        if self.first == start && self.table.len() == n * self.dim() {
            return;
        }
        self.first = start;
        self.table.clear();
        for position in start..start + n {
            let angle = |&frequency: &f32| position as f32 * frequency;
            self.table.extend(self.frequencies.iter().map(|f| angle(f).cos()));
            self.table.extend(self.frequencies.iter().map(|f| angle(f).sin()));
        }
    }

    /// Cosines and sines of a position that [`Rope::cover`] was last asked for.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let dim = self.dim();
        let row = position - self.first;
        self.table[row * dim..(row + 1) * dim].split_at(dim / 2)
    }
}

/// Positions `start..end` that see each other in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
    /// Whether a window holds inside too, towards what came before. If not, all see all, however far.
    pub windowed: bool,
}

/// Arguments of [`Ops::attention`].
pub struct Attention<'a> {
    /// `[n, heads * head_dim]`, rotated.
    pub q: &'a [f32],
    /// Absolute position of the first query; keys and values up to the last query are in the pages.
    pub start: usize,
    /// Query heads; query head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// What `q . k` is multiplied with.
    pub scale: f32,
    /// `cap * tanh(score / cap)` before the mask.
    pub soft_cap: Option<f32>,
    /// Query `p` sees keys `t` with `p - window < t <= p`.
    pub window: Option<usize>,
    /// Where queries see forward too; in order, apart from each other. A span that `q` reaches into ends
    /// with its last query or before.
    pub spans: &'a [Span],
    /// Where this layer's keys and values stand in a page.
    pub layout: &'a KvLayout,
    /// The layer.
    pub layer: usize,
    /// Pages of the sequence without gaps, as far back as a query sees.
    pub pages: &'a [&'a KvPage],
    /// Position of the first page's first token.
    pub pages_from: usize,
    /// `[n, heads * head_dim]`, overwritten.
    pub out: &'a mut [f32],
}

/// Arguments of [`Ops::causal_conv`].
pub struct CausalConv<'a> {
    /// `[n, width]`.
    pub x: &'a [f32],
    /// `[taps - 1, width]`: the inputs before the first row, oldest first; zeros where a sequence begins.
    pub carried: &'a [f32],
    /// `[taps, width]`; the last tap meets the row itself.
    pub weight: &'a [f32],
    /// `[width]`.
    pub bias: &'a [f32],
    /// `[n, width]`, overwritten.
    pub out: &'a mut [f32],
}

/// Arguments of [`Ops::rg_lru`].
pub struct RgLru<'a> {
    /// `[n, width]`.
    pub x: &'a [f32],
    /// `[n, width]`: the input gate before bias and sigmoid.
    pub input_gate: &'a [f32],
    /// `[n, width]`: the recurrence gate before bias and sigmoid.
    pub recurrence_gate: &'a [f32],
    /// `[width]`.
    pub input_bias: &'a [f32],
    /// `[width]`.
    pub recurrence_bias: &'a [f32],
    /// `[width]`: `-8 softplus(parameter)`, the logarithm of the strongest decay.
    pub decay: &'a [f32],
    /// Absolute position of the first row.
    pub start: usize,
    /// `[width]`: the state before the first row, then the state behind the last.
    pub state: &'a mut [f32],
    /// `[n, width]`, overwritten: the state behind every row.
    pub out: &'a mut [f32],
}

/// The keys that a query at `position` sees, always one range: within the window those before it and itself, and where
/// it stands in a span all of that (`spans` as in [`Attention`]).
pub fn visible(window: Option<usize>, spans: &[Span], position: usize) -> Range<usize> {
    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
    let behind = spans.partition_point(|span| span.end <= position);
    match spans.get(behind).filter(|span| span.start <= position) {
        Some(span) if span.windowed => first..span.end,
        Some(span) => first.min(span.start)..span.end,
        None => first..position + 1,
    }
}

impl Attention<'_> {
    /// The keys that the query at `position` sees.
    pub(crate) fn visible(&self, position: usize) -> Range<usize> {
        visible(self.window, self.spans, position)
    }
}

/// Arguments of [`Ops::dense_attention`].
pub struct DenseAttention<'a> {
    /// `[m, heads * head_dim]`.
    pub q: &'a [f32],
    /// `[n, heads * head_dim]`.
    pub k: &'a [f32],
    /// `[n, heads * head_dim]`.
    pub v: &'a [f32],
    /// Heads of all three.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What `q . k` is multiplied with.
    pub scale: f32,
    /// Whether all may be rounded to bf16 where there are matrix units for it.
    pub activation: Activation,
    /// `[m, heads * head_dim]`, overwritten.
    pub out: &'a mut [f32],
}

/// The operations of a backend.
pub trait Ops: Send + Sync {
    /// Brings a weight matrix `[rows, cols]` into the backend's layout.
    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Matrix, ShapeError>;

    /// As [`Ops::matrix`], for a table of which mostly the greatest outputs are wanted, and whose inputs may always be
    /// rounded ([`Activation::Rounded`]). It may have a [`Matrix::upper`].
    fn table(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Matrix, ShapeError> {
        self.matrix(format, rows, cols, bytes)
    }

    /// The `count` greatest outputs of one row `x [in]` with their indices, of all or `among` some (in order, none twice):
    /// the greatest first and of equal ones the first, with the bits that [`Ops::project`] gives them. Exactly those, found
    /// without reading all of the table. What is not a number is left out. `first` are the row's products with
    /// [`Matrix::upper`], which the table has.
    fn best(
        &self,
        x: &[f32],
        table: &Matrix,
        first: &[f32],
        count: usize,
        among: Option<&[u32]>,
    ) -> Vec<(u32, f32)>;

    /// Makes the products of one row `x` with [`Matrix::upper`] those with the whole table, which has one.
    fn finish(&self, x: &[f32], table: &Matrix, products: &mut [f32]);

    /// `out = x w^T + bias` for several `w` over one input `x [n, in]`.
    fn project(&self, x: &[f32], n: usize, activation: Activation, parts: &mut [Projection<'_>]);

    /// Some outputs of one row `x [in]`: `out = (x w^T + bias)[outputs]`, with the bits that [`Ops::project`]
    /// gives them. `part.out` is as long as `outputs`, which begins at a multiple of 16 and ends at one or with
    /// the matrix. Cuts a long product into pieces between which something more urgent can be done.
    fn project_part(&self, x: &[f32], activation: Activation, part: Projection<'_>, outputs: Range<usize>);

    /// As [`Ops::project`] with block-diagonal matrices: block `b` reads and writes the `b`-th part of a
    /// row. Activations stay f32; where they may be rounded and there are matrix units for bf16, more than
    /// [`FEW_ROWS`](crate::cpu::FEW_ROWS) rows are rounded to bf16 against bf16 and quantised weights, as there.
    fn project_blocks(&self, x: &[f32], n: usize, activation: Activation, parts: &mut [BlockProjection<'_>]);

    /// Depthwise causal convolution: `out[t] = bias + sum_k weight[k] * x[t - (taps - 1) + k]`.
    fn causal_conv(&self, args: CausalConv<'_>);

    /// The real-gated linear recurrent unit (Griffin, De et al. 2024), in f32:
    /// `h[t] = a h[t-1] + sqrt(1 - a^2) i x[t]` with `i = sigmoid(input gate)` and
    /// `ln a = decay sigmoid(recurrence gate)`; at position 0 `h = i x`.
    fn rg_lru(&self, args: RgLru<'_>);

    /// `out[i] = scale * table[ids[i]]`, `[n, hidden]`.
    fn embed(&self, table: &Matrix, ids: &[u32], scale: f32, out: &mut [f32]);

    /// `out = x / rms(x) * weight` over rows of `weight.len()`, in f32 (Zhang and Sennrich 2019).
    /// The `1 +` of Gemma's norms is in `weight` already.
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);

    /// As [`Ops::rms_norm`], in place; for query and key heads and for norms behind a sublayer.
    fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32);

    /// Rotates the halves of the first `rope.dim()` numbers of each head of `x [n, heads * head_dim]`, the
    /// first row at position `start`.
    fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, start: usize, rope: &Rope);

    /// Softmax attention over the pages. Where keys and values are rounded already and there are matrix units for
    /// bf16, passes of more than 16 rows (tokens) round to bf16 too: there a row has the same bits in every
    /// such pass, others in shorter ones.
    fn attention(&self, args: Attention<'_>);

    /// Softmax attention of every query to every key.
    fn dense_attention(&self, args: DenseAttention<'_>);

    /// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias` over rows of `weight.len()` (Ba et al. 2016).
    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);

    /// `x = gelu_tanh(x)`.
    fn gelu(&self, x: &mut [f32]);

    /// Means over squares of `kernel x kernel` rows of a picture `x [side, side, width]`, to
    /// `out [side / kernel, side / kernel, width]`. `kernel` divides `side`.
    fn average_pool(&self, x: &[f32], side: usize, kernel: usize, out: &mut [f32]);

    /// `gate = gelu_tanh(gate) * up`.
    fn geglu(&self, gate: &mut [f32], up: &[f32]);

    /// `x += y`.
    fn add(&self, x: &mut [f32], y: &[f32]);

    /// `x = cap * tanh(x / cap)`.
    fn soft_cap(&self, x: &mut [f32], cap: f32);

    /// Index of the greatest number, the first of equals; 0 where there is none. What is not a number is less than any.
    fn greatest(&self, x: &[f32]) -> usize;

    /// `ln(sum(e^x))`, the constant that turns logits into log-probabilities. `x` is not empty.
    fn log_sum_exp(&self, x: &[f32]) -> f32;
}
