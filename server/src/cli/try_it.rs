//! `gemma-ls try`: the whole thing with no editor. It starts the language server as an editor would,
//! opens a file, types, shows the grey text behind each key with its time, and accepts one.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};
use super::try_client::Client;
use super::try_editor::Editor;
use super::try_server::{Server, initialize};
use super::try_show::{Keystroke, Painter, median, milliseconds};
use super::{Context, ModelArgs, output, session};
use crate::models::Choice;
use crate::settings;

const EXAMPLES: &str = "\
It starts the language server as an editor would, opens a small Python file in it (in memory only), types
a few keys one by one and shows what is suggested behind each, with two times: until the model's first
token, and until the suggestion is there to be shown. Without a model on this machine it downloads the
default one first.

Examples:
  gemma-ls try
  gemma-ls try --model codegemma-2b
  gemma-ls try --json

JSON: model, file, load_ms, keystrokes (each with typed, line, suggestion, reason, ttft_ms, total_ms,
prefill_tokens, cached_tokens, decode_tokens), accepted, text (the file at the end).";

/// Show it at work, without an editor
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TryArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// The file that is opened; `$0` is the cursor.
const SAMPLE: &str = include_str!("try_sample.txt");
const FILE: &str = "shapes.py";
const URI: &str = "file:///gemma-ls-try/shapes.py";
/// What is typed there, one key at a time.
const TYPED: &str = "return math.pi";
/// Keys after which the first suggestion is accepted.
const ENOUGH_KEYS: usize = 6;
/// Lines of the file shown above the cursor.
const SHOWN_LINES: usize = 9;

/// Loading reads a whole model from disk, a slow one perhaps.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// Anything that needs no model.
const QUICK_LIMIT: Duration = Duration::from_secs(30);
/// Between two questions whether the model is loaded.
const POLL: Duration = Duration::from_millis(25);

/// Runs `gemma-ls try`.
pub fn run(context: &Context, args: &TryArgs) -> Outcome<Exit> {
    context.report_problems();
    let choice = session::choose(context, &args.model)?;
    let screen =
        Screen { painter: Painter { colour: output::colours(&std::io::stdout()) }, silent: args.json };
    let (mut server, client) = Server::start(context)?;
    match perform(context, &choice, client, screen) {
        Ok((transcript, mut editor)) => {
            server.stop(editor.client())?;
            if args.json {
                output::print_json(&transcript.to_json())?;
            }
            screen.how_to_connect()?;
            Ok(Exit::Ok)
        }
        Err(failure) if failure.is_closed_pipe() => Err(failure),
        Err(failure) => Err(server.explain(failure)),
    }
}

/// What happened, for `--json`.
struct Transcript {
    model: String,
    load_ms: f64,
    keystrokes: Vec<Keystroke>,
    accepted: String,
    text: String,
}

impl Transcript {
    fn to_json(&self) -> Value {
        json!({
            "model": self.model,
            "file": FILE,
            "load_ms": self.load_ms,
            "keystrokes": self.keystrokes,
            "accepted": self.accepted,
            "text": self.text,
        })
    }
}

fn perform(
    context: &Context,
    choice: &Choice,
    mut client: Client,
    screen: Screen,
) -> Outcome<(Transcript, Editor)> {
    // What the user switched off is no matter here: this is about whether it works.
    let options = json!({
        "model": choice.path, "trigger": "automatic", "languagesOff": [], "filesOff": [],
    });
    initialize(&mut client, &options)?;
    let load_ms = wait_for_model(&mut client, context.global.quiet || screen.silent, &choice.name)?;
    let mut editor = Editor::open(client, URI, "python", SAMPLE)?;
    screen.introduce(&choice.name, load_ms, &editor)?;

    let mut keystrokes = Vec::new();
    for (count, key) in (1..).zip(TYPED.chars()) {
        let (mut keystroke, suggestion) = editor.type_key(key)?;
        keystroke.take_status(&editor.client().request("gemma/status", json!({}), QUICK_LIMIT)?);
        screen.keystroke(&keystroke)?;
        let accepted = keystroke.suggestion.clone();
        keystrokes.push(keystroke);
        if let Some(suggestion) = suggestion.filter(|_| count >= ENOUGH_KEYS) {
            let lines = editor.accept(&suggestion)?;
            screen.accepted(&editor, lines, &keystrokes)?;
            let text = editor.text().to_owned();
            let model = choice.name.clone();
            return Ok((Transcript { model, load_ms, keystrokes, accepted, text }, editor));
        }
    }
    Err(Failure::new(Exit::Failed, format!("{} suggested nothing that could be accepted", choice.name))
        .remedy("Try another model: gemma-ls try --model NAME; `gemma-ls model list` shows what there is."))
}

