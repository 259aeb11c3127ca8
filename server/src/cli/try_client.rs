//! A small language client: enough of JSON-RPC over pipes to drive our own server as an editor does.
//!
//! One thread reads messages; the caller's thread writes them and waits for answers with a limit, so a
//! server that hangs or dies is told to the user and never waited for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};

/// Longest message that is believed, in bytes: more than any editor would send.
const LONGEST_MESSAGE: usize = 64 << 20;

/// What the reading thread saw.
type Incoming = Receiver<io::Result<Value>>;

/// A connection to a language server.
pub struct Client {
    writer: Box<dyn Write>,
    incoming: Incoming,
    next_id: u64,
}

impl Client {
    /// Speaks to a server that reads what is written to `writer` and writes what `reader` reads.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + 'static) -> Self {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            loop {
                let message = read_message(&mut reader);
                let last = !matches!(message, Ok(Some(_)));
                let sent = match message.transpose() {
                    Some(message) => sender.send(message),
                    None => return,
                };
                if last || sent.is_err() {
                    return;
                }
            }
        });
        Self { writer: Box::new(writer), incoming, next_id: 1 }
    }

    /// Sends a request and waits for its result, `limit` at most.
    pub fn request(&mut self, method: &str, params: Value, limit: Duration) -> Outcome<Value> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))?;
        let until = Instant::now() + limit;
        loop {
            let message = self.receive(method, until)?;
            if message.get("method").is_some() || message["id"] != json!(id) {
                self.take(message)?;
                continue;
            }
            return match message.get("error") {
                Some(error) => {
                    let what = error["message"].as_str().unwrap_or("an error without a message");
                    Err(Failure::new(Exit::Failed, format!("{method}: the server answered: {what}")))
                }
                None => Ok(message["result"].clone()),
            };
        }
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) -> Outcome {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
    }

    fn receive(&mut self, method: &str, until: Instant) -> Outcome<Value> {
        match self.incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(broken(&error)),
            Err(RecvTimeoutError::Disconnected) => Err(ended(method)),
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::new(Exit::Failed, format!("{method}: the server did not answer in time")))
            }
        }
    }

    /// Answers a request of the server; notifications and late answers are of no interest.
    fn take(&mut self, message: Value) -> Outcome {
        let (Some(method), Some(id)) = (message["method"].as_str(), message.get("id")) else { return Ok(()) };
        let reply = match method {
            // One `null` for each section asked for: nothing is configured here.
            "workspace/configuration" => {
                let sections = message["params"]["items"].as_array().map_or(0, Vec::len);
                json!({ "jsonrpc": "2.0", "id": id, "result": vec![Value::Null; sections] })
            }
            "window/workDoneProgress/create"
            | "client/registerCapability"
            | "client/unregisterCapability"
            | "window/showMessageRequest" => {
                json!({ "jsonrpc": "2.0", "id": id, "result": null })
            }
            _ => json!({ "jsonrpc": "2.0", "id": id,
                         "error": { "code": -32601, "message": "this client does not know it" } }),
        };
        self.send(&reply)
    }

    fn send(&mut self, message: &Value) -> Outcome {
        write_message(&mut self.writer, message).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => ended("a message"),
            _ => broken(&error),
        })
    }
}

fn ended(during: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the language server ended during {during}"))
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the connection to the language server: {error}"))
}

/// Writes one message with its header.
fn write_message(writer: &mut impl Write, message: &Value) -> io::Result<()> {
    let body = message.to_string();
    write!(writer, "Content-Length: {}\r\n\r\n{body}", body.len())?;
    writer.flush()
}

