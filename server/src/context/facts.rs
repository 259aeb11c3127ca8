//! What is worked out from a document alone, once for each of its texts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ropey::Rope;

use super::grammar::Grammar;
use super::lines;
use super::survey::{Defined, Survey, survey};
use crate::documents::Snapshot;
use crate::language::{Kind, Language};

/// A piece has at most this many lines.
pub(super) const LONGEST: usize = 40;
/// Neighbours are put together until they have this many lines.
const SHORTEST: usize = 6;
/// Longer documents are data or generated: no pieces of them are shown.
const LARGEST: usize = 1 << 20;

/// What is known of one text. Kept with the snapshot (see [`Facts::of`]), so that it is worked out once
/// for every revision and goes when that goes.
#[derive(Debug, Default)]
pub struct Facts {
    survey: Survey,
    names: OnceLock<Vec<u64>>,
    chunks: OnceLock<Vec<Chunk>>,
}

/// Some lines of a document that belong together.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Lines from 0, without blank ones at either end.
    pub lines: Range<usize>,
    /// What they define, as [`identity`] of the names; sorted.
    pub defines: Vec<u64>,
    /// The names in them; sorted.
    pub names: Vec<u64>,
    /// Their lines without the white space around them and without blank ones; sorted.
    pub contents: Vec<u64>,
}

impl Facts {
    /// The facts of a document, worked out when first asked for.
    pub fn of(document: &Snapshot) -> Arc<Facts> {
        let work = || Arc::new(Facts { survey: survey(document), ..Facts::default() });
        // Without the tree that there could be, facts are makeshift and not kept.
        if document.language.grammar().is_some() && document.tree().is_none() {
            return work();
        }
        Arc::clone(document.facts.get_or_init(work))
    }

    pub(super) fn imports(&self) -> &[Range<usize>] {
        &self.survey.imports
    }

    pub(super) fn definitions(&self) -> &[Defined] {
        &self.survey.definitions
    }

    /// The [`identity`] of each name that the document defines; sorted. `text` is its text.
    pub(super) fn names(&self, text: &Rope) -> &[u64] {
        self.names.get_or_init(|| sorted(sought(&self.survey, text).map(|(_, name)| name)))
    }

    /// All of the document's text, in chunks. `document` is the one that these facts are of.
    pub(super) fn chunks(&self, document: &Snapshot) -> &[Chunk] {
        self.chunks.get_or_init(|| match document.text.len_bytes() {
            0..=LARGEST => chunks(document.language, &document.text, &self.survey),
            _ => Vec::new(),
        })
    }
}

/// A number for a text, the same in every run. Two texts with one number are taken for the same, which
/// costs no more than a piece that is less useful than it seemed.
pub(super) fn identity(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The names in a text with where each begins and ends, in bytes. Left out are a language's own words,
/// numbers, and names too short to mean the same in two places.
pub(super) fn names(language: Language, text: &str) -> impl Iterator<Item = (Range<usize>, u64)> {
    const SHORTEST: usize = 3;
    let grammar = Grammar::of(language);
    let mut start = 0;
    let words = text.split(|c| !lines::is_word(c)).map(move |word| {
        let place = text[start..].find(word).map_or(start, |at| start + at);
        start = place + word.len();
        (place..start, word)
    });
    words
        .filter(|(_, word)| word.len() >= SHORTEST && !word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|(place, word)| (place, identity(word)))
        .filter(move |(_, name)| !grammar.is_some_and(|grammar| grammar.is_keyword(*name)))
}

/// The [`identity`] of each line of a text that says something.
pub(super) fn contents(text: &Rope, range: Range<usize>) -> Vec<u64> {
    let lines = range.map(|line| lines::content(text, line));
    sorted(lines.filter(|line| line.chars().any(char::is_alphanumeric)).map(|line| identity(line.trim())))
}

fn sorted(items: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut items: Vec<u64> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn chunks(language: Language, text: &Rope, survey: &Survey) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> =
        sections(text, survey).filter_map(|section| chunk(language, text, section)).collect();
    for (defined, name) in sought(survey, text) {
        let line = text.byte_to_line(defined.start);
        let at = chunks.partition_point(|chunk| chunk.lines.end <= line);
        if let Some(chunk) = chunks.get_mut(at)
            && chunk.lines.contains(&line)
        {
            chunk.defines.push(name);
        }
    }
    for chunk in &mut chunks {
        chunk.defines.sort_unstable();
    }
    chunks
}

/// The definitions worth finding by their name, with its [`identity`].
fn sought<'a>(survey: &'a Survey, text: &'a Rope) -> impl Iterator<Item = (&'a Defined, u64)> {
    let groups = survey.definitions.iter().filter(|one| one.kind != Kind::Module);
    groups
        .map(|one| (one, one.name(text)))
        .filter(|(_, name)| !name.is_empty())
        .map(|(one, name)| (one, identity(&name)))
}

fn chunk(language: Language, text: &Rope, lines: Range<usize>) -> Option<Chunk> {
    let said = |line: &usize| !lines::is_blank(text, *line);
    let first = lines.clone().find(said)?;
    let last = lines.rev().find(said)?;
    let whole = String::from(text.slice(lines::span(text, first, last)));
    Some(Chunk {
        lines: first..last + 1,
        defines: Vec::new(),
        names: sorted(names(language, &whole).map(|(_, name)| name)),
        contents: contents(text, first..last + 1),
    })
}

/// The document's lines cut where definitions begin, small neighbours put together, long ones divided.
fn sections(text: &Rope, survey: &Survey) -> impl Iterator<Item = Range<usize>> {
    let end = text.len_lines();
    let starts = survey.definitions.iter().map(|one| attached(text, text.byte_to_line(one.start)));
    let mut cuts: Vec<usize> = starts.chain(paragraphs(text, survey)).chain([end]).collect();
    cuts.sort_unstable();
    cuts.dedup();

    let mut sections: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    for cut in cuts {
        if cut - from >= SHORTEST || cut == end {
            sections.push(from..cut);
            from = cut;
        }
    }
    sections.into_iter().flat_map(|section| {
        let (start, end) = (section.start, section.end);
        (start..end).step_by(LONGEST).map(move |from| from..(from + LONGEST).min(end))
    })
}

/// Where comments and attributes right above a definition begin.
pub(super) fn attached(text: &Rope, line: usize) -> usize {
    const STARTS: [&str; 9] = ["//", "#", "--", "/*", "*", "@", "[", "\"\"\"", "template"];
    let belongs = |line: &usize| {
        let content = lines::content(text, *line);
        STARTS.iter().any(|start| content.trim_start().starts_with(start))
    };
    (0..line).rev().take_while(belongs).last().unwrap_or(line)
}

/// In a text without definitions: where a line as far out as any follows a blank one.
fn paragraphs(text: &Rope, survey: &Survey) -> Vec<usize> {
    if !survey.definitions.is_empty() {
        return Vec::new();
    }
    let begins = |line: &usize| {
        *line > 0
            && lines::is_blank(text, line - 1)
            && !lines::is_blank(text, *line)
            && lines::indent(text, *line) == 0
    };
    (0..text.len_lines()).filter(begins).collect()
}
