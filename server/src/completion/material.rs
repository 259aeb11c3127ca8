//! What goes into a prompt, within its budgets: windows around the cursor, the head of the document above
//! them, pieces of other documents.

use std::ops::Range;
use std::sync::Arc;

use gemma_engine::Error;

use crate::completion::Request;
use crate::completion::layouts::shelf::{Found, as_shown};
use crate::context::{Context, own, pieces_of};
use crate::documents::Snapshot;
use crate::prompt::{Material, Tokens, shown_path, window};
use crate::settings::CompletionSettings;

/// The text around the cursor, line ends as `\n`, and where it is.
pub struct Around<'a> {
    /// Text before the cursor, blanks that the prompt does without left out.
    pub before: &'a str,
    /// Text behind the cursor.
    pub after: &'a str,
    /// The document's characters before `before` ends, before anything that is not in the document.
    pub start: usize,
    /// The line that `before` ends on, the lines counted in that are not in the document.
    pub line: usize,
    /// `before` begins where the document does.
    pub whole: bool,
}

/// Tokens for each part of a prompt.
struct Budget {
    prefix: usize,
    suffix: usize,
    others: usize,
}

impl Budget {
    /// What the user allows, within the model's context: the text before the cursor may have half of it,
    /// the other parts an eighth each, and the rest is for the answer.
    fn of(settings: &CompletionSettings, context: usize) -> Self {
        Self {
            prefix: settings.prefix_tokens.min(context / 2),
            suffix: settings.suffix_tokens.min(context / 8),
            others: settings.other_files_tokens.min(context / 8),
        }
    }
}

/// Gathers it for a model of so many tokens of context. What was shown at this place before is shown again, as far
/// as it can be.
pub fn material(
    context: usize,
    settings: &CompletionSettings,
    request: &Request,
    around: &Around<'_>,
    tokens: &dyn Tokens,
) -> Result<Material, Error> {
    let budget = Budget::of(settings, context);
    let Around { before, after, start: cursor, .. } = *around;
    let document = &request.document;
    let root = request.root.as_deref();
    let mut layout = request.layouts.find(document, cursor);
    let end = window::end(after, budget.suffix, tokens)?;
    let start = match layout.start.and_then(|start| around.line_at(document, start)) {
        Some(start) if fits(&before[start..], around.whole && start == 0, budget.prefix, tokens)? => start,
        _ => {
            layout.head = None;
            chosen(before, budget.prefix, tokens)?
        }
    };
    layout.start = around.line_of(document, start);
    let shown = around.characters(document, start, end);
    let head = match layout.head.take() {
        _ if around.whole && start == 0 => Arc::default(),
        Some(head) if !layout.edited_above => head,
        told => {
            let context = own(document, cursor, &shown);
            match told.filter(|head| still_says(head, &context, document, shown.start)) {
                Some(head) => head,
                None => head(&context, shown.start, budget.prefix / 4, tokens)?.into(),
            }
        }
    };
    (layout.head, layout.edited_above) = (Some(Arc::clone(&head)), false);
    let found = || {
        let documents = request.around();
        let pieces = pieces_of(document, cursor, &documents, &shown);
        let shown = |piece| (as_shown(&piece, root), piece);
        let pieces = pieces.into_iter().map(shown).collect();
        Found { documents, pieces }
    };
    layout.shelf.update(&|seen| request.now(seen), layout.arrived, budget.others, tokens, found)?;
    let pieces = layout.shelf.pieces();
    request.layouts.keep(document, cursor, layout);
    Ok(Material {
        pieces,
        path: shown_path(&document.location(), root),
        language: document.language,
        head: head.to_string(),
        before: before[start..].to_string(),
        after: after[..end].to_string(),
    })
}

/// How much of its budget a window has: what stands above one that does not begin with the document is told
/// in short, with a quarter.
fn room(whole: bool, budget: usize) -> usize {
    if whole { budget } else { budget - budget / 4 }
}

/// Where the window begins, in bytes of the text before the cursor.
fn chosen(before: &str, budget: usize, tokens: &dyn Tokens) -> Result<usize, Error> {
    match window::start(before, budget, tokens)? {
        0 => Ok(0),
        _ => window::start(before, room(false, budget), tokens),
    }
}

/// Whether a window that was chosen for another cursor will do.
fn fits(window: &str, whole: bool, budget: usize, tokens: &dyn Tokens) -> Result<bool, Error> {
    /// Of the budget a window has to have used up; the cursor went back in it.
    const LEAST: usize = 4;
    let (room, used) = (room(whole, budget), tokens.count(window)?);
    Ok(used <= room && (whole || used >= room / LEAST))
}

