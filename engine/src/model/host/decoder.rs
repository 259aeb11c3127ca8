//! The forward pass of every text model of the family.
//!
//! Follows the reference implementation's `modeling_gemma.py`, `modeling_gemma2.py`, `modeling_gemma3.py`
//! and `modeling_recurrent_gemma.py`; which of their steps a layer has is in its [`crate::config::LayerSpec`].

use std::borrow::Cow;
use std::sync::Arc;

use gemma_kernels::{Attention, FEW_ROWS, KvPage, Matrix, Projection, Span};

use super::super::pass::{Input, Logits, Rows};
use super::recurrent::Buffers;
use super::{AttentionWeights, HostNetwork, MixerWeights};
use crate::cache::{Marks, Sequence};
use crate::config::{AttentionSpec, Mixer};
use crate::generate::{Begun, Scores};

/// A forward pass between two of its steps: a layer, or a part of the product with the vocabulary.
#[derive(Debug, Default)]
pub struct HostPass {
    /// `[len, hidden]`: the residual stream.
    residual: Vec<f32>,
    /// Tokens.
    pub(super) len: usize,
    pub(super) next_layer: usize,
    /// Rows whose logits are wanted.
    rows: usize,
    /// Whether the product with the vocabulary is only begun.
    begins: bool,
    /// `[rows, hidden]`: what the product with the vocabulary reads, once the layers are through.
    normed: Vec<f32>,
    /// `[rows, vocab]`, complete up to `vocab_done` of each row; of a product that is begun those with [`Matrix::upper`].
    logits: Arc<[f32]>,
    vocab_done: usize,
    pub(super) adapted: bool,
}

/// Parts that the product with the vocabulary is made in: of a small model it is most of a token's time, and a
/// keystroke must not wait for that.
const VOCABULARY_PARTS: usize = 12;
/// Outputs that a part is a multiple of: a kernel of one row may take four panels of 16 at a time, and is slower on what is left over.
const TOGETHER: usize = 64;

/// Rows that go through an MLP together: a prompt with a large picture is one pass, and the inner rows are
/// many times as wide as the stream's.
const MLP_ROWS: usize = 512;

/// Buffers of a forward pass, kept between passes.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[n, hidden]`: the residual stream of the running pass.
    residual: Vec<f32>,
    /// `[n, hidden]`: what a sublayer reads, then what it gives.
    pub(super) hidden: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What the last pass with one row had for logits: fresh memory of that size would be zeroed for every token.
    logits: Option<Arc<[f32]>>,
    pub(super) recurrent: Buffers,
}

/// Makes a buffer `len` long; what stands in it does not matter.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

impl HostNetwork {
    /// Begins a pass that is computed step by step, other passes over other sequences in between. The sequence
    /// is as it was until its caller counts in what the pass has read ([`Sequence::advance`]).
    pub fn begin(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
        (rows, logits): (Rows, Logits),
        marks: Marks<'_>,
    ) -> HostPass {
        let len = input.ids.len();
        sequence.reserve(len, marks);
        let mut residual = std::mem::take(&mut self.scratch.residual);
        self.embed(input, sized(&mut residual, len * self.config.hidden));
        let rows = match rows {
            Rows::Last(count) => count.min(len),
            Rows::All => len,
        };
        // Tokens are found by bounds of logits as they are, in rows whose bits are always the same.
        let can_find = rows <= FEW_ROWS && self.config.final_soft_cap.is_none();
        let begins = logits == Logits::Few && can_find && self.vocabulary().upper().is_some();
        let (normed, logits) = (Vec::new(), Arc::default());
        let adapted = input.adapted;
        HostPass { residual, len, next_layer: 0, rows, begins, normed, logits, vocab_done: 0, adapted }
    }

    /// Computes the next step of a pass over the same sequence; `false` once nothing is left to do.
    pub fn step(&mut self, pass: &mut HostPass, sequence: &mut Sequence, spans: &[Span]) -> bool {
        if pass.next_layer < self.layers.len() {
            self.run_layer(pass, sequence, spans);
            return pass.next_layer < self.layers.len() || pass.rows > 0;
        }
        if pass.vocab_done < self.config.vocab && pass.rows > 0 {
            self.score(pass);
        }
        pass.vocab_done < self.config.vocab && pass.rows > 0
    }

