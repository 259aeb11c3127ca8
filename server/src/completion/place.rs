//! A place in a document, known again by the text around it, and what was typed there since.

use ropey::Rope;

use crate::completion::brackets::is_closer;

/// How many characters before and behind a place have to be the same.
const BEFORE: usize = 1024;
const AFTER: usize = 256;

/// A place where a suggestion was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In characters from the start of the document.
    pub cursor: usize,
    before: String,
    after: String,
}

/// What was typed at a place since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// As it stands in the document.
    pub text: String,
    /// The bracket or quote behind it that was not there: the editor closed what was typed.
    pub closer: Option<char>,
}

impl Place {
    /// The place of a cursor.
    pub fn new(text: &Rope, cursor: usize) -> Self {
        let cursor = cursor.min(text.len_chars());
        let before = text.slice(cursor.saturating_sub(BEFORE)..cursor).to_string();
        let after = text.slice(cursor..text.len_chars().min(cursor + AFTER)).to_string();
        Self { cursor, before, after }
    }

    /// What was typed here, where a text has the cursor behind it now; `None` where anything else has changed.
    pub fn typed(&self, text: &Rope, cursor: usize) -> Option<Typed> {
        if cursor < self.cursor || cursor > text.len_chars() {
            return None;
        }
        let start = self.cursor.saturating_sub(BEFORE);
        if text.slice(start..self.cursor) != self.before.as_str() {
            return None;
        }
        let behind = text.slice(cursor..text.len_chars().min(cursor + AFTER));
        let typed = text.slice(self.cursor..cursor).to_string();
        let closer = match behind == self.after.as_str() {
            true => None,
            false if typed.is_empty() => return None,
            false => Some(self.closed(behind.chars())?),
        };
        Some(Typed { text: typed, closer })
    }

    /// What may have been typed here, where nobody says where the cursor is now and the document had `length`
    /// characters then: as the editor closes brackets or does not.
    pub fn grown(&self, text: &Rope, length: usize) -> Vec<Typed> {
        let Some(more) = text.len_chars().checked_sub(length) else { return Vec::new() };
        let without = self.typed(text, self.cursor + more).filter(|typed| typed.closer.is_none());
        let with = more.checked_sub(1).and_then(|typed| self.typed(text, self.cursor + typed));
        without.into_iter().chain(with.filter(|typed| typed.closer.is_some())).collect()
    }

    /// The first of the characters behind the cursor, where an editor may have put it before the others.
    fn closed(&self, mut behind: impl Iterator<Item = char>) -> Option<char> {
        let first = behind.next().filter(|&first| is_closer(first) || matches!(first, '"' | '\'' | '`'))?;
        behind.zip(self.after.chars()).all(|(now, then)| now == then).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> (Place, usize) {
        let cursor = text.chars().position(|c| c == '‸').expect("a cursor");
        let text = Rope::from_str(&text.replace('‸', ""));
        (Place::new(&text, cursor), text.len_chars())
    }

    #[test]
    fn what_was_typed_is_what_stands_between() {
        let (place, length) = place("é = ‸\nnext\n");
        for (now, typed, closer) in [
            ("é = ‸\nnext\n", "", None),
            ("é = f‸\nnext\n", "f", None),
            ("é = f(‸)\nnext\n", "f(", Some(')')),
            ("é = 'ü‸'\nnext\n", "'ü", Some('\'')),
        ] {
            let cursor = now.chars().position(|c| c == '‸').expect("a cursor");
            let text = Rope::from_str(&now.replace('‸', ""));
            let expected = Typed { text: typed.into(), closer };
            assert_eq!(place.typed(&text, cursor).as_ref(), Some(&expected), "{now}");
            assert!(place.grown(&text, length).contains(&expected), "{now}");
        }
    }

    #[test]
    fn any_other_change_makes_it_another_place() {
        let (place, length) = place("é = ‸\nnext\n");
        for now in
            ["é =‸\nnext\n", "e = f‸\nnext\n", "é = f‸ + 1\nnext\n", "é = f‸\nnexT\n", "é = ‸)\nnext\n"]
        {
            let cursor = now.chars().position(|c| c == '‸').expect("a cursor");
            let text = Rope::from_str(&now.replace('‸', ""));
            assert_eq!(place.typed(&text, cursor), None, "{now}");
        }
        // Text went away, or came elsewhere.
        for now in ["é =\nnext\n", "é = \nnext\nmore\n"] {
            assert_eq!(place.grown(&Rope::from_str(now), length), [], "{now}");
        }
    }

    #[test]
    fn far_away_nobody_looks() {
        let far = "x\n".repeat(BEFORE);
        let (place, _) = place(&format!("{far}a = ‸"));
        let text = Rope::from_str(&format!("y\n{}a = b", &far[2..]));
        assert!(place.typed(&text, text.len_chars()).is_some());
    }
}
