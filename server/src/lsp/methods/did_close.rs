//! `textDocument/didClose`

use tower_lsp::gen_lsp_types::DidCloseTextDocumentParams;

use crate::documents::path_of;
use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: DidCloseTextDocumentParams) {
    let (session, uri) = (&server.0, &params.text_document.uri.0);
    session.documents.close(uri);
    session.index.changed(path_of(uri));
    session.inline.close(uri);
    session.menu.close(uri);
    session.ahead.close(uri);
    session.recent.forget(uri);
}
