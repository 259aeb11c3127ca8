//! Whether something at the cursor is waiting to be finished.

use super::super::lines;
use super::literals::scan;
use super::scopes::{closes, opens};
use super::{Place, enclosing_block, in_comment_or_string};
use crate::documents::Snapshot;
use crate::language::Spec;

/// Whether the cursor is where the body of something begins and nothing of that body is written yet,
/// apart from comments.
pub fn node_is_empty_body(document: &Snapshot, cursor: usize) -> bool {
    let (text, spec) = (&document.text, document.language.spec());
    let cursor = cursor.min(text.len_chars());
    if in_comment_or_string(document, cursor).is_some() {
        return false;
    }
    let (before, after) = lines::around(text, cursor);
    let line = text.char_to_line(cursor);
    let Some(opener) = opener(document, cursor, &before, line) else { return false };

    let after = after.trim();
    if !after.is_empty() {
        return closes(spec, after);
    }
    let next = (line + 1..text.len_lines()).find(|line| !lines::is_blank(text, *line));
    next.is_none_or(|next| {
        closes(spec, &lines::content(text, next)) || lines::indent(text, next) <= lines::indent(text, opener)
    })
}

/// The line that opens the body which the cursor is at the start of.
fn opener(document: &Snapshot, cursor: usize, before: &str, line: usize) -> Option<usize> {
    let (text, spec) = (&document.text, document.language.spec());
    if !before.trim().is_empty() {
        let body = before.trim_end().ends_with('{') || (opens(spec, before) && !unbalanced(spec, before));
        return body.then_some(line);
    }
    let is_comment = |line: &usize| {
        let content = lines::content(text, *line);
        let content = content.trim_start();
        let block = spec.block_comment.is_some_and(|(start, _)| content.starts_with(start));
        block || spec.line_comment.is_some_and(|start| content.starts_with(start))
    };
    let above = std::iter::successors(lines::above(text, line), |line| lines::above(text, *line))
        .find(|line| !is_comment(line))?;
    let content = scan(spec, &lines::content(text, above)).0;
    let bracket = content.trim_end().ends_with(['(', '[']);
    if opens(spec, &content) {
        return (!bracket).then_some(above);
    }
    // Where no word or bracket ends a header, the innermost scope says where its header ends.
    let scope = enclosing_block(document, cursor)?;
    (text.char_to_line(scope.header.end) == above).then_some(above)
}

/// Words and signs that something has to follow.
const OPEN_ENDS: &[&str] = &[
    "=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&",
    "|",
    "^",
    "<",
    "(",
    "[",
    ",",
    ".",
    "->",
    "=>",
    "?",
    "!",
    "::",
    "return",
    "in",
    "and",
    "or",
    "not",
    "await",
    "new",
    "let",
    "const",
    "var",
    "if",
    "elif",
    "while",
    "for",
    "import",
    "from",
    "as",
    "of",
    "is",
    "throw",
    "raise",
    "yield",
    "extends",
    "implements",
    "case",
    "local",
    "typeof",
];

/// Whether the cursor is inside of a statement that is not finished, or at the start of an empty body:
/// then what comes next is sure to be wanted. False where a statement ends and another may begin.
pub fn statement_incomplete_at(document: &Snapshot, cursor: usize) -> bool {
    let (text, spec) = (&document.text, document.language.spec());
    let cursor = cursor.min(text.len_chars());
    if node_is_empty_body(document, cursor) {
        return true;
    }
    if in_comment_or_string(document, cursor).is_some() {
        return true;
    }
    let (before, after) = lines::around(text, cursor);
    if before.trim().is_empty() {
        let above = lines::above(text, text.char_to_line(cursor));
        return above.is_some_and(|above| open_ended(spec, &scan(spec, &lines::content(text, above)).0));
    }
    let after = after.trim();
    if !after.is_empty() && !after.starts_with([')', ']', '}', ';', ',']) {
        return true;
    }
    let before = before.trim_end();
    if open_ended(spec, before) || unbalanced(spec, before) {
        return true;
    }
    if before.ends_with(';') || before.ends_with(['{', '}']) || (spec.indented && before.ends_with(':')) {
        return false;
    }
    let typing = text.get_char(cursor.wrapping_sub(1)).is_some_and(lines::is_word);
    let unterminated = spec.terminator.is_some_and(|end| !before.ends_with(end)) && after.is_empty();
    typing || unterminated || touches_error(document, cursor)
}

fn open_ended(spec: &Spec, line: &str) -> bool {
    let line = line.trim_end();
    if line.is_empty() || opens(spec, line) && !line.ends_with(['(', '[']) {
        return false;
    }
    // `i++` and `p--` are whole; so is a type's `*` or `?` only rarely.
    if line.ends_with("++") || line.ends_with("--") {
        return false;
    }
    OPEN_ENDS.iter().any(|end| {
        line.strip_suffix(end)
            .is_some_and(|rest| !end.ends_with(lines::is_word) || !rest.ends_with(lines::is_word))
    })
}

/// Whether the line opens a bracket that it does not close; curly ones only where they enclose no blocks.
fn unbalanced(spec: &Spec, line: &str) -> bool {
    let (code, _) = scan(spec, line);
    let depth = code.chars().fold(0i32, |depth, c| match c {
        '(' | '[' => depth + 1,
        ')' | ']' => (depth - 1).max(0),
        '{' if spec.indented => depth + 1,
        '}' if spec.indented => (depth - 1).max(0),
        _ => depth,
    });
    depth > 0
}

/// Whether the parser missed something right before the cursor.
fn touches_error(document: &Snapshot, cursor: usize) -> bool {
    let Some(place) = Place::of(document, cursor) else { return false };
    place.paths().into_iter().flatten().any(|node| {
        (node.is_error() || node.is_missing()) && (node.start_byte()..=node.end_byte()).contains(&place.byte)
    })
}
