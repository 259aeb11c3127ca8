//! `workspace/didRenameFiles`

use tower_lsp::gen_lsp_types::RenameFilesParams;

use crate::documents::path_of;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: RenameFilesParams) {
    for file in params.files {
        server.0.documents.rename(&file.old_uri.0, &file.new_uri.0);
        server.0.index.changed([path_of(&file.old_uri.0), path_of(&file.new_uri.0)].into_iter().flatten());
    }
    server.0.edits.send_modify(|edits| *edits += 1);
}
