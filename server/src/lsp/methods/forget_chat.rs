//! `gemma/forgetChat`: a conversation ends.

use serde::Deserialize;
use serde_json::Value;
use tower_lsp::jsonrpc::Result;

use crate::lsp::Server;
use crate::lsp::session::Session;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    chat_id: String,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    of(&server.0, &params)
}

pub(super) fn of(session: &Session, params: &Params) -> Result<Value> {
    session.chats.forget(&params.chat_id);
    Ok(Value::Null)
}
