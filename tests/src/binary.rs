//! The shipped binary: where it is, and running it.

use std::ffi::OsStr;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::places;

/// How long a run may take before it counts as hanging: far longer than any should.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines that a refusal may have: what happened, what to do, how to get help.
const MESSAGE_LINES: usize = 8;

/// The binary: `$GEMMA_LS_BIN`, else the one in cargo's target folder.
pub fn path() -> PathBuf {
    let path = match std::env::var_os("GEMMA_LS_BIN") {
        Some(path) => PathBuf::from(path),
        None => places::target().join("release/gemma-ls"),
    };
    assert!(path.is_file(), "{} is not there: run `cargo build --release` first", path.display());
    path
}

/// What a run of the binary came to.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// Asserts the exit code, showing everything where it is another.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Asserts a refusal: this exit code and one short message on standard error.
    pub fn expect_refusal(self, code: i32) -> Self {
        let ran = self.expect_code(code);
        let lines = ran.err.trim().lines().count();
        assert!(lines > 0, "a refusal says nothing: {ran:?}");
        assert!(lines <= MESSAGE_LINES, "a refusal says too much: {ran:?}");
        assert!(!ran.panicked(), "a refusal panicked: {ran:?}");
        ran
    }

    /// Whether standard error has a panic's text.
    pub fn panicked(&self) -> bool {
        self.err.contains("panicked at") || self.err.contains("RUST_BACKTRACE")
    }
}

/// Runs the binary to its end, with no input.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    run_in(&places::repository(), arguments)
}

/// Runs the binary to its end in a folder, with no input.
pub fn run_in<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(path());
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").stdin(Stdio::null());
    finish(command)
}

/// Runs the binary to its end, for a user whose own files are all in this folder.
pub fn run_at_home<A: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(path());
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command.env("HOME", home).env("XDG_DATA_HOME", home.join("data")).env("XDG_CONFIG_HOME", home);
    finish(command)
}

/// Runs the binary to its end in a folder, with this input.
pub fn run_with_input<A: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: &str,
) -> Ran {
    let file = tempfile::tempfile().and_then(|mut file| {
        file.write_all(input.as_bytes())?;
        file.rewind()?;
        Ok(file)
    });
    let mut command = Command::new(path());
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1");
    command.stdin(file.expect("a temporary file can be written"));
    finish(command)
}

/// Waits for a command's end; one that takes longer than [`PATIENCE`] is ended and is a failure.
fn finish(mut command: Command) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not run: {e}"));
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                panic!("{command:?} hangs");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("reading a pipe does not panic")).into_owned()
    };
    Ran { code: status.code(), out: text(out), err: text(err) }
}

/// Reads a pipe to its end on a thread of its own, so that a full one stops nobody.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
