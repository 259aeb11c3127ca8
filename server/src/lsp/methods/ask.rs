//! `gemma.ask`: a code action's question, for clients that leave showing the answer to the server: an edit is
//! applied, text is opened as a document, or told where the client opens none.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tempfile::TempPath;
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::{Error, Result};

use super::chat;
use crate::documents::uri_of;
use crate::lsp::session::Session;
use crate::lsp::{Server, host};
use crate::models::follows_instructions;

/// Longest text in a message, in characters: it is no place to read in.
const LONGEST_MESSAGE: usize = 1_000;
/// Longest answer where the question names none, in tokens: few of these clients show how to stop one.
const MAX_TOKENS: usize = 512;

/// Answers at once, and the question later: some clients stand still until a command has ended.
pub(in crate::lsp) async fn handle(server: &Server, mut params: Value) -> Result<Value> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // A list of the fields in their order would be read as well, and has no place for more.
    let Some(fields) = params.as_object_mut() else {
        return Err(Error::invalid_params("gemma.ask wants an object with a question"));
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    fields.insert("chatId".into(), format!("gemma.ask/{number}").into());
    fields.entry("maxTokens").or_insert(MAX_TOKENS.into());
    let kind = params["kind"].as_str().unwrap_or("ask").to_owned();
    // What makes no sense is said as the answer to the command.
    let _: chat::Params = parse(params.clone())?;
    tokio::spawn(ask(server.0.clone(), params, kind));
    Ok(Value::Null)
}

fn parse(params: Value) -> Result<chat::Params> {
    serde_json::from_value(params).map_err(|error| Error::invalid_params(error.to_string()))
}

async fn ask(session: Arc<Session>, mut params: Value, kind: String) {
    if let Some(token) = host::create_progress(&session, "ask").await {
        params["workDoneToken"] = json!(token);
    }
    let chat_id = params["chatId"].as_str().unwrap_or_default().to_owned();
    let answer = match parse(params) {
        Ok(params) => chat::handle(&Server(session.clone()), params).await,
        Err(error) => Err(error),
    };
    session.chats.forget(&chat_id);
    match answer {
        // Stopped before anything was said.
        Ok(answer) if answer["text"] == "" && answer["finishReason"] == "cancelled" => {}
        Ok(answer) => show(&session, &answer, &kind).await,
        Err(error) => session.client.show_message(lsp::MessageType::Error, error.message).await,
    }
}

async fn show(session: &Session, answer: &Value, kind: &str) {
    // Nobody sees the change before it is made, so it is left to models that do what they are told.
    let instructed = answer["model"].as_str().is_some_and(follows_instructions);
    let edited = instructed && matches!(kind, "document" | "fix") && apply(session, answer).await;
    // Documentation is the code with comments: there is nothing else to read in the answer.
    if edited && kind == "document" {
        return;
    }
    let text = words(answer, kind);
    if session.agreed().show_document && open(session, &text).await {
        return;
    }
    let cut = text.char_indices().nth(LONGEST_MESSAGE).map_or(text.len(), |(at, _)| at);
    let dots = if cut < text.len() { " …" } else { "" };
    session.client.show_message(lsp::MessageType::Info, format!("{}{dots}", &text[..cut])).await;
}

/// Applies the first edit of an answer, if the document is still the one that was talked about.
async fn apply(session: &Session, answer: &Value) -> bool {
    let edits = answer["code"].as_array().into_iter().flatten();
    let Some(edit) = edits.filter_map(|code| code.get("edit")).next() else { return false };
    let uri = edit["textDocument"]["uri"].as_str().unwrap_or_default();
    let version = session.documents.snapshot(uri).map(|document| document.version);
    if !session.agreed().apply_edit || edit["textDocument"]["version"] != json!(version) {
        return false;
    }
    let (Ok(uri), Ok(text_edit)) = (
        serde_json::from_value::<lsp::Uri>(edit["textDocument"]["uri"].clone()),
        serde_json::from_value::<lsp::TextEdit>(edit.clone()),
    ) else {
        return false;
    };
    let changes = HashMap::from([(uri, vec![text_edit])]);
    let edit = lsp::WorkspaceEdit { changes: Some(changes), ..Default::default() };
    matches!(session.client.apply_edit(edit).await, Ok(answer) if answer.applied)
}

fn words(answer: &Value, kind: &str) -> String {
    let context = &answer["context"];
    let path = context["path"].as_str().unwrap_or_default();
    let lines = match (context["selection"]["first"].as_u64(), context["selection"]["last"].as_u64()) {
        (Some(first), Some(last)) if first != last => format!(", lines {first} to {last}"),
        (Some(first), _) => format!(", line {first}"),
        _ => String::new(),
    };
    let notices = answer["notices"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let notices: String = notices.map(|notice| format!("\n\n> {notice}")).collect();
    format!("# Gemma: {kind} {path}{lines}\n\n{}{notices}\n", answer["text"].as_str().unwrap_or_default())
}

/// Opens a text in the client; false where it does not.
async fn open(session: &Session, text: &str) -> bool {
    let Ok(path) = write(text) else { return false };
    let shown = session.client.show_document(lsp::ShowDocumentParams {
        uri: lsp::Uri(uri_of(&path)),
        external: None,
        take_focus: Some(true),
        selection: None,
    });
    let shown = matches!(shown.await, Ok(true));
    // Gone with the session: what is worth keeping is in the user's editor.
    session.keep(path);
    shown
}

/// A file that only this user reads.
fn write(text: &str) -> std::io::Result<TempPath> {
    let mut file = tempfile::Builder::new().prefix("gemma-").suffix(".md").tempfile()?;
    file.write_all(text.as_bytes())?;
    Ok(file.into_temp_path())
}
