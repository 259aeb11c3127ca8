//! A line that says what the line above or below says is an echo, not a completion.

use std::borrow::Cow;

use crate::completion::site::{Site, first_line};

/// Shorter lines repeat for good reasons: `pass`, `},`, `0,`.
const ECHO: usize = 5;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    let margin = if site.on_blank() { text.len() - text.trim_start().len() } else { 0 };
    let first = first_line(&text[margin..]);
    let line =
        format!("{}{first}{}", site.left(), if text[margin..].contains('\n') { "" } else { site.right() });
    let line = line.trim();
    let single = !text.trim().contains('\n');
    let echo = line.len() >= ECHO
        && (is(site.above(), line) || single && is(site.below(), line))
        && line.contains(char::is_alphanumeric);
    Cow::Borrowed(if echo { "" } else { text })
}

fn is(neighbour: Option<&str>, line: &str) -> bool {
    neighbour.is_some_and(|neighbour| neighbour.trim() == line)
}
