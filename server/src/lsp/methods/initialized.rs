//! `initialized`: from now on the server speaks by itself. It asks for the configuration and then loads
//! the model that it names.

use std::sync::Arc;
use std::time::Duration;

use tower_lsp::gen_lsp_types::{InitializedParams, Registration};

use super::did_change_configuration::pull;
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
    if agreed.register_configuration {
        tokio::spawn(register(session.clone()));
    }
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

/// Asks the client to tell of configuration changes, as some do only when asked.
async fn register(session: Arc<Session>) {
    let registration = Registration {
        id: "gemma-ls/configuration".into(),
        method: "workspace/didChangeConfiguration".into(),
        register_options: Some(serde_json::json!({"section": "gemma"})),
    };
    if let Err(error) = session.client.register_capability(vec![registration]).await {
        tracing::warn!("the client will not tell of configuration changes: {error}");
    }
}
