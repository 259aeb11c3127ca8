//! One request on its way: queued, its pictures encoded, prefilled in chunks, decoded token by token,
//! ended once.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::pictures::{PictureCache, PictureWork};
use crate::cache::{PrefixCache, Sequence};
use crate::error::Error;
use crate::generate::{
    Beginning, CancelFlag, Event, FinishReason, Finished, GenerateRequest, Priority, Sampler, StopWatch,
    Timings, Token,
};
use crate::model::{Input, Interrupt, Network, Pass, Rows};
use crate::outline::Outline;
use crate::tokenizer::StreamDecoder;

/// Prompt tokens of one step: a keystroke must not wait longer for a chat than for one of these.
const SHORT_CHUNK: usize = 32;
/// The same for completions: nobody goes before them, and cancelling is looked for between layers.
const LONG_CHUNK: usize = 256;

/// One request on its way.
pub(crate) struct Job {
    request: GenerateRequest,
    events: UnboundedSender<Event>,
    interrupt: Interrupt,
    sampler: Sampler,
    watch: StopWatch,
    decoder: StreamDecoder,
    beginning: Beginning,
    submitted: Instant,
    started: Option<Instant>,
    sequence: Option<Sequence>,
    outline: Outline,
    /// A pass that is longer than a chunk, on its way.
    pass: Option<Pass>,
    pictures: PictureWork,
    /// What the sequence remembers the prompt's tokens by.
    keys: Vec<u32>,
    /// Generated tokens, in order; the last one is not in the sequence yet.
    generated: Vec<u32>,
    timings: Timings,
    ended: bool,
}

impl Job {
    pub(crate) fn new(
        mut request: GenerateRequest,
        outline: Outline,
        events: UnboundedSender<Event>,
        shutdown: CancelFlag,
    ) -> Self {
        let submitted = Instant::now();
        let stop = std::mem::take(&mut request.stop);
        Self {
            interrupt: Interrupt {
                cancel: request.cancel.clone(),
                shutdown,
                deadline: request.deadline.map(|after| submitted + after),
            },
            sampler: Sampler::new(request.sampling.clone()),
            watch: StopWatch::new(stop),
            decoder: request.model.tokenizer().stream(),
            beginning: Beginning::new(&request.begin_with),
            submitted,
            started: None,
            sequence: None,
            outline,
            pass: None,
            pictures: PictureWork::new(std::mem::take(&mut request.pictures)),
            keys: Vec::new(),
            generated: Vec::new(),
            timings: Timings::default(),
            ended: false,
            request,
            events,
        }
    }

    pub(crate) fn priority(&self) -> Priority {
        self.request.priority
    }

    pub(crate) fn model_id(&self) -> u64 {
        self.request.model.id
    }

    pub(crate) fn model_name(&self) -> &str {
        self.request.model.name()
    }

    /// Works for one step; `true` once the request has ended.
    pub(super) fn step(
        &mut self,
        network: &mut Network,
        cache: &mut PrefixCache,
        pictures: &mut PictureCache,
    ) -> bool {
        let begun = Instant::now();
        if self.interrupt.is_due() {
            return self.interrupted(cache);
        }
        if self.started.is_none() {
            self.started = Some(begun);
            self.timings.queue_ms = millis(begun - self.submitted);
            self.keys = pictures.keys.keys(&self.request.prompt, &self.outline, &self.pictures.digests());
            let sequence = cache.resume(self.model_id(), network.layout(), &self.keys);
            let resumed = sequence.tokens().len();
            self.timings.cached_tokens = resumed;
            let read = self.outline.pictures.iter().filter(|run| run.end <= resumed);
            self.timings.image_tokens_cached = read.map(|run| run.len()).sum();
            self.sequence = Some(sequence);
            if self.request.max_tokens == 0 {
                return self.finish(FinishReason::Length, cache);
            }
        }
        let Some(mut sequence) = self.sequence.take() else { return true };
        if self.generated.is_empty() {
            let (from, model) = (sequence.tokens().len(), (self.request.model.id, &*network));
            if !self.pictures.step(&self.outline, from, model, pictures, &mut self.timings) {
                self.sequence = Some(sequence);
                return false;
            }
        }
        let logits = match self.generated.last() {
            Some(&last) => network.forward(&mut sequence, Input::text(&[last]), Rows::Last, &self.interrupt),
            None => self.prefill(network, &mut sequence),
        };
        self.sequence = Some(sequence);
        let took = millis(begun.elapsed());
        match (self.generated.is_empty(), &logits) {
            (true, _) => self.timings.prefill_ms += took,
            (false, _) => self.timings.decode_ms += took,
        }
        match logits {
            None => self.interrupted(cache),
            Some(logits) if logits.is_empty() => false,
            Some(logits) => self.take_token(network, cache, logits),
        }
    }

