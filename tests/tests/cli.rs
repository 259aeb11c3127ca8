//! The shipped binary from outside: what scripts rely on.

use std::path::{Path, PathBuf};

use gemma_tests::binary::{self, run, run_at_home, run_in};
use gemma_tests::golden::{self, Case};
use gemma_tests::numbers::{Matrix, worst};
use gemma_tests::places;
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMINGS: [&str; 7] =
    ["queue_ms", "prefill_tokens", "cached_tokens", "prefill_ms", "decode_tokens", "decode_ms", "ttft_ms"];
const FINISH_REASONS: [&str; 4] = ["stop", "length", "deadline", "cancelled"];

const SAMPLE: &str = "\
def fibonacci(n):
    \"\"\"Return the n-th Fibonacci number.\"\"\"
    if n < 2:
        return n
    return fibonacci(n - 1) + 

print(fibonacci(10))
";

fn real_model() -> String {
    places::real_model().to_string_lossy().into_owned()
}

/// A folder with the sample as `fibonacci.py`, and something secret as `.env`.
fn workspace() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("fibonacci.py"), SAMPLE).expect("the folder can be written");
    std::fs::write(folder.path().join(".env"), "TOKEN=abc\nOTHER=").expect("the folder can be written");
    folder
}

/// The fields that every answer of a model has.
fn check_answer(answer: &Value) {
    assert!(answer["text"].is_string(), "{answer:#}");
    let tokens = answer["tokens"].as_array().expect("tokens are a list");
    assert!(tokens.iter().all(Value::is_u64), "{answer:#}");
    let reason = answer["finish_reason"].as_str().expect("a finish reason is a text");
    assert!(FINISH_REASONS.contains(&reason), "{answer:#}");
    for name in TIMINGS {
        let number = answer["timings"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {answer:#}"));
        assert!(number >= 0.0 && number.is_finite(), "{answer:#}");
    }
    let generated = answer["timings"]["decode_tokens"].as_u64().expect("a count");
    assert!(generated >= tokens.len() as u64, "{answer:#}");
}

#[test]
fn generate_answers_as_documented() {
    let golden: golden::RealModel = golden::json("gemma3-270m-gguf/golden.json");
    let prompt = golden.prompts.iter().find(|p| p.greedy_margins[..8].iter().all(|m| *m > 0.5));
    let prompt = prompt.expect("the golden data has a prompt whose answer is certain");
    let answer = run(["generate", "--model", &real_model(), "--prompt", &prompt.text, "-n", "8", "--json"])
        .expect_code(0)
        .json();
    check_answer(&answer);
    assert_eq!(answer["tokens"], json!(prompt.greedy_ids[..8]));
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(answer["timings"]["prefill_tokens"], prompt.ids.len());
    assert_eq!(answer["timings"]["decode_tokens"], 8);
}

#[test]
fn generate_streams_what_its_json_says() {
    let folder = workspace();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "The numbers from one to ten: one, two, three,")
        .expect("the folder can be written");
    let file = file.to_string_lossy();
    let arguments = ["generate", "--model", &real_model(), "--prompt-file", &file, "-n", "12"];
    let json = run(arguments.iter().chain(&["--json"])).expect_code(0).json();
    let text = run(arguments).expect_code(0).out;
    assert_eq!(json["text"].as_str(), Some(text.as_str()));
    assert!(!text.is_empty());

    let stop = text.split_whitespace().nth(1).expect("twelve tokens are more than one word");
    let stopped = run(arguments.iter().chain(&["--json", "--stop", stop])).expect_code(0).json();
    assert_eq!(stopped["finish_reason"], "stop");
    assert!(!stopped["text"].as_str().expect("a text").contains(stop), "{stopped:#}");
}

#[test]
fn sampling_is_repeatable_by_its_seed() {
    let with_seed = |seed: &str| {
        let model = real_model();
        let arguments = ["generate", "--model", &model, "--prompt", "Once upon a time", "-n", "16"];
        let sampling = ["--temperature", "1.5", "--top-k", "50", "--seed", seed, "--json"];
        run(arguments.iter().chain(&sampling)).expect_code(0).json()["tokens"].clone()
    };
    assert_eq!(with_seed("1"), with_seed("1"));
    assert_ne!(with_seed("1"), with_seed("2"));
}

#[test]
fn complete_answers_as_documented() {
    let folder = workspace();
    let model = real_model();
    let place = "fibonacci.py:5:31";
    let answer =
        run_in(folder.path(), ["complete", place, "--model", &model, "--json"]).expect_code(0).json();
    check_answer(&answer);
    assert_eq!(answer["reason"], "shown", "{answer:#}");
    let text = answer["text"].as_str().expect("a text");
    assert!(text.contains("fibonacci(n"), "{answer:#}");
    for end in ["start", "end"] {
        assert_eq!(answer["range"][end]["line"], 4, "{answer:#}");
        assert!(answer["range"][end]["character"].is_u64(), "{answer:#}");
    }
    let plain = run_in(folder.path(), ["complete", place, "--model", &model]).expect_code(0);
    assert_eq!(plain.out, format!("{text}\n"));
}

#[test]
fn complete_says_why_there_is_nothing() {
    let folder = workspace();
    let answer = run_in(folder.path(), ["complete", ".env:2:7", "--model", &real_model(), "--json"]);
    let answer = answer.expect_code(0).json();
    assert_eq!((&answer["reason"], &answer["text"]), (&json!("disabled"), &json!("")), "{answer:#}");
    assert_eq!(answer["tokens"], json!([]), "{answer:#}");
}

#[test]
fn chat_answers_as_documented() {
    let folder = workspace();
    let model = real_model();
    let arguments = ["chat", "fibonacci.py", "What does this file do?", "--model", &model, "--json"];
    let answer = run_in(folder.path(), arguments).expect_code(0).json();
    check_answer(&answer);
    assert!(!answer["text"].as_str().expect("a text").is_empty(), "{answer:#}");
}

/// Asks `inspect logits` from outside.
fn inspect(model: &Path, input: &Value, more: &[&str]) -> Matrix {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (from, to) = (folder.path().join("in.json"), folder.path().join("out.safetensors"));
    std::fs::write(&from, input.to_string()).expect("the folder can be written");
    let paths = [model, &from, &to].map(|path| path.to_string_lossy().into_owned());
    let arguments = ["inspect", "logits", "--model", &paths[0], "--input", &paths[1], "--output", &paths[2]];
    run(arguments.iter().chain(more)).expect_code(0);
    let bytes = std::fs::read(&to).expect("it says that it wrote");
    let mut tensors = golden::matrices(&bytes).expect("what it wrote is safetensors");
    tensors.remove("logits").expect("the tensor is called logits")
}

#[test]
fn inspect_logits_gives_the_golden_logits_from_outside() {
    for name in ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale"] {
        let case = Case::read(name);
        let prompt = case.prompt("long");
        let len = prompt.ids.len();
        for input in
            [json!({"input_ids": prompt.ids}), json!({"input_ids": prompt.ids, "split": [1, 4, len - 5]})]
        {
            for device in ["cpu", "reference"] {
                let logits = inspect(&places::golden(name), &input, &["--device", device]);
                let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
                assert!(distance <= prompt.tolerance(), "{name} on {device}: {distance:e}");
            }
        }
    }
}

