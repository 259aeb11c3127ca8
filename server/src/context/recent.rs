//! Where a document was edited lately, and what was taken away and put there.
//!
//! An edit here is what a person would call one: what is typed, or deleted key by key, at one place is one edit. It
//! is noted where the text changes, on the message loop, and costs a few short copies. What was edited lately is
//! looked at again soon and done again elsewhere: so its surroundings rank higher among the pieces of other
//! documents, and its text is worth trying ahead of the model.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ropey::Rope;

/// The most edits of one document. Each has its own: what is typed in one leaves what is known of another.
const REMEMBERED: usize = 8;
/// Bytes of text that an edit may take away and put there; of a longer one only the place is known.
const LONGEST: usize = 1_000;

/// The latest edits of a document. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// The newest last.
    edits: Vec<Edit>,
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where what it put there stands now, in characters; empty where it only took away.
    pub chars: Range<usize>,
    /// What it took away.
    pub removed: String,
    /// What it put there.
    pub inserted: String,
    /// Later edits, of any document, have greater numbers.
    pub number: u64,
    /// Whether the texts are known.
    whole: bool,
}

impl Edits {
    /// Notes that the characters `range` of `text` are about to be replaced.
    pub fn note(&mut self, text: &Rope, range: Range<usize>, inserted: &str) {
        let end = range.start + inserted.chars().count();
        let added = (end - range.start) as isize - range.len() as isize;
        let is_short = inserted.len() <= LONGEST && range.len() <= LONGEST;
        let goes_on =
            is_short && self.edits.last_mut().is_some_and(|last| last.go_on(text, &range, inserted));
        let others = self.edits.len() - usize::from(goes_on);
        // What is written over is the newer edit's from now on.
        let mut place = 0;
        self.edits.retain(|edit| {
            place += 1;
            place > others || edit.chars.end <= range.start || range.end <= edit.chars.start
        });
        let others = self.edits.len() - usize::from(goes_on);
        for edit in &mut self.edits[..others] {
            if edit.chars.start >= range.end {
                edit.chars = edit.chars.start.saturating_add_signed(added)
                    ..edit.chars.end.saturating_add_signed(added);
            }
        }
        if goes_on {
            return;
        }
        let (removed, inserted) = match is_short {
            true => (String::from(text.slice(range.clone())), inserted.to_owned()),
            false => (String::new(), String::new()),
        };
        if self.edits.len() == REMEMBERED {
            self.edits.remove(0);
        }
        self.edits.push(Edit { chars: range.start..end, removed, inserted, number: next(), whole: is_short });
    }

    /// The edits, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Edit> {
        self.edits.iter().rev()
    }

    /// The lines of `text`, the document's, that were edited; in no order that means anything.
    pub fn lines(&self, text: &Rope) -> impl Iterator<Item = Range<usize>> {
        self.edits.iter().map(|edit| edit.lines(text))
    }
}

impl Edit {
    /// The lines of `text`, the document's, in which it stands.
    pub fn lines(&self, text: &Rope) -> Range<usize> {
        let line = |char: usize| text.char_to_line(char.min(text.len_chars()));
        line(self.chars.start)..line(self.chars.end) + 1
    }

    /// Takes in a change that touches this edit; false where it does not, or where this would become too long.
    fn go_on(&mut self, text: &Rope, range: &Range<usize>, inserted: &str) -> bool {
        let Range { start, end } = self.chars;
        if !self.whole || range.start > end || range.end < start {
            return false;
        }
        let before = text.slice(range.start.min(start)..start);
        let behind = text.slice(end..range.end.max(end));
        let kept =
            |chars: usize| self.inserted.char_indices().nth(chars).map_or(self.inserted.len(), |(at, _)| at);
        let first = kept(range.start.max(start) - start);
        let last = kept(range.end.clamp(start, end) - start);
        let put = [&self.inserted[..first], inserted, &self.inserted[last..]].concat();
        let removed = format!("{before}{}{behind}", self.removed);
        if put.len() > LONGEST || removed.len() > LONGEST {
            return false;
        }
        let start = start.min(range.start);
        *self = Edit {
            chars: start..start + put.chars().count(),
            removed,
            inserted: put,
            number: next(),
            whole: true,
        };
        true
    }
}

