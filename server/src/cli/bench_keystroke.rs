//! `gemma-ls bench keystroke`: an editing session through the real server, keystroke by keystroke.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use gemma_engine::ErrorKind;
use serde_json::{Map, Value, json};

use super::bench::{Device, fim_ids, order};
use super::failure::{Exit, Failure, Outcome};
use super::{Context, ModelArgs, interrupt, output, session};
use crate::bench::kind::{KINDS, Reach};
use crate::bench::replay::{Options, Outcome as Replayed, replay};
use crate::bench::report::{Group, Percentiles, Request, Setup, to_json};
use crate::bench::trace::Trace;
use crate::lsp::Start;
use crate::settings::{self, FimIds, FimOrder};

const EXAMPLES: &str = "\
A trace is an editing session as data: documents, edits and the completions asked for between them, with
times. It is played to the language server in this process, message by message, and what each completion
cost is measured: how many tokens its prompt has, how many of them were kept from before (found) and how
many were computed, the time until the first token and until the answer. The server runs as in an editor,
with the user's settings, and with the files of the trace in a temporary folder.

Flat out (the default) each event is sent when the answer to the one before is there: every completion is
measured alone, and each run computes the same (but for how many tokens are tried ahead of their turn, which
follows the measured speed). With --paced events are sent at their time, and a
completion may be overtaken by the next, as when somebody types.

Completions are told apart: typing forward is one key behind the last one; back is the first one after a
jump to a place where something was asked before, edited nearby if the text that a prompt shows there was
edited since; the others are new places, deletions, pastes.

Examples:
  gemma-ls bench keystroke --trace forward-rust.jsonl
  gemma-ls bench keystroke --trace jump-around.jsonl --fim-ids 67,68,69,70 --order spm --json
  gemma-ls bench keystroke --trace long-file.jsonl --paced --with-chat
  gemma-ls bench keystroke --trace long-file.jsonl --repeat 40 --memory-budget-mb 64

JSON: setup (what was asked for), model, device, summary, rounds (for each time the trace was played:
cache_bytes, budget_bytes, evictions, rss_bytes, peak_rss_bytes), requests (each with round, number, t_ms,
document, position, kind, reason, rule, error, tokens_asked, tokens_found, tokens_computed, decode_tokens,
forward_passes, draft_tokens, accepted_tokens, queue_ms, ttft_ms, total_ms, text, agreed_chars). The
summary has tokens_asked, tokens_found, tokens_computed, queue_ms, ttft_ms, total_ms, full_length_ms (of
the answers that ran to the last token), each with p50, p90, p99; agreed_chars (how many characters of what
was shown are what was typed next, in the mean), shown, forward_passes, decode_tokens, draft_tokens,
accepted_tokens, reasons, kinds (the same numbers for each), asked_of_model (the same numbers for those that
were not served from an earlier answer), evictions, cache_bytes, budget_bytes, peak_rss_bytes, chat_answers,
wall_ms. What was not computed or is not known is null.";

/// Play an editing session through the server, and tell what each keystroke cost
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct KeystrokeArgs {
    /// The editing session, a file in the format gemma-ls-trace/1
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to compute [default: as set]
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// What a prompt begins with: the text before the cursor (psm), the text behind it (spm) [default: as set]
    #[arg(long, value_name = "ORDER", value_parser = order)]
    order: Option<FimOrder>,
    /// The ids of the tokens before prefix, middle and suffix and between files, such as 67,68,69,70
    /// [default: those of the vocabulary]
    #[arg(long, value_name = "P,M,S,SEP", value_parser = fim_ids)]
    fim_ids: Option<FimIds>,
    /// Print one JSON object, with every request
    #[arg(long)]
    pub json: bool,
    /// Send each event at its time, and do not wait for answers
    #[arg(long)]
    paced: bool,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_tokens: u16,
    /// Compute one token after the other: no drafts from the text
    #[arg(long)]
    no_speculation: bool,
    /// Keep a chat answer of the same model running meanwhile
    #[arg(long)]
    with_chat: bool,
    /// Stop behind this many completions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Keep at most so many MiB for reuse
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(16..=16 << 20))]
    memory_budget_mb: Option<u64>,
    /// Play it so many times with the same server, and tell its memory after each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: u32,
}

