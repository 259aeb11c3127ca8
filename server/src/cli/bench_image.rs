//! `gemma-ls bench image`: how fast a model reads a picture here, as a fraction of what the machine can do.

use std::time::Instant;

use clap::Args;
use gemma_engine::Precision;
use serde_json::{Value, json};

use super::bench::Device;
use super::failure::{Exit, Failure, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, output};
use crate::settings;

const EXAMPLES: &str = "\
Only the tower that reads the picture is timed, from pixels of the model's size to what stands in the prompt for
them. The machine's peak is measured in the same run: floating-point operations a second of all threads, in bf16
where the processor has matrix units (of a GPU by its clock). Keep the machine otherwise idle, or the fraction
says nothing.

Examples:
  gemma-ls bench image --model paligemma
  gemma-ls bench image --model paligemma --rounds 9 --json

JSON: what (image), model, device, image_size, image_tokens, rounds, ms_per_image (the median), all_ms_per_image,
gflop_per_image, gflops, peak_gflops, fraction_of_peak.";

/// Measure how fast a model reads a picture here, as a fraction of the processor's peak
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ImageArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Where to compute [default: as set]
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Rounds, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls bench image`.
pub fn run(context: &Context, args: &ImageArgs) -> Outcome<Exit> {
    let precision = Precision::from(context.settings.precision);
    let device = args.device.map_or(context.settings.device, settings::Device::from);
    let Session { engine, model } = Session::open_on(context, &args.model, precision, device)?;
    let Some(vision) = &model.config().vision else {
        return Err(Failure::usage(format!("{} reads no pictures", model.name())));
    };
    let mut times = Vec::new();
    for round in 0..=args.rounds as usize {
        let pixels = (0..vision.pixels()).map(|i| ((i * 37 + round) % 200) as f32 / 100.0 - 1.0).collect();
        let begun = Instant::now();
        engine.picture_features(&model, pixels)?;
        // The first round touches pages that nobody touched before.
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let peak = engine.measure_limits(&model)?.peak;
    let all = times.clone();
    times.sort_by(f64::total_cmp);
    let (ms, operations) = (times[times.len() / 2], vision.operations(model.config().hidden) as f64);
    let speed = operations / ms * 1000.0;
    let report = json!({
        "what": "image",
        "model": model.name(),
        "device": model.device().to_string(),
        "image_size": vision.image_size,
        "image_tokens": vision.tokens,
        "rounds": all.len(),
        "ms_per_image": ms,
        "all_ms_per_image": all,
        "gflop_per_image": operations / 1e9,
        "gflops": speed / 1e9,
        "peak_gflops": peak / 1e9,
        "fraction_of_peak": speed / peak,
    });
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&to_text(&report))?;
    }
    Ok(Exit::Ok)
}

fn to_text(report: &Value) -> String {
    let number = |name: &str| report[name].as_f64().unwrap_or_default();
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let (size, tokens) = (number("image_size"), number("image_tokens"));
    let share = 100.0 * number("fraction_of_peak");
    output::table(&[
        ("model", text("model")),
        ("device", text("device")),
        ("picture", format!("{size} x {size}, {tokens} tokens")),
        ("time", format!("{:.1} ms for {:.1} GFLOP", number("ms_per_image"), number("gflop_per_image"))),
        ("operations", format!("{share:.1} % of {:.0} GFLOP/s", number("peak_gflops"))),
    ])
}
