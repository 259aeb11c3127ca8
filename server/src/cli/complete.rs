//! `gemma-ls complete`: what would be suggested at a place in a file.

use std::path::{Path, PathBuf};

use clap::Args;
use gemma_engine::{Priority, Timings};
use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};
use super::location::Location;
use super::session::Session;
use super::{Context, ModelArgs, interrupt, output};
use crate::completion::sentence::sentence;
use crate::completion::{self, Answer, Reason, Request};
use crate::documents::{Snapshot, uri_of};
use crate::permission::Permission;
use crate::text::{Encoding, position_of};

const EXAMPLES: &str = "\
LINE and COL count from 1, COL in characters, as compilers and editors show them. A COL past the end of
its line means the end of the line. What is printed is what would be inserted there, and nothing when
there is nothing to show; why not is said on standard error.

Examples:
  gemma-ls complete src/main.rs:12:5
  gemma-ls complete src/main.rs:12:5 --model codegemma-2b
  gemma-ls complete app.py:40:9 --json

JSON: text, tokens (ids), finish_reason (stop, length, deadline, cancelled; null when the model was not
asked), timings (queue_ms, image_tokens, image_tokens_cached, image_ms, prefill_tokens, cached_tokens,
prefill_ms, decode_tokens, decode_ms,
decode_passes, draft_tokens, accepted_tokens, ttft_ms),
range (what is replaced: start and end, each with line and character as in the Language Server Protocol,
from 0 and in UTF-16 units), reason (shown, empty, superseded, filtered, disabled, loading), rule (which
one filtered it, else null), model (null when none was needed).";

/// Show what would be suggested at a place in a file
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CompleteArgs {
    /// The place, for instance src/main.rs:12:5
    #[arg(value_name = "FILE:LINE:COL")]
    location: Location,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls complete`.
pub fn run(context: &Context, args: &CompleteArgs) -> Outcome<Exit> {
    let document = open(&args.location.path)?;
    let offset = args.location.offset(&document.text).map_err(Failure::usage)?;
    if let Some(clamped) = offset.clamped.filter(|_| !context.global.quiet) {
        output::say(clamped);
    }
    if let Some(rule) = Permission::new(&context.settings).refusal(&document) {
        let answer = Answer::nothing(offset.chars, Reason::Disabled, Some(rule));
        show(context, args, &document, &answer, None)?;
        return Ok(Exit::Ok);
    }
    let cancel = interrupt::flag();
    let session = Session::open_completing(context, &args.model)?;
    let request = Request {
        root: document.path.as_deref().and_then(workspace_of),
        document: document.clone(),
        cursor: offset.chars,
        others: Vec::new(),
        index: None,
        drafts: Default::default(),
        selected: None,
        priority: Priority::Completion,
        variant: 0,
        layouts: Default::default(),
    };
    let settings = &context.settings;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))?;
    let answer = runtime.block_on(completion::complete(
        &session.engine,
        &session.model,
        settings,
        request,
        cancel.clone(),
        Box::new(|_| {}),
    ))?;
    show(context, args, &document, &answer, Some(session.model.name()))?;
    Ok(if cancel.is_cancelled() { Exit::Interrupted } else { Exit::Ok })
}

fn show(
    context: &Context,
    args: &CompleteArgs,
    document: &Snapshot,
    answer: &Answer,
    model: Option<&str>,
) -> Outcome {
    if args.json {
        output::print_json(&as_json(document, answer, model))
    } else if answer.reason == Reason::Shown {
        output::print(&format!("{}\n", answer.text))
    } else {
        if !context.global.quiet {
            output::say(sentence(answer.reason, answer.rule));
        }
        Ok(())
    }
}

/// Reads a file as a document that an editor has just opened.
pub fn open(path: &Path) -> Outcome<Snapshot> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?;
    let absolute = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
    Ok(Snapshot::new(&uri_of(&absolute), "", &text))
}

/// The folder that a file belongs to: the nearest one under version control, else where we are when the
/// file is below it.
pub fn workspace_of(path: &Path) -> Option<PathBuf> {
    let versioned = path.ancestors().skip(1).find(|folder| folder.join(".git").exists());
    let here = || std::env::current_dir().ok().filter(|here| path.starts_with(here));
    versioned.map(Path::to_path_buf).or_else(here)
}

fn as_json(document: &Snapshot, answer: &Answer, model: Option<&str>) -> Value {
    let finished = answer.finished.as_ref();
    let place = |chars: usize| {
        let position = position_of(&document.text, chars, Encoding::Utf16);
        json!({ "line": position.line, "character": position.character })
    };
    json!({
        "text": answer.text,
        "range": { "start": place(answer.range.start), "end": place(answer.range.end) },
        "reason": answer.reason,
        "rule": answer.rule,
        "tokens": finished.map_or(&[][..], |f| &f.tokens),
        "finish_reason": finished.map(|f| f.finish_reason),
        "timings": finished.map_or_else(Timings::default, |f| f.timings),
        "model": model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemma_engine::{FinishReason, Finished};

    fn answer(finished: Option<Finished>, reason: Reason) -> Answer {
        Answer { text: "x".into(), range: 3..4, finished, ..Answer::nothing(3, reason, None) }
    }

    #[test]
    fn the_json_has_all_that_is_documented() {
        let document = Snapshot::new("file:///a.py", "", "🦀\n🦀b");
        let finished = Finished {
            text: "xy".into(),
            tokens: vec![1, 2],
            finish_reason: FinishReason::Stop,
            timings: Timings { cached_tokens: 9, ..Timings::default() },
        };
        let json = as_json(&document, &answer(Some(finished), Reason::Shown), Some("m"));
        assert_eq!(
            json["range"],
            json!({"start": {"line": 1, "character": 2}, "end": {"line": 1, "character": 3}})
        );
        assert_eq!((&json["text"], &json["reason"]), (&json!("x"), &json!("shown")));
        assert_eq!((&json["tokens"], &json["finish_reason"]), (&json!([1, 2]), &json!("stop")));
        assert_eq!(json["timings"]["cached_tokens"], 9);
        for name in json.as_object().expect("an object").keys() {
            assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
        }
    }

    #[test]
    fn the_shape_is_the_same_when_the_model_was_not_asked() {
        let document = Snapshot::new("file:///a.py", "", "abcdef");
        let asked = as_json(&document, &answer(None, Reason::Disabled), None);
        assert_eq!(asked["tokens"], json!([]));
        assert_eq!(asked["finish_reason"], Value::Null);
        assert_eq!(asked["timings"]["prefill_tokens"], 0);
        assert_eq!(asked["reason"], "disabled");
    }

    #[test]
    fn the_workspace_is_the_nearest_folder_under_version_control() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(inner.join("c")).expect("folders");
        assert_eq!(workspace_of(&inner.join("c/x.py")), None);
        std::fs::create_dir(folder.path().join("a/.git")).expect("a folder");
        assert_eq!(workspace_of(&inner.join("c/x.py")), Some(folder.path().join("a")));
    }

    #[test]
    fn files_that_are_no_text_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("latin1.py");
        std::fs::write(&path, b"gr\xfc\xdfe").expect("written");
        let failure = open(&path).err().expect("not UTF-8");
        assert_eq!(failure.exit(), Exit::BadFile);
        assert!(failure.to_string().contains("latin1.py: this is not UTF-8 text"), "{failure}");
        assert_eq!(open(&folder.path().join("none")).err().expect("no file").exit(), Exit::Missing);
    }
}
