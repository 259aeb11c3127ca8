//! Pieces of other open documents, ranked by how likely they help at the cursor.
//!
//! A piece is worth more the more names it shares with the lines around the cursor, rare names counting
//! more than common ones; if it defines a name that is used there; and if the document imports or
//! mentions its file.
//!
//! **Stability.** The prompt cache lives on pieces that stay where they were while somebody types:
//! - the lines around the cursor are taken in blocks: they change once every [`STEP`] lines;
//! - the word being typed is left out, so that it does not call up a new piece with every letter;
//! - scores are rounded to eighths, and equal ones are ordered by path and place, never by chance.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{Chunk, Facts, contents, identity, names};
use super::lines;
use crate::documents::Snapshot;

/// Lines of another document.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The document's URI; with `lines` this names the piece.
    pub uri: Arc<str>,
    /// Where the document is, or what it is called.
    pub path: PathBuf,
    /// The whole lines, without the last line break.
    pub text: String,
    /// How useful it seems, in steps of an eighth: more is better.
    pub score: f32,
    /// Where it stands in its document, in characters.
    pub chars: Range<usize>,
    /// Where it stands in its document, in lines from 0.
    pub lines: Range<usize>,
}

/// The cursor's surroundings move in steps of this many lines.
const STEP: usize = 16;
/// Lines of the surroundings before the step that the cursor is in, and behind it.
const REACH: usize = 24;
/// The most pieces worth handing on, and the most of one document.
const MOST: usize = 16;
const MOST_OF_ONE: usize = 6;
/// The most documents looked at: those used last.
const DOCUMENTS: usize = 24;
/// Scores are rounded down to multiples of one over this.
const STEPS: f32 = 8.0;
/// What it adds to a piece that it was edited lately, in steps: as much as being of a file that is mentioned.
const EDITED: u32 = 4;

pub(super) fn pieces(
    document: &Snapshot,
    facts: &Facts,
    cursor: usize,
    others: &[Snapshot],
    window: &Range<usize>,
) -> Vec<Piece> {
    let others: Vec<Other> = others
        .iter()
        .filter(|other| other.uri != document.uri)
        .take(DOCUMENTS)
        .map(|other| Other { document: other, facts: Facts::of(other) })
        .collect();
    let query = Query::new(document, facts, cursor, &others);
    let mut ranked: Vec<Ranked> = others.iter().flat_map(|other| query.rank(other)).collect();
    ranked.sort_by(|a, b| {
        let place = |one: &Ranked| (Arc::clone(&one.other.document.uri), one.chunk.lines.start);
        b.score.cmp(&a.score).then_with(|| place(a).cmp(&place(b)))
    });
    choose(document, window, ranked)
}

/// Takes the best pieces, leaving out what is visible already or says the same as a better one.
fn choose(document: &Snapshot, window: &Range<usize>, ranked: Vec<Ranked>) -> Vec<Piece> {
    let text = &document.text;
    let visible = text.char_to_line(window.start)..text.char_to_line(window.end) + 1;
    let mut shown = vec![contents(text, visible)];
    let mut of_one: HashMap<Arc<str>, usize> = HashMap::new();
    let mut pieces = Vec::new();
    for Ranked { score, other, chunk } in ranked {
        let count = of_one.entry(Arc::clone(&other.document.uri)).or_default();
        if *count >= MOST_OF_ONE || shown.iter().any(|shown| says(shown, &chunk.contents)) {
            continue;
        }
        *count += 1;
        shown.push(chunk.contents.clone());
        let source = &other.document.text;
        let chars = lines::span(source, chunk.lines.start, chunk.lines.end - 1);
        pieces.push(Piece {
            uri: Arc::clone(&other.document.uri),
            path: other.document.location(),
            text: source.slice(chars.clone()).to_string(),
            score: score as f32 / STEPS,
            chars,
            lines: chunk.lines.clone(),
        });
        if pieces.len() == MOST {
            break;
        }
    }
    pieces
}

/// Whether nearly all of `lines` are among those `shown`.
fn says(shown: &[u64], lines: &[u64]) -> bool {
    let known = lines.iter().filter(|line| shown.binary_search(line).is_ok()).count();
    known * 5 >= lines.len() * 4
}

struct Other<'a> {
    document: &'a Snapshot,
    facts: Arc<Facts>,
}

impl Other<'_> {
    fn chunks(&self) -> &[Chunk] {
        self.facts.chunks(self.document)
    }

    fn stem(&self) -> Option<String> {
        stem(&self.document.location())
    }
}

