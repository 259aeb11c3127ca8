//! An answer that a limit cut off ends with its last whole line, else with its last whole word. A line
//! that opens a body goes with the body that is missing.

use std::borrow::Cow;

use crate::completion::enough;
use crate::completion::shape::{Shape, opens_body};
use crate::completion::site::{Site, is_word};

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if enough::end(text, site).is_some() {
        return Cow::Borrowed(text);
    }
    let whole_lines = text.rfind('\n').map(|at| &text[..at]);
    match (site.shape, whole_lines) {
        (Shape::Block(_), Some(lines)) if !lines.trim().is_empty() => Cow::Borrowed(without_header(lines)),
        _ => Cow::Borrowed(text.trim_end_matches(is_word)),
    }
}

/// Whole lines without a last one that opens a body; that line alone is kept.
fn without_header(lines: &str) -> &str {
    let trimmed = lines.trim_end();
    match trimmed.rfind('\n') {
        Some(at) if opens_body(&trimmed[at..]) && !trimmed[..at].trim().is_empty() => {
            trimmed[..at].trim_end()
        }
        _ => lines,
    }
}
