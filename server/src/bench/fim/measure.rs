//! One place filled in one order: what was written, what it cost, and how likely the true text was.

use std::path::Path;
use std::sync::Arc;

use gemma_engine::{CancelFlag, Engine, Error, ErrorKind, Event, GenerateRequest, Model, Priority, Stop};
use serde::Serialize;

use crate::bench::fim::samples::{Sample, Source};
use crate::completion::{self, Layouts, Request};
use crate::documents::Snapshot;
use crate::prompt::Prompt;
use crate::settings::{FimOrder, Settings};

/// So many characters are typed behind the place, to see what a key costs.
const KEYS: usize = 5;

/// How a place was filled in an order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filled {
    /// What would be shown.
    pub shown: String,
    /// Whether that is what stood there, blanks at the end aside.
    pub exact: bool,
    /// Whether the model's first token is the one that stood there.
    pub first_token: bool,
    /// How alike what would be shown is to what stood there, from 0 to 1: one minus the edits that lead from
    /// one to the other, by the length of the longer one.
    pub similarity: f64,
    /// Tokens of the prompt.
    pub tokens_asked: usize,
    /// Time to the first token when nothing of the prompt is known but what another order computed.
    pub ttft_ms: f64,
    /// Time to the end of the answer.
    pub total_ms: f64,
    /// Negative logarithm of the probability of what stood there.
    pub nll: f64,
    /// Tokens that spell that.
    pub nll_tokens: usize,
    /// Prompt tokens computed for each key typed behind the place.
    pub key_tokens: Vec<usize>,
    /// Time to the first token of each.
    pub key_ms: Vec<f64>,
}

/// What fills places.
pub struct Filler<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The model.
    pub model: &'a Arc<Model>,
    /// What a completion may cost, and the ids of the tokens.
    pub settings: &'a Settings,
    /// The repository.
    pub root: &'a Path,
    /// Its files, of which so many of a place's language are open besides.
    pub open: (&'a [Arc<Source>], usize),
}

