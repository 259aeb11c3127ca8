//! `textDocument/inlineCompletion`: ghost text.

use serde::Serialize;
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use crate::completion::{Answer, Reason};
use crate::documents::Snapshot;
use crate::lsp::ask::{Ask, Outcome, Told, ask};
use crate::lsp::record::Cost;
use crate::lsp::session::Session;
use crate::lsp::{Server, ahead, convert, counting};

/// The protocol's list, and what it cost.
#[derive(Serialize)]
pub(in crate::lsp) struct List {
    items: Vec<lsp::InlineCompletionItem>,
    gemma: Cost,
}

pub(in crate::lsp) async fn handle(server: &Server, params: lsp::InlineCompletionParams) -> Result<List> {
    let session = &server.0;
    let lsp::TextDocumentPositionParams { text_document, position } = params.text_document_position_params;
    let selected = params.context.selected_completion_info;
    let automatic = params.context.trigger_kind == lsp::InlineCompletionTriggerKind::Automatic;
    let told = ask(
        session,
        Ask {
            method: "textDocument/inlineCompletion",
            lane: &session.inline,
            uri: &text_document.uri.0,
            position: convert::position(position),
            selected: selected.map(|selected| (convert::range(selected.range), selected.text)),
            automatic,
            others: !automatic,
        },
    );
    let Outcome { told, cost } = told.await?;
    if let Some(Told { document, answer, .. }) = &told
        && answer.reason == Reason::Shown
    {
        ahead::one_step(session, document, answer);
    }
    let items = told.map(|Told { document, cursor, answer, others }| {
        let answers = [answer].into_iter().chain(others);
        answers.filter_map(|answer| item(session, &document, cursor, answer)).collect()
    });
    Ok(List { items: items.unwrap_or_default(), gemma: cost })
}

fn item(
    session: &Session,
    document: &Snapshot,
    cursor: usize,
    answer: Answer,
) -> Option<lsp::InlineCompletionItem> {
    if answer.reason != Reason::Shown {
        return None;
    }
    let range = convert::line_range(&document.text, &answer.range, session.agreed().encoding)?;
    // Clients drop an item that does not begin with what it replaces up to the cursor, unless told
    // to compare something else.
    let replaced = document.text.slice(answer.range.start.min(cursor)..cursor).to_string();
    let filter_text = (!answer.text.starts_with(&replaced)).then(|| format!("{replaced}{}", answer.text));
    let command = counting::offer(session, document, &answer);
    Some(lsp::InlineCompletionItem {
        insert_text: lsp::InsertText::String(answer.text),
        filter_text,
        range: Some(range),
        command,
    })
}
