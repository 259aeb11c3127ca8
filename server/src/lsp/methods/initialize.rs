//! `initialize`: what the client can do, and what the server offers.

use serde_json::json;
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;

use super::did_change_workspace_folders::paths;
use super::{code_action, execute_command};
use crate::documents::path_of;
use crate::lsp::Server;
use crate::lsp::session::Agreed;
use crate::text::Encoding;

pub(in crate::lsp) async fn handle(
    server: &Server,
    mut params: lsp::InitializeParams,
) -> Result<lsp::InitializeResult> {
    let session = &server.0;
    let agreed = agree(&params.capabilities);
    let capabilities = capabilities(&agreed);
    let encoding = agreed.encoding;
    session.agree(agreed);
    session.change_roots(&[], roots(&mut params));
    if let Some(options) = params.initialization_options {
        session.set_options(options);
    }
    let client = params.client_info.as_ref().map_or("an unnamed client", |client| client.name.as_str());
    tracing::info!(client, ?encoding, "initialized");
    Ok(lsp::InitializeResult {
        capabilities,
        server_info: Some(lsp::ServerInfo {
            name: env!("CARGO_PKG_NAME").into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
        }),
    })
}

fn agree(client: &lsp::ClientCapabilities) -> Agreed {
    let workspace = client.workspace.as_ref();
    let item = client.text_document.as_ref().and_then(|c| c.completion.as_ref()?.completion_item.as_ref());
    let formats = item.and_then(|item| item.documentation_format.as_deref()).unwrap_or_default();
    let actions = client.text_document.as_ref().and_then(|c| c.code_action.as_ref());
    let ours = client.experimental.as_ref().and_then(|experimental| experimental.get("gemma"));
    let says = |key| ours.and_then(|ours| ours.get(key)?.as_bool()).unwrap_or(false);
    Agreed {
        encoding: encoding(client),
        progress: client.window.as_ref().and_then(|w| w.work_done_progress).unwrap_or(false),
        configuration: workspace.and_then(|w| w.configuration).unwrap_or(false),
        register_configuration: workspace
            .and_then(|w| w.did_change_configuration.as_ref()?.dynamic_registration)
            .unwrap_or(false),
        register_watching: workspace
            .and_then(|w| w.did_change_watched_files.as_ref()?.dynamic_registration)
            .unwrap_or(false),
        markdown: formats.contains(&lsp::MarkupKind::Markdown),
        code_actions: actions.is_some_and(|actions| actions.code_action_literal_support.is_some()),
        apply_edit: workspace.and_then(|w| w.apply_edit).unwrap_or(false),
        show_document: client.window.as_ref().and_then(|w| w.show_document).is_some_and(|can| can.support),
        commands: says("commands"),
        status: says("status"),
    }
}

/// The first encoding in the client's order of preference that is one of the protocol's; UTF-16 where
/// the client has none.
fn encoding(client: &lsp::ClientCapabilities) -> Encoding {
    let offered = client.general.as_ref().and_then(|general| general.position_encodings.as_deref());
    let known = offered.unwrap_or_default().iter().find_map(|kind| match kind {
        lsp::PositionEncodingKind::UTF8 => Some(Encoding::Utf8),
        lsp::PositionEncodingKind::UTF16 => Some(Encoding::Utf16),
        lsp::PositionEncodingKind::UTF32 => Some(Encoding::Utf32),
        lsp::PositionEncodingKind::Custom(_) => None,
    });
    known.unwrap_or_default()
}

#[expect(deprecated, reason = "older clients send `rootUri` only")]
fn roots(params: &mut lsp::InitializeParams) -> Vec<std::path::PathBuf> {
    match params.workspace_folders_initialize_params.workspace_folders.take() {
        Some(lsp::WorkspaceFolders::WorkspaceFolderList(folders)) => paths(folders),
        _ => params.root_uri.iter().filter_map(|uri| path_of(&uri.0)).collect(),
    }
}

fn capabilities(agreed: &Agreed) -> lsp::ServerCapabilities {
    let everything = lsp::FileOperationFilter {
        scheme: None,
        pattern: lsp::FileOperationPattern { glob: "**".into(), matches: None, options: None },
    };
    lsp::ServerCapabilities {
        position_encoding: Some(match agreed.encoding {
            Encoding::Utf8 => lsp::PositionEncodingKind::UTF8,
            Encoding::Utf16 => lsp::PositionEncodingKind::UTF16,
            Encoding::Utf32 => lsp::PositionEncodingKind::UTF32,
        }),
        text_document_sync: Some(lsp::TextDocumentSync::Options(lsp::TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(lsp::TextDocumentSyncKind::Incremental),
            save: Some(lsp::Save::SaveOptions(lsp::SaveOptions { include_text: Some(false) })),
            ..Default::default()
        })),
        inline_completion_provider: Some(true.into()),
        // No trigger characters: they would open the menu where nobody asked for it.
        completion_provider: Some(lsp::CompletionOptions::default()),
        code_action_provider: Some(lsp::CodeActionProvider::CodeActionOptions(lsp::CodeActionOptions {
            code_action_kinds: Some(code_action::kinds()),
            ..Default::default()
        })),
        // Clients register what is advertised here under its name, which who carries it out has taken.
        execute_command_provider: (!agreed.commands).then(|| lsp::ExecuteCommandOptions {
            commands: execute_command::COMMANDS.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        workspace: Some(lsp::WorkspaceOptions {
            workspace_folders: Some(lsp::WorkspaceFoldersServerCapabilities {
                supported: Some(true),
                change_notifications: Some(true.into()),
            }),
            file_operations: Some(lsp::FileOperationOptions {
                did_rename: Some(lsp::FileOperationRegistrationOptions { filters: vec![everything] }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        experimental: Some(json!({"gemma": {"didMoveCursor": true}})),
        ..Default::default()
    }
}
