//! `textDocument/codeAction`: what can be asked about a selection, or about an error.
//!
//! Nothing is computed here: each action is the command `gemma.ask` with the parameters of a question.

use serde_json::{Value, json};
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use crate::lsp::Server;

/// What carries a question out.
const ASK: &str = "gemma.ask";
/// Questions about the code itself; a name of ours, so that a key can be bound to them.
const OURS: &str = "gemma";
/// Errors that are offered to be explained: a menu of more is no help.
const MOST_DIAGNOSTICS: usize = 10;
/// Longest part of an error's text in a title, in characters.
const MESSAGE: usize = 60;

/// What can be asked about a selection: the title, the kind of question, the kind of action.
const OF_SELECTION: [(&str, &str, lsp::CodeActionKind); 4] = [
    ("Gemma: explain", "explain", lsp::CodeActionKind::new("gemma.explain")),
    ("Gemma: write documentation", "document", lsp::CodeActionKind::RefactorRewrite),
    ("Gemma: find the bug", "fix", lsp::CodeActionKind::new("gemma.fix")),
    ("Gemma: write tests", "tests", lsp::CodeActionKind::RefactorRewrite),
];

/// What can be asked about an error: the title and the kind of question.
const OF_DIAGNOSTIC: [(&str, &str); 2] =
    [("Gemma: explain this error", "explain"), ("Gemma: fix this error", "fix")];

/// The kinds of actions that there are.
pub(super) fn kinds() -> Vec<lsp::CodeActionKind> {
    let (quick_fix, rewrite) = (lsp::CodeActionKind::QuickFix, lsp::CodeActionKind::RefactorRewrite);
    vec![quick_fix, rewrite, lsp::CodeActionKind::new(OURS)]
}

pub(in crate::lsp) async fn handle(server: &Server, params: lsp::CodeActionParams) -> Result<Vec<Value>> {
    let session = &server.0;
    let Some(document) = session.documents.snapshot(&params.text_document.uri.0) else {
        return Ok(Vec::new());
    };
    if !session.config().permission.may_be_read(&document.location()) {
        return Ok(Vec::new());
    }
    let actions = about_diagnostics(&params).into_iter().chain(about_selection(&params));
    let wanted = actions.filter(|action| is_wanted(action, params.context.only.as_deref()));
    let literals = session.agreed().code_actions;
    wanted.map(|action| written(action, literals)).collect()
}

/// Automatic requests follow the cursor: a lamp that burns wherever something is selected tells nobody anything.
fn about_selection(params: &lsp::CodeActionParams) -> Vec<lsp::CodeAction> {
    let automatic = params.context.trigger_kind == Some(lsp::CodeActionTriggerKind::Automatic);
    if automatic || is_empty(params.range) {
        return Vec::new();
    }
    let ask = |(title, question, kind): (&str, &str, lsp::CodeActionKind)| {
        let arguments = json!({
            "kind": question, "textDocument": params.text_document, "selection": params.range,
        });
        action(title.to_owned(), kind, arguments)
    };
    OF_SELECTION.into_iter().map(ask).collect()
}

fn about_diagnostics(params: &lsp::CodeActionParams) -> Vec<lsp::CodeAction> {
    let diagnostics = &params.context.diagnostics;
    let mut actions = Vec::new();
    for diagnostic in diagnostics.iter().take(MOST_DIAGNOSTICS) {
        // An editor that offers to mend an error selects it itself; that is no selection of the user's.
        let selected = !is_empty(params.range) && params.range != diagnostic.range;
        let at = diagnostic.range.start;
        let selection = if selected { params.range } else { lsp::Range { start: at, end: at } };
        for (title, question) in OF_DIAGNOSTIC {
            let title = match diagnostics.len() {
                1 => title.to_owned(),
                _ => format!("{title}: {}", beginning(&diagnostic.message)),
            };
            let arguments = json!({
                "kind": question, "textDocument": params.text_document, "selection": selection,
                "diagnostics": [diagnostic],
            });
            let mut action = action(title, lsp::CodeActionKind::QuickFix, arguments);
            action.diagnostics = Some(vec![diagnostic.clone()]);
            actions.push(action);
        }
    }
    actions
}

fn action(title: String, kind: lsp::CodeActionKind, arguments: Value) -> lsp::CodeAction {
    let command = lsp::Command {
        title: title.clone(),
        command: ASK.into(),
        arguments: Some(vec![arguments]),
        ..Default::default()
    };
    lsp::CodeAction { title, kind: Some(kind), command: Some(command), ..Default::default() }
}

/// Kinds are a hierarchy: who wants `refactor` wants `refactor.rewrite` too.
fn is_wanted(action: &lsp::CodeAction, only: Option<&[lsp::CodeActionKind]>) -> bool {
    let kind = action.kind.as_ref().map_or("", lsp::CodeActionKind::as_str);
    only.is_none_or(|only| {
        only.iter().any(|wanted| {
            let below = kind.strip_prefix(wanted.as_str());
            below.is_some_and(|rest| wanted.as_str().is_empty() || rest.is_empty() || rest.starts_with('.'))
        })
    })
}

/// The action as the client takes it.
fn written(action: lsp::CodeAction, literals: bool) -> Result<Value> {
    let written = if literals { serde_json::to_value(action) } else { serde_json::to_value(action.command) };
    written.map_err(|_| tower_lsp::jsonrpc::Error::internal_error())
}

fn is_empty(range: lsp::Range) -> bool {
    range.start == range.end
}

/// The beginning of the first line of a message.
fn beginning(message: &lsp::Message) -> String {
    let text = match message {
        lsp::Message::String(text) => text,
        lsp::Message::MarkupContent(content) => &content.value,
    };
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(MESSAGE) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}
