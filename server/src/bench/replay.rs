//! Plays a trace to a server in this process, as an editor would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gemma_engine::{CancelFlag, Error, ErrorKind, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::bench::client::{Client, Pending};
use crate::bench::kind::{Kind, Reach, kinds};
use crate::bench::memory::resident;
use crate::bench::playback::Playback;
use crate::bench::report::{Measured, Request, Round};
use crate::bench::trace::{Complete, Event, Position, Trace, Trigger, What, slashed};
use crate::documents::uri_of;
use crate::lsp::Start;

/// How a trace is played.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// By the trace's clock, requests overtaking each other; else each event when the one before is done.
    pub paced: bool,
    /// How often; each time in a folder of its own, with the same server.
    pub repeat: usize,
    /// Whether a chat answer is kept running meanwhile.
    pub with_chat: bool,
    /// The client's settings.
    pub settings: Value,
    /// How far from the cursor a prompt shows the document.
    pub reach: Option<Reach>,
}

/// Told how many requests of how many are answered; none in all while the model is loaded.
pub type OnProgress<'a> = &'a mut dyn FnMut(usize, usize);

/// What a replay saw.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The model, as the server calls it.
    pub model: String,
    /// Where it computes, in words.
    pub device: String,
    /// Every request, in order.
    pub requests: Vec<Request>,
    /// What the server held after each time the trace was played.
    pub rounds: Vec<Round>,
    /// Answers of the chat that was kept running, the last one cut short.
    pub chat_answers: u64,
    /// From the first event to the last answer.
    pub wall: Duration,
}

/// Loading reads a whole model from disk, a slow one perhaps.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// Between two questions whether the model is loaded.
const POLL: Duration = Duration::from_millis(20);
/// An editor whose cursor has not moved for so long says where it is.
const REST: u64 = 150;

/// Plays a trace, inside a runtime. `cancel` ends it early, with what there is.
///
/// # Errors
/// The model cannot be loaded, the documents cannot be written, the server breaks down.
pub async fn replay(
    trace: &Trace,
    options: &Options,
    start: Start,
    cancel: &CancelFlag,
    progress: OnProgress<'_>,
) -> Result<Outcome> {
    let folder = TempDir::with_prefix("gemma-ls-bench-").map_err(|error| {
        Error::new(ErrorKind::Resources, "a temporary folder", error)
            .remedy("Free space where temporary files are kept, or set TMPDIR.")
    })?;
    // The index of a workspace is to find the files there.
    let place = Place::write(trace, folder.path(), 0)?;
    let client = Arc::new(Client::connect(start));
    let mut outcome = Outcome::default();
    let end = play(trace, options, &client, (folder.path(), place), cancel, progress, &mut outcome).await;
    match Arc::try_unwrap(client) {
        Ok(client) => end.and(client.finish().await)?,
        // The chat's task still holds it; it is stopped with the runtime.
        Err(_) => end?,
    }
    Ok(outcome)
}

async fn play(
    trace: &Trace,
    options: &Options,
    client: &Arc<Client>,
    (folder, first): (&Path, Place),
    cancel: &CancelFlag,
    progress: OnProgress<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    initialize(client, folder, &options.settings).await?;
    (outcome.model, outcome.device) = until_loaded(client, cancel).await?;
    let chat = options.with_chat.then(|| Chat::start(client.clone()));
    let kinds = kinds(trace, options.reach.unwrap_or(Reach { before: 3072, after: 512 }));
    let begun = Instant::now();
    let mut place = first;
    let requests = trace.requests() * options.repeat;
    for round in 0..options.repeat {
        if round > 0 {
            place.remove();
            place = Place::write(trace, folder, round)?;
        }
        let mut player = Player {
            trace,
            client,
            place: &place,
            kinds: &kinds,
            round,
            playback: Playback::new(&trace.documents),
            requests: Vec::new(),
        };
        let done = outcome.requests.len();
        let mut tell = |now: usize| progress(done + now, requests);
        match options.paced {
            true => player.paced(cancel, &mut tell).await?,
            false => player.flat_out(cancel, &mut tell).await?,
        }
        player.close_all();
        outcome.requests.append(&mut player.requests);
        outcome.rounds.push(held(client, round).await?);
        if cancel.is_cancelled() {
            break;
        }
    }
    outcome.wall = begun.elapsed();
    if let Some(chat) = chat {
        outcome.chat_answers = chat.stop(client).await;
    }
    Ok(())
}

