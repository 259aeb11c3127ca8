//! The answer ends with its line or its scope.

use std::borrow::Cow;

use crate::completion::enough;
use crate::completion::site::Site;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(&text[..enough::end(text, site).unwrap_or(text.len())])
}