    /// The next chunk of the prompt; logits come with the last one. Where more than a chunk sees forward, and
    /// so has to be computed at once, the next layer of that.
    fn prefill(&mut self, network: &mut Network, sequence: &mut Sequence) -> Option<Vec<f32>> {
        let (from, len) = (sequence.tokens().len(), self.request.prompt.len());
        let chunk = if self.request.priority == Priority::Completion { LONG_CHUNK } else { SHORT_CHUNK };
        let end = self.outline.pass(from, chunk, len);
        let rows = if end == len { Rows::Last } else { Rows::None };
        let input = Input {
            ids: &self.request.prompt[from..end],
            keys: &self.keys[from..end],
            pictures: &self.pictures.of_pass(&self.outline, from, end),
            spans: &self.outline.spans,
        };
        let logits = if end - from <= chunk {
            network.forward(sequence, input, rows, &self.interrupt)?
        } else {
            let mut pass = self.pass.take().unwrap_or_else(|| network.begin(sequence, input));
            if network.run_layer(&mut pass, sequence, input.spans) {
                self.pass = Some(pass);
                return Some(Vec::new());
            }
            network.end(pass, sequence, input.keys, rows)
        };
        self.timings.prefill_tokens += end - from;
        Some(logits)
    }

    fn take_token(&mut self, network: &Network, cache: &mut PrefixCache, mut logits: Vec<f32>) -> bool {
        let begun = Instant::now();
        let scale = network.ops().log_sum_exp(&logits);
        let penalised = self.request.sampling.repetition_penalty != 1.0;
        let unchanged = (penalised || !self.beginning.is_complete()).then(|| logits.clone());
        let seen = if penalised { [&self.request.prompt[..], &self.generated].concat() } else { Vec::new() };
        let tokenizer = self.request.model.tokenizer();
        if !self.beginning.is_complete() {
            self.beginning.constrain(tokenizer, &mut logits);
        }
        let id = self.sampler.pick(&mut logits, &seen);
        self.beginning.advance(tokenizer, id);
        let logprob = unchanged.as_ref().unwrap_or(&logits)[id as usize] - scale;
        if self.generated.is_empty() {
            self.timings.prefill_ms += millis(begun.elapsed());
            self.timings.ttft_ms = millis(self.submitted.elapsed());
        } else {
            self.timings.decode_ms += millis(begun.elapsed());
        }
        if self.watch.ends_at(id, &network.config().eos) {
            return self.finish(FinishReason::Stop, cache);
        }
        self.generated.push(id);
        self.timings.decode_tokens = self.generated.len();
        let text = self.decoder.push(id);
        let (text, enough) = self.watch.push(&text);
        self.send(Event::Token(Token { id, text, logprob }));
        if enough {
            return self.finish(FinishReason::Stop, cache);
        }
        let length = self.request.prompt.len() + self.generated.len();
        let full = network.config().longest().is_some_and(|most| length >= most);
        if self.generated.len() >= self.request.max_tokens || full {
            return self.finish(FinishReason::Length, cache);
        }
        false
    }

    fn interrupted(&mut self, cache: &mut PrefixCache) -> bool {
        let cancelled = self.interrupt.cancel.is_cancelled() || self.interrupt.shutdown.is_cancelled();
        self.finish(if cancelled { FinishReason::Cancelled } else { FinishReason::Deadline }, cache)
    }

    fn finish(&mut self, finish_reason: FinishReason, cache: &mut PrefixCache) -> bool {
        if let Some(sequence) = self.sequence.take() {
            cache.keep(self.model_id(), sequence);
        }
        if finish_reason != FinishReason::Stop {
            let rest = self.decoder.flush();
            // The generation is over: what a stop text could have cut is text now.
            self.watch.push(&rest);
            self.watch.flush();
        }
        if self.started.is_none() {
            self.timings.queue_ms = millis(self.submitted.elapsed());
        }
        let watch = std::mem::replace(&mut self.watch, StopWatch::new(Default::default()));
        let finished = Finished {
            text: watch.into_text(),
            tokens: std::mem::take(&mut self.generated),
            finish_reason,
            timings: self.timings,
        };
        self.end(Event::Finished(finished))
    }

    /// Ends the request with an error.
    pub(crate) fn fail(&mut self, error: Error) -> bool {
        self.end(Event::Failed(error))
    }

    fn end(&mut self, event: Event) -> bool {
        if !std::mem::replace(&mut self.ended, true) {
            self.send(event);
        }
        true
    }

    /// A receiver that is gone wants nothing more; cancelling is its flag's business.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

fn millis(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
