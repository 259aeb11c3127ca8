//! One request on its way: queued, its pictures encoded, prefilled in chunks, decoded token by token,
//! ended once.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Waiting;
use super::pace::Pace;
use super::pictures::{PictureCache, PictureWork};
use crate::cache::{Marks, PrefixCache, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{
    Beginning, CancelFlag, Event, FinishReason, Finished, GenerateRequest, Priority, Sampler, Scores,
    StopWatch, Timings, Token, guess,
};
use crate::model::{Input, Interrupt, Logits, Network, Pass, Rows};
use crate::outline::Outline;
use crate::tokenizer::StreamDecoder;

/// What jobs work with and share.
pub(super) struct Tools<'a> {
    pub(super) network: &'a mut Network,
    pub(super) cache: &'a mut PrefixCache,
    pub(super) pictures: &'a mut PictureCache,
    pub(super) pace: &'a mut Pace,
    pub(super) waiting: &'a Waiting,
}

impl Tools<'_> {
    /// Begins a pass; where the device has no room for it, after what is kept there unused was put away.
    fn begin(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
        (rows, logits): (usize, Logits),
        marks: Marks<'_>,
    ) -> Result<Pass> {
        let wanted = (Rows::Last(rows), logits);
        match self.network.begin(sequence, input, wanted, marks) {
            Err(error) if error.kind() == ErrorKind::DeviceFull && self.cache.put_away()? > 0 => {
                self.network.begin(sequence, input, wanted, marks)
            }
            begun => begun,
        }
    }
}

/// A pass on its way.
struct Running {
    /// There until it has run to its end.
    pass: Option<Pass>,
    /// What it reads that counts in any case: tokens of the prompt, or the last one generated.
    certain: Vec<u32>,
    /// What the sequence remembers those by.
    keys: Vec<u32>,
    /// What it reads behind that: tokens that may come next.
    draft: Vec<u32>,
    /// Tokens before the draft that agree with where it was found.
    agreed: usize,
    /// Rows of logits that come out.
    rows: usize,
    /// Time that was spent on it, and whether it was ever put aside: then the time says nothing about the model.
    spent: Duration,
    was_paused: bool,
}

