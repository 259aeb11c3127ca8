//! Texts in which the next tokens of an answer may stand already, for the engine to try several at a time: lines that
//! were edited lately and are not in the prompt, what was taken away lately, earlier suggestions.
//!
//! A draft changes how fast an answer comes and never what it says, so everything here is a guess and bounded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gemma_engine::{Error, Model};

use crate::context::recent::Edit;
use crate::documents::Snapshot;
use crate::prompt::{Tokens, lines};

/// The most tokens of all drafts of a request.
const MOST_TOKENS: usize = 2_000;
/// The most edits that are looked at, and the fewest characters of what one took away that say something.
const EDITS: usize = 16;
const SHORTEST: usize = 16;
/// Lines around an edit that go with it, and the most lines of one.
const AROUND: usize = 1;
const LINES: usize = 24;
/// Lines before and behind the cursor that are in the prompt itself, where drafts are looked up as well.
const SEEN: usize = 40;
/// Suggestions that are remembered, and encoded texts.
const SUGGESTIONS: usize = 16;
const ENCODED: usize = 64;

/// What tells the tokens of one model from those of another.
pub fn vocabulary(model: &Model) -> String {
    format!("{} ({} tokens)", model.name(), model.config().vocab)
}

/// Earlier suggestions, and texts as tokens. Shared by reference; usable from any thread.
#[derive(Debug, Default)]
pub struct Drafts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose tokens these are, see [`vocabulary`].
    vocabulary: String,
    /// The newest first.
    suggestions: VecDeque<Arc<[u32]>>,
    encoded: VecDeque<(String, Arc<[u32]>)>,
}

impl Drafts {
    /// Remembers the tokens of an answer.
    pub fn said(&self, vocabulary: &str, tokens: &[u32]) {
        /// A shorter one is no faster tried than computed.
        const SHORTEST: usize = 4;
        let mut state = self.of(vocabulary);
        if tokens.len() < SHORTEST || state.suggestions.iter().any(|known| known.starts_with(tokens)) {
            return;
        }
        state.suggestions.retain(|known| !tokens.starts_with(known));
        state.suggestions.push_front(tokens.into());
        state.suggestions.truncate(SUGGESTIONS);
    }

    /// The drafts for a cursor in `document`, the likeliest first.
    ///
    /// # Errors
    /// A text that the vocabulary has no tokens for.
    pub fn gather(
        &self,
        vocabulary: &str,
        tokens: &dyn Tokens,
        (document, cursor): (&Snapshot, usize),
        others: &[Snapshot],
    ) -> Result<Vec<Arc<[u32]>>, Error> {
        let mut drafts: Vec<Arc<[u32]>> = self.of(vocabulary).suggestions.iter().cloned().collect();
        for text in texts(document, cursor, others) {
            drafts.push(self.encode(vocabulary, tokens, text)?);
        }
        let mut left = MOST_TOKENS;
        drafts.retain(|draft| {
            let fits = draft.len() <= left;
            left -= if fits { draft.len() } else { 0 };
            fits
        });
        Ok(drafts)
    }

    fn encode(&self, vocabulary: &str, tokens: &dyn Tokens, text: String) -> Result<Arc<[u32]>, Error> {
        if let Some((_, ids)) = self.of(vocabulary).encoded.iter().find(|(known, _)| *known == text) {
            return Ok(Arc::clone(ids));
        }
        // Not under the lock: it takes up to a millisecond.
        let ids: Arc<[u32]> = tokens.encode(&text)?.into();
        let mut state = self.of(vocabulary);
        state.encoded.push_front((text, Arc::clone(&ids)));
        state.encoded.truncate(ENCODED);
        Ok(ids)
    }

    /// What is known in these tokens: with others it begins anew.
    fn of(&self, vocabulary: &str) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.vocabulary != vocabulary {
            *state = State { vocabulary: vocabulary.to_owned(), ..State::default() };
        }
        state
    }
}

/// What the latest edits took away, and the lines that they left, as far as they stand elsewhere.
fn texts(document: &Snapshot, cursor: usize, others: &[Snapshot]) -> Vec<String> {
    let line = document.text.char_to_line(cursor.min(document.text.len_chars()));
    let seen = line.saturating_sub(SEEN)..line + SEEN;
    let all = others.iter().chain([document]);
    let mut edits: Vec<(&Snapshot, &Edit)> =
        all.flat_map(|one| one.edits.newest_first().map(move |edit| (one, edit))).collect();
    edits.sort_by_key(|(_, edit)| std::cmp::Reverse(edit.number));
    let mut texts: Vec<String> = Vec::new();
    for (one, edit) in edits.into_iter().take(EDITS) {
        let lines = edit.lines(&one.text);
        let is_seen = one.uri == document.uri && seen.start <= lines.start && lines.end <= seen.end;
        if edit.removed.trim().len() >= SHORTEST {
            texts.push(edit.removed.replace("\r\n", "\n"));
        }
        if !is_seen {
            texts.push(around(one, lines));
        }
    }
    let mut known: Vec<String> = Vec::new();
    texts.retain(|text| {
        let is_new = !known.iter().any(|known| known.contains(text.as_str()));
        known.extend(is_new.then(|| text.clone()));
        is_new
    });
    texts
}

