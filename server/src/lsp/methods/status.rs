//! `gemma/status`: the model, the last completion and why it shows what it shows, the settings.

use gemma_engine::CacheStatistics;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_lsp::jsonrpc::{Error, Result};

use crate::completion::sentence::off;
use crate::context::index;
use crate::documents::Snapshot;
use crate::lsp::Server;
use crate::lsp::host;
use crate::lsp::record::Summary;
use crate::lsp::session::{Config, Session};
use crate::settings::{Settings, Trigger};

/// The document that is asked about. Whatever else the parameters are is no reason to say nothing.
#[derive(Deserialize)]
#[serde(from = "Value")]
pub(in crate::lsp) struct Params {
    uri: Option<String>,
}

impl From<Value> for Params {
    fn from(params: Value) -> Self {
        Self { uri: params["textDocument"]["uri"].as_str().map(str::to_owned) }
    }
}

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
    /// The definitions of the workspace.
    index: index::Status,
    /// Of the document that was asked about.
    document: Option<Document>,
    settings: &'a Settings,
    /// What is wrong in the settings, in sentences.
    problems: Vec<String>,
}

/// What the engine does now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Engine {
    /// Computations going on that somebody waits for, or may wait for in a moment.
    running: usize,
    /// Computations going on ahead of time.
    ahead: usize,
    /// Bytes kept for reuse, pictures included.
    cache_bytes: Option<u64>,
    /// What is kept of prompts, and what it was good for.
    cache: Option<CacheStatistics>,
}

/// Whether something is completed in a document by itself.
#[derive(Serialize)]
struct Document {
    /// The rule by which it is not.
    off: Option<&'static str>,
    /// The same for people.
    sentence: Option<&'static str>,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    let session = &server.0;
    let cache = match session.host.current() {
        None => None,
        Some(model) => tokio::task::spawn_blocking(move || model.cache()).await.ok(),
    };
    let config = session.config();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        model: session.host.status(),
        chat: session.talkers.status(),
        pictures: session.viewers.status(),
        engine: Engine {
            running: session.running.count(),
            ahead: session.ahead.running.count(),
            cache_bytes: cache.map(|cache| cache.bytes + cache.picture_bytes),
            cache,
        },
        completions: session.record.summary(),
        index: session.index.status(),
        document: params.uri.map(|uri| document(session, &config, &uri)),
        settings: &config.settings,
        problems: config.problems.iter().map(ToString::to_string).collect(),
    };
    serde_json::to_value(status).map_err(|_| Error::internal_error())
}

fn document(session: &Session, config: &Config, uri: &str) -> Document {
    // One that is not open is judged by its name.
    let document = session.documents.snapshot(uri).unwrap_or_else(|| Snapshot::new(uri, "", ""));
    let manual = (config.settings.trigger == Trigger::Manual).then_some("trigger");
    let rule = config.permission.refusal(&document).or(manual);
    Document { off: rule, sentence: rule.map(off) }
}
