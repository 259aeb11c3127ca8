//! Quantised checkpoints from outside: what is written is the network that it was made from, in the words that
//! other readers of GGUF know, and as near to it as its bits allow.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gemma_engine::checkpoint::Checkpoint;
use gemma_engine::{
    CancelFlag, EngineOptions, Error, ErrorKind, LogitsRequest, Precision, QuantType, QuantizeAtLoad,
    QuantizeOptions, Quantized, quantize,
};
use gemma_kernels::quantize::quantize as encode;
use gemma_kernels::{Format, quant};
use gemma_tests::binary::run;
use gemma_tests::golden::{self, Case, Vocabulary};
use gemma_tests::models::Loaded;
use gemma_tests::numbers::{Findings, Matrix};
use gemma_tests::places;
use gemma_tests::synthetic::Network;

/// How far logits may stand off on the whole (root of the mean square), as a share of their spread, in a network of
/// random weights, which forgives less than a trained one.
const TOLERANCES: [(QuantType, f32); 3] =
    [(QuantType::Q8_0, 0.04), (QuantType::Q4_0, 0.5), (QuantType::Q4_K_M, 0.4)];

fn options(kind: QuantType) -> QuantizeOptions {
    QuantizeOptions { kind, threads: Some(2), overwrite: false, requantize: false }
}

fn made(from: &Path, to: &Path, kind: QuantType) -> Result<Quantized, Error> {
    quantize(from, to, &options(kind), &CancelFlag::new(), &mut |_| {})
}

fn must(from: &Path, to: &Path, kind: QuantType) -> Quantized {
    made(from, to, kind).unwrap_or_else(|e| panic!("{}: {e}", from.display()))
}

fn random_folder(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    Network::random(seed).write_folder(folder.path());
    folder
}

fn tokens() -> Vec<u32> {
    (0..40).map(|i: u32| if i == 0 { 2 } else { (i * 7919 + 13) % 512 }).collect()
}

fn logits(path: &Path) -> Matrix {
    Loaded::new(path, Precision::Exact).logits(&tokens(), None)
}

/// How far logits stand off on the whole, as a share of the spread of the true ones.
fn off(ours: &Matrix, truth: &Matrix) -> f32 {
    assert_eq!(ours.data.len(), truth.data.len());
    let count = truth.data.len() as f32;
    let mean = truth.data.iter().sum::<f32>() / count;
    let spread = truth.data.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
    let squares = ours.data.iter().zip(&truth.data).map(|(a, b)| (a - b).powi(2));
    (squares.sum::<f32>() / spread).sqrt()
}

