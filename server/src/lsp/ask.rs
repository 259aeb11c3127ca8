//! One completion, from a client's request to an answer: the part that ghost text and menus share.
//!
//! **Invariants.**
//! - What a request is about (the document as it is, its place in line) is settled before the first
//!   wait; messages that come later do not change it.
//! - When a request is answered, given up or cancelled, nothing is computed that only it wanted.
//! - An answer belongs to the text that the document has when it is given, or it is empty.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gemma_engine::{CancelFlag, Error, ErrorKind, Priority};
use tokio::sync::watch;
use tower_lsp::jsonrpc;

use crate::completion::pace::Pace;
use crate::completion::place::Place;
use crate::completion::running::{Computing, Runs, Seat, Served};
use crate::completion::supersede::{Slots, Ticket};
use crate::completion::{Answer, Reason, Request};
use crate::documents::Snapshot;
use crate::settings::{Settings, Trigger};
use crate::text::{Position, Range, offset_of, offsets_of};

use super::backend::Completer;
use super::compute::{Work, compute};
use super::host::closed;
use super::record::{Cost, Record};
use super::session::{Config, Session};

/// After an edit, a client that follows its user sends its next request within this time.
const SETTLE: Duration = Duration::from_millis(15);

/// Completions of one kind: the requests, and what is computed for them. An editor may want both kinds at once.
#[derive(Default)]
pub(super) struct Lane {
    requests: Slots,
    runs: Runs,
    pace: Mutex<Pace>,
}

impl Lane {
    /// The text of a document has changed.
    pub(super) fn edited(&self, document: &Snapshot) {
        self.runs.edited(document);
    }

    /// A document is closed.
    pub(super) fn close(&self, uri: &str) {
        self.requests.cancel(uri);
        self.runs.stop(uri);
        self.pace().forget(uri);
    }

    /// How fast is typed and answered.
    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's request.
pub(super) struct Ask<'a> {
    /// The protocol's method.
    pub(super) method: &'static str,
    /// The requests that it competes with.
    pub(super) lane: &'a Arc<Lane>,
    pub(super) uri: &'a str,
    pub(super) position: Position,
    /// What the client's menu has selected, and where.
    pub(super) selected: Option<(Range, String)>,
    /// Whether the editor asks by itself.
    pub(super) automatic: bool,
    /// Whether the user, asking where there is a suggestion already, is to get others besides it.
    pub(super) others: bool,
}

/// An answer, with the text it belongs to.
pub(super) struct Told {
    pub(super) document: Snapshot,
    pub(super) cursor: usize,
    pub(super) answer: Answer,
    /// Other suggestions for the same place.
    pub(super) others: Vec<Answer>,
}

/// What became of a request.
pub(super) struct Outcome {
    /// `None` where the document is not known.
    pub(super) told: Option<Told>,
    pub(super) cost: Cost,
}

/// Answers a request.
///
/// # Errors
/// What the model side failed at. Nothing a client sends is an error here.
pub(super) async fn ask(session: &Arc<Session>, ask: Ask<'_>) -> jsonrpc::Result<Outcome> {
    let mut entry = Entry { record: &session.record, method: ask.method, begun: Instant::now(), open: true };
    match told(session, &ask).await {
        Ok(told) => {
            let unknown = Answer::nothing(0, Reason::Empty, Some("unknownDocument"));
            let answer = told.as_ref().map_or(&unknown, |told| &told.answer);
            let cost = entry.close(answer);
            Ok(Outcome { told, cost })
        }
        Err(error) => {
            entry.fail(&error);
            tracing::error!(method = ask.method, "{error}");
            Err(failure(&error))
        }
    }
}

/// The record of a request. One that is dropped unanswered was cancelled by the client.
struct Entry<'a> {
    record: &'a Record,
    method: &'static str,
    begun: Instant,
    open: bool,
}

impl Entry<'_> {
    fn close(&mut self, answer: &Answer) -> Cost {
        self.open = false;
        let cost = Cost::of(answer, self.begun);
        self.record.answered(self.method, answer, cost.clone());
        cost
    }

    fn fail(&mut self, error: &Error) {
        self.open = false;
        self.record.failed(self.method, error.to_string(), self.begun);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if self.open {
            self.close(&Answer::nothing(0, Reason::Superseded, Some("cancelled")));
        }
    }
}

/// The protocol's `RequestFailed`: the request was sound, and the server failed at it.
const REQUEST_FAILED: i64 = -32803;

/// An error of the model side, as the protocol has it.
pub(super) fn failure(error: &Error) -> jsonrpc::Error {
    let code = match error.kind() {
        ErrorKind::Internal => jsonrpc::ErrorCode::InternalError,
        _ => jsonrpc::ErrorCode::ServerError(REQUEST_FAILED),
    };
    jsonrpc::Error { code, message: error.to_string().into(), data: None }
}

