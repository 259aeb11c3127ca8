//! Lines of a text as a reader sees them: indentation, content, blank or not.

use std::ops::Range;

use ropey::{Rope, RopeSlice};

use crate::text::line_end;

/// How many characters of a line are looked at: more is no line that a person wrote.
const WIDEST: usize = 2_000;

/// The content of a line, without its break; the beginning of a very long one.
pub(super) fn content(text: &Rope, line: usize) -> String {
    String::from(slice(text, line))
}

fn slice(text: &Rope, line: usize) -> RopeSlice<'_> {
    if line >= text.len_lines() {
        return text.slice(0..0);
    }
    let start = text.line_to_char(line);
    text.slice(start..line_end(text, line).min(start + WIDEST))
}

/// How many characters of white space a line begins with.
pub(super) fn indent(text: &Rope, line: usize) -> usize {
    slice(text, line).chars().take_while(|c| c.is_whitespace()).count()
}

/// Whether a line is nothing but white space.
pub(super) fn is_blank(text: &Rope, line: usize) -> bool {
    slice(text, line).chars().all(char::is_whitespace)
}

/// The characters from the start of line `first` to the end of the content of line `last`.
pub(super) fn span(text: &Rope, first: usize, last: usize) -> Range<usize> {
    let start = text.line_to_char(first.min(text.len_lines()));
    start..line_end(text, last).max(start)
}

/// The characters of bytes that a parser named, clamped to the text.
pub(super) fn chars(text: &Rope, bytes: Range<usize>) -> Range<usize> {
    let end = bytes.end.min(text.len_bytes());
    text.byte_to_char(bytes.start.min(end))..text.byte_to_char(end)
}

/// The nearest line above `line` that is not blank.
pub(super) fn above(text: &Rope, line: usize) -> Option<usize> {
    (0..line.min(text.len_lines())).rev().find(|line| !is_blank(text, *line))
}

/// The text from the start of the cursor's line to the cursor, and from there to the line's end.
pub(super) fn around(text: &Rope, cursor: usize) -> (String, String) {
    let cursor = cursor.min(text.len_chars());
    let line = text.char_to_line(cursor);
    let (start, end) = (text.line_to_char(line), line_end(text, line).max(cursor));
    let before = text.slice(start.max(cursor.saturating_sub(WIDEST))..cursor);
    (before.to_string(), text.slice(cursor..end.min(cursor + WIDEST)).to_string())
}

/// Whether `c` may stand in a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `text`, not as a part of a longer name.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            !before.ends_with(is_word) && !after.starts_with(is_word)
        })
}
