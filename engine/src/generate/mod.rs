//! From logits to tokens: what a request asks for, what its answer reports, sampling and stopping.

mod beginning;
mod draft;
mod sampling;
mod scores;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::engine::Model;
use crate::error::{Error, ErrorKind};
use crate::picture::Picture;

pub(crate) use beginning::Beginning;
pub(crate) use draft::guess;
pub(crate) use sampling::Sampler;
pub use sampling::Sampling;
pub use scores::{Begun, Best, Scores};
pub(crate) use stop::StopWatch;
pub use stop::{Enough, Stop};

/// Who goes first. A keystroke beats a chat; nothing beats a keystroke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Warm-up, indexing: only while nobody waits.
    Background,
    /// Somebody reads along: chat, the command line.
    Chat,
    /// Somebody is typing.
    Completion,
}

/// Set once to stop a request's computing; the engine looks between layers and between tokens.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks the computing to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether [`CancelFlag::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A generation to run.
pub struct GenerateRequest {
    /// The model that runs it.
    pub model: Arc<Model>,
    /// The prompt's token ids, `<bos>` included.
    pub prompt: Vec<u32>,
    /// The pictures that the prompt's runs of image tokens stand for, in order.
    pub pictures: Vec<Arc<Picture>>,
    /// Computes without the model's adapter.
    pub base_alone: bool,
    /// Text that the answer has to begin with (token healing): left out of the prompt, part of the answer.
    /// The first tokens are picked among those that spell it. Needs a model with a tokenizer.
    pub begin_with: String,
    /// Lengths of the prompt at which a later one will probably part from it: what cannot be cut back to any
    /// token (a recurrence) can be gone on from there.
    pub cuts: Vec<usize>,
    /// Texts besides the prompt in which the next tokens may stand already: other suggestions, recent edits.
    pub drafts: Vec<Arc<[u32]>>,
    /// Whether tokens that are found in the prompt or in `drafts` are tried several at a time. The answer is
    /// the same either way.
    pub speculate: bool,
    /// Whether tokens come with their probabilities, for which every logit has to be computed.
    pub logprobs: bool,
    /// Generate at most this many tokens.
    pub max_tokens: usize,
    /// How tokens are picked.
    pub sampling: Sampling,
    /// When to stop before `max_tokens`.
    pub stop: Stop,
    /// Place in the queue.
    pub priority: Priority,
    /// Stop when this much time has passed since submission; what is there by then is the answer.
    pub deadline: Option<Duration>,
    /// Stops the computing from outside.
    pub cancel: CancelFlag,
}

impl GenerateRequest {
    /// The most likely `max_tokens` tokens behind a prompt of text, at the priority of a chat.
    pub fn new(model: Arc<Model>, prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self {
            model,
            prompt,
            pictures: Vec::new(),
            base_alone: false,
            begin_with: String::new(),
            cuts: Vec::new(),
            drafts: Vec::new(),
            speculate: true,
            logprobs: false,
            max_tokens,
            sampling: Sampling::default(),
            stop: Stop::default(),
            priority: Priority::Chat,
            deadline: None,
            cancel: CancelFlag::new(),
        }
    }
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became certain with it; empty in the middle of a character and for control tokens.
    pub text: String,
    /// Natural logarithm of its probability under the model, before temperature and filters, where
    /// [`GenerateRequest::logprobs`] asked for it.
    pub logprob: Option<f32>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token, a stop text, or the caller's own rule.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
    /// The deadline passed.
    Deadline,
    /// The cancel flag was set.
    Cancelled,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Waiting for the engine.
    pub queue_ms: f64,
    /// Tokens of pictures that were encoded.
    pub image_tokens: usize,
    /// Tokens of pictures that were encoded already.
    pub image_tokens_cached: usize,
    /// Time for the encoded ones.
    pub image_ms: f64,
    /// Prompt tokens that were computed.
    pub prefill_tokens: usize,
    /// Prompt tokens that were found in the cache.
    pub cached_tokens: usize,
    /// Time for the computed ones.
    pub prefill_ms: f64,
    /// Tokens generated.
    pub decode_tokens: usize,
    /// Time for those, the first excluded: it comes out of the prefill.
    pub decode_ms: f64,
    /// Forward passes for those.
    pub decode_passes: usize,
    /// Tokens tried ahead of their turn.
    pub draft_tokens: usize,
    /// Those of them that were right.
    pub accepted_tokens: usize,
    /// From submission to the first token.
    pub ttft_ms: f64,
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finished {
    /// The whole text, a stop text and what follows it cut off.
    pub text: String,
    /// All generated ids, the stop token excluded.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Where the time went.
    pub timings: Timings,
}

/// What comes out of a running request: tokens, then exactly one end.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token was generated.
    Token(Token),
    /// The end.
    Finished(Finished),
    /// The end, by an error.
    Failed(Error),
}

/// The receiving side of a request. Dropping it does not stop the computing; its flag does.
pub struct TokenStream {
    pub(crate) events: UnboundedReceiver<Event>,
}

impl TokenStream {
    /// The next event, awaited; `None` after the end.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event, if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next event, blocking this thread (not for use inside an async runtime).
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Waits for the end and returns it.
    pub async fn finish(self) -> Result<Finished, Error> {
        self.finish_hearing(|_| {}).await
    }

    /// Waits for the end, showing each token to `on_token`.
    pub async fn finish_hearing(mut self, mut on_token: impl FnMut(&Token)) -> Result<Finished, Error> {
        while let Some(event) = self.next().await {
            match event {
                Event::Token(token) => on_token(&token),
                Event::Finished(finished) => return Ok(finished),
                Event::Failed(error) => return Err(error),
            }
        }
        Err(stopped())
    }

    /// Waits for the end on this thread, showing each token to `on_token`.
    pub fn finish_blocking(mut self, mut on_token: impl FnMut(&Token)) -> Result<Finished, Error> {
        while let Some(event) = self.next_blocking() {
            match event {
                Event::Token(token) => on_token(&token),
                Event::Finished(finished) => return Ok(finished),
                Event::Failed(error) => return Err(error),
            }
        }
        Err(stopped())
    }

    /// Waits for the end on this thread, showing the text piece by piece. What was held back as the possible
    /// begin of a stop text is shown with the end.
    pub fn texts_blocking(self, mut on_text: impl FnMut(&str)) -> Result<Finished, Error> {
        let mut shown = 0;
        let mut show = |text: &str| {
            if !text.is_empty() {
                on_text(text);
            }
            text.len()
        };
        let finished = self.finish_blocking(|token| shown += show(&token.text))?;
        show(finished.text.get(shown..).unwrap_or_default());
        Ok(finished)
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "engine", "it was stopped before the answer was complete")
}
