//! Work that nobody waits for yet, one piece at a time, behind everything that somebody waits for:
//!
//! - **Warm-up.** The prompt of the place where the user is, when a document is opened, comes to the front, or the
//!   cursor rests somewhere else, and when the model is ready at last. The next keystroke finds it in the
//!   engine's cache.
//! - **One step ahead.** What would be suggested once the suggestion on the screen is accepted. It is remembered as
//!   if it had been shown, and served at once when the text has come to that.
//!
//! **Invariants.**
//! - A warm-up ends with the first edit of any document, one step ahead with the first edit that leads elsewhere;
//!   both end when something is begun for a request.
//! - Nothing is done where completion is off, nor with the setting `aheadOfTime` off.
//! - Nothing here leads to more of it: a step ahead of a step ahead waits until the first one is shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gemma_engine::{CancelFlag, Priority};
use ropey::Rope;

use crate::completion::place::Place;
use crate::completion::{Answer, Reason, Request};
use crate::documents::Snapshot;
use crate::settings::Settings;
use crate::text::{Position, offset_of};

use super::ask::request;
use super::backend::Completer;
use super::compute::{Work, complete};
use super::host::closed;
use super::running::Running;
use super::session::{Config, Session};

/// Editors open several documents at once, and tell where the cursor is only then.
const SETTLE: Duration = Duration::from_millis(30);

/// What is done ahead of time in one session.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// Computations going on.
    pub(super) running: Running,
}

#[derive(Default)]
struct State {
    /// Where the user was last seen.
    front: Option<(String, Position)>,
    /// What is done, or was done last and has not become useless since.
    now: Option<Task>,
}

struct Task {
    uri: Arc<str>,
    cancel: CancelFlag,
    /// `None` for a warm-up.
    step: Option<Step>,
}

/// From a suggestion to the text that it leads to.
struct Step {
    from: Place,
    /// Characters of the document before.
    length: usize,
    suggestion: String,
    to: Rope,
}

impl Step {
    /// Whether a text is on the way.
    fn leads_through(&self, text: &Rope) -> bool {
        let typed = self.from.grown(text, self.length);
        *text == self.to || typed.iter().any(|typed| self.suggestion.starts_with(&typed.text))
    }
}

impl State {
    fn stop(&mut self) {
        if let Some(task) = self.now.take() {
            task.cancel.cancel();
        }
    }

    /// Whether a text leaves what is being done of use.
    fn agrees(&self, document: &Snapshot) -> bool {
        let Some(Task { uri, step: Some(step), .. }) = &self.now else { return false };
        *uri == document.uri && step.leads_through(&document.text)
    }
}

impl Ahead {
    /// Ends what is being done.
    pub(super) fn stop(&self) {
        self.lock().stop();
    }

    /// The text of a document has changed.
    pub(super) fn edited(&self, document: &Snapshot) {
        let mut state = self.lock();
        if !state.agrees(document) {
            state.stop();
        }
    }

    /// A document is closed.
    pub(super) fn close(&self, uri: &str) {
        let mut state = self.lock();
        state.front.take_if(|(front, _)| front == uri);
        if state.now.as_ref().is_some_and(|task| &*task.uri == uri) {
            state.stop();
        }
    }

    /// Notes where the user is.
    pub(super) fn seen(&self, uri: &str, position: Position) {
        self.lock().front = Some((uri.to_owned(), position));
    }

    /// Whether a step to this text was taken already.
    fn is_taken(&self, to: &Rope) -> bool {
        let state = self.lock();
        let step = state.now.as_ref().and_then(|task| task.step.as_ref());
        step.is_some_and(|step| step.to == *to)
    }

