//! `gemma/models`: which models are here, and which can be pulled.

use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Error, Result};

use crate::lsp::Server;
use crate::models;

pub(in crate::lsp) async fn handle(server: &Server, _: Value) -> Result<Value> {
    let current = server.0.host.current().map(|model| model.name().to_owned());
    // Files are opened to see what is in them.
    let offers = tokio::task::spawn_blocking(models::offers).await.map_err(|_| Error::internal_error())?;
    Ok(json!({"current": current, "models": offers}))
}
