//! What a request tells while it is being answered, on tokens that its client made; and how clients stop it
//! by them.
//!
//! **Invariant.** Everything told on a token is written before the answer: it goes the way of the answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gemma_engine::CancelFlag;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, WeakSender};
use tower_lsp::gen_lsp_types::ProgressToken;

use super::dispatch;

/// The queue of messages to the client. What is put into it is written in this order, and before the answers
/// that come later.
#[derive(Clone)]
pub(super) struct Outbox(WeakSender<Vec<u8>>);

impl Outbox {
    /// Weak: the queue ends when the conversation does, whoever still has something to say.
    pub(super) fn new(queue: &Sender<Vec<u8>>) -> Self {
        Self(queue.downgrade())
    }

    /// Queues a notification.
    pub(super) async fn notify(&self, method: &str, params: impl Serialize) {
        if let Some(queue) = self.0.upgrade() {
            dispatch::send(&queue, &json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
        }
    }

    async fn progress(&self, token: &ProgressToken, value: Value) {
        self.notify("$/progress", json!({"token": token, "value": value})).await;
    }
}

/// What can be stopped by `window/workDoneProgress/cancel`.
#[derive(Clone, Default)]
pub(super) struct Stoppable(Arc<Mutex<HashMap<String, CancelFlag>>>);

impl Stoppable {
    /// Stops what goes on under a token; nothing where that has ended.
    pub(super) fn stop(&self, token: &ProgressToken) {
        if let Some(flag) = self.lock().get(&key(token)) {
            flag.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancelFlag>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number 1 and the text "1" are two tokens.
fn key(token: &ProgressToken) -> String {
    json!(token).to_string()
}

/// Tells of one request. Dropped unanswered, it still ends what it began.
pub(super) struct Tell {
    outbox: Outbox,
    partial: Option<ProgressToken>,
    work: Option<ProgressToken>,
    stoppable: Stoppable,
}

impl Tell {
    /// Begins. `cancel` is what stops the request.
    pub(super) async fn begin(
        outbox: &Outbox,
        stoppable: &Stoppable,
        (partial, work): (Option<ProgressToken>, Option<ProgressToken>),
        title: &str,
        cancel: &CancelFlag,
    ) -> Self {
        let tell = Self { outbox: outbox.clone(), partial, work, stoppable: stoppable.clone() };
        tell.say_begin(json!({"kind": "begin", "title": title, "cancellable": true}), cancel).await;
        tell
    }

    /// Begins what tells its percent: a client may ignore them where none are announced.
    pub(super) async fn begin_counted(
        outbox: &Outbox,
        stoppable: &Stoppable,
        work: Option<ProgressToken>,
        title: &str,
        cancel: &CancelFlag,
    ) -> Self {
        let tell = Self { outbox: outbox.clone(), partial: None, work, stoppable: stoppable.clone() };
        let begin = json!({"kind": "begin", "title": title, "cancellable": true, "percentage": 0});
        tell.say_begin(begin, cancel).await;
        tell
    }

    async fn say_begin(&self, begin: Value, cancel: &CancelFlag) {
        if let Some(token) = &self.work {
            self.stoppable.lock().insert(key(token), cancel.clone());
            self.outbox.progress(token, begin).await;
        }
    }

    /// What is being done, and how far it is.
    pub(super) async fn step(&self, message: &str, percent: Option<u32>) {
        let (mut report, mut step) =
            (json!({"kind": "report", "message": message}), json!({"kind": "step", "message": message}));
        if let Some(percent) = percent {
            report["percentage"] = percent.into();
            step["percent"] = percent.into();
        }
        if let Some(token) = &self.work {
            self.outbox.progress(token, report).await;
        }
        self.partial(step).await;
    }

    /// A part of the answer.
    pub(super) async fn partial(&self, value: Value) {
        if let Some(token) = &self.partial {
            self.outbox.progress(token, value).await;
        }
    }

    /// Ends, before the answer.
    pub(super) async fn end(mut self) {
        if let Some(token) = self.work.take() {
            self.stoppable.lock().remove(&key(&token));
            self.outbox.progress(&token, json!({"kind": "end"})).await;
        }
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        if let Some(token) = self.work.take() {
            self.stoppable.lock().remove(&key(&token));
            let outbox = self.outbox.clone();
            tokio::spawn(async move { outbox.progress(&token, json!({"kind": "end"})).await });
        }
    }
}
