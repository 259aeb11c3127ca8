//! `gemma/status`: the model, the last completion and why it shows what it shows, the settings.

use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::Value;
use tower_lsp::jsonrpc::{Error, Result};

use crate::lsp::Server;
use crate::lsp::host;
use crate::lsp::record::Summary;
use crate::lsp::session::Session;
use crate::settings::Settings;

/// The answer to `gemma/status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    version: &'static str,
    model: host::Status,
    /// The model that answers questions; nothing before its first use.
    chat: Option<host::Status>,
    /// The model that looks at pictures; nothing before its first use.
    pictures: Option<host::Status>,
    engine: Engine,
    completions: Summary,
    settings: &'a Settings,
    /// What is wrong in the settings, in sentences.
    problems: Vec<String>,
}

/// What the engine does now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Engine {
    /// Computations going on.
    running: usize,
    /// Bytes kept for reuse.
    cache_bytes: Option<u64>,
}

/// Whatever the parameters are: there is nothing to say in them.
#[derive(serde::Deserialize)]
#[serde(from = "Value")]
pub(in crate::lsp) struct Anything;

impl From<Value> for Anything {
    fn from(_: Value) -> Self {
        Self
    }
}

pub(in crate::lsp) async fn handle(server: &Server, _: Anything) -> Result<Value> {
    of(&server.0).await
}

pub(super) async fn of(session: &Session) -> Result<Value> {
    let cache_bytes = match session.host.current() {
        None => None,
        Some(model) => tokio::task::spawn_blocking(move || model.cache_bytes()).await.ok(),
    };
    let config = session.config();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        model: session.host.status(),
        chat: session.talkers.status(),
        pictures: session.viewers.status(),
        engine: Engine { running: session.running.load(Ordering::SeqCst), cache_bytes },
        completions: session.record.summary(),
        settings: &config.settings,
        problems: config.problems.iter().map(ToString::to_string).collect(),
    };
    serde_json::to_value(status).map_err(|_| Error::internal_error())
}
