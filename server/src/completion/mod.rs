//! Completing at the cursor: when to ask, what to ask, when it is enough, what to cut from the answer.

use std::sync::Arc;

use gemma_engine::{CancelFlag, Engine, Error, Finished, Model, Priority};

use crate::documents::Snapshot;
use crate::settings::Settings;

/// What a completion is asked for.
pub struct Request {
    /// The document with the cursor.
    pub document: Snapshot,
    /// The cursor, in characters from the start of the document.
    pub cursor: usize,
    /// Other open documents, most recently used first.
    pub others: Vec<Snapshot>,
    /// Where the workspace begins, for paths shown to the model.
    pub root: Option<std::path::PathBuf>,
    /// What the client's completion menu has selected, replacing this many characters before the cursor.
    pub selected: Option<(usize, String)>,
    /// Place in the queue.
    pub priority: Priority,
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
}

/// Completes once. `cancel` stops the computing; the answer is then [`Reason::Superseded`].
pub async fn complete(
    engine: &Engine,
    model: &Arc<Model>,
    settings: &Settings,
    request: Request,
    cancel: CancelFlag,
) -> Result<Answer, Error> {
    let _ = (engine, model, settings, request, cancel);
    todo!("being written")
}
