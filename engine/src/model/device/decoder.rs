//! The forward pass on a device: the host's steps, fused.
//!
//! Of few tokens each product brings its norm along, and attention what turns and stores its keys; of many, norms are
//! launches of their own and products run on tensor cores. A pass of very few tokens is launched as one recording.

use std::sync::Arc;

use gemma_kernels::cuda::attention::{Attend, Turn, attend_exact, attend_few, attend_many};
use gemma_kernels::cuda::best::{self, best};
use gemma_kernels::cuda::embed::embed;
use gemma_kernels::cuda::few::{self, MOST_NORMED_ROWS, Output, Stream, Update, few};
use gemma_kernels::cuda::many::{Beside, Many, ManyOutput, many};
use gemma_kernels::cuda::recurrent::{Recurrent, RecurrentWeights, recurrent_few, recurrent_many};
use gemma_kernels::cuda::rows::add_norm;
use gemma_kernels::cuda::{Buffer, CudaError, PageBuffer, Standing, Strided};
use gemma_kernels::{KvPage, PAGE_TOKENS, visible};

use super::super::pass::{Input, Rows};
use super::work::{LOGIT_ROWS, Shape, Work};
use super::{AttentionWeights, DeviceNetwork, MixerWeights, Product, RgLruWeights};
use crate::cache::{Marks, Sequence};
use crate::config::{AttentionSpec, Mixer};
use crate::error::Result;
use crate::generate::{Best, Scores};

/// Tokens of a pass that goes the way of few.
pub(super) const FEW: usize = few::MOST_ROWS;
/// Tokens of a pass that is recorded: a generated one and what is tried behind it.
const RECORDED: usize = 8;
/// Layers that are asked for ahead of what is computed: what becomes more urgent meanwhile waits for them.
const AHEAD: usize = 4;

/// A forward pass between two of its steps.
pub struct DevicePass {
    work: Work,
    len: usize,
    /// Rows whose logits are wanted.
    rows: usize,
    next_layer: usize,
    /// Whether what the last step gives was asked for: logits, or a whole recorded pass.
    done: bool,
    recorded: bool,
    /// Whether the network's adapter runs.
    adapted: bool,
}

impl DeviceNetwork {
    /// Begins a pass; see [`super::super::Network::begin`].
    pub fn begin(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
        rows: Rows,
        marks: Marks<'_>,
    ) -> Result<DevicePass> {
        let len = input.ids.len();
        sequence.reserve(len, marks);
        let pages = pages(sequence, sequence.tokens().len())?;
        let mut work = self.work(len, pages.len())?;
        let rows = match rows {
            Rows::Last(count) => count.min(len),
            Rows::All => len,
        };
        let replaced = self.replaced(input);
        let embedded = input.pictures.is_empty() && replaced.is_empty();
        let recorded = !self.exact && embedded && len <= RECORDED && rows > 0;
        if let Err(error) = self.prepare(&mut work, sequence, input, &pages, recorded) {
            self.idle.push(work);
            return Err(error);
        }
        let adapted = input.adapted && self.adapter.is_some();
        Ok(DevicePass { work, len, rows, next_layer: 0, done: false, recorded, adapted })
    }

    /// Brings to the device what the pass reads: where it stands, its tokens, the state.
    fn prepare(
        &self,
        work: &mut Work,
        sequence: &mut Sequence,
        input: Input<'_>,
        pages: &[Arc<PageBuffer>],
        recorded: bool,
    ) -> Result<()> {
        let (start, len, hidden) = (sequence.tokens().len(), input.ids.len(), self.config.hidden);
        let sight = |window: &Option<usize>| {
            let range = |position| visible(*window, input.spans, position);
            (start..start + len).map(|p| (range(p).start, range(p).end)).collect::<Vec<_>>()
        };
        work.place.set(Standing {
            start,
            position: self.config.first_position + start,
            pages_from: sequence.pages_from(),
            pages,
            ranges: &self.windows.iter().map(sight).collect::<Vec<_>>(),
        })?;
        let mut ids = input.ids.to_vec();
        for (at, features) in input.pictures {
            // Image tokens may lie outside the table.
            ids[*at..at + features.len() / hidden].fill(0);
        }
        work.ids.upload(0, &bytes(ids.iter().map(|id| id.to_le_bytes())))?;
        if !recorded {
            self.embed(work, len)?;
        }
        for (at, row) in self.replaced(input) {
            work.streams[0].upload(4 * at * hidden, row)?;
        }
        for (at, features) in input.pictures {
            let features = bytes(features.iter().map(|number| number.to_le_bytes()));
            work.streams[0].upload(4 * at * hidden, &features)?;
        }
        let Some(recurrent) = &mut work.recurrent else { return Ok(()) };
        let mut from = self.device.buffer(recurrent.from.bytes())?;
        from.upload(0, &bytes(sequence.states().iter().map(|number| number.to_le_bytes())))?;
        let kept: Vec<_> = sequence.states_to_leave().map(|(row, _)| row).collect();
        while recurrent.left.len() < kept.len() {
            recurrent.left.push(Arc::new(self.device.buffer(recurrent.from.bytes())?));
        }
        let kept: Vec<_> = kept.into_iter().zip(recurrent.left.iter().cloned()).collect();
        recurrent.from = Arc::new(from);
        recurrent.states.set(&recurrent.from, &kept)?;
        Ok(())
    }

