//! `gemma/statistics`: what was shown and taken on this machine, all editors together.

use serde_json::Value;
use tower_lsp::jsonrpc::{Error, Result};

use crate::lsp::Server;
use crate::lsp::ask::failure;

pub(in crate::lsp) async fn handle(server: &Server, params: Value) -> Result<Value> {
    let reset = params["reset"].as_bool().unwrap_or(false);
    let store = server.0.counting.store();
    // The file may be on a slow disk, or locked.
    let all = tokio::task::spawn_blocking(move || if reset { store.reset() } else { Ok(store.read()) });
    let all = all.await.map_err(|_| Error::internal_error())?;
    Ok(all.map_err(|error| failure(&error))?.to_json())
}
