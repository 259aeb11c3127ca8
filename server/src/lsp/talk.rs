//! What answers about documents and about pictures have in common: a thread that computes, a client that is
//! told meanwhile, an end for both.

use std::pin::pin;
use std::sync::Arc;

use gemma_engine::{CancelFlag, Error, ErrorKind};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower_lsp::jsonrpc;

use super::ask::failure;
use super::backend::Resident;
use super::host::{closed, doing};
use super::on_demand::{Load, OnDemand};
use super::progress::Tell;
use super::session::{Config, Session};

/// What is told while an answer is computed.
pub(super) enum Told {
    /// What the model is shown.
    Context(Value),
    /// What is being done.
    Step(String),
    /// A piece of the answer.
    Text(String),
}

/// Takes what is told; never waits.
pub(super) type Telling = UnboundedSender<Told>;

/// The model of a use, loaded when it is not there; the client is told of the load.
pub(super) async fn model<T: Resident + ?Sized + 'static>(
    session: &Session,
    config: &Config,
    models: &Arc<OnDemand<T>>,
    load: Load<T>,
    tell: &Tell,
) -> jsonrpc::Result<Arc<T>> {
    let (sender, mut progress) = mpsc::unbounded_channel();
    let getting = models.get(session.host.backend(), config.settings.clone(), load, sender);
    let telling = async {
        let mut told = None;
        while let Some(now) = progress.recv().await {
            if told != Some((now.doing, now.percent())) {
                told = Some((now.doing, now.percent()));
                tell.step(doing(now.doing), now.percent()).await;
            }
        }
    };
    let (model, ()) = tokio::join!(getting, telling);
    model.map_err(|error| refused(&error))
}

/// Does `work` on a thread of its own and tells the client what it says; all of that before this returns. The
/// end of the conversation with the editor stops it by `cancel`.
pub(super) async fn compute<T: Send + 'static>(
    session: &Session,
    tell: &Tell,
    cancel: &CancelFlag,
    work: impl FnOnce(&Telling) -> Result<T, Error> + Send + 'static,
) -> jsonrpc::Result<T> {
    let (sender, told) = mpsc::unbounded_channel();
    let running = session.running.begin();
    let working = tokio::task::spawn_blocking(move || {
        let _running = running;
        work(&sender)
    });
    let mut closing = session.closing.subscribe();
    let mut both = pin!(async { tokio::join!(working, pass_on(tell, told)) });
    let (outcome, ()) = tokio::select! {
        biased;
        both = &mut both => both,
        () = closed(&mut closing) => {
            cancel.cancel();
            both.await
        }
    };
    let outcome = outcome.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Internal, "answering", panic)
            .remedy("This is a bug in gemma-ls; please report it."))
    });
    outcome.map_err(|error| refused(&error))
}

/// Tells the client until there is no more; pieces of text that wait together go together.
async fn pass_on(tell: &Tell, mut told: UnboundedReceiver<Told>) {
    let mut text = String::new();
    while let Some(first) = told.recv().await {
        let mut next = Some(first);
        while let Some(now) = next {
            match now {
                Told::Text(piece) => text.push_str(&piece),
                other => {
                    pass_on_text(tell, &mut text).await;
                    match other {
                        Told::Context(context) => {
                            tell.partial(json!({"kind": "context", "context": context})).await;
                        }
                        Told::Step(step) => tell.step(&step, None).await,
                        Told::Text(_) => {}
                    }
                }
            }
            next = told.try_recv().ok();
        }
        pass_on_text(tell, &mut text).await;
    }
}

async fn pass_on_text(tell: &Tell, text: &mut String) {
    if !text.is_empty() {
        tell.partial(json!({"kind": "text", "text": std::mem::take(text)})).await;
    }
}

fn refused(error: &Error) -> jsonrpc::Error {
    tracing::error!("{error}");
    failure(error)
}

/// A request that makes no sense.
pub(super) fn senseless(why: impl Into<String>) -> jsonrpc::Error {
    jsonrpc::Error::invalid_params(why.into())
}
