//! The seam between what the user typed and what the model writes.
//!
//! Tokens of the family begin with their space (`▁foo`). A prompt that ends with the space alone asks for
//! a token that hardly ever follows one, so blanks behind text are left out of the prompt and the answer
//! has to begin with them. Indentation stays: it is a token of its own in the texts that models learn from.

/// Blanks at the end of the text before the cursor that the prompt does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healed {
    blanks: String,
}

impl Healed {
    /// Splits the text before the cursor into what goes into the prompt and what the answer begins with.
    pub fn split(before: &str) -> (&str, Self) {
        let kept = before.trim_end_matches([' ', '\t']);
        // Indentation alone on its line, or nothing before it at all.
        if kept.is_empty() || kept.ends_with('\n') {
            return (before, Self::default());
        }
        (kept, Self { blanks: before[kept.len()..].to_string() })
    }

    /// The answer from the cursor on; `None` when it does not go on from what is typed.
    pub fn restore<'a>(&self, raw: &'a str) -> Option<&'a str> {
        if self.blanks.is_empty() || raw.is_empty() {
            return Some(raw);
        }
        let trimmed = raw.trim_start_matches([' ', '\t']);
        // A line break after the blanks is a way of saying that the line is complete.
        (trimmed.len() < raw.len() || raw.starts_with('\n')).then_some(trimmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_behind_text_are_asked_for_again() {
        for (before, prompt, raw, shown) in [
            ("let x = ", "let x =", " 1;", Some("1;")),
            ("let x =", "let x =", " 1;", Some(" 1;")),
            ("let x =  ", "let x =", " 1;", Some("1;")),
            ("let x = ", "let x =", "= 1", None),
            ("let x = ", "let x =", "\n    1", Some("\n    1")),
            ("{\n    ", "{\n    ", "a();", Some("a();")),
            ("    ", "    ", "a", Some("a")),
            ("", "", "a", Some("a")),
        ] {
            let (kept, healed) = Healed::split(before);
            assert_eq!(kept, prompt);
            assert_eq!(healed.restore(raw), shown, "{before:?} {raw:?}");
        }
    }
}
