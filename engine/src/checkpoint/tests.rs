//! Checkpoints of every kind: the golden folders, the real GGUF file, files made here, and files damaged
//! in every way that chance finds.

use std::fs;
use std::path::{Path, PathBuf};

use gemma_kernels::Format;
use proptest::prelude::*;

use super::test_gguf::{Writer, tiny};
use super::*;
use crate::config::{Architecture, AttentionSpec, LayerSpec, Mixer, Norms, RopeSpec};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden").join(case)
}

fn attention(layer: &LayerSpec) -> &AttentionSpec {
    match &layer.mixer {
        Mixer::Attention(attention) => attention,
        Mixer::RgLru(_) => panic!("the layer is recurrent"),
    }
}

/// A folder with links to the golden weights, for configurations of our own.
fn folder_with_config(case: &str, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden(case).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

fn changed_config(case: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let text = fs::read(golden(case).join("config.json")).unwrap();
    let Value::Object(mut config) = serde_json::from_slice(&text).unwrap() else { panic!("no object") };
    change(&mut config);
    Value::Object(config).to_string()
}

#[test]
fn golden_folders_open() {
    for case in [
        "gemma1-mha",
        "gemma1-mqa",
        "gemma1-mqa-bf16",
        "gemma2-gqa",
        "gemma2-gqa-bf16",
        "gemma3-text",
        "gemma3-text-ropescale",
        "gemma3-mm",
        "paligemma",
        "paligemma2",
    ] {
        let checkpoint = Checkpoint::open(&golden(case)).unwrap_or_else(|e| panic!("{case}: {e}"));
        let config = checkpoint.config();
        assert_eq!(config.bos, 2, "{case}");
        assert_eq!(config.eos, [1], "{case}");
        assert_eq!(config.norm_offset, 1.0, "{case}");
        let embedding = checkpoint.tensor("model.embed_tokens.weight").unwrap();
        assert_eq!(embedding.shape, [config.vocab, config.hidden], "{case}");
        let bf16 = case.ends_with("bf16");
        assert_eq!(embedding.format, if bf16 { Format::BF16 } else { Format::F32 }, "{case}");
        let scale = (config.hidden as f32).sqrt();
        let expected = if bf16 { half::bf16::from_f32(scale).to_f32() } else { scale };
        assert_eq!(config.embed_scale, expected, "{case}");
    }
}

#[test]
fn published_and_new_form_of_a_config_are_one_network() {
    for case in ["gemma1-mha", "gemma1-mqa", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale"] {
        let legacy = fs::read_to_string(golden(case).join("config_legacy.json")).unwrap();
        let legacy = folder_with_config(case, &legacy);
        let (old, new) = (Checkpoint::open(legacy.path()).unwrap(), Checkpoint::open(&golden(case)).unwrap());
        assert_eq!(old.config(), new.config(), "{case}");
    }
}

#[test]
fn facts_of_the_golden_networks() {
    let open = |case: &str| Checkpoint::open(&golden(case)).unwrap().config().clone();
    let gemma1 = open("gemma1-mqa");
    assert_eq!(gemma1.architecture, Architecture::Gemma);
    for layer in &gemma1.layers {
        assert_eq!(layer.norms, Norms::Pre);
        let a = attention(layer);
        assert_eq!((a.heads, a.kv_heads, a.head_dim, a.scale, a.window), (4, 1, 16, 0.25, None));
        assert!(!a.qk_norm && a.soft_cap.is_none());
    }
    let gemma2 = open("gemma2-gqa");
    let windows: Vec<_> = gemma2.layers.iter().map(|l| attention(l).window).collect();
    assert_eq!(windows, [Some(8), None, Some(8), None]);
    assert_eq!((gemma2.final_soft_cap, attention(&gemma2.layers[0]).soft_cap), (Some(3.0), Some(2.0)));
    assert_eq!(attention(&gemma2.layers[0]).scale, 24f32.powf(-0.5));
    let gemma3 = open("gemma3-text-ropescale");
    for (index, layer) in gemma3.layers.iter().enumerate() {
        let global = index == 5;
        let a = attention(layer);
        assert_eq!(a.window, (!global).then_some(8), "layer {index}");
        let rope =
            if global { RopeSpec { theta: 1e6, factor: 8.0 } } else { RopeSpec { theta: 1e4, factor: 1.0 } };
        assert_eq!(a.rope, rope, "layer {index}");
        assert!(a.qk_norm && layer.norms == Norms::PrePost);
    }
    assert_eq!(open("gemma3-mm").layers, gemma3.layers, "the wrapper's text model is the same");
}

#[test]
fn the_real_gguf() {
    let path = crate::test_cache::real_model();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let config = checkpoint.config();
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!(
        (config.hidden, config.vocab, config.context, config.layers.len()),
        (640, 262_144, 32_768, 18)
    );
    assert_eq!((config.norm_offset, config.embed_scale), (0.0, 640f32.sqrt()));
    assert_eq!((config.bos, config.eos.as_slice()), (2, [1, 106].as_slice()));
    for (index, layer) in config.layers.iter().enumerate() {
        let global = (index + 1) % 6 == 0;
        let a = attention(layer);
        assert_eq!((a.heads, a.kv_heads, a.head_dim, a.scale), (4, 1, 256, 1.0 / 16.0));
        assert_eq!(a.window, (!global).then_some(512));
        assert_eq!(a.rope, RopeSpec { theta: if global { 1e6 } else { 1e4 }, factor: 1.0 });
    }
    let up = checkpoint.tensor("model.layers.0.mlp.up_proj.weight").unwrap();
    assert_eq!((up.format, up.shape.as_slice()), (Format::Q5_0, [2048, 640].as_slice()));
    assert!(!checkpoint.contains("lm_head.weight"));
    assert!(checkpoint.weight_bytes() < fs::metadata(&path).unwrap().len());
    assert_eq!(config.parameters(), 268_098_176);
    // Two thirds of them are the table, which only a pass's last token meets.
    assert_eq!(config.operations(1), 2 * 268_098_176);
    assert_eq!(config.operations(512), 2 * (512 * 100_326_016 + 167_772_160));
}

#[test]
fn gguf_architectures_and_their_quirks() {
    let network = |architecture: &str, change: &dyn Fn(&mut Writer)| {
        let mut writer = tiny(architecture, Format::F32);
        change(&mut writer);
        let file = writer.temp_file();
        Checkpoint::open(file.path()).map(|c| c.config().clone())
    };
    let gemma = network("gemma", &|_| {}).unwrap();
    assert_eq!((gemma.layers[0].norms, attention(&gemma.layers[0]).window), (Norms::Pre, None));
    let gemma2 = network("gemma2", &|w| w.u32("gemma2.attention.sliding_window", 8)).unwrap();
    assert_eq!(attention(&gemma2.layers[0]).window, Some(8));
    assert_eq!(attention(&gemma2.layers[1]).window, None);
    assert_eq!((gemma2.final_soft_cap, attention(&gemma2.layers[0]).soft_cap), (Some(30.0), Some(50.0)));
    let gemma3 = network("gemma3", &|w| {
        w.string("gemma3.rope.scaling.type", "linear");
        w.f32("gemma3.rope.scaling.factor", 8.0);
    })
    .unwrap();
    assert_eq!(attention(&gemma3.layers[0]).rope, RopeSpec { theta: 1e4, factor: 1.0 });
    assert_eq!(attention(&gemma3.layers[5]).rope, RopeSpec { theta: 1e6, factor: 8.0 });
    assert_eq!(gemma3.eos, [1, 5], "<end_of_turn> is in its vocabulary");

    for (architecture, change, kind, named) in [
        ("llama", (|_| {}) as fn(&mut Writer), ErrorKind::Unsupported, "general.architecture `llama`"),
        ("gemma2", |w| w.u32("general.alignment", 24), ErrorKind::BadFile, "general.alignment"),
        ("gemma2", |w| w.u32("gemma2.block_count", 0), ErrorKind::BadFile, "gemma2.block_count"),
        ("gemma2", |w| w.u32("gemma2.block_count", u32::MAX), ErrorKind::BadFile, "gemma2.block_count"),
        ("gemma2", |w| w.u32("gemma2.embedding_length", 96), ErrorKind::BadFile, "model.embed_tokens.weight"),
        ("gemma2", |w| w.string("gemma2.context_length", "x"), ErrorKind::BadFile, "gemma2.context_length"),
        ("gemma2", |w| w.u32("gemma2.attention.head_count_kv", 3), ErrorKind::BadFile, "key-value heads"),
        ("gemma3", |w| w.string("gemma3.rope.scaling.type", "yarn"), ErrorKind::Unsupported, "yarn"),
        ("gemma3", |w| w.retype("blk.1.ffn_up.weight", 20), ErrorKind::Unsupported, "IQ4_NL"),
        (
            "gemma3",
            |w| w.retype("blk.1.ffn_up.weight", 99),
            ErrorKind::Unsupported,
            "model.layers.1.mlp.up_proj.weight",
        ),
        (
            "gemma3",
            |w| w.remove("blk.3.attn_k_norm.weight"),
            ErrorKind::BadFile,
            "model.layers.3.self_attn.k_norm.weight",
        ),
    ] {
        let error = network(architecture, &change).expect_err(named);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error} should name {named}");
        assert!(error.remedy_text().is_some(), "{error} should say what to do");
    }
}