#[test]
fn inspect_settings_prints_the_schema_of_the_settings() {
    let schema = run(["inspect", "settings"]).expect_code(0).json();
    assert_eq!(schema["properties"]["maxTokens"]["type"], "integer");
    let readme = std::fs::read_to_string(places::repository().join("README.md")).expect("there is a README");
    for (name, setting) in schema["properties"].as_object().expect("settings") {
        assert!(setting["description"].is_string() && setting.get("default").is_some(), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "the README does not name {name}");
    }
}

#[test]
fn stats_show_what_was_counted_and_forget_it() {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let stats = |more: &[&str]| run_at_home(home.path(), ["stats"].iter().chain(more));
    let nothing = stats(&[]).expect_code(0).out;
    assert!(nothing.starts_with("Nothing was counted yet"), "{nothing}");
    let place = nothing.trim().lines().last().and_then(|line| line.strip_prefix("Kept in "));
    let file = Path::new(place.expect("it says where"));
    assert!(file.starts_with(home.path()) && !file.exists(), "looking changes nothing");

    let counted = json!({
        "since": "2026-01-02", "shown": 10, "accepted": 4, "words": 1, "lines": 2, "wholes": 3, "characters": 200,
        "languages": {"rust": {"shown": 10, "accepted": 4, "characters": 200}},
    });
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("the folder can be made");
    std::fs::write(file, counted.to_string()).expect("the folder can be written");
    let mut expected = counted.clone();
    expected["timeSavedMs"] = json!(60_000);
    assert_eq!(stats(&["--json"]).expect_code(0).json(), expected);
    let text = stats(&[]).expect_code(0).out;
    for part in ["Since 2026-01-02", "(40 %)", "60 seconds of typing", "4 of 10"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    std::fs::write(file, "{").expect("the folder can be written");
    let damaged = stats(&["--json"]).expect_code(0);
    assert_eq!(damaged.json()["shown"], 0);
    assert!(damaged.err.contains("statistics.json"), "{damaged:?}");
    stats(&["--reset"]).expect_code(0);
    let after = stats(&["--json"]).expect_code(0);
    assert_eq!((after.err.as_str(), &after.json()["shown"]), ("", &json!(0)));
    assert_eq!(std::fs::read_to_string(format!("{}.damaged", file.display())).expect("kept aside"), "{");

    std::fs::remove_dir_all(home.path().join("data")).expect("it is there");
    std::fs::write(home.path().join("data"), "").expect("the folder can be written");
    if file.starts_with(home.path().join("data")) {
        assert_eq!(stats(&["--json"]).expect_code(0).json()["shown"], 0);
        stats(&["--reset"]).expect_refusal(1);
    }
}

#[test]
fn inspect_logits_refuses_senseless_input() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let input = folder.path().join("in.json");
    for senseless in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"input_ids": []}"#,
        r#"{"input_ids": [2, 99999]}"#,
        r#"{"input_ids": [2, 3], "split": [5]}"#,
    ] {
        std::fs::write(&input, senseless).expect("the folder can be written");
        let (model, output) = (places::golden("gemma1-mqa"), folder.path().join("out"));
        let paths = [&model, &input, &output].map(|path| path.to_string_lossy().into_owned());
        let ran =
            run(["inspect", "logits", "--model", &paths[0], "--input", &paths[1], "--output", &paths[2]]);
        let code = if matches!(ran.code, Some(2)) { 2 } else { 4 };
        ran.expect_refusal(code);
        assert!(!output.exists(), "{senseless}");
    }
}

