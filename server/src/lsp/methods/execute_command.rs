//! `workspace/executeCommand`: our own requests, for clients that know only the protocol's.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_lsp::gen_lsp_types::{ExecuteCommandParams, LspAny};
use tower_lsp::jsonrpc::{Error, Result};

use super::{
    ask, chat, did_accept_completion, did_show_completion, explain_image, forget_chat, models, pull_model,
    statistics, status,
};
use crate::lsp::Server;

/// The table of commands: each a request under its name, with its parameters as the only argument.
macro_rules! commands {
    ($($name:literal => $handle:path,)*) => {
        /// The commands there are.
        pub(super) const COMMANDS: &[&str] = &[$($name),*];

        async fn carry_out(server: &Server, command: &str, argument: Value) -> Result<LspAny> {
            match command {
                $($name => {
                    let answer = $handle(server, read(argument)?).await?;
                    serde_json::to_value(answer).map_err(|_| Error::internal_error())
                })*
                other => Err(unknown(other)),
            }
        }
    };
}

commands! {
    "gemma.ask" => ask::handle,
    "gemma.chat" => chat::handle,
    "gemma.didAcceptCompletion" => did_accept_completion::carry_out,
    "gemma.didShowCompletion" => did_show_completion::carry_out,
    "gemma.explainImage" => explain_image::handle,
    "gemma.forgetChat" => forget_chat::handle,
    "gemma.models" => models::handle,
    "gemma.pullModel" => pull_model::handle,
    "gemma.statistics" => statistics::handle,
    "gemma.status" => status::handle,
}

pub(in crate::lsp) async fn handle(server: &Server, params: ExecuteCommandParams) -> Result<LspAny> {
    let argument = params.arguments.unwrap_or_default().into_iter().next();
    carry_out(server, &params.command, argument.unwrap_or_default()).await
}

/// The parameters in an argument; none is as good as an empty object.
fn read<P: DeserializeOwned>(argument: Value) -> Result<P> {
    let argument = if argument.is_null() { json!({}) } else { argument };
    serde_json::from_value(argument).map_err(|error| Error::invalid_params(error.to_string()))
}

fn unknown(command: &str) -> Error {
    Error::invalid_params(format!("no command {command:?}; there are: {}", COMMANDS.join(", ")))
}
