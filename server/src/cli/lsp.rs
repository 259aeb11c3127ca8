//! `gemma-ls lsp`: the language server on standard input and output.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::failure::{Exit, Failure, Outcome};
use super::{Context, output};
use crate::{lsp, statistics};

const EXAMPLES: &str = "\
Editors start this and speak the Language Server Protocol with it on standard input and output; the log
goes to standard error. `gemma-ls` alone does the same. The README shows how to connect an editor.

Examples:
  gemma-ls lsp
  gemma-ls lsp --log debug
  gemma-ls lsp --config ./gemma.json --threads 4";

const AT_A_TERMINAL: &str = "\
This is the language server. It waits for an editor to speak to it on standard input; a terminal is no
editor. See it work with `gemma-ls try`, connect an editor as the README shows, for Neovim:

  vim.lsp.config('gemma', { cmd = { 'gemma-ls', 'lsp' } })
  vim.lsp.enable('gemma')

or stop it with Ctrl-C.";

/// Run the language server on standard input and output
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LspArgs {
    // Many editors pass it to any server; standard input and output are all there is here.
    #[arg(long, hide = true)]
    pub stdio: bool,
}

/// Runs the server until its client ends it. Success is a client that said `shutdown` first.
pub fn run(context: Context) -> Outcome<Exit> {
    if std::io::stdin().is_terminal() && !context.global.quiet {
        output::say(AT_A_TERMINAL);
    }
    let Context { settings, problems, set_level, .. } = context;
    let statistics = statistics::file();
    let ended = lsp::serve(lsp::Start { settings, problems, statistics, on_log_level: set_level });
    match ended {
        Ok(code) if code == ExitCode::SUCCESS => Ok(Exit::Ok),
        Ok(_) => Ok(Exit::Failed),
        Err(error) => Err(Failure::new(Exit::Failed, format!("the server cannot start: {error}"))),
    }
}