#[test]
fn every_format_is_read_where_it_stands() {
    for format in [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
    ] {
        for version in [2, 3] {
            let mut writer = tiny("gemma", format);
            writer.version = version;
            let file = writer.temp_file();
            let checkpoint = Checkpoint::open(file.path()).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            for (name, bytes) in writer.tensor_bytes() {
                let name = names::from_gguf(name, Architecture::Gemma).unwrap();
                assert_eq!(checkpoint.tensor(&name).unwrap().bytes, bytes, "{name} in {format:?}");
            }
        }
    }
}

#[test]
fn not_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let missing = Checkpoint::open(&folder.path().join("none.gguf")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    for (name, content, kind) in [
        ("empty.gguf", b"".as_slice(), ErrorKind::BadFile),
        ("text.gguf", b"hello world, I am a text", ErrorKind::BadFile),
        ("old.gguf", b"GGUF\x01\0\0\0\0\0\0\0", ErrorKind::Unsupported),
        ("new.gguf", b"GGUF\x09\0\0\0\0\0\0\0", ErrorKind::Unsupported),
        ("big.gguf", b"GGUF\0\0\0\x03\0\0\0\0", ErrorKind::Unsupported),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(name) && error.remedy_text().is_some(), "{error}");
    }
    let several = Checkpoint::open(folder.path()).unwrap_err();
    assert_eq!(several.kind(), ErrorKind::Input);
    assert!(several.to_string().contains("text.gguf"));
}

