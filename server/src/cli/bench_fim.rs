//! `gemma-ls bench fim`: which prompt suits a model, on the user's own code.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::bench::{fim_ids, order};
use super::failure::{Exit, Failure, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, interrupt, output};
use crate::bench::fim::measure::{Filler, Place};
use crate::bench::fim::report::{Means, Row, rows, to_json};
use crate::bench::fim::samples::{KINDS, Kind, samples, sources};
use crate::bench::fim::verdict::{Comparison, Verdict, verdict};
use crate::secrets::SecretFiles;
use crate::settings::{FimIds, FimOrder, Settings};

const EXAMPLES: &str = "\
Source files of the repository are picked by the seed (not what .gitignore names, no file that may hold
secrets), and in each some text is taken out: the rest of a line, a part inside a line, a few whole lines.
The model fills it in through the prompts that the server makes when no other file is open (or, with --open,
some are), in each order:

  plain          the text before the cursor only, for models that cannot fill in the middle; a model with an
                 adapter that fills in does without it here: the base, to hold the adapter against
  psm            before, behind: with each key the text behind the cursor is computed anew
  spm            behind, before: typing only appends to the prompt
  spmMiddleLast  the same in another arrangement of the tokens

and what would be shown is held against what stood there: exact, whether it is the same; first token,
whether the model's first token is; similarity, one minus the edits between the two by their length. nll is
the mean negative logarithm of the probability of a token of what stood there (lower is better). A key is a
character typed behind the place.

Recommended is the cheapest order among those that are as good as the best: whose similarity is not lower in
95 of 100 draws of other places (paired bootstrap), and which did not lose more places than chance explains
(sign test, 5 %). More places tell smaller differences apart.

Examples:
  gemma-ls bench fim --repo . --model codegemma-2b
  gemma-ls bench fim --repo ~/src/project --samples 300 --seed 2
  gemma-ls bench fim --repo . --model ./my-tuned-gemma.gguf --fim-ids 67,68,69,70 --order psm,spm --json

JSON: setup, orders (each with order, and all, kinds and languages, which have places, exact, first_token,
similarity, nll, tokens_asked, key_tokens, key_ms, ttft_ms, total_ms), verdict (order, best, comparisons:
each with order, difference, interval, wins, losses, p, key_tokens, nll, as_good), places (each with file,
line, language, kind, middle and, for each order, what was shown and its numbers).";