async fn initialize(client: &Client, folder: &Path, settings: &Value) -> Result<()> {
    let root = uri_of(folder);
    let params = json!({
        "processId": std::process::id(),
        "clientInfo": {"name": "gemma-ls bench", "version": env!("CARGO_PKG_VERSION")},
        "rootUri": root,
        "workspaceFolders": [{"uri": root, "name": "project"}],
        "capabilities": {
            "general": {"positionEncodings": ["utf-16"]},
            "textDocument": {"synchronization": {"didSave": true}, "inlineCompletion": {}},
        },
        "initializationOptions": settings,
    });
    client.ask("initialize", params).await?;
    client.notify("initialized", json!({}));
    Ok(())
}

/// Waits for the model and for the index of the workspace: the model's name, and where it computes.
async fn until_loaded(client: &Client, cancel: &CancelFlag) -> Result<(String, String)> {
    let begun = Instant::now();
    while !cancel.is_cancelled() {
        let status = client.ask("gemma/status", json!({})).await?;
        let model = &status["model"];
        let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
        match model["state"].as_str() {
            Some("ready") if status["index"]["indexing"] != true => {
                return Ok((text("name"), text("device")));
            }
            Some("failed") => return Err(Error::new(ErrorKind::BadFile, "the model", text("error"))),
            _ if begun.elapsed() > LOAD_LIMIT => {
                return Err(Error::new(ErrorKind::Resources, "the model", "it is not loaded in time"));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
    Err(Error::new(ErrorKind::Stopped, "the model", "it was not waited for"))
}

/// What the server holds.
async fn held(client: &Client, round: usize) -> Result<Round> {
    let status = client.ask("gemma/status", json!({})).await?;
    let cache = &status["engine"]["cache"];
    let memory = resident();
    Ok(Round {
        round,
        cache_bytes: cache["bytes"].as_u64().or(status["engine"]["cacheBytes"].as_u64()),
        budget_bytes: cache["budget"].as_u64(),
        evictions: cache["evictions"].as_u64(),
        rss_bytes: memory.now,
        peak_rss_bytes: memory.peak,
    })
}

/// The documents of a trace on disk.
struct Place {
    files: Vec<PathBuf>,
    uris: Vec<String>,
}

impl Place {
    /// Writes the documents: the first time into the workspace itself, then each time into a folder of its
    /// own, since what was kept for one path is not to be found for the next.
    fn write(trace: &Trace, workspace: &Path, round: usize) -> Result<Self> {
        let root = match round {
            0 => workspace.to_owned(),
            _ => workspace.join(format!("again-{round}")),
        };
        let files: Vec<PathBuf> = trace.documents.iter().map(|document| root.join(&document.path)).collect();
        for (path, document) in files.iter().zip(&trace.documents) {
            let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            written.and_then(|()| std::fs::write(path, &document.text)).map_err(|error| {
                Error::new(ErrorKind::Resources, path.display(), format!("it cannot be written: {error}"))
            })?;
        }
        Ok(Self { uris: files.iter().map(|path| uri_of(path)).collect(), files })
    }

    /// Takes the files away. What stays goes with the temporary folder.
    fn remove(&self) {
        for path in &self.files {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// One time that a trace is played.
struct Player<'a> {
    trace: &'a Trace,
    client: &'a Client,
    place: &'a Place,
    kinds: &'a [Kind],
    round: usize,
    playback: Playback,
    /// Those that were answered.
    requests: Vec<Request>,
}

impl Player<'_> {
    /// Each event when the one before is done.
    async fn flat_out(&mut self, cancel: &CancelFlag, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let mut number = 0;
        for event in &self.trace.events {
            if cancel.is_cancelled() {
                break;
            }
            if let Some(pending) = self.send(event)? {
                let reply = pending.answer().await?;
                self.note(number, event, Measured::of(&reply));
                number += 1;
                progress(number);
            }
        }
        Ok(())
    }

    /// Each event at its time; answers come when they come.
    async fn paced(&mut self, cancel: &CancelFlag, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let begun = tokio::time::Instant::now();
        let rests = rests(self.trace);
        let mut rests = rests.iter().peekable();
        let mut asked = Vec::new();
        for event in &self.trace.events {
            while let Some(&&(at, document, position)) = rests.peek().filter(|(at, ..)| *at <= event.t_ms) {
                tokio::time::sleep_until(begun + Duration::from_millis(at)).await;
                self.rest(document, position);
                rests.next();
            }
            tokio::time::sleep_until(begun + Duration::from_millis(event.t_ms)).await;
            if cancel.is_cancelled() {
                break;
            }
            if let Some(pending) = self.send(event)? {
                // Answers are waited for behind the last event: their times are taken where they are read.
                asked.push((event, pending));
                progress(asked.len());
            }
        }
        for (number, (event, pending)) in asked.into_iter().enumerate() {
            self.note(number, event, Measured::of(&pending.answer().await?));
        }
        Ok(())
    }

    /// Sends what an editor would; a request's answer is to come.
    fn send(&mut self, event: &Event) -> Result<Option<Pending>> {
        self.playback.apply(event).map_err(|why| Error::new(ErrorKind::Input, &self.trace.name, why))?;
        let document = &self.playback.documents[event.document];
        let (version, uri) = (document.version, self.uri(event.document));
        match &event.what {
            What::Open => {
                let language = &self.trace.documents[event.document].language;
                let text = document.text.to_string();
                let item = json!({"uri": uri, "languageId": language, "version": version, "text": text});
                self.client.notify("textDocument/didOpen", json!({"textDocument": item}));
            }
            What::Change { changes, .. } => {
                let params = json!({
                    "textDocument": {"uri": uri, "version": version},
                    "contentChanges": changes,
                });
                self.client.notify("textDocument/didChange", params);
            }
            What::Close => {
                self.client.notify("textDocument/didClose", json!({"textDocument": {"uri": uri}}));
            }
            What::Complete(Complete { position, trigger, .. }) => {
                let kind = match trigger {
                    Trigger::Invoked => 1,
                    Trigger::Automatic => 2,
                };
                let params = json!({
                    "textDocument": {"uri": uri},
                    "position": position,
                    "context": {"triggerKind": kind},
                });
                return Ok(Some(self.client.request("textDocument/inlineCompletion", params)));
            }
            What::Focus | What::Cursor { .. } => {}
        }
        Ok(None)
    }

    /// Says where the cursor came to rest.
    fn rest(&self, document: usize, position: Position) {
        let params = json!({"textDocument": {"uri": self.uri(document)}, "position": position});
        self.client.notify("gemma/didMoveCursor", params);
    }

    fn uri(&self, document: usize) -> &str {
        &self.place.uris[document]
    }

    fn note(&mut self, number: usize, event: &Event, measured: Measured) {
        let What::Complete(complete) = &event.what else { return };
        self.requests.push(Request::new(
            (self.round, number),
            event.t_ms,
            slashed(&self.trace.documents[event.document].path),
            self.kinds[number],
            complete,
            measured,
        ));
    }

    /// Closes what is still open: the next time begins with the documents as they were.
    fn close_all(&self) {
        for (document, state) in self.playback.documents.iter().enumerate() {
            if state.is_open {
                let params = json!({"textDocument": {"uri": self.uri(document)}});
                self.client.notify("textDocument/didClose", params);
            }
        }
    }
}

/// Where the cursor comes to rest by something other than typing, and when: milliseconds, document, position.
fn rests(trace: &Trace) -> Vec<(u64, usize, Position)> {
    let mut playback = Playback::new(&trace.documents);
    let mut rests = Vec::new();
    for (i, event) in trace.events.iter().enumerate() {
        // A trace is checked when it is read.
        let _ = playback.apply(event);
        let moved = matches!(event.what, What::Focus | What::Cursor { .. });
        let rest = event.t_ms + REST;
        let stays = trace.events.get(i + 1).is_none_or(|next| next.t_ms >= rest);
        if moved && stays {
            rests.push((rest, event.document, playback.documents[event.document].position()));
        }
    }
    rests
}

/// A chat answer that never ends: when one does, the next is asked for.
struct Chat {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// The chat's name.
const CHAT: &str = "gemma-ls-bench";

impl Chat {
    fn start(client: Arc<Client>) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), answers.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let question = "Tell me, step by step and at length, how a text editor works inside.";
                let params = json!({"chatId": CHAT, "question": question, "maxTokens": 2000});
                let Ok(reply) = client.request("gemma/chat", params).answer().await else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                // The next one is not to read this one.
                let _ = client.ask("gemma/forgetChat", json!({"chatId": CHAT})).await;
                if reply.result.is_err() {
                    // A model that cannot answer at all is not asked without end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        Self { stop, answers, task }
    }

    /// Ends it: how many answers there were.
    async fn stop(self, client: &Client) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = client.ask("gemma/forgetChat", json!({"chatId": CHAT})).await;
        // It ended by itself, or it panicked; either way it is over.
        let _ = self.task.await;
        self.answers.load(Ordering::Relaxed)
    }
}
