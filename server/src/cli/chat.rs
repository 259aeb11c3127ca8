//! `gemma-ls chat`: questions about a file, answered as they are thought; one, or a conversation.

use std::path::{Path, PathBuf};

use clap::Args;
use gemma_engine::{CancelFlag, Finished, Timings};
use serde_json::{Value, json};

use super::failure::{Exit, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, answer, chat_loop, complete, interrupt, output};
use crate::chat::{self, ChatModel, ChatRequest, Conversation, Dropped};
use crate::documents::Snapshot;
use crate::permission::Permission;

const EXAMPLES: &str = "\
The file is shown to the model with the question, as much of it as the model's context holds. Models tuned
to follow instructions (those with \"it\" in their names) answer best; a base model continues a text of
questions and answers. The answer streams to standard output; Ctrl-C stops it.

Without a question it is a conversation: ask, and ask on. The file is read again before each question, so
edits count. /file PATH talks about another file, /clear forgets what was said, /help has the rest, Ctrl-D
ends. When standard input is no terminal, each of its lines is a question.

Examples:
  gemma-ls chat src/main.rs \"Where is the configuration read?\"
  gemma-ls chat src/main.rs
  gemma-ls chat build.py \"Write a docstring for main\" --model gemma-3-1b-it -n 200
  printf 'What is this?\\nWhat is missing?\\n' | gemma-ls chat src/main.rs --json

JSON: text, tokens (ids), finish_reason (stop, length, deadline, cancelled), timings (queue_ms,
image_tokens, image_tokens_cached, image_ms, prefill_tokens, cached_tokens, prefill_ms, decode_tokens,
decode_ms, decode_passes,
draft_tokens, accepted_tokens, ttft_ms), model, dropped (what did not fit the model's context: turns, lines_above,
lines_below). In a conversation, one object a line for each question; one that failed gives error
(message, remedy, exit_code).";

/// Ask questions about a file
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ChatArgs {
    /// The file that is talked about; without one, the conversation is about nothing in particular
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// What to ask; without it, a conversation begins
    #[arg(value_name = "QUESTION")]
    question: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Longest answer, in tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = chat::MAX_TOKENS)]
    max_tokens: usize,
    /// Another seed gives another answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Show the file without line numbers; they cost a third more tokens, and let the model name lines
    #[arg(long)]
    no_line_numbers: bool,
    /// Say after each answer how much was reused and how long it took
    #[arg(long, short)]
    verbose: bool,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    pub json: bool,
}

/// What every question of a run has in common.
pub struct Talk<'a> {
    context: &'a Context,
    args: &'a ChatArgs,
    model: ChatModel,
    conversation: Conversation,
    /// What is talked about.
    file: Option<PathBuf>,
    /// What the last prompt left out of the file: that is said once.
    left_out: Dropped,
}

/// Runs `gemma-ls chat`.
pub fn run(context: &Context, args: &ChatArgs) -> Outcome<Exit> {
    // Before a model is loaded: what cannot be read is said at once.
    if let Some(path) = &args.file {
        read(context, path).map_err(|failure| match args.question {
            // Somebody asked about nothing in particular.
            None if path.to_string_lossy().contains(' ') => failure
                .remedy("Name a file first; to ask without one, run `gemma-ls chat` and type the question."),
            _ => failure,
        })?;
    }
    let interrupts = interrupt::Interrupts::start();
    let wanted = args.model.model.clone().or_else(|| crate::models::for_chat(&context.settings));
    let wanted = ModelArgs { model: wanted, ..args.model.clone() };
    let session = Session::open(context, &wanted, context.settings.precision.into())?;
    let mut talk = Talk {
        context,
        args,
        model: ChatModel::new(session.engine, session.model),
        conversation: Conversation::default(),
        file: args.file.clone(),
        left_out: Dropped::default(),
    };
    let Some(question) = &args.question else { return chat_loop::run(&mut talk, &interrupts) };
    let cancel = interrupts.begin();
    let (finished, json) = talk.ask(question, &cancel)?;
    if args.json {
        output::print_json(&json)?;
    }
    Ok(answer::exit_of(&finished))
}

/// Reads a file that a model may read.
fn read(context: &Context, path: &Path) -> Outcome<Snapshot> {
    let file = complete::open(path)?;
    Permission::new(&context.settings).allow_reading(&file.location(), path.display())?;
    Ok(file)
}

