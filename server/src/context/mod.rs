//! What to show the model besides the text around the cursor: imports, the scopes it is in, what else
//! the document defines, and pieces of other open documents.
//!
//! What goes into a prompt should change as little as it can from one keystroke to the next, because a
//! prompt is cheap only as far as it begins like the one before. So everything here is a function of
//! whole lines and coarse steps, and is asked seldom: `completion/layouts` keeps what a place shows.

mod facts;
mod grammar;
pub mod index;
mod lines;
mod pieces;
pub mod recent;
mod survey;
pub mod syntax;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::documents::Snapshot;
use crate::language::Kind;

pub use facts::Facts;
pub use pieces::Piece;
pub use syntax::{Scope, ScopeKind};

/// Some of the document's own text, on whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, without the last line break.
    pub text: String,
    /// Where it stands, in characters.
    pub chars: Range<usize>,
}

/// What is worth showing besides what is visible already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// The document's imports that are not visible, in order.
    pub imports: Vec<Excerpt>,
    /// The headers of what the cursor is in, as far as they stand before the visible part; the
    /// outermost first.
    pub scopes: Vec<Excerpt>,
    /// The signatures of the document's other definitions, as far as they are not visible, in order.
    pub outline: Vec<Excerpt>,
    /// Pieces of other documents, the most useful first.
    pub pieces: Vec<Piece>,
}

/// Something that a document defines, in whole lines from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its lines.
    pub lines: Range<usize>,
    /// Where the comments and attributes right above it begin; the first of its lines if there are none.
    pub attached: usize,
}

/// What a document defines outside of functions and under a name, in order of place. Nothing where there is
/// no syntax tree. Not for the message loop: the first time that a document is seen it is parsed.
pub fn definitions(document: &Snapshot) -> Vec<Definition> {
    let text = &document.text;
    let facts = Facts::of(document);
    let definition = |one: &survey::Defined| {
        let name = one.name(text);
        let chars = lines::chars(text, one.start..one.end?);
        let first = text.char_to_line(chars.start);
        let last = text.char_to_line(chars.end.saturating_sub(1).max(chars.start));
        let attached = facts::attached(text, first);
        (!name.is_empty()).then_some(Definition { name, kind: one.kind, lines: first..last + 1, attached })
    };
    facts.definitions().iter().filter_map(definition).collect()
}

/// Signatures in an outline: beyond this many, those nearest to the visible part.
const LONGEST_OUTLINE: usize = 80;

/// Gathers what to show around `cursor` (in characters). `window` is what of the document is visible
/// in the prompt anyway, and `others` are documents that may be shown: secret ones are not among them.
///
/// Meant for any thread but the message loop: the first time that a document is seen it is parsed.
pub fn gather(document: &Snapshot, cursor: usize, others: &[Snapshot], window: Range<usize>) -> Context {
    Context { pieces: pieces_of(document, cursor, others, &window), ..own(document, cursor, &window) }
}

/// The pieces of [`gather`] alone.
pub fn pieces_of(
    document: &Snapshot,
    cursor: usize,
    others: &[Snapshot],
    window: &Range<usize>,
) -> Vec<Piece> {
    let window = clamped(document, window);
    pieces::pieces(document, &Facts::of(document), cursor, others, &window)
}

/// All of [`gather`] but its pieces: what the document says of itself.
pub fn own(document: &Snapshot, cursor: usize, window: &Range<usize>) -> Context {
    let window = clamped(document, window);
    let facts = Facts::of(document);
    let scopes = syntax::enclosing_scopes(document, cursor);
    let headers: Vec<_> = scopes.iter().rev().map(|scope| scope.header.clone()).collect();
    let hidden = |chars: &Range<usize>| chars.end <= window.start || chars.start >= window.end;
    let before = headers.iter().filter(|header| header.start < window.start);
    Context {
        imports: facts.imports().iter().filter(|chars| hidden(chars)).map(|c| excerpt(document, c)).collect(),
        scopes: before.map(|header| excerpt(document, header)).collect(),
        outline: outline(document, &facts, &headers, &window),
        pieces: Vec::new(),
    }
}

fn clamped(document: &Snapshot, window: &Range<usize>) -> Range<usize> {
    let end = document.text.len_chars();
    window.start.min(end)..window.end.min(end)
}

fn excerpt(document: &Snapshot, chars: &Range<usize>) -> Excerpt {
    Excerpt { text: document.text.slice(chars.clone()).to_string(), chars: chars.clone() }
}

fn outline(
    document: &Snapshot,
    facts: &Facts,
    shown: &[Range<usize>],
    window: &Range<usize>,
) -> Vec<Excerpt> {
    let text = &document.text;
    let visible = text.char_to_byte(window.start)..text.char_to_byte(window.end);
    let hidden = facts.definitions().iter().filter(|one| !visible.contains(&one.start));
    let hidden: Vec<_> = hidden.collect();
    let before = hidden.partition_point(|one| one.start < visible.start);
    let room_before = LONGEST_OUTLINE.saturating_sub(hidden.len() - before).max(LONGEST_OUTLINE / 2);
    let nearest = hidden.into_iter().skip(before.saturating_sub(room_before)).take(LONGEST_OUTLINE);

    let mut excerpts: Vec<Excerpt> = Vec::new();
    for chars in nearest.filter_map(|one| one.signature(text)) {
        let known = shown.iter().any(|header| header.contains(&chars.start));
        // Of two definitions on one line, the line is shown once.
        if !known && excerpts.last().is_none_or(|last| last.chars.end <= chars.start) {
            excerpts.push(excerpt(document, &chars));
        }
    }
    excerpts
}
