//! Open documents: text, version, syntax tree and line endings, changed in order of arrival.

use std::path::PathBuf;
use std::sync::Arc;

use ropey::Rope;

use crate::language::Language;

/// A document at one moment. Cheap to clone, shared with tasks that outlive the next edit.
#[derive(Clone)]
pub struct Snapshot {
    /// The client's URI, as text.
    pub uri: Arc<str>,
    /// Where it is on disk, for `file:` URIs.
    pub path: Option<PathBuf>,
    /// What it is written in.
    pub language: Language,
    /// The client's version.
    pub version: i32,
    /// The text.
    pub text: Rope,
    /// The syntax tree of exactly this text, where the language has a grammar and parsing was in time.
    pub tree: Option<tree_sitter::Tree>,
}
