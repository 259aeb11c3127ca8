//! A language client and its server in one process, connected in memory: all of the protocol but the pipe.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gemma_engine::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::lsp::frames::{self, Frame, Reader};
use crate::lsp::{self, Start};

/// Bytes that may be under way in one direction.
const PIPE: usize = 1 << 20;
/// Anything that needs no model.
const QUICK: Duration = Duration::from_secs(30);

/// A server that was started for one conversation, and its client.
pub struct Client {
    outgoing: mpsc::UnboundedSender<Value>,
    waiting: Arc<Waiting>,
    server: JoinHandle<bool>,
}

/// Who waits for which answer.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    answers: HashMap<u64, oneshot::Sender<(Value, Instant)>>,
    /// No answer will come any more.
    ended: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one store.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer to come.
pub struct Pending {
    method: &'static str,
    sent: Instant,
    answer: oneshot::Receiver<(Value, Instant)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The result; what the server says of an error otherwise.
    pub result: std::result::Result<Value, String>,
    /// From the sending of the request to the reading of the answer.
    pub took: Duration,
}

impl Client {
    /// Starts a server in the current runtime and connects to it.
    pub fn connect(start: Start) -> Self {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (input, output) = tokio::io::split(theirs);
        let server = tokio::spawn(lsp::converse(input, output, start));
        let (reader, writer) = tokio::io::split(ours);
        let (outgoing, messages) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(write(writer, messages));
        tokio::spawn(read(reader, outgoing.clone(), waiting.clone()));
        Self { outgoing, waiting, server }
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a request now; its answer may be awaited later.
    pub fn request(&self, method: &'static str, params: Value) -> Pending {
        let (sender, answer) = oneshot::channel();
        let mut state = self.waiting.lock();
        let id = state.next_id;
        state.next_id += 1;
        if !state.ended {
            state.answers.insert(id, sender);
        }
        drop(state);
        let sent = Instant::now();
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        Pending { method, sent, answer }
    }

    /// The result of a request that needs no model.
    ///
    /// # Errors
    /// The server answers an error, or not in time.
    pub async fn ask(&self, method: &'static str, params: Value) -> Result<Value> {
        let answer = self.request(method, params).answer();
        let reply = tokio::time::timeout(QUICK, answer).await;
        let reply = reply.map_err(|_| broken(method, "the server did not answer in time"))??;
        reply.result.map_err(|error| broken(method, error))
    }

    /// Ends the conversation as the protocol says, and waits for the server to go.
    ///
    /// # Errors
    /// It does not end well.
    pub async fn finish(self) -> Result<()> {
        self.ask("shutdown", Value::Null).await?;
        self.notify("exit", Value::Null);
        match tokio::time::timeout(QUICK, self.server).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(broken("exit", "the server ended without having been shut down")),
            Ok(Err(panic)) => Err(broken("exit", panic)),
            Err(_) => Err(broken("exit", "the server does not end")),
        }
    }

    fn send(&self, message: Value) {
        // A server that is gone is noticed by whoever waits for its answer.
        let _ = self.outgoing.send(message);
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn answer(self) -> Result<Reply> {
        let answer = self.answer.await;
        let (mut message, at) = answer.map_err(|_| broken(self.method, "the server ended"))?;
        let result = match message.get("error") {
            Some(error) => Err(error["message"].as_str().unwrap_or("an error without a message").to_owned()),
            None => Ok(message["result"].take()),
        };
        Ok(Reply { result, took: at.saturating_duration_since(self.sent) })
    }
}

fn broken(method: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, method, why).remedy("This is a bug in gemma-ls; please report it.")
}

async fn write(mut stream: impl AsyncWrite + Unpin, mut messages: mpsc::UnboundedReceiver<Value>) {
    while let Some(message) = messages.recv().await {
        let written: io::Result<()> = async {
            frames::write(&mut stream, message.to_string().as_bytes()).await?;
            stream.flush().await
        }
        .await;
        if written.is_err() {
            return;
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin, outgoing: mpsc::UnboundedSender<Value>, waiting: Arc<Waiting>) {
    let mut reader = Reader::new(stream);
    while let Ok(Some(frame)) = reader.next().await {
        let at = Instant::now();
        let Frame::Json(message) = frame else { continue };
        match (message.get("method"), message.get("id")) {
            (None, Some(id)) => {
                let waiter = id.as_u64().and_then(|id| waiting.lock().answers.remove(&id));
                // Nobody may want it any more.
                let _ = waiter.map(|waiter| waiter.send((message, at)));
            }
            // Whatever the server asks of an editor: this one has nothing.
            (Some(_), Some(id)) => {
                let _ = outgoing.send(json!({"jsonrpc": "2.0", "id": id, "result": null}));
            }
            _ => {}
        }
    }
    let mut state = waiting.lock();
    state.ended = true;
    state.answers.clear();
}