/// Waits until the server has loaded its model, and says how long that took, in ms.
fn wait_for_model(client: &mut Client, quiet: bool, name: &str) -> Outcome<f64> {
    let started = Instant::now();
    let spinner = output::spinner(quiet, format!("Loading {name}"));
    let loaded = loop {
        let status = client.request("gemma/status", json!({}), QUICK_LIMIT)?;
        match status["model"]["state"].as_str() {
            Some("ready") => break Ok(started.elapsed().as_secs_f64() * 1000.0),
            Some("failed") => {
                let why = status["model"]["error"].as_str().unwrap_or("the model cannot be loaded");
                break Err(Failure::new(Exit::Failed, why));
            }
            _ if started.elapsed() > LOAD_LIMIT => {
                break Err(Failure::new(Exit::Failed, format!("{name} is not loaded in time")));
            }
            _ => {
                if let Some(percent) = status["model"]["percent"].as_u64() {
                    spinner.set_message(format!("Loading {name}  {percent} %"));
                }
                std::thread::sleep(POLL);
            }
        }
    };
    spinner.finish_and_clear();
    loaded
}

/// What the user sees; nothing of it when the transcript is printed as JSON.
#[derive(Clone, Copy)]
struct Screen {
    painter: Painter,
    silent: bool,
}

impl Screen {
    fn print(self, text: &str) -> Outcome {
        if self.silent { Ok(()) } else { output::print(text) }
    }

    fn introduce(self, model: &str, load_ms: f64, editor: &Editor) -> Outcome {
        let paint = self.painter;
        let line = editor.line();
        let first = line.saturating_sub(SHOWN_LINES - 1).max(1);
        let above: String =
            editor.text().lines().skip(first - 1).take(line - first).collect::<Vec<_>>().join("\n");
        self.print(&format!(
            "\n  {}  {}\n\n  {}\n{}{}\n  {}\n\n{}",
            paint.bold(&format!("gemma-ls {}", env!("CARGO_PKG_VERSION"))),
            paint.dim(&format!("{model}, loaded in {}", milliseconds(load_ms))),
            paint.bold(FILE),
            paint.listing(first, &above, 0..0),
            paint.numbered(line, "        ▏"),
            paint.dim(&format!("Typing in line {line}. Behind each key, what is suggested:")),
            paint.head(),
        ))
    }

    fn keystroke(self, keystroke: &Keystroke) -> Outcome {
        self.print(&self.painter.row(keystroke))
    }

    fn accepted(self, editor: &Editor, lines: std::ops::Range<usize>, strokes: &[Keystroke]) -> Outcome {
        let paint = self.painter;
        let first = lines.start.saturating_sub(2).max(1);
        let text: Vec<&str> = editor.text().lines().skip(first - 1).take(lines.end - first).collect();
        let shown = strokes.iter().filter(|stroke| !stroke.suggestion.is_empty()).count();
        let mut summary = format!("{shown} of {} keys had a suggestion", strokes.len());
        // The first key pays for the whole file; from then on it comes out of the cache.
        if let Some(typical) = median(strokes.iter().skip(1).map(|stroke| stroke.total_ms).collect()) {
            summary.push_str(&format!(", after the first key in {} (median)", milliseconds(typical)));
        }
        self.print(&format!(
            "\n  {} {}\n{}\n  {}\n",
            paint.bold("Tab"),
            paint.dim("takes it:"),
            paint.listing(first, &text.join("\n"), lines),
            paint.dim(&format!("{summary}.")),
        ))
    }

    fn how_to_connect(self) -> Outcome {
        let paint = self.painter;
        let program =
            std::env::current_exe().map_or_else(|_| "gemma-ls".into(), |path| path.display().to_string());
        let config = settings::config_file().map_or_else(|| "-".into(), |path| path.display().to_string());
        self.print(&format!(
            "\n  {}\n\n{}\n  {}\n\n  {}\n  {}\n\n",
            paint.bold("Connect your editor"),
            CONNECT.replace("PROGRAM", &program),
            paint.dim("Settings, models and more editors are in the README."),
            paint.dim(&format!("Settings file: {config}")),
            paint.dim("What was found on this machine, and what to mend: gemma-ls doctor"),
        ))
    }
}

const CONNECT: &str = "  \
  Neovim 0.12, in init.lua:

    vim.lsp.config('gemma', { cmd = { 'PROGRAM', 'lsp' } })
    vim.lsp.enable('gemma')
    vim.lsp.inline_completion.enable()

  VS Code and any other editor: let its language client run

    PROGRAM lsp

  and speak on standard input and output.
";
