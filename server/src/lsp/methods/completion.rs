//! `textDocument/completion`: the same completions in a menu, for clients without ghost text.

use ropey::Rope;
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use crate::completion::Reason;
use crate::lsp::ask::{Ask, Told, ask};
use crate::lsp::session::Session;
use crate::lsp::{Server, convert, counting};

/// Longest label, in characters.
const LABEL: usize = 80;

pub(in crate::lsp) async fn handle(
    server: &Server,
    params: lsp::CompletionParams,
) -> Result<lsp::CompletionList> {
    let session = &server.0;
    let lsp::TextDocumentPositionParams { text_document, position } = params.text_document_position_params;
    // Clients say "invoked" for typing too; only a trigger for an incomplete list is surely theirs.
    let kind = params.context.map(|context| context.trigger_kind);
    let told = ask(
        session,
        Ask {
            method: "textDocument/completion",
            lane: &session.menu,
            uri: &text_document.uri.0,
            position: convert::position(position),
            selected: None,
            automatic: kind.is_some_and(|kind| kind != lsp::CompletionTriggerKind::Invoked),
            others: false,
        },
    )
    .await?
    .told;
    let disabled = told.as_ref().is_none_or(|told| told.answer.reason == Reason::Disabled);
    let item = told.and_then(|told| item(session, told));
    // Incomplete: what is right here is not what is right one letter further.
    Ok(lsp::CompletionList {
        is_incomplete: !disabled,
        items: item.into_iter().collect(),
        ..Default::default()
    })
}

fn item(session: &Session, told: Told) -> Option<lsp::CompletionItem> {
    let agreed = session.agreed();
    let Told { document, cursor, answer, .. } = told;
    if answer.reason != Reason::Shown {
        return None;
    }
    // Clients hold the word before the cursor against the item, so the item has it too.
    let start = word_start(&document.text, cursor).min(answer.range.start);
    let text = format!("{}{}", document.text.slice(start..answer.range.start), answer.text);
    let range = convert::line_range(&document.text, &(start..answer.range.end), agreed.encoding)?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let label = match line.char_indices().nth(LABEL) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    };
    Some(lsp::CompletionItem {
        label,
        kind: Some(lsp::CompletionItemKind::Text),
        detail: Some("gemma-ls".into()),
        documentation: Some(documentation(&text, &document.language_id, agreed.markdown)),
        // Behind what other servers know for certain.
        sort_text: Some("~gemma-ls".into()),
        filter_text: Some(text.lines().next().unwrap_or_default().to_owned()),
        insert_text_format: Some(lsp::InsertTextFormat::PlainText),
        insert_text_mode: Some(lsp::InsertTextMode::AsIs),
        command: counting::offer(session, &document, &answer),
        text_edit: Some(lsp::CompletionItemTextEdit::TextEdit(lsp::TextEdit { range, new_text: text })),
        ..Default::default()
    })
}

/// Where the word that ends at the cursor begins.
fn word_start(text: &Rope, cursor: usize) -> usize {
    let before = text.chars_at(cursor).reversed();
    cursor - before.take_while(|c| c.is_alphanumeric() || *c == '_').count()
}

fn documentation(text: &str, language_id: &str, markdown: bool) -> lsp::Documentation {
    if !markdown {
        return lsp::Documentation::String(text.to_owned());
    }
    // A fence longer than any in the text.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    lsp::Documentation::MarkupContent(lsp::MarkupContent {
        kind: lsp::MarkupKind::Markdown,
        value: format!("{fence}{language_id}\n{text}\n{fence}"),
    })
}
