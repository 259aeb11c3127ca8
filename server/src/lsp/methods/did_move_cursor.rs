//! `gemma/didMoveCursor`: the cursor rests in a new place, or a document came to the front.

use tower_lsp::gen_lsp_types::TextDocumentPositionParams;

use crate::lsp::{Server, ahead, convert};

pub(in crate::lsp) async fn handle(server: &Server, params: TextDocumentPositionParams) {
    ahead::moved(&server.0, &params.text_document.uri.0, convert::position(params.position));
}
