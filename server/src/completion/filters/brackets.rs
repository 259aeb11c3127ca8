//! An answer does not close what the text behind the cursor closes already.

use std::borrow::Cow;

use crate::completion::brackets::{ends_quoted, excess};
use crate::completion::site::Site;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    if ends_quoted(site.left(), &site.lexis) {
        return Cow::Borrowed(text);
    }
    let closers = excess(text, &site.lexis);
    let kinds: Vec<char> = closers.iter().map(|b| b.kind).collect();
    let surplus = (0..kinds.len()).find(|&i| !site.balance.may_close(&kinds[..=i]));
    Cow::Borrowed(surplus.map_or(text, |i| &text[..closers[i].at]))
}
