//! Where a block of an answer belongs: in the place of the selected lines, or of the definition of the same
//! name. What is not sure has no place, and is the user's to put somewhere.

use std::ops::Range;

use ropey::Rope;

use super::answer::Block;
use crate::context::{Definition, definitions};
use crate::documents::Snapshot;
use crate::language::Language;
use crate::text::line_end;

/// A change to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced, in characters: whole lines without the last one's break.
    pub range: Range<usize>,
    /// What takes its place, indented and its lines ended as the document's are.
    pub text: String,
}

/// The edit that a block of an answer about `document` is.
///
/// `selected`, in characters: what was talked about; `replaces` tells whether the answer was meant to take its
/// place. Not for the message loop: it parses.
pub fn edit(
    document: &Snapshot,
    selected: Option<Range<usize>>,
    replaces: bool,
    block: &Block,
) -> Option<Edit> {
    if block.text.trim().is_empty() || !is_in_language_of(document, block) || leaves_out(document, block) {
        return None;
    }
    let selected = selected.and_then(|selected| whole_lines(&document.text, &selected));
    let lines = namesake(document, selected.as_ref(), block).or(selected.filter(|_| replaces))?;
    let text = &document.text;
    let range = text.line_to_char(lines.start)..line_end(text, lines.end - 1);
    let text = indented(&block.text, &indentation(text, lines)).replace('\n', document.line_ending.as_str());
    Some(Edit { range, text })
}

/// The lines of a selection, blank ones at its ends left out; `None` where nothing else is in it.
pub fn whole_lines(text: &Rope, selected: &Range<usize>) -> Option<Range<usize>> {
    let end = selected.end.min(text.len_chars());
    let start = selected.start.min(end);
    let inside: String = text.slice(start..end).chars().collect();
    let before = inside.len() - inside.trim_start().len();
    let after = inside.trim_end();
    if after.is_empty() {
        return None;
    }
    let first = text.char_to_line(start + inside[..before].chars().count());
    let last = text.char_to_line(start + after.chars().count() - 1);
    Some(first..last + 1)
}

/// Whether a block says that it is in the document's language, or does not say.
fn is_in_language_of(document: &Snapshot, block: &Block) -> bool {
    let named = block.language.as_str();
    let known = || {
        let by_extension = || Language::of_name(std::path::Path::new(&format!("x.{named}")));
        Language::of_id(named).or_else(by_extension)
    };
    named.is_empty()
        || document.language_id.eq_ignore_ascii_case(named)
        || (document.language != Language::Other && known() == Some(document.language))
}

/// Whether a block stands for more than it says: `// ... the rest stays the same`. Its place would lose that.
fn leaves_out(document: &Snapshot, block: &Block) -> bool {
    let spec = document.language.spec();
    let marks = [spec.line_comment, spec.block_comment.map(|(open, _)| open), Some("#"), Some("//")];
    let is_gap = |line: &str| {
        let line = line.trim();
        let said = marks.iter().flatten().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
        let said = said.trim();
        line == "..." && !spec.indented
            || line.len() > said.len() && (said.starts_with("...") || said.starts_with('\u{2026}'))
    };
    block.text.lines().any(is_gap)
}

/// The lines of the definition that a block is another version of: the block is nothing but one definition,
/// and the document has one of that name, in the selection if there is one there.
fn namesake(document: &Snapshot, selected: Option<&Range<usize>>, block: &Block) -> Option<Range<usize>> {
    let written = Snapshot::new(&document.uri, &document.language_id, &block.text);
    let outermost = definitions(&written).into_iter().next()?;
    let is_blank = |line: usize| written.text.line(line).chars().all(char::is_whitespace);
    let around = (0..outermost.attached).chain(outermost.lines.end..written.text.len_lines());
    if !around.into_iter().all(is_blank) {
        return None;
    }
    let mut named = definitions(document);
    named.retain(|one| one.name == outermost.name && one.kind == outermost.kind);
    let touches = |one: &Definition| {
        selected.is_some_and(|lines| one.attached < lines.end && lines.start < one.lines.end)
    };
    if named.iter().any(touches) {
        named.retain(touches);
    }
    let [one] = &named[..] else { return None };
    let start = if outermost.attached < outermost.lines.start { one.attached } else { one.lines.start };
    Some(start..one.lines.end)
}

/// What the first line that is not blank begins with.
fn indentation(text: &Rope, lines: Range<usize>) -> String {
    let mut lines = lines.map(|line| text.line(line));
    let first = lines.find(|line| !line.chars().all(char::is_whitespace));
    first.map_or_else(String::new, |line| line.chars().take_while(|c| matches!(c, ' ' | '\t')).collect())
}

