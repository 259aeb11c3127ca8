//! Writes a model of a published size with random weights; see `tests/bench/README.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::quantized::GgmlDType;
use clap::{Parser, ValueEnum};
use gemma_tests::random::{Mix, NAMES, Recipe};
use gemma_tests::vocabulary::Vocabulary;
use indicatif::{ProgressBar, ProgressStyle};

/// Write a model of a published size with random weights
///
/// What it says is nonsense; how long it takes and what memory it needs is what the published model of this
/// name takes and needs. Without --type a HuggingFace folder in bf16 is written, which PyTorch reads too; with it a
/// GGUF file of the same numbers.
#[derive(Parser)]
#[command(name = "random-model")]
struct Arguments {
    /// The model
    #[arg(value_parser = NAMES)]
    name: String,
    /// The folder, or with --type the file, to write
    out: PathBuf,
    /// Another number of layers than the published model has, for a size between those that are published
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    layers: Option<u16>,
    /// Quantise
    #[arg(long = "type", value_enum)]
    format: Option<Format>,
    /// A published tokenizer.json to put in, with as many entries as the model has: text then has as many
    /// tokens as with the published model
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Format {
    Bf16,
    Q8_0,
    Q4_0,
    Q5_0,
    #[value(name = "q4_k")]
    Q4K,
    /// Q4_K and Q6_K, mixed as llama.cpp does
    #[value(name = "q4_k_m")]
    Q4KM,
    #[value(name = "q5_k")]
    Q5K,
    #[value(name = "q6_k")]
    Q6K,
}

impl Format {
    fn mix(self) -> Mix {
        Mix::All(match self {
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q4KM => return Mix::Q4KM,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(recipe) = Recipe::named(&arguments.name) else {
        eprintln!("{}: not one of {}", arguments.name, NAMES.join(", "));
        return ExitCode::from(2);
    };
    let recipe = match arguments.layers.map(usize::from) {
        None => recipe,
        Some(layers) => match recipe.with_layers(layers) {
            Some(recipe) => recipe,
            None => {
                eprintln!("{}: its layers differ from each other", arguments.name);
                return ExitCode::from(2);
            }
        },
    };
    let style = ProgressStyle::with_template("{bar:40} {percent}% {eta}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let vocabulary = match arguments.tokenizer.as_deref().map(Vocabulary::read).transpose() {
        Ok(vocabulary) => vocabulary,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let vocabulary = vocabulary.as_ref();
    let written = match arguments.format {
        None => recipe.write_folder(&arguments.out, vocabulary, &mut progress).map_err(|e| e.to_string()),
        Some(format) => recipe
            .write_gguf(&arguments.out, format.mix(), vocabulary, &mut progress)
            .map_err(|e| e.to_string()),
    };
    bar.finish_and_clear();
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}: {problem}", arguments.out.display());
            ExitCode::FAILURE
        }
    }
}
