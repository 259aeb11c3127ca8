//! One completion, from a client's request to an answer: the part that ghost text and menus share.
//!
//! **Invariants.**
//! - What a request is about (the document as it is, its place in line) is settled before the first
//!   wait; messages that come later do not change it.
//! - When a request is answered, given up or cancelled, nothing goes on computing for it.
//! - An answer belongs to the text that the document has when it is given, or it is empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gemma_engine::{CancelFlag, Error, ErrorKind, Priority};
use tokio::sync::watch;
use tower_lsp::jsonrpc;

use crate::completion::supersede::{Slots, Ticket};
use crate::completion::{Answer, Reason, Request};
use crate::documents::Snapshot;
use crate::settings::Trigger;
use crate::text::{Position, Range, offset_of, offsets_of};

use super::backend::Completer;
use super::host::closed;
use super::record::{Cost, Record};
use super::session::{Config, Session};

/// After an edit, a client that follows its user sends its next request within this time.
const SETTLE: Duration = Duration::from_millis(15);

/// A client's request.
pub(super) struct Ask<'a> {
    /// The protocol's method.
    pub(super) method: &'static str,
    /// The requests that it competes with.
    pub(super) slots: &'a Slots,
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
            let cost = Cost::of(answer, entry.begun);
            entry.close(answer);
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
    fn close(&mut self, answer: &Answer) {
        self.open = false;
        self.record.answered(self.method, answer, self.begun.elapsed());
    }

    fn fail(&mut self, error: &Error) {
        self.open = false;
        self.record.failed(self.method, error.to_string(), self.begun.elapsed());
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
    let ticket = ask.slots.begin(&job.document.uri);
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
            answers = job.answers(session, &config, &completer, remembered) => End::Answers(Box::new(answers?)),
            () = given_up(&ticket, &mut closing) => End::GivenUp,
            () = edited(session, &job.document, &mut edits) => End::Edited,
        };
        match end {
            End::GivenUp => return Ok(Some(job.nothing(Reason::Superseded, None))),
            End::Answers(answers) => {
                let (answer, others) = *answers;
                if is_newest(session, &job.document) {
                    return Ok(Some(job.told(answer, others)));
                }
            }
            End::Edited => tokio::select! {
                () = given_up(&ticket, &mut closing) => {
                    return Ok(Some(job.nothing(Reason::Superseded, None)));
                }
                () = tokio::time::sleep(SETTLE) => {}
            },
        }
        let Some(document) = session.documents.snapshot(ask.uri) else { break };
        job = Job::new(session, ask, document);
    }
    Ok(Some(job.nothing(Reason::Superseded, Some("edited"))))
}

enum End {
    /// A suggestion, and others.
    Answers(Box<(Answer, Vec<Answer>)>),
    /// A newer request has come, or the conversation ends.
    GivenUp,
    /// The text is not the newest any more.
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
struct Job {
    document: Snapshot,
    cursor: usize,
    selected: Option<(usize, String)>,
}

impl Job {
    fn new(session: &Session, ask: &Ask<'_>, document: Snapshot) -> Self {
        let encoding = session.agreed().encoding;
        let cursor = offset_of(&document.text, ask.position, encoding);
        let selected = ask.selected.as_ref().and_then(|(range, text)| {
            let range = offsets_of(&document.text, *range, encoding);
            // A selection that is not about the text at the cursor is no help.
            let replaced = cursor.checked_sub(range.start).filter(|_| range.end >= cursor)?;
            Some((replaced, text.clone()))
        });
        Self { document, cursor, selected }
    }

    fn nothing(self, reason: Reason, rule: Option<&'static str>) -> Told {
        let answer = Answer::nothing(self.cursor, reason, rule);
        self.told(answer, Vec::new())
    }

    fn told(self, answer: Answer, others: Vec<Answer>) -> Told {
        Told { document: self.document, cursor: self.cursor, answer, others }
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

    fn remember(&self, session: &Session, answer: &Answer) {
        if self.selected.is_none() {
            session.recent.keep(&self.document, self.cursor, answer);
        }
    }

    /// The suggestion, and others where there is one already.
    async fn answers(
        &self,
        session: &Arc<Session>,
        config: &Config,
        completer: &Arc<dyn Completer>,
        remembered: Option<Answer>,
    ) -> Result<(Answer, Vec<Answer>), Error> {
        /// So many are drawn: the user waits for all of them.
        const OTHERS: u64 = 2;
        let Some(first) = remembered else {
            let answer = self.compute(session, config, completer, 0).await?;
            self.remember(session, &answer);
            return Ok((answer, Vec::new()));
        };
        let mut others: Vec<Answer> = Vec::new();
        for variant in 1..=OTHERS {
            let answer = self.compute(session, config, completer, variant).await?;
            let known = others.iter().chain([&first]).any(|one| one.text == answer.text);
            if answer.reason == Reason::Shown && !known {
                others.push(answer);
            }
        }
        Ok((first, others))
    }

    /// Computes in a task of its own. Dropping this stops that.
    async fn compute(
        &self,
        session: &Arc<Session>,
        config: &Config,
        completer: &Arc<dyn Completer>,
        variant: u64,
    ) -> Result<Answer, Error> {
        let others = session.documents.others(&self.document.uri);
        let request = Request {
            document: self.document.clone(),
            cursor: self.cursor,
            others: others.into_iter().filter(|o| config.permission.may_be_read(&o.location())).collect(),
            index: Some(Arc::clone(&session.index)),
            root: self.document.path.as_deref().and_then(|path| session.root_of(path)),
            selected: self.selected.clone(),
            priority: Priority::Completion,
            variant,
            layouts: Arc::clone(&session.layouts),
        };
        let flag = CancelOnDrop(CancelFlag::new());
        let (completer, settings, cancel) = (completer.clone(), config.settings.clone(), flag.0.clone());
        let running = (session.running.begin(), session.index.rest());
        let task = tokio::spawn(async move {
            let _running = running;
            completer.complete(&settings, request, cancel, Box::new(|_| {})).await
        });
        match task.await {
            Ok(Err(error)) if error.kind() == ErrorKind::Stopped => {
                Ok(Answer::nothing(self.cursor, Reason::Superseded, Some("stopped")))
            }
            Ok(result) => result,
            Err(panic) => Err(Error::new(ErrorKind::Internal, "completion", panic)
                .remedy("This is a bug in gemma-ls; please report it.")),
        }
    }
}

/// Stops the computing when nobody waits for it any more.
pub(super) struct CancelOnDrop(pub(super) CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
