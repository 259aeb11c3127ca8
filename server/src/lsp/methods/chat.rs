//! `gemma/chat`: a question about a document, and the answer as it is thought.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use gemma_engine::{CancelFlag, Error, ErrorKind, FinishReason, Finished, Timings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use crate::chat::answer::{blocks, references};
use crate::chat::edit::{edit, whole_lines};
use crate::chat::wish::{About, Complaint, Kind, question};
use crate::chat::{self, ChatRequest, Dropped, Turn};
use crate::context::definitions;
use crate::documents::{Snapshot, name_of, path_of};
use crate::lsp::ask::{CancelOnDrop, failure};
use crate::lsp::backend::{Heard, Shown, Talker};
use crate::lsp::chats::Chat;
use crate::lsp::progress::Tell;
use crate::lsp::talk::{Telling, Told, compute, model, senseless};
use crate::lsp::{Server, convert};
use crate::prompt::shown_path;
use crate::text::{Encoding, line_end, offsets_of};

/// See editors/PROTOCOL.md.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    chat_id: String,
    question: Option<String>,
    #[serde(default)]
    kind: Option<Kind>,
    text_document: Option<lsp::TextDocumentIdentifier>,
    selection: Option<lsp::Range>,
    #[serde(default)]
    diagnostics: Option<Vec<lsp::Diagnostic>>,
    #[serde(default)]
    history: Option<Vec<Turn>>,
    max_tokens: Option<usize>,
    partial_result_token: Option<lsp::ProgressToken>,
    work_done_token: Option<lsp::ProgressToken>,
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    chat_id: String,
    model: String,
    text: String,
    finish_reason: FinishReason,
    context: Value,
    notices: Vec<String>,
    code: Vec<Value>,
    references: Vec<Value>,
    timings: Timings,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    let session = &server.0;
    let config = session.config();
    let kind = params.kind.unwrap_or_default();
    let asks = params.question.as_ref().is_some_and(|question| !question.trim().is_empty());
    if kind == Kind::Ask && !asks && params.diagnostics.as_ref().is_none_or(Vec::is_empty) {
        return Err(senseless("a chat of kind \"ask\" wants a question"));
    }
    let uri = params.text_document.map(|document| document.uri.0);
    if let Some(uri) = &uri {
        let name = shown_path(&name_of(uri), None);
        config.permission.allow_reading(&name_of(uri), name).map_err(|error| failure(&error))?;
    }
    let open = uri.as_ref().and_then(|uri| session.documents.snapshot(uri));
    let root = uri.as_deref().and_then(path_of).and_then(|path| session.root_of(&path));
    let chat = session.chats.open(&params.chat_id, params.history.unwrap_or_default());
    let stop = CancelOnDrop(chat.begin());
    let cancel = stop.0.clone();

    let tokens = (params.partial_result_token, params.work_done_token);
    let tell = Tell::begin(&session.outbox, &session.stoppable, tokens, "Gemma", &cancel).await;
    let talker = model(session, &config, &session.talkers, |b, s, p| b.talker(s, p), &tell).await?;
    let job = Job {
        chat_id: params.chat_id,
        chat,
        talker,
        kind,
        asked: params.question,
        uri,
        document: open,
        root,
        selection: params.selection,
        diagnostics: params.diagnostics.unwrap_or_default(),
        max_tokens: params.max_tokens.unwrap_or(chat::MAX_TOKENS),
        encoding: session.agreed().encoding,
        cancel: cancel.clone(),
    };
    let answer = compute(session, &tell, &cancel, move |telling| job.run(telling)).await?;
    tell.end().await;
    Ok(json!(answer))
}

/// A question with all that it is about.
struct Job {
    chat_id: String,
    chat: Arc<Chat>,
    talker: Arc<dyn Talker>,
    kind: Kind,
    asked: Option<String>,
    uri: Option<String>,
    /// Where it is open; else it is read from disk.
    document: Option<Snapshot>,
    root: Option<PathBuf>,
    selection: Option<lsp::Range>,
    diagnostics: Vec<lsp::Diagnostic>,
    max_tokens: usize,
    encoding: Encoding,
    cancel: CancelFlag,
}