/// How far a pass came.
enum Computed {
    /// To its end: the logits of its rows.
    Logits(Box<Running>, Vec<Scores>),
    /// Something more urgent waits.
    Paused,
    /// Nobody wants it any more.
    Stopped,
}

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
    running: Option<Running>,
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
            running: None,
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

    /// Whether its next step ends it without computing.
    pub(super) fn is_over(&self) -> bool {
        self.interrupt.is_due()
    }

    pub(crate) fn model_id(&self) -> u64 {
        self.request.model.id
    }

    pub(crate) fn model_name(&self) -> &str {
        self.request.model.name()
    }

    /// Lets everybody know how fast its model is.
    pub(super) fn tell_speed(&self, pace: &Pace) {
        *self.request.model.speed.lock().unwrap_or_else(PoisonError::into_inner) = pace.speed();
    }

    /// Works for one step, a pass or what of it comes before something more urgent; `true` once the request has
    /// ended.
    pub(super) fn step(&mut self, tools: &mut Tools<'_>) -> Result<bool> {
        if self.interrupt.is_due() {
            return Ok(self.interrupted(tools.cache));
        }
        if self.started.is_none() {
            self.start(tools);
            if self.request.max_tokens == 0 {
                return Ok(self.finish(FinishReason::Length, tools.cache));
            }
        }
        let Some(mut sequence) = self.sequence.take() else { return Ok(true) };
        if self.generated.is_empty() {
            let from = sequence.tokens().len();
            if from == self.keys.len()
                && let Some(scores) = tools.cache.logits(self.model_id(), &self.keys)
            {
                // The whole prompt was computed before, and nothing of it is left to do.
                let whole = || match scores {
                    Scores::Begun(_) => tools.network.whole(&scores, 0).map(Some),
                    // A device holds the logits of its last pass only, and all are all.
                    Scores::Best(_) | Scores::All(_) => Ok(None),
                };
                let (picked, scores) = self.pick(tools.network, &scores, whole)?;
                let Some(id) = picked else {
                    // But for the tokens that only all logits can tell.
                    tools.cache.forget_logits(self.model_id(), &self.keys);
                    tools.cache.keep(self.model_id(), sequence);
                    self.start(tools);
                    return Ok(false);
                };
                self.sequence = Some(sequence);
                let ended = self.take_token(tools.network, id, &scores);
                return Ok(ended.is_some_and(|reason| self.finish(reason, tools.cache)));
            }
            let model = (self.request.model.id, &*tools.network);
            if !self.pictures.step(&self.outline, from, model, tools.pictures, &mut self.timings)? {
                self.sequence = Some(sequence);
                return Ok(false);
            }
        }
        let begun = Instant::now();
        let computed = self.compute(tools, &mut sequence)?;
        let took = millis(begun.elapsed());
        match self.generated.is_empty() {
            true => self.timings.prefill_ms += took,
            false => self.timings.decode_ms += took,
        }
        let ended = match computed {
            Computed::Paused => None,
            Computed::Stopped => {
                self.sequence = Some(sequence);
                return Ok(self.interrupted(tools.cache));
            }
            Computed::Logits(running, scores) => self.read(tools, &mut sequence, &running, &scores)?,
        };
        self.sequence = Some(sequence);
        Ok(ended.is_some_and(|reason| self.finish(reason, tools.cache)))
    }

    /// Whether the model's adapter is on.
    fn adapted(&self) -> bool {
        self.request.model.adapter().is_some() && !self.request.base_alone
    }

    /// Looks up what of the prompt is known.
    fn start(&mut self, tools: &mut Tools<'_>) {
        let begun = Instant::now();
        self.started = Some(begun);
        self.timings.queue_ms = millis(begun - self.submitted);
        let digests = self.pictures.digests();
        let adapted = self.adapted();
        self.keys = tools.pictures.keys.keys(&self.request.prompt, &self.outline, &digests, adapted);
        let (model, layout) = (self.model_id(), tools.network.layout());
        let sequence = tools.cache.resume(model, layout, &self.keys);
        let resumed = sequence.tokens().len();
        self.timings.cached_tokens = resumed;
        let read = self.outline.pictures.iter().filter(|run| run.end <= resumed);
        self.timings.image_tokens_cached = read.map(|run| run.len()).sum();
        self.sequence = Some(sequence);
    }

    /// Runs a pass to its end, or until something more urgent waits.
    fn compute(&mut self, tools: &mut Tools<'_>, sequence: &mut Sequence) -> Result<Computed> {
        let begun = Instant::now();
        let mut running = match self.running.take() {
            Some(running) => running,
            None if self.generated.is_empty() => self.begin_prefill(tools, sequence)?,
            None => self.begin_decode(tools, sequence)?,
        };
        let Some(mut pass) = running.pass.take() else { return Ok(Computed::Stopped) };
        while tools.network.step(&mut pass, sequence, &self.outline.spans)? {
            if self.interrupt.is_due() {
                return Ok(Computed::Stopped);
            }
            if tools.waiting.more_urgent_than(self.request.priority) {
                running.spent += begun.elapsed();
                running.was_paused = true;
                running.pass = Some(pass);
                self.running = Some(running);
                return Ok(Computed::Paused);
            }
        }
        let scores = tools.network.end(pass, sequence)?;
        running.spent += begun.elapsed();
        if !running.was_paused {
            let tokens = running.certain.len() + running.draft.len();
            tools.pace.passed(tokens, running.rows, running.spent);
        }
        Ok(Computed::Logits(Box::new(running), scores))
    }

    /// The next chunk of the prompt, or what sees forward and has to be computed at once; with the last one logits,
    /// and behind it what may come next.
    fn begin_prefill(&self, tools: &mut Tools<'_>, sequence: &mut Sequence) -> Result<Running> {
        let (from, len) = (sequence.tokens().len(), self.request.prompt.len());
        // Nobody goes before a keystroke, and cancelling is looked for between steps.
        let chunk = tools.network.chunk(self.request.priority != Priority::Completion);
        let end = self.outline.pass(from, chunk, len);
        let certain = &self.request.prompt[from..end];
        let (draft, agreed) = match end == len {
            true => self.draft(tools, certain.len()),
            false => (Vec::new(), 0),
        };
        let rows = if end == len { 1 + draft.len() } else { 0 };
        let ids = [certain, &draft].concat();
        let keys = self.keys[from..end].to_vec();
        let input = Input {
            ids: &ids,
            keys: &[],
            pictures: &self.pictures.of_pass(&self.outline, from, end),
            spans: &self.outline.spans,
            adapted: self.adapted(),
        };
        // The end of a prompt is where the next one goes on.
        let cuts = [&self.request.cuts[..], &[len]].concat();
        let marks = Marks { cuts: &cuts, draft: draft.len() };
        let pass = tools.begin(sequence, input, (rows, self.wanted()), marks)?;
        Ok(Running::new(pass, certain.to_vec(), keys, (draft, agreed), rows))
    }

    /// The last token generated, and behind it what may come next.
    fn begin_decode(&self, tools: &mut Tools<'_>, sequence: &mut Sequence) -> Result<Running> {
        let certain = vec![self.generated.last().copied().unwrap_or_default()];
        let (draft, agreed) = self.draft(tools, 1);
        let (rows, marks) = (1 + draft.len(), Marks { cuts: &[], draft: draft.len() });
        let ids = [&certain[..], &draft].concat();
        let input = Input { adapted: self.adapted(), ..Input::text(&ids) };
        let pass = tools.begin(sequence, input, (rows, self.wanted()), marks)?;
        Ok(Running::new(pass, certain.clone(), certain, (draft, agreed), rows))
    }

    /// Which logits the next token is picked by: few of those that have to spell something, whatever the sampling.
    fn wanted(&self) -> Logits {
        let few = self.sampler.needs().is_some() || !self.beginning.is_complete();
        if few && !self.request.logprobs { Logits::Few } else { Logits::All }
    }

    /// What may come next, in a pass that has `certain` tokens anyway, and how many tokens before it agree.
    fn draft(&self, tools: &mut Tools<'_>, certain: usize) -> (Vec<u32>, usize) {
        let left = self.request.max_tokens.saturating_sub(self.generated.len() + 1);
        if !self.request.speculate || !self.outline.spans.is_empty() || left == 0 {
            return (Vec::new(), 0);
        }
        let text = [&self.request.prompt[..], &self.generated].concat();
        let tokenizer = self.request.model.tokenizer();
        let fits = |id| self.beginning.allows(tokenizer, id);
        let Some(found) = guess(&text, self.request.drafts.iter().map(|draft| &**draft), fits) else {
            return (Vec::new(), 0);
        };
        let vocab = tools.network.config().vocab;
        // What somebody else wrote into the drafts need not be of this vocabulary.
        let known = found.tokens.iter().take_while(|&&id| (id as usize) < vocab).count();
        let length = tools.pace.draft_length(found.agreed, certain).min(left).min(known);
        (found.tokens[..length].to_vec(), found.agreed)
    }

    /// Picks tokens from the rows of a pass, as long as they are those that it had read on with. The tokens that
    /// count are then the sequence's.
    fn read(
        &mut self,
        tools: &mut Tools<'_>,
        sequence: &mut Sequence,
        running: &Running,
        scores: &[Scores],
    ) -> Result<Option<FinishReason>> {
        if self.generated.is_empty() {
            self.timings.prefill_tokens += running.certain.len();
        } else {
            self.timings.decode_passes += 1;
        }
        if running.rows == 0 {
            sequence.advance(&running.keys);
            return Ok(None);
        }
        if self.generated.is_empty() && self.outline.spans.is_empty() {
            tools.cache.keep_logits(self.model_id(), &self.keys, scores[0].clone());
        }
        let (mut right, mut ended) = (0, None);
        for (row, scores) in scores.iter().enumerate() {
            let whole = || tools.network.whole(scores, row).map(Some);
            let (picked, scores) = self.pick(tools.network, scores, whole)?;
            let id = picked.ok_or_else(|| no_number(self.model_name()))?;
            ended = self.take_token(tools.network, id, &scores);
            if ended.is_some() || running.draft.get(right) != self.generated.last() {
                break;
            }
            right += 1;
        }
        sequence.advance(&[&running.keys[..], &running.draft[..right]].concat());
        if !running.draft.is_empty() {
            tools.pace.drafted(running.agreed, running.draft.len(), right);
            self.timings.draft_tokens += running.draft.len();
            self.timings.accepted_tokens += right;
        }
        Ok(ended)
    }

    /// Picks the next token by what is there, else by all logits if `whole` has them; and tells by which.
    fn pick(
        &mut self,
        network: &Network,
        scores: &Scores,
        whole: impl FnOnce() -> Result<Option<Arc<[f32]>>>,
    ) -> Result<(Option<u32>, Scores)> {
        if let Some(id) = self.choose(network, scores) {
            return Ok((Some(id), scores.clone()));
        }
        let Some(all) = whole()?.map(Scores::All) else { return Ok((None, scores.clone())) };
        Ok((self.choose(network, &all), all))
    }

    /// Picks the next token; `None` where the best tokens alone do not tell, or not how probable it is.
    fn choose(&mut self, network: &Network, scores: &Scores) -> Option<u32> {
        let begun = Instant::now();
        let (tokenizer, sampler) = (self.request.model.tokenizer(), &mut self.sampler);
        let seen = match sampler.penalises() {
            true => [&self.request.prompt[..], &self.generated].concat(),
            false => Vec::new(),
        };
        let id = match scores {
            Scores::Best(best) if !sampler.is_served_by(&best.tokens) => None,
            Scores::Best(best) if self.beginning.is_complete() => {
                sampler.pick_among(best.tokens.clone(), &seen)
            }
            // The best of those that go on with the beginning is the best of all that do.
            Scores::Best(best) if sampler.is_greedy() => {
                let goes_on = |token: &&(u32, f32)| self.beginning.allows(tokenizer, token.0);
                best.tokens.iter().find(goes_on).map(|token| token.0)
            }
            Scores::Best(_) => None,
            Scores::Begun(_) if self.request.logprobs => None,
            Scores::Begun(_) => {
                let among = self.beginning.tokens(tokenizer, network.config().vocab);
                // As many as could be picked.
                let count = sampler.needs().or(among.as_ref().map(Vec::len));
                let best = count.and_then(|count| network.best(scores, count, among.as_deref()));
                best.and_then(|best| sampler.pick_among(best, &seen))
            }
            Scores::All(logits) => {
                let among = self.beginning.tokens(tokenizer, logits.len());
                let logits_of = |ids: Vec<u32>| ids.into_iter().map(|id| (id, logits[id as usize])).collect();
                among
                    .and_then(|ids| sampler.pick_among(logits_of(ids), &seen))
                    .or_else(|| sampler.pick(network.ops(), logits, &seen))
            }
        };
        match self.generated.is_empty() {
            true => self.timings.prefill_ms += millis(begun.elapsed()),
            false => self.timings.decode_ms += millis(begun.elapsed()),
        }
        id
    }

    /// Takes a token that was picked by its scores; why the request ends with it, if it does.
    fn take_token(&mut self, network: &Network, id: u32, scores: &Scores) -> Option<FinishReason> {
        let tokenizer = self.request.model.tokenizer();
        self.beginning.advance(tokenizer, id);
        if self.generated.is_empty() {
            self.timings.ttft_ms = millis(self.submitted.elapsed());
        }
        if self.watch.ends_at(id, &network.config().eos) {
            return Some(FinishReason::Stop);
        }
        self.generated.push(id);
        self.timings.decode_tokens = self.generated.len();
        let text = self.decoder.push(id);
        let (text, enough) = self.watch.push(&text);
        let sum = self.request.logprobs.then(|| network.log_sum_exp(scores)).flatten();
        let logprob = sum.zip(scores.logit(id)).map(|(sum, logit)| logit - sum);
        self.send(Event::Token(Token { id, text, logprob }));
        if enough {
            return Some(FinishReason::Stop);
        }
        let length = self.request.prompt.len() + self.generated.len();
        let full = network.config().longest().is_some_and(|most| length >= most);
        let complete = self.generated.len() >= self.request.max_tokens || full;
        complete.then_some(FinishReason::Length)
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

impl Running {
    fn new(
        pass: Pass,
        certain: Vec<u32>,
        keys: Vec<u32>,
        (draft, agreed): (Vec<u32>, usize),
        rows: usize,
    ) -> Self {
        Self {
            pass: Some(pass),
            certain,
            keys,
            draft,
            agreed,
            rows,
            spent: Duration::ZERO,
            was_paused: false,
        }
    }
}

/// A model that says nothing about the next token.
fn no_number(model: &str) -> Error {
    let problem = "none of its logits is a number, so no token can be picked: its weights hold numbers that are none, or \
                   too great ones";
    Error::new(ErrorKind::BadFile, model, problem)
        .remedy("Download or convert it again, or use another model.")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
