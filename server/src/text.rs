//! Places in a text: the protocol's line and character, in the encoding agreed with the client.

/// What a position's `character` counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes.
    Utf8,
    /// UTF-16 code units: what every client speaks.
    #[default]
    Utf16,
    /// Unicode scalar values.
    Utf32,
}

/// A place in a text: a line and an offset in it, both from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line from 0.
    pub line: u32,
    /// Offset in the line from 0, in the [`Encoding`] agreed on.
    pub character: u32,
}

/// From `start` to before `end`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// First place inside.
    pub start: Position,
    /// First place outside.
    pub end: Position,
}

/// One change of a `didChange`: `range` replaced by `text`, or everything when there is no range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is replaced; `None`: the whole document.
    pub range: Option<Range>,
    /// What comes in its place.
    pub text: String,
}