#[test]
fn wrong_configs_are_refused_by_field() {
    for (field, value, kind) in [
        ("model_type", "llama".into(), ErrorKind::Unsupported),
        ("model_type", Value::Null, ErrorKind::Unsupported),
        ("hidden_size", (-3).into(), ErrorKind::BadFile),
        ("hidden_size", "48".into(), ErrorKind::BadFile),
        ("num_hidden_layers", 4_000_000_000u64.into(), ErrorKind::BadFile),
        ("num_hidden_layers", 16_000_000.into(), ErrorKind::BadFile),
        ("layer_types", serde_json::json!(["sliding_attention"]), ErrorKind::BadFile),
        ("rope_parameters", serde_json::json!({"rope_type": "yarn"}), ErrorKind::Unsupported),
        ("eos_token_id", serde_json::json!([1, -1]), ErrorKind::BadFile),
        ("attention_bias", true.into(), ErrorKind::Unsupported),
        ("quantization_config", serde_json::json!({"quant_method": "gptq"}), ErrorKind::Unsupported),
    ] {
        let config = changed_config("gemma2-gqa", |c| drop(c.insert(field.to_owned(), value.clone())));
        let folder = folder_with_config("gemma2-gqa", &config);
        let error = Checkpoint::open(folder.path()).expect_err(field);
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("config.json") && text.contains(field.trim_end_matches("_parameters")),
            "{text}"
        );
        assert!(error.remedy_text().is_some(), "{text}");
    }
    let folder = folder_with_config("gemma2-gqa", "{\"model_type\": ");
    assert_eq!(Checkpoint::open(folder.path()).unwrap_err().kind(), ErrorKind::BadFile);
    let config = changed_config("gemma2-gqa", |c| drop(c.insert("intermediate_size".to_owned(), 96.into())));
    let error = Checkpoint::open(folder_with_config("gemma2-gqa", &config).path()).unwrap_err();
    assert!(error.to_string().contains("mlp.gate_proj"), "{error}");
}