async fn told(session: &Arc<Session>, ask: &Ask<'_>) -> Result<Option<Told>, Error> {
    let config = session.config();
    let mut edits = session.edits.subscribe();
    let mut closing = session.closing.subscribe();
    let Some(document) = session.documents.snapshot(ask.uri) else { return Ok(None) };
    let mut job = Job::new(session, ask, document);

    if let Some(rule) = config.permission.refusal(&job.document) {
        return Ok(Some(job.nothing(Reason::Disabled, Some(rule))));
    }
    let ticket = ask.lane.requests.begin(&job.document.uri);
    session.ahead.seen(ask.uri, ask.position);
    job.delay = delay(ask, &job.document.uri, &config.settings);
    if ask.automatic && config.settings.trigger == Trigger::Manual {
        return Ok(Some(job.nothing(Reason::Disabled, Some("trigger"))));
    }
    let Some(completer) = session.host.current() else {
        let rule = session.host.has_failed().then_some("loadFailed");
        return Ok(Some(job.nothing(Reason::Loading, rule)));
    };

    // Twice at most: a request may come before the edit it depends on. A client that goes on editing
    // without asking anew does not want the answer.
    for _ in 0..2 {
        let remembered = job.remembered(session);
        if let Some(answer) = remembered.clone().filter(|_| !ask.others) {
            return Ok(Some(job.told(answer, Vec::new())));
        }
        let end = tokio::select! {
            biased;
            () = given_up(&ticket, &mut closing) => End::GivenUp,
            () = edited(session, &job.document, &mut edits) => End::Edited,
            answers = job.answers(session, &config, &completer, remembered) => {
                answers?.map_or(End::Edited, |answers| End::Answers(Box::new(answers)))
            }
        };
        match end {
            End::GivenUp => return Ok(Some(job.nothing(Reason::Superseded, None))),
            End::Answers(answers) => {
                let (answer, others) = *answers;
                return Ok(Some(job.told(answer, others)));
            }
            End::Edited => {}
        }
        let Some(document) = session.documents.snapshot(ask.uri) else { break };
        let next = Job::new(session, ask, document);
        if job.is_left_behind(&next) {
            break;
        }
        tokio::select! {
            () = given_up(&ticket, &mut closing) => {
                return Ok(Some(job.nothing(Reason::Superseded, None)));
            }
            () = tokio::time::sleep(SETTLE) => {}
        }
        let Some(document) = session.documents.snapshot(ask.uri) else { break };
        job = Job::new(session, ask, document);
    }
    Ok(Some(job.nothing(Reason::Superseded, Some("edited"))))
}

/// How long the newest request waits before anything is begun for it.
fn delay(ask: &Ask<'_>, uri: &Arc<str>, settings: &Settings) -> Duration {
    let mut pace = ask.lane.pace();
    pace.asked(uri, Instant::now());
    match ask.automatic && settings.adaptive_delay {
        true => pace.delay(uri),
        false => Duration::ZERO,
    }
}

enum End {
    /// A suggestion, and others.
    Answers(Box<(Answer, Vec<Answer>)>),
    /// A newer request has come, or the conversation ends.
    GivenUp,
    /// The text is not the newest any more, or what was computed has become moot in another way.
    Edited,
}

/// Waits until nobody wants the answer any more.
async fn given_up(ticket: &Ticket, closing: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = ticket.superseded() => {}
        () = closed(closing) => {}
    }
}

/// Waits until `document` is no longer what the client has.
async fn edited(session: &Session, document: &Snapshot, edits: &mut watch::Receiver<u64>) {
    while is_newest(session, document) {
        if edits.changed().await.is_err() {
            return;
        }
    }
}

fn is_newest(session: &Session, document: &Snapshot) -> bool {
    session.documents.snapshot(&document.uri).is_some_and(|now| now.revision == document.revision)
}

/// A request applied to one text.
struct Job<'a> {
    lane: &'a Arc<Lane>,
    /// How long it waits for the next key before anything is begun for it.
    delay: Duration,
    document: Snapshot,
    cursor: usize,
    selected: Option<(usize, String)>,
}

impl<'a> Job<'a> {
    fn new(session: &Session, ask: &Ask<'a>, document: Snapshot) -> Self {
        let encoding = session.agreed().encoding;
        let cursor = offset_of(&document.text, ask.position, encoding);
        let selected = ask.selected.as_ref().and_then(|(range, text)| {
            let range = offsets_of(&document.text, *range, encoding);
            // A selection that is not about the text at the cursor is no help.
            let replaced = cursor.checked_sub(range.start).filter(|_| range.end >= cursor)?;
            Some((replaced, text.clone()))
        });
        Self { lane: ask.lane, delay: Duration::ZERO, document, cursor, selected }
    }