#[test]
fn every_subcommand_has_help_that_teaches() {
    let top = run(["--help"]).expect_code(0).out;
    assert!(top.contains("Exit codes"), "{top}");
    for command in [
        "lsp",
        "complete",
        "chat",
        "explain",
        "generate",
        "model",
        "model list",
        "model pull",
        "model info",
        "model quantize",
        "doctor",
        "stats",
        "inspect",
        "inspect logits",
        "inspect settings",
        "try",
    ] {
        let help = run(command.split(' ').chain(["--help"])).expect_code(0).out;
        assert!(help.contains("Usage: gemma-ls"), "{command}: {help}");
        assert!(help.lines().count() >= 8, "the help of {command} teaches nothing: {help}");
        let first = command.split(' ').next().unwrap_or_default();
        assert!(top.contains(first), "the help does not name {first}");
    }
    assert!(run(["--version"]).expect_code(0).out.starts_with("gemma-ls "));
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let folder = workspace();
    let model = real_model();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF, but not really").expect("the folder can be written");
    let broken = broken.to_string_lossy().into_owned();
    let cases: [(&[&str], i32); 10] = [
        (&["no-such-command"], 2),
        (&["complete"], 2),
        (&["complete", "fibonacci.py", "--model", &model], 2),
        (&["complete", "fibonacci.py:0:1", "--model", &model], 2),
        (&["complete", "fibonacci.py:999:1", "--model", &model], 2),
        (&["complete", "no-such-file.py:1:1", "--model", &model], 3),
        (&["generate", "--model", "./no/such/model.gguf", "--prompt", "x"], 3),
        (&["generate", "--model", &model], 2),
        (&["model", "info", &broken], 4),
        (&["generate", "--model", &broken, "--prompt", "x"], 4),
    ];
    for (arguments, code) in cases {
        println!("{arguments:?}");
        run_in(folder.path(), arguments).expect_refusal(code);
    }
}