#[test]
fn what_else_a_folder_says() {
    let config = fs::read_to_string(golden("gemma1-mqa").join("config.json")).unwrap();
    let folder = folder_with_config("gemma1-mqa", &config);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("generation_config.json", r#"{"eos_token_id": [1, 107]}"#);
    write("tokenizer.json", r#"{"added_tokens": [{"id": 90, "content": "<end_of_turn>"}], "model": 3}"#);
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "default", "template": "A"}]}"#);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.config().eos, [1, 107, 90]);
    assert_eq!(checkpoint.chat_template(), Some("A"));
    assert_eq!(checkpoint.tokenizer().err().map(|e| e.kind()), Some(ErrorKind::BadFile));
    write("chat_template.jinja", "B");
    assert_eq!(Checkpoint::open(folder.path()).unwrap().chat_template(), Some("B"));
}

/// Splits the golden weights into two shards with an index.
fn sharded() -> tempfile::TempDir {
    let bytes = fs::read(golden("gemma1-mqa").join("model.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden("gemma1-mqa").join("config.json"), folder.path().join("config.json")).unwrap();
    let mut map = serde_json::Map::new();
    let (one, two): (Vec<_>, Vec<_>) = all.tensors().into_iter().partition(|(name, _)| name.contains("mlp"));
    for (file, tensors) in [("a.safetensors", one), ("b.safetensors", two)] {
        for (name, _) in &tensors {
            map.insert(name.clone(), file.into());
        }
        fs::write(folder.path().join(file), safetensors::serialize(tensors, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

#[test]
fn shards() {
    let folder = sharded();
    let (checkpoint, whole) =
        (Checkpoint::open(folder.path()).unwrap(), Checkpoint::open(&golden("gemma1-mqa")).unwrap());
    for (name, _) in names::required(checkpoint.config()) {
        assert_eq!(checkpoint.tensor(&name).unwrap().bytes, whole.tensor(&name).unwrap().bytes, "{name}");
    }
    assert_eq!(checkpoint.weight_bytes(), whole.weight_bytes());
    let index = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    for (from, to, kind, named) in [
        ("\"a.safetensors\"", "\"../a.safetensors\"", ErrorKind::BadFile, "../a.safetensors"),
        ("\"a.safetensors\"", "\"c.safetensors\"", ErrorKind::NotFound, "c.safetensors"),
        ("layers.0.mlp.up_proj", "layers.9.mlp.up_proj", ErrorKind::BadFile, "layers.9.mlp.up_proj"),
        ("{", "[", ErrorKind::BadFile, "index.json"),
    ] {
        fs::write(&index, text.replace(from, to)).unwrap();
        let error = Checkpoint::open(folder.path()).expect_err(named);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// Opens damaged bytes as a GGUF file and uses all of what comes out.
fn use_gguf(bytes: &[u8]) -> Result<()> {
    let path = Path::new("damaged.gguf");
    let gguf = Gguf::parse(bytes, path)?;
    let config = gguf_config::parse(&gguf, bytes, path)?.into_config(path, 1.0, 0.0)?;
    let tokenizer = crate::tokenizer::Tokenizer::from_gguf(&gguf, bytes, path)?;
    let ids = tokenizer.encode_with_control("ab <eos>\n\n \u{10ffff}")?;
    tokenizer.decode(&ids, false);
    for tensor in gguf.tensors() {
        assert!(bytes.get(tensor.range.clone()).is_some(), "{} is not inside the file", tensor.name);
    }
    names::required(&config);
    Ok(())
}

#[test]
fn a_truncated_gguf_is_an_error_at_every_length() {
    let bytes = tiny("gemma3", Format::Q4_0).bytes();
    use_gguf(&bytes).unwrap();
    // The last tensor's padding may be missing; every byte of a tensor may not.
    let end =
        Gguf::parse(&bytes, Path::new("x")).unwrap().tensors().iter().map(|t| t.range.end).max().unwrap();
    for len in (0..end).filter(|len| *len < 4096 || len % 7 == 0 || len + 64 > end) {
        let error =
            use_gguf(&bytes[..len]).expect_err(&format!("{len} of {} bytes were accepted", bytes.len()));
        assert_eq!(error.kind(), ErrorKind::BadFile, "at {len}: {error}");
        assert!(
            error.to_string().contains("damaged.gguf") && error.remedy_text().is_some(),
            "at {len}: {error}"
        );
    }
}

#[test]
fn a_truncated_safetensors_file_is_an_error_at_every_length() {
    let config = fs::read_to_string(golden("gemma1-mqa").join("config.json")).unwrap();
    let folder = folder_with_config("gemma1-mqa", &config);
    let path = folder.path().join("model.safetensors");
    let len = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for len in (0..len).rev().step_by(331) {
        file.set_len(len).unwrap();
        let error = Checkpoint::open(folder.path()).expect_err(&format!("{len} bytes were accepted"));
        assert_eq!(error.kind(), ErrorKind::BadFile, "at {len}: {error}");
        assert!(error.to_string().contains("model.safetensors"), "at {len}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_damaged_gguf_never_panics(damage in prop::collection::vec((0usize..6000, any::<u8>()), 1..6)) {
        let mut bytes = tiny("gemma3", Format::Q4_0).bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = use_gguf(&bytes);
    }

    #[test]
    fn a_damaged_length_never_allocates_for_it(at in 0usize..6000, value in prop_oneof![
        any::<u64>(), Just(u64::MAX), Just(i64::MAX as u64), 1u64 << 30..1 << 40,
    ]) {
        let mut bytes = tiny("gemma2", Format::F32).bytes();
        let at = at % (bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let _ = use_gguf(&bytes);
    }

    #[test]
    fn random_bytes_behind_the_magic_are_an_error(rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [b"GGUF\x03\0\0\0".as_slice(), &rest].concat();
        prop_assert!(use_gguf(&bytes).is_err());
    }

    #[test]
    fn a_damaged_config_never_panics(damage in prop::collection::vec((0usize..2000, any::<u8>()), 1..4)) {
        let mut text = fs::read(golden("gemma3-text-ropescale").join("config.json")).unwrap();
        for (at, byte) in damage {
            let at = at % text.len();
            text[at] = byte;
        }
        let path = Path::new("config.json");
        if let Ok(network) = hf_config::parse(&text, path) {
            let _ = network.into_config(path, 1.0, 1.0);
        }
    }
}

proptest! {
    // Each case writes files.
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_safetensors_header_never_panics(damage in prop::collection::vec((0usize..4000, any::<u8>()), 1..4)) {
        let config = fs::read_to_string(golden("gemma1-mqa").join("config.json")).unwrap();
        let folder = folder_with_config("gemma1-mqa", &config);
        let path = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for (name, _) in names::required(checkpoint.config()) {
                prop_assert!(checkpoint.tensor(&name).is_ok());
            }
        }
    }
}