    /// Places in the input whose tokens the adapter has rows of its own for, and these.
    fn replaced(&self, input: Input<'_>) -> Vec<(usize, &[u8])> {
        let Some(adapter) = self.adapter.as_ref().filter(|_| input.adapted) else { return Vec::new() };
        let row = |(at, id)| Some((at, adapter.rows.get(id)?.as_slice()));
        input.ids.iter().enumerate().filter_map(row).collect()
    }

    /// Asks for the next step of a pass; `false` once nothing is left to do.
    pub fn step(&mut self, pass: &mut DevicePass) -> Result<bool> {
        if pass.done {
            return Ok(false);
        }
        if pass.recorded {
            self.replay(pass)?;
        } else if pass.next_layer < self.layers.len() {
            self.layer(&pass.work, pass.len, pass.next_layer, pass.adapted)?;
            pass.next_layer += 1;
            if pass.next_layer.is_multiple_of(AHEAD) {
                self.device.finish()?;
            }
            return Ok(true);
        } else if (1..=LOGIT_ROWS).contains(&pass.rows) {
            self.logits(&pass.work, pass.len - pass.rows, pass.rows)?;
        }
        pass.done = true;
        Ok(false)
    }

    /// Ends a pass over the same sequence that has run to its end; see [`super::super::Network::end`].
    pub fn end(&mut self, pass: DevicePass, sequence: &mut Sequence) -> Result<Vec<Scores>> {
        let DevicePass { work, len, rows, .. } = pass;
        let scores = self.scores(&work, len, rows).and_then(|scores| {
            if let Some(recurrent) = &work.recurrent {
                for ((_, state), left) in sequence.states_to_leave().zip(&recurrent.left) {
                    state.copy_from_slice(&left.read_numbers(0, state.len())?);
                }
            }
            Ok(scores)
        });
        self.idle.push(work);
        scores
    }

    fn scores(&self, work: &Work, len: usize, rows: usize) -> Result<Vec<Scores>> {
        if rows > LOGIT_ROWS {
            let vocab = self.config.vocab;
            let mut all = Vec::with_capacity(rows);
            for first in (len - rows..len).step_by(LOGIT_ROWS) {
                let count = LOGIT_ROWS.min(len - first);
                self.logits(work, first, count)?;
                let logits = work.logits.read_numbers(0, count * vocab)?;
                all.extend(logits.chunks_exact(vocab).map(|row| Scores::All(row.into())));
            }
            return Ok(all);
        }
        if rows == 0 {
            // Whoever asks for the next pass should know what this one took.
            self.device.finish()?;
            return Ok(Vec::new());
        }
        let best = best::read(&work.best, rows)?;
        let scores = best.into_iter().map(|best| Best { tokens: best.tokens, log_sum_exp: best.log_sum_exp });
        Ok(scores.map(|best| Scores::Best(Arc::new(best))).collect())
    }

    /// All logits of a row of the pass that ended last.
    pub fn whole(&self, row: usize) -> Result<Arc<[f32]>> {
        let Some(work) = self.idle.last() else { unreachable!("a pass has ended") };
        Ok(work.logits.read_numbers(row * self.config.vocab, self.config.vocab)?.into())
    }

    /// The whole pass as one: recorded the first time.
    fn replay(&self, pass: &mut DevicePass) -> Result<()> {
        let DevicePass { work, len, rows, adapted, .. } = pass;
        let shape = Shape { tokens: *len, rows: *rows, adapted: *adapted };
        if let Some((_, recording)) = work.recordings.iter().find(|(of, _)| *of == shape) {
            return Ok(recording.replay()?);
        }
        let Shape { tokens, rows, adapted } = shape;
        let recording = self.device.record(|| {
            self.embed(work, tokens)?;
            (0..self.layers.len()).try_for_each(|layer| self.layer(work, tokens, layer, adapted))?;
            self.logits(work, tokens - rows, rows)
        })?;
        recording.replay()?;
        work.recordings.push((shape, recording));
        Ok(())
    }

