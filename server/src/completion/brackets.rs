//! Which brackets are open at the cursor, which of them the text behind it closes, and so which of them
//! an answer may still close.
//!
//! Works on text alone, so that it also works in code that does not parse yet and in languages without
//! a grammar; strings and comments are skipped by the lexical habits of the language.

use crate::completion::site::Lexis;

/// A bracket and where it stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bracket {
    /// Byte offset.
    pub at: usize,
    /// One of `([{)]}`.
    pub kind: char,
}

/// The closing bracket of an opening one.
pub fn closer_of(open: char) -> Option<char> {
    match open {
        '(' => Some(')'),
        '[' => Some(']'),
        '{' => Some('}'),
        _ => None,
    }
}

/// Whether it is one of `)]}`.
pub fn is_closer(c: char) -> bool {
    matches!(c, ')' | ']' | '}')
}

/// The brackets of a text, those in strings and comments left out.
pub fn brackets(text: &str, lexis: &Lexis) -> Vec<Bracket> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '"' | '\'' | '`' => quoted(rest, c, lexis),
            _ => comment(rest, lexis),
        };
        if let Some(skip) = skip {
            rest = &rest[skip..];
            continue;
        }
        if closer_of(c).is_some() || is_closer(c) {
            found.push(Bracket { at: text.len() - rest.len(), kind: c });
        }
        rest = &rest[c.len_utf8()..];
    }
    found
}

/// Whether a line ends inside a string or a comment.
pub fn ends_quoted(line: &str, lexis: &Lexis) -> bool {
    open_literal(line, lexis).is_some()
}

/// The quote of the string in which a line ends.
pub fn open_quote(line: &str, lexis: &Lexis) -> Option<char> {
    open_literal(line, lexis).and_then(|start| start.chars().next()).filter(|c| matches!(c, '"' | '\'' | '`'))
}

/// Where the closing quote of a string stands in a text that begins inside of the string.
pub fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The string or the comment in which a line ends, from its start.
fn open_literal<'a>(line: &'a str, lexis: &Lexis) -> Option<&'a str> {
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let (skip, ends) = match c {
            '"' | '\'' | '`' => {
                let skip = quoted(rest, c, lexis);
                // The end of the line is inside unless the quote that opened it also closes it.
                (skip, skip.is_some_and(|n| n == rest.len() && (n == 1 || !is_closed(rest, c))))
            }
            _ => {
                let skip = comment(rest, lexis);
                (skip, skip.is_some_and(|n| n == rest.len() && !rest.ends_with("*/")))
            }
        };
        if ends {
            return Some(rest);
        }
        rest = &rest[skip.unwrap_or(c.len_utf8())..];
    }
    None
}

/// Whether a quoted text that reaches the end of its line is closed there.
fn is_closed(quoted: &str, quote: char) -> bool {
    let Some(inside) = quoted.strip_suffix(quote) else { return false };
    let backslashes = inside.chars().rev().take_while(|&c| c == '\\').count();
    let triple: String = [quote; 3].iter().collect();
    let closing = if quoted.starts_with(&triple) { triple } else { quote.to_string() };
    quoted.len() >= 2 * closing.len() && quoted.ends_with(&closing) && backslashes % 2 == 0
}

/// Length of the comment that the text begins with.
fn comment(text: &str, lexis: &Lexis) -> Option<usize> {
    if lexis.slash_star && text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    let marker = lexis.line_comment?;
    text.starts_with(marker).then(|| text.find('\n').unwrap_or(text.len()))
}

/// Length of the quoted text that the text begins with; `None`: the quote is no quote (a lifetime, an
/// apostrophe).
fn quoted(text: &str, quote: char, lexis: &Lexis) -> Option<usize> {
    let triple: String = [quote; 3].iter().collect();
    if quote != '`' && text.starts_with(&triple) {
        return Some(text[3..].find(&triple).map_or(text.len(), |end| end + 6));
    }
    let mut length = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        length += 1;
        if c == '\n' && quote != '`' {
            // An unfinished string ends with its line; a lone apostrophe is none.
            return (quote == '"').then_some(at);
        }
        if quote == '\'' && !lexis.single_quoted_strings && length > 3 && !text[1..].starts_with('\\') {
            return None;
        }
        if c == quote && !escaped {
            return Some(at + 1);
        }
        escaped = c == '\\' && !escaped;
    }
    (quote == '"' || (quote == '\'' && lexis.single_quoted_strings)).then_some(text.len())
}

/// What an answer may close: the state of the brackets around the cursor.
#[derive(Debug, Clone, Default)]
pub struct Balance {
    /// Closers of what is open at the cursor, innermost first.
    needed: Vec<char>,
    /// Of those, what the text behind the cursor closes, in its order.
    given: Vec<char>,
}

impl Balance {
    /// Reads the text around the cursor.
    pub fn around(before: &str, after: &str, lexis: &Lexis) -> Self {
        let mut open = Vec::new();
        for bracket in brackets(before, lexis) {
            match closer_of(bracket.kind) {
                Some(closer) => open.push(closer),
                // A closer that fits nothing belongs to something above the window.
                None => {
                    if let Some(at) = open.iter().rposition(|&closer| closer == bracket.kind) {
                        open.truncate(at);
                    }
                }
            }
        }
        open.reverse();
        let mut given = excess(after, lexis).into_iter().map(|b| b.kind).collect::<Vec<_>>();
        // Behind a window's edge there may be closers for things opened above it: keep what fits.
        while !is_subsequence(&given, &open) {
            given.pop();
        }
        Self { needed: open, given }
    }