fn content(path: &Path) -> Content {
    let mut file = File::open(path).expect("it was just written");
    Content::read(&mut file).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_folder_in_few_bits_is_nearly_the_folder() {
    let folder = random_folder(21);
    let truth = logits(folder.path());
    let mut findings = Findings::default();
    for (kind, tolerance) in TOLERANCES {
        let path = folder.path().join(format!("{kind}.gguf"));
        let quantised = must(folder.path(), &path, kind);
        let distance = off(&logits(&path), &truth);
        // The same formats by another implementation's quantisers.
        let formats = content(&path).tensor_infos;
        let theirs = folder.path().join("theirs.gguf");
        Network::random(21).gguf().quantised(|name| formats[name].ggml_dtype).write(&theirs, 3);
        let other = off(&logits(&theirs), &truth);
        println!("{kind}: {distance} of the logits' spread, the other {other}, {:?}", quantised.formats);
        findings.check(distance <= tolerance, || format!("{kind}: {distance}"));
        findings.check(distance <= 1.05 * other, || format!("{kind}: {distance}, the other {other}"));
        findings
            .check(quantised.bytes == path.metadata().map_or(0, |m| m.len()), || format!("{kind}: bytes"));
        let smaller = quantised.bytes < quantised.source_bytes / if kind == QuantType::Q8_0 { 3 } else { 5 };
        findings.check(smaller, || format!("{kind}: {} of {}", quantised.bytes, quantised.source_bytes));
    }
    findings.assert_none();
}

/// A part of the real model's table, which its file holds in 8 bits: as near to trained weights as a published file of
/// that size comes.
#[test]
fn trained_weights_lose_less_than_by_another_implementations_quantisers() {
    let checkpoint = Checkpoint::open(&places::real_model()).unwrap_or_else(|e| panic!("{e}"));
    let table = checkpoint.tensor("model.embed_tokens.weight").unwrap_or_else(|e| panic!("{e}"));
    let (rows, cols) = (512, table.shape[1]);
    let bytes = &table.bytes[..table.format.row_bytes(cols).expect("its rows are whole blocks") * rows];
    let numbers = quant::dequantize(table.format, rows, cols, bytes).expect("its bytes are its shape's");
    let tensor =
        Tensor::from_vec(numbers.clone(), (1, rows * cols), &Device::Cpu).expect("that many numbers");
    let error = |format, bytes: &[u8]| -> f64 {
        let back = quant::dequantize(format, 1, rows * cols, bytes).expect("whole blocks");
        back.iter().zip(&numbers).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    for (format, other) in [
        (Format::Q4_0, GgmlDType::Q4_0),
        (Format::Q5_0, GgmlDType::Q5_0),
        (Format::Q4_K, GgmlDType::Q4K),
        (Format::Q5_K, GgmlDType::Q5K),
        (Format::Q6_K, GgmlDType::Q6K),
    ] {
        let ours = encode(format, rows * cols, &numbers).expect("whole blocks");
        let theirs = QTensor::quantize(&tensor, other).and_then(|t| t.data().map(|data| data.to_vec()));
        let ratio = error(format, &ours) / error(format, &theirs.expect("candle quantises"));
        println!("{format:?}: {ratio:.3} of the other's mean squared error");
        assert!(ratio <= 1.0, "{format:?}: {ratio}");
    }
}

#[test]
fn another_reader_finds_what_the_mixture_says() {
    let folder = random_folder(22);
    let path = folder.path().join("model.gguf");
    must(folder.path(), &path, QuantType::Q4_K_M);
    let content = content(&path);
    let format = |name: &str| content.tensor_infos[name].ggml_dtype;
    assert_eq!(format("token_embd.weight"), GgmlDType::Q6K);
    assert_eq!(format("blk.0.attn_q.weight"), GgmlDType::Q4K);
    assert_eq!(format("blk.6.ffn_down.weight"), GgmlDType::Q6K);
    assert_eq!(format("blk.6.attn_norm.weight"), GgmlDType::F32);
    // Rows of 64 and blocks of 256 do not go together, and 64 is as wide as a head's values.
    assert_eq!(format("blk.0.attn_k_norm.weight"), GgmlDType::F32);
    assert!(matches!(content.metadata["general.file_type"], Value::U32(15)));
}

#[test]
fn golden_networks_keep_their_logits_and_their_words() {
    let mut findings = Findings::default();
    for name in
        ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale", "recurrentgemma"]
    {
        let case = Case::read(name);
        let folder = case.checkpoint("config.json");
        let path = folder.path().join("model.gguf");
        let quantised = must(folder.path(), &path, QuantType::Q8_0);
        findings.check(!quantised.remarks.is_empty(), || format!("{name}: no word on the missing tokenizer"));
        let loaded = Loaded::new(&path, Precision::Exact);
        for prompt in &case.golden.prompts {
            let distance = off(&loaded.logits(&prompt.ids, None), case.tensor(&prompt.logits));
            println!("{name} {}: {distance} of the logits' spread", prompt.name);
            findings.check(distance <= 0.04, || format!("{name}, {}: {distance}", prompt.name));
        }
        // What an independent understanding of the converter writes of the same network.
        let theirs = folder.path().join("theirs.gguf");
        Network::golden(name).gguf().write(&theirs, 3);
        compare_words(name, &content(&path), &content(&theirs), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn a_paligemma_sees_from_a_file_too() {
    let mut findings = Findings::default();
    for name in ["paligemma", "paligemma2"] {
        let case = Case::read(name);
        let folder = case.checkpoint("config.json");
        let path = folder.path().join("model.gguf");
        let quantised = must(folder.path(), &path, QuantType::Q8_0);
        let ours = quantised.remarks.iter().any(|remark| remark.contains("llama.cpp does not read it"));
        findings.check(ours, || format!("{name}: {:?}", quantised.remarks));
        let loaded = Loaded::new(&path, Precision::Exact);
        for prompt in &case.golden.prompts {
            let pictures = case.pixels()[..prompt.pictures()].to_vec();
            let (ids, prefix) = (prompt.ids.clone(), case.prefix(prompt));
            let logits =
                loaded.logits_of(LogitsRequest { ids, pictures, prefix, ..LogitsRequest::default() });
            let distance = off(&logits, case.tensor(&prompt.logits));
            println!("{name} {}: {distance} of the logits' spread", prompt.name);
            findings.check(distance <= 0.04, || format!("{name}, {}: {distance}", prompt.name));
        }
    }
    findings.assert_none();
}

/// Holds metadata of the network, and names and shapes of tensors, against another writer's.
fn compare_words(name: &str, ours: &Content, theirs: &Content, findings: &mut Findings) {
    let words = |content: &Content| -> BTreeMap<String, String> {
        let mut words: BTreeMap<String, String> = content
            .metadata
            .iter()
            .filter(|(key, _)| !key.starts_with("tokenizer.") && !key.starts_with("general."))
            .map(|(key, value)| (key.clone(), format!("{value:?}")))
            .collect();
        words.extend(
            content.tensor_infos.iter().map(|(name, info)| (name.clone(), format!("{:?}", info.shape))),
        );
        words
    };
    let (ours, theirs) = (words(ours), words(theirs));
    for (key, value) in &theirs {
        findings.check(ours.get(key) == Some(value), || {
            format!("{name}: {key} is {:?}, not {value}", ours.get(key))
        });
    }
    // A file may say more of what readers assume otherwise.
    for key in ours.keys().filter(|key| !theirs.contains_key(*key)) {
        let known = key.contains(".rope.freq_base");
        findings.check(known, || format!("{name}: {key} is nothing that the other writer knows"));
    }
}

#[test]
fn published_vocabularies_give_the_references_ids_from_the_new_file() {
    let mut findings = Findings::default();
    for (name, rows) in [("gemma", 256_000), ("codegemma", 256_000), ("gemma3", 262_144)] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Network::golden("gemma1-mqa").with_rows(rows).write_folder(folder.path());
        std::fs::copy(places::tokenizer_json(name), folder.path().join("tokenizer.json"))
            .expect("it is there");
        let path = folder.path().join("model.gguf");
        let quantised = must(folder.path(), &path, QuantType::Q8_0);
        assert_eq!(quantised.remarks, [""; 0], "{name}");
        let open = |path: &Path| Checkpoint::open(path).and_then(|checkpoint| checkpoint.tokenizer());
        let before = open(folder.path()).unwrap_or_else(|e| panic!("{e}"));
        let after = open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(after.fim(), before.fim(), "{name}");
        let vocabulary: Vocabulary = golden::json(&format!("tokenizer/{name}.json"));
        for case in &vocabulary.cases {
            let text = &case.text;
            // The picture's token has no row here. 6000 unused entries are text in the one file and control tokens in every published GGUF.
            // GGUF spells runs of spaces as text to be matched, the longest first.
            let odd = ["<unused", "<mask>", "<image_soft_token>", &" ".repeat(32)];
            if odd.iter().any(|odd| text.contains(odd)) {
                continue;
            }
            let ids = after.encode_with_control(text).unwrap_or_else(|e| panic!("{e}"));
            findings.check(ids == case.ids, || format!("{name} {text:?}: {ids:?}, not {:?}", case.ids));
        }
    }
    findings.assert_none();
}

#[test]
fn a_gguf_keeps_all_that_it_says_but_what_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (from, to) = (folder.path().join("f32.gguf"), folder.path().join("q4_k_m.gguf"));
    let template = "{{ messages }}";
    Network::random(23).gguf().with_turns(Some(template)).write(&from, 3);
    must(&from, &to, QuantType::Q4_K_M);
    let (before, after) = (content(&from), content(&to));
    for (key, value) in &before.metadata {
        assert_eq!(format!("{:?}", after.metadata[key]), format!("{value:?}"), "{key}");
    }
    assert_eq!(after.metadata.len(), before.metadata.len() + 2);
    let checkpoint = Checkpoint::open(&to).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(checkpoint.chat_template(), Some(template));
    let distance = off(&logits(&to), &logits(&from));
    assert!(distance <= 0.4, "{distance}");
}

#[test]
fn what_is_quantised_already_is_quantised_again_only_when_told_to() {
    let folder = random_folder(24);
    let (eight, four) = (folder.path().join("q8_0.gguf"), folder.path().join("q4_k_m.gguf"));
    must(folder.path(), &eight, QuantType::Q8_0);
    let refused = made(&eight, &four, QuantType::Q4_K_M).expect_err("it has lost enough");
    assert_eq!(refused.kind(), ErrorKind::Input);
    assert!(refused.to_string().contains("--allow-requantize"), "{refused}");
    assert!(!four.exists());
    let again = QuantizeOptions { requantize: true, ..options(QuantType::Q4_K_M) };
    let quantised = quantize(&eight, &four, &again, &CancelFlag::new(), &mut |_| {});
    assert_eq!(quantised.map(|q| q.remarks.len()), Ok(1));
    // Bits that are gone do not come back.
    for (from, kind) in [(&eight, QuantType::Q8_0), (&four, QuantType::Q8_0), (&four, QuantType::Q4_K_M)] {
        let again = QuantizeOptions { requantize: true, ..options(kind) };
        let to = folder.path().join("larger.gguf");
        let refused =
            quantize(from, &to, &again, &CancelFlag::new(), &mut |_| {}).expect_err("nothing to do");
        assert!(refused.to_string().contains("nothing would change"), "{refused}");
    }
}

/// The files of a folder that are not ours.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        folder.read_dir().expect("the folder is there").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = random_folder(25);
    let path = folder.path().join("model.gguf");
    let before = files(folder.path());
    let cancelled = CancelFlag::new();
    let stop = cancelled.clone();
    let stopped =
        quantize(folder.path(), &path, &options(QuantType::Q4_K_M), &cancelled, &mut |_| stop.cancel());
    assert_eq!(stopped.expect_err("it was stopped").kind(), ErrorKind::Stopped);
    assert_eq!(files(folder.path()), before);

    std::fs::write(&path, "mine").expect("the folder can be written");
    let refused = made(folder.path(), &path, QuantType::Q8_0).expect_err("it is there");
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"mine");
    let force = QuantizeOptions { overwrite: true, ..options(QuantType::Q8_0) };
    quantize(folder.path(), &path, &force, &CancelFlag::new(), &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert!(Checkpoint::open(&path).is_ok());

    for to in [folder.path().to_owned(), folder.path().join("no/such/folder.gguf")] {
        assert!(made(folder.path(), &to, QuantType::Q8_0).is_err(), "{}", to.display());
    }
}

#[test]
fn what_cannot_be_said_is_refused_with_a_reason() {
    // A Gemma 3 with pictures becomes one without, and says so.
    let seeing = Case::read("gemma3-mm").checkpoint("config.json");
    let to = seeing.path().join("model.gguf");
    let quantised = must(seeing.path(), &to, QuantType::Q8_0);
    assert!(quantised.remarks.iter().any(|remark| remark.contains("picture")), "{:?}", quantised.remarks);
    assert!(Checkpoint::open(&to).is_ok_and(|checkpoint| checkpoint.config().vision.is_none()));

    // Which layers slide is fixed in GGUF.
    let odd = Case::read("gemma3-text").checkpoint("config.json");
    let config = odd.path().join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).expect("it is there")).expect("it is JSON");
    json["layer_types"] = serde_json::json!(vec!["full_attention"; 7]);
    std::fs::write(&config, json.to_string()).expect("the folder can be written");
    let refused = made(odd.path(), &odd.path().join("model.gguf"), QuantType::Q8_0).expect_err("it differs");
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");

    // A weight that is no number.
    let broken = random_folder(26);
    let weights = broken.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("it is there");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).expect("the folder can be written");
    let refused = made(broken.path(), &broken.path().join("model.gguf"), QuantType::Q8_0).expect_err("NaN");
    assert!(refused.to_string().contains("not finite"), "{refused}");
    assert!(!broken.path().join("model.gguf").exists());
}

