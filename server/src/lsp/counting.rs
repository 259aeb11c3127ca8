//! What becomes of suggestions: the last ones under their ids, and the statistics made of it.
//!
//! **Invariant.** Of a suggestion each character is counted once at most, and the suggestion itself once as
//! shown and once as accepted, whatever the client tells how often.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::Notify;
use tower_lsp::gen_lsp_types::Command;

use crate::completion::Answer;
use crate::documents::Snapshot;
use crate::statistics::{Store, Taken};

use super::host::closed;
use super::session::Session;

/// Suggestions that can still be heard of. An editor shows one at a time.
const REMEMBERED: usize = 64;
/// How long numbers wait before they are written: a keystroke is no reason to.
const DELAY: Duration = Duration::from_secs(5);

/// The command of an item: whoever runs it tells that the item was accepted.
const ACCEPTED: &str = "gemma.didAcceptCompletion";

/// Counts what becomes of suggestions.
pub(super) struct Counting {
    store: Arc<Store>,
    newest_last: Mutex<VecDeque<Suggestion>>,
    next: AtomicU64,
    /// What makes ids of this process differ from those of the one before it, which a client may still have.
    process: u128,
    counted: Notify,
    complained: AtomicBool,
}

struct Suggestion {
    id: String,
    uri: Arc<str>,
    language: String,
    text: String,
    /// Characters that can still be taken: fewer where some were typed, more where they were deleted again.
    left: u64,
    /// Characters that were never counted.
    uncounted: u64,
    shown: bool,
    accepted: bool,
}

impl Counting {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let process = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        Self {
            store: Arc::new(Store::new(file)),
            newest_last: Mutex::default(),
            next: AtomicU64::new(1),
            process,
            counted: Notify::new(),
            complained: AtomicBool::new(false),
        }
    }

    /// The numbers, to be read and reset on a thread that may wait.
    pub(super) fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// Remembers what is about to be shown, and gives the command that tells that it was accepted. The rest of an
    /// earlier suggestion is that suggestion.
    fn offer(&self, document: &Snapshot, answer: &Answer) -> Command {
        let mut newest_last = self.lock();
        let goes_on = |one: &&mut Suggestion| one.uri == document.uri && one.text.ends_with(&answer.text);
        let earlier = newest_last.iter_mut().rev().find(goes_on).filter(|_| answer.rule == Some("reuse"));
        let id = match earlier {
            Some(earlier) => {
                earlier.left = characters(&answer.text);
                earlier.id.clone()
            }
            None => {
                let id = format!("{:x}-{}", self.process, self.next.fetch_add(1, Ordering::Relaxed));
                if newest_last.len() == REMEMBERED {
                    newest_last.pop_front();
                }
                let known = [document.language_id.as_ref(), document.language.id()];
                newest_last.push_back(Suggestion {
                    id: id.clone(),
                    uri: document.uri.clone(),
                    language: known.into_iter().find(|id| !id.is_empty()).unwrap_or_default().to_owned(),
                    text: answer.text.clone(),
                    left: characters(&answer.text),
                    uncounted: characters(&answer.text),
                    shown: false,
                    accepted: false,
                });
                id
            }
        };
        Command {
            title: "Count it as accepted".into(),
            command: ACCEPTED.into(),
            arguments: Some(vec![json!({"id": id, "kind": "whole"})]),
            ..Default::default()
        }
    }

    /// A suggestion is on the screen.
    pub(super) fn shown(&self, id: &str) {
        let mut newest_last = self.lock();
        if let Some(one) = newest_last.iter_mut().find(|one| one.id == id) {
            self.show(one);
        }
    }

    /// Something of a suggestion was taken: all that was left of it, or `text`.
    pub(super) fn taken(&self, id: &str, how: Taken, text: Option<&str>) {
        let mut newest_last = self.lock();
        let Some(one) = newest_last.iter_mut().find(|one| one.id == id) else { return };
        let most = one.left.min(one.uncounted);
        if most == 0 {
            return;
        }
        // Not every client tells what it shows.
        self.show(one);
        let taken = match how {
            Taken::Whole => most,
            Taken::Word | Taken::Line => text.map_or(0, characters).min(most),
        };
        one.left = if how == Taken::Whole { 0 } else { one.left - taken };
        one.uncounted -= taken;
        let first = !std::mem::replace(&mut one.accepted, true);
        self.store.count(|new| new.take(&one.language, how, taken, first));
        self.counted.notify_one();
    }

    fn show(&self, one: &mut Suggestion) {
        if !std::mem::replace(&mut one.shown, true) {
            self.store.count(|new| new.show(&one.language));
            self.counted.notify_one();
        }
    }

    /// Writes what was counted; that it cannot is logged once.
    async fn write(&self) {
        let store = self.store();
        let written = tokio::task::spawn_blocking(move || store.write()).await;
        if let Ok(Err(error)) = written
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Suggestion>> {
        // Each change is one store or adds a whole entry.
        self.newest_last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command of an item that shows an answer, where suggestions are counted.
pub(super) fn offer(session: &Session, document: &Snapshot, answer: &Answer) -> Option<Command> {
    session.config().settings.statistics.then(|| session.counting.offer(document, answer))
}

fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

/// Writes what was counted, some time later, for as long as the conversation lasts.
pub(super) async fn keep_written(session: Arc<Session>) {
    let counting = &session.counting;
    let mut closing = session.closing.subscribe();
    let work = async {
        loop {
            counting.counted.notified().await;
            tokio::time::sleep(DELAY).await;
            counting.write().await;
        }
    };
    tokio::select! {
        () = work => {}
        () = closed(&mut closing) => {}
    }
}

/// Writes what is left at the end of the conversation.
pub(super) async fn finish(session: &Session) {
    session.counting.write().await;
}
