//! Open documents: text, version, syntax tree and line endings, changed in order of arrival.
//!
//! **Invariants.** A change is applied before the call returns and never parses, so that it may be
//! made on the message loop. Nothing a client sends fails: places outside the text are clamped to it
//! (see [`crate::text`]), and what is said about a document that is not open is ignored.

mod parse;
mod uri;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use ropey::Rope;
use tree_sitter::{InputEdit, Tree};

use crate::context::Facts;
use crate::language::Language;
use crate::text::{Change, Encoding, LineEnding, offsets_of};
use parse::{Syntax, point};

pub use uri::{name_of, path_of, uri_of};

/// A document at one moment. Cheap to clone, shared with tasks that outlive the next edit.
#[derive(Clone)]
pub struct Snapshot {
    /// The client's URI, as text.
    pub uri: Arc<str>,
    /// Where it is on disk, for `file:` URIs.
    pub path: Option<PathBuf>,
    /// What it is written in.
    pub language: Language,
    /// What the client calls its language, known to us or not.
    pub language_id: Arc<str>,
    /// The client's version.
    pub version: i32,
    /// Differs between any two texts that this process has seen, even where a client repeats a
    /// version or opens a document anew: what caches are keyed by.
    pub revision: u64,
    /// The text.
    pub text: Rope,
    /// How its lines end, and so what an insertion ends them with. A document keeps its kind while
    /// it has no line break to tell by.
    pub line_ending: LineEnding,
    /// Whether the client saved exactly this text.
    pub saved: bool,
    syntax: Option<Arc<Syntax>>,
    /// What [`crate::context`] has worked out from this text.
    pub(crate) facts: Arc<OnceLock<Arc<Facts>>>,
}

impl Snapshot {
    /// A document of its own, outside any editor.
    pub fn new(uri: &str, language_id: &str, text: &str) -> Snapshot {
        Document::new(uri, language_id, 0, text).now
    }

    /// The syntax tree of exactly this text; `None` where the language has no grammar or parsing was
    /// not done in time. The first call for a text parses on the calling thread (a few milliseconds,
    /// 60 at most for a long text, which then goes on elsewhere); later ones are free. Not for the
    /// message loop.
    pub fn tree(&self) -> Option<Tree> {
        self.syntax.as_ref()?.tree(&self.text)
    }

    /// Parses on the calling thread however long that takes, for threads that nobody waits for; then
    /// [`Snapshot::tree`] is free.
    pub(crate) fn parse(&self) {
        if let Some(syntax) = &self.syntax {
            syntax.parse(&self.text);
        }
    }

    /// Where the document is, or what it is called where it is not on disk.
    pub fn location(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| name_of(&self.uri))
    }

    /// What this would be with `text` in place of some of its characters. The document itself never hears of it.
    pub fn with(&self, range: std::ops::Range<usize>, text: &str) -> Snapshot {
        let mut now = self.clone();
        now.syntax = now.syntax.as_ref().map(|syntax| Arc::new(syntax.fork()));
        let mut document = Document { line_feeds: line_feeds(now.text.slice(..)), now, used: 0 };
        document.replace(range, text);
        document.now.revise();
        document.now
    }

    /// After a change: nothing that was known of the old text holds.
    fn revise(&mut self) {
        self.revision = next_revision();
        self.facts = Arc::default();
    }
}

/// A number that no text in this process has had before.
fn next_revision() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// All open documents, by URI.
#[derive(Default)]
pub struct Documents {
    open: DashMap<Arc<str>, Document>,
    /// Counts uses, to order documents by their last.
    clock: AtomicU64,
}

struct Document {
    now: Snapshot,
    /// `\n`s in the text, which together with its lines tells whether a `\r` stands alone.
    line_feeds: usize,
    /// When it was last used, by [`Documents::clock`].
    used: u64,
}

impl Documents {
    /// None open yet.
    pub fn new() -> Documents {
        Documents::default()
    }

    /// `didOpen`. A document that is open already is replaced.
    pub fn open(&self, uri: &str, language_id: &str, version: i32, text: &str) {
        let mut document = Document::new(uri, language_id, version, text);
        document.used = self.tick();
        self.open.insert(Arc::clone(&document.now.uri), document);
    }

    /// `didChange`: applies `changes` in order, each to the text that the one before left. False when
    /// the document is not open.
    ///
    /// The version is recorded and not judged: changes come in order on one connection, and each builds
    /// on the text before it, so leaving one out for its number would be sure to spoil the text.
    pub fn change(&self, uri: &str, version: i32, changes: &[Change], encoding: Encoding) -> bool {
        let Some(mut document) = self.open.get_mut(uri) else { return false };
        for change in changes {
            document.apply(change, encoding);
        }
        document.now.version = version;
        document.now.revise();
        document.used = self.tick();
        true
    }

    /// `didSave`. Some clients send the text along; if ours differs, theirs is right.
    pub fn save(&self, uri: &str, text: Option<&str>) -> bool {
        let Some(mut document) = self.open.get_mut(uri) else { return false };
        if let Some(text) = text
            && document.now.text != text
        {
            document.replace_all(text);
            document.now.revise();
        }
        document.now.saved = true;
        true
    }

    /// `didClose`. False when it was not open.
    pub fn close(&self, uri: &str) -> bool {
        self.open.remove(uri).is_some()
    }