#[test]
fn the_command_says_what_it_made_and_what_is_in_its_way() {
    let folder = random_folder(30);
    let (from, to) = (folder.path().display().to_string(), folder.path().join("model.gguf"));
    let command = ["model", "quantize", &from, &to.display().to_string(), "--type", "q4_k_m", "--json"];
    let made = run(command).expect_code(0).json();
    assert_eq!(made["type"], "q4_k_m");
    assert_eq!(made["bytes"].as_u64(), to.metadata().ok().map(|metadata| metadata.len()));
    assert!(made["formats"].as_array().is_some_and(|formats| formats.len() == 3), "{made:#}");
    assert!(made["remarks"][0].as_str().is_some_and(|remark| remark.contains("tokenizer")), "{made:#}");
    let refused = run(command).expect_code(2).json();
    assert!(
        refused["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("--force")),
        "{refused:#}"
    );
    run(command.into_iter().chain(["--force"])).expect_code(0);
    run(["model", "quantize", &from, "x.gguf", "--type", "q3_k"]).expect_code(2);
    run(["model", "quantize", "no-such-model", "x.gguf", "--type", "q8_0"]).expect_code(3);
}

/// A model loaded with quantising switched on.
fn load(path: &Path, cache: &Path) -> Loaded {
    let quantize = Some(QuantizeAtLoad { kind: QuantType::Q8_0, folder: cache.to_owned() });
    Loaded::with(path, Precision::Exact, EngineOptions { quantize, ..EngineOptions::default() })
}

#[test]
fn a_folder_is_quantised_once_when_it_is_loaded() {
    let (folder, cache) = (random_folder(27), tempfile::tempdir().expect("a temporary folder can be made"));
    let cache = cache.path().join("made/when/needed");
    let plain = Loaded::new(folder.path(), Precision::Exact).model.weight_bytes();
    let first = load(folder.path(), &cache);
    assert!(first.model.weight_bytes() < plain / 3, "{} of {plain}", first.model.weight_bytes());
    let logits = first.logits(&tokens(), None);
    let copies = files(&cache);
    assert_eq!(copies.len(), 1);
    let written = |path: &Path| path.metadata().and_then(|m| m.modified()).expect("it is there");
    let when = written(&copies[0]);

    // The copy is found, and gives the same.
    assert_eq!(load(folder.path(), &cache).logits(&tokens(), None).data, logits.data);
    assert_eq!((files(&cache), written(&copies[0])), (copies.clone(), when));

    // A damaged copy is made anew, wherever the damage is.
    let sound = std::fs::read(&copies[0]).expect("it is there");
    for damage in [sound.len() - 40, sound.len() / 2, 100] {
        let mut bytes = sound.clone();
        bytes[damage] ^= 0x10;
        std::fs::write(&copies[0], bytes).expect("it can be written");
        assert_eq!(load(folder.path(), &cache).logits(&tokens(), None).data, logits.data);
        assert!(std::fs::read(&copies[0]).expect("it is there") == sound, "damaged at {damage}");
    }
    std::fs::write(&copies[0], &sound[..sound.len() / 2]).expect("it can be written");
    assert_eq!(load(folder.path(), &cache).logits(&tokens(), None).data, logits.data);

    // Other weights in the same place: another copy in the old one's.
    Network::random(28).write_folder(folder.path());
    assert_ne!(load(folder.path(), &cache).logits(&tokens(), None).data, logits.data);
    assert_eq!(files(&cache), copies);
}

#[test]
fn where_no_copy_can_be_kept_the_folder_is_used_as_it_is() {
    let folder = random_folder(29);
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "").expect("the folder can be written");
    let plain = Loaded::new(folder.path(), Precision::Exact);
    let loaded = load(folder.path(), &file);
    assert_eq!(loaded.model.weight_bytes(), plain.model.weight_bytes());
    // A GGUF file is used as it is.
    let path = folder.path().join("f16.gguf");
    Network::random(29).gguf().write(&path, 3);
    let cache = folder.path().join("cache");
    load(&path, &cache);
    assert!(!cache.exists());
}
