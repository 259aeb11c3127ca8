//! `workspace/didChangeConfiguration`, and the configuration pulled from the client.

use std::sync::Arc;

use serde_json::Value;
use tower_lsp::gen_lsp_types::{ConfigurationItem, DidChangeConfigurationParams};

use crate::lsp::Server;
use crate::lsp::session::Session;

pub(in crate::lsp) async fn handle(server: &Server, params: DidChangeConfigurationParams) {
    let session = &server.0;
    let says_nothing = match &params.settings {
        Value::Object(settings) => settings.is_empty(),
        other => other.is_null(),
    };
    let number = session.ask_for_configuration();
    if !says_nothing {
        session.set_configuration(number, params.settings);
    } else if session.agreed().configuration {
        // Awaiting the client here would hold up its own messages.
        tokio::spawn(pull(session.clone(), number));
    }
}

/// Asks the client for our section; attempt `number` of [`Session::ask_for_configuration`].
pub(in crate::lsp) async fn pull(session: Arc<Session>, number: u64) {
    let item = ConfigurationItem { scope_uri: None, section: Some("gemma".into()) };
    match session.client.configuration(vec![item]).await {
        Ok(answer) => {
            let section = answer.into_iter().next().unwrap_or_default();
            session.set_configuration(number, section);
        }
        Err(error) => tracing::warn!("the client does not tell its configuration: {error}"),
    }
}
