//! The language server as a child process, started as an editor starts it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Context;
use super::failure::{Exit, Failure, Outcome, plain};
use super::try_client::Client;

/// Anything that needs no model.
const QUICK_LIMIT: Duration = Duration::from_secs(30);
/// Lines of its log that are kept to explain a failure.
const LOG_LINES: usize = 12;

/// A running language server. Dropping it ends the process.
pub struct Server {
    child: Child,
    log: Option<JoinHandle<VecDeque<String>>>,
}

impl Server {
    /// Starts this very program as a language server and connects to it.
    pub fn start(context: &Context) -> Outcome<(Self, Client)> {
        let failed = |error: &std::io::Error| {
            Failure::new(Exit::Failed, format!("the language server cannot be started: {}", plain(error)))
        };
        let program = std::env::current_exe().map_err(|e| failed(&e))?;
        let mut command = Command::new(program);
        command.arg("lsp").stdin(Stdio::piped()).stdout(Stdio::piped());
        let global = &context.global;
        if let Some(path) = &global.config {
            command.arg("--config").arg(path);
        }
        if let Some(threads) = global.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        match &global.log {
            // Who asks for a log wants to read it as it comes.
            Some(level) => command.arg("--log").arg(level),
            None => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let log = child.stderr.take().map(|stderr| std::thread::spawn(move || last_lines(stderr)));
        let pipes = child.stdout.take().zip(child.stdin.take());
        let mut server = Self { child, log };
        let Some((stdout, stdin)) = pipes else {
            server.kill();
            return Err(Failure::new(Exit::Failed, "the language server has no pipes"));
        };
        Ok((server, Client::new(stdout, stdin)))
    }

    /// A failure of the conversation, with the end of the server's log.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        self.kill();
        let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        if log.is_empty() {
            return failure.remedy("See what it does with: gemma-ls try --log debug");
        }
        let log: String = log.iter().map(|line| format!("\n    {line}")).collect();
        failure.remedy(format!("The end of its log:{log}"))
    }

    /// Ends the conversation as the protocol says, and waits for the process.
    pub fn stop(mut self, client: &mut Client) -> Outcome {
        client.request("shutdown", Value::Null, QUICK_LIMIT)?;
        client.notify("exit", Value::Null)?;
        let until = Instant::now() + QUICK_LIMIT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("the language server ended with {status}"),
                    ));
                }
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    return Err(Failure::new(Exit::Failed, "the language server does not end when asked to"));
                }
                Err(error) => return Err(Failure::new(Exit::Failed, plain(&error))),
            }
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens the conversation: what an editor says first.
pub fn initialize(client: &mut Client, options: &Value) -> Outcome {
    let params = json!({
        "processId": std::process::id(),
        "clientInfo": { "name": "gemma-ls try", "version": env!("CARGO_PKG_VERSION") },
        "rootUri": null,
        "capabilities": {
            "general": { "positionEncodings": ["utf-16"] },
            "textDocument": {
                "synchronization": { "didSave": true },
                "inlineCompletion": {},
            },
            "window": { "workDoneProgress": true },
        },
        "initializationOptions": options,
    });
    let answer = client.request("initialize", params, QUICK_LIMIT)?;
    let offered = &answer["capabilities"]["inlineCompletionProvider"];
    if offered.is_null() || *offered == json!(false) {
        return Err(Failure::new(Exit::Failed, "the language server does not offer inline completion"));
    }
    client.notify("initialized", json!({}))
}

fn last_lines(stderr: ChildStderr) -> VecDeque<String> {
    let mut kept = VecDeque::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if kept.len() == LOG_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    kept
}
