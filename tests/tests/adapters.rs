//! Adapters from outside: the one that comes with the program, others by path, and what is no adapter or for another model.

use gemma_tests::binary::run;
use gemma_tests::places;
use serde_json::Value;
use tempfile::TempDir;

/// What stands behind the cursor has to be met: `fmt.Println(|, age)`.
const SAMPLE: &str = "\
package main

import \"fmt\"

func show(name string, age int) {
\tfmt.Println(, age)
}
";

fn sample() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("show.go");
    std::fs::write(&path, SAMPLE).expect("the folder can be written");
    let place = format!("{}:6:14", path.display());
    (folder, place)
}

fn complete(adapter: &[&str]) -> Value {
    let (_folder, place) = sample();
    let model = places::real_model();
    let arguments = ["complete", "--model", model.to_str().expect("a path in UTF-8"), "--json", &place];
    run(arguments.into_iter().chain(adapter.iter().copied())).expect_code(0).json()
}

#[test]
fn the_default_model_fills_in_where_its_base_cannot() {
    let filled = complete(&[]);
    assert_eq!(filled["reason"], "shown", "{filled:#}");
    assert_eq!(filled["text"], "name");
    let alone = complete(&["--adapter", "none"]);
    assert_eq!(alone["text"], "", "the base does not know what stands behind the cursor: {alone:#}");
    let named = complete(&["--adapter", "built-in"]);
    assert_eq!(named["tokens"], filled["tokens"], "the same by its name");
}

#[test]
fn the_setting_is_obeyed_and_the_flag_goes_before_it() {
    let (folder, place) = sample();
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{ "adapter": "none" }"#).expect("the folder can be written");
    let model = places::real_model();
    let (config, model) =
        (config.to_str().expect("a path in UTF-8"), model.to_str().expect("a path in UTF-8"));
    let arguments = ["complete", "--config", config, "--model", model, "--json", &place];
    assert_eq!(run(arguments).expect_code(0).json()["text"], "");
    let flag = run(arguments.into_iter().chain(["--adapter", "built-in"])).expect_code(0).json();
    assert_ne!(flag["text"], "");
}

#[test]
fn model_info_tells_what_an_adapter_is() {
    let folder = places::golden("adapters/gemma3-text-rows");
    let json =
        run(["model", "info", "--json", folder.to_str().expect("a path in UTF-8")]).expect_code(0).json();
    assert_eq!((&json["rank"], &json["layers"]), (&16.into(), &7.into()), "{json:#}");
    assert_eq!(json["tokens"], serde_json::json!([67, 68, 69, 70]));
    assert_eq!(json["infill"]["middle"], 68);
    let file = places::golden("adapters/gemma1-mqa-lora/adapter.gguf");
    let text = run(["model", "info", file.to_str().expect("a path in UTF-8")]).expect_code(0).out;
    assert!(text.contains("down_proj") && text.contains("rank"), "{text}");
    let model = run(["model", "info", "--json", places::real_model().to_str().expect("a path in UTF-8")]);
    assert_eq!(model.expect_code(0).json()["adapter"], "gemma-3-270m-fim");
}

#[test]
fn what_is_no_adapter_for_a_model_gets_one_clear_line() {
    let (_folder, place) = sample();
    let model = places::real_model();
    for (adapter, code, says) in [
        (places::golden("adapters/gemma1-mqa-lora"), 2, "was trained on"),
        (places::golden("gemma1-mqa"), 3, "no adapter"),
        (places::golden("not-there"), 3, "no such file"),
        (model.clone(), 4, "is a model and not an adapter"),
    ] {
        let (adapter, model) = (adapter.to_str().expect("UTF-8"), model.to_str().expect("UTF-8"));
        let ended = run(["complete", "--model", model, "--adapter", adapter, &place]);
        let ended = ended.expect_refusal(code);
        assert!(ended.err.contains(says), "{adapter}: {}", ended.err);
    }
}