    /// A file or a folder was renamed: the open documents that it concerns get their new URI and, if
    /// the new name says so, another language. One that is open under its new URI already stays as it is.
    pub fn rename(&self, old: &str, new: &str) {
        let (old, new) = (old.trim_end_matches('/'), new.trim_end_matches('/'));
        let concerned = self.open.iter().filter_map(|entry| {
            let rest = entry.key().strip_prefix(old)?;
            let whole = rest.is_empty() || rest.starts_with('/');
            whole.then(|| (Arc::clone(entry.key()), format!("{new}{rest}")))
        });
        for (from, to) in concerned.collect::<Vec<_>>() {
            if from.as_ref() == to {
                continue;
            }
            if let Some((_, mut document)) = self.open.remove(&from) {
                document.rename(&to);
                self.open.entry(Arc::clone(&document.now.uri)).or_insert(document);
            }
        }
    }

    /// The document as it is now; it counts as used. `None` when it is not open.
    pub fn snapshot(&self, uri: &str) -> Option<Snapshot> {
        let mut document = self.open.get_mut(uri)?;
        document.used = self.tick();
        Some(document.now.clone())
    }

    /// All open documents except `uri`, most recently used first.
    pub fn others(&self, uri: &str) -> Vec<Snapshot> {
        let others = self.open.iter().filter(|entry| entry.key().as_ref() != uri);
        let mut others: Vec<_> = others.map(|entry| (entry.used, entry.now.clone())).collect();
        others.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        others.into_iter().map(|(_, snapshot)| snapshot).collect()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl Document {
    fn new(uri: &str, language_id: &str, version: i32, text: &str) -> Document {
        let language = Language::of(language_id, &name_of(uri));
        let text = Rope::from_str(text);
        let now = Snapshot {
            uri: uri.into(),
            path: path_of(uri),
            language,
            language_id: language_id.into(),
            version,
            revision: next_revision(),
            line_ending: LineEnding::of(&text).unwrap_or_default(),
            saved: false,
            syntax: syntax_for(language),
            facts: Arc::default(),
            text,
        };
        Document { line_feeds: line_feeds(now.text.slice(..)), now, used: 0 }
    }

    fn apply(&mut self, change: &Change, encoding: Encoding) {
        match change.range {
            Some(range) => self.replace(offsets_of(&self.now.text, range, encoding), &change.text),
            None => self.replace_all(&change.text),
        }
    }

    /// Replaces only what differs, so that the tree and the caches keep what stays the same.
    fn replace_all(&mut self, text: &str) {
        let (kept, range) = difference(&self.now.text, text);
        let (start, end) = (self.now.text.byte_to_char(range.start), self.now.text.byte_to_char(range.end));
        self.replace(start..end, &text[kept]);
    }

    /// Replaces `range`, in characters and inside the text.
    fn replace(&mut self, range: std::ops::Range<usize>, with: &str) {
        let now = &mut self.now;
        let bytes = now.text.char_to_byte(range.start)..now.text.char_to_byte(range.end);
        let lone = now.text.len_lines() != self.line_feeds + 1;
        let (start_position, old_end_position) =
            (point(&now.text, bytes.start, lone), point(&now.text, bytes.end, lone));

        self.line_feeds -= line_feeds(now.text.slice(range.clone()));
        self.line_feeds += with.bytes().filter(|byte| *byte == b'\n').count();
        now.text.remove(range.clone());
        now.text.insert(range.start, with);

        let new_end_byte = bytes.start + with.len();
        let lone = now.text.len_lines() != self.line_feeds + 1;
        let edit = InputEdit {
            start_byte: bytes.start,
            old_end_byte: bytes.end,
            new_end_byte,
            start_position,
            old_end_position,
            new_end_position: point(&now.text, new_end_byte, lone),
        };
        now.syntax = now.syntax.as_ref().map(|syntax| Arc::new(syntax.after(edit)));
        now.line_ending = LineEnding::of(&now.text).unwrap_or(now.line_ending);
        now.saved = false;
    }

    fn rename(&mut self, uri: &str) {
        let now = &mut self.now;
        now.uri = uri.into();
        now.path = path_of(uri);
        now.revise();
        let language = Language::of_name(&name_of(uri)).unwrap_or(now.language);
        if language != now.language {
            now.language = language;
            now.language_id = language.id().into();
            now.syntax = syntax_for(language);
        }
    }
}

fn syntax_for(language: Language) -> Option<Arc<Syntax>> {
    language.grammar().map(|grammar| Arc::new(Syntax::new(grammar)))
}

fn line_feeds(text: ropey::RopeSlice) -> usize {
    text.chunks().map(|chunk| chunk.bytes().filter(|byte| *byte == b'\n').count()).sum()
}

/// The bytes of `new` and of `old` between what both begin with and what both end with.
fn difference(old: &Rope, new: &str) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let shorter = old.len_bytes().min(new.len());
    let mut prefix = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
    while !new.is_char_boundary(prefix) {
        prefix -= 1;
    }
    let backwards = old.bytes_at(old.len_bytes()).reversed().zip(new.bytes().rev());
    let mut suffix = backwards.take(shorter - prefix).take_while(|(a, b)| a == b).count();
    while !new.is_char_boundary(new.len() - suffix) {
        suffix -= 1;
    }
    (prefix..new.len() - suffix, prefix..old.len_bytes() - suffix)
}

#[cfg(test)]
mod tests;
