//! When an answer is enough: the end of the line, of the scope, or the place where the text behind the
//! cursor begins.
//!
//! One function finds the end, for the engine (which stops there) and for the rule that cuts there, so
//! the two cannot disagree.

use gemma_engine::generate::Enough;

use crate::completion::boundary::Seam;
use crate::completion::brackets::{excess, is_closer, open_at_end, surplus};
use crate::completion::filters::runaway;
use crate::completion::shape::{Block, Shape};
use crate::completion::site::{Site, indent};

/// Most lines of one answer.
pub const MAX_LINES: usize = 16;

/// Shorter lines say too little to be taken for the line behind the cursor.
const SIGNIFICANT: usize = 3;

/// The engine's rule for a site: stop as soon as the end is certain.
pub fn rule(site: Site, seam: Seam) -> Enough {
    Box::new(move |raw: &str| seam.join(raw).is_some_and(|text| end(text, &site).is_some()))
}

/// Where the answer ends, in bytes of it; `None` while more of it may be wanted.
pub fn end(text: &str, site: &Site) -> Option<usize> {
    let end = match site.shape {
        Shape::Line => line_end(text, site),
        Shape::Block(block) => block_end(text, site, block),
    };
    match (end, runaway::start(text)) {
        (Some(end), Some(runaway)) => Some(end.min(runaway)),
        (end, runaway) => end.or(runaway),
    }
}

/// The end of the first line with something on it. On a line that has text already, a line break says
/// that the line is complete.
fn line_end(text: &str, site: &Site) -> Option<usize> {
    let skipped = if site.on_blank() { text.len() - text.trim_start().len() } else { 0 };
    text[skipped..].find('\n').map(|at| skipped + at)
}

/// One line of an answer.
struct Line<'a> {
    start: usize,
    text: &'a str,
    /// Its line break is there.
    complete: bool,
    /// It goes on after text on the cursor's line.
    continues: bool,
    /// Columns of indentation, the cursor's line counted in.
    column: usize,
}

fn lines<'a>(text: &'a str, site: &'a Site) -> impl Iterator<Item = Line<'a>> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let first = start == 0;
        let complete = line.ends_with('\n');
        let text = line.trim_end_matches('\n');
        let column = indent(text) + if first && site.on_blank() { indent(site.left()) } else { 0 };
        let line = Line { start, text, complete, continues: first && !site.on_blank(), column };
        start += line.text.len() + usize::from(complete);
        line
    })
}

fn block_end(text: &str, site: &Site, block: Block) -> Option<usize> {
    let mut floor = block.floor;
    let mut seen = 0;
    let mut gap = None;
    for line in lines(text, site) {
        if line.text.trim().is_empty() {
            if seen > 0 && line.complete {
                gap.get_or_insert(line.start);
            }
            continue;
        }
        if repeats_next_line(&line, site) {
            return Some(line.start);
        }
        let inside = open_at_end(&text[..line.start], &site.lexis) > 0;
        let floor = *floor.get_or_insert(line.column);
        if let Some(gap) = gap.take().filter(|_| !block.whole && !inside && line.column <= floor) {
            return Some(gap);
        }
        if !line.continues && !inside && line.column < floor {
            return scope_end(text, &line, site);
        }
        let next =
            seen > 0 && !inside && line.column == floor && !line.text.trim_start().starts_with(is_closer);
        if next && one_statement(site, block, floor) {
            return Some(line.start);
        }
        if let Some(at) = surplus_closer(text, &line, site) {
            return Some(at);
        }
        seen += 1;
        if seen == MAX_LINES && line.complete {
            return Some(line.start + line.text.len());
        }
    }
    None
}

/// Whether one statement is enough: among the statements of a body, a model that does not see the ones
/// below writes on and on.
fn one_statement(site: &Site, block: Block, floor: usize) -> bool {
    site.blind && !block.whole && site.below().is_some_and(|below| indent(below) >= floor)
}

/// The line leaves the scope: the answer ends before it, or behind the brackets with which it closes the
/// scope where nothing else closes it. `None` while these brackets may not be complete.
fn scope_end(text: &str, line: &Line<'_>, site: &Site) -> Option<usize> {
    let closing = line.text.trim_start();
    let margin = line.text.len() - closing.len();
    let run = closing.find(|c| !(is_closer(c) || matches!(c, ';' | ','))).unwrap_or(closing.len());
    let closers: Vec<char> =
        excess(&text[..line.start + margin + run], &site.lexis).iter().map(|b| b.kind).collect();
    if !closing.starts_with(is_closer) || !site.balance.may_close(&closers) {
        return Some(line.start);
    }
    (run < closing.len() || line.complete).then_some(line.start + margin + run)
}

/// The first bracket of a line that closes what the text behind the cursor closes already.
fn surplus_closer(text: &str, line: &Line<'_>, site: &Site) -> Option<usize> {
    let at = surplus(&text[..line.start + line.text.len()], &site.balance, &site.lexis)?;
    let alone = at >= line.start && text[line.start..at].trim().is_empty() && !line.continues;
    Some(if alone { line.start } else { at })
}