impl Job {
    /// Asks on this thread.
    fn run(mut self, telling: &Telling) -> std::result::Result<Answer, Error> {
        let is_open = self.document.is_some();
        if let (None, Some(uri)) = (&self.document, &self.uri) {
            self.document = Some(read(uri)?);
        }
        let selected = self.document.as_ref().and_then(|document| self.selected(document));
        let lines = self.document.as_ref().zip(selected.clone());
        let lines = lines.and_then(|(document, selected)| whole_lines(&document.text, &selected));
        let request = ChatRequest {
            file: self.document.clone(),
            selection: selected.clone(),
            root: self.root.clone(),
            line_numbers: true,
            question: self.question(lines.is_some()),
            max_tokens: self.max_tokens,
            sampling: chat::sampling(),
        };

        let mut conversation = self.chat.conversation();
        let (mut shown, mut begun) = (Shown::default(), false);
        let finished = if self.cancel.is_cancelled() {
            // Stopped while the model was loaded or the answer before was waited for.
            nothing_said()
        } else {
            let (talker, cancel) = (&self.talker, self.cancel.clone());
            talker.ask(&mut conversation, request, cancel, &mut |heard| match heard {
                Heard::Shown(now) => {
                    shown = now;
                    let context = self.context(now, lines.as_ref(), is_open);
                    // Nobody may listen any more.
                    let _ = telling.send(Told::Context(context));
                    let _ = telling.send(Told::Step(format!("Reading {} tokens", now.prompt_tokens)));
                }
                Heard::Text(text) => {
                    // Base models begin with blank lines.
                    let text = if begun { text } else { text.trim_start() };
                    begun |= !text.is_empty();
                    let _ = telling.send(Told::Text(text.to_owned()));
                }
            })?
        };
        drop(conversation);
        let finished = Finished { text: finished.text.trim().to_owned(), ..finished };
        Ok(self.answer(finished, shown, selected, lines.as_ref(), is_open))
    }

    /// What is talked about, in characters: the selection, else what the diagnostics are about.
    fn selected(&self, document: &Snapshot) -> Option<Range<usize>> {
        let offsets = |range: lsp::Range| offsets_of(&document.text, convert::range(range), self.encoding);
        let selection = self.selection.map(offsets);
        let is_cursor = match &selection {
            None => true,
            // Some editors have no cursor but a selection of one character.
            Some(one) if one.len() == 1 && self.kind != Kind::Ask && self.diagnostics.is_empty() => {
                return Some(around(document, one.clone()));
            }
            Some(selection) => selection.len() <= 1,
        };
        if !is_cursor {
            return selection;
        }
        if self.diagnostics.is_empty() {
            return selection.map(|cursor| cursor.start..cursor.start);
        }
        let ranges = self.diagnostics.iter().map(|diagnostic| offsets(diagnostic.range));
        let all = ranges.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?;
        Some(around(document, all))
    }

    fn question(&self, selection: bool) -> String {
        let about = match (&self.document, selection) {
            (Some(_), true) => About::Selection,
            (Some(_), false) => About::File,
            (None, _) => About::Nothing,
        };
        let complaints: Vec<Complaint> = self.diagnostics.iter().map(complaint).collect();
        question(self.kind, about, &complaints, self.asked.as_deref()).unwrap_or_default()
    }

    fn context(&self, shown: Shown, selected: Option<&Range<usize>>, is_open: bool) -> Value {
        let mut context = json!({
            "turns": shown.turns,
            "promptTokens": shown.prompt_tokens,
            "dropped": shown.dropped,
        });
        if let Some(document) = &self.document {
            let of = lines_of(document);
            let Dropped { lines_above, lines_below, .. } = shown.dropped;
            context["uri"] = json!(self.uri);
            context["path"] = json!(shown_path(&document.location(), self.root.as_deref()));
            context["languageId"] = json!(&*document.language_id);
            context["version"] = json!(is_open.then_some(document.version));
            context["lines"] =
                json!({"first": (lines_above + 1).min(of), "last": of.saturating_sub(lines_below), "of": of});
            context["selection"] =
                json!(selected.map(|lines| json!({"first": lines.start + 1, "last": lines.end})));
        }
        context
    }

    fn answer(
        &self,
        finished: Finished,
        shown: Shown,
        selected: Option<Range<usize>>,
        lines: Option<&Range<usize>>,
        is_open: bool,
    ) -> Answer {
        let (code, references) = match &self.document {
            Some(document) => marked(&finished.text, document, self.encoding, |block| {
                let edit = edit(document, selected.clone(), self.kind.replaces_selection(), block)?;
                let range = convert::whole_range(&document.text, &edit.range, self.encoding);
                let version = is_open.then_some(document.version);
                let document = json!({"uri": self.uri, "version": version});
                Some(json!({"textDocument": document, "range": range, "newText": edit.text}))
            }),
            None => (code(&finished.text, self.encoding, |_| None), Vec::new()),
        };
        Answer {
            chat_id: self.chat_id.clone(),
            model: self.talker.name().to_owned(),
            context: self.context(shown, lines, is_open),
            notices: self.notices(&finished, shown),
            code,
            references,
            finish_reason: finished.finish_reason,
            timings: finished.timings,
            text: finished.text,
        }
    }

    fn notices(&self, finished: &Finished, shown: Shown) -> Vec<String> {
        let base = (shown.turns == 0 && shown.prompt_tokens > 0 && !self.talker.follows_instructions()).then(|| {
            format!(
                "{} was not tuned to follow instructions. For better answers get a model that was, such as \
                 gemma-3-1b-it (`gemma-ls model pull gemma-3-1b-it`).",
                self.talker.name()
            )
        });
        let cut = (finished.finish_reason == FinishReason::Length)
            .then(|| "The answer was cut, because it grew too long. Ask to go on for the rest.".to_owned());
        [shown.dropped.notice(), base, cut].into_iter().flatten().collect()
    }
}

