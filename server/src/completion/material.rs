//! What goes into a prompt, within its budgets: windows around the cursor, the head of the document above
//! them, pieces of other documents.

use std::ops::Range;
use std::path::Path;

use gemma_engine::{Error, Model};

use crate::completion::Request;
use crate::context::{Context, gather};
use crate::documents::Snapshot;
use crate::language::Language;
use crate::prompt::{Material, Piece, Tokens, fit_pieces, shown_path, window};
use crate::settings::CompletionSettings;

/// The text around the cursor, line ends as `\n`, and where it is.
pub struct Around<'a> {
    /// Text before the cursor, blanks that the prompt does without left out.
    pub before: &'a str,
    /// Text behind the cursor.
    pub after: &'a str,
    /// The document's characters before `before` ends, before anything that is not in the document.
    pub start: usize,
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

/// Gathers it.
pub fn material(
    model: &Model,
    settings: &CompletionSettings,
    request: &Request,
    around: &Around<'_>,
) -> Result<Material, Error> {
    let tokens = model.tokenizer();
    let budget = Budget::of(settings, model.config().context);
    let Around { before, after, start: cursor } = *around;
    let document = &request.document;
    let end = window::end(after, budget.suffix, tokens)?;
    let mut start = window::start(before, budget.prefix, tokens)?;
    let whole = start == 0;
    if !whole {
        // What stands above is told in short, with a quarter of the budget.
        start = window::start(before, budget.prefix - budget.prefix / 4, tokens)?;
    }
    let shown = characters(document, cursor, &before[start..], &after[..end]);
    let context = gather(document, cursor, &request.others, shown.clone());
    let head = if whole { String::new() } else { head(&context, shown.start, budget.prefix / 4, tokens)? };
    let root = request.root.as_deref();
    Ok(Material {
        pieces: fit_pieces(pieces(&context, root), budget.others, tokens)?,
        path: shown_path(&document.location(), root),
        language: document.language,
        head,
        before: before[start..].to_string(),
        after: after[..end].to_string(),
    })
}

/// The characters of a document that two windows beside the cursor show, in whole lines.
fn characters(document: &Snapshot, cursor: usize, before: &str, after: &str) -> Range<usize> {
    let text = &document.text;
    let line = text.char_to_line(cursor.min(text.len_chars()));
    let breaks = |window: &str| window.matches('\n').count();
    let first = line.saturating_sub(breaks(before));
    let last = (line + breaks(after)).min(text.len_lines());
    text.line_to_char(first)..text.line_to_char(last).max(cursor)
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

fn pieces(context: &Context, root: Option<&Path>) -> Vec<Piece> {
    let shown = context.pieces.iter().map(|piece| Piece {
        path: shown_path(&piece.path, root),
        language: Language::of_name(&piece.path).unwrap_or(Language::Other),
        text: piece.text.replace("\r\n", "\n"),
    });
    shown.collect()
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
            let shown = characters(&document, cursor, "bb\nc", "c\n");
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
        let context = gather(&document, above.len() + 8, &[], window.clone());
        let whole = head(&context, window.start, 1000, &words).expect("counts");
        let order = ["use std::io;", "fn far()", "fn near()", "impl X", "fn here()"];
        let places: Vec<_> = order.iter().map(|line| whole.find(line)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{whole}");
        assert!(!whole.contains("a();") && !whole.contains("c();"), "{whole}");
        let short = head(&context, window.start, 26, &words).expect("counts");
        assert!(short.contains("use std::io;") && !short.contains("fn far()"), "{short}");
    }
}
