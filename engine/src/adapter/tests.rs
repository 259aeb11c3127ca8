//! Adapters as PEFT and llama.cpp write them, and what is wrong with others.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Checkpoint;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden").join(case)
}

fn base(case: &str) -> ModelConfig {
    Checkpoint::open(&golden(case)).unwrap().config().clone()
}

/// A golden adapter's folder, its configuration changed.
fn changed(case: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> tempfile::TempDir {
    let (from, folder) = (golden("adapters").join(case), tempfile::tempdir().unwrap());
    fs::copy(from.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
        .unwrap();
    let text = fs::read(from.join(CONFIG_FILE)).unwrap();
    let Value::Object(mut config) = serde_json::from_slice(&text).unwrap() else { panic!("no object") };
    change(&mut config);
    fs::write(folder.path().join(CONFIG_FILE), Value::Object(config).to_string()).unwrap();
    folder
}

#[test]
fn a_folder_of_peft_and_a_file_of_llama_cpp_are_the_same_adapter() {
    for case in ["gemma1-mqa-lora", "gemma2-gqa-rslora", "gemma3-text-patterns"] {
        let folder = golden("adapters").join(case);
        let theirs = Adapter::open(&folder).unwrap();
        let file = Adapter::open(&folder.join("adapter.gguf")).unwrap();
        let golden: Value = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let base = base(golden["base"].as_str().unwrap());
        theirs.check(&base).unwrap();
        file.check(&base).unwrap();
        assert_eq!(
            theirs.modules().keys().collect::<Vec<_>>(),
            file.modules().keys().collect::<Vec<_>>(),
            "{case}"
        );
        for (module, factors) in theirs.modules() {
            assert_eq!(factors.rank as u64, golden["modules"][module]["rank"].as_u64().unwrap(), "{module}");
            let other = &file.modules()[module];
            assert_eq!(factors.down, other.down, "{case} {module}");
            for (ours, theirs) in factors.up.iter().zip(&other.up) {
                assert!((ours - theirs).abs() <= 1e-6 * ours.abs(), "{case} {module}: {ours} and {theirs}");
            }
        }
    }
}

#[test]
fn rows_of_tokens_are_read_and_tell_the_format_that_they_teach() {
    let adapter = Adapter::open(&golden("adapters/gemma3-text-rows")).unwrap();
    assert_eq!(adapter.rows().keys().copied().collect::<Vec<_>>(), [67, 68, 69, 70]);
    assert_eq!(
        adapter.infill().unwrap().tokens,
        FimTokens { prefix: 67, middle: 68, suffix: 69, separator: 70 }
    );
    let folder = changed("gemma3-text-rows", |_| {});
    let other = r#"{ "prefix": 1, "middle": 2, "suffix": 3, "separator": 4, "order": "psm" }"#;
    fs::write(folder.path().join("fim.json"), other).unwrap();
    let adapter = Adapter::open(folder.path()).unwrap();
    let tokens = FimTokens { prefix: 1, middle: 2, suffix: 3, separator: 4 };
    assert_eq!(adapter.infill(), Some(&Infill { tokens, order: Some("psm".to_owned()) }));
    fs::write(folder.path().join("fim.json"), "{}").unwrap();
    assert!(Adapter::open(folder.path()).unwrap_err().to_string().contains("fim.json"));
}

#[test]
fn what_an_adapter_was_not_trained_on_is_refused() {
    let adapter = Adapter::open(&golden("adapters/gemma1-mqa-lora")).unwrap();
    let says = |case: &str| adapter.check(&base(case)).unwrap_err().to_string();
    assert!(says("gemma1-mha").contains("in the model"), "{}", says("gemma1-mha"));
    assert!(says("recurrentgemma").contains("model.layers"), "{}", says("recurrentgemma"));
    let file = Adapter::open(&golden("adapters/gemma1-mqa-lora/adapter.gguf")).unwrap();
    let error = file.check(&base("gemma2-gqa")).unwrap_err().to_string();
    assert!(error.contains("was trained for"), "{error}");
    let rows = Adapter::open(&golden("adapters/gemma3-text-rows")).unwrap();
    let narrow = ModelConfig { vocab: 68, ..base("gemma3-text") };
    assert!(rows.check(&narrow).unwrap_err().to_string().contains("token 68"));
}

#[test]
fn what_is_more_than_low_rank_products_is_refused() {
    for (key, value, says) in [
        ("use_dora", json!(true), "DoRA"),
        ("peft_type", json!("IA3"), "IA3"),
        ("bias", json!("all"), "biases"),
        ("lora_bias", json!(true), "biases"),
        ("fan_in_fan_out", json!(true), "turned"),
        ("modules_to_save", json!(["lm_head"]), "lm_head"),
        ("trainable_token_indices", json!({ "lm_head": [1] }), "lm_head"),
        ("trainable_token_indices", json!({ "embed_tokens": ["a"] }), "token ids"),
        ("trainable_token_indices", json!([3]), "rows of the tokens"),
        ("r", json!(0), "rank"),
        ("r", json!("x"), CONFIG_FILE),
        ("alpha_pattern", json!({ "(": 3 }), "alpha_pattern"),
    ] {
        let folder = changed("gemma1-mqa-lora", |config| drop(config.insert(key.to_owned(), value.clone())));
        let error = Adapter::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{key} {value}: {error}");
    }
}

#[test]
fn broken_and_other_files_get_clear_errors() {
    let folder = changed("gemma1-mqa-lora", |_| {});
    let weights = folder.path().join("adapter_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    for len in [0, 7, 100, whole.len() - 1] {
        fs::write(&weights, &whole[..len]).unwrap();
        let error = Adapter::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadFile, "{error}");
    }
    fs::remove_file(&weights).unwrap();
    assert_eq!(Adapter::open(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
    fs::remove_file(folder.path().join(CONFIG_FILE)).unwrap();
    assert_eq!(Adapter::open(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);

    let gguf = fs::read(golden("adapters/gemma1-mqa-lora/adapter.gguf")).unwrap();
    let file = folder.path().join("half.gguf");
    for len in [0, 40, gguf.len() / 2] {
        fs::write(&file, &gguf[..len]).unwrap();
        assert!(Adapter::open(&file).is_err(), "{len} bytes");
    }
    let error = Adapter::open(&golden("gemma1-mqa")).unwrap_err().to_string();
    assert!(error.contains("no adapter"), "{error}");
    for model in [golden("adapters/gemma1-mqa-lora"), golden("adapters/gemma1-mqa-lora/adapter.gguf")] {
        let error = Checkpoint::open(&model).unwrap_err().to_string();
        assert!(error.contains("--adapter"), "an adapter is no model: {error}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for (case, tensor, says) in [
        ("gemma3-text-rows", "trainable_tokens_delta", "tokens' rows"),
        ("gemma1-mqa-lora", "lora_A.weight", "a factor of model.layers"),
    ] {
        let folder = changed(case, |_| {});
        let weights = folder.path().join("adapter_model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let tensors: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..head]).unwrap();
        let (_, place) = tensors.iter().find(|(name, _)| name.ends_with(tensor)).unwrap();
        assert_eq!(place["dtype"], "F32", "{case}");
        let at = head + place["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&weights, bytes).unwrap();
        let error = Adapter::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("not finite"), "{case}: {error}");
    }
}

#[test]
fn the_one_that_comes_with_the_program_can_be_read_and_teaches_filling_in() {
    assert!(built_in(&base("gemma3-text")).is_none(), "it is for one base alone");
    let shape = ModelConfig { hidden: 640, ..base("gemma3-text") };
    let layers = shape.layers.iter().cycle().take(18).cloned().collect();
    let adapter = built_in(&ModelConfig { layers, ..shape }).unwrap().unwrap();
    assert_eq!((adapter.modules().len(), adapter.ranks()), (18 * 7, (16, 16)));
    assert_eq!(adapter.rows().len(), 4);
    assert_eq!(adapter.infill().unwrap().order.as_deref(), Some("spm"));
}
