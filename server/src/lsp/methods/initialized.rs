//! `initialized`: from now on the server speaks by itself. It asks for the configuration and then loads
//! the model that it names.

use std::sync::Arc;
use std::time::Duration;

use tower_lsp::gen_lsp_types::{InitializedParams, Registration};

use super::did_change_configuration::pull;
use super::did_change_watched_files;
use crate::lsp::session::Session;
use crate::lsp::{Server, ahead, announce, counting, host};

/// How long the model waits for a client that was asked which one it wants.
const PATIENCE: Duration = Duration::from_secs(3);

pub(in crate::lsp) async fn handle(server: &Server, _: InitializedParams) {
    if server.0.is_first_initialized() {
        tokio::spawn(start(server.0.clone()));
    }
}

async fn start(session: Arc<Session>) {
    let agreed = session.agreed();
    tokio::spawn(register(session.clone()));
    if agreed.configuration {
        let number = session.ask_for_configuration();
        let mut pulling = tokio::spawn(pull(session.clone(), number));
        // An answer that comes later is still taken.
        let _ = tokio::time::timeout(PATIENCE, &mut pulling).await;
    }
    session.start();
    tokio::spawn(announce::keep_told(session.clone()));
    tokio::spawn(ahead::keep_warm(session.clone()));
    tokio::spawn(counting::keep_written(session.clone()));
    host::keep_loaded(session).await;
}

/// Asks the client to tell of changes of the configuration and of files, as far as it does that only when asked.
async fn register(session: Arc<Session>) {
    let registration = |method: &str, options| Registration {
        id: format!("gemma-ls/{method}"),
        method: method.to_owned(),
        register_options: Some(options),
    };
    let agreed = session.agreed();
    let configuration = agreed
        .register_configuration
        .then(|| registration("workspace/didChangeConfiguration", serde_json::json!({"section": "gemma"})));
    let files = agreed
        .register_watching
        .then(|| registration("workspace/didChangeWatchedFiles", did_change_watched_files::registration()));
    for wish in [configuration, files].into_iter().flatten() {
        let method = wish.method.clone();
        if let Err(error) = session.client.register_capability(vec![wish]).await {
            tracing::warn!("the client will not send {method}: {error}");
        }
    }
}
