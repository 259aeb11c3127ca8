//! Talking about a file: what is said, laid out for the model within its context.
//!
//! The file stands first and what was said follows in its order, a model's answers as the very ids that it
//! generated, so that a follow-up question's prompt begins with the former prompt and its answer. What
//! does not fit is left out, the oldest questions with their answers first and then lines of the file,
//! and [`Dropped`] says so.

mod file;
mod format;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vocabulary_tests;

use std::ops::Range;

use gemma_engine::{Error, ErrorKind};

use crate::prompt::{Prompt, Tokens};

pub use file::ChatFile;
pub use format::Format;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Model,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub text: String,
    /// The ids that the model said it in; another model needs others.
    #[serde(skip)]
    pub ids: Option<Vec<u32>>,
}

impl Turn {
    /// Something that was said, as text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), ids: None }
    }
}

/// What a chat prompt is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatMaterial {
    /// What is talked about.
    pub file: Option<ChatFile>,
    /// What was said before, oldest first: questions and answers in turn.
    pub history: Vec<Turn>,
    /// What is asked now.
    pub question: String,
}

/// What did not fit the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// So many of the oldest turns.
    pub turns: usize,
    /// So many lines at the beginning of the file.
    pub lines_above: usize,
    /// So many lines at its end.
    pub lines_below: usize,
}

impl Dropped {
    /// A sentence for the person who asked; `None` when everything fitted.
    pub fn notice(&self) -> Option<String> {
        let turns = counted("the oldest", self.turns, "message").map(|c| format!("{c} of the conversation"));
        let lines =
            [counted("the first", self.lines_above, "line"), counted("the last", self.lines_below, "line")];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        let lines = (!lines.is_empty()).then(|| format!("{} of the file", lines.join(" and ")));
        let left_out: Vec<String> = [turns, lines].into_iter().flatten().collect();
        (!left_out.is_empty())
            .then(|| format!("Left out, to fit the model's context: {}.", left_out.join("; ")))
    }
}

fn counted(which: &str, number: usize, what: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("{which} {what}")),
        _ => Some(format!("{which} {number} {what}s")),
    }
}

/// A question about a selection, as it is shown to the model and kept in the history.
pub fn about_selection(question: &str, file: &ChatFile, selected: &Range<usize>) -> String {
    match file.selection(selected) {
        Some(selection) => format!("{selection}\n{}", question.trim()),
        None => question.trim().to_owned(),
    }
}

/// Builds the prompt within `budget` tokens.
///
/// Fails when the question does not fit without any history and file.
pub fn build(
    material: &ChatMaterial,
    format: &Format,
    bos: u32,
    budget: usize,
    tokens: &dyn Tokens,
) -> Result<(Prompt, Dropped), Error> {
    let layout = Layout { file: material.file.as_ref(), format, bos, tokens };
    let question = [Turn::new(Role::User, material.question.trim())];
    let mut part = layout.file.map_or(0..0, |file| 0..file.text.len());
    let mut history = &material.history[..];
    let prompt = layout.prompt(&part, history, &question)?;
    if prompt.ids.len() <= budget {
        return Ok((prompt, Dropped::default()));
    }

    let mut alone = layout.prompt(&part, &[], &question)?;
    if alone.ids.len() > budget {
        // Whatever is asked, so that the next question finds the same part computed, and room for it.
        let nothing = [Turn::new(Role::User, "")];
        part = layout.cut(part, &nothing, budget - budget / 4)?;
        alone = layout.prompt(&part, &[], &question)?;
    }
    if alone.ids.len() > budget {
        part = layout.cut(part, &question, budget)?;
        alone = layout.prompt(&part, &[], &question)?;
    }
    if alone.ids.len() > budget {
        return Err(too_long(alone.ids.len(), budget));
    }
    let prompt = loop {
        let prompt = layout.prompt(&part, history, &question)?;
        if prompt.ids.len() <= budget {
            break prompt;
        }
        let room = budget - alone.ids.len();
        // Turns counted alone may come to less than in their places: at least one pair goes.
        let gone = superfluous(history, room / 2, tokens)?.max(oldest(history));
        history = history.get(gone..).unwrap_or_default();
    };
    let (lines_above, lines_below) = layout.file.map_or((0, 0), |file| file.lines_outside(&part));
    Ok((prompt, Dropped { turns: material.history.len() - history.len(), lines_above, lines_below }))
}

/// How many of the oldest turns have to go for the rest to have `room` tokens or less. Half of what there
/// is stays free this way, so that the next questions find what remains computed.
fn superfluous(history: &[Turn], room: usize, tokens: &dyn Tokens) -> Result<usize, Error> {
    /// What a layout writes around a turn.
    const AROUND: usize = 6;
    let mut counts = Vec::with_capacity(history.len());
    for turn in history {
        counts
            .push(AROUND + turn.ids.as_ref().map_or_else(|| tokens.count(&turn.text), |ids| Ok(ids.len()))?);
    }
    let mut gone = 0;
    while gone < history.len() && counts[gone..].iter().sum::<usize>() > room {
        gone += oldest(&history[gone..]);
    }
    Ok(gone)
}

/// A question goes together with its answer: a dialogue never begins with an answer.
fn oldest(history: &[Turn]) -> usize {
    let next = history.iter().skip(1).position(|turn| turn.role == Role::User);
    next.map_or(history.len(), |at| at + 1)
}

/// What all attempts at a prompt have in common.
struct Layout<'a> {
    file: Option<&'a ChatFile>,
    format: &'a Format,
    bos: u32,
    tokens: &'a dyn Tokens,
}

impl Layout<'_> {
    /// The prompt with this part of the file, in bytes.
    fn prompt(&self, part: &Range<usize>, history: &[Turn], question: &[Turn]) -> Result<Prompt, Error> {
        let turns = self.format.has_turns();
        let opening = self.file.map_or_else(String::new, |file| file.shown(part.clone(), turns));
        self.format.prompt(&opening, &[history, question].concat(), self.bos, self.tokens)
    }

    /// The part of the file, around what is talked about, with which a prompt has `budget` tokens or less;
    /// nothing of it if there is none.
    fn cut(&self, mut part: Range<usize>, said: &[Turn], budget: usize) -> Result<Range<usize>, Error> {
        let Some(file) = self.file else { return Ok(part) };
        let turns = self.format.has_turns();
        let mut room = self.tokens.count(&file.shown(part.clone(), turns))?;
        loop {
            let length = self.prompt(&part, &[], said)?.ids.len();
            if length <= budget || part.is_empty() {
                return Ok(part);
            }
            // A little more than the surplus, so that a few rounds do.
            room = room.saturating_sub(length - budget + room / 64);
            part = file.around_focus(room, turns, self.tokens)?;
        }
    }
}

fn too_long(length: usize, budget: usize) -> Error {
    Error::new(
        ErrorKind::Input,
        "question",
        format_args!("it has {length} tokens, and the model takes {budget} besides its answer"),
    )
    .remedy("Ask something shorter, or select less.")
}
