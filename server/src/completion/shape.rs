//! One line or a block: decided from the syntax tree and from what stands right of the cursor.

use crate::completion::brackets::{closer_of, ends_quoted};
use crate::completion::site::{Lexis, first_line, indent, is_closing, last_line};
use crate::settings::MultiLine;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// What is left of the cursor's line.
    Line,
    /// Lines, to the end of a scope.
    Block(Block),
}

/// Where a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Columns of indentation that its lines keep; `None`: those of its first line.
    pub floor: Option<usize>,
    /// The whole of an empty body, blank lines and all; otherwise it ends at a blank line, before the
    /// next thing of the same level.
    pub whole: bool,
}

/// Words that begin a line whose colon opens a body.
const COLON_HEADERS: [&str; 15] = [
    "def", "class", "if", "elif", "else", "for", "while", "with", "try", "except", "finally", "match",
    "case", "async", "default",
];

/// Words that open a body at the end of a line.
const OPENING_WORDS: [&str; 4] = ["then", "do", "else", "begin"];

/// Decides. `quoted`: the syntax tree has the cursor in a comment or a string.
pub fn decide(before: &str, after: &str, lexis: &Lexis, quoted: bool, policy: MultiLine) -> Shape {
    let (left, right) = (last_line(before), first_line(after));
    let in_body = opens_body(left) && between_pair(left, right);
    if policy == MultiLine::Never || quoted || ends_quoted(left, lexis) {
        return Shape::Line;
    }
    if !right.trim().is_empty() && !in_body {
        return Shape::Line;
    }
    if left.trim().is_empty() {
        let floor = (!left.is_empty()).then(|| indent(left));
        return Shape::Block(Block { floor, whole: is_empty_body(before, after) });
    }
    if opens_body(left) {
        let whole = right.trim().is_empty() && !has_deeper_line(left, after) || in_body;
        return Shape::Block(Block { floor: Some(indent(left) + 1), whole });
    }
    match policy {
        MultiLine::Always => Shape::Block(Block { floor: Some(indent(left)), whole: true }),
        _ => Shape::Line,
    }
}

/// Whether a line ends with what opens a body: `{`, a header's colon, `then`.
pub fn opens_body(line: &str) -> bool {
    let line = line.trim();
    if line.ends_with('{') {
        return true;
    }
    if line.ends_with(':') {
        let first = line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        return COLON_HEADERS.contains(&first);
    }
    let last = line.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    OPENING_WORDS.contains(&last)
}

/// Whether the cursor stands between a bracket and the one that closes it, as in `{‸}`.
fn between_pair(left: &str, right: &str) -> bool {
    let closer = left.trim_end().chars().next_back().and_then(closer_of);
    is_closing(right) && closer.is_some() && right.trim_start().chars().next() == closer
}

/// Whether the blank line of the cursor is the body of the line above, with nothing in it yet.
fn is_empty_body(before: &str, after: &str) -> bool {
    let above = before[..before.len() - last_line(before).len()].lines().rev().find(|l| !l.trim().is_empty());
    above.is_some_and(|above| opens_body(above) && !has_deeper_line(above, after))
}

/// Whether the next line that is not blank is indented deeper than `header`.
fn has_deeper_line(header: &str, after: &str) -> bool {
    let below = after[first_line(after).len()..].lines().find(|line| !line.trim().is_empty());
    below.is_some_and(|below| indent(below) > indent(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEXIS: Lexis = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };

    fn shape(text: &str, policy: MultiLine) -> String {
        let (before, after) = text.split_once('‸').expect("a cursor");
        match decide(before, after, &LEXIS, false, policy) {
            Shape::Line => "line".into(),
            Shape::Block(Block { floor, whole }) => {
                let floor = floor.map_or("?".into(), |f| f.to_string());
                format!("{} {floor}", if whole { "whole" } else { "paragraph" })
            }
        }
    }

    #[test]
    fn what_stands_around_the_cursor_decides() {
        for (text, expected) in [
            // Something real to the right: stay in the line.
            ("let x = ‸ + 1;", "line"),
            ("foo(‸, b)", "line"),
            ("foo(‸)", "line"),
            ("let x = ‸", "line"),
            ("let x = ‸;", "line"),
            // An opened body.
            ("fn f() {‸", "whole 1"),
            ("fn f() {‸}", "whole 1"),
            ("    if x {‸\n    }", "whole 5"),
            ("if x {‸\n    y();\n}", "paragraph 1"),
            ("items.map(|x| {‸})", "whole 1"),
            ("def f(x):‸", "whole 1"),
            ("    x:‸", "line"),
            ("if x then‸", "whole 1"),
            // A blank line.
            ("fn f() {\n    ‸\n}", "whole 4"),
            ("fn f() {\n‸\n}", "whole ?"),
            ("fn f() {\n    a();\n    ‸\n}", "paragraph 4"),
            ("fn f() {\n    ‸\n    a();\n}", "paragraph 4"),
            ("fn f() {}\n\n‸\n", "paragraph ?"),
            ("‸", "paragraph ?"),
            // Comments and strings.
            ("    // the next ‸", "line"),
            ("f(); // then‸", "line"),
            ("f(\"{‸", "line"),
        ] {
            assert_eq!(shape(text, MultiLine::Auto), expected, "{text}");
        }
    }

    #[test]
    fn the_policy_overrules_all_but_the_text_to_the_right() {
        for (text, policy, expected) in [
            ("fn f() {\n    ‸\n}", MultiLine::Never, "line"),
            ("    let x = ‸", MultiLine::Always, "whole 4"),
            ("let x = ‸ + 1;", MultiLine::Always, "line"),
            ("// a ‸", MultiLine::Always, "line"),
        ] {
            assert_eq!(shape(text, policy), expected, "{text}");
        }
    }

    #[test]
    fn the_tree_may_say_that_it_is_a_string() {
        assert_eq!(decide("a\n", "\n", &LEXIS, true, MultiLine::Auto), Shape::Line);
    }
}
