//! A client in memory. It answers what the server asks, and keeps every message until a test takes it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::fake::{Control, Fake};
use crate::lsp::frames::{self, Frame, Reader};
use crate::lsp::{Start, run};
use crate::settings::Settings;

/// Nothing here takes this long; who waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const URI: &str = "file:///home/me/main.rs";

pub(super) struct Client {
    pub(super) fake: Arc<Control>,
    /// What the client answers to `workspace/configuration`.
    pub(super) configuration: Value,
    to_server: Option<WriteHalf<DuplexStream>>,
    from_server: Reader<ReadHalf<DuplexStream>>,
    next_id: i64,
    answers: HashMap<i64, Vec<Value>>,
    /// Requests and notifications of the server, in order.
    said: Vec<Value>,
    server: JoinHandle<bool>,
}

impl Client {
    /// A server that nobody has spoken to yet.
    pub(super) fn connect() -> Self {
        Self::counting_in(None)
    }

    /// The same, with a file for its statistics.
    pub(super) fn counting_in(statistics: Option<PathBuf>) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        let (from_server, to_server) = tokio::io::split(ours);
        let fake = Arc::new(Control::default());
        let (settings, problems) = (Settings::default(), Vec::new());
        let start = Start { settings, problems, statistics, on_log_level: Box::new(|_| {}) };
        let server = tokio::spawn(run(input, output, Arc::new(Fake(fake.clone())), start));
        Self {
            fake,
            configuration: Value::Null,
            to_server: Some(to_server),
            from_server: Reader::new(from_server),
            next_id: 1,
            answers: HashMap::new(),
            said: Vec::new(),
            server,
        }
    }

    /// A session with these options, its model ready.
    pub(super) async fn ready(options: Value) -> Self {
        let mut client = Self::connect();
        client.initialize(options).await;
        client.until_model("ready").await;
        client
    }

    pub(super) async fn initialize(&mut self, options: Value) -> Value {
        let capabilities =
            json!({"window": {"workDoneProgress": true}, "workspace": {"configuration": true}});
        let params = json!({"capabilities": capabilities, "initializationOptions": options});
        let result = self.request("initialize", params).await;
        self.notify("initialized", json!({})).await;
        result
    }

    pub(super) async fn until_model(&mut self, state: &str) -> Value {
        loop {
            let status = self.status().await;
            if status["model"]["state"] == state {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the fake has seen something. Messages go on being exchanged meanwhile.
    pub(super) async fn until(&mut self, seen: impl Fn(&Control) -> bool) {
        while !seen(&self.fake) {
            self.status().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn status(&mut self) -> Value {
        self.request("gemma/status", Value::Null).await
    }

    // Sending

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        let stream = self.to_server.as_mut().expect("the stream is open");
        stream.write_all(bytes).await.expect("the server reads");
    }

    async fn send(&mut self, message: &Value) {
        let stream = self.to_server.as_mut().expect("the stream is open");
        frames::write(stream, message.to_string().as_bytes()).await.expect("the server reads");
    }

    pub(super) async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Sends a request and gives its id.
    pub(super) async fn start(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        id
    }

    pub(super) async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.start(method, params).await;
        let answer = self.answer(id).await;
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    pub(super) async fn open(&mut self, uri: &str, language: &str, text: &str) {
        let item = json!({"uri": uri, "languageId": language, "version": 1, "text": text});
        self.notify("textDocument/didOpen", json!({"textDocument": item})).await;
    }

    /// Inserts text in the first line.
    pub(super) async fn insert(&mut self, uri: &str, character: usize, text: &str) {
        self.replace(uri, character..character, text).await;
    }

    /// Replaces text in the first line.
    pub(super) async fn replace(&mut self, uri: &str, characters: Range<usize>, text: &str) {
        let [start, end] =
            [characters.start, characters.end].map(|character| json!({"line": 0, "character": character}));
        let change = json!({"range": {"start": start, "end": end}, "text": text});
        let document = json!({"uri": uri, "version": 2});
        self.notify("textDocument/didChange", json!({"textDocument": document, "contentChanges": [change]}))
            .await;
    }

    /// Starts an automatic inline completion in the first line.
    pub(super) async fn ask(&mut self, uri: &str, character: usize) -> i64 {
        self.start("textDocument/inlineCompletion", inline(uri, character, 2)).await
    }

    /// The texts of an automatic inline completion in the first line.
    pub(super) async fn complete(&mut self, uri: &str, character: usize) -> Vec<String> {
        let id = self.ask(uri, character).await;
        texts(&self.answer(id).await)
    }

    // Receiving

    /// The answer to a request: the whole message.
    pub(super) async fn answer(&mut self, id: i64) -> Value {
        while !self.answers.contains_key(&id) {
            assert!(self.receive().await, "the server ended without an answer to {id}");
        }
        self.answers[&id][0].clone()
    }

    /// The params of the first message of this method, said already or to come.
    pub(super) async fn hears(&mut self, method: &str) -> Value {
        loop {
            if let Some(first) = self.heard(method).first() {
                return first.clone();
            }
            assert!(self.receive().await, "the server ended without a word of {method}");
        }
    }

    /// The params of what was said so far.
    pub(super) fn heard(&self, method: &str) -> Vec<Value> {
        let said = self.said.iter().filter(|message| message["method"] == method);
        said.map(|message| message["params"].clone()).collect()
    }

    /// Takes one message; false at the end.
    async fn receive(&mut self) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.from_server.next()).await.expect("a message");
        let message = match next.expect("a sound stream") {
            None => return false,
            Some(Frame::Json(message)) => message,
            Some(Frame::Broken(problem)) => panic!("the server wrote {problem}"),
        };
        match (message.get("method"), message.get("id")) {
            (None, Some(id)) => {
                // What has no id that can be answered is kept under -1.
                self.answers.entry(id.as_i64().unwrap_or(-1)).or_default().push(message);
            }
            (Some(method), Some(id)) => {
                let result = match method.as_str() {
                    Some("workspace/configuration") => json!([self.configuration]),
                    Some("workspace/applyEdit") => json!({"applied": true}),
                    Some("window/showDocument") => json!({"success": true}),
                    _ => Value::Null,
                };
                let response = json!({"jsonrpc": "2.0", "id": id, "result": result});
                self.said.push(message.clone());
                self.send(&response).await;
            }
            _ => self.said.push(message),
        }
        true
    }

    // Ending

    /// Ends the session as the protocol wants it. Every request must have had exactly one answer.
    pub(super) async fn finish(mut self) {
        assert_eq!(self.request("shutdown", Value::Null).await, Value::Null);
        self.notify("exit", Value::Null).await;
        assert!(self.end().await, "a clean end");
    }

    /// Closes the stream without a word, and tells whether the server had been shut down.
    pub(super) async fn end(mut self) -> bool {
        if let Some(mut stream) = self.to_server.take() {
            // The server may have gone first.
            let _ = stream.shutdown().await;
        }
        while self.receive_at_end().await {}
        for id in 1..self.next_id {
            let answers = self.answers.get(&id).map_or(0, Vec::len);
            assert_eq!(answers, 1, "answers to request {id}");
        }
        tokio::time::timeout(PATIENCE, self.server).await.expect("an end").expect("no panic")
    }

    async fn receive_at_end(&mut self) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.from_server.next()).await.expect("an end");
        match next.expect("a sound stream") {
            None => false,
            Some(Frame::Broken(problem)) => panic!("the server wrote {problem}"),
            Some(Frame::Json(message)) => {
                if let (None, Some(id)) = (message.get("method"), message["id"].as_i64()) {
                    self.answers.entry(id).or_default().push(message);
                }
                true
            }
        }
    }
}

/// Params of an inline completion in the first line.
pub(super) fn inline(uri: &str, character: usize, trigger: u32) -> Value {
    json!({
        "textDocument": {"uri": uri}, "position": {"line": 0, "character": character},
        "context": {"triggerKind": trigger},
    })
}

/// The texts of an answer to an inline completion.
pub(super) fn texts(answer: &Value) -> Vec<String> {
    let items = answer["result"]["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items.iter().map(|item| item["insertText"].as_str().expect("a text").to_owned()).collect()
}
