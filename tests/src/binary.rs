//! The shipped binary: where it is, and running it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::places;

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

    /// Asserts a refusal: this code, a message on standard error, no panic's text.
    pub fn expect_refusal(self, code: i32) -> Self {
        let ran = self.expect_code(code);
        assert!(!ran.err.trim().is_empty(), "a refusal says nothing: {ran:?}");
        assert!(!ran.err.contains("panicked at"), "a refusal panicked: {ran:?}");
        ran
    }
}

/// Runs the binary to its end, with no input.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    run_in(&places::repository(), arguments)
}

/// Runs the binary to its end in a folder, with no input.
pub fn run_in<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Ran {
    let program = path();
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").stdin(std::process::Stdio::null());
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|e| panic!("{} does not run: {e}", program.display()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}
