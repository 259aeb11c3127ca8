//! `gemma/didAcceptCompletion`: a suggestion, or a part of it, is in the text now.

use serde::Deserialize;
use tower_lsp::jsonrpc::Result;

use crate::lsp::Server;
use crate::statistics::Taken;

#[derive(Deserialize)]
pub(in crate::lsp) struct Params {
    id: String,
    kind: Taken,
    text: Option<String>,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) {
    let session = &server.0;
    if session.config().settings.statistics {
        session.counting.taken(&params.id, params.kind, params.text.as_deref());
    }
}

/// The same as a command, which items carry.
pub(super) async fn carry_out(server: &Server, params: Params) -> Result<()> {
    handle(server, params).await;
    Ok(())
}