/// Runs `gemma-ls bench keystroke`.
pub fn run(context: &Context, args: &KeystrokeArgs) -> Outcome<Exit> {
    let mut trace = Trace::read(&args.trace)?;
    if let Some(limit) = args.limit {
        trace.truncate(limit);
    }
    if trace.requests() == 0 {
        return Err(Failure::usage(format!("{}: no completion is asked for in it", args.trace.display())));
    }
    context.report_problems();
    let choice = session::choose(context, &args.model)?;
    let completion = &context.settings.completion;
    // Code has hardly more than four characters a token.
    let reach = Reach { before: completion.prefix_tokens * 4, after: completion.suffix_tokens * 4 };
    let options = Options {
        paced: args.paced,
        repeat: args.repeat as usize,
        with_chat: args.with_chat,
        settings: client_settings(context, args, &choice.path),
        reach: Some(reach),
    };
    let start = Start {
        settings: context.settings.clone(),
        problems: Vec::new(),
        statistics: None,
        on_log_level: Box::new(|_| {}),
    };
    let cancel = interrupt::flag();
    let bar = output::count_bar(context.global.quiet, trace.name.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))?;
    let replayed = runtime.block_on(replay(&trace, &options, start, &cancel, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    }));
    bar.finish_and_clear();
    // A chat that nobody waits for any more may still hold a thread.
    runtime.shutdown_background();
    let replayed = match replayed {
        Err(error) if error.kind() == ErrorKind::Stopped => {
            return Err(Failure::from(error).interrupted());
        }
        replayed => replayed?,
    };
    let setup = Setup {
        trace: trace.name,
        paced: args.paced,
        repeat: options.repeat,
        with_chat: args.with_chat,
        speculation: !args.no_speculation,
        max_tokens: args.max_tokens.into(),
        order: args.order.map(|order| order.name().to_owned()),
    };
    match args.json {
        true => output::print_json(&to_json(&setup, &replayed))?,
        false => output::print(&table(&setup, &replayed))?,
    }
    Ok(if cancel.is_cancelled() { Exit::Interrupted } else { Exit::Ok })
}

/// What the client sets: what was asked for, and whatever would keep the server from completing.
fn client_settings(context: &Context, args: &KeystrokeArgs, model: &std::path::Path) -> Value {
    /// What a run computes is not to depend on how fast it is.
    const NO_DEADLINE_MS: u64 = 600_000;
    let mut settings = Map::new();
    let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
    set("model", json!(model));
    set("maxTokens", json!(args.max_tokens));
    set("statistics", json!(false));
    set("trigger", json!("automatic"));
    set("languagesOff", json!([]));
    set("filesOff", json!([]));
    if let Some(threads) = context.global.threads {
        set("threads", json!(threads));
    }
    if let Some(device) = args.device {
        set("device", json!(settings::Device::from(device)));
    }
    if let Some(budget) = args.memory_budget_mb {
        set("memoryBudgetMb", json!(budget));
    }
    if let Some(order) = args.order {
        set("fimOrder", json!(order.name()));
    }
    if let Some(ids) = args.fim_ids {
        set("fim", json!(ids));
    }
    if args.no_speculation {
        set("speculation", json!(false));
    }
    if !args.paced {
        // What is done behind an answer depends on how long the next key is in coming.
        set("aheadOfTime", json!(false));
        set("adaptiveDelay", json!(false));
        set("maxTimeMs", json!(NO_DEADLINE_MS));
    }
    Value::Object(settings)
}

fn table(setup: &Setup, replayed: &Replayed) -> String {
    let requests = &replayed.requests;
    let mut text = format!(
        "{} on {} ({}): {} completions of at most {} tokens{}, {}, {:.1} s\n\n",
        setup.trace,
        replayed.model,
        replayed.device,
        requests.len(),
        setup.max_tokens,
        setup.order.as_deref().map(|order| format!(", {order} order")).unwrap_or_default(),
        if setup.paced { "by the clock" } else { "flat out" },
        replayed.wall.as_secs_f64(),
    );
    // A write to a String cannot fail.
    let _ = writeln!(
        text,
        "{:<24}{:>6}  {:^20}  {:^20}  {:^23}  {:^23}\n{:<24}{:>6}  {}  {}  {}  {}",
        "",
        "",
        "tokens asked",
        "tokens computed",
        "first token, ms",
        "answer, ms",
        "",
        "",
        HEAD,
        HEAD,
        WIDE_HEAD,
        WIDE_HEAD,
    );
    let rows = KINDS.iter().map(|&kind| (kind.words(), Group::of(requests, Some(kind))));
    let all = || Group::of(requests, None);
    for (name, group) in rows.chain([("all", all()), ("asked of the model", all().asked())]) {
        if group.is_empty() {
            continue;
        }
        let count = |value: fn(&Request) -> Option<u64>| {
            triple(group.percentiles(move |r| Some(value(r)? as f64)), 6, 0)
        };
        let time = |value: fn(&Request) -> Option<f64>| triple(group.percentiles(value), 7, 1);
        let _ = writeln!(
            text,
            "{name:<24}{:>6}  {}  {}  {}  {}",
            group.len(),
            count(|r| r.tokens_asked),
            count(|r| r.tokens_computed),
            time(|r| r.ttft_ms),
            time(|r| Some(r.total_ms)),
        );
    }
    text.push_str(&remarks(replayed));
    text
}

