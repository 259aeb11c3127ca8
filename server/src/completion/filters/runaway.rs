//! A model caught in a loop says the same again and again: the first time is kept.

use std::borrow::Cow;

use crate::completion::site::Site;

/// So often in a row is a loop.
const TIMES: usize = 3;
/// Longest loop looked for, in lines.
const LINES: usize = 4;
/// Within a line: longest unit in bytes, fewest repetitions, fewest bytes of them all.
const UNIT: usize = 40;
const UNIT_TIMES: usize = 4;
const UNIT_TOTAL: usize = 40;

/// Keeps the first time.
pub fn apply<'a>(_: &Site, text: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(&text[..start(text).unwrap_or(text.len())])
}

/// Where a loop begins to repeat itself.
pub fn start(text: &str) -> Option<usize> {
    let in_lines = lines_start(text);
    let in_line = line_starts(text).find_map(|(start, line)| Some(start + unit_start(line)?));
    [in_lines, in_line].into_iter().flatten().min()
}

fn line_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let at = start;
        start += line.len();
        (at, line.trim_end())
    })
}

fn lines_start(text: &str) -> Option<usize> {
    let mut lines: Vec<(usize, &str)> = line_starts(text).filter(|(_, line)| !line.is_empty()).collect();
    // The first line goes on from the cursor, so its indentation may be missing: the second time counts.
    if let [first, rest @ ..] = lines.as_mut_slice() {
        let again = rest.iter().find(|(_, line)| line.trim_start() == first.1.trim_start());
        first.1 = again.map_or(first.1, |(_, line)| line);
    }
    for first in 0..lines.len() {
        for period in 1..=LINES {
            let Some(run) = lines.get(first..first + period * TIMES) else { break };
            let says_something = run[..period].iter().any(|(_, line)| line.contains(char::is_alphanumeric));
            let loops = (period..run.len()).all(|i| run[i].1 == run[i - period].1);
            if says_something && loops {
                return Some(run[period].0);
            }
        }
    }
    None
}

fn unit_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    for start in 0..bytes.len() {
        for unit in 1..=UNIT {
            let Some(first) = bytes.get(start..start + unit) else { break };
            let times = bytes[start..].chunks_exact(unit).take_while(|chunk| *chunk == first).count();
            let says_something = first.iter().any(u8::is_ascii_alphanumeric);
            let loops = times >= UNIT_TIMES && times * unit >= UNIT_TOTAL;
            if loops && says_something && line.is_char_boundary(start + unit) {
                return Some(start + unit);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_found_and_lists_are_not() {
        for (text, kept) in [
            ("a();\nb();\na();\nb();\na();\nb();\n", Some("a();\nb();\n")),
            ("x = 1\nx = 1\nx = 1\n", Some("x = 1\n")),
            ("x = 1\nx = 1\n", None),
            ("    }\n  }\n}\n", None),
            ("}\n}\n}\n", None),
            ("[0, 0, 0, 0]", None),
            ("self.a.self.a.self.a.self.a.self.a.self.a.self.a", Some("self.a.")),
            ("// ==========================================================", None),
            ("ab ab", None),
        ] {
            assert_eq!(start(text).map(|at| &text[..at]), kept, "{text}");
        }
    }
}
