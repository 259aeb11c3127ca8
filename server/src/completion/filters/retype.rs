//! Brackets and quotes that the editor put behind the cursor by itself may be typed again by an answer that goes
//! on behind them: `foo(‸)` and `a, b).unwrap()`. The answer then replaces them. It also does where it closes all
//! of them in its own way: `open("‸");` and `file.txt", mode)?;`.

use crate::completion::brackets::{closing_quote, excess, is_closer, open_quote, surplus};
use crate::completion::site::{Site, first_line, is_closing};

/// Bytes of the text behind the cursor that the answer types again.
pub fn covers(site: &Site, text: &str) -> usize {
    let (right, line) = (site.right(), first_line(text).trim_end());
    let typed = right.trim();
    if typed.is_empty() || !is_closing(typed) || line.len() < text.trim_end().len() {
        return 0;
    }
    let quote = open_quote(site.left(), &site.lexis).filter(|quote| typed.starts_with(*quote));
    let at = match quote {
        Some(quote) => closing_quote(line, quote),
        None => surplus(line, &site.balance, &site.lexis),
    };
    let Some(at) = at else { return 0 };
    let again = &line[at..];
    if typed.starts_with(again) {
        // Nothing goes on: what is typed twice is cut.
        return 0;
    }
    if again.starts_with(typed) {
        return right.trim_end().len();
    }
    let code = quote.map_or(line, |quote| &line[at + quote.len_utf8()..]);
    let closed: Vec<char> = excess(code, &site.lexis).iter().map(|bracket| bracket.kind).collect();
    let there: Vec<char> = typed.chars().filter(|&c| is_closer(c)).collect();
    if quote.is_none() && there.is_empty() || !closed.starts_with(&there) {
        return 0;
    }
    let punctuation =
        typed.trim_start_matches(|c: char| is_closer(c) || c.is_whitespace() || Some(c) == quote);
    match () {
        () if again.ends_with(punctuation) => right.trim_end().len(),
        () if again.ends_with([';', ',', ':', '{']) => 0,
        () => right.trim_end().len() - punctuation.len(),
    }
}