fn next() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A text with its edits.
    struct Document(Rope, Edits);

    impl Document {
        fn new(text: &str) -> Self {
            Self(Rope::from_str(text), Edits::default())
        }

        fn edit(&mut self, range: Range<usize>, text: &str) {
            self.1.note(&self.0, range.clone(), text);
            self.0.remove(range.clone());
            self.0.insert(range.start, text);
        }

        fn type_at(&mut self, place: usize, text: &str) {
            for (n, c) in text.chars().enumerate() {
                self.edit(place + n..place + n, &c.to_string());
            }
        }

        /// What was taken away and put there, the newest first.
        fn edits(&self) -> Vec<(&str, &str)> {
            self.1.newest_first().map(|edit| (edit.removed.as_str(), edit.inserted.as_str())).collect()
        }
    }

    #[test]
    fn what_is_typed_in_one_place_is_one_edit() {
        let mut document = Document::new("let a = 1;\nlet b = 2;\nlet é = 3;\n");
        document.type_at(4, "long_");
        assert_eq!(document.edits(), [("", "long_")]);
        // A slip, and its correction.
        document.edit(8..9, "");
        document.type_at(8, "er");
        assert_eq!(document.edits(), [("", "longer")]);
        // Deleted backwards and forwards, over the beginning of what was typed.
        for place in (3..10).rev() {
            document.edit(place..place + 1, "");
        }
        document.edit(3..4, "");
        assert_eq!(document.edits(), [(" a", "")]);
        document.type_at(3, "\u{e9}");
        assert_eq!(document.0, "leté = 1;\nlet b = 2;\nlet é = 3;\n");
        assert_eq!(document.edits(), [(" a", "é")]);
    }

    #[test]
    fn edits_in_other_places_stay_where_they_are() {
        let mut document = Document::new("one\ntwo\nthree\nfour\n");
        document.edit(14..18, "FOUR!");
        document.edit(0..3, "new\nline");
        document.edit(10..11, "");
        assert_eq!(document.edits(), [("w", ""), ("one", "new\nline"), ("four", "FOUR!")]);
        let lines: Vec<_> = document.1.newest_first().map(|edit| edit.lines(&document.0)).collect();
        assert_eq!(lines, [2..3, 0..2, 4..5]);
        // What is written over is no edit of its own any more.
        document.edit(0..12, "x");
        assert_eq!(document.edits()[0].1, "x");
        assert_eq!(document.edits().last(), Some(&("four", "FOUR!")));
    }

    #[test]
    fn long_ones_are_a_place_without_a_text() {
        let mut document = Document::new("a\nb\n");
        document.edit(2..2, &"x".repeat(LONGEST + 1));
        document.edit(2..3, "y");
        assert_eq!(document.edits(), [("x", "y")]);
        document.edit(0..document.0.len_chars(), &"z\n".repeat(LONGEST));
        assert_eq!(document.edits(), [("", "")]);
        assert_eq!(document.1.lines(&document.0).next(), Some(0..LONGEST + 1));
        // A run that gets too long goes on as another edit.
        let mut document = Document::new("");
        document.type_at(0, &"k".repeat(LONGEST + 5));
        let lengths: Vec<_> = document.edits().iter().map(|(_, put)| put.len()).collect();
        assert_eq!(lengths, [5, LONGEST]);
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let mut document = Document::new(&"line\n".repeat(100));
        for n in 0..50 {
            document.edit(n * 10..n * 10, "x");
        }
        assert_eq!(document.edits().len(), REMEMBERED);
        let places: Vec<_> = document.1.newest_first().map(|edit| edit.chars.start).collect();
        assert_eq!(places, (0..50).rev().take(REMEMBERED).map(|n| n * 10).collect::<Vec<_>>());
    }

    proptest! {
        /// Wherever an edit is said to stand, what it put there stands.
        #[test]
        fn places_are_right(script in prop::collection::vec((0..60usize, 0..6usize, "[aé\n]{0,4}"), 1..40)) {
            let mut document = Document::new("fn main() {\n    let x = 1;\n    let y = 2;\n}\n");
            for (start, length, text) in script {
                let start = start.min(document.0.len_chars());
                let end = (start + length).min(document.0.len_chars());
                document.edit(start..end, &text);
                for edit in document.1.newest_first() {
                    prop_assert_eq!(document.0.slice(edit.chars.clone()), edit.inserted.as_str());
                }
            }
        }
    }
}
