//! `workspace/didChangeWatchedFiles`, and what of the files on disk the client is asked to watch.

use serde_json::{Value, json};
use tower_lsp::gen_lsp_types::DidChangeWatchedFilesParams;

use crate::documents::path_of;
use crate::language::Language;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidChangeWatchedFilesParams) {
    server.0.index.changed(params.changes.iter().filter_map(|change| path_of(&change.uri.0)));
}

/// The files that the index is made of, as a client registers for them, and those that say what is left out.
pub(in crate::lsp) fn registration() -> Value {
    let defining = Language::all().map(Language::spec).filter(|spec| !spec.definitions.is_empty());
    let endings: Vec<&str> = defining.flat_map(|spec| spec.extensions.iter().copied()).collect();
    let globs = [format!("**/*.{{{}}}", endings.join(",")), "**/{.gitignore,.ignore}".to_owned()];
    json!({"watchers": globs.map(|glob| json!({"globPattern": glob}))})
}
