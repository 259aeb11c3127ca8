//! Where a completion stands: the text around the cursor in the form that every rule works on.

use crate::completion::brackets::{Balance, brackets, closer_of, is_closer, open_quote};
use crate::completion::shape::Shape;

/// How a language spells comments and quotes, as far as brackets are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lexis {
    /// What begins a comment that ends with its line.
    pub line_comment: Option<&'static str>,
    /// `/* ... */` is a comment.
    pub slash_star: bool,
    /// `'...'` is a string of any length, not one character or a lifetime.
    pub single_quoted_strings: bool,
}

/// The text around the cursor. Line ends are `\n`, whatever the document has; windows of a long document
/// begin at the start of a line and are much longer than what a rule looks at.
#[derive(Debug, Clone)]
pub struct Site {
    /// Text before the cursor.
    pub before: String,
    /// Text behind the cursor.
    pub after: String,
    /// Comments and quotes.
    pub lexis: Lexis,
    /// What is asked for.
    pub shape: Shape,
    /// The model has not seen the text behind the cursor.
    pub blind: bool,
    /// Which brackets an answer may close.
    pub balance: Balance,
}

impl Site {
    /// The place between two texts.
    pub fn new(before: String, after: String, lexis: Lexis, shape: Shape, blind: bool) -> Self {
        let balance = Balance::around(&before, &after, &lexis);
        Self { before, after, lexis, shape, blind, balance }
    }

    /// The cursor's line, left of the cursor.
    pub fn left(&self) -> &str {
        last_line(&self.before)
    }

    /// The cursor's line, right of the cursor.
    pub fn right(&self) -> &str {
        first_line(&self.after)
    }

    /// The nearest line above the cursor's that is not blank.
    pub fn above(&self) -> Option<&str> {
        let above = &self.before[..self.before.len() - self.left().len()];
        above.lines().rev().find(|line| !line.trim().is_empty())
    }

    /// The nearest line below the cursor's that is not blank.
    pub fn below(&self) -> Option<&str> {
        self.after[self.right().len()..].lines().find(|line| !line.trim().is_empty())
    }

    /// Bytes of the text behind the cursor, on its line, that the editor puts there by itself while the user types:
    /// closing brackets and quotes with the punctuation behind them where nothing else is left of the line, else
    /// those alone that close what is open left of the cursor.
    pub fn put_there(&self) -> usize {
        let (left, right) = (self.left(), self.right());
        if is_closing(right) {
            return right.len();
        }
        let quote = open_quote(left, &self.lexis).filter(|quote| right.starts_with(*quote));
        let quote = quote.map_or(0, char::len_utf8);
        let mut open: Vec<char> = Vec::new();
        for bracket in brackets(left, &self.lexis) {
            match closer_of(bracket.kind) {
                Some(closer) => open.push(closer),
                None => drop(open.pop_if(|closer| *closer == bracket.kind)),
            }
        }
        let closers = right[quote..].chars().take_while(|&c| is_closer(c) && open.pop() == Some(c));
        quote + closers.count()
    }

    /// Whether the cursor's line is blank left of the cursor.
    pub fn on_blank(&self) -> bool {
        self.left().trim().is_empty()
    }
}

/// The last line of a text, which may be empty.
pub fn last_line(text: &str) -> &str {
    text.rsplit('\n').next().unwrap_or(text)
}

/// The first line of a text, without its end.
pub fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or(text)
}

/// Columns of a line's indentation; a tab goes to the next multiple of four.
pub fn indent(line: &str) -> usize {
    let mut columns = 0;
    for c in line.chars() {
        match c {
            ' ' => columns += 1,
            '\t' => columns = (columns / 4 + 1) * 4,
            _ => break,
        }
    }
    columns
}

/// Whether a character is part of a word.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether only closing brackets, quotes and punctuation stand in a text: what editors put there by
/// themselves, and what ends a statement.
pub fn is_closing(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || matches!(c, ')' | ']' | '}' | '>' | '"' | '\'' | '`' | ';' | ',' | ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(before: &str, after: &str) -> Site {
        Site::new(before.into(), after.into(), Lexis::default(), Shape::Line, false)
    }

    #[test]
    fn lines_around_the_cursor() {
        let s = site("a\n\n  b", "c\n \nd\n");
        assert_eq!((s.left(), s.right(), s.above(), s.below()), ("  b", "c", Some("a"), Some("d")));
        let s = site("", "");
        assert_eq!((s.left(), s.right(), s.above(), s.below()), ("", "", None, None));
        assert!(site("a\n", "\nb").on_blank());
    }

    #[test]
    fn what_the_editor_closed_stands_behind_the_cursor() {
        let lexis = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };
        for (document, there) in [
            ("f(‸)", ")"),
            ("f(‸);\nx", ");"),
            ("f(a‸  \nx", "  "),
            ("f(\"‸\")", "\")"),
            ("{ a: 1‸ },", " },"),
            ("f(‸) + g", ")"),
            ("f(a, \"‸\", b)", "\""),
            ("g([‸]) + x", "])"),
            ("f(a‸, b)", ""),
            ("f‸(a) + g", ""),
            ("a‸) + g", ""),
            ("(a‸] + g", ""),
            ("x‸\n)", ""),
            ("a ‸\"b\" c", ""),
        ] {
            let (before, after) = document.split_once('‸').expect("a cursor");
            let site = Site::new(before.into(), after.into(), lexis, Shape::Line, false);
            assert_eq!(&after[..site.put_there()], there, "{document}");
        }
    }

    #[test]
    fn tabs_and_spaces_are_columns() {
        for (line, columns) in [("x", 0), ("    x", 4), ("\tx", 4), ("  \tx", 4), ("\t\t x", 9), ("", 0)] {
            assert_eq!(indent(line), columns, "{line:?}");
        }
    }
}
