//! Brackets and quotes that the editor put behind the cursor by itself may be typed again by an answer
//! that goes on behind them: `foo(‸)` and `a, b).unwrap()`. The answer then replaces them.

use crate::completion::brackets::surplus;
use crate::completion::site::{Site, first_line, is_closing};

/// Bytes of the text behind the cursor that the answer types again.
pub fn covers(site: &Site, text: &str) -> usize {
    let right = site.right();
    let typed = right.trim();
    if typed.is_empty() || !is_closing(typed) {
        return 0;
    }
    let line = first_line(text).trim_end();
    let at = match typed.chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => line.find(quote),
        _ => surplus(line, &site.balance, &site.lexis),
    };
    let goes_on =
        at.and_then(|at| line[at..].strip_prefix(typed)).is_some_and(|rest| !rest.trim().is_empty());
    if goes_on && line.len() == text.trim_end().len() { right.trim_end().len() } else { 0 }
}