impl Filler<'_> {
    /// Whether the model knows, or was told, how to fill in the middle.
    pub fn can_fill(&self) -> bool {
        self.settings.completion.fim.is_some() || self.model.fim().is_some()
    }

    /// Fills a place in an order, inside a runtime.
    ///
    /// # Errors
    /// What the engine fails at.
    pub async fn fill(&self, sample: &Sample, order: FimOrder) -> Result<Filled, Error> {
        let mut settings = self.settings.clone();
        settings.completion.order = Some(order);
        let middle = sample.middle();
        let layouts = Arc::new(Layouts::default());
        let request = |typed: &str| self.request(sample, typed, &layouts);
        let (prompt, seam) = completion::lay_out(self.model, &settings, &request(""))?;
        let answer = self.complete(&settings, request("")).await?;
        let finished = answer
            .finished
            .ok_or_else(|| Error::new(ErrorKind::Internal, "bench fim", "the model was not asked"))?;
        let raw = finished.text.strip_prefix(&seam).unwrap_or_default();
        let (nll, nll_tokens) = self.likelihood(prompt, &seam, middle).await?;
        let mut filled = Filled {
            exact: answer.text.trim_end() == middle.trim_end(),
            first_token: self.first_token(raw)? == self.first_token(middle)?,
            similarity: similarity(answer.text.trim_end(), middle.trim_end()),
            shown: answer.text,
            tokens_asked: finished.timings.prefill_tokens + finished.timings.cached_tokens,
            ttft_ms: finished.timings.ttft_ms,
            total_ms: finished.timings.ttft_ms + finished.timings.decode_ms,
            nll,
            nll_tokens,
            key_tokens: Vec::new(),
            key_ms: Vec::new(),
        };
        settings.completion.max_tokens = 1;
        for (end, c) in middle.char_indices().take(KEYS) {
            let typed = &middle[..end + c.len_utf8()];
            let answer = self.complete(&settings, request(typed)).await?;
            if let Some(finished) = answer.finished {
                filled.key_tokens.push(finished.timings.prefill_tokens);
                filled.key_ms.push(finished.timings.ttft_ms);
            }
        }
        Ok(filled)
    }

    fn request(&self, sample: &Sample, typed: &str, layouts: &Arc<Layouts>) -> Request {
        let (document, cursor) = sample.document(typed);
        Request {
            document,
            cursor,
            others: self.others(sample),
            index: None,
            drafts: Arc::default(),
            root: Some(self.root.to_owned()),
            selected: None,
            priority: Priority::Completion,
            variant: 0,
            layouts: layouts.clone(),
        }
    }

    /// Other files of a place's language: those that come next, beginning anew behind the last.
    fn others(&self, sample: &Sample) -> Vec<Snapshot> {
        let (sources, count) = self.open;
        let here = sources.iter().position(|source| Arc::ptr_eq(source, &sample.source)).unwrap_or(0);
        let next = sources[here..].iter().chain(&sources[..here]).skip(1);
        let same = next.filter(|source| source.language == sample.source.language);
        same.take(count).map(|source| source.snapshot()).collect()
    }

    async fn complete(&self, settings: &Settings, request: Request) -> Result<completion::Answer, Error> {
        let nobody = Box::new(|_: &str| {});
        completion::complete(self.engine, self.model, settings, request, CancelFlag::new(), nobody).await
    }

    fn first_token(&self, text: &str) -> Result<Option<u32>, Error> {
        Ok(self.model.tokenizer().encode(text)?.first().copied())
    }

    /// The negative logarithm of the probability of `middle` behind a prompt and the seam, and how many tokens
    /// spell it. The model is held to the text as it is to the word before a cursor: of the tokens that go on
    /// with it, the likeliest is taken each time.
    async fn likelihood(&self, prompt: Prompt, seam: &str, middle: &str) -> Result<(f64, usize), Error> {
        let text = format!("{seam}{middle}");
        let (from, to) = (seam.len(), text.len());
        let stop = Stop {
            enough: Some(Box::new(move |said: &str| said.len() >= to)),
            ignore_eos: true,
            ..Stop::default()
        };
        // No token is shorter than a byte.
        let mut stream = self.engine.submit(GenerateRequest {
            begin_with: text,
            stop,
            priority: Priority::Completion,
            speculate: false,
            base_alone: prompt.base_alone,
            logprobs: true,
            ..GenerateRequest::new(self.model.clone(), prompt.ids, to + 1)
        });
        let (mut nll, mut tokens, mut said) = (0.0, 0, 0);
        while let Some(event) = stream.next().await {
            match event {
                Event::Token(token) => {
                    said += token.text.len();
                    // The seam was typed already.
                    if said > from {
                        nll -= f64::from(token.logprob.unwrap_or(f32::NAN));
                        tokens += 1;
                    }
                }
                Event::Finished(_) => break,
                Event::Failed(error) => return Err(error),
            }
        }
        Ok((nll, tokens))
    }
}

/// How alike two texts are, from 0 to 1. Two empty ones are the same.
fn similarity(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let longer = a.len().max(b.len());
    if longer == 0 { 1.0 } else { 1.0 - edits(&a, &b) as f64 / longer as f64 }
}

/// Fewest characters to put in, take out or replace that lead from one text to the other (Levenshtein).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A place, and what became of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where.
    pub sample: Sample,
    /// How it was filled, for each of the orders measured.
    pub filled: Vec<Filled>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_counts_edits() {
        for (a, b, expected) in [
            ("", "", 1.0),
            ("abc", "", 0.0),
            ("abc", "abc", 1.0),
            ("kitten", "sitting", 1.0 - 3.0 / 7.0),
            ("größe", "grösse", 1.0 - 2.0 / 6.0),
            ("ab", "ba", 0.0),
        ] {
            assert!((similarity(a, b) - expected).abs() < 1e-9, "{a} {b}");
            assert!((similarity(b, a) - expected).abs() < 1e-9, "{b} {a}");
        }
    }
}