/// Whether a line of the answer is the next line of the document, at the same depth.
fn repeats_next_line(line: &Line<'_>, site: &Site) -> bool {
    if !line.complete || line.continues || line.text.trim().len() < SIGNIFICANT {
        return false;
    }
    let next = site.after.lines().find(|next| !next.trim().is_empty());
    let next_is_whole = site.right().trim().is_empty();
    next_is_whole && next.is_some_and(|next| next.trim() == line.text.trim() && indent(next) == line.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::shape::decide;
    use crate::completion::site::Lexis;
    use crate::settings::MultiLine;

    fn site(document: &str) -> Site {
        let lexis = Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false };
        let (before, after) = document.split_once('‸').expect("a cursor");
        let shape = decide(before, after, &lexis, false, MultiLine::Auto);
        Site::new(before.into(), after.into(), lexis, shape, false)
    }

    /// Feeds the answer character by character, as an engine does, and returns what it had when told
    /// to stop, and the part of it that counts.
    fn streamed(document: &str, answer: &str) -> (String, String) {
        let site = site(document);
        let mut enough = rule(site.clone(), Seam::default());
        let mut text = String::new();
        for c in answer.chars() {
            text.push(c);
            if enough(&text) {
                break;
            }
        }
        let kept = end(&text, &site).map_or(text.clone(), |at| text[..at].to_string());
        (text, kept.trim_end().to_string())
    }

    #[test]
    fn answers_end_where_their_scope_does() {
        for (document, answer, kept) in [
            // A line.
            ("let x = ‸", "1;\nlet y = 2;", "1;"),
            ("    ‸ + 1", "a\nb", "a"),
            // A body whose closing brace is missing, and one whose brace is there.
            ("fn f() {‸", "\n    a();\n}\n\nfn g() {}", "\n    a();\n}"),
            ("fn f() {‸\n}\n", "\n    a();\n}\n\nfn g() {}", "\n    a();"),
            ("fn f() {‸}", "\n    a();\n}\n\nfn g() {}", "\n    a();"),
            ("fn f() {\n    if x {‸\n}\n", "\n        a();\n    }\n    b();\n", "\n        a();\n    }"),
            // Inner blocks close themselves.
            (
                "fn f() {\n    ‸\n}\n",
                "if x {\n        y();\n    }\n    z();\n}\nmore",
                "if x {\n        y();\n    }\n    z();",
            ),
            // A dedent ends a Python body.
            ("def f(x):‸\n", "\n    a = 1\n\n    return a\n\ndef g():\n", "\n    a = 1\n\n    return a"),
            // A paragraph ends at the next thing of its level.
            ("fn f() {\n    a();\n    ‸\n    z();\n}", "b();\n\n    c();\n", "b();"),
            (
                "fn f() {}\n\n‸\n",
                "fn g() {\n    a();\n\n    b();\n}\n\nfn h() {}",
                "fn g() {\n    a();\n\n    b();\n}",
            ),
            // The next line of the document ends it.
            (
                "fn f() {\n    ‸\n    done();\n}",
                "a();\n    b();\n    done();\n    more();\n",
                "a();\n    b();",
            ),
            // The same words at another depth do not.
            (
                "if x {\n    ‸\n}\nreturn y;",
                "if z {\n        return y;\n    }\n    q();",
                "if z {\n        return y;\n    }\n    q();",
            ),
            // Arguments over several lines may be indented as they like.
            ("fn f() {\n    ‸\n}", "g(\n  1,\n2,\n    );\n    h();\n}", "g(\n  1,\n2,\n    );\n    h();"),
        ] {
            let (text, got) = streamed(document, answer);
            assert_eq!(got, kept, "{document}");
            assert!(text.len() <= answer.len());
        }
    }

    #[test]
    fn stops_as_soon_as_it_knows() {
        for (document, answer, stopped) in [
            ("let x = ‸", "1;\nlet y = 2;", "1;\n"),
            ("def f(x):‸\n", "\n    return a\n\ndef g():\n", "\n    return a\n\nd"),
            ("fn f() {‸", "\n    a();\n}\n\nfn g() {}", "\n    a();\n}\n"),
        ] {
            assert_eq!(streamed(document, answer).0, stopped);
        }
    }

    #[test]
    fn a_model_that_does_not_see_the_next_statement_writes_one() {
        for (document, kept) in [
            ("fn f() {\n    ‸\n    z();\n}", "if a {\n        b();\n    }"),
            ("fn f() {\n    ‸\n}", "if a {\n        b();\n    }\n    c();"),
        ] {
            let site = Site { blind: true, ..site(document) };
            let answer = "if a {\n        b();\n    }\n    c();\n";
            let end = end(answer, &site).unwrap_or(answer.len());
            assert_eq!(answer[..end].trim_end(), kept, "{document}");
        }
    }

    #[test]
    fn no_answer_is_longer_than_the_limit() {
        let answer: String = (0..100).map(|n| format!("    a{n}();\n")).collect();
        let (_, kept) = streamed("fn f() {\n‸", &answer);
        assert_eq!(kept.lines().count(), MAX_LINES);
    }
}
