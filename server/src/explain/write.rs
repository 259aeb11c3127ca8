//! The explanation: a chat model gets what was read from a picture, and writes.

use std::sync::Arc;

use gemma_engine::{CancelFlag, Engine, Error, Model, TokenStream};
use serde::Serialize;

use super::{Options, QUESTION};
use crate::chat::{ChatModel, ChatRequest, Conversation};
use crate::prompt::Tokens;

/// Tokens that the words around the readings take, about.
const AROUND: usize = 256;

/// What was read from a picture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Readings {
    /// The whole in one sentence.
    pub caption: Option<String>,
    /// The text in it, of all tiles.
    pub text: Option<String>,
    /// The picture model's own answer to the question.
    pub answer: Option<String>,
}

/// Asks the chat model.
pub(super) fn explanation(
    engine: &Engine,
    writer: &Arc<Model>,
    readings: &Readings,
    question: Option<&str>,
    options: &Options,
    cancel: CancelFlag,
) -> Result<TokenStream, Error> {
    let budget = writer.config().context.saturating_sub(options.max_tokens + AROUND).max(AROUND);
    let request = ChatRequest {
        file: None,
        selection: None,
        question: material(readings, question, budget, writer.tokenizer())?,
        root: None,
        line_numbers: false,
        max_tokens: options.max_tokens,
        sampling: options.sampling.clone(),
    };
    let chat = ChatModel::new(engine.clone(), writer.clone());
    Ok(chat.ask(&mut Conversation::default(), request, cancel)?.stream)
}

/// The readings in words, the text within `budget` tokens. What stays the same comes first, so that the next
/// question finds it computed.
fn material(
    readings: &Readings,
    question: Option<&str>,
    budget: usize,
    tokens: &dyn Tokens,
) -> Result<String, Error> {
    let mut words = String::from(
        "Another model has looked at a picture, most likely a screenshot. It may have misread something.\n\n",
    );
    if let Some(caption) = filled(&readings.caption) {
        words.push_str(&format!("What it shows: {caption}\n\n"));
    }
    match filled(&readings.text) {
        Some(text) => {
            words.push_str(&format!(
                "The text in it, between the lines of dashes:\n-----\n{}-----\n\n",
                fitting(text, budget, tokens)?
            ));
        }
        None => words.push_str("No text was found in it.\n\n"),
    }
    if let (Some(question), Some(answer)) = (question, filled(&readings.answer)) {
        words.push_str(&format!("Asked \"{question}\", it said: {answer}\n\n"));
    }
    words.push_str(question.unwrap_or(QUESTION));
    Ok(words)
}

fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.trim().is_empty())
}

/// The first lines of a text that fit, and how many did not.
fn fitting(text: &str, budget: usize, tokens: &dyn Tokens) -> Result<String, Error> {
    let mut used = 0;
    let mut kept = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        used += tokens.count(line)? + 1;
        if used > budget {
            kept.push_str(&format!("({} more lines)\n", lines.len() - n));
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::fake::Words;

    fn readings(caption: &str, text: &str, answer: &str) -> Readings {
        let some = |text: &str| Some(text.to_owned());
        Readings { caption: some(caption), text: some(text), answer: some(answer) }
    }

    #[test]
    fn all_readings_reach_the_chat_model_and_the_question_comes_last() {
        let readings = readings("a terminal", "error: no such file\n$ _", "a missing file");
        let words = material(&readings, Some("What is wrong?"), 1000, &Words::default()).expect("written");
        for part in ["a terminal", "error: no such file\n$ _\n", "it said: a missing file"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(words.ends_with("What is wrong?"), "{words}");
    }

    #[test]
    fn what_stays_the_same_comes_first() {
        let mut readings = readings("a terminal", "error", "one");
        let first = material(&readings, Some("a?"), 1000, &Words::default()).expect("written");
        readings.answer = Some("two".into());
        let second = material(&readings, Some("b?"), 1000, &Words::default()).expect("written");
        let same = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
        assert!(first[..same].contains("error"), "{first}");
    }

    #[test]
    fn nothing_read_is_said_and_nothing_asked_is_the_usual_question() {
        let words = material(&readings("", " ", ""), None, 1000, &Words::default()).expect("written");
        assert!(words.contains("No text was found") && words.ends_with(QUESTION), "{words}");
        assert!(!words.contains("What it shows") && !words.contains("it said"), "{words}");
    }

    #[test]
    fn too_much_text_is_cut_at_a_line() {
        let text = "one two\nthree four\nfive six\nseven";
        let words = Words::default();
        assert_eq!(fitting(text, 1000, &words).expect("fits"), format!("{text}\n"));
        assert_eq!(fitting(text, 9, &words).expect("fits"), "one two\nthree four\n(2 more lines)\n");
    }
}
