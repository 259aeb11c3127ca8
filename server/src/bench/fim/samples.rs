//! Places in the files of a repository, picked by a seed: what stands there is what a model has to find.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;
use serde::Serialize;

use crate::bench::random::Random;
use crate::bench::trace::slashed;
use crate::documents::{Snapshot, uri_of};
use crate::language::Language;
use crate::secrets::SecretFiles;

/// Smaller files have no context, larger ones were written by no one. In bytes.
const SIZES: Range<u64> = 400..400_000;
/// Attempts to find a place of a kind in a file.
const ATTEMPTS: usize = 60;
/// Fewest characters, blanks not counted, that are worth asking for.
const WORTH: usize = 4;
/// Longest part of a line, in characters.
const LONGEST: usize = 80;
/// Most lines of a block.
const LINES: usize = 5;

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The rest of a line.
    LineEnd,
    /// A part inside a line.
    Inner,
    /// Whole lines.
    Block,
}

/// All kinds, in the order in which they are reported.
pub const KINDS: [Kind; 3] = [Kind::LineEnd, Kind::Inner, Kind::Block];

impl Source {
    /// The file as an editor has it open.
    pub fn snapshot(&self) -> Snapshot {
        self.with_text(&self.text)
    }

    fn with_text(&self, text: &str) -> Snapshot {
        Snapshot::new(&uri_of(&self.path), self.language.id(), text)
    }
}

impl Kind {
    /// As it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::LineEnd => "line-end",
            Self::Inner => "inner",
            Self::Block => "block",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::LineEnd => "rest of a line",
            Self::Inner => "inside a line",
            Self::Block => "block of lines",
        }
    }
}

/// A file that places are picked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// The same relative to the repository, with `/`.
    pub shown: String,
    /// What it is written in.
    pub language: Language,
    /// What it says, line ends as `\n`.
    pub text: String,
}

/// A place.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The file.
    pub source: Arc<Source>,
    /// What is taken out.
    pub kind: Kind,
    /// Where, in bytes.
    pub range: Range<usize>,
}

/// The files of a repository that a model may be shown and that a person may have written, in an order that
/// the seed decides, at most so many.
pub fn sources(root: &Path, secrets: &SecretFiles, most: usize, seed: u64) -> Vec<Arc<Source>> {
    let walk = WalkBuilder::new(root).require_git(false).sort_by_file_path(Path::cmp).build();
    let mut paths: Vec<(PathBuf, Language)> = walk
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter(|entry| entry.metadata().is_ok_and(|data| SIZES.contains(&data.len())))
        .map(ignore::DirEntry::into_path)
        .filter(|path| !secrets.is_secret(path))
        .filter_map(|path| Some((code(&path)?, path)))
        .map(|(language, path)| (path, language))
        .collect();
    Random::new(seed).shuffle(&mut paths);
    let read = paths.into_iter().filter_map(|(path, language)| {
        let text = std::fs::read_to_string(&path).ok()?.replace("\r\n", "\n");
        let shown = slashed(path.strip_prefix(root).unwrap_or(&path));
        Some(Arc::new(Source { path, shown, language, text }))
    });
    read.take(most).collect()
}

/// The language of a file in which things are defined: not of data or markup.
fn code(path: &Path) -> Option<Language> {
    Language::of_name(path).filter(|language| !language.spec().definitions.is_empty())
}

/// Places in files, of each kind equally many as far as they are found.
pub fn samples(sources: &[Arc<Source>], kinds: &[Kind], count: usize, seed: u64) -> Vec<Sample> {
    let mut random = Random::new(seed ^ 0x5a_5a5a);
    let mut samples: Vec<Sample> = Vec::new();
    // Files without a place of some kind take none of the others' share.
    for turn in 0..count.saturating_mul(4) {
        if samples.len() == count || sources.is_empty() || kinds.is_empty() {
            break;
        }
        let source = &sources[(turn / kinds.len()) % sources.len()];
        let kind = kinds[turn % kinds.len()];
        let taken = |range: &Range<usize>| {
            let same = samples.iter().filter(|sample| Arc::ptr_eq(&sample.source, source));
            let mut same = same.map(|sample| &sample.range);
            same.any(|other| other.start < range.end && range.start < other.end)
        };
        if let Some(range) = place(source, kind, &mut random).filter(|range| !taken(range)) {
            samples.push(Sample { source: source.clone(), kind, range });
        }
    }
    samples
}

/// A place of a kind in a file, in bytes.
fn place(source: &Source, kind: Kind, random: &mut Random) -> Option<Range<usize>> {
    let lines = lines(&source.text);
    (0..ATTEMPTS).find_map(|_| {
        let number = random.below(lines.len());
        let line = lines[number].clone();
        if !is_code(&source.text[line.clone()], source.language) {
            return None;
        }
        let range = match kind {
            Kind::LineEnd => within(&source.text, line.clone(), random)?.start..line.end,
            Kind::Inner => within(&source.text, line, random)?,
            Kind::Block => block(source, &lines[number..], random)?,
        };
        let worth = source.text[range.clone()].chars().filter(|c| !c.is_whitespace()).count() >= WORTH;
        worth.then_some(range)
    })
}

/// The lines of a text without their line ends, in bytes.
fn lines(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let pieces = text.split('\n').map(|line| {
        let range = start..start + line.len();
        start = range.end + 1;
        range
    });
    pieces.collect()
}

/// Whether a line says something that is no comment.
fn is_code(line: &str, language: Language) -> bool {
    let comment = language.spec().line_comment;
    let line = line.trim_start();
    line.contains(char::is_alphanumeric) && !comment.is_some_and(|comment| line.starts_with(comment))
}

