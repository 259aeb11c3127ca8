//! `gemma-ls explain` from outside: sound pictures from end to end, with the tiny golden models (whose words
//! are nonsense), and broken ones, which are refused in a line.

use std::path::{Path, PathBuf};
use std::process::Command;

use gemma_engine::Picture;
use gemma_tests::binary::{self, Ran, run};
use gemma_tests::nonsense;
use gemma_tests::places;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tokens of a picture in the golden PaliGemma, and pictures that its picture of 121 x 87 pixels becomes at 56 a
/// side: the whole and three by two tiles.
const TOKENS: u64 = 16;
const PICTURES: u64 = 7;

fn paligemma() -> TempDir {
    nonsense::paligemma()
}

fn gemma3() -> TempDir {
    let named = [(250, "<start_of_image>"), (251, "<end_of_image>"), (252, "<image_soft_token>")].into_iter();
    let turns = [(253, "<start_of_turn>"), (254, "<end_of_turn>")];
    nonsense::model("gemma3-mm", 256, &named.chain(turns).collect::<Vec<_>>())
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

fn picture() -> String {
    text(places::golden("paligemma/image.png"))
}

/// Runs `explain` on a picture with a model.
fn explain(model: &Path, image: &str, more: &[&str]) -> Ran {
    let model = text(model);
    run(["explain", image, "--model", &model, "-n", "12"].iter().chain(more))
}

fn timing(answer: &Value, name: &str) -> u64 {
    answer["timings"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {answer:#}"))
}

#[test]
fn a_screenshot_is_explained_and_a_second_question_encodes_nothing() {
    let model = paligemma();
    let ran = explain(model.path(), &picture(), &["what is it?", "what is wrong?", "--json"]).expect_code(0);
    let json = ran.json();
    assert_eq!((&json["width"], &json["height"], &json["tiles"]), (&json!(121), &json!(87), &json!(6)));
    let answers = json["answers"].as_array().expect("a list");
    assert_eq!(answers.len(), 2, "{json:#}");
    assert_eq!(timing(&answers[0], "image_tokens"), PICTURES * TOKENS, "{json:#}");
    // The caption and the answer look at the same picture.
    assert_eq!(timing(&answers[0], "image_tokens_cached"), TOKENS, "{json:#}");
    assert_eq!(timing(&answers[1], "image_tokens"), 0, "{json:#}");
    assert_eq!(timing(&answers[1], "image_tokens_cached"), TOKENS, "{json:#}");
    assert_eq!(answers[1]["question"], "what is wrong?");
    for name in ["caption", "text", "answer"] {
        assert!(json["readings"][name].is_string(), "no {name}: {json:#}");
    }
    assert!(ran.err.is_empty(), "--json says nothing else: {ran:?}");
}

#[test]
fn text_streams_as_the_json_says_and_a_line_tells_the_time() {
    let model = paligemma();
    let json = explain(model.path(), &picture(), &["--json"]).expect_code(0).json();
    let plain = explain(model.path(), &picture(), &[]).expect_code(0);
    let text = json["answers"][0]["text"].as_str().expect("a text");
    assert_eq!(plain.out.trim_end(), text.trim_end());
    assert!(!text.trim().is_empty(), "{json:#}");
    assert!(plain.err.contains("112 image tokens encoded"), "{plain:?}");
    let quiet = explain(model.path(), &picture(), &["--quiet"]).expect_code(0);
    assert_eq!(quiet.err, "");
}

#[test]
fn single_readings_do_one_thing() {
    let model = paligemma();
    for (task, more, pictures) in
        [("caption", &[][..], 1), ("ocr", &[], 6), ("answer", &["why?"], 1), ("ocr", &["--tiles", "1"], 1)]
    {
        let arguments = [&["--task", task, "--json"], more].concat();
        let json = explain(model.path(), &picture(), &arguments).expect_code(0).json();
        assert_eq!(json["answers"][0]["task"], task);
        assert_eq!(timing(&json["answers"][0], "image_tokens"), pictures * TOKENS, "{task}: {json:#}");
    }
}

#[test]
fn boxes_are_found_named_and_drawn() {
    let (model, folder) = (paligemma(), tempfile::tempdir().expect("a temporary folder can be made"));
    let output = folder.path().join("boxes.png");
    let more = ["thing", "--task", "detect", "--output", &text(&output), "--json", "-n", "60"];
    let json = run(["explain", &picture(), "--model", &text(model.path())].iter().chain(&more));
    let json = json.expect_code(0).json();
    let found = json["answers"][0]["found"].as_array().expect("a list");
    assert!(!found.is_empty(), "with a vocabulary of marks nothing was found: {json:#}");
    for found in found {
        let at = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("no {name}: {found:#}"));
        assert!(at("x0") < at("x1") && at("x1") <= 121, "{found:#}");
        assert!(at("y0") < at("y1") && at("y1") <= 87, "{found:#}");
    }
    let drawn = Picture::open(&output).unwrap_or_else(|e| panic!("{e}"));
    let original = Picture::open(Path::new(&picture())).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((drawn.width(), drawn.height()), (121, 87));
    assert_ne!(drawn.pixels(), original.pixels());
}

#[test]
fn a_gemma_3_is_asked_directly_and_keeps_the_picture() {
    let model = gemma3();
    let image = text(places::golden("gemma3-mm/image0.png"));
    let json = explain(model.path(), &image, &["what is it?", "why?", "--json"]).expect_code(0).json();
    let answers = json["answers"].as_array().expect("a list");
    assert_eq!(timing(&answers[0], "image_tokens"), 4, "{json:#}");
    assert_eq!(timing(&answers[1], "image_tokens"), 0, "{json:#}");
    assert_eq!(json["chat_model"], Value::Null);
    explain(model.path(), &image, &["cat", "--task", "detect"]).expect_refusal(4);
}

#[test]
fn a_chat_model_writes_from_the_readings() {
    let (model, writer) = (paligemma(), text(places::real_model()));
    let more = ["what is wrong?", "--chat-model", &writer, "--tiles", "1", "--json"];
    let json = explain(model.path(), &picture(), &more).expect_code(0).json();
    assert_eq!(json["chat_model"], "gemma-3-270m-q4_k_m");
    assert!(json["answers"][0]["text"].as_str().is_some_and(|text| !text.is_empty()), "{json:#}");
    // The writer reads more than the commands to the picture model have.
    assert!(timing(&json["answers"][0], "prefill_tokens") > 100, "{json:#}");
}

#[test]
fn a_picture_may_come_from_standard_input() {
    let model = paligemma();
    let image = std::fs::File::open(picture()).expect("the golden picture is there");
    let mut command = Command::new(binary::path());
    command.args(["explain", "-", "--task", "caption", "-n", "4", "--json", "--model"]).arg(model.path());
    let output = command.stdin(image).output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    assert_eq!(json["width"], 121);
}

/// A PNG whose header says another size, with the checksum that goes with it.
fn of_size(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::fs::read(picture()).expect("the golden picture is there");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = u32::MAX;
    for byte in &png[12..29] {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 * (sum & 1));
        }
    }
    png[29..33].copy_from_slice(&(!sum).to_be_bytes());
    png
}