    fn run_layer(&mut self, pass: &mut HostPass, sequence: &mut Sequence, spans: &[Span]) {
        for rotation in &mut self.ropes {
            rotation.rope.cover(self.config.first_position + sequence.tokens().len(), pass.len);
        }
        let mut s = std::mem::take(&mut self.scratch);
        std::mem::swap(&mut s.residual, &mut pass.residual);
        self.mixer(&mut s, sequence, spans, pass);
        self.mlp(&mut s, pass.next_layer, pass.adapted);
        std::mem::swap(&mut s.residual, &mut pass.residual);
        self.scratch = s;
        pass.next_layer += 1;
    }

    /// Ends a pass that has run to its end: the logits of its rows.
    pub fn end(&mut self, pass: HostPass) -> Vec<Scores> {
        self.scratch.residual = pass.residual;
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        let scores = |row: usize, logits| match pass.begins {
            true => Scores::Begun(Begun {
                x: pass.normed[row * hidden..(row + 1) * hidden].into(),
                first: logits,
            }),
            false => Scores::All(logits),
        };
        if pass.rows == 1 {
            self.scratch.logits = Some(pass.logits.clone());
            return vec![scores(0, pass.logits.clone())];
        }
        let rows = pass.logits.chunks_exact(vocab).enumerate();
        rows.map(|(row, logits)| scores(row, logits.into())).collect()
    }

    /// The best tokens of a row whose product with the vocabulary was begun; see [`super::super::Network::best`].
    pub fn best(&self, begun: &Begun, count: usize, among: Option<&[u32]>) -> Vec<(u32, f32)> {
        self.ops.best(&begun.x, self.vocabulary(), &begun.first, count, among)
    }

    /// All logits of a row whose product with the vocabulary was begun.
    pub fn whole(&self, begun: &Begun) -> Arc<[f32]> {
        let mut logits = begun.first.clone();
        self.ops.finish(&begun.x, self.vocabulary(), Arc::make_mut(&mut logits));
        logits
    }

