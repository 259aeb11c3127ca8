//! Broken, truncated, wrong and unsupported checkpoints: each gets a refusal that names the file, and
//! nothing worse.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use gemma_tests::binary::{Ran, run};
use gemma_tests::golden::Case;
use gemma_tests::numbers::Findings;
use gemma_tests::synthetic::{Gguf, Network};
use tempfile::TempDir;

/// The exit code for a broken or unsupported file.
const BAD_FILE: i32 = 4;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn info(path: &Path) -> Ran {
    run(["model".as_ref(), "info".as_ref(), path.as_os_str()])
}

/// Holds a run against what a broken file owes: exit code 4, a short message that names it.
fn check(what: &str, named: &str, ran: &Ran, findings: &mut Findings) {
    findings.check(ran.code == Some(BAD_FILE), || {
        format!("{what}: exit code {:?}: {}", ran.code, ran.err.trim())
    });
    findings.check(!ran.panicked(), || format!("{what}: it panicked: {}", ran.err.trim()));
    findings.check(ran.err.contains(named), || format!("{what}: {named} is not named: {}", ran.err.trim()));
    findings.check(ran.err.trim().lines().count() <= 4, || format!("{what}: it says too much: {}", ran.err));
}

fn gguf() -> Gguf {
    Network::random(3).gguf().quantised(|_| GgmlDType::Q8_0)
}

fn gguf_bytes() -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("sound.gguf");
    gguf().write(&path, 3);
    fs::read(path).expect("it was just written")
}

/// Writes bytes as a GGUF file and asks for it.
fn info_of_bytes(folder: &TempDir, bytes: &[u8]) -> Ran {
    let path = folder.path().join("broken.gguf");
    fs::write(&path, bytes).expect("the folder can be written");
    info(&path)
}

#[test]
fn a_sound_file_is_no_broken_one() {
    let folder = folder();
    info_of_bytes(&folder, &gguf_bytes()).expect_code(0);
    info(Case::read("gemma2-gqa").checkpoint("config.json").path()).expect_code(0);
}

#[test]
fn truncated_gguf() {
    let sound = gguf_bytes();
    let mut findings = Findings::default();
    let folder = folder();
    let early = [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 25, 31, 32, 40, 64, 100, 1000, 5000];
    let late = [sound.len() / 4, sound.len() / 2, sound.len() - 5000, sound.len() - 64];
    for length in early.into_iter().chain(late) {
        let ran = info_of_bytes(&folder, &sound[..length]);
        check(&format!("cut after {length} bytes"), "broken.gguf", &ran, &mut findings);
    }
    findings.assert_none();
}

#[test]
fn gguf_with_lengths_that_cannot_be() {
    let sound = gguf_bytes();
    let mut findings = Findings::default();
    let folder = folder();
    // The header: magic, version, number of tensors, number of metadata entries, length of the first key.
    for (what, at) in [("tensors", 8), ("entries", 16), ("length of a key", 24)] {
        for number in [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 32, sound.len() as u64] {
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            let ran = info_of_bytes(&folder, &bytes);
            check(&format!("{what}: {number}"), "broken.gguf", &ran, &mut findings);
        }
    }
    for (what, at, value) in
        [("magic", 0, 0x4747_4746_u32), ("version", 4, 1), ("version", 4, 4), ("version", 4, u32::MAX)]
    {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        check(what, "broken.gguf", &info_of_bytes(&folder, &bytes), &mut findings);
    }
    findings.assert_none();
}

/// Where the description of a tensor begins, behind its name.
fn behind(bytes: &[u8], name: &str) -> usize {
    let found = bytes.windows(name.len()).position(|window| window == name.as_bytes());
    found.expect("the file names this tensor") + name.len()
}

