//! No blanks at the end; a closing bracket that waits behind the cursor gets a line of its own when the
//! answer has several.

use std::borrow::Cow;

use crate::completion::brackets::is_closer;
use crate::completion::site::Site;

pub fn apply<'a>(site: &Site, text: &'a str) -> Cow<'a, str> {
    let trimmed = text.trim_end();
    if trimmed.contains('\n') && site.right().trim_start().starts_with(is_closer) {
        let left = site.left();
        let margin = &left[..left.len() - left.trim_start().len()];
        return Cow::Owned(format!("{trimmed}\n{margin}"));
    }
    Cow::Borrowed(trimmed)
}