/// A text with its own common indentation taken for `indentation`, spaces becoming tabs where that has tabs.
/// Its last line has no break.
fn indented(text: &str, indentation: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let lines = &lines[lines.iter().position(|line| !line.trim().is_empty()).unwrap_or(0)..];
    let white = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let said = || lines.iter().filter(|line| !line.trim().is_empty());
    let common = said().map(|line| white(line)).min().unwrap_or(0);
    let step = said().map(|line| white(line) - common).filter(|&more| more > 0).min().unwrap_or(1);
    let line = |line: &&str| {
        if line.trim().is_empty() {
            return String::new();
        }
        let (more, words) = line[common..].split_at(white(&line[common..]));
        let spaces = indentation.starts_with('\t') && !more.contains('\t');
        let more = if spaces {
            "\t".repeat(more.len() / step) + &" ".repeat(more.len() % step)
        } else {
            more.into()
        };
        format!("{indentation}{more}{words}")
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "import os\n\n# Adds.\ndef add(a, b):\n    return a - b\n\n\nclass C:\n    def get(self):\n        return 1\n\n    def put(self):\n        pass\n";

    fn document(text: &str) -> Snapshot {
        Snapshot::new("file:///a.py", "python", text)
    }

    fn block(language: &str, text: &str) -> Block {
        Block { language: language.into(), text: text.into(), span: 0..0 }
    }

    /// The document after the edit.
    fn edited(
        document: &Snapshot,
        selected: Option<Range<usize>>,
        replaces: bool,
        block: &Block,
    ) -> Option<String> {
        let edit = edit(document, selected, replaces, block)?;
        let mut text = document.text.clone();
        text.remove(edit.range.clone());
        text.insert(edit.range.start, &edit.text);
        Some(text.to_string())
    }

    #[test]
    fn a_definition_takes_the_place_of_its_namesake() {
        let file = document(FILE);
        let better = block("py", "def add(a, b):\n  return a + b\n");
        let expected = FILE.replace("    return a - b", "  return a + b");
        assert_eq!(edited(&file, None, false, &better), Some(expected));
        let documented = block("", "# Adds two.\ndef add(a, b):\n    return a + b\n");
        let expected = FILE.replace("# Adds.\n", "# Adds two.\n").replace("a - b", "a + b");
        assert_eq!(edited(&file, None, false, &documented), Some(expected));
        let method = block("python", "def get(self):\n    return 2\n");
        assert_eq!(edited(&file, None, false, &method), Some(FILE.replace("return 1", "return 2")));
    }

    #[test]
    fn what_is_not_sure_has_no_place() {
        let file = document(FILE);
        for (language, text) in [
            ("bash", "def add(a, b):\n    return 1\n"),
            ("python", "def other():\n    pass\n"),
            ("python", "import sys\n\ndef add(a, b):\n    return 1\n"),
            ("python", "def add(a, b):\n    # ... as before\n    return 1\n"),
            ("python", "\n"),
        ] {
            assert_eq!(edited(&file, None, true, &block(language, text)), None, "{text}");
        }
        let twice = document("def f():\n    pass\n\nclass A:\n    def f(self):\n        pass\n");
        let other = block("", "def f():\n    return 1\n");
        assert_eq!(edited(&twice, None, true, &other), None);
    }

    #[test]
    fn a_selection_is_replaced_in_whole_lines() {
        let file = document(FILE);
        let at = FILE.find("return 1").expect("there");
        let answer = block("python", "if x:\n    return 2\nreturn 3");
        let expected = FILE.replace("return 1", "if x:\n            return 2\n        return 3");
        assert_eq!(edited(&file, Some(at..at + 3), true, &answer), Some(expected));
        assert_eq!(edited(&file, Some(at..at + 3), false, &answer), None);
        assert_eq!(edited(&file, Some(at..at), true, &answer), None);
        // The namesake in the selection, of several.
        let text = "class A:\n    def f(self):\n        pass\n\nclass B:\n    def f(self):\n        pass\n";
        let twice = document(text);
        let second = text.rfind("def f").expect("there");
        let answer = block("", "def f(self):\n    return 1\n");
        let expected = format!("{}{}", &text[..second], "def f(self):\n        return 1\n");
        assert_eq!(edited(&twice, Some(second..second + 5), false, &answer), Some(expected));
    }

    #[test]
    fn tabs_and_line_ends_are_the_documents() {
        let text = "func a() {\r\n\tif x {\r\n\t\ty()\r\n\t}\r\n}\r\n";
        let file = Snapshot::new("file:///a.go", "go", text);
        let at = text.find("if x").expect("there");
        let answer = block("go", "for {\n    if x {\n        z()\n    }\n}\n");
        let expected = "func a() {\r\n\tfor {\r\n\t\tif x {\r\n\t\t\tz()\r\n\t\t}\r\n\t}\r\n}\r\n";
        let end = text.rfind("\t}").expect("there") + 2;
        // Characters are counted as ropey counts them: a break of two is two.
        assert_eq!(edited(&file, Some(at..end), true, &answer).as_deref(), Some(expected));
    }

    #[test]
    fn selections_are_whole_lines_without_blank_ends() {
        let text = Rope::from_str("a\n\nbcd\ne\n\n");
        for (selected, lines) in
            [(4..5, Some(2..3)), (1..8, Some(2..4)), (0..99, Some(0..4)), (1..3, None), (5..5, None)]
        {
            assert_eq!(whole_lines(&text, &selected), lines, "{selected:?}");
        }
    }
}
