//! `gemma/forgetChat`: a conversation ends.

use serde::Deserialize;
use serde_json::Value;
use tower_lsp::jsonrpc::Result;

use crate::lsp::Server;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    chat_id: String,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    server.0.chats.forget(&params.chat_id);
    Ok(Value::Null)
}
