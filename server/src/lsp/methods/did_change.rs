//! `textDocument/didChange`
//!
//! The parameters are read here and not by the protocol's types: those take a change whose range is
//! malformed for one that replaces the whole document.

use serde::Deserialize;
use serde_json::Value;
use tower_lsp::gen_lsp_types as lsp;

use crate::lsp::{Server, convert};
use crate::text::Change;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lsp) struct Params {
    text_document: lsp::VersionedTextDocumentIdentifier,
    content_changes: Vec<RawChange>,
}

#[derive(Deserialize)]
struct RawChange {
    #[serde(default)]
    range: Option<Value>,
    text: String,
}

pub(in crate::lsp) async fn handle(server: &Server, params: Params) {
    let session = &server.0;
    let document = params.text_document;
    let uri = &document.text_document_identifier.uri.0;
    let changes: Result<Vec<Change>, _> = params.content_changes.into_iter().map(change).collect();
    let changes = match changes {
        Ok(changes) => changes,
        Err(error) => return tracing::error!("a change of {uri} is ignored: {error}"),
    };
    if !session.documents.change(uri, document.version, &changes, session.agreed().encoding) {
        return tracing::warn!("a change of {uri}, which is not open, is ignored");
    }
    session.edited(uri);
}

fn change(raw: RawChange) -> Result<Change, serde_json::Error> {
    let range: Option<lsp::Range> = raw.range.map(serde_json::from_value).transpose()?;
    Ok(Change { range: range.map(convert::range), text: raw.text })
}
