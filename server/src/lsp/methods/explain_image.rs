//! `gemma/explainImage`: what a screenshot shows, or the answer to a question about it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gemma_engine::{CancelFlag, Error, ErrorKind, Picture};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use super::chat::code;
use crate::documents::{name_of, path_of};
use crate::explain::Progress;
use crate::lsp::Server;
use crate::lsp::ask::{CancelOnDrop, failure};
use crate::lsp::backend::{Seen, Viewer};
use crate::lsp::chats::Chat;
use crate::lsp::progress::Tell;
use crate::lsp::talk::{Telling, Told, compute, model, senseless};
use crate::prompt::shown_path;

/// What a picture is called that came without a name.
const UNNAMED: &str = "the picture";

/// See editors/PROTOCOL.md.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    uri: Option<String>,
    data: Option<String>,
    name: Option<String>,
    question: Option<String>,
    chat_id: Option<String>,
    partial_result_token: Option<lsp::ProgressToken>,
    work_done_token: Option<lsp::ProgressToken>,
}

/// Where a picture comes from.
enum Source {
    File(std::path::PathBuf),
    /// In base64.
    Bytes(String),
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) -> Result<Value> {
    let session = &server.0;
    let config = session.config();
    let source = match (params.uri.as_deref(), params.data) {
        (_, Some(data)) => Source::Bytes(data),
        (Some(uri), None) => {
            let place = name_of(uri);
            config.permission.allow_reading(&place, shown_path(&place, None)).map_err(|e| failure(&e))?;
            Source::File(path_of(uri).ok_or_else(|| senseless(format!("{uri}: this is no file")))?)
        }
        (None, None) => return Err(senseless("a picture is wanted: its uri, or its bytes in data")),
    };
    let named = params.name.or_else(|| Some(shown_path(&name_of(params.uri.as_deref()?), None)));
    let chat = params.chat_id.map(|id| session.chats.open(&id, Vec::new()));
    let stop = CancelOnDrop(chat.as_ref().map_or_else(CancelFlag::new, |chat| chat.begin()));
    let cancel = stop.0.clone();

    let tokens = (params.partial_result_token, params.work_done_token);
    let tell = Tell::begin(&session.outbox, &session.stoppable, tokens, "Gemma", &cancel).await;
    let name = named.unwrap_or_else(|| UNNAMED.to_owned());
    // Before a model of gigabytes is loaded: what is no picture is said at once.
    let (shown, stopped) = (name.clone(), cancel.clone());
    let picture = compute(session, &tell, &cancel, move |_| open(source, &shown, &stopped)).await?;
    let viewer = model(session, &config, &session.viewers, |b, s, p| b.viewer(s, p), &tell).await?;
    let encoding = session.agreed().encoding;
    let question = params.question.filter(|question| !question.trim().is_empty());
    let job = Job {
        chat,
        viewer: viewer.clone(),
        picture: picture.clone(),
        name,
        question,
        cancel: cancel.clone(),
    };
    let Seen { answer, tiles } = compute(session, &tell, &cancel, move |telling| job.run(telling)).await?;
    tell.end().await;
    Ok(json!({
        "model": viewer.name(),
        "chatModel": viewer.writer(),
        "code": code(&answer.text, encoding, |_| None),
        "references": [],
        "notices": [],
        "text": answer.text,
        "finishReason": answer.finish_reason,
        "width": picture.width(),
        "height": picture.height(),
        "tiles": tiles,
        "timings": answer.timings,
    }))
}

fn open(source: Source, name: &str, cancel: &CancelFlag) -> std::result::Result<Arc<Picture>, Error> {
    if cancel.is_cancelled() {
        return Err(Error::new(ErrorKind::Stopped, name, "it was stopped"));
    }
    Ok(Arc::new(match source {
        Source::File(path) => Picture::open(&path)?,
        Source::Bytes(data) => {
            // Clients cut long lines, and browsers put `data:image/png;base64,` before it.
            let data = data.split_once("base64,").map_or(data.as_str(), |(_, data)| data);
            let data: String = data.split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(data).map_err(|error| {
                Error::new(ErrorKind::Input, name, format_args!("its bytes are not base64: {error}"))
            })?;
            Picture::decode(&bytes, name)?
        }
    }))
}

/// A question about a picture.
struct Job {
    chat: Option<Arc<Chat>>,
    viewer: Arc<dyn Viewer>,
    picture: Arc<Picture>,
    name: String,
    question: Option<String>,
    cancel: CancelFlag,
}

impl Job {
    /// Looks on this thread.
    fn run(self, telling: &Telling) -> std::result::Result<Seen, Error> {
        let mut conversation = self.chat.as_ref().map(|chat| chat.conversation());
        let question = self.question.as_deref();
        let mut show = |progress: Progress<'_>| {
            let told = match progress {
                Progress::Step(step) => Told::Step(step.to_string()),
                Progress::Text(text) => Told::Text(text.to_owned()),
            };
            // Nobody may listen any more.
            let _ = telling.send(told);
        };
        let seen = self.viewer.explain(self.picture, question, self.cancel, &mut show)?;
        if let Some(conversation) = &mut conversation
            && !seen.answer.text.is_empty()
        {
            let asked = question.unwrap_or("What does it show?");
            let shown = format!("I show a picture ({}) to somebody who can see it. {asked}", self.name);
            conversation.noted(shown, seen.answer.text.as_str());
        }
        Ok(seen)
    }
}
