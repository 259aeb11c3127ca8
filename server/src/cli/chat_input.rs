//! Where a conversation's lines come from: a terminal with line editing and history, or anything else.

use std::io::{BufRead, IsTerminal, StdinLock};

use rustyline::error::ReadlineError;
use rustyline::{Cmd, DefaultEditor, EventHandler, KeyCode, KeyEvent, Modifiers};

use super::failure::{Exit, Failure, Outcome};

const PROMPT: &str = "> ";

/// What was read.
pub enum Line {
    /// A line, or several where they were typed or pasted as one.
    Text(String),
    /// Ctrl-C: what was typed is dropped.
    Interrupted,
    /// Nothing more comes.
    End,
}

/// A source of lines.
pub enum Input {
    /// A person. What is asked stays in memory: nothing is written to disk.
    Terminal(Box<DefaultEditor>),
    /// A pipe or a file.
    Pipe(StdinLock<'static>),
}

impl Input {
    /// The terminal, where both ends are one and people read the answers; else standard input as it is.
    pub fn open(json: bool) -> Outcome<Self> {
        let person = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !json;
        if !person {
            return Ok(Self::Pipe(std::io::stdin().lock()));
        }
        let mut editor = DefaultEditor::new().map_err(|error| broken(&error))?;
        let new_line = EventHandler::Simple(Cmd::Newline);
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), new_line);
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Waits for the next line.
    pub fn next(&mut self) -> Outcome<Line> {
        match self {
            Self::Terminal(editor) => match editor.readline(PROMPT) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        // It fails only for a history on disk.
                        let _ = editor.add_history_entry(line.trim());
                    }
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(broken(&error)),
            },
            Self::Pipe(stdin) => {
                let mut bytes = Vec::new();
                let read = stdin.read_until(b'\n', &mut bytes);
                match read.map_err(|error| Failure::file("standard input".as_ref(), &error))? {
                    0 => Ok(Line::End),
                    _ => Ok(Line::Text(String::from_utf8_lossy(&bytes).into_owned())),
                }
            }
        }
    }
}

fn broken(error: &ReadlineError) -> Failure {
    Failure::new(Exit::Failed, format!("the terminal: {error}"))
}
