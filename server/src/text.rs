//! Places in a text: the protocol's line and character, in the encoding agreed with the client.
//!
//! Inside the server a place is an offset in characters (Unicode scalar values) from the start of the
//! text. Lines end at `\n`, `\r\n` and `\r`, as the protocol says; ropey's features are set so that its
//! lines are the same lines.

use ropey::Rope;

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

/// How the lines of a document end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineEnding {
    /// `\n`
    #[default]
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

impl LineEnding {
    /// The characters themselves.
    pub fn as_str(self) -> &'static str {
        match self {
            LineEnding::Lf => "\n",
            LineEnding::CrLf => "\r\n",
            LineEnding::Cr => "\r",
        }
    }

    /// How the first line of `text` ends; `None` for a text of one line.
    pub fn of(text: &Rope) -> Option<LineEnding> {
        if text.len_lines() < 2 {
            return None;
        }
        let next = text.line_to_char(1);
        Some(match (text.get_char(next.wrapping_sub(2)), text.get_char(next - 1)) {
            (Some('\r'), Some('\n')) => LineEnding::CrLf,
            (_, Some('\r')) => LineEnding::Cr,
            _ => LineEnding::Lf,
        })
    }
}

/// The character offset of `position`. Never fails: a place behind the end of its line is the end of
/// that line (before its break), a place behind the last line is the end of the text, and a place
/// inside a character (half a surrogate pair, a byte of many) is the start of that character.
pub fn offset_of(text: &Rope, position: Position, encoding: Encoding) -> usize {
    let line = position.line as usize;
    if line >= text.len_lines() {
        return text.len_chars();
    }
    let (start, end) = (text.line_to_char(line), line_end(text, line));
    let units = position.character as usize;
    let offset = match encoding {
        Encoding::Utf32 => start + units,
        Encoding::Utf16 => {
            let unit = text.char_to_utf16_cu(start) + units;
            text.utf16_cu_to_char(unit.min(text.len_utf16_cu()))
        }
        Encoding::Utf8 => text.byte_to_char((text.char_to_byte(start) + units).min(text.len_bytes())),
    };
    offset.min(end)
}

/// The position of the character at `offset`, which is clamped to the text. Between `\r` and `\n`
/// there is no position: that offset gives the end of the line.
pub fn position_of(text: &Rope, offset: usize, encoding: Encoding) -> Position {
    let offset = offset.min(text.len_chars());
    let line = text.char_to_line(offset);
    let (start, offset) = (text.line_to_char(line), offset.min(line_end(text, line)));
    let character = match encoding {
        Encoding::Utf32 => offset - start,
        Encoding::Utf16 => text.char_to_utf16_cu(offset) - text.char_to_utf16_cu(start),
        Encoding::Utf8 => text.char_to_byte(offset) - text.char_to_byte(start),
    };
    Position { line: saturate(line), character: saturate(character) }
}

/// The character offsets of `range`, in order even where its ends are not.
pub fn offsets_of(text: &Rope, range: Range, encoding: Encoding) -> std::ops::Range<usize> {
    let (a, b) = (offset_of(text, range.start, encoding), offset_of(text, range.end, encoding));
    a.min(b)..a.max(b)
}

/// The character offset where the content of `line` ends and its break begins. A line behind the last
/// one ends where the text ends.
pub fn line_end(text: &Rope, line: usize) -> usize {
    if line + 1 >= text.len_lines() {
        return text.len_chars();
    }
    let (start, next) = (text.line_to_char(line), text.line_to_char(line + 1));
    let is = |offset: usize, c| offset >= start && text.get_char(offset) == Some(c);
    match next.saturating_sub(2) {
        before if is(before, '\r') && is(next - 1, '\n') => before,
        _ => next - 1,
    }
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` at (`line`, `character`) in UTF-8, UTF-16 and UTF-32: the offset in characters.
    #[track_caller]
    fn check(text: &str, line: u32, character: u32, want: [usize; 3]) {
        let rope = Rope::from_str(text);
        for (encoding, want) in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32].into_iter().zip(want) {
            let got = offset_of(&rope, Position { line, character }, encoding);
            assert_eq!(got, want, "{text:?} at {line}:{character} in {encoding:?}");
        }
    }

    #[test]
    fn a_position_has_one_offset_wherever_it_points() {
        check("", 0, 0, [0, 0, 0]);
        check("", 7, 9, [0, 0, 0]);
        check("ab\ncd", 0, 1, [1, 1, 1]);
        check("ab\ncd", 0, 99, [2, 2, 2]);
        check("ab\ncd", 1, 1, [4, 4, 4]);
        check("ab\ncd", 2, 0, [5, 5, 5]);
        check("ab\ncd", u32::MAX, u32::MAX, [5, 5, 5]);
        check("ab\r\ncd", 0, 3, [2, 2, 2]);
        check("ab\rcd", 1, 0, [3, 3, 3]);
        check("a\n", 1, 0, [2, 2, 2]);
        check("\r\n\r\n", 1, 5, [2, 2, 2]);
        // An emoji: four bytes, two UTF-16 units, one character.
        check("x😀y", 0, 2, [1, 1, 2]);
        check("x😀y", 0, 3, [1, 2, 3]);
        check("x😀y", 0, 5, [2, 3, 3]);
        // A letter and its combining accent are two characters.
        check("e\u{301}!", 0, 2, [1, 2, 2]);
        check("漢字", 0, 1, [0, 1, 1]);
        // Not line breaks for the protocol: vertical tab, form feed, NEL, line and paragraph separators.
        check("a\u{b}b\u{c}c\u{85}d\u{2028}e\u{2029}f", 1, 0, [11, 11, 11]);
    }

    #[test]
    fn every_offset_comes_back_from_its_position() {
        for text in ["", "a", "ab\ncd\n", "x😀y\r\nz\r\rw", "漢\u{301}字\n\n", "\r", "\n\r\n"] {
            let rope = Rope::from_str(text);
            for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
                for offset in 0..=rope.len_chars() {
                    let inside = offset > 0
                        && rope.get_char(offset - 1) == Some('\r')
                        && rope.get_char(offset) == Some('\n');
                    let want = if inside { offset - 1 } else { offset };
                    let position = position_of(&rope, offset, encoding);
                    assert_eq!(offset_of(&rope, position, encoding), want, "{text:?} {offset} {encoding:?}");
                }
                assert_eq!(
                    position_of(&rope, usize::MAX, encoding),
                    position_of(&rope, rope.len_chars(), encoding)
                );
            }
        }
    }

    #[test]
    fn a_range_is_put_in_order() {
        let rope = Rope::from_str("ab\ncd");
        let at = |line, character| Position { line, character };
        let range = Range { start: at(1, 1), end: at(0, 1) };
        assert_eq!(offsets_of(&rope, range, Encoding::Utf16), 1..4);
    }

    #[test]
    fn the_first_break_tells_the_line_ending() {
        let cases = [
            ("", None),
            ("a", None),
            ("a\nb\r\n", Some(LineEnding::Lf)),
            ("\n", Some(LineEnding::Lf)),
            ("a\r\nb\n", Some(LineEnding::CrLf)),
            ("\r\n", Some(LineEnding::CrLf)),
            ("a\rb", Some(LineEnding::Cr)),
        ];
        for (text, want) in cases {
            assert_eq!(LineEnding::of(&Rope::from_str(text)), want, "{text:?}");
        }
    }
}
