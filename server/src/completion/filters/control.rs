//! No control token is ever shown, not even one that the model spells out in letters.

use std::borrow::Cow;

use crate::completion::site::Site;

const TOKENS: [&str; 13] = [
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|file_separator|>",
    "<|endoftext|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<mask>",
    "<unk>",
];

/// A token that a limit cut off is still a token from this many of its letters on.
const CUT_OFF: usize = 4;

pub fn apply<'a>(_: &Site, text: &'a str) -> Cow<'a, str> {
    let whole = TOKENS.iter().filter_map(|token| text.find(token)).min();
    let unused = text.find("<unused").filter(|at| {
        let digits = text[at + "<unused".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        digits.starts_with('>') || digits.is_empty()
    });
    let end = [whole, unused, cut_off(text)].into_iter().flatten().min().unwrap_or(text.len());
    Cow::Borrowed(&text[..end])
}

fn cut_off(text: &str) -> Option<usize> {
    let at = text.rfind("<|")?;
    let tail = &text[at..];
    (tail.len() >= CUT_OFF && TOKENS.iter().any(|token| token.starts_with(tail))).then_some(at)
}
