//! The command line: one subcommand a file.
//!
//! Results go to standard output, everything else to standard error; with `--json` standard output is
//! exactly one JSON object. [`failure`] has the exit codes.

mod answer;
mod bench;
mod bench_fim;
mod bench_image;
mod bench_keystroke;
mod bench_speed;
mod chat;
mod chat_input;
mod chat_loop;
mod complete;
mod doctor;
mod explain;
mod failure;
mod generate;
mod inspect;
mod interrupt;
mod location;
mod log;
mod lsp;
mod model;
mod model_info;
mod model_quantize;
mod output;
mod session;
mod stats;
mod try_client;
mod try_editor;
mod try_it;
mod try_server;
mod try_show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{LogLevel, Problem, Quantize, Settings};
use failure::{EXIT_CODES, Exit, Failure, Outcome};

const ABOUT: &str = "Completes code with Gemma models, inside its own process";

const LONG_ABOUT: &str = "\
gemma-ls is a language server that completes code where the cursor stands, with Google's Gemma models
running inside its own process: no second server to start, no cloud, no Python.

Editors start it as `gemma-ls lsp` and speak the Language Server Protocol with it on standard input and
output. The other commands do the same things from a terminal.";

const EXAMPLES: &str = "\
Start here:
  gemma-ls try                              see it work, without an editor
  gemma-ls doctor                           what it found on this machine, and what to mend
  gemma-ls model pull codegemma-2b          get a model made for code

From a terminal:
  gemma-ls complete src/main.rs:12:5        what would be suggested at line 12, column 5
  gemma-ls chat src/main.rs \"Why is this slow?\"
  gemma-ls explain screenshot.png           what it shows, and the error in it
  gemma-ls generate --prompt \"def fib(n):\"";

#[derive(Parser)]
#[command(
    name = "gemma-ls",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_help = "Start with `gemma-ls try`; `gemma-ls --help` has examples and the exit codes.",
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    // Many editors pass it to any server; standard input and output are all there is here.
    #[arg(long, hide = true)]
    stdio: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every subcommand.
#[derive(Debug, Clone, Default, Args)]
struct Global {
    /// Read the settings from this file instead of gemma-ls/config.json in the configuration folder
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Compute with this many threads [default: one for each physical core]
    #[arg(long, global = true, value_name = "N", help_heading = "Everywhere", value_parser = threads)]
    threads: Option<usize>,
    /// Quantise the weights of folders when they are loaded: none, q8_0, q4_0 or q4_k_m [default: as the settings say]
    #[arg(long, global = true, value_name = "TYPE", help_heading = "Everywhere", value_parser = quantize)]
    quantize: Option<Quantize>,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as gemma_engine=debug
    #[arg(long, global = true, value_name = "LEVEL", env = "GEMMA_LS_LOG", help_heading = "Everywhere")]
    log: Option<String>,
    /// No progress bars and no remarks, only results and errors
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Lsp(lsp::LspArgs),
    Complete(complete::CompleteArgs),
    Chat(chat::ChatArgs),
    Explain(explain::ExplainArgs),
    Generate(generate::GenerateArgs),
    #[command(subcommand)]
    Model(model::ModelCommand),
    Doctor(doctor::DoctorArgs),
    Stats(stats::StatsArgs),
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Try(try_it::TryArgs),
}

impl Command {
    /// Whether standard output is to be one JSON object.
    fn json(&self) -> bool {
        match self {
            Self::Lsp(_) | Self::Inspect(_) => false,
            Self::Complete(args) => args.json,
            Self::Chat(args) => args.json,
            Self::Explain(args) => args.json,
            Self::Model(command) => command.json(),
            Self::Bench(command) => command.json(),
            Self::Doctor(args) => args.json,
            Self::Stats(args) => args.json,
            Self::Generate(args) => args.json,
            Self::Try(args) => args.json,
        }
    }

    fn run(&self, context: Context) -> Outcome<Exit> {
        match self {
            Self::Lsp(_) => lsp::run(context),
            Self::Complete(args) => complete::run(&context, args),
            Self::Chat(args) => chat::run(&context, args),
            Self::Explain(args) => explain::run(&context, args),
            Self::Generate(args) => generate::run(&context, args),
            Self::Model(command) => model::run(&context, command),
            Self::Doctor(args) => doctor::run(&context, args),
            Self::Stats(args) => stats::run(&context, args),
            Self::Inspect(command) => inspect::run(&context, command),
            Self::Bench(command) => bench::run(&context, command),
            Self::Try(args) => try_it::run(&context, args),
        }
    }
}

/// Which model a command runs.
#[derive(Debug, Clone, Default, Args)]
struct ModelArgs {
    /// The model: a name such as codegemma-2b, a folder or a .gguf file [default: as `gemma-ls doctor` says]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// A LoRA adapter beside it: PEFT's folder, llama.cpp's .gguf of one, `built-in` or `none` [default: completions have
    /// what the setting `adapter` says, all else none]
    #[arg(long, value_name = "PATH")]
    adapter: Option<String>,
    /// Fail rather than download the default model when there is none on this machine
    #[arg(long)]
    no_pull: bool,
}

/// What every subcommand works with.
struct Context {
    global: Global,
    settings: Settings,
    /// What is wrong in the settings; said once by the commands that use them.
    problems: Vec<Problem>,
    /// Sets the log's level, unless the command line fixed it.
    set_level: log::SetLevel,
}

impl Context {
    fn new(global: Global, set_level: log::SetLevel) -> Outcome<Self> {
        let (mut settings, problems) = match &global.config {
            None => Settings::from_config_file(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?;
                let json = serde_json::from_str(&text).map_err(|error| {
                    Failure::new(Exit::BadFile, format!("{}: it is not JSON: {error}", path.display()))
                })?;
                Settings::from_json(&json)
            }
        };
        settings.threads = global.threads.or(settings.threads);
        settings.quantize = global.quantize.unwrap_or(settings.quantize);
        Ok(Self { global, settings, problems, set_level })
    }

    /// The defaults, whatever the user's file says.
    #[cfg(test)]
    fn for_tests() -> Self {
        Self {
            global: Global::default(),
            settings: Settings::default(),
            problems: Vec::new(),
            set_level: Box::new(|_| {}),
        }
    }

    /// Says what is wrong in the settings, unless asked to be quiet.
    fn report_problems(&self) {
        for problem in self.problems.iter().filter(|_| !self.global.quiet) {
            output::say(format_args!("settings: {problem}"));
        }
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one thread is needed".to_owned()),
        Ok(number @ 1..=1024) => Ok(number),
        Ok(_) => Err("at most 1024".to_owned()),
        Err(_) => Err("it must be a number".to_owned()),
    }
}

fn quantize(text: &str) -> Result<Quantize, String> {
    serde_json::from_value(text.into()).map_err(|_| "it must be none, q8_0, q4_0 or q4_k_m".to_owned())
}

/// Parses the arguments and runs the subcommand.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Lsp(lsp::LspArgs { stdio: cli.stdio }));
    let json = command.json();
    // A server's log goes to its editor, which keeps it; a command's would stand among its results.
    let default = if matches!(command, Command::Lsp(_)) { LogLevel::Info } else { LogLevel::Error };
    let outcome = log::start(cli.global.log.as_deref(), default)
        .and_then(|set_level| Context::new(cli.global, set_level))
        .and_then(|context| command.run(context));
    let exit = match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                output::say(format_args!("gemma-ls: {failure}"));
                if json {
                    // Nothing is left to try if this cannot be written either.
                    let _ = output::print_json(&failure.to_json());
                }
            }
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests;
