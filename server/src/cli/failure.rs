//! How a command ends: the exit codes, and errors that say what happened and what to do now.

use std::fmt;
use std::io;

use gemma_engine::{Error, ErrorKind};
use serde_json::{Value, json};

/// What the process tells its caller. Documented in `--help`; scripts rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// It did not, for a reason that has no code of its own.
    Failed = 1,
    /// The command line, or what it asks for, makes no sense.
    Usage = 2,
    /// No such model or file.
    Missing = 3,
    /// A file is broken, or of a kind this build does not run.
    BadFile = 4,
    /// The network failed, or the hub wants a licence accepted or a token.
    Network = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The table of [`Exit`] for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    it worked
  1    it failed
  2    wrong usage: the command line, or something it asks for, makes no sense
  3    no such model or file
  4    a broken file, or one of a kind that is not supported
  5    the network failed, or the hub wants a licence accepted or a token
  130  stopped with Ctrl-C";

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    remedy: Option<String>,
    closed_pipe: bool,
}

/// `Result` with [`Failure`].
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with its exit code and one sentence that names what it happened to.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), remedy: None, closed_pipe: false }
    }

    /// A failure of the caller's: [`Exit::Usage`].
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what the user can do now, as a sentence.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// A file that could not be read or written.
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::Missing,
            io::ErrorKind::InvalidData => Exit::BadFile,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{}: {}", path.display(), plain(error)))
    }

    /// Standard output failed. A reader that went away (`| head`) wanted no more: that is no failure.
    pub fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => {
                Self { exit: Exit::Ok, message: String::new(), remedy: None, closed_pipe: true }
            }
            _ => Self::new(Exit::Failed, format!("standard output: {}", plain(error))),
        }
    }

    /// The same, where it was the user who wanted it.
    pub fn interrupted(self) -> Self {
        Self { exit: Exit::Interrupted, ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What happened, without the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do now, where there is something.
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Whether it is only that nobody reads our output any more.
    pub fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }

    /// What `--json` prints in place of a result.
    pub fn to_json(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "remedy": self.remedy,
            "exit_code": self.exit as u8,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Input => Exit::Usage,
            ErrorKind::NotFound => Exit::Missing,
            ErrorKind::BadFile | ErrorKind::Unsupported => Exit::BadFile,
            ErrorKind::Network | ErrorKind::Access => Exit::Network,
            ErrorKind::Resources
            | ErrorKind::DeviceFull
            | ErrorKind::DeviceLost
            | ErrorKind::Stopped
            | ErrorKind::Internal => Exit::Failed,
        };
        let remedy = error.remedy_text().map(str::to_owned);
        let whole = error.to_string();
        // The error shows its remedy on a line of its own; here it has a field of its own.
        let message = match &remedy {
            Some(remedy) => whole.strip_suffix(remedy).unwrap_or(&whole).trim_end().to_owned(),
            None => whole,
        };
        Self { exit, message, remedy, closed_pipe: false }
    }
}

/// An I/O error without the `(os error 2)` that helps nobody.
pub fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "this is a folder, not a file".to_owned(),
        io::ErrorKind::InvalidData => "this is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_engine_error_has_its_exit_code() {
        for (kind, exit) in [
            (ErrorKind::Input, Exit::Usage),
            (ErrorKind::NotFound, Exit::Missing),
            (ErrorKind::BadFile, Exit::BadFile),
            (ErrorKind::Unsupported, Exit::BadFile),
            (ErrorKind::Network, Exit::Network),
            (ErrorKind::Access, Exit::Network),
            (ErrorKind::Resources, Exit::Failed),
            (ErrorKind::Stopped, Exit::Failed),
            (ErrorKind::Internal, Exit::Failed),
        ] {
            let failure = Failure::from(Error::new(kind, "model.gguf", "it is short"));
            assert_eq!(failure.exit(), exit, "{kind:?}");
            assert_eq!(failure.to_string(), "model.gguf: it is short");
        }
    }

    #[test]
    fn the_remedy_stands_once_in_text_and_alone_in_json() {
        let failure =
            Failure::from(Error::new(ErrorKind::Access, "hub", "it refuses").remedy("Accept the licence."));
        assert_eq!(failure.to_string(), "hub: it refuses\n  Accept the licence.");
        assert_eq!(
            failure.to_json(),
            json!({"error": {"message": "hub: it refuses", "remedy": "Accept the licence.", "exit_code": 5}})
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::stdout(&io::ErrorKind::BrokenPipe.into());
        assert!(closed.is_closed_pipe());
        assert_eq!(closed.exit(), Exit::Ok);
        let full = Failure::stdout(&io::ErrorKind::StorageFull.into());
        assert!(!full.is_closed_pipe());
        assert_eq!(full.exit(), Exit::Failed);
    }

    #[test]
    fn the_help_names_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Missing,
            Exit::BadFile,
            Exit::Network,
            Exit::Interrupted,
        ] {
            let code = exit as u8;
            assert!(
                EXIT_CODES.lines().any(|l| l.trim_start().starts_with(&format!("{code} "))),
                "{exit:?} is not in the help"
            );
        }
    }
}