#[test]
fn gguf_with_tensors_that_cannot_be() {
    let sound = gguf_bytes();
    let mut findings = Findings::default();
    let folder = folder();
    // Behind its name a tensor has: number of dimensions, dimensions, format, offset.
    let at = behind(&sound, "blk.2.ffn_up.weight");
    let changes: [(&str, usize, &[u8]); 12] = [
        ("no dimensions", at, &0_u32.to_le_bytes()),
        ("99 dimensions", at, &99_u32.to_le_bytes()),
        ("endless dimensions", at, &u32::MAX.to_le_bytes()),
        ("a width of 0", at + 4, &0_u64.to_le_bytes()),
        ("another width", at + 4, &512_u64.to_le_bytes()),
        ("an endless width", at + 4, &u64::MAX.to_le_bytes()),
        ("a height that overflows", at + 12, &(1_u64 << 61).to_le_bytes()),
        ("an unknown format", at + 20, &1234_u32.to_le_bytes()),
        ("a format nobody supports here", at + 20, &16_u32.to_le_bytes()),
        ("an offset behind the end", at + 24, &(1_u64 << 40).to_le_bytes()),
        ("an endless offset", at + 24, &(u64::MAX - 31).to_le_bytes()),
        ("an odd offset", at + 24, &1_u64.to_le_bytes()),
    ];
    for (what, at, change) in changes {
        let mut bytes = sound.clone();
        bytes[at..at + change.len()].copy_from_slice(change);
        check(what, "broken.gguf", &info_of_bytes(&folder, &bytes), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn gguf_that_lacks_something_or_says_nonsense() {
    let folder = folder();
    let path = folder.path().join("broken.gguf");
    let u32s = |key: &'static str, value| (key, Value::U32(value));
    let mut findings = Findings::default();
    for key in [
        "general.architecture",
        "gemma3.block_count",
        "gemma3.embedding_length",
        "gemma3.feed_forward_length",
        "gemma3.attention.head_count",
    ] {
        gguf().without(key).write(&path, 3);
        check(&format!("without {key}"), "broken.gguf", &info(&path), &mut findings);
        gguf().with(key, Value::Bool(true)).write(&path, 3);
        check(&format!("{key} is true"), "broken.gguf", &info(&path), &mut findings);
    }
    for (key, value) in [
        u32s("gemma3.block_count", 0),
        u32s("gemma3.block_count", u32::MAX),
        u32s("gemma3.block_count", 8),
        u32s("gemma3.embedding_length", 0),
        u32s("gemma3.embedding_length", 512),
        u32s("gemma3.feed_forward_length", 0),
        u32s("gemma3.attention.head_count", 0),
        u32s("gemma3.attention.head_count", 3),
        u32s("gemma3.attention.head_count_kv", 3),
        u32s("gemma3.attention.key_length", 0),
        u32s("general.alignment", 0),
        ("general.architecture", Value::String("llama".to_owned())),
        ("general.architecture", Value::String(String::new())),
        ("gemma3.rope.scaling.type", Value::String("yarn".to_owned())),
    ] {
        let what = format!("{key} is {value:?}");
        gguf().with(key, value).write(&path, 3);
        check(&what, "broken.gguf", &info(&path), &mut findings);
    }
    for name in ["token_embd.weight", "output_norm.weight", "blk.6.attn_k.weight", "blk.0.attn_norm.weight"] {
        gguf().without_tensor(name).write(&path, 3);
        check(&format!("without {name}"), "broken.gguf", &info(&path), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn a_flipped_bit_is_a_refusal_or_a_sound_file_but_never_a_crash() {
    let sound = gguf_bytes();
    let folder = folder();
    let mut findings = Findings::default();
    // Steps through the whole header; what follows are weights, where every bit pattern is a number.
    let header = behind(&sound, "output_norm.weight") + 32;
    for round in 0..240_usize {
        let at = round * 7919 % header;
        let bit = round % 8;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << bit;
        let ran = info_of_bytes(&folder, &bytes);
        let orderly = matches!(ran.code, Some(0 | BAD_FILE)) && !ran.panicked();
        findings.check(orderly, || {
            format!("bit {bit} of byte {at}: exit code {:?}: {}", ran.code, ran.err.trim())
        });
    }
    findings.assert_none();
}

/// A copy of a golden checkpoint to break.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        Self(Case::read("gemma2-gqa").checkpoint("config.json"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).expect("the folder can be written");
    }

    fn info(&self) -> Ran {
        info(self.0.path())
    }
}

#[test]
fn truncated_safetensors() {
    let copy = Copy::new();
    let sound = fs::read(copy.file("model.safetensors")).expect("it was copied");
    let mut findings = Findings::default();
    for length in [0, 1, 7, 8, 9, 100, 1000, sound.len() / 2, sound.len() - 1] {
        copy.write("model.safetensors", &sound[..length]);
        check(&format!("cut after {length} bytes"), "model.safetensors", &copy.info(), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn safetensors_that_cannot_be() {
    let copy = Copy::new();
    let sound = fs::read(copy.file("model.safetensors")).expect("it was copied");
    let length = u64::from_le_bytes(sound[..8].try_into().expect("eight bytes")) as usize;
    let header = String::from_utf8(sound[8..8 + length].to_vec()).expect("the header is JSON");
    let rewritten = |header: &str| {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &sound[8 + length_of(&sound)..]].concat()
    };
    let name = "model.layers.0.mlp.up_proj.weight";
    let mut findings = Findings::default();
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for number in [0, 1, u64::MAX, u64::MAX / 2, 1 << 40, sound.len() as u64 + 1] {
        let mut bytes = sound.clone();
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        cases.push((format!("a header of {number} bytes"), bytes));
    }
    for (what, from, to) in [
        ("no JSON", "{\"", "[\""),
        ("another tensor's name", name, "model.layers.0.mlp.sideways_proj.weight"),
        ("an unknown type", "\"F32\"", "\"F99\""),
        ("a type without meaning here", "\"F32\"", "\"I64\""),
        ("offsets behind the end", "\"data_offsets\":[", "\"data_offsets\":[99999999"),
        ("a negative offset", "\"data_offsets\":[", "\"data_offsets\":[-"),
    ] {
        assert!(header.contains(from), "{what}: the header has no {from}");
        cases.push((what.to_owned(), rewritten(&header.replacen(from, to, 1))));
    }
    for (what, bytes) in cases {
        copy.write("model.safetensors", &bytes);
        check(&what, "model", &copy.info(), &mut findings);
    }
    findings.assert_none();
}

fn length_of(safetensors: &[u8]) -> usize {
    u64::from_le_bytes(safetensors[..8].try_into().expect("eight bytes")) as usize
}

#[test]
fn a_configuration_that_cannot_be() {
    let copy = Copy::new();
    let sound = fs::read_to_string(copy.file("config.json")).expect("it was copied");
    let mut findings = Findings::default();
    for text in ["", "{", "[]", "null", "{}", "\u{0}\u{0}"] {
        copy.write("config.json", text.as_bytes());
        check(&format!("{text:?}"), "config.json", &copy.info(), &mut findings);
    }
    let with = |key: &str, value: serde_json::Value| {
        let mut config: serde_json::Value = serde_json::from_str(&sound).expect("the golden data is sound");
        config[key] = value;
        config.to_string()
    };
    for (key, value) in [
        ("model_type", "llama".into()),
        ("model_type", 7.into()),
        ("hidden_size", 0.into()),
        ("hidden_size", 64.into()),
        ("hidden_size", (-48).into()),
        ("hidden_size", u64::MAX.into()),
        ("num_hidden_layers", 0.into()),
        ("num_hidden_layers", 5.into()),
        ("num_hidden_layers", (1_u64 << 40).into()),
        ("num_attention_heads", 0.into()),
        ("num_key_value_heads", 0.into()),
        ("num_key_value_heads", 3.into()),
        ("head_dim", 0.into()),
        ("head_dim", 15.into()),
        ("vocab_size", 0.into()),
        ("vocab_size", 257.into()),
        ("intermediate_size", "many".into()),
        ("rms_norm_eps", "small".into()),
    ] {
        let what = format!("{key} is {value}");
        copy.write("config.json", with(key, value).as_bytes());
        check(&what, "", &copy.info(), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn a_folder_that_lacks_files() {
    let mut findings = Findings::default();
    for name in ["config.json", "model.safetensors"] {
        let copy = Copy::new();
        fs::remove_file(copy.file(name)).expect("it was copied");
        let model = copy.0.path().to_string_lossy().into_owned();
        let ran = run(["generate", "--model", &model, "--prompt", "x"]);
        findings.check(matches!(ran.code, Some(3 | BAD_FILE)), || format!("without {name}: {ran:?}"));
        findings.check(!ran.panicked(), || format!("without {name}: {ran:?}"));
    }
    // What a model would be can be told before its weights are here.
    let copy = Copy::new();
    fs::remove_file(copy.file("model.safetensors")).expect("it was copied");
    let ran = copy.info();
    findings.check(ran.code == Some(0) && ran.out.contains("missing"), || format!("{ran:?}"));
    let copy = Copy::new();
    copy.write(
        "model.safetensors.index.json",
        br#"{"weight_map": {"model.norm.weight": "../../etc/passwd"}}"#,
    );
    fs::remove_file(copy.file("model.safetensors")).expect("it was copied");
    let ran = copy.info();
    findings.check(matches!(ran.code, Some(3 | BAD_FILE)) && !ran.panicked(), || format!("{ran:?}"));
    findings.assert_none();
}

#[test]
fn a_broken_tokenizer() {
    let mut findings = Findings::default();
    for text in ["", "{", "{}", "[]", r#"{"model": {"type": "BPE"}}"#, r#"{"model": 3}"#] {
        let copy = Copy::new();
        copy.write("tokenizer.json", text.as_bytes());
        let model = copy.0.path().to_string_lossy().into_owned();
        let ran = run(["generate", "--model", &model, "--prompt", "x"]);
        check(&format!("tokenizer.json is {text:?}"), "tokenizer.json", &ran, &mut findings);
    }
    findings.assert_none();
}