#[test]
fn a_failure_in_json_is_json_too() {
    let ran = run(["generate", "--model", "./no/such/model.gguf", "--prompt", "x", "--json"]);
    let error = ran.expect_code(3).json()["error"].clone();
    assert_eq!(error["exit_code"], 3, "{error:#}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("no/such/model.gguf")), "{error:#}");
}

#[test]
fn model_info_knows_the_real_model() {
    let info = run(["model", "info", &real_model(), "--json"]).expect_code(0).json();
    let text = info.to_string();
    assert!(text.contains("gemma3"), "{info:#}");
    let plain = run(["model", "info", &real_model()]).expect_code(0).out;
    assert!(plain.contains("262144") || plain.contains("262,144"), "{plain}");
}

#[test]
fn model_info_tells_networks_apart() {
    let info = |path: &Path| {
        let path = path.to_string_lossy();
        let json = run(["model", "info", &path, "--json"]).expect_code(0).json();
        (json, run(["model", "info", &path]).expect_code(0).out)
    };
    let (json, text) = info(&places::golden("recurrentgemma"));
    assert_eq!(
        (&json["family"], &json["architecture"]),
        (&json!("RecurrentGemma"), &json!("recurrentgemma"))
    );
    let kinds = json["kinds"].as_array().expect("kinds are a list");
    let kinds: Vec<_> = kinds.iter().map(|kind| (&kind["kind"], &kind["layers"])).collect();
    assert_eq!(kinds, [(&json!("recurrent"), &json!(4)), (&json!("sliding"), &json!(1))]);
    assert!(json["state_bytes"].as_u64() > Some(0), "{json:#}");
    assert!(text.contains("4 recurrent") && text.contains("attention with window"), "{text}");

    let (json, text) = info(&places::golden("paligemma2"));
    assert_eq!((&json["family"], &json["architecture"]), (&json!("PaliGemma 2"), &json!("paligemma2")));
    assert!(json["pictures"]["image_tokens"].as_u64() > Some(0), "{json:#}");
    assert!(text.contains("pixels as"), "{text}");

    let (json, text) = info(&places::real_model());
    assert_eq!((&json["family"], &json["parameters"]), (&json!("Gemma 3"), &json!(268_098_176)));
    assert_eq!((&json["pictures"], &json["missing"]), (&Value::Null, &Value::Null));
    assert!(text.contains("18: 15 attention with window 512, 3 full attention"), "{text}");
    // 8192 tokens of 18 layers, keys and values of one head of 256, in f16.
    assert_eq!(json["context_bytes"], 8192 * 18 * 2 * 256 * 2);
}

#[test]
fn model_info_needs_no_weights() {
    let published = places::repository().join("tests/fixtures/configurations/recurrentgemma-9b");
    let info = run(["model", "info", &published.to_string_lossy(), "--json"]).expect_code(0).json();
    assert_eq!((&info["parameters"], &info["weight_bytes"]), (&json!(8_579_977_216_u64), &Value::Null));
    assert!(info["missing"].as_str().is_some_and(|missing| missing.contains("safetensors")), "{info:#}");
    let text = run(["model", "info", &published.to_string_lossy()]).expect_code(0).out;
    assert!(text.contains("38: 26 recurrent of width 4096, 12 attention with window 2048"), "{text}");

    // The vocabulary tells CodeGemma from Gemma.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let config = folder.path().join("config.json");
    let published = places::repository().join("tests/fixtures/configurations/codegemma-2b/config.json");
    std::fs::copy(published, &config).expect("the folder can be written");
    for (vocabulary, family, infill) in [("codegemma", "CodeGemma", true), ("gemma", "Gemma 1", false)] {
        std::fs::copy(places::tokenizer_json(vocabulary), folder.path().join("tokenizer.json"))
            .expect("the folder can be written");
        let info = run(["model", "info", &folder.path().to_string_lossy(), "--json"]).expect_code(0).json();
        assert_eq!((&info["family"], &info["infill"]), (&json!(family), &json!(infill)), "{info:#}");
        assert_eq!((&info["chat"], &info["chat_template"]), (&json!(true), &json!(false)), "{info:#}");
    }

    std::fs::remove_file(folder.path().join("tokenizer.json")).expect("it was written");
    for broken in
        ["{", "{}", r#"{"model_type": "llama"}"#, r#"{"model_type": "gemma", "hidden_size": "wide"}"#]
    {
        std::fs::write(&config, broken).expect("the folder can be written");
        run(["model", "info", &folder.path().to_string_lossy()]).expect_refusal(4);
    }
}

#[test]
fn the_published_models_can_be_pulled_by_name() {
    let listed = run(["model", "list", "--json"]).expect_code(0).json();
    let known = listed["known"].as_array().expect("known models are a list");
    for (name, pictures) in [
        ("codegemma-2b", false),
        ("gemma-2-27b-it", false),
        ("gemma-3-27b-it", false),
        ("recurrentgemma-2b-it", false),
        ("recurrentgemma-9b", false),
        ("paligemma-3b-pt-896", true),
        ("paligemma-3b-mix-448", true),
        ("paligemma2-28b-pt-224", true),
    ] {
        let entry = known.iter().find(|entry| entry["name"] == name);
        let entry = entry.unwrap_or_else(|| panic!("{name} is not known: {listed:#}"));
        assert_eq!((&entry["pictures"], &entry["licence"]), (&json!(pictures), &json!(true)), "{entry:#}");
        assert_eq!(
            entry["repo"],
            format!("google/{name}").replace("gemma-3-27b-it", "gemma-3-27b-it-qat-q4_0-gguf")
        );
    }
}

#[test]
fn models_are_found_in_the_folder_that_the_environment_names() {
    let folder: PathBuf =
        places::real_model().parent().map(Path::to_path_buf).expect("a file is in a folder");
    let program = std::process::Command::new(binary::path())
        .args(["model", "list", "--json"])
        .env("GEMMA_LS_MODELS", &folder)
        .output()
        .expect("the binary runs");
    let listed = String::from_utf8_lossy(&program.stdout).into_owned();
    assert!(program.status.success(), "{listed}");
    let parsed: Value = serde_json::from_str(&listed).expect("--json prints JSON");
    assert!(parsed.to_string().contains("gemma-3-270m"), "{listed}");
}

#[test]
fn doctor_reports_in_json() {
    let report = run(["doctor", "--json"]).json();
    let fields = report.as_object().expect("an object");
    assert!(!fields.is_empty());
    let text = run(["doctor"]).out;
    assert!(text.lines().count() >= 3, "{text}");
}
