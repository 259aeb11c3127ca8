//! `gemma-ls bench decode` and `bench prefill`: how fast a model runs here, as a fraction of what the machine can do.

use std::sync::Arc;

use clap::Args;
use gemma_engine::{Finished, GenerateRequest, Limits, Model, Precision, Priority, Stop};
use serde_json::{Value, json};

use super::bench::Device;
use super::failure::{Exit, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, output};
use crate::settings::{self, Settings};

const EXAMPLES: &str = "\
The model computes what it computes for an editor, without one: prompts that have nothing in common, so that
nothing is reused, or one token after the other behind a prompt. The machine's own limits are measured before
and after each round: bytes a second that all threads (or a copy on the GPU) move, and floating-point operations
a second (of a GPU by its clock). Keep the machine otherwise idle, or the fractions say nothing.

Examples:
  gemma-ls bench decode --model codegemma-2b
  gemma-ls bench decode --device cuda --at 2000 --json
  gemma-ls bench prefill --tokens 2048 --threads 4
  gemma-ls bench prefill --tokens 4 --at 2000
  gemma-ls bench decode --adapter built-in --rounds 20      what the adapter costs

JSON: what (decode or prefill), model, device, tokens, at, rounds, tokens_per_s (the median), ms_per_token,
all_tokens_per_s, bytes_per_token (weights, and keys and values, that a pass reads; of a prefill divided by
its tokens), bandwidth_gb_s, fraction_of_bandwidth, gflop_per_token, peak_gflops, fraction_of_peak (limits and
fractions are medians of the rounds, each held against what was measured around it); with an adapter its name as
adapter, base_tokens_per_s (without it, measured in turn), adapter_cost (how much more time a token takes with
it: the median of the rounds).";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One token after the other.
    Decode,
    /// A prompt.
    Prefill,
}

