//! The language server: the protocol, and nothing but the protocol.
//!
//! **Architecture invariant:** this is the only place that names a type of the protocol. A message goes
//! from [`frames`] through [`dispatch`] to its file under [`methods`]; what handlers have in common is
//! the [`session`]; [`backend`] is all that this room knows of models.

mod ahead;
mod announce;
mod ask;
mod backend;
mod chats;
mod compute;
mod convert;
mod counting;
mod dispatch;
pub(crate) mod frames;
mod host;
mod local;
mod methods;
mod on_demand;
mod progress;
mod record;
mod running;
mod session;
mod talk;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower_lsp::gen_lsp_types as lsp;
use tower_lsp::jsonrpc::Result;
use tower_lsp::{Client, ClientSocket, LanguageServer, LspService};

use crate::settings::{Problem, Settings};

use backend::Backend;
use host::Host;
use local::Local;
use progress::Outbox;
use session::Session;

pub use session::OnLogLevel;

/// What a server starts with.
pub struct Start {
    /// The settings under those of the client: the user's file and the command line's.
    pub settings: Settings,
    /// What is wrong in them; the client's user is told.
    pub problems: Vec<Problem>,
    /// The file of the statistics; without one they last as long as the server.
    pub statistics: Option<PathBuf>,
    /// Called with the setting `logLevel` whenever it may have changed.
    pub on_log_level: OnLogLevel,
}

/// Serves on standard input and output until the client ends the conversation. Success is a client
/// that said `shutdown` before it went, as the protocol wants it.
///
/// Nothing else in the process may write to standard output meanwhile.
///
/// # Errors
/// The system refuses the threads to serve with.
pub fn serve(start: Start) -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let run = run(tokio::io::stdin(), tokio::io::stdout(), Arc::new(Local::default()), start);
    let was_shut_down = runtime.block_on(run);
    // A read of standard input or a load may still block a thread; neither is worth waiting for.
    runtime.shutdown_background();
    Ok(if was_shut_down { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves one conversation on any streams, with models of its own; true if the client said `shutdown`.
pub async fn converse<I, O>(input: I, output: O, start: Start) -> bool
where
    I: AsyncRead + Unpin + Send + 'static,
    O: AsyncWrite + Unpin + Send + 'static,
{
    run(input, output, Arc::new(Local::default()), start).await
}

/// Serves on any streams; true if the client said `shutdown`.
async fn run<I, O>(input: I, output: O, backend: Arc<dyn Backend>, start: Start) -> bool
where
    I: AsyncRead + Unpin + Send + 'static,
    O: AsyncWrite + Unpin + Send + 'static,
{
    let closing = watch::Sender::new(false);
    let queue = dispatch::queue();
    let (service, socket) = service(backend, start, closing.clone(), Outbox::new(&queue.0));
    let session = service.inner().0.clone();
    dispatch::run(input, output, service, socket, closing, queue).await;
    counting::finish(&session).await;
    session.is_shut_down()
}

/// The server's methods: every name of the protocol that this server knows.
fn service(
    backend: Arc<dyn Backend>,
    start: Start,
    closing: watch::Sender<bool>,
    outbox: Outbox,
) -> (LspService<Server>, ClientSocket) {
    let server =
        |client: Client| Server(Arc::new(Session::new(client, outbox, Host::new(backend), start, closing)));
    LspService::build_with_lifecycle_methods(server)
        .custom_method("textDocument/didOpen", methods::did_open::handle)
        .custom_method("textDocument/didChange", methods::did_change::handle)
        .custom_method("textDocument/didSave", methods::did_save::handle)
        .custom_method("textDocument/didClose", methods::did_close::handle)
        .custom_method("textDocument/inlineCompletion", methods::inline_completion::handle)
        .custom_method("textDocument/completion", methods::completion::handle)
        .custom_method("textDocument/codeAction", methods::code_action::handle)
        .custom_method("workspace/didRenameFiles", methods::did_rename_files::handle)
        .custom_method("workspace/didChangeConfiguration", methods::did_change_configuration::handle)
        .custom_method("workspace/didChangeWatchedFiles", methods::did_change_watched_files::handle)
        .custom_method("workspace/didChangeWorkspaceFolders", methods::did_change_workspace_folders::handle)
        .custom_method("workspace/executeCommand", methods::execute_command::handle)
        .custom_method("window/workDoneProgress/cancel", methods::cancel_progress::handle)
        .custom_method("gemma/chat", methods::chat::handle)
        .custom_method("gemma/forgetChat", methods::forget_chat::handle)
        .custom_method("gemma/explainImage", methods::explain_image::handle)
        .custom_method("gemma/models", methods::models::handle)
        .custom_method("gemma/pullModel", methods::pull_model::handle)
        .custom_method("gemma/statistics", methods::statistics::handle)
        .custom_method("gemma/didShowCompletion", methods::did_show_completion::handle)
        .custom_method("gemma/didAcceptCompletion", methods::did_accept_completion::handle)
        .custom_method("gemma/didMoveCursor", methods::did_move_cursor::handle)
        .custom_method("gemma/status", methods::status::handle)
        .finish()
}

/// What the framework calls; a name of ours for the session.
struct Server(Arc<Session>);

impl LanguageServer for Server {
    async fn initialize(&self, params: lsp::InitializeParams) -> Result<lsp::InitializeResult> {
        methods::initialize::handle(self, params).await
    }

    async fn initialized(&self, params: lsp::InitializedParams) {
        methods::initialized::handle(self, params).await;
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shut_down();
        Ok(())
    }
}
