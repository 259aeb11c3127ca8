//! Recent suggestions: while the user types exactly what was suggested, the rest is served at once.
//!
//! Invariants:
//! - What is served is what was suggested, less what has been typed of it since: at that place, with the
//!   same text before and behind it.
//! - A backspace leads back to the suggestion that was made there.
//! - Nothing is served where all of it has been typed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ropey::Rope;

use crate::completion::brackets::is_closer;
use crate::completion::{Answer, Reason};
use crate::documents::Snapshot;

/// How many suggestions are remembered.
const REMEMBERED: usize = 50;
/// How many characters before and behind the cursor have to be the same.
const BEFORE: usize = 1024;
const AFTER: usize = 256;

/// The suggestions made lately, in all documents. Shared by reference; usable from any thread.
#[derive(Debug, Default)]
pub struct Recent {
    newest_first: Mutex<VecDeque<Suggestion>>,
}

#[derive(Debug)]
struct Suggestion {
    uri: Arc<str>,
    cursor: usize,
    before: String,
    after: String,
    answer: Answer,
}

impl Recent {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers what was shown at a cursor. Answers that show nothing, or that replace text before the
    /// cursor, are not remembered.
    pub fn keep(&self, document: &Snapshot, cursor: usize, answer: &Answer) {
        if answer.reason != Reason::Shown || answer.range.start != cursor {
            return;
        }
        let (before, after) = around(&document.text, cursor);
        let mut newest_first = self.newest_first.lock().unwrap_or_else(PoisonError::into_inner);
        newest_first.retain(|s| {
            !(s.uri == document.uri && s.cursor == cursor && s.before == before && s.after == after)
        });
        newest_first.push_front(Suggestion {
            uri: document.uri.clone(),
            cursor,
            before,
            after,
            answer: answer.clone(),
        });
        newest_first.truncate(REMEMBERED);
    }

