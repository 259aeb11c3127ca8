//! `gemma-ls generate`: the model's own continuation of a text, without any prompt around it.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use gemma_engine::{GenerateRequest, Precision, Sampling, Stop};

use super::failure::{Exit, Failure, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, answer, interrupt, output};

const EXAMPLES: &str = "\
The text is given to the model as it is, behind <bos>; no chat template, no fill-in-the-middle. The
continuation streams to standard output, without the prompt.

Examples:
  gemma-ls generate --prompt \"def is_prime(n):\" -n 40
  gemma-ls generate --prompt-file notes.md --temperature 0.8 --top-p 0.95 --seed 7
  git diff | gemma-ls generate --prompt-file - --stop \"\\n\\n\" --json

JSON: text, tokens (ids), finish_reason (stop, length, deadline, cancelled), timings (queue_ms,
image_tokens, image_tokens_cached, image_ms, prefill_tokens, cached_tokens, prefill_ms, decode_tokens,
decode_ms, decode_passes, draft_tokens, accepted_tokens, ttft_ms), model.";

/// Continue a text, as the model would
#[derive(Args)]
#[command(after_long_help = EXAMPLES, group = ArgGroup::new("text").required(true))]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue
    #[arg(long, short, value_name = "TEXT", group = "text")]
    prompt: Option<String>,
    /// A file with the text to continue; - for standard input
    #[arg(long, value_name = "FILE", group = "text")]
    prompt_file: Option<PathBuf>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End before this text; may be given several times, \n and \t stand for line end and tab
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    pub json: bool,
}

/// How tokens are picked.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// 0 always takes the most likely token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = |t: &str| within(t, 0.0, 100.0))]
    temperature: f32,
    /// Choose among the K most likely tokens only; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = |t: &str| within(t, 0.0, 1.0))]
    top_p: f32,
    /// Leave out tokens less likely than this share of the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = |t: &str| within(t, 0.0, 1.0))]
    min_p: f32,
    /// Make tokens that are already in the text less likely; 1 for no difference
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = |t: &str| within(t, 0.01, 100.0))]
    repetition_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn within(text: &str, least: f32, most: f32) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("it must be a number from {least} to {most}")),
    }
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

/// Runs `gemma-ls generate`.
pub fn run(context: &Context, args: &GenerateArgs) -> Outcome<Exit> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_prompt(path)?,
        (None, None) => return Err(Failure::usage("give the text with --prompt or --prompt-file")),
    };
    let cancel = interrupt::flag();
    let session = Session::open(context, &args.model, Precision::from(context.settings.precision))?;
    let model = &session.model;
    let mut prompt = vec![model.config().bos];
    prompt.extend(model.tokenizer().encode(&text)?);

    let stops: Vec<String> = args.stop.iter().map(|stop| unescape(stop)).collect();
    let stream = session.engine.submit(GenerateRequest {
        sampling: args.sampling.sampling(),
        stop: Stop { texts: stops, ..Stop::default() },
        cancel: cancel.clone(),
        ..GenerateRequest::new(model.clone(), prompt, args.max_tokens)
    });
    let finished = if args.json {
        let finished = answer::wait(stream)?;
        output::print_json(&answer::as_json(&finished, model.name()))?;
        finished
    } else {
        answer::stream(stream, &cancel)?
    };
    Ok(answer::exit_of(&finished))
}

fn read_prompt(path: &Path) -> Outcome<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map_err(|e| Failure::file(Path::new("standard input"), &e))?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))
}

/// `\n`, `\t` and `\\` as a shell's user types them.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next @ ('n' | 't' | '\\'))) => {
                chars.next();
                plain.push(match next {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_may_be_written_with_escapes() {
        for (written, meant) in
            [("\\n\\n", "\n\n"), ("a\\tb", "a\tb"), ("\\\\n", "\\n"), ("\\d", "\\d"), ("end\\", "end\\")]
        {
            assert_eq!(unescape(written), meant);
        }
    }

    #[test]
    fn the_help_names_all_of_the_json() {
        answer::is_documented(EXAMPLES);
    }

    #[test]
    fn numbers_are_checked() {
        for (text, sound) in
            [("0", true), ("1", true), ("0.5", true), ("1.01", false), ("-0.1", false), ("nan", false)]
        {
            assert_eq!(within(text, 0.0, 1.0).is_ok(), sound, "{text}");
        }
    }
}
