//! The answer of a model on the command line: streamed as text, or one JSON object.

use std::io::IsTerminal;

use gemma_engine::{CancelFlag, FinishReason, Finished, TokenStream};
use serde_json::{Value, json};

use super::failure::{Exit, Outcome};
use super::output;

/// Prints an answer as it comes, and returns its end. When nobody reads any more, `cancel` stops the
/// computing.
pub fn stream(answer: TokenStream, cancel: &CancelFlag) -> Outcome<Finished> {
    let mut written = Ok(());
    let finished = answer.texts_blocking(|text| {
        if written.is_ok() {
            written = output::print(text);
            if written.is_err() {
                cancel.cancel();
            }
        }
    })?;
    written?;
    if std::io::stdout().is_terminal() {
        output::print("\n")?;
    }
    Ok(finished)
}

/// Waits for the end of an answer without printing anything.
pub fn wait(answer: TokenStream) -> Outcome<Finished> {
    Ok(answer.finish_blocking(|_| {})?)
}

/// The JSON of an answer: what the engine says, and which model gave it.
pub fn as_json(finished: &Finished, model: &str) -> Value {
    json!({
        "text": finished.text,
        "tokens": finished.tokens,
        "finish_reason": finished.finish_reason,
        "timings": finished.timings,
        "model": model,
    })
}

/// The exit code of an answer: Ctrl-C is told apart from an end of its own.
pub fn exit_of(finished: &Finished) -> Exit {
    match finished.finish_reason {
        FinishReason::Cancelled => Exit::Interrupted,
        _ => Exit::Ok,
    }
}

/// What the help says of the JSON of an answer.
#[cfg(test)]
pub fn is_documented(help: &str) {
    let finished = Finished {
        text: "x".into(),
        tokens: vec![7],
        finish_reason: FinishReason::Length,
        timings: gemma_engine::Timings::default(),
    };
    let json = as_json(&finished, "m");
    let names = |value: &Value| -> Vec<String> {
        value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    for name in names(&json).iter().chain(&names(&json["timings"])) {
        assert!(help.contains(name.as_str()), "the help does not name {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_what_the_interface_promises() {
        let finished = Finished {
            text: "x".into(),
            tokens: vec![7],
            finish_reason: FinishReason::Length,
            timings: gemma_engine::Timings { prefill_tokens: 3, ..Default::default() },
        };
        let json = as_json(&finished, "m");
        assert_eq!((&json["text"], &json["tokens"]), (&json!("x"), &json!([7])));
        assert_eq!((&json["finish_reason"], &json["model"]), (&json!("length"), &json!("m")));
        for name in [
            "queue_ms",
            "image_tokens",
            "image_tokens_cached",
            "image_ms",
            "prefill_tokens",
            "cached_tokens",
            "prefill_ms",
            "decode_tokens",
            "decode_ms",
            "decode_passes",
            "draft_tokens",
            "accepted_tokens",
            "ttft_ms",
        ] {
            assert!(json["timings"][name].is_number(), "{name}");
        }
        assert_eq!(exit_of(&finished), Exit::Ok);
        let cancelled = Finished { finish_reason: FinishReason::Cancelled, ..finished };
        assert_eq!(exit_of(&cancelled), Exit::Interrupted);
    }
}
