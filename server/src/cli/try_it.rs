//! `gemma-ls try`: the whole thing with no editor. It starts the language server as an editor would,
//! opens a file, types, shows the grey text behind each key with its time, and accepts one.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};
use super::try_client::Client;
use super::try_show::{Keystroke, Painter, median, milliseconds};
use super::{Context, ModelArgs, output, session};
use crate::models::Choice;

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

/// The file, the cursor at its end of the code, and what is typed there.
const SAMPLE: &str = include_str!("sample.py");
const FILE: &str = "shapes.py";
const URI: &str = "file:///gemma-ls-try/shapes.py";
const TYPED: &str = "return ";

/// Loading reads a whole model from disk, a slow one perhaps.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// No completion takes longer, or something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

fn run(){}