impl Talk<'_> {
    /// Asks, and shows the answer as it comes unless it is to be JSON. Returns its end, and its JSON.
    pub fn ask(&mut self, question: &str, cancel: &CancelFlag) -> Outcome<(Finished, Value)> {
        let file = self.file.as_deref().map(|path| read(self.context, path)).transpose()?;
        let request = ChatRequest {
            root: file.as_ref().and_then(|file| complete::workspace_of(file.path.as_deref()?)),
            file,
            selection: None,
            line_numbers: !self.args.no_line_numbers,
            question: question.to_owned(),
            max_tokens: self.args.max_tokens,
            sampling: gemma_engine::Sampling { seed: self.args.seed, ..chat::sampling() },
        };
        let reply = self.model.ask(&mut self.conversation, request, cancel.clone())?;
        self.say_dropped(reply.dropped);
        let finished =
            if self.args.json { answer::wait(reply.stream)? } else { answer::stream(reply.stream, cancel)? };
        if self.args.verbose {
            output::say(used(&finished.timings));
        }
        self.conversation.answered(reply.asked, &finished);
        let mut json = answer::as_json(&finished, self.model.model().name());
        json["dropped"] = json!(reply.dropped);
        Ok((finished, json))
    }

    /// Says what did not fit, when it is news.
    fn say_dropped(&mut self, dropped: Dropped) {
        let of_file = Dropped { turns: 0, ..dropped };
        let news = if of_file == self.left_out {
            Dropped { turns: dropped.turns, ..Dropped::default() }
        } else {
            dropped
        };
        self.left_out = of_file;
        if let Some(notice) = news.notice().filter(|_| !self.context.global.quiet) {
            output::say(notice);
        }
    }

    /// Talks about another file from now on. What was said stays.
    pub fn change_file(&mut self, path: PathBuf) -> Outcome {
        read(self.context, &path)?;
        self.file = Some(path);
        Ok(())
    }

    /// Forgets what was said.
    pub fn forget(&mut self) {
        self.conversation.clear();
    }

    /// What is talked about, and with whom, for whoever begins a conversation.
    pub fn subject(&self) -> String {
        let model = self.model.model().name();
        match &self.file {
            Some(file) => format!("{model} about {}", file.display()),
            None => model.to_owned(),
        }
    }

    /// Whether answers are JSON.
    pub fn json(&self) -> bool {
        self.args.json
    }

    /// Whether remarks are unwelcome.
    pub fn quiet(&self) -> bool {
        self.context.global.quiet
    }
}

/// Where an answer's time went, in a line.
fn used(timings: &Timings) -> String {
    let speed = |tokens: usize, ms: f64| if ms > 0.0 { tokens as f64 * 1000.0 / ms } else { 0.0 };
    // The first token comes out of reading the prompt.
    let written = timings.decode_tokens.saturating_sub(1);
    format!(
        "  {} tokens reused, {} read in {:.1} s, {} written in {:.1} s ({:.0} a second)",
        timings.cached_tokens,
        timings.prefill_tokens,
        timings.prefill_ms / 1000.0,
        timings.decode_tokens,
        timings.decode_ms / 1000.0,
        speed(written, timings.decode_ms)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_all_of_the_json() {
        answer::is_documented(EXAMPLES);
        let dropped = json!(Dropped::default());
        for name in dropped.as_object().expect("an object").keys() {
            assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
        }
    }

    #[test]
    fn secret_files_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        std::fs::write(&path, "TOKEN=x").expect("written");
        let args = ChatArgs {
            file: Some(path),
            question: Some("?".into()),
            model: ModelArgs::default(),
            max_tokens: 1,
            seed: 0,
            no_line_numbers: false,
            verbose: false,
            json: false,
        };
        let failure = run(&Context::for_tests(), &args).expect_err("refused");
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().contains("may hold secrets"), "{failure}");
    }

    #[test]
    fn what_an_answer_took_fits_a_line() {
        let timings = Timings {
            prefill_tokens: 12,
            cached_tokens: 900,
            prefill_ms: 120.0,
            decode_tokens: 101,
            decode_ms: 2000.0,
            ..Timings::default()
        };
        let line = "  900 tokens reused, 12 read in 0.1 s, 101 written in 2.0 s (50 a second)";
        assert_eq!(used(&timings), line);
        assert!(used(&Timings::default()).contains("(0 a second)"));
    }
}