    fn embed(&self, work: &Work, n: usize) -> Result<(), CudaError> {
        embed(&self.embedding, &work.ids, n, self.config.embed_scale, &work.streams[0])
    }

    /// Layer `i` over `n` tokens.
    fn layer(&self, work: &Work, n: usize, i: usize, adapted: bool) -> Result<(), CudaError> {
        let (layer, adapter) = (&self.layers[i], work.adapter(adapted));
        let before = i.checked_sub(1).map(|before| &self.layers[before]);
        let update = before.map(|before| Update { y: &work.y, norm: before.after_mlp.as_ref() });
        let stream = self.stream(work, 2 * i, update, &layer.before_mixer);
        match (&layer.mixer, &self.config.layers[i].mixer) {
            (MixerWeights::Attention(weights), Mixer::Attention(spec)) => {
                self.product(work, n, stream, weights.qkv.product(adapter), false)?;
                self.attention(work, n, i, weights, spec)?;
                self.added(&work.attended, n, weights.o.product(adapter), work)?;
            }
            (MixerWeights::RgLru(weights), Mixer::RgLru(_)) => {
                self.product(work, n, stream, weights.xy.product(adapter), false)?;
                self.recurrence(work, n, i, weights)?;
                self.added(&work.attended, n, weights.out.product(adapter), work)?;
            }
            _ => unreachable!("weights are loaded by their layer's specification"),
        }
        let update = Update { y: &work.y, norm: layer.after_mixer.as_ref() };
        let stream = self.stream(work, 2 * i + 1, Some(update), &layer.before_mlp);
        self.product(work, n, stream, layer.gate_up.product(adapter), true)?;
        self.added(&work.inner, n, layer.down.product(adapter), work)
    }