/// The blocks of code and the named lines of an answer about a document, for the client.
fn marked(
    text: &str,
    document: &Snapshot,
    encoding: Encoding,
    place: impl Fn(&chat::answer::Block) -> Option<Value>,
) -> (Vec<Value>, Vec<Value>) {
    let named = references(text, &blocks(text), lines_of(document)).into_iter().map(|reference| {
        let rope = &document.text;
        let (first, last) = (reference.lines.start() - 1, reference.lines.end() - 1);
        let chars = rope.line_to_char(first)..line_end(rope, last);
        let mut json = span(text, &reference.span, encoding);
        json["range"] = json!(convert::whole_range(rope, &chars, encoding));
        json
    });
    (code(text, encoding, place), named.collect())
}

/// The blocks of code of an answer, each with the edit that it is, if it is one.
pub(super) fn code(
    text: &str,
    encoding: Encoding,
    place: impl Fn(&chat::answer::Block) -> Option<Value>,
) -> Vec<Value> {
    let block = |block: &chat::answer::Block| {
        let mut json = span(text, &block.span, encoding);
        json["language"] = json!(block.language);
        json["text"] = json!(block.text);
        if let Some(edit) = place(block) {
            json["edit"] = edit;
        }
        json
    };
    blocks(text).iter().map(block).collect()
}

/// Bytes of an answer as the client counts them.
fn span(text: &str, bytes: &Range<usize>, encoding: Encoding) -> Value {
    let units = |text: &str| match encoding {
        Encoding::Utf8 => text.len(),
        Encoding::Utf16 => text.encode_utf16().count(),
        Encoding::Utf32 => text.chars().count(),
    };
    json!({"offset": units(&text[..bytes.start]), "length": units(&text[bytes.clone()])})
}

/// How many lines a person sees: what stands behind the last break only counts if there is something.
fn lines_of(document: &Snapshot) -> usize {
    let lines = document.text.len_lines();
    lines - usize::from(lines > 1 && document.text.line_to_char(lines - 1) == document.text.len_chars())
}

/// The innermost definition around a place, if it is not too long to be shown and written anew; else the
/// place's own lines.
fn around(document: &Snapshot, chars: Range<usize>) -> Range<usize> {
    const LONGEST: usize = 80;
    let text = &document.text;
    let (first, last) = (text.char_to_line(chars.start), text.char_to_line(chars.end));
    let holds = |one: &Range<usize>| one.start <= first && last < one.end && one.len() <= LONGEST;
    let defined = definitions(document).into_iter().map(|one| one.attached..one.lines.end);
    let lines = defined.filter(holds).min_by_key(Range::len).unwrap_or(first..last + 1);
    text.line_to_char(lines.start)..line_end(text, lines.end - 1)
}

fn complaint(diagnostic: &lsp::Diagnostic) -> Complaint {
    let code = diagnostic.code.as_ref().map(|code| match code {
        lsp::Code::Int(number) => number.to_string(),
        lsp::Code::String(text) => text.clone(),
    });
    let source: Vec<String> = diagnostic.source.iter().cloned().chain(code).collect();
    Complaint {
        line: diagnostic.range.start.line as usize + 1,
        severity: match diagnostic.severity {
            Some(lsp::DiagnosticSeverity::Warning) => "warning",
            Some(lsp::DiagnosticSeverity::Information) => "remark",
            Some(lsp::DiagnosticSeverity::Hint) => "hint",
            _ => "error",
        },
        source: (!source.is_empty()).then(|| source.join(" ")),
        message: match &diagnostic.message {
            lsp::Message::String(text) => text.clone(),
            lsp::Message::MarkupContent(markup) => markup.value.clone(),
        },
    }
}

/// A document that is not open, as it is on disk.
fn read(uri: &str) -> std::result::Result<Snapshot, Error> {
    let Some(path) = path_of(uri) else {
        return Err(Error::new(
            ErrorKind::Input,
            uri,
            "it is not open, and it is no file that could be read",
        )
        .remedy("Open it first."));
    };
    let name = path.display();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Snapshot::new(uri, "", &text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, name, "there is no such file")
                .remedy("Save it first, or open it."))
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::new(ErrorKind::BadFile, name, "this is not UTF-8 text"))
        }
        Err(error) => Err(Error::new(ErrorKind::NotFound, name, error)),
    }
}

/// The end of an answer that never began.
fn nothing_said() -> Finished {
    Finished {
        text: String::new(),
        tokens: Vec::new(),
        finish_reason: FinishReason::Cancelled,
        timings: Timings::default(),
    }
}