/// Measure how fast a model runs here
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SpeedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Where to compute [default: as set]
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Tokens that are decoded in a round, or of the prompt [default: 64, or 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    tokens: Option<u32>,
    /// Tokens in front, which are computed before and kept [default: 512, or of a prompt none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    at: Option<u32>,
    /// Rounds, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls bench decode` or `prefill`.
pub fn run(context: &Context, args: &SpeedArgs, what: What) -> Outcome<Exit> {
    let Settings { device, precision, .. } = context.settings;
    let device = args.device.map_or(device, settings::Device::from);
    let session = Session::open_on(context, &args.model, Precision::from(precision), device)?;
    let (tokens, at) = match what {
        What::Decode => (args.tokens.unwrap_or(64) as usize, args.at.unwrap_or(512).max(1) as usize),
        What::Prefill => (args.tokens.unwrap_or(512) as usize, args.at.unwrap_or(0) as usize),
    };
    let bar = output::count_bar(context.global.quiet, session.model.name().to_owned());
    bar.set_length(u64::from(args.rounds) + 1);
    let (mut speeds, mut alone, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=args.rounds {
        let speed = |base_alone| match what {
            What::Decode => decode(&session, at, tokens, base_alone),
            What::Prefill => prefill(&session, at, tokens, round, base_alone),
        };
        // The first round fills caches, the prompt's among them.
        let take = |speeds: &mut Vec<f64>, base_alone| -> Outcome {
            let speed = speed(base_alone)?;
            speeds.extend((round > 0).then_some(speed));
            Ok(())
        };
        // In turn, since a machine is not equally fast at all times; the other way round every other time.
        if session.model.adapter().is_none() {
            take(&mut speeds, false)?;
        } else if round % 2 == 0 {
            take(&mut speeds, false)?;
            take(&mut alone, true)?;
        } else {
            take(&mut alone, true)?;
            take(&mut speeds, false)?;
        }
        // A machine that is shared, or that gets warm, has other limits a few seconds later.
        limits.push(session.engine.measure_limits(&session.model)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let load = match what {
        What::Decode => Load::of(&session.model, 1, at + tokens / 2),
        What::Prefill => Load::of(&session.model, tokens, at + tokens / 2),
    };
    let mut report = report(&session.model, (what, at, tokens), &speeds, load, &around(&limits));
    if let Some(adapter) = session.model.adapter() {
        let costs: Vec<f64> = speeds.iter().zip(&alone).map(|(with, without)| without / with - 1.0).collect();
        report["adapter"] = adapter.name().into();
        report["base_tokens_per_s"] = median(&alone).into();
        report["adapter_cost"] = median(&costs).into();
    }
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&to_text(&report))?;
    }
    Ok(Exit::Ok)
}

/// Tokens a second behind a prompt of `at` tokens.
fn decode(session: &Session, at: usize, tokens: usize, base_alone: bool) -> Outcome<f64> {
    let finished = ask(session, prompt(&session.model, at, 0), tokens, base_alone)?;
    let timings = finished.timings;
    Ok((timings.decode_tokens.saturating_sub(1)) as f64 / timings.decode_ms * 1000.0)
}

/// Tokens a second of a prompt that begins like no other, or only its first `at` tokens like one that is kept.
fn prefill(session: &Session, at: usize, tokens: usize, round: u32, base_alone: bool) -> Outcome<f64> {
    let kept = prompt(&session.model, at, 0);
    if !kept.is_empty() {
        ask(session, kept.clone(), 1, base_alone)?;
    }
    let new = prompt(&session.model, tokens + usize::from(at > 0), round as usize + 1);
    let all = [&kept[..], &new[usize::from(at > 0)..]].concat();
    let timings = ask(session, all, 1, base_alone)?.timings;
    Ok(timings.prefill_tokens as f64 / timings.prefill_ms * 1000.0)
}

fn ask(session: &Session, prompt: Vec<u32>, max_tokens: usize, base_alone: bool) -> Outcome<Finished> {
    let request = GenerateRequest {
        stop: Stop { ignore_eos: true, ..Stop::default() },
        priority: Priority::Completion,
        speculate: false,
        base_alone,
        ..GenerateRequest::new(session.model.clone(), prompt, max_tokens)
    };
    Ok(session.engine.submit(request).finish_blocking(|_| {})?)
}

/// Prompts of different `kind` differ from their second token on.
fn prompt(model: &Model, len: usize, kind: usize) -> Vec<u32> {
    // Behind the control tokens.
    let vocab = model.config().vocab as u64;
    let first = (vocab / 2).min(256);
    let token = |i: u64| first + (i * 7919 + 104_729 * (kind as u64 + 1)) % (vocab - first);
    (0..len as u64).map(|i| if i == 0 { model.config().bos } else { token(i) as u32 }).collect()
}

/// What a token costs at least.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Load {
    bytes: f64,
    operations: f64,
}

impl Load {
    /// Of a pass over `tokens` tokens that see `seen` others on average.
    fn of(model: &Model, tokens: usize, seen: usize) -> Self {
        let seen = model.config().horizon().map_or(seen, |horizon| seen.min(horizon));
        let cache = model.kv_bytes_per_token() as f64 * seen as f64 + model.config().state_bytes() as f64;
        Self {
            bytes: (model.bytes_of_token() as f64 + cache) / tokens as f64,
            operations: model.config().operations(tokens) as f64 / tokens as f64,
        }
    }
}

/// The limits of each round, of those that were measured before the first one and after each.
fn around(limits: &[Limits]) -> Vec<Limits> {
    let mean = |a: f64, b: f64| (a + b) / 2.0;
    let between = |pair: &[Limits]| Limits {
        bandwidth: mean(pair[0].bandwidth, pair[1].bandwidth),
        peak: mean(pair[0].peak, pair[1].peak),
    };
    limits.windows(2).map(between).collect()
}

/// What part of its round's bound each speed reaches at so much a token: the middle one.
fn fraction(cost: f64, speeds: &[f64], bounds: &[f64]) -> f64 {
    median(&speeds.iter().zip(bounds).map(|(speed, bound)| cost * speed / bound).collect::<Vec<_>>())
}

/// The middle one; of none, nothing.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(
    model: &Arc<Model>,
    (what, at, tokens): (What, usize, usize),
    speeds: &[f64],
    load: Load,
    limits: &[Limits],
) -> Value {
    let speed = median(speeds);
    let bounds = |of: fn(&Limits) -> f64| limits.iter().map(of).collect::<Vec<_>>();
    let (bandwidths, peaks) = (bounds(|limits| limits.bandwidth), bounds(|limits| limits.peak));
    json!({
        "what": if what == What::Decode { "decode" } else { "prefill" },
        "model": model.name(),
        "device": model.device().to_string(),
        "tokens": tokens,
        "at": at,
        "rounds": speeds.len(),
        "tokens_per_s": speed,
        "ms_per_token": 1000.0 / speed,
        "all_tokens_per_s": speeds,
        "bytes_per_token": load.bytes,
        "bandwidth_gb_s": median(&bandwidths) / 1e9,
        "fraction_of_bandwidth": fraction(load.bytes, speeds, &bandwidths),
        "gflop_per_token": load.operations / 1e9,
        "peak_gflops": median(&peaks) / 1e9,
        "fraction_of_peak": fraction(load.operations, speeds, &peaks),
    })
}

fn to_text(report: &Value) -> String {
    let number = |name: &str| report[name].as_f64().unwrap_or_default();
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let percent = |name: &str| format!("{:.1} %", 100.0 * number(name));
    let mut rows = vec![
        ("model", text("model")),
        ("device", text("device")),
        (
            "tokens a second",
            format!("{:.1}  ({:.3} ms each)", number("tokens_per_s"), number("ms_per_token")),
        ),
        (
            "bandwidth",
            format!("{} of {:.1} GB/s", percent("fraction_of_bandwidth"), number("bandwidth_gb_s")),
        ),
        ("operations", format!("{} of {:.0} GFLOP/s", percent("fraction_of_peak"), number("peak_gflops"))),
    ];
    if report["adapter"].is_string() {
        let (cost, base) = (percent("adapter_cost"), number("base_tokens_per_s"));
        rows.push(("adapter", format!("{}  ({cost} of the time; without it {base:.1})", text("adapter"))));
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_held_against_what_was_measured_around_it() {
        let limits =
            [(10.0, 1.0), (20.0, 3.0), (60.0, 5.0)].map(|(bandwidth, peak)| Limits { bandwidth, peak });
        let rounds = around(&limits).into_iter().map(|limits| (limits.bandwidth, limits.peak));
        assert_eq!(rounds.collect::<Vec<_>>(), [(15.0, 2.0), (40.0, 4.0)]);
        // A machine that is half as fast for a while reaches the same part of what it can do then.
        assert_eq!(fraction(2.0, &[10.0, 5.0, 10.0], &[40.0, 20.0, 40.0]), 0.5);
        assert_eq!(fraction(2.0, &[1.0, 10.0, 2.0], &[40.0; 3]), 0.1);
    }
}
