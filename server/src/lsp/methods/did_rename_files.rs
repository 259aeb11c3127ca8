//! `workspace/didRenameFiles`

use tower_lsp::gen_lsp_types::RenameFilesParams;

use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: RenameFilesParams) {
    for file in params.files {
        server.0.documents.rename(&file.old_uri.0, &file.new_uri.0);
    }
    server.0.edits.send_modify(|edits| *edits += 1);
}
