//! In the middle of a line, a model that has not seen the text to the right guesses the rest of the line.
//! Its guess is worth showing only where it arrives at that text.

use std::borrow::Cow;

use crate::completion::brackets::open_at_end;
use crate::completion::site::{Site, is_closing, is_word};

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    let right = site.right().trim();
    if !site.blind || is_closing(right) {
        return Cow::Borrowed(text);
    }
    let wanted = first_token(right);
    let arrived = text.match_indices(wanted).map(|(at, _)| at).find(|&at| {
        let whole = !wanted.starts_with(is_word)
            || (!text[..at].ends_with(is_word) && !text[at + wanted.len()..].starts_with(is_word));
        whole && open_at_end(&text[..at], &site.lexis) == 0
    });
    Cow::Borrowed(arrived.map_or("", |at| &text[..at]))
}

/// The first word of a text, its first bracket, or its first run of other signs.
fn first_token(text: &str) -> &str {
    let Some(first) = text.chars().next() else { return text };
    let single = |c: char| "()[]{},;\"'`".contains(c);
    let end = if is_word(first) {
        text.find(|c| !is_word(c))
    } else if single(first) {
        Some(first.len_utf8())
    } else {
        text.find(|c: char| is_word(c) || c.is_whitespace() || single(c))
    };
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_brackets_or_runs_of_signs() {
        for (text, token) in [("foo(a)", "foo"), ("== b", "=="), (")?;", ")"), ("&mut x", "&"), ("", "")] {
            assert_eq!(first_token(text), token);
        }
    }
}
