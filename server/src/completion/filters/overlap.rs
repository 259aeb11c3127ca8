//! The answer ends where the text behind the cursor begins; white space does not count in the comparison.

use std::borrow::Cow;

use crate::completion::brackets::{ends_quoted, excess};
use crate::completion::site::{Site, is_closing, is_word, last_line};

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    let right = site.right().trim();
    let end = if right.is_empty() { whole_lines(site, text) } else { part_of_line(site, text, right) };
    Cow::Borrowed(&text[..end])
}

/// The longest run of lines at the end of the answer with which the lines below begin.
fn whole_lines(site: &Site, text: &str) -> usize {
    let below: Vec<&str> = site.after.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let whole = if start == 0 { format!("{}{line}", site.left()) } else { line.to_string() };
        if !whole.trim().is_empty() {
            lines.push((start, whole.trim().to_string()));
        }
        start += line.len();
    }
    let first = (0..lines.len()).find(|&first| {
        let tail = &lines[first..];
        let says_something = tail.iter().any(|(_, line)| line.contains(char::is_alphanumeric));
        says_something && tail.len() <= below.len() && tail.iter().zip(&below).all(|((_, a), b)| a == b)
    });
    first.map_or(text.len(), |first| lines[first].0)
}

/// The longest end of the answer's last line with which the rest of the cursor's line begins. Words are
/// not cut in two.
fn part_of_line(site: &Site, text: &str, right: &str) -> usize {
    let line = last_line(text);
    let start = text.len() - line.len();
    let quoted = ends_quoted(site.left(), &site.lexis);
    let closers: Vec<char> = excess(text, &site.lexis).iter().map(|b| b.kind).collect();
    // `foo(bar(‸)`: the answer's bracket may be the one that is missing, not the one that is there.
    let missing = !quoted && !closers.is_empty() && site.balance.may_close(&closers);
    for (at, c) in line.char_indices().filter(|(_, c)| !c.is_whitespace()) {
        let tail = &line[at..];
        if is_word(c) && line[..at].ends_with(is_word) || missing && is_closing(tail) {
            continue;
        }
        if begins_with(right, tail) {
            return start + at;
        }
    }
    text.len()
}

/// Whether `text` begins with `head`, white space aside, and not in the middle of a word.
fn begins_with(text: &str, head: &str) -> bool {
    let mut rest = text.char_indices().filter(|(_, c)| !c.is_whitespace());
    let mut last = None;
    for wanted in head.chars().filter(|c| !c.is_whitespace()) {
        match rest.next() {
            Some((at, c)) if c == wanted => last = Some(at + c.len_utf8()),
            _ => return false,
        }
    }
    last.is_some_and(|end| !(text[..end].ends_with(is_word) && text[end..].starts_with(is_word)))
}