    /// The rest of a suggestion, where what is typed agrees with it. The one made nearest to the cursor
    /// goes first, then the newest.
    pub fn serve(&self, document: &Snapshot, cursor: usize) -> Option<Answer> {
        let newest_first = self.newest_first.lock().unwrap_or_else(PoisonError::into_inner);
        let here = newest_first.iter().filter(|s| s.uri == document.uri && s.cursor <= cursor);
        let (_, answer) = here
            .filter_map(|s| Some((s.cursor, s.rest(&document.text, cursor)?)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        Some(answer)
    }

    /// Forgets a document.
    pub fn forget(&self, uri: &str) {
        let mut newest_first = self.newest_first.lock().unwrap_or_else(PoisonError::into_inner);
        newest_first.retain(|s| &*s.uri != uri);
    }
}

impl Suggestion {
    fn rest(&self, text: &Rope, cursor: usize) -> Option<Answer> {
        let length = text.len_chars();
        let typed = cursor
            .checked_sub(self.cursor)
            .filter(|&n| cursor <= length && n < self.answer.text.chars().count())?;
        let split = self.answer.text.char_indices().nth(typed).map(|(at, _)| at)?;
        let (expected, rest) = self.answer.text.split_at(split);
        if text.slice(self.cursor..cursor) != expected || around(text, self.cursor).0 != self.before {
            return None;
        }
        let covered = self.answer.range.len();
        let after = around(text, cursor).1;
        let closed = usize::from(typed > 0 && covered == 0 && closes_itself(&after, &self.after, rest));
        if closed == 0 && after != self.after {
            return None;
        }
        let mut answer = self.answer.clone();
        answer.text = rest.to_string();
        answer.range = cursor..cursor + covered + closed;
        Some(answer)
    }
}

/// Whether the editor closed a bracket or a quote that was typed from the suggestion, which goes on to
/// close it too. The suggestion then replaces the editor's.
fn closes_itself(after: &str, expected: &str, rest: &str) -> bool {
    let Some(first) = after.chars().next() else { return false };
    let same = after[first.len_utf8()..].chars().zip(expected.chars()).all(|(a, b)| a == b);
    same && (is_closer(first) || matches!(first, '"' | '\'' | '`'))
        && rest.contains(first)
        && !rest.contains('\n')
}

fn around(text: &Rope, cursor: usize) -> (String, String) {
    let length = text.len_chars();
    let cursor = cursor.min(length);
    let before = text.slice(cursor.saturating_sub(BEFORE)..cursor).to_string();
    let after = text.slice(cursor..length.min(cursor + AFTER)).to_string();
    (before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> (Snapshot, usize) {
        let cursor = text.chars().position(|c| c == '‸').expect("a cursor");
        let text = text.replace('‸', "");
        let snapshot = Snapshot::new("file:///a.rs", "rust", &text);
        (snapshot, cursor)
    }

    fn suggested(recent: &Recent, text: &str, suggestion: &str) {
        let (document, cursor) = document(text);
        let answer = Answer { text: suggestion.into(), ..Answer::nothing(cursor, Reason::Shown, None) };
        recent.keep(&document, cursor, &answer);
    }

    fn served(recent: &Recent, text: &str) -> Option<String> {
        let (document, cursor) = document(text);
        recent.serve(&document, cursor).map(|answer| answer.text)
    }

    #[test]
    fn the_rest_is_served_while_typing_agrees() {
        let recent = Recent::new();
        suggested(&recent, "let x = ‸\n", "größe();");
        for (text, rest) in [
            ("let x = ‸\n", Some("größe();")),
            ("let x = grö‸\n", Some("ße();")),
            ("let x = größe()‸\n", Some(";")),
            // All of it typed, something else typed, other text behind or before it.
            ("let x = größe();‸\n", None),
            ("let x = gra‸\n", None),
            ("let x = g‸ + 1\n", None),
            ("let y = g‸\n", None),
            ("let x =‸\n", None),
        ] {
            assert_eq!(served(&recent, text).as_deref(), rest, "{text}");
        }
    }

    #[test]
    fn a_backspace_finds_the_suggestion_made_there() {
        let recent = Recent::new();
        suggested(&recent, "a = ‸\n", "b + c");
        suggested(&recent, "a = x‸\n", ".y");
        assert_eq!(served(&recent, "a = x‸\n").as_deref(), Some(".y"));
        assert_eq!(served(&recent, "a = ‸\n").as_deref(), Some("b + c"));
    }

    #[test]
    fn the_suggestion_made_nearest_wins() {
        let recent = Recent::new();
        suggested(&recent, "a‸\n", "bcd");
        suggested(&recent, "ab‸\n", "xyz");
        suggested(&recent, "a‸\n", "bee");
        assert_eq!(served(&recent, "ab‸\n").as_deref(), Some("xyz"));
        assert_eq!(served(&recent, "a‸\n").as_deref(), Some("bee"));
    }

    #[test]
    fn a_bracket_that_the_editor_closed_is_replaced() {
        let recent = Recent::new();
        suggested(&recent, "x = f‸\n", "oo(a, b)");
        let (document, cursor) = document("x = foo(‸)\n");
        let answer = recent.serve(&document, cursor).expect("the rest");
        assert_eq!((answer.text.as_str(), answer.range), ("a, b)", cursor..cursor + 1));
    }

    #[test]
    fn old_suggestions_and_closed_documents_are_forgotten() {
        let recent = Recent::new();
        suggested(&recent, "first‸\n", "rest");
        for n in 0..REMEMBERED {
            suggested(&recent, &format!("line {n}‸\n"), "rest");
        }
        assert_eq!(served(&recent, "first‸\n"), None);
        assert!(served(&recent, "line 0‸\n").is_some());
        recent.forget("file:///a.rs");
        assert_eq!(served(&recent, "line 0‸\n"), None);
    }
}