/// Measure which prompt suits a model, on your own code
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct FimArgs {
    /// The folder with the code
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Measure only these orders: plain, psm, spm, spmMiddleLast [default: all that the model can do]
    #[arg(long, value_name = "ORDERS", value_delimiter = ',', value_parser = order)]
    order: Vec<FimOrder>,
    /// The ids of the tokens before prefix, middle and suffix and between files, such as 67,68,69,70
    /// [default: those of the vocabulary]
    #[arg(long, value_name = "P,M,S,SEP", value_parser = fim_ids)]
    fim_ids: Option<FimIds>,
    /// Pick places in at most so many files
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    files: u32,
    /// So many other files of the place's language are open, as in an editor
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=32))]
    open: u8,
    /// Fill so many places
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Only places of these kinds: line-end, inner, block [default: all]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = kind)]
    kind: Vec<Kind>,
    /// Another number picks other files and places
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_tokens: u16,
    /// Print one JSON object, with every place
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls bench fim`.
pub fn run(context: &Context, args: &FimArgs) -> Outcome<Exit> {
    let root = std::path::absolute(&args.repo).map_err(|e| Failure::file(&args.repo, &e))?;
    let folder = std::fs::metadata(&root).map_err(|e| Failure::file(&args.repo, &e))?;
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{}: a folder is wanted", args.repo.display())));
    }
    let secrets = SecretFiles::new(&context.settings.secret_files).0;
    let sources = sources(&root, &secrets, args.files as usize, args.seed);
    let kinds = if args.kind.is_empty() { &KINDS[..] } else { &args.kind };
    let samples = samples(&sources, kinds, args.samples as usize, args.seed);
    if samples.is_empty() {
        let message = format!("{}: no source file in it has a place to fill", args.repo.display());
        return Err(Failure::new(Exit::Missing, message).remedy(
            "Files that .gitignore names, that are very small, or of unknown languages do not count.",
        ));
    }
    let settings = settings(context, args);
    let session = Session::open_completing(context, &args.model)?;
    let filler = Filler {
        engine: &session.engine,
        model: &session.model,
        settings: &settings,
        root: &root,
        open: (&sources, args.open.into()),
    };
    let orders = orders(&args.order, filler.can_fill(), session.model.name())?;

    let cancel = interrupt::flag();
    let bar = output::count_bar(context.global.quiet, session.model.name().to_owned());
    bar.set_length(samples.len() as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))?;
    let mut places = Vec::new();
    for sample in samples.into_iter().take_while(|_| !cancel.is_cancelled()) {
        let mut filled = Vec::new();
        for &order in &orders {
            filled.push(runtime.block_on(filler.fill(&sample, order))?);
        }
        places.push(Place { sample, filled });
        bar.inc(1);
    }
    bar.finish_and_clear();

    let verdict = verdict(&orders, &places, args.seed);
    if args.json {
        let device = session.model.device();
        let setup = json!({
            "model": session.model.name(),
            "adapter": session.model.adapter().map(|adapter| adapter.name()),
            "device": device.to_string(),
            "files": sources.len(),
            "open": args.open,
            "samples": places.len(),
            "seed": args.seed,
            "max_tokens": args.max_tokens,
            "fim_ids": args.fim_ids,
        });
        output::print_json(&to_json(&setup, &orders, &places, verdict.as_ref()))?;
    } else {
        let beside = session.model.adapter().map(|adapter| format!(" with the adapter {}", adapter.name()));
        let head = format!(
            "{}{}: {} places in {} files, at most {} tokens\n\n",
            session.model.name(),
            beside.unwrap_or_default(),
            places.len(),
            sources.len(),
            args.max_tokens
        );
        output::print(&(head + &tables(&rows(&orders, &places))))?;
        if let Some(verdict) = &verdict {
            output::print(&advice(verdict, args.fim_ids))?;
        }
    }
    Ok(if cancel.is_cancelled() { Exit::Interrupted } else { Exit::Ok })
}

/// The user's settings with what was asked for, and without a deadline: what is written is not to depend on
/// how fast it is.
fn settings(context: &Context, args: &FimArgs) -> Settings {
    let mut settings = context.settings.clone();
    settings.completion.max_tokens = args.max_tokens.into();
    settings.completion.max_time_ms = Some(600_000);
    settings.completion.fim = args.fim_ids.or(settings.completion.fim);
    settings
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = KINDS.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| format!("it is one of {}", KINDS.map(Kind::name).join(", ")))
}

/// The orders to measure.
fn orders(wanted: &[FimOrder], can_fill: bool, model: &str) -> Outcome<Vec<FimOrder>> {
    let possible = |order: &FimOrder| can_fill || *order == FimOrder::Plain;
    if let Some(order) = wanted.iter().find(|order| !possible(order)) {
        let message = format!("{model} cannot fill in the middle, so there is no order {}", order.name());
        return Err(Failure::usage(message)
            .remedy("If it was tuned for it, name the ids of its tokens: --fim-ids P,M,S,SEP."));
    }
    let mut orders = if wanted.is_empty() { FimOrder::ALL.to_vec() } else { wanted.to_vec() };
    orders.retain(possible);
    orders.sort_by_key(|order| FimOrder::ALL.iter().position(|known| known == order));
    orders.dedup();
    Ok(orders)
}

fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    // A write to a String cannot fail.
    let _ = writeln!(
        text,
        "  {:<15}{:>7}{:>13}{:>12}{:>7}{:>14}{:>10}{:>14}{:>11}",
        "", "exact", "first token", "similarity", "nll", "tokens a key", "ms a key", "first, cold", "answer"
    );
    for Row { order, all, .. } in rows {
        let _ = writeln!(
            text,
            "  {:<15}{}{:>7}{:>14}{:>10}{:>11.0} ms{:>8.0} ms",
            order.name(),
            quality(all),
            number(all.nll, 2),
            number(all.key_tokens, 1),
            number(all.key_ms, 1),
            all.ttft_ms,
            all.total_ms
        );
    }
    let parts = |row: &Row| -> Vec<(String, Means)> {
        let kinds = row.kinds.iter().map(|(kind, means)| ((*kind).to_owned(), means.clone()));
        let languages = row.languages.iter().map(|(language, means)| ((*language).to_owned(), means.clone()));
        // With one language its numbers are those of all.
        kinds.chain(languages.filter(|_| row.languages.len() > 1)).collect()
    };
    let parts: Vec<_> = rows.iter().map(parts).collect();
    for i in 0..parts.first().map_or(0, Vec::len) {
        let (name, Means { places, .. }) = &parts[0][i];
        let _ = writeln!(text, "\n  {name}: {places} places");
        for (row, part) in rows.iter().zip(&parts) {
            let _ = writeln!(text, "  {:<15}{}", row.order.name(), quality(&part[i].1));
        }
    }
    text
}

fn quality(means: &Means) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    format!("{:>7}{:>13}{:>12.2}", percent(means.exact), percent(means.first_token), means.similarity)
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// What to set, and why.
fn advice(verdict: &Verdict, ids: Option<FimIds>) -> String {
    let mut text = String::from("\n");
    for comparison in verdict.comparisons.iter().filter(|comparison| comparison.order != verdict.best) {
        let _ = writeln!(text, "  {}", compared(comparison, verdict.best));
    }
    let mut settings = json!({"fimOrder": verdict.order.name()});
    if let Some(ids) = ids {
        settings["fim"] = json!(ids);
    }
    let why = match verdict.comparisons.iter().find(|comparison| comparison.order == verdict.order) {
        _ if verdict.comparisons.len() == 1 => "it was the only one measured".to_owned(),
        Some(chosen) => reasons(verdict, chosen),
        None => String::new(),
    };
    let _ =
        writeln!(text, "\n  Recommended: {}; {why}.\n  In the settings: {settings}", verdict.order.name());
    text
}

fn reasons(verdict: &Verdict, chosen: &Comparison) -> String {
    let quality = match chosen.order == verdict.best {
        true => "nothing is better".to_owned(),
        false => format!("as good as {} within noise", verdict.best.name()),
    };
    let others = verdict.comparisons.iter().filter(|other| other.as_good && other.order != chosen.order);
    let dearest = others.max_by(|a, b| a.key_tokens.total_cmp(&b.key_tokens));
    // Less than one token a key is one token a key: the last one is computed for its logits.
    match dearest.map(|other| (other.order, other.key_tokens.max(1.0) / chosen.key_tokens.max(1.0))) {
        Some((order, times)) if times >= 1.5 => {
            format!("{quality}, and a key computes {times:.0} times fewer tokens than with {}", order.name())
        }
        _ => quality,
    }
}

fn compared(comparison: &Comparison, best: FimOrder) -> String {
    let Comparison { order, difference, interval: (low, high), wins, losses, p, as_good, .. } = comparison;
    format!(
        "{} against {}: similarity {difference:+.3} (95 %: {low:+.3} to {high:+.3}), exact where the other is not \
         {wins}, the other way round {losses} (p = {p:.2}): {}.",
        order.name(),
        best.name(),
        if *as_good { "as good within noise" } else { "worse" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_measured_in_what_it_can_do() {
        let orders = |wanted: &[FimOrder], can_fill| orders(wanted, can_fill, "m");
        assert_eq!(orders(&[], true), Ok(FimOrder::ALL.to_vec()));
        assert_eq!(orders(&[], false), Ok(vec![FimOrder::Plain]));
        let wanted = [FimOrder::Spm, FimOrder::Psm, FimOrder::Spm];
        assert_eq!(orders(&wanted, true), Ok(vec![FimOrder::Psm, FimOrder::Spm]));
        let refused = orders(&wanted, false).expect_err("it cannot");
        assert_eq!(refused.exit(), Exit::Usage);
        assert!(refused.to_string().contains("--fim-ids"), "{refused}");
    }

    #[test]
    fn the_advice_says_what_was_measured() {
        let comparison = |order, difference, key_tokens, as_good| Comparison {
            order,
            difference,
            interval: (difference - 0.02, difference + 0.02),
            wins: 3,
            losses: 4,
            p: 1.0,
            key_tokens,
            nll: 1.0,
            as_good,
        };
        let verdict = Verdict {
            order: FimOrder::Spm,
            best: FimOrder::Psm,
            comparisons: vec![
                comparison(FimOrder::Psm, 0.0, 130.0, true),
                comparison(FimOrder::Spm, -0.01, 1.3, true),
                comparison(FimOrder::Plain, -0.2, 1.0, false),
            ],
        };
        let ids = FimIds { prefix: 67, middle: 68, suffix: 69, separator: 70 };
        let text = advice(&verdict, Some(ids));
        for part in [
            "spm against psm: similarity -0.010 (95 %: -0.030 to +0.010)",
            "plain against psm: similarity -0.200 (95 %: -0.220 to -0.180), exact where the other is not 3, the other \
             way round 4 (p = 1.00): worse.",
            "Recommended: spm; as good as psm within noise, and a key computes 100 times fewer tokens than with psm.",
            "\"fimOrder\":\"spm\"",
            "\"prefix\":67",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let alone = Verdict { order: FimOrder::Plain, best: FimOrder::Plain, comparisons: Vec::new() };
        assert!(advice(&alone, None).contains("\"fimOrder\":\"plain\""));
    }
}