    /// The table that logits are products with.
    pub(super) fn vocabulary(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// The embeddings of the tokens, and in place of those of pictures their features, unscaled.
    fn embed(&self, input: Input<'_>, out: &mut [f32]) {
        let hidden = self.config.hidden;
        let mut ids = Cow::Borrowed(input.ids);
        for (at, features) in input.pictures {
            // Image tokens may lie outside the table.
            ids.to_mut()[*at..at + features.len() / hidden].fill(0);
        }
        self.ops.embed(&self.embedding, &ids, self.config.embed_scale, out);
        for (out, id) in out.chunks_exact_mut(hidden).zip(input.ids).filter(|_| input.adapted) {
            if let Some(row) = self.rows.get(id) {
                let scale = self.config.embed_scale;
                out.iter_mut().zip(row).for_each(|(out, number)| *out = number * scale);
            }
        }
        for (at, features) in input.pictures {
            out[at * hidden..][..features.len()].copy_from_slice(features);
        }
    }

    fn mixer(&self, s: &mut Scratch, sequence: &mut Sequence, spans: &[Span], pass: &HostPass) {
        let (i, n) = (pass.next_layer, pass.len);
        let layer = &self.layers[i];
        let hidden = sized(&mut s.hidden, n * self.config.hidden);
        self.ops.rms_norm(&s.residual, &layer.before_mixer, self.config.norm_eps, hidden);
        match (&layer.mixer, &self.config.layers[i].mixer) {
            (MixerWeights::Attention(weights), Mixer::Attention(spec)) => {
                self.attention(s, sequence, weights, spec, (spans, pass));
            }
            (MixerWeights::RgLru(weights), Mixer::RgLru(spec)) => {
                self.recurrence(s, sequence, weights, spec, pass);
            }
            _ => unreachable!("weights are loaded by their layer's specification"),
        }
        if let Some(weight) = &layer.after_mixer {
            self.ops.rms_norm_in_place(&mut s.hidden, weight, self.config.norm_eps);
        }
        self.ops.add(&mut s.residual, &s.hidden);
    }

    fn attention(
        &self,
        s: &mut Scratch,
        sequence: &mut Sequence,
        weights: &AttentionWeights,
        spec: &AttentionSpec,
        (spans, pass): (&[Span], &HostPass),
    ) {
        let (i, n, adapted) = (pass.next_layer, pass.len, pass.adapted);
        let start = sequence.tokens().len();
        let position = self.config.first_position + start;
        let (ops, eps) = (&*self.ops, self.config.norm_eps);
        let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let (q, k) = (sized(&mut s.q, n * q_width), sized(&mut s.k, n * kv_width));
        let v = sized(&mut s.v, n * kv_width);
        let mut parts = [
            weights.q.adapted(&mut *q, adapted),
            weights.k.adapted(&mut *k, adapted),
            weights.v.adapted(&mut *v, adapted),
        ];
        ops.project(&s.hidden, n, self.activation, &mut parts);
        if let Some(weight) = &weights.q_norm {
            ops.rms_norm_in_place(q, weight, eps);
        }
        if let Some(weight) = &weights.k_norm {
            ops.rms_norm_in_place(k, weight, eps);
        }
        let rope = &self.ropes[weights.rope].rope;
        ops.rope(q, spec.heads, spec.head_dim, position, rope);
        ops.rope(k, spec.kv_heads, spec.head_dim, position, rope);
        sequence.store(i, k, v);
        let pages: Vec<&KvPage> = sequence.pages().iter().map(|page| &**page).collect();
        let attended = sized(&mut s.attended, n * q_width);
        ops.attention(Attention {
            q,
            start,
            heads: spec.heads,
            scale: spec.scale,
            soft_cap: spec.soft_cap,
            window: spec.window,
            spans,
            layout: sequence.layout().kv(),
            layer: i,
            pages: &pages,
            pages_from: sequence.pages_from(),
            out: &mut *attended,
        });
        ops.project(attended, n, self.activation, &mut [weights.o.adapted(&mut s.hidden, adapted)]);
    }

    fn mlp(&self, s: &mut Scratch, i: usize, adapted: bool) {
        let (ops, layer, eps) = (&*self.ops, &self.layers[i], self.config.norm_eps);
        let ffn = self.config.layers[i].mlp.ffn;
        ops.rms_norm(&s.residual, &layer.before_mlp, eps, &mut s.hidden);
        for rows in s.hidden.chunks_mut(MLP_ROWS * self.config.hidden) {
            let n = rows.len() / self.config.hidden;
            let (gate, up) = (sized(&mut s.gate, n * ffn), sized(&mut s.up, n * ffn));
            ops.project(
                rows,
                n,
                self.activation,
                &mut [layer.gate.adapted(gate, adapted), layer.up.adapted(up, adapted)],
            );
            ops.geglu(gate, up);
            ops.project(gate, n, self.activation, &mut [layer.down.adapted(rows, adapted)]);
        }
        if let Some(weight) = &layer.after_mlp {
            ops.rms_norm_in_place(&mut s.hidden, weight, eps);
        }
        ops.add(&mut s.residual, &s.hidden);
    }

    /// The next part of the product with the vocabulary; of several rows all of it.
    fn score(&mut self, pass: &mut HostPass) {
        let (hidden, vocab) = (self.config.hidden, self.config.vocab);
        if pass.vocab_done == 0 {
            let last = &pass.residual[(pass.len - pass.rows) * hidden..];
            self.ops.rms_norm(
                last,
                &self.final_norm,
                self.config.norm_eps,
                sized(&mut pass.normed, pass.rows * hidden),
            );
            let spare = if pass.rows == 1 { self.scratch.logits.take() } else { None };
            let unread = spare.filter(|spare| spare.len() == vocab && Arc::strong_count(spare) == 1);
            pass.logits = unread.unwrap_or_else(|| std::iter::repeat_n(0.0, pass.rows * vocab).collect());
        }
        // Nobody else has them yet.
        let logits = Arc::make_mut(&mut pass.logits);
        let vocabulary = self.output.as_ref().unwrap_or(&self.embedding);
        let matrix = vocabulary.upper().filter(|_| pass.begins).unwrap_or(vocabulary);
        if pass.rows == 1 {
            let part = (vocab / VOCABULARY_PARTS).next_multiple_of(TOGETHER);
            let outputs = pass.vocab_done..(pass.vocab_done + part).min(vocab);
            let out = &mut logits[outputs.clone()];
            let product = Projection::new(matrix, out);
            self.ops.project_part(&pass.normed, self.activation, product, outputs.clone());
            pass.vocab_done = outputs.end;
        } else {
            let mut product = [Projection::new(matrix, logits)];
            self.ops.project(&pass.normed, pass.rows, self.activation, &mut product);
            pass.vocab_done = vocab;
        }
        if let Some(cap) = self.config.final_soft_cap.filter(|_| pass.vocab_done == vocab) {
            self.ops.soft_cap(logits, cap);
        }
    }
}
