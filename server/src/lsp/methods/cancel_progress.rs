//! `window/workDoneProgress/cancel`: the user does not want the rest of an answer.

use tower_lsp::gen_lsp_types::WorkDoneProgressCancelParams;

use crate::lsp::Server;

pub(in crate::lsp) async fn handle(server: &Server, params: WorkDoneProgressCancelParams) {
    server.0.stoppable.stop(&params.token);
}