/// What an import calls a file: its name, or its folder's where files of that name stand for their folder.
pub(super) fn stem(path: &Path) -> Option<String> {
    const FOLDER: [&str; 5] = ["mod", "index", "__init__", "lib", "init"];
    let stem = path.file_stem()?.to_str()?;
    let stem = if FOLDER.contains(&stem) { path.parent()?.file_name()?.to_str()? } else { stem };
    (stem.len() > 1).then(|| stem.to_owned())
}

struct Ranked<'a> {
    /// In steps of one over [`STEPS`].
    score: u32,
    other: &'a Other<'a>,
    chunk: &'a Chunk,
}

/// What is looked for.
struct Query {
    /// The names around the cursor that other documents have too, with what each is worth; the names
    /// that the document does not define itself are marked.
    names: Vec<(u64, f32, bool)>,
    /// What all of them are worth.
    worth: f32,
    /// All names around the cursor, to tell which files are mentioned.
    around: Vec<u64>,
    /// The document's imports as text.
    imports: String,
}

impl Query {
    fn new(document: &Snapshot, facts: &Facts, cursor: usize, others: &[Other]) -> Query {
        let around = names_around(document, cursor);
        let mut documents: HashMap<u64, usize> = around.iter().map(|name| (*name, 0)).collect();
        let mut chunks = 0;
        for chunk in others.iter().flat_map(Other::chunks) {
            chunks += 1;
            for name in &around {
                if chunk.names.binary_search(name).is_ok() {
                    *documents.entry(*name).or_default() += 1;
                }
            }
        }
        let own = facts.names(&document.text);
        let found = around.iter().filter_map(|name| {
            let count = documents.get(name).copied().filter(|count| *count > 0)?;
            let rarity = (1.0 + chunks as f32 / count as f32).ln();
            Some((*name, rarity, own.binary_search(name).is_err()))
        });
        let names: Vec<_> = found.collect();
        let worth = names.iter().map(|(_, worth, _)| worth).sum();
        let slice = |chars: &Range<usize>| document.text.slice(chars.clone()).to_string();
        let imports = facts.imports().iter().map(slice).collect::<Vec<_>>().join("\n");
        Query { names, worth, around, imports }
    }

    fn rank<'a>(&self, other: &'a Other) -> Vec<Ranked<'a>> {
        let stem = other.stem();
        let related = stem.is_some_and(|stem| {
            lines::has_word(&self.imports, &stem) || self.around.binary_search(&identity(&stem)).is_ok()
        });
        let edited: Vec<_> = other.document.edits.lines(&other.document.text).collect();
        let is_edited =
            |lines: &Range<usize>| edited.iter().any(|e| e.start < lines.end && lines.start < e.end);
        let score = |chunk: &'a Chunk| {
            let score = self.score(chunk, related);
            let score = if score > 0 && is_edited(&chunk.lines) { score + EDITED } else { score };
            (score > 0).then_some(Ranked { score, other, chunk })
        };
        other.chunks().iter().filter_map(score).collect()
    }

    /// From what a chunk shares with the query (0 to 2), what it defines for it (0 to 3), and whether
    /// its document is imported or mentioned (a half).
    fn score(&self, chunk: &Chunk, related: bool) -> u32 {
        /// A chunk of more names shares some of them by chance.
        const USUAL: f32 = 48.0;
        let (mut shared, mut defined) = (0.0, 0.0_f32);
        for (name, worth, foreign) in &self.names {
            if chunk.names.binary_search(name).is_ok() {
                shared += worth;
                if *foreign && chunk.defines.binary_search(name).is_ok() {
                    defined += 1.0;
                }
            }
        }
        if shared == 0.0 {
            return 0;
        }
        let size = (chunk.names.len() as f32 / USUAL).max(1.0).sqrt();
        let score = 2.0 * shared / self.worth / size + defined.min(3.0) + if related { 0.5 } else { 0.0 };
        (score * STEPS) as u32
    }
}

/// The names in the lines around the cursor, without the word that the cursor touches; sorted.
pub(super) fn names_around(document: &Snapshot, cursor: usize) -> Vec<u64> {
    let text = &document.text;
    let cursor = cursor.min(text.len_chars());
    let step = text.char_to_line(cursor) / STEP * STEP;
    let last = (step + STEP + REACH).min(text.len_lines()) - 1;
    let chars = lines::span(text, step.saturating_sub(REACH), last);
    let byte = text.char_to_byte(cursor) - text.char_to_byte(chars.start);
    let around = String::from(text.slice(chars));
    let names = names(document.language, &around);
    let whole = names.filter(|(place, _)| byte < place.start || place.end < byte);
    let mut names: Vec<u64> = whole.map(|(_, name)| name).collect();
    names.sort_unstable();
    names.dedup();
    names
}
