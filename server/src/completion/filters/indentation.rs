//! The first line starts where the cursor stands: what is typed of its indentation is not typed twice.

use std::borrow::Cow;

use crate::completion::shape::Shape;
use crate::completion::site::{Site, indent};

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if site.on_blank() { on_blank_line(site, text) } else { behind_text(site, text) }
}

fn on_blank_line<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    let blank_lines = text.rfind(|c: char| !c.is_whitespace()).map_or(0, |_| {
        let margin = text.len() - text.trim_start().len();
        text[..margin].rfind('\n').map_or(0, |at| at + 1)
    });
    let first = &text[blank_lines..];
    if blank_lines > 0 {
        // A line of its own: it has to have what is typed, in the same characters.
        return Cow::Borrowed(first.strip_prefix(site.left()).unwrap_or_default());
    }
    let deeper = site.above().is_none_or(|above| indent(site.left()) <= indent(above) && opens(above));
    let typed = !site.left().is_empty();
    if typed && !deeper && site.above().is_some_and(|above| indent(above) <= indent(site.left())) {
        return Cow::Borrowed(first.trim_start_matches([' ', '\t']));
    }
    Cow::Borrowed(first)
}

/// Whether a line may be followed by deeper ones: anything but a finished statement.
fn opens(line: &str) -> bool {
    !line.trim_end().ends_with([';', '}', ')', ','])
}

fn behind_text<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if site.shape == Shape::Line && text.starts_with('\n') {
        return Cow::Borrowed("");
    }
    if site.left().ends_with([' ', '\t']) {
        return Cow::Borrowed(text.trim_start_matches([' ', '\t']));
    }
    Cow::Borrowed(text)
}