    /// A new task in place of the one before it.
    fn begin(&self, uri: &Arc<str>, step: Option<Step>) -> CancelFlag {
        let cancel = CancelFlag::new();
        let mut state = self.lock();
        state.stop();
        state.now = Some(Task { uri: uri.clone(), cancel: cancel.clone(), step });
        cancel
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user is somewhere else now, by something other than typing.
pub(super) fn moved(session: &Arc<Session>, uri: &str, position: Position) {
    session.ahead.seen(uri, position);
    warm_up(session);
}

/// Computes the prompt of the place where the user is.
fn warm_up(session: &Arc<Session>) {
    let Some((uri, position)) = session.ahead.lock().front.clone() else { return };
    let Some(document) = session.documents.snapshot(&uri) else { return };
    let Some((config, completer)) = allowed(session, &document) else { return };
    let cancel = begin(session, &document, None);
    let cursor = offset_of(&document.text, position, session.agreed().encoding);
    let session = session.clone();
    tokio::spawn(async move {
        let mut closing = session.closing.subscribe();
        tokio::select! {
            () = tokio::time::sleep(SETTLE) => {}
            () = closed(&mut closing) => return,
        }
        // The engine reads a prompt for the sake of a token.
        let mut settings = Settings::clone(&config.settings);
        settings.completion.max_tokens = 1;
        let request = request(&session, &config, &document, cursor, None, Priority::Background, 0);
        work(&session, Work { settings: Arc::new(settings), completer, request }, cancel).await;
    });
}

/// Computes what would be suggested once a suggestion is accepted.
pub(super) fn one_step(session: &Arc<Session>, document: &Snapshot, answer: &Answer) {
    let Some((config, completer)) = allowed(session, document) else { return };
    let there = document.with(answer.range.clone(), &answer.text);
    let cursor = answer.range.start + answer.text.chars().count();
    // The rest of a suggestion leads where the suggestion does.
    if session.ahead.is_taken(&there.text) || session.recent.serve(&there, cursor).is_some() {
        return;
    }
    let step = Step {
        from: Place::new(&document.text, answer.range.start),
        length: document.text.len_chars(),
        suggestion: answer.text.clone(),
        to: there.text.clone(),
    };
    let cancel = begin(session, document, Some(step));
    let session = session.clone();
    tokio::spawn(async move {
        let request = request(&session, &config, &there, cursor, None, Priority::Background, 0);
        // The user may never come there: prompts of other places are laid out as before.
        let request = Request { layouts: Arc::new(session.layouts.fork()), ..request };
        let step = Work { settings: config.settings.clone(), completer, request };
        if let Some(answer) = work(&session, step, cancel).await {
            session.recent.keep(&there, cursor, &answer);
        }
    });
}

/// Begins a task for a document, which may have been edited since it was looked at.
fn begin(session: &Session, document: &Snapshot, step: Option<Step>) -> CancelFlag {
    let cancel = session.ahead.begin(&document.uri, step);
    match session.documents.snapshot(&document.uri) {
        Some(now) if now.revision == document.revision => {}
        Some(now) => session.ahead.edited(&now),
        None => session.ahead.stop(),
    }
    cancel
}

/// With what something may be done ahead of time for a document.
fn allowed(session: &Session, document: &Snapshot) -> Option<(Arc<Config>, Arc<dyn Completer>)> {
    let config = session.config();
    let is_on = config.settings.ahead_of_time && config.permission.refusal(document).is_none();
    Some((config, session.host.current()?)).filter(|_| is_on)
}

/// Computes behind everything that somebody waits for. `None` unless it came to its end.
async fn work(session: &Session, work: Work, cancel: CancelFlag) -> Option<Answer> {
    if cancel.is_cancelled() {
        return None;
    }
    let _running = (session.ahead.running.begin(), session.index.rest());
    let mut closing = session.closing.subscribe();
    let answer = complete(work, cancel.clone(), Box::new(|_| {}), closed(&mut closing)).await;
    let answer = answer.inspect_err(|error| tracing::debug!("ahead of time: {error}")).ok()?;
    if let Some(finished) = &answer.finished {
        session.record.computed_ahead(&finished.timings);
    }
    (answer.reason != Reason::Superseded && !cancel.is_cancelled()).then_some(answer)
}

/// Warms up where the user is whenever there is a new model, for as long as the session lasts.
pub(super) async fn keep_warm(session: Arc<Session>) {
    let mut changes = session.host.changes();
    let mut closing = session.closing.subscribe();
    let work = async {
        let mut last: Option<Weak<dyn Completer>> = None;
        loop {
            let now = session.host.current().map(|model| Arc::downgrade(&model));
            if let Some(model) = now
                && !last.as_ref().is_some_and(|last| last.ptr_eq(&model))
            {
                last = Some(model);
                warm_up(&session);
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = closed(&mut closing) => {}
    }
}
