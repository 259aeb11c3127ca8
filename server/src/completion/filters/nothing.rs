//! A comment marker with nothing behind it is not worth showing.

use std::borrow::Cow;

use crate::completion::site::Site;

const MARKERS: [&str; 10] = ["//", "///", "//!", "#", "--", "/*", "/**", "*/", "*", "<!--"];

pub fn apply<'a>(_: &Site, text: &'a str) -> Cow<'a, str> {
    let only_markers = text.split_whitespace().all(|word| MARKERS.contains(&word));
    Cow::Borrowed(if only_markers { "" } else { text })
}
