//! `gemma-ls bench` from outside: what it prints, and that a flat-out replay computes the same in every run.

use std::path::{Path, PathBuf};

use gemma_tests::binary::{Ran, run};
use gemma_tests::{nonsense, places};
use serde_json::{Value, json};

/// Requests of a trace that are played: a second of work or two.
const REQUESTS: usize = 14;
/// Ids that Gemma leaves unused: a base model is measured in any order with them.
const FIM: [&str; 4] = ["--fim-ids", "67,68,69,70", "--order", "spm"];

fn trace(name: &str) -> PathBuf {
    places::repository().join(format!("tests/fixtures/traces/{name}.jsonl"))
}

fn keystroke(trace: &Path, more: &[&str]) -> Ran {
    let (trace, limit) = (trace.to_string_lossy(), REQUESTS.to_string());
    let model = places::real_model().to_string_lossy().into_owned();
    let arguments = ["bench", "keystroke", "--trace", &trace, "--model", &model, "--limit", &limit];
    run(arguments.iter().chain(&FIM).chain(more))
}

/// What a replay computed, without how long it took, and without how much was tried ahead: that follows
/// the speed that is measured.
fn computed(report: &Value) -> Vec<Value> {
    let requests = report["requests"].as_array().expect("requests are a list");
    let computed = requests.iter().map(|request| {
        let mut request = request.clone();
        let speed = ["queue_ms", "ttft_ms", "total_ms", "forward_passes", "draft_tokens", "accepted_tokens"];
        for name in speed {
            request[name] = Value::Null;
        }
        request
    });
    computed.collect()
}

#[test]
fn a_replay_tells_what_is_documented_and_computes_the_same_each_time() {
    let trace = trace("forward-rust");
    let report = keystroke(&trace, &["--json"]).expect_code(0).json();
    assert_eq!(report["setup"]["trace"], "forward-rust", "{report:#}");
    let summary = &report["summary"];
    assert_eq!(summary["requests"], REQUESTS, "{report:#}");
    for name in ["tokens_asked", "tokens_found", "tokens_computed", "ttft_ms", "total_ms"] {
        let at = |percentile: &str| summary[name][percentile].as_f64().expect(name);
        assert!(0.0 <= at("p50") && at("p50") <= at("p90") && at("p90") <= at("p99"), "{summary:#}");
    }
    for name in ["shown", "forward_passes", "decode_tokens", "draft_tokens", "accepted_tokens", "cache_bytes"]
    {
        assert!(summary[name].is_u64(), "{name}: {summary:#}");
    }
    let requests = report["requests"].as_array().expect("requests are a list");
    assert_eq!(requests.len(), REQUESTS);
    for request in requests {
        let sum = |a: &str, b: &str| request[a].as_u64().zip(request[b].as_u64()).map(|(a, b)| a + b);
        assert_eq!(request["tokens_asked"].as_u64(), sum("tokens_found", "tokens_computed"), "{request:#}");
        assert!(request["reason"].is_string() && request["error"].is_null(), "{request:#}");
        assert_eq!(request["reason"] == "shown", request["text"].is_string(), "{request:#}");
    }
    let asked = requests.iter().filter(|request| !request["tokens_asked"].is_null());
    let cached = asked.skip(1).filter(|request| request["tokens_found"].as_u64() > Some(0));
    assert!(cached.count() > 0, "no prompt was found: {report:#}");

    let again = keystroke(&trace, &["--json"]).expect_code(0).json();
    assert_eq!(computed(&report), computed(&again));
}

#[test]
fn the_answers_do_not_depend_on_speculation() {
    let trace = trace("repetitive-edit-ts");
    let texts = |more: &[&str]| -> Vec<Value> {
        let report = keystroke(&trace, &[&["--json"], more].concat()).expect_code(0).json();
        computed(&report).into_iter().map(|request| json!([request["text"], request["reason"]])).collect()
    };
    assert_eq!(texts(&[]), texts(&["--no-speculation"]));
}

#[test]
fn a_repeated_replay_stays_within_its_budget_and_is_told_in_words() {
    let budget = ["--memory-budget-mb", "48", "--repeat", "3"];
    let ran = keystroke(&trace("jump-around"), &budget).expect_code(0);
    for words in ["42 completions", "typing forward", "first token", "1: ", "3: ", "kept for reuse"] {
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    }
    let report = keystroke(&trace("jump-around"), &[&["--json"], &budget[..]].concat()).expect_code(0).json();
    let rounds = report["rounds"].as_array().expect("rounds are a list");
    assert_eq!(rounds.len(), 3, "{report:#}");
    for round in rounds {
        assert!(round["cache_bytes"].as_u64().expect("bytes") <= 48 << 20, "{round:#}");
    }
    // Each time the trace is played in another folder, so its prompts are kept besides those before.
    assert!(rounds[2]["evictions"].as_u64() > Some(0), "the budget was never reached: {report:#}");
}

