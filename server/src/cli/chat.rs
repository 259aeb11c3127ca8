//! `gemma-ls chat`: a question about a file, answered as it is thought.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::{Exit, Failure, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, answer, complete, interrupt, output};
use crate::chat::{self, ChatRequest};
use crate::permission::Permission;

const EXAMPLES: &str = "\
The file is shown to the model with the question, as much of it as the model's context holds. Models tuned
to follow instructions (those with \"it\" in their names) answer best; a base model continues a text of
questions and answers. The answer streams to standard output; Ctrl-C stops it.

Examples:
  gemma-ls chat src/main.rs \"Where is the configuration read?\"
  gemma-ls chat build.py \"Write a docstring for main\" --model gemma-3-1b-it -n 200
  gemma-ls chat src/main.rs \"Is there a race here?\" --json

JSON: text, tokens (ids), finish_reason (stop, length, deadline, cancelled), timings (queue_ms,
image_tokens, image_tokens_cached, image_ms, prefill_tokens, cached_tokens, prefill_ms, decode_tokens,
decode_ms, ttft_ms), model, dropped (what did not fit the model's context: turns, file_lines).";

/// Ask a question about a file
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ChatArgs {
    /// The file that the question is about
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to ask
    #[arg(value_name = "QUESTION")]
    question: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Longest answer, in tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = chat::MAX_TOKENS)]
    max_tokens: usize,
    /// Another seed gives another answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls chat`.
pub fn run(context: &Context, args: &ChatArgs) -> Outcome<Exit> {
    let file = complete::open(&args.file)?;
    if !Permission::new(&context.settings).may_be_read(&file.location()) {
        let name = args.file.display();
        return Err(Failure::usage(format!("{name}: it may hold secrets, so no model reads it")).remedy(
            "The setting secretFiles says which files these are; a rule with ! in front allows one.",
        ));
    }
    let cancel = interrupt::flag();
    let wanted = ModelArgs {
        model: args.model.model.clone().or_else(|| context.settings.chat_model.clone()),
        ..args.model.clone()
    };
    let session = Session::open(context, &wanted, context.settings.precision.into())?;
    let request = ChatRequest {
        root: file.path.as_deref().and_then(complete::workspace_of),
        file: Some(file),
        selection: None,
        question: args.question.clone(),
        history: Vec::new(),
        max_tokens: args.max_tokens,
        sampling: gemma_engine::Sampling { seed: args.seed, ..chat::sampling() },
    };
    let reply = chat::ask(&session.engine, &session.model, request, cancel.clone())?;
    if let Some(notice) = reply.dropped.notice().filter(|_| !context.global.quiet) {
        output::say(notice);
    }
    let finished = if args.json {
        let finished = answer::wait(reply.stream)?;
        let mut json = answer::as_json(&finished, session.model.name());
        json["dropped"] = json!(reply.dropped);
        output::print_json(&json)?;
        finished
    } else {
        answer::stream(reply.stream, &cancel)?
    };
    Ok(answer::exit_of(&finished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_all_of_the_json() {
        answer::is_documented(EXAMPLES);
    }

    #[test]
    fn secret_files_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        std::fs::write(&path, "TOKEN=x").expect("written");
        let (context, args) = (
            Context::for_tests(),
            ChatArgs {
                file: path,
                question: "?".into(),
                model: ModelArgs::default(),
                max_tokens: 1,
                seed: 0,
                json: false,
            },
        );
        let failure = run(&context, &args).expect_err("refused");
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().contains("may hold secrets"), "{failure}");
    }
}
