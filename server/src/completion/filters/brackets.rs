//! An answer does not close what the text behind the cursor closes already.

use std::borrow::Cow;

use crate::completion::brackets::{ends_quoted, surplus};
use crate::completion::site::Site;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if ends_quoted(site.left(), &site.lexis) {
        return Cow::Borrowed(text);
    }
    let end = surplus(text, &site.balance, &site.lexis).unwrap_or(text.len());
    Cow::Borrowed(&text[..end])
}