    /// Whether an answer may close this many of the brackets that are open at the cursor, without
    /// closing one that the text behind the cursor closes already.
    pub fn may_close(&self, closers: &[char]) -> bool {
        self.needed.starts_with(closers) && is_subsequence(&self.given, &self.needed[closers.len()..])
    }
}

/// Closing brackets that close nothing opened in the text itself.
pub fn excess(text: &str, lexis: &Lexis) -> Vec<Bracket> {
    let mut open: Vec<char> = Vec::new();
    let mut excess = Vec::new();
    for bracket in brackets(text, lexis) {
        match closer_of(bracket.kind) {
            Some(closer) => open.push(closer),
            None => match open.iter().rposition(|&closer| closer == bracket.kind) {
                Some(at) => open.truncate(at),
                None => excess.push(bracket),
            },
        }
    }
    excess
}

/// Where an answer closes the first bracket that the text behind the cursor closes already.
pub fn surplus(answer: &str, balance: &Balance, lexis: &Lexis) -> Option<usize> {
    let closers = excess(answer, lexis);
    let kinds: Vec<char> = closers.iter().map(|bracket| bracket.kind).collect();
    let first = (0..kinds.len()).find(|&i| !balance.may_close(&kinds[..=i]))?;
    Some(closers[first].at)
}

/// How many brackets a text leaves open.
pub fn open_at_end(text: &str, lexis: &Lexis) -> usize {
    let mut open: Vec<char> = Vec::new();
    for bracket in brackets(text, lexis) {
        match closer_of(bracket.kind) {
            Some(closer) => open.push(closer),
            None => {
                if let Some(at) = open.iter().rposition(|&closer| closer == bracket.kind) {
                    open.truncate(at);
                }
            }
        }
    }
    open.len()
}

fn is_subsequence(short: &[char], long: &[char]) -> bool {
    let mut rest = long.iter();
    short.iter().all(|wanted| rest.any(|c| c == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, lexis: &Lexis) -> String {
        brackets(text, lexis).iter().map(|b| b.kind).collect()
    }

    #[test]
    fn strings_and_comments_hold_no_brackets() {
        let c_like = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };
        let python = Lexis { line_comment: Some("#"), slash_star: false, single_quoted_strings: true };
        for (text, lexis, expected) in [
            ("f(\"(\", x)", &c_like, "()"),
            ("f('(')", &c_like, "()"),
            ("f('\\'', [0])", &c_like, "([])"),
            ("fn f<'a>(x: &'a T) {", &c_like, "(){"),
            ("x(1) // don't (\n}", &c_like, "()}"),
            ("/* ( */ [", &c_like, "["),
            ("f('(')  # it's (\n]", &python, "()]"),
            ("\"\"\"a (\n b [\"\"\" {", &python, "{"),
            ("say(\"unfinished (\n)", &c_like, "()"),
            ("f(\"a\\\"(\")", &c_like, "()"),
            ("`${a(`", &c_like, ""),
            ("don't (", &c_like, "("),
        ] {
            assert_eq!(kinds(text, lexis), expected, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_line_may_be_inside_a_string() {
        let lexis = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };
        for (line, inside) in [
            ("say(\"a", true),
            ("say(\"a\"", false),
            ("say(\"", true),
            ("say(\"\"", false),
            ("say(\"a\\\"", true),
            ("say(\"a 🔺", true),
            ("say(\"🔺\"", false),
            ("x // y", true),
            ("x /* y", true),
            ("x /* y */", false),
            ("fn f<'a", false),
            ("'a'", false),
            ("\"\"\"doc", true),
            ("\"\"\"doc\"\"\"", false),
            ("", false),
        ] {
            assert_eq!(ends_quoted(line, &lexis), inside, "{line}");
        }
        assert_eq!(open_quote("say(\"a", &lexis), Some('"'));
        assert_eq!(open_quote("x // \"y", &lexis), None);
    }

    #[test]
    fn a_string_ends_at_a_quote_that_is_not_escaped() {
        for (text, at) in [("a\" b", Some(1)), ("a\\\" b\"", Some(5)), ("a\\\\\"", Some(3)), ("a", None)] {
            assert_eq!(closing_quote(text, '"'), at, "{text}");
        }
    }

    #[test]
    fn an_answer_closes_only_what_is_missing() {
        let lexis = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };
        for (before, after, closers, allowed) in [
            ("fn a() { foo(bar(", ")\n}\n", ")", true),
            ("fn a() { foo(bar(", ")\n}\n", "))", false),
            ("fn a() { foo(", ")\n}\n", ")", false),
            ("fn a() { foo(", "\n}\n", ")", true),
            ("fn a() {\n    if x {", "\n}\n", "}", true),
            ("fn a() {\n    if x {", "\n    }\n}\n", "}", false),
            ("fn a() {", "", "}", true),
            // A window that opens inside a function: its closer stands behind the cursor all the same.
            ("    foo(", ")\n}\n}\n", ")", false),
            ("    foo(", "\n}\n}\n", ")", true),
            ("foo(", "", "]", false),
        ] {
            let balance = Balance::around(before, after, &lexis);
            let closers: Vec<char> = closers.chars().collect();
            assert_eq!(balance.may_close(&closers), allowed, "{before} ‸ {after}: {closers:?}");
        }
    }
}
