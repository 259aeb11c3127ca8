//! `workspace/didChangeWorkspaceFolders`

use std::path::PathBuf;

use tower_lsp::gen_lsp_types::{DidChangeWorkspaceFoldersParams, WorkspaceFolder};

use crate::documents::path_of;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidChangeWorkspaceFoldersParams) {
    server.0.change_roots(&paths(params.event.removed), paths(params.event.added));
}

/// The folders that are on disk.
pub(in crate::lsp) fn paths(folders: Vec<WorkspaceFolder>) -> Vec<PathBuf> {
    folders.into_iter().filter_map(|folder| path_of(&folder.uri.0)).collect()
}
