//! What the text around a cursor is: which scope, comment, string or half-written statement it is in.
//!
//! The text at the cursor is nearly always broken, since somebody is writing it. So the tree is
//! believed only outside of what the parser could not make sense of; inside of that, and where there is
//! no tree, lines and their indentation decide.

mod literals;
mod scopes;
mod statements;
#[cfg(test)]
pub(super) mod tests;

pub use literals::{Literal, in_comment_or_string};
pub use scopes::{Scope, ScopeKind, enclosing_block, enclosing_scope, enclosing_scopes};
pub use statements::{node_is_empty_body, statement_incomplete_at};

use tree_sitter::{Node, Tree};

use crate::documents::Snapshot;

/// The place in a tree that a cursor stands at.
struct Place {
    tree: Tree,
    /// The byte of the cursor.
    byte: usize,
    /// The byte of the last character before the cursor that is not white space.
    before: Option<usize>,
}

impl Place {
    fn of(document: &Snapshot, cursor: usize) -> Option<Place> {
        let text = &document.text;
        let cursor = cursor.min(text.len_chars());
        let mut chars = text.chars_at(cursor).reversed();
        let blank = chars.by_ref().position(|c| !c.is_whitespace());
        let before = blank.map(|blank| text.char_to_byte(cursor - blank - 1));
        Some(Place { tree: document.tree()?, byte: text.char_to_byte(cursor), before })
    }

    /// The nodes around the cursor and those around the last text before it, the outer ones first.
    fn paths(&self) -> [Vec<Node<'_>>; 2] {
        [
            path(&self.tree, self.byte, self.byte),
            self.before.map_or_else(Vec::new, |at| path(&self.tree, at, at)),
        ]
    }
}

/// The nodes around some bytes, from the root to the smallest. Going down once is much faster than
/// asking each node for its parent, for which the parser begins at the root again.
fn path(tree: &Tree, start: usize, end: usize) -> Vec<Node<'_>> {
    let root = tree.root_node();
    let Some(leaf) = root.descendant_for_byte_range(start, end) else { return vec![root] };
    std::iter::successors(Some(root), |node| node.child_with_descendant(leaf)).collect()
}

/// Where the outermost part that the parser could not make sense of begins, if the cursor is in one or
/// only white space after one.
fn broken_from(paths: &[Vec<Node>]) -> Option<usize> {
    paths.iter().flatten().filter(|node| node.is_error()).map(Node::start_byte).min()
}
