//! The computing of a completion: a task of its own, which goes on for as long as somebody may want it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use gemma_engine::{CancelFlag, Error, ErrorKind};

use crate::completion::running::Computing;
use crate::completion::{Answer, Heard, Reason, Request};
use crate::settings::Settings;

use super::ask::Lane;
use super::backend::Completer;
use super::host::closed;
use super::session::Session;

/// What is to be computed, and with what.
pub(super) struct Work {
    pub(super) settings: Arc<Settings>,
    pub(super) completer: Arc<dyn Completer>,
    pub(super) request: Request,
}

/// Begins to compute for a request. What is shown of it is remembered, unless it is a draw that only one request
/// sees.
pub(super) fn compute(session: &Arc<Session>, lane: &Arc<Lane>, work: Work, computing: Computing) {
    // What was computed ahead of this is in the engine's cache, and nobody waits for the rest of it.
    session.ahead.stop();
    let (session, lane) = (session.clone(), lane.clone());
    let running = (session.running.begin(), session.index.rest());
    tokio::spawn(async move {
        let _running = running;
        let (document, cursor) = (work.request.document.clone(), work.request.cursor);
        let result = run(&session, &lane, work, &computing).await;
        if let Ok(answer) = &result {
            if let Some(finished) = &answer.finished {
                session.record.computed(&finished.timings);
            }
            if computing.is_shared() && !computing.is_stopped() {
                session.recent.keep(&document, cursor, answer);
            }
        }
        computing.end(result);
    });
}

async fn run(session: &Session, lane: &Lane, work: Work, computing: &Computing) -> Result<Answer, Error> {
    let (begun, has_spoken) = (Instant::now(), AtomicBool::new(false));
    let heard = |said: &str| {
        if !said.is_empty() && !has_spoken.swap(true, Ordering::Relaxed) {
            lane.pace().answered(begun.elapsed());
        }
        computing.say(said);
    };
    let mut closing = session.closing.subscribe();
    let given_up = async {
        tokio::select! {
            () = computing.unwanted() => {}
            () = closed(&mut closing) => {}
        }
        computing.stop();
    };
    let result = complete(work, computing.flag(), Box::new(heard), given_up).await;
    if !has_spoken.load(Ordering::Relaxed) {
        match computing.is_stopped() {
            true => lane.pace().given_up(begun.elapsed()),
            false => lane.pace().answered(begun.elapsed()),
        }
    }
    result
}

/// Completes until `given_up` is done, and then until the computing has stopped.
pub(super) async fn complete(
    work: Work,
    cancel: CancelFlag,
    heard: Heard<'_>,
    given_up: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let Work { settings, completer, request } = work;
    let cursor = request.cursor;
    let completing = completer.complete(&settings, request, cancel.clone(), heard);
    let mut completing = pin!(AssertUnwindSafe(completing).catch_unwind());
    let result = tokio::select! {
        biased;
        result = &mut completing => result,
        () = given_up => {
            cancel.cancel();
            completing.await
        }
    };
    match result {
        Ok(Err(error)) if error.kind() == ErrorKind::Stopped => {
            Ok(Answer::nothing(cursor, Reason::Superseded, Some("stopped")))
        }
        Ok(result) => result,
        Err(_panic) => {
            let problem = "a bug stopped it; the log has more";
            Err(Error::new(ErrorKind::Internal, "completion", problem)
                .remedy("This is a bug in gemma-ls; please report it."))
        }
    }
}
