//! Times a model through the engine: loading, prefill of a prompt, passes of few tokens, decoding behind prompts of
//! several lengths.
//! See `tests/bench/README.md`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use gemma_engine::{
    DeviceChoice, Engine, EngineOptions, Error, Finished, GenerateRequest, LoadOptions, Model, Priority, Stop,
};
use serde_json::json;

/// Time a model
///
/// Prefill is timed on prompts that have no token in common; decoding at each position in turn, round by
/// round, so that what else the machine does falls on all of them alike. Prints medians as JSON.
#[derive(Parser)]
#[command(name = "time-model")]
struct Arguments {
    /// A HuggingFace folder or a GGUF file
    model: PathBuf,
    /// Tokens of the prompt that is prefilled
    #[arg(long, default_value_t = 2048)]
    prefill: usize,
    /// Positions to decode at
    #[arg(long, value_delimiter = ',', default_value = "2100,8000")]
    decode_at: Vec<usize>,
    /// Passes of so many tokens to time, behind a context that is kept
    #[arg(long, value_delimiter = ',')]
    chunks: Vec<usize>,
    /// Tokens of that context
    #[arg(long, default_value_t = 512)]
    behind: usize,
    /// Tokens decoded at a time
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Rounds of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Compute threads; one a physical core if not given
    #[arg(long)]
    threads: Option<usize>,
    /// What computes
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
}

#[derive(Clone, Copy, ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            println!("{report:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<serde_json::Value, Error> {
    let device = match arguments.device {
        Device::Cpu => DeviceChoice::Cpu,
        Device::Cuda => DeviceChoice::Cuda,
    };
    let options = EngineOptions { threads: arguments.threads, device, ..EngineOptions::default() };
    let engine = Engine::start(options)?;
    let options = LoadOptions::new(&arguments.model);
    let begun = std::time::Instant::now();
    let model = engine.load(options, &mut |_| {})?;
    let load = begun.elapsed().as_secs_f64();
    let mut prefill = Vec::new();
    for round in 0..arguments.rounds {
        let timings = ask(&engine, &model, prompt(&model, arguments.prefill, round), 1)?.timings;
        prefill.push(timings.prefill_tokens as f64 / timings.prefill_ms * 1000.0);
    }
    let chunks = time_chunks(arguments, &engine, &model)?;
    let mut picture = Vec::new();
    if let Some(vision) = &model.config().vision {
        for round in 0..arguments.rounds {
            let pixels =
                (0..vision.pixels()).map(|i| ((i * 37 + round) % 200) as f32 / 100.0 - 1.0).collect();
            let begun = std::time::Instant::now();
            engine.picture_features(&model, pixels)?;
            picture.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let mut decode = vec![Vec::new(); arguments.decode_at.len()];
    for round in 0..=arguments.rounds {
        for (position, times) in arguments.decode_at.iter().zip(&mut decode) {
            let prompt = prompt(&model, *position, arguments.rounds);
            let timings = ask(&engine, &model, prompt, arguments.tokens)?.timings;
            // The first round fills the cache with the prompts.
            if round > 0 {
                times.push(timings.decode_ms / (timings.decode_tokens - 1) as f64);
            }
        }
    }
    let decode =
        arguments.decode_at.iter().zip(&mut decode).map(
            |(position, times)| json!({"position": position, "ms_per_token": median(times), "all": times}),
        );
    let device = engine.device();
    Ok(json!({
        "model": model.name(),
        "parameters": model.config().parameters(),
        "weight_bytes": model.weight_bytes(),
        "cache_bytes": engine.cache_bytes(),
        "device": device.to_string(),
        "load_s": load,
        "prefill": {"tokens": arguments.prefill, "tokens_per_s": median(&mut prefill), "all": prefill},
        "chunks": chunks,
        "picture": (!picture.is_empty()).then(|| json!({"ms": median(&mut picture), "all": picture})),
        "decode": decode.collect::<Vec<_>>(),
    }))
}

/// Passes of few tokens behind a context: in each round each of them once, in turn.
fn time_chunks(
    arguments: &Arguments,
    engine: &Engine,
    model: &Arc<Model>,
) -> Result<Vec<serde_json::Value>, Error> {
    let context = prompt(model, arguments.behind, arguments.rounds + 1);
    let mut times = vec![Vec::new(); arguments.chunks.len()];
    let mut computed = vec![0; arguments.chunks.len()];
    for round in 0..=arguments.rounds {
        for (at, &tokens) in arguments.chunks.iter().enumerate() {
            // No two of them begin alike, so that only the context is kept.
            let kind = arguments.rounds + 2 + round * arguments.chunks.len() + at;
            let chunk = prompt(model, tokens + 1, kind);
            let timings = ask(engine, model, [&context[..], &chunk[1..]].concat(), 1)?.timings;
            // The first round fills the cache with the context.
            if round > 0 {
                times[at].push(timings.prefill_ms);
                computed[at] = timings.prefill_tokens;
            }
        }
    }
    let each = arguments.chunks.iter().zip(computed).zip(&mut times);
    let report = |((tokens, computed), times): ((&usize, usize), &mut Vec<f64>)| {
        let all = times.clone();
        json!({"tokens": tokens, "computed": computed, "ms": median(times), "all": all})
    };
    Ok(each.map(report).collect())
}

/// Prompts of different `kind` differ from their second token on.
fn prompt(model: &Model, len: usize, kind: usize) -> Vec<u32> {
    // Behind the control tokens.
    let first = (model.config().vocab / 2).min(256) as u32;
    let spread = model.config().vocab as u32 - first;
    let token = |i: u32| first + (i * 7919 + 104_729 * (kind as u32 + 1)) % spread;
    (0..len as u32).map(|i| if i == 0 { model.config().bos } else { token(i) }).collect()
}

fn ask(engine: &Engine, model: &Arc<Model>, prompt: Vec<u32>, max_tokens: usize) -> Result<Finished, Error> {
    let request = GenerateRequest {
        stop: Stop { ignore_eos: true, ..Stop::default() },
        priority: Priority::Completion,
        // A prompt like these has the model repeat itself, which drafts foresee: several tokens a pass.
        speculate: false,
        ..GenerateRequest::new(model.clone(), prompt, max_tokens)
    };
    engine.submit(request).finish_blocking(|_| {})
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
