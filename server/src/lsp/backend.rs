//! What the protocol side asks of the model side: load models, complete with them, talk to them, show them
//! pictures. Behind traits, so that everything about the protocol is tested without a model.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use gemma_engine::{CacheStatistics, CancelFlag, Error, Finished, Picture};

use crate::chat::{ChatRequest, Conversation, Dropped};
use crate::completion::{self, Answer, Request};
use crate::explain;
use crate::settings::Settings;

/// A future of a trait's method.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a load does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Doing {
    #[default]
    Loading,
    /// There is no model on this machine and none is configured: the default one is fetched.
    Downloading,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub(super) doing: Doing,
    /// Units done.
    pub(super) done: u64,
    /// Units in all; 0 while that is not known.
    pub(super) total: u64,
}

impl Progress {
    /// Whole percent, once the total is known.
    pub(super) fn percent(self) -> Option<u32> {
        let percent = self.done.saturating_mul(100).checked_div(self.total)?;
        Some(u32::try_from(percent.min(100)).unwrap_or(100))
    }
}

/// Makes models out of settings. Each method blocks for as long as a load takes; a model that is there
/// already is not loaded again.
pub(super) trait Backend: Send + Sync + 'static {
    /// Loads the model that completes.
    fn load(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Completer>, Error>;

    /// Loads the model that answers questions.
    fn talker(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Talker>, Error>;

    /// Loads the model that looks at pictures, and the one that writes about them.
    fn viewer(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Viewer>, Error>;
}

/// A loaded model.
pub(super) trait Resident: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> &str;
    /// Where it computes, in words.
    fn device(&self) -> String;
    /// Bytes its weights take in memory.
    fn weight_bytes(&self) -> u64;
}

/// A model that completes.
pub(super) trait Completer: Resident {
    /// What is kept for reuse and what it was good for. Blocks for as long as a step of the model takes.
    fn cache(&self) -> CacheStatistics;
    /// Completes once; `cancel` stops the computing, `heard` is told of the text as it comes.
    fn complete<'a>(
        &'a self,
        settings: &'a Settings,
        request: Request,
        cancel: CancelFlag,
        heard: completion::Heard<'a>,
    ) -> Pending<'a, Result<Answer, Error>>;
}

/// What is heard of an answer while it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'t> {
    /// The question is on its way: what the model is shown.
    Shown(Shown),
    /// A piece of the answer.
    Text(&'t str),
}

/// What a model is shown with a question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) prompt_tokens: usize,
    /// Earlier questions.
    pub(super) turns: usize,
    pub(super) dropped: Dropped,
}

/// A model that answers questions.
pub(super) trait Talker: Resident {
    /// Whether it was tuned to do as it is told.
    fn follows_instructions(&self) -> bool;
    /// Answers on this thread, for as long as that takes; `cancel` stops it. The question and what was said
    /// of the answer are then in the conversation.
    fn ask(
        &self,
        conversation: &mut Conversation,
        request: ChatRequest,
        cancel: CancelFlag,
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Finished, Error>;
}

/// What was seen in a picture.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) answer: explain::Answer,
    pub(super) tiles: usize,
}

/// A model that looks at pictures.
pub(super) trait Viewer: Resident {
    /// The model that writes the explanation, where that is another one.
    fn writer(&self) -> Option<&str>;
    /// Explains on this thread, for as long as that takes; `cancel` stops it. What was read of a picture is
    /// kept for the next question about it.
    fn explain(
        &self,
        picture: Arc<Picture>,
        question: Option<&str>,
        cancel: CancelFlag,
        progress: explain::OnProgress<'_>,
    ) -> Result<Seen, Error>;
}