impl Around<'_> {
    /// Where a line of the document that begins at a byte begins in the text before the cursor.
    fn line_at(&self, document: &Snapshot, byte: usize) -> Option<usize> {
        let line = document.text.byte_to_line(byte.min(document.text.len_bytes()));
        let mut lines = self.line.checked_sub(line)?;
        let mut at = self.before.len();
        while let Some(newline) = self.before[..at].rfind('\n') {
            if lines == 0 {
                return Some(newline + 1);
            }
            (lines, at) = (lines - 1, newline);
        }
        (lines == 0 && self.whole).then_some(0)
    }

    /// The byte of the document at which the line begins that begins at a byte of the text before the cursor;
    /// `None` where that is no start of a line.
    fn line_of(&self, document: &Snapshot, start: usize) -> Option<usize> {
        let breaks = self.before[start..].matches('\n').count();
        let line = self.line.checked_sub(breaks)?;
        let begins = self.before[..start].ends_with('\n') || self.whole && start == 0;
        begins.then(|| document.text.line_to_byte(line))
    }

    /// The characters of the document that are shown, in whole lines: from `start` bytes of the text before the cursor
    /// on, and up to `end` bytes of the text behind it.
    fn characters(&self, document: &Snapshot, start: usize, end: usize) -> Range<usize> {
        let text = &document.text;
        let cursor = self.start.min(text.len_chars());
        let breaks = |window: &str| window.matches('\n').count();
        let first = self.line.saturating_sub(breaks(&self.before[start..])).min(text.char_to_line(cursor));
        let last = (text.char_to_line(cursor) + breaks(&self.after[..end])).min(text.len_lines());
        text.line_to_char(first)..text.line_to_char(last).max(cursor)
    }
}

/// Whether all that a head says still stands above the window, in order, and no import is missing.
fn still_says(head: &str, context: &Context, document: &Snapshot, window: usize) -> bool {
    let text = document.text.slice(..window.min(document.text.len_chars()));
    let mut above = text.lines().map(String::from);
    let mut lines = head.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let imported = |import: &&crate::context::Excerpt| head.contains(&import.text.replace("\r\n", "\n"));
    lines.all(|line| above.any(|above| above.starts_with(line)))
        && context.imports.iter().filter(|import| import.chars.end <= window).all(|import| imported(&import))
}

/// What stands above the window, told in short and in the document's order: imports and enclosing scopes,
/// then the signatures nearest to the window, as many as fit.
fn head(context: &Context, window: usize, budget: usize, tokens: &dyn Tokens) -> Result<String, Error> {
    let above = |outline: &&crate::context::Excerpt| outline.chars.end <= window;
    let ranked = context.imports.iter().chain(&context.scopes).chain(context.outline.iter().rev());
    let mut left = budget;
    let mut kept = Vec::new();
    for excerpt in ranked.filter(above) {
        let text = excerpt.text.replace("\r\n", "\n");
        let count = tokens.count(&text)? + 1;
        if count > left {
            break;
        }
        left -= count;
        kept.push((excerpt.chars.start, text));
    }
    kept.sort();
    kept.dedup();
    Ok(kept.into_iter().map(|(_, text)| text + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::fake::Words;

    #[test]
    fn the_window_is_known_in_characters_whatever_the_line_ends() {
        for ending in ["\n", "\r\n"] {
            let text = "é\nbb\ncc\ndd\n".replace('\n', ending);
            let document = Snapshot::new("file:///a.rs", "rust", &text);
            let cursor = text.chars().position(|c| c == 'c').expect("a c") + 1;
            let around = Around { before: "bb\nc", after: "c\nd", start: cursor, line: 2, whole: false };
            let shown = around.characters(&document, 0, 2);
            assert_eq!(document.text.slice(shown).to_string(), "bb\ncc\n".replace('\n', ending));
        }
    }

    #[test]
    fn the_head_is_a_short_form_of_what_stands_above() {
        let words = Words::default();
        let above = "use std::io;\n\nfn far() {\n    a();\n}\n\nfn near() {\n    b();\n}\n\nimpl X {\n    fn here() {\n";
        let text = format!("{above}        c();\n    }}\n}}\n");
        let document = Snapshot::new("file:///a.rs", "rust", &text);
        let window = above.len()..text.len();
        let context = own(&document, above.len() + 8, &window);
        let whole = head(&context, window.start, 1000, &words).expect("counts");
        let order = ["use std::io;", "fn far()", "fn near()", "impl X", "fn here()"];
        let places: Vec<_> = order.iter().map(|line| whole.find(line)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{whole}");
        assert!(!whole.contains("a();") && !whole.contains("c();"), "{whole}");
        let short = head(&context, window.start, 26, &words).expect("counts");
        assert!(short.contains("use std::io;") && !short.contains("fn far()"), "{short}");
    }
}
