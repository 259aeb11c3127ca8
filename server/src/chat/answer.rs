//! What an answer holds besides words: blocks of code, and lines of the file that it names.

use std::ops::{Range, RangeInclusive};
use std::sync::LazyLock;

use regex::Regex;

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence; mostly a language.
    pub language: String,
    /// What is between the fences, lines ended by `\n`.
    pub text: String,
    /// Bytes of the answer, fences included.
    pub span: Range<usize>,
}

/// The blocks of a Markdown text, as CommonMark says where they begin and end. One that is still open at the
/// end of the text ends there.
pub fn blocks(answer: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(Fence, Block)> = None;
    let mut at = 0;
    for line in answer.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        match &mut open {
            Some((fence, block)) => {
                block.span.end = end;
                if fence.is_closed_by(line) {
                    blocks.extend(open.take().map(|(_, block)| block));
                } else {
                    block.text.push_str(fence.without_indent(line).trim_end_matches(['\r', '\n']));
                    block.text.push('\n');
                }
            }
            None => {
                open = Fence::of(line).map(|(fence, language)| {
                    (fence, Block { language, text: String::new(), span: start..end })
                });
            }
        }
    }
    blocks.extend(open.map(|(_, block)| block));
    blocks
}

/// An opening fence.
struct Fence {
    mark: char,
    length: usize,
    indent: usize,
}

impl Fence {
    /// The fence that a line opens, and what stands behind it.
    fn of(line: &str) -> Option<(Self, String)> {
        let text = line.trim_start_matches(' ');
        let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let behind = text.trim_start_matches(mark);
        let (length, indent) = (text.len() - behind.len(), line.len() - text.len());
        let sound = length >= 3 && indent <= 3 && !(mark == '`' && behind.contains('`'));
        let language = behind.split_whitespace().next().unwrap_or_default().to_owned();
        sound.then_some((Self { mark, length, indent }, language))
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let text = line.trim_start_matches(' ');
        let behind = text.trim_start_matches(self.mark);
        line.len() - text.len() <= 3 && text.len() - behind.len() >= self.length && behind.trim().is_empty()
    }

    fn without_indent<'a>(&self, line: &'a str) -> &'a str {
        let white = line.len() - line.trim_start_matches(' ').len();
        &line[white.min(self.indent)..]
    }
}

/// Lines that an answer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Bytes of the answer: the words that name them.
    pub span: Range<usize>,
    /// The lines, from 1.
    pub lines: RangeInclusive<usize>,
}

/// Where an answer names lines of a file that has `lines` lines ("line 3", "Lines 3 to 5", "L3-L5"); its
/// blocks of code are left out.
pub fn references(answer: &str, blocks: &[Block], lines: usize) -> Vec<Reference> {
    static NAMED: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"\b(?:(?i:lines?)[ \u{a0}]+|L)(\d{1,7})(?:\s*(?:-|\u{2013}|to|and|through)\s*L?(\d{1,7}))?\b",
        )
        .ok()
    });
    let Some(named) = &*NAMED else { return Vec::new() };
    let reference = |found: regex::Captures<'_>| {
        let number = |n: usize| found.get(n).and_then(|digits| digits.as_str().parse::<usize>().ok());
        let (first, last) = (number(1)?, number(2).or(number(1))?);
        let span = found.get(0)?.range();
        let in_code = blocks.iter().any(|block| block.span.contains(&span.start));
        let there = 1 <= first && first <= last && last <= lines;
        (there && !in_code).then_some(Reference { span, lines: first..=last })
    };
    named.captures_iter(answer).filter_map(reference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(answer: &str) -> Vec<(String, String)> {
        blocks(answer).into_iter().map(|block| (block.language, block.text)).collect()
    }

    #[test]
    fn blocks_begin_and_end_as_commonmark_says() {
        let pair = |language: &str, text: &str| (language.to_owned(), text.to_owned());
        for (answer, expected) in [
            ("no code", vec![]),
            ("a\n```rust\nfn a() {}\n```\nb", vec![pair("rust", "fn a() {}\n")]),
            ("```\n```\n", vec![pair("", "")]),
            ("````md\n```\nx\n```\n````\n", vec![pair("md", "```\nx\n```\n")]),
            ("~~~ py title=x\nx\n```\n~~~", vec![pair("py", "x\n```\n")]),
            ("1. so:\n   ```c\n   int x;\n     int y;\n   ```\n", vec![pair("c", "int x;\n  int y;\n")]),
            ("```py\r\nx\r\n```\r\n", vec![pair("py", "x\n")]),
            ("it is `x` or ```x``` here", vec![]),
            ("stopped\n```js\nlet x", vec![pair("js", "let x\n")]),
            ("    ```\n    indented\n", vec![]),
        ] {
            assert_eq!(found(answer), expected, "{answer:?}");
        }
        let answer = "ä\n```c\nx\n```\nb";
        assert_eq!(&answer[blocks(answer)[0].span.clone()], "```c\nx\n```\n");
    }

    #[test]
    fn lines_are_found_where_they_are_named() {
        let answer = "In line 3 and lines 4 to 6, Lines 2\u{2013}5, L7-L8. Line 0, line 99, lines 5-2, outline 3.\n\
                      ```\n# line 1\n```\nline 9.";
        let found: Vec<_> = references(answer, &blocks(answer), 9)
            .into_iter()
            .map(|one| (&answer[one.span.clone()], one.lines))
            .collect();
        assert_eq!(
            found,
            [
                ("line 3", 3..=3),
                ("lines 4 to 6", 4..=6),
                ("Lines 2\u{2013}5", 2..=5),
                ("L7-L8", 7..=8),
                ("line 9", 9..=9),
            ]
        );
    }
}
