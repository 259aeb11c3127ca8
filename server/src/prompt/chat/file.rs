//! The file that is talked about, as the model is shown it: fenced, with its lines numbered for models that
//! can be told what the numbers are for.

use std::ops::Range;

use gemma_engine::Error;

use crate::prompt::{Tokens, window};

/// A file that is talked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatFile {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// The protocol's identifier of its language.
    pub language: String,
    /// Its text, lines ended by `\n`.
    pub text: String,
    /// Bytes of the text around which it is shown when it does not fit: the selection, or the cursor.
    /// `None`: its beginning.
    pub focus: Option<Range<usize>>,
    /// Whether to show line numbers to a model that can be told what they are. A line costs three to four
    /// tokens more, about a third of what source text has.
    pub numbered: bool,
}

impl ChatFile {
    /// What stands before the first question: a part of the file, in bytes. `turns`: to a model that was
    /// tuned to do what it is told.
    ///
    /// What says that the file goes on stands behind it: before it, it would change with the part's end.
    pub(super) fn shown(&self, part: Range<usize>, turns: bool) -> String {
        let numbered = self.numbered && turns;
        let first = 1 + self.text[..part.start].matches('\n').count();
        let text = &self.text[part.clone()];
        let from = if part.start > 0 { format!(", from line {first} on") } else { String::new() };
        let numbers = if numbered { ", each line with its number and a | before it" } else { "" };
        let text = if numbered { number(text, first) } else { text.to_owned() };
        let mut shown =
            format!("This is the file {}{from}{numbers}:\n{}", self.path, fenced(&text, &self.language));
        if part.end < self.text.len() {
            shown.push_str("The file goes on after this.\n");
        }
        if numbered {
            shown.push_str("Name lines by their numbers. Write code without them.\n");
        }
        shown.push('\n');
        shown
    }

    /// A selection of the text, in bytes, to stand before a question about it; `None` when it is empty.
    pub(super) fn selection(&self, selected: &Range<usize>) -> Option<String> {
        let text = self.text.get(selected.clone()).filter(|text| !text.trim().is_empty())?;
        let first = 1 + self.text[..selected.start].matches('\n').count();
        let last = first + text.trim_end_matches('\n').matches('\n').count();
        let lines =
            if first == last { format!("Line {first} is") } else { format!("Lines {first} to {last} are") };
        Some(format!("{lines} selected:\n{}", fenced(text, &self.language)))
    }

    /// The part of the text, in bytes and whole lines, that is shown in about `room` tokens.
    pub(super) fn around_focus(
        &self,
        room: usize,
        turns: bool,
        tokens: &dyn Tokens,
    ) -> Result<Range<usize>, Error> {
        let room = self.plain_room(room, turns, tokens)?;
        let focus = self.focus.as_ref().map_or(0, |focus| focus.start.min(self.text.len()));
        let line = self.text.get(..focus).and_then(|above| above.rfind('\n')).map_or(0, |at| at + 1);
        let (above, below) = self.text.split_at(line);
        let end = window::end(below, room, tokens)?;
        let wanted = tokens.count(&below[..end])?;
        // What is below may have what the lines above do not need, at least half.
        let start = window::start(above, (room / 2).max(room.saturating_sub(wanted)), tokens)?;
        let left = room.saturating_sub(tokens.count(&above[start..])?);
        Ok(start..line + window::end(below, left, tokens)?)
    }

    /// Tokens of the text alone that have `room` tokens when they are shown.
    fn plain_room(&self, room: usize, turns: bool, tokens: &dyn Tokens) -> Result<usize, Error> {
        if !(self.numbered && turns) {
            return Ok(room);
        }
        let plain = tokens.count(&self.text)?;
        let numbered = tokens.count(&number(&self.text, 1))?;
        Ok(room * plain / numbered.max(1))
    }

    /// Lines of the text before and behind a part of it.
    pub(super) fn lines_outside(&self, part: &Range<usize>) -> (usize, usize) {
        (self.text[..part.start].lines().count(), self.text[part.end..].lines().count())
    }
}

/// Every line with its number and `|` before it, which leaves the line's own tokens as they are.
fn number(text: &str, first: usize) -> String {
    let lines = text.split_inclusive('\n').enumerate();
    lines.map(|(n, line)| format!("{}|{line}", first + n)).collect()
}

/// A fence longer than any in the text.
fn fenced(text: &str, language: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}
