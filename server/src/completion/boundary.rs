//! The seam between what the user typed and what the model writes.
//!
//! A prompt that ends in the middle of a token asks for something that the model has never seen: tokens
//! of the family begin with their space (`▁foo`), so after a lone space or half a word it guesses badly.
//! So the word before the cursor and the blanks before that are left out of the prompt, and the answer
//! has to begin with them. Where the model wants another word, it is asked again with the word in the
//! prompt: the first question then ends after a token or two, and all but the word is in the cache.
//!
//! Indentation stays: it is a token of its own in the texts that models learn from.

use crate::completion::site::is_word;

/// Longer words are taken as complete.
const LONGEST_WORD: usize = 40;

/// What stands before the cursor and is not in the prompt: blanks, then a word. Either may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seam {
    blanks: String,
    word: String,
}

/// How an answer goes together with what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined<'a> {
    /// It goes on from it like this.
    Rest(&'a str),
    /// It has not come as far yet.
    Short,
    /// It says something else.
    Contradicts,
}

impl Seam {
    /// Splits the text before the cursor into what goes into the prompt and what the answer begins with.
    pub fn split(before: &str) -> (&str, Self) {
        let to_word = before.trim_end_matches(is_word);
        let length = before.len() - to_word.len();
        let (to_word, word) =
            if length <= LONGEST_WORD { before.split_at(to_word.len()) } else { (before, "") };
        let to_blanks = to_word.trim_end_matches([' ', '\t']);
        // Indentation alone on its line, or nothing before it at all.
        let indentation = to_blanks.is_empty() || to_blanks.ends_with('\n');
        let kept = if indentation { to_word } else { to_blanks };
        (kept, Self { blanks: to_word[kept.len()..].to_string(), word: word.to_string() })
    }

    /// Whether a word was left out, so that the model may contradict.
    pub fn has_word(&self) -> bool {
        !self.word.is_empty()
    }

    /// The seam when the word is in the prompt after all, and what to add to the prompt.
    pub fn with_word(&self) -> (Self, String) {
        (Self::default(), format!("{}{}", self.blanks, self.word))
    }

    /// Reads an answer, which may still be growing.
    pub fn join<'a>(&self, raw: &'a str) -> Joined<'a> {
        let text = raw.trim_start_matches([' ', '\t']);
        let blanks_agree = self.blanks.is_empty() || text.len() < raw.len();
        if self.word.is_empty() {
            return match () {
                () if self.blanks.is_empty() => Joined::Rest(raw),
                () if raw.is_empty() => Joined::Short,
                // A line break after the blanks is a way of saying that the line is complete.
                () if blanks_agree || raw.starts_with('\n') => Joined::Rest(text),
                () => Joined::Contradicts,
            };
        }
        let text = if self.blanks.is_empty() { raw } else { text };
        match text.strip_prefix(self.word.as_str()) {
            Some(rest) if blanks_agree => Joined::Rest(rest),
            None if self.word.starts_with(text) && (blanks_agree || raw.is_empty()) => Joined::Short,
            _ => Joined::Contradicts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_asked_for_again() {
        use Joined::{Contradicts, Rest, Short};
        for (before, prompt, raw, joined) in [
            // Blanks.
            ("let x = ", "let x =", " 1;", Rest("1;")),
            ("let x =", "let x =", " 1;", Rest(" 1;")),
            ("let x =  ", "let x =", " 1;", Rest("1;")),
            ("let x = ", "let x =", "= 1", Contradicts),
            ("let x = ", "let x =", "", Short),
            ("let x = ", "let x =", "\n    1", Rest("\n    1")),
            ("{\n    ", "{\n    ", "a();", Rest("a();")),
            ("    ", "    ", "a", Rest("a")),
            ("", "", "a", Rest("a")),
            // Words.
            ("let x = fo", "let x =", " foo();", Rest("o();")),
            ("let x = fo", "let x =", " f", Short),
            ("let x = fo", "let x =", "", Short),
            ("let x = fo", "let x =", " bar", Contradicts),
            ("let x = fo", "let x =", "fo", Contradicts),
            ("{\n    ret", "{\n    ", "return", Rest("urn")),
            ("{\n    ret", "{\n    ", " return", Contradicts),
            ("self.qu", "self.", "queue.len()", Rest("eue.len()")),
            ("größ", "", "größe", Rest("e")),
        ] {
            let (kept, seam) = Seam::split(before);
            assert_eq!(kept, prompt);
            assert_eq!(seam.join(raw), joined, "{before:?} {raw:?}");
        }
    }

    #[test]
    fn with_the_word_the_prompt_is_whole_again() {
        for before in ["let x = fo", "{\n    ret", "a", ""] {
            let (kept, seam) = Seam::split(before);
            let (seam, typed) = seam.with_word();
            assert_eq!(format!("{kept}{typed}"), before);
            assert_eq!(seam.join("x"), Joined::Rest("x"));
        }
    }

    #[test]
    fn very_long_words_stay_in_the_prompt() {
        let before = format!("x = {}", "a".repeat(LONGEST_WORD + 1));
        assert_eq!(Seam::split(&before).0, before);
    }
}
