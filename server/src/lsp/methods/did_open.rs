//! `textDocument/didOpen`

use tower_lsp::gen_lsp_types::DidOpenTextDocumentParams;

use crate::lsp::{Server, ahead};
use crate::text::Position;

pub(in crate::lsp) async fn handle(server: &Server, params: DidOpenTextDocumentParams) {
    let opened = params.text_document;
    server.0.documents.open(&opened.uri.0, opened.language_id.as_str(), opened.version, &opened.text);
    server.0.edited(&opened.uri.0);
    // Until the client says more, the cursor is where it is in a document that nobody has seen yet.
    ahead::moved(&server.0, &opened.uri.0, Position { line: 0, character: 0 });
}
