//! `gemma-ls try`: the whole thing with no editor. It starts the language server as an editor would,
//! opens a file, types, shows the grey text behind each key with its time, and accepts one.

use std::collections::HashSet;
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
a few keys one by one and shows what is suggested behind each: how many tokens of the prompt had to be read
for it (the rest was kept from before), the time to the model's first token, and the time until the
suggestion could be shown. Without a model on this machine it downloads the
default one first.

Examples:
  gemma-ls try
  gemma-ls try --model codegemma-2b
  gemma-ls try --json

JSON: model, file, load_ms, keystrokes (each with typed, line, suggestion, reason, rule, ttft_ms, total_ms,
prefill_tokens, cached_tokens, decode_tokens), accepted (the lines that Tab completed), text (the file at
the end).";

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
const FILE: &str = "stack.py";
const URI: &str = "file:///gemma-ls-try/stack.py";

/// What is done in the file: text put in at once, keys typed one by one behind it, and the suggestion
/// behind the last key is taken.
const STEPS: [(&str, &str); 3] = [
    ("", "return l"),
    ("\n\n    def __len__(self):\n        ", "re"),
    ("\n\n    def clear(self):\n        ", "se"),
];

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
    accepted: Vec<String>,
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

    let mut transcript = Transcript {
        model: choice.name.clone(),
        load_ms,
        keystrokes: Vec::new(),
        accepted: Vec::new(),
        text: String::new(),
    };
    let mut fresh = HashSet::new();
    for (pasted, keys) in STEPS {
        if !pasted.is_empty() {
            screen.pasted(pasted)?;
            editor.paste(pasted)?;
        }
        let mut suggestion = None;
        for key in keys.chars() {
            let (mut keystroke, suggested) = editor.type_key(key)?;
            keystroke.take_status(&editor.client().request("gemma/status", json!({}), QUICK_LIMIT)?);
            screen.keystroke(&keystroke)?;
            transcript.keystrokes.push(keystroke);
            suggestion = suggested;
        }
        if let Some(suggestion) = suggestion {
            fresh.extend(editor.accept(&suggestion)?);
            screen.taken(editor.current_line())?;
            transcript.accepted.push(editor.current_line().trim().to_owned());
        }
    }
    transcript.text = editor.text().to_owned();
    if transcript.accepted.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} suggested nothing that could be accepted", choice.name),
        )
        .remedy("Try another model with --model NAME; `gemma-ls model list` shows what there is."));
    }
    screen.conclude(&transcript, &fresh)?;
    Ok((transcript, editor))
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
        let above: Vec<&str> = editor.text().lines().take(editor.line() - 1).collect();
        self.print(&format!(
            "\n  {}  {}\n\n  {}\n{}{}\n{}",
            paint.bold(&format!("gemma-ls {}", env!("CARGO_PKG_VERSION"))),
            paint.dim(&format!("{model}, loaded in {}", milliseconds(load_ms))),
            paint.bold(FILE),
            paint.listing(&above.join("\n"), &HashSet::new()),
            paint.numbered(editor.line(), &format!("{}▏", editor.current_line())),
            paint.head(),
        ))
    }

    fn keystroke(self, keystroke: &Keystroke) -> Outcome {
        self.print(&self.painter.row(keystroke))
    }

    fn taken(self, line: &str) -> Outcome {
        self.print(&self.painter.taken(line))
    }

    fn pasted(self, text: &str) -> Outcome {
        self.print(&self.painter.pasted(text))
    }

    fn conclude(self, transcript: &Transcript, fresh: &HashSet<usize>) -> Outcome {
        let paint = self.painter;
        self.print(&format!(
            "\n  {}\n{}\n  {}\n",
            paint.bold("The file now"),
            paint.listing(&transcript.text, fresh),
            paint.dim(&summary(&transcript.keystrokes).replace('\n', "\n  ")),
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

/// What the table says, in words.
fn summary(strokes: &[Keystroke]) -> String {
    let asked: Vec<&Keystroke> = strokes.iter().filter(|stroke| stroke.ttft_ms.is_some()).collect();
    let mut text = format!(
        "{} keys: the model was asked {} times; the other keys went on with what it had suggested.",
        strokes.len(),
        asked.len()
    );
    let first = median(asked.iter().filter_map(|stroke| stroke.ttft_ms).collect());
    let shown = median(asked.iter().map(|stroke| stroke.total_ms).collect());
    if let (Some(first), Some(shown)) = (first, shown) {
        text.push_str(&format!(
            "\nAsked, it took {} to the first token and {} to the suggestion (medians).",
            milliseconds(first),
            milliseconds(shown)
        ));
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_all_that_is_documented() {
        let transcript = Transcript {
            model: "m".into(),
            load_ms: 1.0,
            keystrokes: vec![Keystroke::default()],
            accepted: vec!["x".into()],
            text: "x".into(),
        };
        let json = transcript.to_json();
        for object in [&json, &json["keystrokes"][0]] {
            for name in object.as_object().expect("an object").keys() {
                assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
            }
        }
    }

    #[test]
    fn keys_that_went_on_with_a_suggestion_do_not_better_the_times() {
        let asked = |ms| Keystroke { ttft_ms: Some(ms), total_ms: 2.0 * ms, ..Keystroke::default() };
        let text = summary(&[asked(100.0), Keystroke::default(), asked(300.0), asked(200.0)]);
        assert!(text.starts_with("4 keys: the model was asked 3 times"), "{text}");
        assert!(text.contains("200 ms to the first token and 400 ms"), "{text}");
        assert!(!summary(&[Keystroke::default()]).contains("took"));
    }

    #[test]
    fn the_sample_is_as_the_editor_wants_it() {
        assert!(SAMPLE.is_ascii());
        assert_eq!(SAMPLE.matches("$0").count(), 1);
        assert!(STEPS.iter().all(|(pasted, keys)| pasted.is_ascii() && !keys.is_empty()));
    }
}
