//! An answer does not close what the text behind the cursor closes already.

use std::borrow::Cow;

use crate::completion::brackets::{closing_quote, ends_quoted, open_quote, surplus};
use crate::completion::site::Site;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(&text[..end(site, text).unwrap_or(text.len())])
}

fn end(site: &Site, text: &str) -> Option<usize> {
    let Some(quote) = open_quote(site.left(), &site.lexis) else {
        let comment = ends_quoted(site.left(), &site.lexis);
        return if comment { None } else { surplus(text, &site.balance, &site.lexis) };
    };
    let closed = closing_quote(text, quote)?;
    if closing_quote(site.right(), quote).is_some() {
        return Some(closed);
    }
    let code = closed + quote.len_utf8();
    surplus(&text[code..], &site.balance, &site.lexis).map(|at| code + at)
}