    /// The residual stream in front of the `sublayer`-th sublayer; the two buffers take turns.
    fn stream<'a>(
        &self,
        work: &'a Work,
        sublayer: usize,
        update: Option<Update<'a>>,
        norm: &'a Buffer,
    ) -> Stream<'a> {
        let [from, to] = [sublayer % 2, (sublayer + 1) % 2];
        Stream {
            residual: &work.streams[from],
            update,
            out: &work.streams[to],
            norm,
            eps: self.config.norm_eps,
            first: 0,
        }
    }

    /// The product that a sublayer begins with: into `work.mixed`, or gated into `work.inner`.
    fn product(
        &self,
        work: &Work,
        n: usize,
        stream: Stream<'_>,
        product: Product<'_>,
        gated: bool,
    ) -> Result<(), CudaError> {
        if self.is_few(n) {
            let output = if gated { Output::Gated(&work.inner) } else { Output::Numbers(&work.mixed) };
            return self.few_normed(work, n, stream, product, output);
        }
        add_norm(&stream, n, &work.x, false)?;
        let rows = product.matrix.rows();
        let output = match gated {
            true => ManyOutput::Gated(Strided::whole(&work.inner, rows / 2)),
            false => ManyOutput::Numbers(Strided::whole(&work.mixed, rows)),
        };
        self.many(product, n, &work.x, output)
    }

    /// The product of few rows of a stream's norm.
    fn few_normed(
        &self,
        work: &Work,
        n: usize,
        stream: Stream<'_>,
        product: Product<'_>,
        output: Output<'_>,
    ) -> Result<(), CudaError> {
        if n <= MOST_NORMED_ROWS {
            return self.few(product, n, few::Input::Normed(stream), output);
        }
        add_norm(&stream, n, &work.x, self.exact)?;
        self.few(product, n, few::Input::Plain(&work.x), output)
    }

    /// The product of few rows: what the adapter adds is computed first, bias and all.
    pub(super) fn few(
        &self,
        Product { matrix, bias, low_rank }: Product<'_>,
        n: usize,
        input: few::Input<'_>,
        output: Output<'_>,
    ) -> Result<(), CudaError> {
        let Some((low_rank, work)) = low_rank else {
            return few(matrix, n, input, bias.map(Strided::repeated), output);
        };
        low_rank.few(n, input, bias, &work.between, &work.added)?;
        few(matrix, n, input, Some(Strided::whole(&work.added, matrix.rows())), output)
    }

    /// The product of many rows of activation numbers.
    pub(super) fn many(
        &self,
        Product { matrix, bias, low_rank }: Product<'_>,
        n: usize,
        x: &Buffer,
        output: ManyOutput<'_>,
    ) -> Result<(), CudaError> {
        let (x, scratch) = (Strided::whole(x, matrix.cols()), &self.scratch);
        let mut beside = None;
        if let Some((low_rank, work)) = low_rank {
            low_rank.many(n, x, &work.between, scratch)?;
            beside = Some(Beside { low_rank, between: Strided::whole(&work.between, low_rank.rank()) });
        }
        many(&Many { matrix, diagonal: 1, n, x, bias, low_rank: beside, output, scratch })
    }

    /// The product that a sublayer ends with, from activation numbers into `work.y`.
    fn added(&self, x: &Buffer, n: usize, product: Product<'_>, work: &Work) -> Result<(), CudaError> {
        if self.is_few(n) {
            return self.few(product, n, few::Input::Plain(x), Output::Numbers(&work.y));
        }
        self.many(product, n, x, ManyOutput::Numbers(Strided::whole(&work.y, product.matrix.rows())))
    }

    fn attention(
        &self,
        work: &Work,
        n: usize,
        layer: usize,
        weights: &AttentionWeights,
        spec: &AttentionSpec,
    ) -> Result<(), CudaError> {
        let args = Attend {
            qkv: &work.mixed,
            place: &work.place,
            sight: weights.sight,
            layout: self.layout.kv(),
            layer,
            heads: spec.heads,
            scale: spec.scale,
            soft_cap: spec.soft_cap,
            turn: Turn {
                q_norm: weights.q_norm.as_ref(),
                k_norm: weights.k_norm.as_ref(),
                eps: self.config.norm_eps,
                frequencies: &weights.frequencies,
            },
            scratch: &work.attention,
            out: &work.attended,
        };
        match (self.exact, n <= FEW) {
            (true, _) => attend_exact(&args),
            (false, true) => attend_few(&args),
            (false, false) => attend_many(&args),
        }
    }

    fn recurrence(
        &self,
        work: &Work,
        n: usize,
        layer: usize,
        weights: &RgLruWeights,
    ) -> Result<(), CudaError> {
        let Some(recurrent) = &work.recurrent else { unreachable!("a recurrent layer has a state") };
        let args = Recurrent {
            xy: &work.mixed,
            n,
            place: &work.place,
            states: &recurrent.states,
            offset: self.layout.state_at(layer),
            weights: RecurrentWeights {
                convolution: &weights.convolution,
                convolution_bias: &weights.convolution_bias,
                input_bias: &weights.input_bias,
                recurrence_bias: &weights.recurrence_bias,
                decay: &weights.decay,
                input_gate: &weights.input_gate,
                recurrence_gate: &weights.recurrence_gate,
            },
            scratch: &recurrent.scratch,
            out: &work.attended,
        };
        if n <= FEW { recurrent_few(&args) } else { recurrent_many(&args) }
    }

    /// The logits of `count` rows from `first` on, and the best of them.
    fn logits(&self, work: &Work, first: usize, count: usize) -> Result<(), CudaError> {
        let update = self.layers.last().map(|l| Update { y: &work.y, norm: l.after_mlp.as_ref() });
        let stream = self.stream(work, 2 * self.layers.len(), update, &self.final_norm);
        let matrix = self.output.as_ref().unwrap_or(&self.embedding);
        let output = Output::Logits { out: &work.logits, soft_cap: self.config.final_soft_cap };
        let product = Product { matrix, bias: None, low_rank: None };
        self.few_normed(work, count, Stream { first, ..stream }, product, output)?;
        best(&work.logits, count, self.config.vocab, &work.best_scratch, &work.best)
    }

    /// Whether a pass of `n` tokens goes the way of few.
    fn is_few(&self, n: usize) -> bool {
        self.exact || n <= FEW
    }
}

pub(super) fn bytes<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    numbers.flatten().collect()
}

/// The sequence's pages on the device, those from the one of position `start` on its own.
fn pages(sequence: &Sequence, start: usize) -> Result<Vec<Arc<PageBuffer>>, CudaError> {
    let written = (start - sequence.pages_from()) / PAGE_TOKENS;
    let on_device = |(index, page): (usize, &Arc<KvPage>)| match &**page {
        KvPage::Device(page) if index < written => page.to_read(),
        KvPage::Device(page) => page.to_write(),
        KvPage::F32(_) | KvPage::F16(_) | KvPage::Q8(_) => {
            unreachable!("a sequence's pages are those of its layout")
        }
    };
    sequence.pages().iter().enumerate().map(on_device).collect()
}
