//! What happened to completions: nothing is shown, or not shown, without a reason that can be asked for.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gemma_engine::{FinishReason, Finished, Timings};
use serde::Serialize;

use crate::completion::sentence::{self, sentence};
use crate::completion::{Answer, Reason};

/// Counts and remembers the outcomes of completion requests.
#[derive(Debug, Default)]
pub(super) struct Record {
    state: Mutex<Summary>,
}

/// What `gemma/status` tells of completions.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    #[serde(flatten)]
    pub(super) counters: Counters,
    /// Tokens of prompts, all completions together.
    pub(super) cache: Cache,
    /// Tokens of answers, all completions together.
    pub(super) speculation: Speculation,
    /// Tokens of prompts that were computed ahead of time.
    pub(super) ahead: Cache,
    /// The last one that ended.
    pub(super) last: Option<Outcome>,
}

/// How many requests were answered, how many of them by a computation that ran to its end, and how
/// often each reason was given.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counters {
    pub(super) requested: u64,
    pub(super) computed: u64,
    pub(super) shown: u64,
    pub(super) empty: u64,
    pub(super) superseded: u64,
    pub(super) filtered: u64,
    pub(super) disabled: u64,
    pub(super) loading: u64,
    pub(super) failed: u64,
}

/// How much of the prompts was found in the cache.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cache {
    /// Prompt tokens that were computed.
    pub(super) computed_tokens: usize,
    /// Prompt tokens that were found.
    pub(super) found_tokens: usize,
}

/// How many tokens of answers were had in fewer passes than tokens.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Speculation {
    /// Tokens of answers.
    pub(super) tokens: usize,
    /// Forward passes for them, the prompts' not counted.
    pub(super) passes: usize,
    /// Tokens that were tried ahead of their turn.
    pub(super) tried: usize,
    /// Those of them that were right.
    pub(super) right: usize,
}

/// How a request was answered and what that cost, as it is told with the answer. Numbers of tokens are those of the computation that the
/// answer came out of; `None` where it came out of none.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    /// Why it shows what it shows; `None` when it failed.
    reason: Option<Reason>,
    /// The rule that filtered it, or what is switched off.
    rule: Option<&'static str>,
    /// Tokens of the prompt.
    tokens_asked: Option<usize>,
    /// Those of them that were in the cache.
    tokens_found: Option<usize>,
    /// Those of them that were computed.
    tokens_computed: Option<usize>,
    decode_tokens: Option<usize>,
    decode_passes: Option<usize>,
    draft_tokens: Option<usize>,
    accepted_tokens: Option<usize>,
    queue_ms: Option<f64>,
    /// From the arrival of the request to its first token; to the answer, where nothing was computed since.
    first_token_ms: f64,
    total_ms: f64,
}

impl Cost {
    /// Of an answer, given now, to a request that came when `arrived` says.
    pub(super) fn of(answer: &Answer, arrived: Instant) -> Self {
        let total = arrived.elapsed();
        let first_token = answer.first_token.and_then(|first| first.checked_duration_since(arrived));
        let timings = answer.finished.as_ref().map(|finished| &finished.timings);
        Self {
            reason: Some(answer.reason),
            rule: answer.rule,
            tokens_asked: timings.map(|t| t.cached_tokens + t.prefill_tokens),
            tokens_found: timings.map(|t| t.cached_tokens),
            tokens_computed: timings.map(|t| t.prefill_tokens),
            decode_tokens: timings.map(|t| t.decode_tokens),
            decode_passes: timings.map(|t| t.decode_passes),
            draft_tokens: timings.map(|t| t.draft_tokens),
            accepted_tokens: timings.map(|t| t.accepted_tokens),
            queue_ms: timings.map(|t| t.queue_ms),
            first_token_ms: milliseconds(first_token.unwrap_or(total)),
            total_ms: milliseconds(total),
        }
    }
}

/// How one completion ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// The protocol's method.
    method: &'static str,
    #[serde(flatten)]
    cost: Cost,
    /// What failed.
    error: Option<String>,
    /// Why it shows what it shows, for people.
    sentence: Cow<'static, str>,
    /// Where the engine's time went, if it was asked.
    timings: Option<Timings>,
}

impl Record {
    /// Notes an answer.
    pub(super) fn answered(&self, method: &'static str, answer: &Answer, cost: Cost) {
        let timings = answer.finished.as_ref().map(|finished| finished.timings);
        let sentence = sentence(answer.reason, answer.rule);
        let to_the_end = |finished: &Finished| finished.finish_reason != FinishReason::Cancelled;
        let outcome = Outcome { method, cost, error: None, sentence, timings };
        self.note(outcome, answer.finished.as_ref().is_some_and(to_the_end));
    }

    /// Notes what a computation took, whoever still waits for it.
    pub(super) fn computed(&self, timings: &Timings) {
        let mut state = self.lock();
        state.cache.computed_tokens += timings.prefill_tokens;
        state.cache.found_tokens += timings.cached_tokens;
        state.speculation.tokens += timings.decode_tokens;
        state.speculation.passes += timings.decode_passes;
        state.speculation.tried += timings.draft_tokens;
        state.speculation.right += timings.accepted_tokens;
    }

    /// Notes what was computed before anybody asked.
    pub(super) fn computed_ahead(&self, timings: &Timings) {
        let mut state = self.lock();
        state.ahead.computed_tokens += timings.prefill_tokens;
        state.ahead.found_tokens += timings.cached_tokens;
    }

    /// Notes a failure, now, of a request that came when `arrived` says.
    pub(super) fn failed(&self, method: &'static str, error: String, arrived: Instant) {
        let nothing = Answer::nothing(0, Reason::Empty, None);
        let cost = Cost { reason: None, ..Cost::of(&nothing, arrived) };
        let sentence = sentence::failed(&error).into();
        self.note(Outcome { method, cost, error: Some(error), sentence, timings: None }, false);
    }

    fn note(&self, outcome: Outcome, finished: bool) {
        let mut state = self.lock();
        let counters = &mut state.counters;
        counters.requested += 1;
        counters.computed += u64::from(finished);
        *match outcome.cost.reason {
            Some(Reason::Shown) => &mut counters.shown,
            Some(Reason::Empty) => &mut counters.empty,
            Some(Reason::Superseded) => &mut counters.superseded,
            Some(Reason::Filtered) => &mut counters.filtered,
            Some(Reason::Disabled) => &mut counters.disabled,
            Some(Reason::Loading) => &mut counters.loading,
            None => &mut counters.failed,
        } += 1;
        tracing::debug!(?outcome, "answered");
        state.last = Some(outcome);
    }

    /// All of it, as it is now.
    pub(super) fn summary(&self) -> Summary {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Summary> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
