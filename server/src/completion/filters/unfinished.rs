//! An answer that a limit cut off ends with its last whole line, else with its last whole word.

use std::borrow::Cow;

use crate::completion::enough;
use crate::completion::shape::Shape;
use crate::completion::site::{Site, is_word};

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if enough::end(text, site).is_some() {
        return Cow::Borrowed(text);
    }
    let whole_lines = text.rfind('\n').map(|at| &text[..at]);
    match (site.shape, whole_lines) {
        (Shape::Block(_), Some(lines)) if !lines.trim().is_empty() => Cow::Borrowed(lines),
        _ => Cow::Borrowed(text.trim_end_matches(is_word)),
    }
}
