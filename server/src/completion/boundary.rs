//! The seam between what the user typed and what the model writes.
//!
//! A prompt that ends in the middle of a token asks for something that the model has never seen: tokens
//! of the family begin with their space (`▁foo`), so after a lone space or half a word it guesses badly.
//! So the word before the cursor and the blanks before that are left out of the prompt, and the engine
//! holds the answer to begin with them. While a word is typed the prompt stays the same, too: all of it
//! is in the cache.
//!
//! On a line with nothing on it yet the line breaks before it are left out, since several in a row are one token:
//! a model that is shown one of them takes it that no other follows. Indentation stays, with what is above it: it
//! is a token of its own in the texts that models learn from.

use crate::completion::site::is_word;

/// Longer words are taken as complete.
const LONGEST_WORD: usize = 40;

/// What stands before the cursor and is not in the prompt: blanks, then a word (either may be missing), or line
/// breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seam(String);

impl Seam {
    /// Splits the text before the cursor into what goes into the prompt and what the answer begins with.
    pub fn split(before: &str) -> (&str, Self) {
        let to_word = before.trim_end_matches(is_word);
        let length = before.len() - to_word.len();
        let to_word = if length <= LONGEST_WORD { to_word } else { before };
        let to_blanks = to_word.trim_end_matches([' ', '\t']);
        // Indentation alone on its line, or nothing before it at all.
        let indentation = to_blanks.is_empty() || to_blanks.ends_with('\n');
        let kept = match before.ends_with('\n') {
            true => before.trim_end_matches('\n'),
            false if indentation => to_word,
            false => to_blanks,
        };
        (kept, Self(before[kept.len()..].to_string()))
    }

    /// What the answer has to begin with.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// How an answer, which may still be growing, goes on from what is typed; `None` while it has not come
    /// as far.
    pub fn join<'a>(&self, raw: &'a str) -> Option<&'a str> {
        raw.strip_prefix(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_the_answer_begins_with() {
        for (before, prompt, seam) in [
            ("let x = ", "let x =", " "),
            ("let x =", "let x =", ""),
            ("let x =  ", "let x =", "  "),
            ("{\n    ", "{\n    ", ""),
            ("    ", "    ", ""),
            ("", "", ""),
            ("let x = fo", "let x =", " fo"),
            ("{\n    ret", "{\n    ", "ret"),
            ("self.qu", "self.", "qu"),
            ("größ", "", "größ"),
            ("}\n\n", "}", "\n\n"),
            ("}\n\nfn", "}\n\n", "fn"),
            ("}\n    ", "}\n    ", ""),
            ("\n", "", "\n"),
        ] {
            let split = Seam::split(before);
            assert_eq!((split.0, split.1.text()), (prompt, seam), "{before:?}");
        }
    }

    #[test]
    fn an_answer_goes_on_behind_what_is_typed() {
        let (_, seam) = Seam::split("let x = fo");
        assert_eq!(seam.join(" foo();"), Some("o();"));
        assert_eq!(seam.join(" f"), None);
        assert_eq!(Seam::default().join("a"), Some("a"));
    }

    #[test]
    fn very_long_words_stay_in_the_prompt() {
        let before = format!("x = {}", "a".repeat(LONGEST_WORD + 1));
        assert_eq!(Seam::split(&before).0, before);
    }
}
