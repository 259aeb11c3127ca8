//! The message loop: frames in, calls to the service, frames out.
//!
//! **Invariants.**
//! - Each message is begun in the order in which it came: its handler runs up to its first wait before
//!   the next message is looked at. A handler that must not be overtaken does its work before it waits.
//! - Each request is answered exactly once, whatever its handler does: it answers, fails, is cancelled,
//!   or panics.
//! - Nothing here computes. What waits is moved to a task of its own and holds nobody up.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_lsp::jsonrpc::{Error, Id, Request, Response};
use tower_lsp::{ClientSocket, ExitedError, LanguageServer, Loopback, LspService};
use tower_service::Service;

use super::frames::{self, Frame, Reader};

/// Frames that wait on either side before the sender has to wait.
const QUEUE: usize = 256;
/// How long requests may take to answer that they were stopped, and answers to be written, once the
/// client has ended the conversation.
const GRACE: Duration = Duration::from_secs(2);

type Answering = Pin<Box<dyn Future<Output = Option<Response>> + Send>>;

/// Where messages to the client wait to be written, in their order.
pub(super) fn queue() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    mpsc::channel(QUEUE)
}

/// Serves until the client says `exit` or closes the stream. `closing` is set then, before the requests
/// still running are waited for.
pub(super) async fn run<I, O, S>(
    input: I,
    output: O,
    service: LspService<S>,
    socket: ClientSocket,
    closing: watch::Sender<bool>,
    (out, outbox): (Sender<Vec<u8>>, Receiver<Vec<u8>>),
) where
    I: AsyncRead + Unpin + Send + 'static,
    O: AsyncWrite + Unpin + Send + 'static,
    S: LanguageServer,
{
    let (inbox, frames) = mpsc::channel(QUEUE);
    let reading = tokio::spawn(read(input, inbox));
    let mut writing = tokio::spawn(write(output, outbox));
    let (mut asks, answers) = socket.split();
    let to_client = out.clone();
    let asking = tokio::spawn(async move {
        while let Some(ask) = asks.next().await {
            if !send(&to_client, &ask).await {
                return;
            }
        }
    });

    let mut handlers = JoinSet::new();
    tokio::select! {
        () = serve(frames, &out, service, answers, &mut handlers) => {}
        // Nobody hears us any more.
        _ = &mut writing => {}
    }
    reading.abort();
    closing.send_replace(true);
    let _ = tokio::time::timeout(GRACE, async { while handlers.join_next().await.is_some() {} }).await;
    handlers.abort_all();
    asking.abort();
    drop(out);
    if !writing.is_finished() {
        let _ = tokio::time::timeout(GRACE, writing).await;
    }
}

/// Takes frames in order until there are no more or the service has exited.
async fn serve<S: LanguageServer>(
    mut frames: Receiver<Frame>,
    out: &Sender<Vec<u8>>,
    mut service: LspService<S>,
    mut answers: <ClientSocket as Loopback>::ResponseSink,
    handlers: &mut JoinSet<()>,
) {
    while let Some(frame) = frames.recv().await {
        // Finished handlers leave nothing behind.
        while handlers.try_join_next().is_some() {}
        let request = match Message::of(frame) {
            Message::Request(request) => request,
            Message::Response(response) => {
                if answers.send(response).await.is_err() {
                    return;
                }
                continue;
            }
            Message::Wrong(Some(answer)) => {
                send(out, &answer).await;
                continue;
            }
            Message::Wrong(None) => continue,
        };
        if poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
            return;
        }
        let is_exit = request.method() == "exit";
        let id = request.id().cloned();
        let mut answering: Answering = Box::pin(answer(service.call(request), id));
        match poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await {
            Poll::Ready(Some(response)) => {
                send(out, &response).await;
            }
            Poll::Ready(None) => {}
            Poll::Pending => {
                let out = out.clone();
                handlers.spawn(async move {
                    if let Some(response) = answering.await {
                        send(&out, &response).await;
                    }
                });
            }
        }
        if is_exit {
            return;
        }
    }
}

/// The response of a handler, also where it panics.
async fn answer(
    handler: impl Future<Output = Result<Option<Response>, ExitedError>>,
    id: Option<Id>,
) -> Option<Response> {
    match AssertUnwindSafe(handler).catch_unwind().await {
        // The framework says nothing to unknown methods that begin with `$/`, which is right for
        // notifications only: a request is owed an answer.
        Ok(Ok(None)) => id.map(|id| Response::from_error(id, Error::method_not_found())),
        Ok(Ok(response)) => response,
        Ok(Err(_exited)) => id.map(|id| Response::from_error(id, Error::invalid_request())),
        Err(panic) => {
            let what = panic_text(panic.as_ref());
            tracing::error!("a handler panicked: {what}");
            let mut error = Error::internal_error();
            error.message = format!("a bug in gemma-ls, please report it: {what}").into();
            id.map(|id| Response::from_error(id, error))
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

enum Message {
    Request(Request),
    Response(Response),
    /// Not a message of the protocol, with the answer to it if there is one.
    Wrong(Option<Response>),
}

impl Message {
    fn of(frame: Frame) -> Self {
        let json = match frame {
            Frame::Json(json) => json,
            Frame::Broken(problem) => {
                tracing::warn!("skipped: {problem}");
                return Self::Wrong(Some(refusal(Id::Null, Error::parse_error(), problem)));
            }
        };
        let id = json.get("id").map(|id| serde_json::from_value(id.clone()).unwrap_or(Id::Null));
        let is_request = json.get("method").is_some();
        let is_response = !is_request && (json.get("result").is_some() || json.get("error").is_some());
        let problem = if is_request {
            match serde_json::from_value(json) {
                Ok(request) => return Self::Request(request),
                Err(error) => error.to_string(),
            }
        } else if is_response {
            match serde_json::from_value(json) {
                Ok(response) => return Self::Response(response),
                Err(error) => {
                    // A response is never answered.
                    tracing::warn!("skipped a response: {error}");
                    return Self::Wrong(None);
                }
            }
        } else {
            "neither a request nor a response".to_owned()
        };
        tracing::warn!("skipped a message: {problem}");
        Self::Wrong(Some(refusal(id.unwrap_or(Id::Null), Error::invalid_request(), problem)))
    }
}

fn refusal(id: Id, mut error: Error, problem: String) -> Response {
    error.data = Some(Value::String(problem));
    Response::from_error(id, error)
}

/// Queues a message; false when nobody takes it any more.
pub(super) async fn send(out: &Sender<Vec<u8>>, message: &impl Serialize) -> bool {
    match serde_json::to_vec(message) {
        Ok(bytes) => out.send(bytes).await.is_ok(),
        Err(error) => {
            tracing::error!("a message cannot be written as JSON: {error}");
            true
        }
    }
}

async fn read<I: AsyncRead + Unpin>(input: I, inbox: Sender<Frame>) {
    let mut reader = Reader::new(input);
    loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                if inbox.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::warn!("the client is gone: {error}"),
        }
    }
}

/// Writes what is queued until the queue is closed; flushes whenever it is empty.
async fn write<O: AsyncWrite + Unpin>(output: O, mut outbox: Receiver<Vec<u8>>) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    while let Some(message) = outbox.recv().await {
        frames::write(&mut output, &message).await?;
        while let Ok(message) = outbox.try_recv() {
            frames::write(&mut output, &message).await?;
        }
        output.flush().await?;
    }
    output.shutdown().await
}
