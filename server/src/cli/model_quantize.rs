//! `gemma-ls model quantize`: a checkpoint as a smaller GGUF file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gemma_engine::checkpoint;
use gemma_engine::{QuantType, QuantizeOptions, Quantized, quantize};
use serde_json::{Value, json};

use super::failure::Outcome;
use super::{Context, interrupt, output};

const EXAMPLES: &str = "\
IN is a HuggingFace folder (config.json, *.safetensors, tokenizer.json or tokenizer.model), a
.gguf file, or a name that `gemma-ls model list` shows. OUT is a GGUF file. llama.cpp loads it
too, but for RecurrentGemma and PaliGemma, whose layouts are our own. It appears when it is
whole; a few rows of the model are in memory at a time.

Which type:
  q8_0     8.5 bits a weight, half of bf16: answers are next to the same
  q4_k_m   about 4.8 bits a weight: the usual choice; more bits where it matters most
  q4_0     4.5 bits a weight and the fastest to compute with; somewhat less exact than q4_k_m

Weights that are quantised already lose more than they would once: start from the original ones, or say
--allow-requantize. What has few bits already stays as it is.

Examples:
  gemma-ls model quantize ./codegemma-2b codegemma-2b-q4_k_m.gguf --type q4_k_m
  gemma-ls model quantize gemma-2-2b-it gemma-2-2b-it-q8_0.gguf --type q8_0
  gemma-ls complete src/main.rs:12:5 --model ./codegemma-2b-q4_k_m.gguf

JSON: path, type, bytes, source_bytes, formats (each with name, tensors, bytes; the largest
first), remarks (sentences).

The setting `quantize` does the same to folders when they are loaded, and keeps what it made.";

/// Make a model smaller: its weights in fewer bits, as a GGUF file
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct QuantizeArgs {
    /// The model: a folder, a .gguf file or a name
    #[arg(value_name = "IN")]
    from: String,
    /// The file to write
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// What to store the weights in
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Kind,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// Quantise weights again that are quantised already
    #[arg(long)]
    allow_requantize: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl QuantizeArgs {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        self.json
    }
}

/// The types by the names that people know.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl From<Kind> for QuantType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Q8 => Self::Q8_0,
            Kind::Q4 => Self::Q4_0,
            Kind::Q4KM => Self::Q4_K_M,
        }
    }
}

/// Runs `gemma-ls model quantize`.
pub fn run(context: &Context, args: &QuantizeArgs) -> Outcome {
    let found = checkpoint::resolve(Some(&args.from))?;
    let options = QuantizeOptions {
        kind: args.kind.into(),
        threads: context.settings.threads,
        overwrite: args.force,
        requantize: args.allow_requantize,
    };
    let cancel = interrupt::flag();
    let bar = output::byte_bar(context.global.quiet, format!("Quantising {}", found.name));
    let made = quantize(&found.path, &args.to, &options, &cancel, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let made =
        made.map_err(super::failure::Failure::from).map_err(|failure| match cancel.is_cancelled() {
            true => failure.interrupted(),
            false => failure,
        })?;
    if args.json {
        return output::print_json(&to_json(&made, options.kind));
    }
    for remark in made.remarks.iter().filter(|_| !context.global.quiet) {
        output::say(remark);
    }
    output::print(&to_text(&made))
}

fn to_json(made: &Quantized, kind: QuantType) -> Value {
    let formats = made.formats.iter();
    let formats =
        formats.map(|(name, tensors, bytes)| json!({ "name": name, "tensors": tensors, "bytes": bytes }));
    json!({
        "path": made.path,
        "type": kind.name(),
        "bytes": made.bytes,
        "source_bytes": made.source_bytes,
        "formats": formats.collect::<Vec<_>>(),
        "remarks": made.remarks,
    })
}

fn to_text(made: &Quantized) -> String {
    let formats = made.formats.iter();
    let formats =
        formats.map(|(name, tensors, bytes)| format!("{tensors} {name} ({})", output::bytes(*bytes)));
    format!(
        "{}  {}, from {}\n  {}\n",
        made.path.display(),
        output::bytes(made.bytes),
        output::bytes(made.source_bytes),
        formats.collect::<Vec<_>>().join(", ")
    )
}
