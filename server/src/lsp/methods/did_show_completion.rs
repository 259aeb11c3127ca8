//! `gemma/didShowCompletion`: a suggestion is on the screen.

use serde::Deserialize;
use tower_lsp::jsonrpc::Result;

use crate::lsp::Server;

#[derive(Deserialize)]
pub(in crate::lsp) struct Params {
    id: String,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) {
    let session = &server.0;
    if session.config().settings.statistics {
        session.counting.shown(&params.id);
    }
}

/// The same as a command.
pub(super) async fn carry_out(server: &Server, params: Params) -> Result<()> {
    handle(server, params).await;
    Ok(())
}