/// A part of a line behind its indentation, with something before it and something behind it.
fn within(text: &str, line: Range<usize>, random: &mut Random) -> Option<Range<usize>> {
    let content = &text[line.clone()];
    let indented = content.len() - content.trim_start().len();
    let places: Vec<usize> = content.char_indices().map(|(at, _)| at).filter(|at| *at > indented).collect();
    // A place further on than the last one would leave nothing behind it.
    let first = random.below(places.len().checked_sub(WORTH)?);
    let rest = (places.len() - first).min(LONGEST);
    let last = first + WORTH.min(rest - 1) + random.below(rest.saturating_sub(WORTH));
    let (start, end) = (places[first], *places.get(last)?);
    (start < end).then_some(line.start + start..line.start + end)
}

/// One line or several that stand together, from behind the indentation of the first.
fn block(source: &Source, lines: &[Range<usize>], random: &mut Random) -> Option<Range<usize>> {
    let indentation = |line: &Range<usize>| {
        let content = &source.text[line.clone()];
        content.len() - content.trim_start().len()
    };
    let first = indentation(&lines[0]);
    let together = lines
        .iter()
        .take_while(|line| !source.text[(*line).clone()].trim().is_empty() && indentation(line) >= first);
    let most = together.take(LINES).count();
    let count = 1 + random.below(most);
    // At the margin a block is a whole definition: nobody could know which.
    (first > 0).then(|| lines[0].start + first..lines[count - 1].end)
}

impl Sample {
    /// What was taken out.
    pub fn middle(&self) -> &str {
        &self.source.text[self.range.clone()]
    }

    /// The line of the place, counted from 1.
    pub fn line(&self) -> usize {
        1 + self.source.text[..self.range.start].matches('\n').count()
    }

    /// The document when so much was taken out and `typed` was typed in its place, and the cursor in
    /// characters.
    pub fn document(&self, typed: &str) -> (Snapshot, usize) {
        let (before, after) = (&self.source.text[..self.range.start], &self.source.text[self.range.end..]);
        let text = format!("{before}{typed}{after}");
        let cursor = before.chars().count() + typed.chars().count();
        (self.source.with_text(&text), cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "// a comment that is long enough\nfn area(radius: f64) -> f64 {\n    let square = radius * \
                        radius;\n    // another comment\n    square * PI\n}\n\nfn höhe(größe: f64) -> f64 {\n    \
                        größe.max(0.0)\n}\n";

    fn source() -> Arc<Source> {
        let shown = "src/a.rs".to_owned();
        Arc::new(Source { path: "/p/src/a.rs".into(), shown, language: Language::Rust, text: CODE.into() })
    }

    #[test]
    fn places_are_of_their_kind() {
        let source = source();
        for seed in 0..200 {
            let mut random = Random::new(seed);
            for kind in KINDS {
                let Some(range) = place(&source, kind, &mut random) else { continue };
                let (before, middle, after) =
                    (&CODE[..range.start], &CODE[range.clone()], &CODE[range.end..]);
                let line_start = before.rsplit('\n').next().unwrap_or_default();
                assert!(!before.ends_with("//") && !line_start.trim_start().starts_with("//"), "{middle}");
                assert!(middle.chars().filter(|c| !c.is_whitespace()).count() >= WORTH, "{middle:?}");
                match kind {
                    Kind::LineEnd => assert!(!middle.contains('\n') && after.starts_with('\n')),
                    Kind::Inner => assert!(!middle.contains('\n') && !after.starts_with('\n')),
                    Kind::Block => assert!(line_start.trim().is_empty() && after.starts_with('\n')),
                }
                assert_eq!(kind == Kind::Block, line_start.trim().is_empty(), "{middle:?}");
            }
        }
    }

    #[test]
    fn the_seed_decides_the_places_and_no_two_overlap() {
        let sources = [source()];
        let ranges =
            |seed| samples(&sources, &KINDS, 5, seed).into_iter().map(|s| s.range).collect::<Vec<_>>();
        assert_eq!(ranges(1), ranges(1));
        assert_ne!(ranges(1), ranges(2));
        let mut found = ranges(3);
        assert!(found.len() > 2, "{found:?}");
        found.sort_by_key(|range| range.start);
        assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "{found:?}");
        assert!(samples(&[], &KINDS, 5, 1).is_empty());
    }

    #[test]
    fn a_sample_is_a_document_with_a_hole() {
        let start = CODE.find("größe.max").expect("there");
        let sample = Sample { source: source(), kind: Kind::LineEnd, range: start + 8..start + 16 };
        assert_eq!((sample.middle(), sample.line()), ("max(0.0)", 9));
        let (document, cursor) = sample.document("mi");
        assert!(document.text.to_string().ends_with("    größe.mi\n}\n"));
        assert_eq!(document.text.slice(cursor - 3..cursor + 1).to_string(), ".mi\n");
    }

    #[test]
    fn what_is_ignored_secret_or_no_code_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("written");
        };
        let code = CODE.repeat(3);
        for name in ["src/a.rs", "src/b.py", "target/c.rs", "d.json", "secret.rs"] {
            write(name, &code);
        }
        write("src/small.rs", "fn f() {}\n");
        write(".gitignore", "target\n");
        let secrets = SecretFiles::new(&["secret.rs".to_owned()]).0;
        let mut found: Vec<String> =
            sources(folder.path(), &secrets, 10, 1).iter().map(|source| source.shown.clone()).collect();
        found.sort();
        assert_eq!(found, ["src/a.rs", "src/b.py"]);
        assert_eq!(sources(folder.path(), &secrets, 1, 1).len(), 1);
    }
}
