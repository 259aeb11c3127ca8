//! `textDocument/didSave`

use tower_lsp::gen_lsp_types::DidSaveTextDocumentParams;

use crate::documents::path_of;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidSaveTextDocumentParams) {
    let uri = &params.text_document.uri.0;
    server.0.documents.save(uri, params.text.as_deref());
    server.0.index.changed(path_of(uri));
    if params.text.is_some() {
        server.0.edited(uri);
    }
}