/// Reads one message; `None` at the end of the stream.
fn read_message(reader: &mut impl BufRead) -> io::Result<Option<Value>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut length = None;
    let mut header = String::new();
    loop {
        header.clear();
        if reader.read_line(&mut header)? == 0 {
            return if length.is_none() { Ok(None) } else { Err(wrong("it ended inside a message")) };
        }
        let line = header.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            let value = value.trim().parse::<usize>().map_err(|_| wrong("a length that is no number"))?;
            length = Some(value);
        }
    }
    let length = length.ok_or_else(|| wrong("a message without a length"))?;
    if length > LONGEST_MESSAGE {
        return Err(wrong("a message of more than 64 MiB"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(|error| wrong(&format!("not JSON: {error}")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A client connected to `server`, which runs on a thread with its two ends of the pipes.
    pub fn connected<T: Send + 'static>(
        server: impl FnOnce(&mut dyn BufRead, &mut dyn Write) -> T + Send + 'static,
    ) -> (Client, std::thread::JoinHandle<T>) {
        let (from_client, to_server) = io::pipe().expect("a pipe");
        let (from_server, mut to_client) = io::pipe().expect("a pipe");
        let thread = std::thread::spawn(move || server(&mut BufReader::new(from_client), &mut to_client));
        (Client::new(from_server, to_server), thread)
    }

    /// The client's next message.
    pub fn next(reader: &mut dyn BufRead) -> Value {
        next_or_end(reader).expect("a message")
    }

    /// The client's next message; `None` once it is gone.
    pub fn next_or_end(mut reader: &mut dyn BufRead) -> Option<Value> {
        read_message(&mut reader).expect("readable")
    }

    /// Sends a message to the client.
    pub fn send(mut writer: &mut dyn Write, message: &Value) {
        write_message(&mut writer, message).expect("written");
    }

    #[test]
    fn requests_of_the_server_are_answered_while_waiting() {
        let (mut client, server) = connected(|reader, writer| {
            let request = next(reader);
            send(
                writer,
                &json!({"id": "a", "method": "workspace/configuration", "params": {"items": [{}, {}]}}),
            );
            assert_eq!(next(reader), json!({"jsonrpc": "2.0", "id": "a", "result": [null, null]}));
            send(writer, &json!({"id": 9, "method": "window/workDoneProgress/create", "params": {}}));
            assert_eq!(next(reader)["result"], Value::Null);
            send(writer, &json!({"id": 10, "method": "unheard/of"}));
            assert_eq!(next(reader)["error"]["code"], -32601);
            send(writer, &json!({"method": "$/progress", "params": {"token": 1}}));
            send(writer, &json!({"id": 999, "result": "late"}));
            send(writer, &json!({"id": request["id"], "result": {"öäü": "🦀"}}));
        });
        let result = client.request("test/first", json!({}), LIMIT).expect("an answer");
        assert_eq!(result, json!({"öäü": "🦀"}));
        server.join().expect("no panic");
    }

    #[test]
    fn an_error_a_hang_and_an_end_are_told() {
        let (mut client, server) = connected(|reader, writer| {
            let request = next(reader);
            send(writer, &json!({"id": request["id"], "error": {"code": 1, "message": "no model"}}));
            next(reader);
            next(reader);
        });
        let error = client.request("a", json!({}), LIMIT).expect_err("an error");
        assert_eq!(error.to_string(), "a: the server answered: no model");
        let error = client.request("b", json!({}), Duration::ZERO).expect_err("too late");
        assert_eq!(error.to_string(), "b: the server did not answer in time");
        let error = client.request("c", json!({}), LIMIT).expect_err("the end");
        assert_eq!(error.to_string(), "the language server ended during c");
        server.join().expect("no panic");
    }

    #[test]
    fn messages_are_framed_by_their_length() {
        for (bytes, read) in [
            ("Content-Length: 2\r\n\r\n{}", Ok(Some(json!({})))),
            ("content-length:4\r\nContent-Type: x\r\n\r\nnull", Ok(Some(Value::Null))),
            ("", Ok(None)),
            ("Content-Length: 9\r\n\r\n{}", Err("failed to fill whole buffer")),
            ("Content-Length: 9\r\n", Err("ended inside a message")),
            ("Content-Length: x\r\n\r\n{}", Err("no number")),
            ("X: 1\r\n\r\n{}", Err("without a length")),
            ("Content-Length: 1\r\n\r\n{", Err("not JSON")),
            ("Content-Length: 99999999999\r\n\r\n{", Err("64 MiB")),
        ] {
            match (read_message(&mut bytes.as_bytes()), read) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{bytes:?}"),
                (Err(error), Err(said)) => assert!(error.to_string().contains(said), "{bytes:?}: {error}"),
                (got, expected) => panic!("{bytes:?}: {got:?}, not {expected:?}"),
            }
        }
    }
}