#[test]
fn what_cannot_be_played_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        path
    };
    let missing = keystroke(&folder.path().join("none.jsonl"), &[]).expect_refusal(3);
    assert!(missing.err.contains("none.jsonl"), "{missing:?}");
    let header = r#"{"format":"gemma-ls-trace/1","name":"t","documents":[]}"#;
    let bad = keystroke(&write("bad.jsonl", &format!("{header}\nnothing\n")), &["--json"]).expect_refusal(4);
    assert!(bad.err.contains("bad.jsonl, line 2"), "{bad:?}");
    assert_eq!(bad.json()["error"]["exit_code"], 4);
    keystroke(&write("empty.jsonl", header), &[]).expect_refusal(2);
    let trace = trace("forward-rust");
    for wrong in [["--order", "sideways"], ["--fim-ids", "1,2"], ["--max-tokens", "0"], ["--repeat", "0"]] {
        let path = trace.to_string_lossy();
        run(["bench", "keystroke", "--trace", &path, wrong[0], wrong[1]]).expect_code(2);
    }
}

#[test]
fn orders_are_measured_on_the_code_of_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let code: String = (0..40)
        .map(|i| format!("def area_{i}(radius):\n    square = radius * radius\n    return square * {i}\n\n"))
        .collect();
    std::fs::write(folder.path().join("areas.py"), code).expect("the folder can be written");
    let (repo, model) = (folder.path().to_string_lossy(), places::real_model());
    let model = model.to_string_lossy();
    let arguments =
        ["bench", "fim", "--repo", &repo, "--model", &model, "--samples", "3", "--max-tokens", "8"];
    let report = run(arguments.iter().chain(&["--json", "--fim-ids", "67,68,69,70", "--order", "plain,spm"]));
    let report = report.expect_code(0).json();
    let orders = report["orders"].as_array().expect("orders are a list");
    assert_eq!(orders.iter().map(|order| &order["order"]).collect::<Vec<_>>(), ["plain", "spm"]);
    for order in orders {
        assert_eq!(order["all"]["places"], 3, "{report:#}");
        for name in ["exact", "first_token", "similarity"] {
            let share = order["all"][name].as_f64().expect(name);
            assert!((0.0..=1.0).contains(&share), "{name}: {report:#}");
        }
        assert!(order["all"]["nll"].as_f64().expect("a likelihood") > 0.0, "{report:#}");
        assert_eq!(order["languages"]["python"]["places"], 3, "{report:#}");
    }
    let chosen = report["verdict"]["order"].as_str().expect("an order");
    assert!(["plain", "spm"].contains(&chosen), "{report:#}");

    let adapted = run(arguments.iter().chain(&["--json", "--order", "plain,spm", "--kind", "inner"]));
    let adapted = adapted.expect_code(0).json();
    assert_eq!(adapted["setup"]["adapter"], "gemma-3-270m-fim", "the base and its adapter side by side");
    let places = adapted["places"].as_array().expect("places are a list");
    assert!(places.iter().all(|place| place["kind"] == "inside a line"), "{adapted:#}");
    let refused = run(arguments.iter().chain(&["--adapter", "none", "--order", "psm"])).expect_refusal(2);
    assert!(refused.err.contains("--fim-ids"), "{refused:?}");
    run(["bench", "fim", "--repo", &format!("{repo}/none"), "--model", &model]).expect_refusal(3);
}

#[test]
fn a_picture_is_timed_against_the_machines_peak() {
    let folder = nonsense::paligemma();
    let model = folder.path().to_string_lossy();
    let ask = ["bench", "image", "--model", &model, "--rounds", "3"];
    let report = run(ask.iter().chain(&["--json"])).expect_code(0).json();
    assert_eq!(report["what"], "image", "{report:#}");
    assert_eq!(report["all_ms_per_image"].as_array().map(Vec::len), Some(3), "{report:#}");
    let number = |name: &str| report[name].as_f64().filter(|n| *n > 0.0).expect(name);
    let speed = number("gflop_per_image") / number("ms_per_image") * 1000.0;
    assert!((number("gflops") / speed - 1.0).abs() < 1e-6, "{report:#}");
    assert!((number("fraction_of_peak") * number("peak_gflops") / speed - 1.0).abs() < 1e-6, "{report:#}");
    let said = run(ask).expect_code(0);
    assert!(said.out.contains("% of"), "{}", said.out);

    let text = places::golden("gemma1-mqa");
    let refused = run(["bench", "image", "--model", &text.to_string_lossy()]).expect_refusal(2);
    assert!(refused.err.contains("reads no pictures"), "{}", refused.err);
}