fn around(document: &Snapshot, edited: Range<usize>) -> String {
    let text = &document.text;
    let first = edited.start.saturating_sub(AROUND);
    let last = (edited.end + AROUND).min(first + LINES).min(text.len_lines());
    let (start, end) = (text.line_to_char(first), text.line_to_char(last));
    /// A longer line is no line that a person wrote.
    const WIDEST: usize = 200;
    lines(&text.slice(start..end.min(start + LINES * WIDEST)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Documents;
    use crate::prompt::fake::Words;
    use crate::text::{Change, Encoding, Position, Range as Lines};

    /// Documents of 100 numbered lines.
    fn documents(names: &[&str]) -> Documents {
        let documents = Documents::new();
        let text: String = (0..100).map(|n| format!("let line{n} = {n};\n")).collect();
        for name in names {
            documents.open(&format!("file:///{name}.rs"), "rust", 1, &text);
        }
        documents
    }

    fn edit(documents: &Documents, name: &str, line: u32, characters: std::ops::Range<u32>, text: &str) {
        let at = |character| Position { line, character };
        let range = Some(Lines { start: at(characters.start), end: at(characters.end) });
        let change = Change { range, text: text.to_owned() };
        assert!(documents.change(&format!("file:///{name}.rs"), 2, &[change], Encoding::Utf16));
    }

    fn texts_at(documents: &Documents, name: &str, line: usize) -> Vec<String> {
        let uri = format!("file:///{name}.rs");
        let document = documents.snapshot(&uri).expect("it is open");
        let cursor = document.text.line_to_char(line);
        texts(&document, cursor, &documents.others(&uri))
    }

    #[test]
    fn edited_lines_elsewhere_and_what_was_taken_away() {
        let documents = documents(&["a", "b"]);
        edit(&documents, "b", 50, 0..3, "const");
        edit(&documents, "a", 10, 0..0, "static ");
        // Near: in the prompt anyway.
        assert_eq!(
            texts_at(&documents, "a", 12),
            ["let line49 = 49;\nconst line50 = 50;\nlet line51 = 51;\n"]
        );
        let far = texts_at(&documents, "a", 90);
        assert_eq!(far.len(), 2);
        assert_eq!(far[0], "let line9 = 9;\nstatic let line10 = 10;\nlet line11 = 11;\n", "the newest first");
        edit(&documents, "a", 11, 0..16, "");
        assert_eq!(texts_at(&documents, "a", 12)[0], "let line11 = 11;");
    }

    #[test]
    fn tokens_are_bounded_and_made_once() {
        let documents = documents(&["a", "b"]);
        edit(&documents, "b", 50, 0..3, "const");
        let (drafts, words) = (Drafts::default(), Words::default());
        let document = documents.snapshot("file:///a.rs").expect("it is open");
        let others = documents.others("file:///a.rs");
        let gather =
            |vocabulary: &str| drafts.gather(vocabulary, &words, (&document, 0), &others).expect("tokens");
        let first = gather("m");
        assert_eq!(first.len(), 1);
        assert!(Arc::ptr_eq(&first[0], &gather("m")[0]));

        drafts.said("m", &[1, 2, 3]);
        drafts.said("m", &[1, 2, 3, 4]);
        drafts.said("m", &[1, 2, 3, 4, 5]);
        drafts.said("m", &[1, 2, 3, 4]);
        let ids = |drafts: Vec<Arc<[u32]>>| drafts.iter().map(|ids| ids.to_vec()).collect::<Vec<_>>();
        assert_eq!(ids(gather("m")), [vec![1, 2, 3, 4, 5], first[0].to_vec()]);
        for n in 0..100 {
            drafts.said("m", &[n; 300]);
        }
        let all = gather("m");
        assert_eq!(all[0].as_ref(), [99; 300]);
        assert!(all.iter().map(|draft| draft.len()).sum::<usize>() <= MOST_TOKENS);
        assert!(all.contains(&first[0]), "what fits behind what does not fit");
        // Another model has other tokens.
        assert_eq!(gather("n").len(), 1);
    }
}
