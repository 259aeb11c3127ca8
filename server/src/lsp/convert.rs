//! Between the protocol's types and ours.

use ropey::Rope;
use tower_lsp::gen_lsp_types as lsp;

use crate::text::{Encoding, Position, Range, position_of};

/// A place as the client gave it.
pub(super) fn position(position: lsp::Position) -> Position {
    Position { line: position.line, character: position.character }
}

/// A range as the client gave it.
pub(super) fn range(range: lsp::Range) -> Range {
    Range { start: position(range.start), end: position(range.end) }
}

/// Character offsets of a text as a range for the client. `None` when it does not lie in one line: the
/// protocol allows no such range for completions.
pub(super) fn line_range(
    text: &Rope,
    offsets: &std::ops::Range<usize>,
    encoding: Encoding,
) -> Option<lsp::Range> {
    let range = whole_range(text, offsets, encoding);
    (range.start.line == range.end.line && range.start <= range.end).then_some(range)
}

/// Character offsets of a text as a range for the client, over as many lines as it takes.
pub(super) fn whole_range(text: &Rope, offsets: &std::ops::Range<usize>, encoding: Encoding) -> lsp::Range {
    let place = |offset| {
        let Position { line, character } = position_of(text, offset, encoding);
        lsp::Position { line, character }
    };
    lsp::Range { start: place(offsets.start), end: place(offsets.end) }
}
