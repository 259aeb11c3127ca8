//! Times candle-transformers' own quantised Gemma 3 on a GGUF file; see `tests/bench/README.md`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor};
use candle_transformers::models::quantized_gemma3::ModelWeights;
use clap::Parser;
use serde_json::{Value, json};

/// Time candle's quantised Gemma 3
///
/// Prints what `time-model` prints of ours: medians as JSON. Prompts have no token in common. `RAYON_NUM_THREADS` says
/// how many threads compute.
#[derive(Parser)]
struct Arguments {
    /// A GGUF file
    model: PathBuf,
    /// Tokens of the prompt that is prefilled
    #[arg(long, default_value_t = 512)]
    prefill: usize,
    /// Where to decode
    #[arg(long, default_value_t = 512)]
    decode_at: usize,
    /// Tokens decoded at a time
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Rounds of each; one more comes before them and does not count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) => {
            println!("{report:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", arguments.model.display());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Value> {
    let mut model = load(&arguments.model)?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        let begun = Instant::now();
        pick(&pass(&mut model, &prompt(arguments.prefill, round), 0)?)?;
        prefill.push(arguments.prefill as f64 / begun.elapsed().as_secs_f64());

        let mut next = pick(&pass(&mut model, &prompt(arguments.decode_at, round), 0)?)?;
        let begun = Instant::now();
        for step in 1..arguments.tokens {
            next = pick(&pass(&mut model, &[next], arguments.decode_at + step - 1)?)?;
        }
        decode.push(begun.elapsed().as_secs_f64() * 1000.0 / (arguments.tokens - 1) as f64);
    }
    let (prefill, decode) = (&mut prefill[1..], &mut decode[1..]);
    Ok(json!({
        "model": arguments.model.display().to_string(),
        "prefill": {"tokens": arguments.prefill, "tokens_per_s": median(prefill), "all": prefill},
        "decode": [{"position": arguments.decode_at, "ms_per_token": median(decode), "all": decode}],
    }))
}

fn load(path: &Path) -> Result<ModelWeights> {
    let mut file = File::open(path)?;
    let content = Content::read(&mut file)?;
    ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
}

/// The logits behind the last of some tokens; a pass at 0 forgets what came before.
fn pass(model: &mut ModelWeights, tokens: &[u32], at: usize) -> Result<Tensor> {
    model.forward(&Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?, at)
}

/// The likeliest token.
fn pick(logits: &Tensor) -> Result<u32> {
    logits.flatten_all()?.argmax(0)?.to_scalar()
}

/// Prompts of different `kind` differ from their second token on, and are those of `time-model`.
fn prompt(len: usize, kind: usize) -> Vec<u32> {
    let token = |i: u32| 256 + (i * 7919 + 104_729 * (kind as u32 + 1)) % 255_000;
    (0..len as u32).map(|i| if i == 0 { 2 } else { token(i) }).collect()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