const HEAD: &str = "   p50    p90    p99";
const WIDE_HEAD: &str = "    p50     p90     p99";

/// Three numbers in columns; blanks where there are none.
fn triple(values: Option<Percentiles>, width: usize, decimals: usize) -> String {
    match values {
        Some(Percentiles { p50, p90, p99 }) => {
            format!("{p50:>width$.decimals$} {p90:>width$.decimals$} {p99:>width$.decimals$}")
        }
        None => format!("{:>width$} {:>width$} {:>width$}", "-", "-", "-"),
    }
}

/// What is not in the table.
fn remarks(replayed: &Replayed) -> String {
    let all = Group::of(&replayed.requests, None);
    let mut text = format!("\n{} of {} completions showed something", all.shown(), all.len());
    if let Some(agreed) = all.agreed_chars() {
        let _ = write!(text, "; {agreed:.1} characters of it are what was typed next, in the mean");
    }
    let reasons: Vec<String> = all.reasons().iter().map(|(why, count)| format!("{why} {count}")).collect();
    let _ = writeln!(text, ".\n{}.", reasons.join(", "));
    let passes = all.sum(|r| r.forward_passes);
    let (drafts, right) = (all.sum(|r| r.draft_tokens), all.sum(|r| r.accepted_tokens));
    let _ = writeln!(
        text,
        "{} tokens were generated in {passes} forward passes; {drafts} were tried ahead of their turn, {right} \
         of them right.",
        all.sum(|r| r.decode_tokens),
    );
    for round in &replayed.rounds {
        let bytes = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), output::bytes);
        let budget = round.budget_bytes.map(|b| format!(" of {}", output::bytes(b))).unwrap_or_default();
        let evicted = round.evictions.map(|count| format!(", {count} evictions")).unwrap_or_default();
        let number = if replayed.rounds.len() > 1 { format!("{}: ", round.round + 1) } else { String::new() };
        let _ = writeln!(
            text,
            "{number}{}{budget} kept for reuse{evicted}; {} in memory, {} at the most.",
            bytes(round.cache_bytes),
            bytes(round.rss_bytes),
            bytes(round.peak_rss_bytes),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::kind::Kind;
    use crate::bench::report::{Measured, Round};
    use crate::bench::trace::{Complete, Position, Trigger};

    fn replayed() -> Replayed {
        let complete = Complete {
            position: Position { line: 0, character: 0 },
            trigger: Trigger::Automatic,
            expect_prefix: String::new(),
        };
        let nothing = Measured::default();
        let request = Request::new((0, 0), 0, "a.rs".into(), Kind::Forward, &complete, nothing);
        Replayed { requests: vec![request], rounds: vec![Round::default()], ..Replayed::default() }
    }

    #[test]
    fn the_help_names_all_that_is_in_the_json() {
        let report = to_json(&Setup::default(), &replayed());
        for object in [&report, &report["summary"], &report["requests"][0], &report["rounds"][0]] {
            for name in object.as_object().expect("an object").keys() {
                assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
            }
        }
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let table = table(&Setup::default(), &replayed());
        let rows: Vec<&str> =
            table.lines().skip(2).take_while(|line| !line.is_empty()).map(str::trim_end).collect();
        assert!(rows.len() == 4 && rows[2].starts_with("typing forward"), "{table}");
        assert_eq!(rows[1].chars().count(), rows[2].chars().count(), "{table}");
        let percentiles = Percentiles { p50: 0.25, p90: 12.0, p99: 1234.5 };
        assert_eq!(triple(Some(percentiles), 7, 1).len(), WIDE_HEAD.len());
        assert_eq!(triple(None, 6, 0).len(), HEAD.len());
    }
}
