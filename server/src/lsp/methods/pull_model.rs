//! `gemma/pullModel`: downloads a model, and tells how far it is.

use gemma_engine::checkpoint::{self, Found, PullProgress};
use gemma_engine::{CancelFlag, Error, ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower_lsp::gen_lsp_types::ProgressToken;
use tower_lsp::jsonrpc::{self, ErrorCode, Result};

use crate::lsp::Server;
use crate::lsp::ask::{CancelOnDrop, failure};
use crate::lsp::host::closed;
use crate::lsp::progress::Tell;
use crate::lsp::session::Session;
use crate::models::pulling;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    name: String,
    work_done_token: Option<ProgressToken>,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    let session = &server.0;
    let stop = CancelOnDrop(CancelFlag::new());
    let (title, token) = (format!("Downloading {}", params.name), params.work_done_token);
    let tell = Tell::begin_counted(&session.outbox, &session.stoppable, token, &title, &stop.0).await;
    let pulled = pull(session, params.name, &stop.0, &tell).await;
    tell.end().await;
    match pulled {
        Ok(found) => {
            tracing::info!("{} is in {}", found.name, found.path.display());
            Ok(json!({"name": found.name, "path": found.path}))
        }
        Err(error) => {
            tracing::warn!("{error}");
            let code = match error.kind() {
                ErrorKind::Stopped => ErrorCode::RequestCancelled,
                _ => failure(&error).code,
            };
            Err(jsonrpc::Error { code, ..failure(&error) })
        }
    }
}

/// Pulls on a thread of its own, and tells meanwhile. The end of the conversation is not held up by it.
async fn pull(
    session: &Session,
    name: String,
    cancel: &CancelFlag,
    tell: &Tell,
) -> std::result::Result<Found, Error> {
    let (sender, progress) = watch::channel(None);
    let (cancel, subject) = (cancel.clone(), name.clone());
    let pulling = tokio::task::spawn_blocking(move || {
        checkpoint::pull(&name, &cancel, &mut |now| {
            sender.send_replace(Some(now));
        })
    });
    let mut closing = session.closing.subscribe();
    tokio::select! {
        (pulled, ()) = async { tokio::join!(pulling, pass_on(tell, progress)) } => {
            pulled.unwrap_or_else(|panic| {
                let error = Error::new(ErrorKind::Internal, subject, panic);
                Err(error.remedy("This is a bug in gemma-ls; please report it."))
            })
        }
        () = closed(&mut closing) => {
            Err(Error::new(ErrorKind::Stopped, subject, "the download was stopped: the editor ends"))
        }
    }
}

/// Tells the client what changes in its eyes; of what comes quickly, the last.
async fn pass_on(tell: &Tell, mut progress: watch::Receiver<Option<PullProgress>>) {
    let mut told = None;
    while progress.changed().await.is_ok() {
        let Some(now) = progress.borrow_and_update().clone() else { continue };
        let step = (pulling(&now), percent(&now));
        if told.as_ref() != Some(&step) {
            tell.step(&step.0, step.1).await;
            told = Some(step);
        }
    }
}

/// Whole percent, once the size is known.
fn percent(progress: &PullProgress) -> Option<u32> {
    let percent = progress.done_bytes.saturating_mul(100).checked_div(progress.total_bytes?)?;
    u32::try_from(percent.min(100)).ok()
}
