//! One error for everything the engine can fail at, made to be read by the person at the keyboard:
//! what happened, to what, and what to do now.

use std::fmt;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is, for exit codes and for callers that react differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file is broken, truncated or not what it claims to be.
    BadFile,
    /// A file is sound, but of a kind this build does not run.
    Unsupported,
    /// No such model, file or tensor.
    NotFound,
    /// The network or a remote service failed.
    Network,
    /// The hub refuses: a licence to accept or a token to give.
    Access,
    /// What was asked for makes no sense (too long, out of range).
    Input,
    /// Not enough memory or disk.
    Resources,
    /// Not enough memory on the GPU.
    DeviceFull,
    /// The GPU does not answer any more.
    DeviceLost,
    /// It was stopped, by who asked for it or with the engine.
    Stopped,
    /// A bug of ours, caught at the boundary.
    Internal,
}

/// An engine error: `subject: problem`, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    subject: String,
    problem: String,
    remedy: Option<String>,
}

impl Error {
    /// `subject` is what it happened to (a path, a field, a model name), `problem` what happened.
    pub fn new(kind: ErrorKind, subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { kind, subject: subject.to_string(), problem: problem.to_string(), remedy: None }
    }

    /// Adds what the user can do now, as a sentence.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// The sort of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether a GPU is to blame, and the processor would do.
    pub fn is_of_device(&self) -> bool {
        matches!(self.kind, ErrorKind::DeviceFull | ErrorKind::DeviceLost | ErrorKind::Unsupported)
    }

    /// What happened.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The sentence that says what to do now, where there is one.
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