    fn nothing(self, reason: Reason, rule: Option<&'static str>) -> Told {
        let answer = Answer::nothing(self.cursor, reason, rule);
        self.told(answer, Vec::new())
    }

    fn told(self, answer: Answer, others: Vec<Answer>) -> Told {
        Told { document: self.document, cursor: self.cursor, answer, others }
    }

    /// Whether the user has typed on since, and the request still asks for where the cursor was: another one
    /// will come for where it is.
    fn is_left_behind(&self, next: &Self) -> bool {
        let place = Place::new(&self.document.text, self.cursor);
        let typed = place.grown(&next.document.text, self.document.text.len_chars());
        let behind = |text: &str| next.cursor == self.cursor + text.chars().count();
        !typed.is_empty() && !typed.iter().any(|typed| behind(&typed.text))
    }

    /// The rest of an earlier answer, where what was typed since agrees with it.
    fn remembered(&self, session: &Session) -> Option<Answer> {
        if self.selected.is_some() {
            return None;
        }
        let answer = session.recent.serve(&self.document, self.cursor)?;
        // Nothing was computed for this request.
        Some(Answer { rule: Some("reuse"), finished: None, first_token: None, ..answer })
    }

    /// The suggestion, and others where there is one already; `None` where what was computed for it is moot.
    async fn answers(
        &self,
        session: &Arc<Session>,
        config: &Arc<Config>,
        completer: &Arc<dyn Completer>,
        remembered: Option<Answer>,
    ) -> Result<Option<(Answer, Vec<Answer>)>, Error> {
        /// So many are drawn: the user waits for all of them.
        const OTHERS: u64 = 2;
        let work = |variant| Work {
            settings: config.settings.clone(),
            completer: completer.clone(),
            request: self.request(session, config, variant),
        };
        let Some(first) = remembered else {
            let answer = self.suggestion(session, || work(0)).await?;
            return Ok(answer.map(|answer| (answer, Vec::new())));
        };
        let mut others: Vec<Answer> = Vec::new();
        for variant in 1..=OTHERS {
            let (seat, computing) = Computing::alone(&self.document, self.cursor);
            compute(session, self.lane, work(variant), computing);
            let Some(answer) = self.served(seat).await? else { break };
            let known = others.iter().chain([&first]).any(|one| one.text == answer.text);
            if answer.reason == Reason::Shown && !known {
                others.push(answer);
            }
        }
        Ok(Some((first, others)))
    }

    /// What the document's run says, or what one that is begun for this says.
    async fn suggestion(
        &self,
        session: &Arc<Session>,
        work: impl Fn() -> Work,
    ) -> Result<Option<Answer>, Error> {
        if self.selected.is_none()
            && let Some(seat) = self.lane.runs.join(&self.document, self.cursor)
            && let Some(answer) = self.served(seat).await?
        {
            return Ok(Some(answer));
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let (seat, computing) = match self.selected.is_none() {
            true => self.lane.runs.begin(&self.document, self.cursor),
            false => Computing::alone(&self.document, self.cursor),
        };
        compute(session, self.lane, work(), computing);
        self.served(seat).await
    }

    fn request(&self, session: &Session, config: &Config, variant: u64) -> Request {
        let selected = self.selected.clone();
        request(session, config, &self.document, self.cursor, selected, Priority::Completion, variant)
    }

    async fn served(&self, seat: Seat) -> Result<Option<Answer>, Error> {
        match seat.served(&self.document, self.cursor).await {
            Served::Answer(answer) => Ok(Some(answer)),
            Served::Failed(error) => Err(error),
            Served::Nothing => Ok(None),
        }
    }
}

/// What is asked of the model.
pub(super) fn request(
    session: &Session,
    config: &Config,
    document: &Snapshot,
    cursor: usize,
    selected: Option<(usize, String)>,
    priority: Priority,
    variant: u64,
) -> Request {
    let others = session.documents.others(&document.uri);
    Request {
        document: document.clone(),
        cursor,
        others: others.into_iter().filter(|o| config.permission.may_be_read(&o.location())).collect(),
        index: Some(Arc::clone(&session.index)),
        drafts: Arc::clone(&session.drafts),
        root: document.path.as_deref().and_then(|path| session.root_of(path)),
        selected,
        priority,
        variant,
        layouts: Arc::clone(&session.layouts),
    }
}

/// Stops the computing when nobody waits for it any more.
pub(super) struct CancelOnDrop(pub(super) CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
