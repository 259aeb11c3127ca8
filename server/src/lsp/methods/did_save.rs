//! `textDocument/didSave`

use tower_lsp::gen_lsp_types::DidSaveTextDocumentParams;

use crate::documents::path_of;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidSaveTextDocumentParams) {
    server.0.documents.save(&params.text_document.uri.0, params.text.as_deref());
    server.0.index.changed(path_of(&params.text_document.uri.0));
    server.0.edits.send_modify(|edits| *edits += 1);
}
