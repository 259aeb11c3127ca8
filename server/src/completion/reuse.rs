//! Recent suggestions: while the user types exactly what was suggested, the rest is served at once.
//!
//! Each is kept under the place where it was made, and what is typed leads along it. So every way back to a
//! place on it (a backspace, an undo, a part that was accepted) finds it, for as long as it is kept.
//!
//! Invariants:
//! - What is served is what was suggested, less what has been typed of it since: at that place, with the
//!   same text before and behind it.
//! - Of several that fit, the one made nearest to the cursor is served, and of those the newest.
//! - Nothing is served where all of it has been typed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::completion::place::Place;
use crate::completion::{Answer, Reason};
use crate::documents::Snapshot;

/// How many suggestions are remembered: a few minutes of typing.
const REMEMBERED: usize = 256;

/// The suggestions made lately, in all documents. Shared by reference; usable from any thread.
#[derive(Debug, Default)]
pub struct Recent {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Of each document by cursor, newest last.
    documents: HashMap<Arc<str>, BTreeMap<usize, Vec<Suggestion>>>,
    kept: usize,
    clock: u64,
}

#[derive(Debug)]
struct Suggestion {
    place: Place,
    answer: Answer,
    /// In characters.
    length: usize,
    /// When it was kept, by [`Memory::clock`].
    kept: u64,
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
        let place = Place::new(&document.text, cursor);
        let mut memory = self.lock();
        memory.clock += 1;
        let suggestion = Suggestion {
            answer: answer.clone(),
            length: answer.text.chars().count(),
            kept: memory.clock,
            place: place.clone(),
        };
        let here = memory.documents.entry(document.uri.clone()).or_default().entry(cursor).or_default();
        let before = here.len();
        here.retain(|one| one.place != place);
        let replaced = before - here.len();
        here.push(suggestion);
        memory.kept += 1 - replaced;
        if memory.kept > REMEMBERED {
            memory.drop_oldest();
        }
    }

    /// The rest of a suggestion, where what is typed agrees with it.
    pub fn serve(&self, document: &Snapshot, cursor: usize) -> Option<Answer> {
        let memory = self.lock();
        let nearest_first = memory.documents.get(&document.uri)?.range(..=cursor).rev();
        let newest_first = nearest_first.flat_map(|(_, here)| here.iter().rev());
        newest_first
            .filter(|one| cursor - one.place.cursor < one.length)
            .find_map(|one| rest(&one.place, &one.answer, document, cursor))
    }

    /// Forgets a document.
    pub fn forget(&self, uri: &str) {
        let mut memory = self.lock();
        let gone = memory.documents.remove(uri).unwrap_or_default();
        memory.kept -= gone.values().map(Vec::len).sum::<usize>();
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn drop_oldest(&mut self) {
        let places = self.documents.iter().flat_map(|(uri, places)| places.iter().map(move |at| (uri, at)));
        let oldest =
            places.filter_map(|(uri, (&cursor, here))| Some((here.first()?.kept, uri.clone(), cursor)));
        let Some((_, uri, cursor)) = oldest.min() else { return };
        let Some(places) = self.documents.get_mut(&uri) else { return };
        if let Some(here) = places.get_mut(&cursor) {
            here.remove(0);
            self.kept -= 1;
            if here.is_empty() {
                places.remove(&cursor);
            }
        }
        if places.is_empty() {
            self.documents.remove(&uri);
        }
    }
}

/// What is left of an answer for a cursor, after something was typed at the place where the answer belongs.
/// An answer that shows nothing says so at its own place only.
pub fn rest(place: &Place, answer: &Answer, document: &Snapshot, cursor: usize) -> Option<Answer> {
    let typed = place.typed(&document.text, cursor)?;
    if typed.text.is_empty() {
        return Some(answer.clone());
    }
    let rest = answer.text.strip_prefix(&typed.text).filter(|rest| !rest.is_empty())?;
    let mut covered = answer.range.len();
    if let Some(closer) = typed.closer {
        // The suggestion goes on to close what the editor closed, and replaces that.
        if covered > 0 || !rest.contains(closer) || rest.contains('\n') {
            return None;
        }
        covered = 1;
    }
    Some(Answer { text: rest.to_string(), range: cursor..cursor + covered, ..answer.clone() })
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
    fn a_backspace_finds_the_suggestion_made_there_or_further_left() {
        let recent = Recent::new();
        suggested(&recent, "a = ‸\n", "b + c");
        suggested(&recent, "a = x‸\n", ".y");
        suggested(&recent, "a = bx‸\n", ".z");
        for (text, rest) in
            [("a = bx‸\n", ".z"), ("a = b‸\n", " + c"), ("a = x‸\n", ".y"), ("a = ‸\n", "b + c")]
        {
            assert_eq!(served(&recent, text).as_deref(), Some(rest), "{text}");
        }
    }

    #[test]
    fn a_part_that_was_accepted_and_an_undo_lead_to_the_same_suggestion() {
        let recent = Recent::new();
        suggested(&recent, "if ‸\n", "let Some(x) = y {\n    f(x);\n}");
        suggested(&recent, "if let Some(x) = y {\n    f(x);\n}‸\n", " else {}");
        for (text, rest) in [
            ("if let ‸\n", "Some(x) = y {\n    f(x);\n}"),
            ("if let Some(x) = y {\n    ‸\n", "f(x);\n}"),
            // Accepted as a whole, then undone.
            ("if let Some(x) = y {\n    f(x);\n}‸\n", " else {}"),
            ("if ‸\n", "let Some(x) = y {\n    f(x);\n}"),
        ] {
            assert_eq!(served(&recent, text).as_deref(), Some(rest), "{text}");
        }
    }

    #[test]
    fn the_suggestion_made_nearest_wins_then_the_newest() {
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
    fn nothing_to_show_is_so_at_its_own_place_only() {
        let (here, cursor) = document("a = ‸\n");
        let place = Place::new(&here.text, cursor);
        let nothing = Answer::nothing(cursor, Reason::Filtered, Some("scope"));
        assert_eq!(rest(&place, &nothing, &here, cursor).and_then(|answer| answer.rule), Some("scope"));
        let (further, cursor) = document("a = b‸\n");
        assert!(rest(&place, &nothing, &further, cursor).is_none());
    }

    #[test]
    fn old_suggestions_and_closed_documents_are_forgotten() {
        let recent = Recent::new();
        suggested(&recent, "first‸\n", "rest");
        for n in 0..REMEMBERED {
            // Places of their own and one again and again.
            suggested(&recent, &format!("{}‸\n", "x".repeat(n)), "rest");
            suggested(&recent, "again‸\n", "rest");
        }
        assert_eq!(served(&recent, "first‸\n"), None);
        assert!(served(&recent, "again‸\n").is_some() && served(&recent, "xxxx‸\n").is_some());
        assert_eq!(recent.lock().kept, REMEMBERED);
        recent.forget("file:///a.rs");
        assert_eq!(served(&recent, "again‸\n"), None);
        assert_eq!(recent.lock().kept, 0);
    }
}
