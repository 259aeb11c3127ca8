//! `textDocument/didOpen`

use tower_lsp::gen_lsp_types::DidOpenTextDocumentParams;

use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidOpenTextDocumentParams) {
    let opened = params.text_document;
    server.0.documents.open(&opened.uri.0, opened.language_id.as_str(), opened.version, &opened.text);
    server.0.edits.send_modify(|edits| *edits += 1);
}
