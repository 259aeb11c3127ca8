//! What the prompts of a place showed last, so that the next prompt there begins like them.
//!
//! A prompt is cheap as far as an earlier one began with the same tokens. So what stands around the lines at
//! the cursor (where the window begins, what is told of the document above it, the pieces of other documents)
//! is chosen when the cursor comes to a place and then stays, until it is untrue or something clearly better
//! turns up. A document has several places: whoever comes back to one finds the prompt that was left there.
//!
//! **Invariants.**
//! - What is remembered moves with the text: an edit elsewhere in the document changes nothing here.
//! - What a place shows of other documents stands in them now (see [`shelf`]).
//! - Nothing depends on time, only on the order of requests.

mod edit;
pub mod shelf;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gemma_engine::Model;
use ropey::Rope;

use crate::documents::Snapshot;
use crate::prompt::remembered::Memory;
use edit::{Edit, Inserted};
use shelf::Shelf;

/// What a place shows is shown up to so many lines away from it.
const NEAR: usize = 32;
/// A cursor that moves so many lines at a time is still at the same place.
const STEP: usize = 3;
/// So many places of a document, and so many documents, are remembered.
const PLACES: usize = 16;
const DOCUMENTS: usize = 32;

/// What the prompts of all places showed last. Shared by reference; usable from any thread.
#[derive(Debug, Default)]
pub struct Layouts {
    known: Mutex<Known>,
    vocabulary: Mutex<Vocabulary>,
}

/// Ids of lines, and the model whose they are.
#[derive(Clone, Default)]
struct Vocabulary {
    model: Weak<Model>,
    memory: Arc<Memory>,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").finish_non_exhaustive()
    }
}

/// What a prompt shows besides the lines at the cursor.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Where the window before the cursor begins, in bytes of the document; `None`: to be chosen.
    pub start: Option<usize>,
    /// What is told of the document above the window; `None`: to be told anew.
    pub head: Option<Arc<str>>,
    /// The text above the window has changed since that was told.
    pub edited_above: bool,
    /// Pieces of other documents.
    pub shelf: Shelf,
    /// The request before this one was made somewhere else.
    pub arrived: bool,
}

#[derive(Debug, Clone, Default)]
struct Known {
    documents: Vec<Document>,
    /// Counts requests.
    clock: u64,
}

#[derive(Debug, Clone)]
struct Document {
    uri: Arc<str>,
    text: Rope,
    revision: u64,
    places: Vec<Place>,
    used: u64,
}

#[derive(Debug, Clone)]
struct Place {
    /// The cursor of the last request, in bytes.
    at: usize,
    layout: Layout,
    used: u64,
}

impl Layouts {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A memory of its own that begins like this one, for prompts that are not to be remembered here.
    pub fn fork(&self) -> Self {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let vocabulary = self.vocabulary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { known: Mutex::new(known), vocabulary: Mutex::new(vocabulary) }
    }

    /// The ids of lines in the vocabulary of a model. What was remembered for another model is forgotten.
    pub fn memory(&self, model: &Arc<Model>) -> Arc<Memory> {
        let mut vocabulary = self.vocabulary.lock().unwrap_or_else(PoisonError::into_inner);
        // A weak handle keeps the address, so that no later model can be taken for this one.
        if !std::ptr::eq(vocabulary.model.as_ptr(), Arc::as_ptr(model)) {
            *vocabulary = Vocabulary { model: Arc::downgrade(model), memory: Arc::default() };
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
        }
        Arc::clone(&vocabulary.memory)
    }

    /// What was shown at a cursor (in characters), or what to begin with at a new place.
    pub fn find(&self, document: &Snapshot, cursor: usize) -> Layout {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = known.clock;
        let Some(seen) = known.documents.iter_mut().find(|seen| seen.uri == document.uri) else {
            return Layout { arrived: true, ..Layout::default() };
        };
        seen.follow(document);
        let line = document.text.char_to_line(cursor);
        match seen.nearest(line, NEAR) {
            Some(place) => Layout { arrived: place.used != clock, ..place.layout.clone() },
            None => {
                let last = seen.places.iter().max_by_key(|place| place.used);
                let shelf = last.map(|place| place.layout.shelf.as_preference()).unwrap_or_default();
                Layout { arrived: true, shelf, ..Layout::default() }
            }
        }
    }

    /// Remembers what is shown at a cursor (in characters).
    pub fn keep(&self, document: &Snapshot, cursor: usize, layout: Layout) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clock += 1;
        let clock = known.clock;
        if !known.documents.iter().any(|seen| seen.uri == document.uri) {
            forget_oldest(&mut known.documents, DOCUMENTS, |seen| seen.used);
            known.documents.push(Document::new(document));
        }
        let seen = known.documents.iter_mut().find(|seen| seen.uri == document.uri);
        // Of two requests under way, the one about the newer text counts.
        let Some(seen) = seen.filter(|seen| seen.revision <= document.revision) else { return };
        seen.follow(document);
        seen.used = clock;
        let (line, at) = (document.text.char_to_line(cursor), document.text.char_to_byte(cursor));
        match seen.nearest(line, STEP) {
            Some(place) => *place = Place { at, layout, used: clock },
            None => {
                forget_oldest(&mut seen.places, PLACES, |place| place.used);
                seen.places.push(Place { at, layout, used: clock });
            }
        }
    }
}

/// Makes room for one more of at most `most`.
fn forget_oldest<T>(all: &mut Vec<T>, most: usize, used: impl Fn(&T) -> u64) {
    if all.len() >= most
        && let Some(oldest) = (0..all.len()).min_by_key(|&index| used(&all[index]))
    {
        all.swap_remove(oldest);
    }
}

impl Document {
    fn new(document: &Snapshot) -> Self {
        Self {
            uri: Arc::clone(&document.uri),
            text: document.text.clone(),
            revision: document.revision,
            places: Vec::new(),
            used: 0,
        }
    }

    /// Moves what is known to where it stands in the document now.
    fn follow(&mut self, document: &Snapshot) {
        if self.revision == document.revision {
            return;
        }
        if let Some(edit) = Edit::between(&self.text, &document.text) {
            for place in &mut self.places {
                place.follow(&edit, &self.text, &document.text);
            }
        }
        (self.text, self.revision) = (document.text.clone(), document.revision);
    }

    /// The place nearest to a line, if one is within `reach` lines; of two, the one used last.
    fn nearest(&mut self, line: usize, reach: usize) -> Option<&mut Place> {
        let text = &self.text;
        let distance = |place: &Place| text.byte_to_line(place.at).abs_diff(line);
        let near = self.places.iter_mut().filter(|place| distance(place) <= reach);
        near.min_by_key(|place| (distance(place), std::cmp::Reverse(place.used)))
    }
}

impl Place {
    fn follow(&mut self, edit: &Edit, old: &Rope, new: &Rope) {
        let line = old.line_to_byte(old.byte_to_line(self.at));
        let at = edit.moved(self.at, Inserted::Behind).or_else(|| edit.moved_line(line, old, new));
        self.at = at.unwrap_or(edit.new_end).min(new.len_bytes());
        let Some(start) = self.layout.start else { return };
        if edit.start < start {
            self.layout.edited_above = true;
        }
        // The first line of a document is the first whatever is put before it.
        self.layout.start = if start == 0 { Some(0) } else { edit.moved_line(start, old, new) };
    }
}