#[test]
fn bad_pictures_are_refused_in_a_line() {
    let (model, folder) = (paligemma(), tempfile::tempdir().expect("a temporary folder can be made"));
    let whole = std::fs::read(picture()).expect("the golden picture is there");
    let cases: [(&str, &[u8], i32, &str); 6] = [
        ("empty.png", b"", 4, "empty"),
        ("truncated.png", &whole[..whole.len() / 2], 4, "truncated PNG"),
        ("header.png", &whole[..20], 4, "truncated PNG"),
        ("text.png", b"this is no picture at all, but a text", 4, "no picture of a known format"),
        ("huge.png", &of_size(100_000, 100_000), 2, "100000 x 100000 pixels are too many"),
        ("nothing.png", &of_size(0, 0), 4, "nothing.png"),
    ];
    for (name, bytes, code, problem) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("the folder can be written");
        let ran = explain(model.path(), &text(&path), &[]).expect_refusal(code);
        let first = ran.err.lines().next().unwrap_or_default();
        assert!(first.contains(name) && first.contains(problem), "{first}");
        assert!(ran.err.lines().count() <= 2, "a line and a remedy: {}", ran.err);
        assert_eq!(ran.out, "");
    }
    let missing = text(folder.path().join("missing.png"));
    explain(model.path(), &missing, &[]).expect_refusal(3);
    explain(model.path(), &text(folder.path()), &[]).expect_refusal(4);
    let error = explain(model.path(), &missing, &["--json"]).expect_code(3).json();
    assert_eq!(error["error"]["exit_code"], 3);
    // The content counts, not the name.
    let renamed = folder.path().join("really-a-png.jpg");
    std::fs::write(&renamed, &whole).expect("the folder can be written");
    explain(model.path(), &text(&renamed), &["--task", "caption"]).expect_code(0);
}

#[test]
fn without_a_model_that_sees_the_help_is_a_command() {
    let ran = run(["explain", &picture(), "--model", &text(places::real_model())]).expect_refusal(4);
    assert!(ran.err.contains("reads text only") && ran.err.contains("model pull"), "{ran:?}");
    let nowhere = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new(binary::path());
    command.args(["explain", &picture()]).env("GEMMA_LS_MODELS", nowhere.path());
    for name in ["HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env(name, nowhere.path());
    }
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("gemma-ls model pull paligemma"), "{said}");
}

#[test]
fn a_model_that_sees_is_found_by_itself() {
    let models: PathBuf = tempfile::tempdir().expect("a temporary folder can be made").keep();
    let tiny = paligemma();
    let place = models.join("tiny-paligemma");
    std::fs::create_dir(&place).expect("the folder can be written");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(tiny.path().join(file), place.join(file)).expect("the folder can be written");
    }
    let mut command = Command::new(binary::path());
    command.args(["explain", &picture(), "--task", "caption", "-n", "4", "--json"]);
    command.env("GEMMA_LS_MODELS", &models).env("HOME", &models).env("XDG_CONFIG_HOME", &models);
    let output = command.output().expect("the binary runs");
    std::fs::remove_dir_all(&models).expect("the folder can be removed");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(json["model"], "tiny-paligemma");
}
