//! `workspace/executeCommand`: our own requests, for clients that know only the protocol's.

use tower_lsp::gen_lsp_types::{ExecuteCommandParams, LspAny};
use tower_lsp::jsonrpc::{Error, Result};

use super::status;
use crate::lsp::Server;

/// The commands there are.
pub(super) const COMMANDS: &[&str] = &["gemma.status"];

pub(in crate::lsp) async fn handle(server: &Server, params: ExecuteCommandParams) -> Result<Option<LspAny>> {
    match params.command.as_str() {
        "gemma.status" => status::of(&server.0).await.map(Some),
        other => {
            Err(Error::invalid_params(format!("no command {other:?}; there are: {}", COMMANDS.join(", "))))
        }
    }
}
