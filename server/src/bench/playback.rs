//! The documents of a trace while it is played: what an editor would have in its windows.

use ropey::Rope;

use crate::bench::trace::{Complete, Document, Event, Position, Range, What};
use crate::text::{self, Encoding, offset_of, position_of};

/// All documents, as they are after the events applied so far.
#[derive(Debug, Clone)]
pub struct Playback {
    /// In the trace's order.
    pub documents: Vec<State>,
    /// The one in front.
    pub front: Option<usize>,
}

/// A document as it is now.
#[derive(Debug, Clone)]
pub struct State {
    /// Its text.
    pub text: Rope,
    /// Its version: 0 before it is first opened.
    pub version: i32,
    /// Whether it is open.
    pub is_open: bool,
    /// The cursor, in characters from the start of the text.
    pub cursor: usize,
}

impl Playback {
    /// The documents before the first event.
    pub fn new(documents: &[Document]) -> Self {
        let state = |document: &Document| State {
            text: Rope::from_str(&document.text),
            version: 0,
            is_open: false,
            cursor: 0,
        };
        Self { documents: documents.iter().map(state).collect(), front: None }
    }

    /// Applies the next event.
    ///
    /// # Errors
    /// Why it is impossible, in words; the documents are then in no state to go on with.
    pub fn apply(&mut self, event: &Event) -> Result<(), String> {
        let is_front = self.front == Some(event.document);
        let document = &mut self.documents[event.document];
        match &event.what {
            What::Open if document.is_open => return Err("it is open already".into()),
            What::Open => {
                document.is_open = true;
                document.cursor = 0;
                document.version += 1;
            }
            _ if !document.is_open => return Err("it is not open".into()),
            What::Focus => self.front = Some(event.document),
            What::Close => {
                document.is_open = false;
                self.front = self.front.filter(|_| !is_front);
            }
            _ if !is_front => return Err("it is not the document in front".into()),
            What::Change { version, changes } => {
                if *version != document.version + 1 {
                    return Err(format!("the change makes version {version}, not {}", document.version + 1));
                }
                document.version = *version;
                for change in changes {
                    let range = document.range(change.range)?;
                    document.text.remove(range.clone());
                    document.text.insert(range.start, &change.text);
                    document.cursor = range.start + change.text.chars().count();
                }
            }
            What::Cursor { position } => document.cursor = document.offset(*position)?,
            What::Complete(Complete { position, .. }) => {
                if document.offset(*position)? != document.cursor {
                    let cursor = document.position();
                    return Err(format!(
                        "the cursor is at {}:{}, not at {}:{}",
                        cursor.line, cursor.character, position.line, position.character
                    ));
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// Where the cursor is.
    pub fn position(&self) -> Position {
        let position = position_of(&self.text, self.cursor, Encoding::Utf16);
        Position { line: position.line, character: position.character }
    }

    /// The place of a position, in characters.
    ///
    /// # Errors
    /// There is no such place, in words.
    pub fn offset(&self, position: Position) -> Result<usize, String> {
        let asked = text::Position { line: position.line, character: position.character };
        let offset = offset_of(&self.text, asked, Encoding::Utf16);
        match position_of(&self.text, offset, Encoding::Utf16) == asked {
            true => Ok(offset),
            false => Err(format!("there is no place {}:{} in the text", position.line, position.character)),
        }
    }

    /// The characters of a range.
    ///
    /// # Errors
    /// There is no such range, in words.
    pub fn range(&self, range: Range) -> Result<std::ops::Range<usize>, String> {
        let (start, end) = (self.offset(range.start)?, self.offset(range.end)?);
        if end < start {
            return Err("a range of it ends before it begins".into());
        }
        Ok(start..end)
    }
}
