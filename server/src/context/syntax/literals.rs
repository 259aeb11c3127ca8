//! Comments and strings.

use tree_sitter::Node;

use super::super::lines;
use super::{Place, broken_from, path};
use crate::documents::Snapshot;
use crate::language::Spec;

/// Text that is not code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    /// A comment.
    Comment,
    /// A string, a character, a pattern or text between code.
    String,
}

/// What the cursor is in, if it is not in code. Code inside of a string is code.
pub fn in_comment_or_string(document: &Snapshot, cursor: usize) -> Option<Literal> {
    let spec = document.language.spec();
    let cursor = cursor.min(document.text.len_chars());
    let Some(place) = Place::of(document, cursor) else {
        return by_text(document, spec, cursor);
    };
    if let Some(literal) = by_tree(spec, &place) {
        return literal.known();
    }
    if broken_from(&place.paths()).is_some() { by_line(document, spec, cursor) } else { None }
}

/// What the tree says; code inside of a string is known to be code.
enum Verdict {
    Literal(Literal),
    Code,
}

impl Verdict {
    fn known(self) -> Option<Literal> {
        match self {
            Verdict::Literal(literal) => Some(literal),
            Verdict::Code => None,
        }
    }
}

fn by_tree(spec: &Spec, place: &Place) -> Option<Verdict> {
    // The character before the cursor says more than the one behind it: a comment ends with its line.
    let byte = place.byte;
    path(&place.tree, byte.saturating_sub(1), byte).into_iter().rev().find_map(|node| {
        let inside = node.start_byte() < byte && byte < node.end_byte();
        if spec.interpolations.contains(&node.kind()) && inside {
            return Some(Verdict::Code);
        }
        if spec.strings.contains(&node.kind()) && inside {
            return Some(Verdict::Literal(Literal::String));
        }
        let comment = spec.comments.contains(&node.kind()) && (inside || ends_open(node, byte));
        comment.then_some(Verdict::Literal(Literal::Comment))
    })
}

/// Whether what is typed at the end of this comment would still be in it.
fn ends_open(node: Node, byte: usize) -> bool {
    let one_line = node.start_position().row == node.end_position().row;
    byte == node.end_byte() && byte > node.start_byte() && one_line && !node.kind().contains("block")
}

/// From the lines alone, for a language without a tree.
fn by_text(document: &Snapshot, spec: &Spec, cursor: usize) -> Option<Literal> {
    const FARTHEST: usize = 20_000;
    if let Some((open, close)) = spec.block_comment {
        let before = document.text.slice(cursor.saturating_sub(FARTHEST)..cursor).to_string();
        let opened = before.rfind(open);
        if opened.is_some_and(|opened| !before[opened..].contains(close)) {
            return Some(Literal::Comment);
        }
    }
    by_line(document, spec, cursor)
}

/// From what stands before the cursor in its line.
fn by_line(document: &Snapshot, spec: &Spec, cursor: usize) -> Option<Literal> {
    let (before, _) = lines::around(&document.text, cursor);
    scan(spec, &before).1
}

/// The code of a line that begins as code, with blanks for what strings hold and nothing for a comment
/// at its end; and what the end of the line is in.
pub(super) fn scan(spec: &Spec, line: &str) -> (String, Option<Literal>) {
    let mut code = String::with_capacity(line.len());
    let mut string: Option<char> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match string {
            Some(_) if c == '\\' => drop(chars.next()),
            Some(quote) if c == quote => string = None,
            Some(_) => {}
            None if spec.line_comment.is_some_and(|start| line[at..].starts_with(start)) => {
                return (code, Some(Literal::Comment));
            }
            None if spec.quotes.contains(&c) => string = Some(c),
            None => {
                code.push(c);
                continue;
            }
        }
        code.push(' ');
    }
    (code, string.map(|_| Literal::String))
}
