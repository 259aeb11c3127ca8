//! Completing at the cursor: what to ask, when it is enough, what to cut from the answer.
//!
//! The path of a completion: the document around the cursor becomes a [`site::Site`]; the site decides
//! the [`shape`]; `ask` lays out the prompt; the engine generates until [`enough`]; [`filters`] cut what
//! is not for the user. [`supersede`], [`running`], [`reuse`] and [`pace`] belong to whoever holds the documents open.

pub mod boundary;
pub mod brackets;
pub mod enough;
pub mod filters;
pub mod layouts;
pub mod pace;
pub mod place;
pub mod reuse;
pub mod running;
pub mod sentence;
pub mod shape;
pub mod site;
pub mod supersede;

mod ask;
mod drafts;
mod material;
#[cfg(test)]
mod replay;

pub use drafts::Drafts;

use std::sync::Arc;
use std::time::Instant;

use gemma_engine::{CancelFlag, Engine, Error, ErrorKind, Finished, Model, Priority};

use crate::context::index::Index;
use crate::documents::Snapshot;
use crate::prompt::Prompt;
use crate::settings::Settings;

pub use layouts::Layouts;

/// What a completion is asked for.
pub struct Request {
    /// The document with the cursor.
    pub document: Snapshot,
    /// The cursor, in characters from the start of the document.
    pub cursor: usize,
    /// Other open documents, most recently used first.
    pub others: Vec<Snapshot>,
    /// Which files of the workspace define what; `None`: nothing but open documents is looked at.
    pub index: Option<Arc<Index>>,
    /// Earlier suggestions, which the engine may try ahead.
    pub drafts: Arc<Drafts>,
    /// Where the workspace begins, for paths shown to the model.
    pub root: Option<std::path::PathBuf>,
    /// What the client's completion menu has selected, replacing this many characters before the cursor.
    pub selected: Option<(usize, String)>,
    /// Place in the queue.
    pub priority: Priority,
    /// 0: what is most likely. Any other number draws another suggestion, the same one for the same number.
    pub variant: u64,
    /// What earlier prompts showed, so that this one begins like them.
    pub layouts: Arc<Layouts>,
}

impl Request {
    /// Puts the files that define what is used at the cursor behind the open documents. Reads them where they were
    /// not read before: not for the message loop.
    pub fn look_around(&mut self) {
        /// Bytes that are read while somebody waits: some 15 ms' worth.
        const HURRIED: u64 = 64 << 10;
        let budget = if self.priority == Priority::Background { u64::MAX } else { HURRIED };
        if let Some(index) = &self.index {
            self.others.extend(index.files(&self.document, self.cursor, &self.others, budget));
        }
    }
}

/// Why a completion shows what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is something to show.
    Shown,
    /// The model had nothing to add.
    Empty,
    /// A newer request took its place, or the client cancelled it.
    Superseded,
    /// A rule took it away; see [`Answer::rule`].
    Filtered,
    /// Switched off for this document (language, glob, secret file) or by the user.
    Disabled,
    /// The model is still loading.
    Loading,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// What to insert; empty unless `reason` is [`Reason::Shown`].
    pub text: String,
    /// Characters of the document that it replaces, as offsets.
    pub range: std::ops::Range<usize>,
    /// Why.
    pub reason: Reason,
    /// The rule that filtered it, or what is switched off.
    pub rule: Option<&'static str>,
    /// What the engine did, if it was asked.
    pub finished: Option<Finished>,
    /// When its first token was there, if the engine was asked.
    pub first_token: Option<Instant>,
}

impl Answer {
    /// An answer that shows nothing.
    pub fn nothing(cursor: usize, reason: Reason, rule: Option<&'static str>) -> Self {
        let range = cursor..cursor;
        Self { text: String::new(), range, reason, rule, finished: None, first_token: None }
    }
}

/// Hears, after each token, all that has been said so far of what goes on behind the cursor: before any rule
/// has looked at it, and empty while the answer still spells the word before the cursor.
pub type Heard<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// Completes once. `cancel` stops the computing; the answer is then [`Reason::Superseded`].
///
/// Prompts are laid out on a blocking thread of the runtime, never on the caller's.
pub async fn complete(
    engine: &Engine,
    model: &Arc<Model>,
    settings: &Settings,
    request: Request,
    cancel: CancelFlag,
    heard: Heard<'_>,
) -> Result<Answer, Error> {
    let cursor = request.cursor.min(request.document.text.len_chars());
    if cancel.is_cancelled() {
        return Ok(Answer::nothing(cursor, Reason::Superseded, None));
    }
    let expected = engine.expect(request.priority);
    let drafts = Arc::clone(&request.drafts);
    let (asked_of, limits) = (model.clone(), settings.completion.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let mut request = request;
        request.look_around();
        ask::prepare(&asked_of, &limits, &request)
    });
    let prepared = prepared.await.map_err(|panic| Error::new(ErrorKind::Internal, "completion", panic))??;
    let answer = prepared.run(engine, model, &settings.completion, &cancel, heard, expected).await?;
    if let Some(finished) = &answer.finished {
        drafts.said(&drafts::vocabulary(model), &finished.tokens);
    }
    Ok(answer)
}

/// What the model would be shown for a request, and what its answer would have to begin with: the word before
/// the cursor, which is not in the prompt.
///
/// # Errors
/// The text cannot be encoded.
pub fn lay_out(
    model: &Arc<Model>,
    settings: &Settings,
    request: &Request,
) -> Result<(Prompt, String), Error> {
    Ok(ask::prepare(model, &settings.completion, request)?.into_parts())
}
