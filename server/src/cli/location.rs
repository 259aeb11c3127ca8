//! `FILE:LINE:COL` on the command line, and the place in the text that it means.

use std::path::PathBuf;
use std::str::FromStr;

use crate::text::line_end;

/// A place in a file as people and compilers write it: line and column from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// Line from 1.
    pub line: usize,
    /// Column from 1, in characters; the column behind the last character is the end of the line.
    pub column: usize,
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // From the right: a file's name may have colons of its own (`C:\work\a.py:3:7`).
        let mut parts = text.rsplitn(3, ':');
        let (column, line, path) = (parts.next(), parts.next(), parts.next());
        let (Some(column), Some(line), Some(path)) = (column, line, path) else {
            return Err("write it as FILE:LINE:COL, for instance src/main.rs:12:5".to_owned());
        };
        if path.is_empty() {
            return Err("the file's name is missing before the first colon".to_owned());
        }
        Ok(Self { path: path.into(), line: count("line", line)?, column: count("column", column)? })
    }
}

fn count(what: &str, text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err(format!("the {what} counts from 1")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("the {what} must be a number, not \"{text}\"")),
    }
}

/// Where a [`Location`] is in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// Characters from the start of the text.
    pub chars: usize,
    /// What was moved to get there, if the line is shorter than the column.
    pub clamped: Option<String>,
}

impl Location {
    /// Finds the place in `text`. A column past the end of its line means the end of the line, said in
    /// [`Offset::clamped`]; a line past the end of the text is an error.
    pub fn offset(&self, text: &ropey::Rope) -> Result<Offset, String> {
        let lines = text.len_lines();
        if self.line > lines {
            return Err(format!(
                "{} has {lines} line{}, so there is no line {}",
                self.path.display(),
                if lines == 1 { "" } else { "s" },
                self.line
            ));
        }
        let start = text.line_to_char(self.line - 1);
        let length = line_end(text, self.line - 1) - start;
        let wanted = self.column - 1;
        let clamped = (wanted > length).then(|| {
            format!(
                "line {} of {} has {length} characters: completing at its end, column {}",
                self.line,
                self.path.display(),
                length + 1
            )
        });
        Ok(Offset { chars: start + wanted.min(length), clamped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, usize, usize), String> {
        text.parse::<Location>().map(|l| (l.path.display().to_string(), l.line, l.column))
    }

    #[test]
    fn the_last_two_colons_part_line_and_column() {
        for (text, path, line, column) in [
            ("a.py:3:7", "a.py", 3, 7),
            ("/tmp/x y.rs:1:1", "/tmp/x y.rs", 1, 1),
            (r"C:\work\a.py:3:7", r"C:\work\a.py", 3, 7),
            ("odd:name:10:20", "odd:name", 10, 20),
        ] {
            assert_eq!(parse(text), Ok((path.to_owned(), line, column)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("a.py", "FILE:LINE:COL"),
            ("a.py:3", "FILE:LINE:COL"),
            ("a.py:0:1", "the line counts from 1"),
            ("a.py:1:0", "the column counts from 1"),
            ("a.py:x:1", "the line must be a number"),
            ("a.py:1:-2", "the column must be a number"),
            (r"C:\a.py:3", "the line must be a number"),
            (":1:2", "name is missing"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn places_are_found_in_characters() {
        let text = ropey::Rope::from_str("eins\r\nzwölf 🦀 x\n\nend");
        for (line, column, chars, clamps) in [
            (1, 1, 0, false),
            (1, 5, 4, false),
            (1, 6, 4, true),
            (2, 7, 12, false),
            (2, 10, 15, false),
            (2, 11, 15, true),
            (3, 1, 16, false),
            (3, 2, 16, true),
            (4, 4, 20, false),
            (4, usize::MAX, 20, true),
        ] {
            let location = Location { path: "f".into(), line, column };
            let offset = location.offset(&text).expect("inside");
            assert_eq!((offset.chars, offset.clamped.is_some()), (chars, clamps), "{line}:{column}");
        }
    }

    #[test]
    fn a_line_past_the_end_is_an_error() {
        let text = ropey::Rope::from_str("one\ntwo");
        let error = Location { path: "f.py".into(), line: 3, column: 1 }.offset(&text).expect_err("outside");
        assert_eq!(error, "f.py has 2 lines, so there is no line 3");
    }
}
