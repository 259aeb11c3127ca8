//! Every way a checkpoint may be stored gives the numbers that its weights demand: GGUF of each
//! architecture and block format, safetensors in one file or many.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use gemma_engine::Precision;
use gemma_tests::golden::Case;
use gemma_tests::models::{Arithmetic, Loaded};
use gemma_tests::numbers::{Findings, Matrix, worst};
use gemma_tests::synthetic::{Gguf, Network};

const FORMATS: [GgmlDType; 11] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q8_0,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// f32 sums in another order may move a logit of size 1 by this.
const EXACT_TOLERANCE: f32 = 2e-4;
/// How much of the logits' spread 8-bit activations may cost at the worst logit of all.
const FAST_SHARE: f32 = 0.25;

fn tokens(vocab: u32) -> Vec<u32> {
    (0..40).map(|i: u32| if i == 0 { 2 } else { (i * 7919 + 13) % vocab }).collect()
}

/// Writes a model, loads it, asks for all logits; also says how many bytes its weights take.
fn logits(gguf: &Gguf, arithmetic: impl Into<Arithmetic>) -> (Matrix, u64) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("model.gguf");
    gguf.write(&path, 3);
    let loaded = Loaded::new(&path, arithmetic);
    (loaded.logits(&tokens(512), None), loaded.model.weight_bytes())
}

/// Standard deviation of all logits.
fn spread(logits: &Matrix) -> f32 {
    let count = logits.data.len() as f32;
    let mean = logits.data.iter().sum::<f32>() / count;
    (logits.data.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count).sqrt()
}

/// Holds a quantised model against the one in which candle widened its blocks to f32.
fn check_format(what: &str, gguf: &Gguf, findings: &mut Findings) {
    let (truth, _) = logits(&gguf.dequantised(), Precision::Reference);
    let spread = spread(&truth);
    for arithmetic in Arithmetic::all(&[Precision::Exact, Precision::Reference, Precision::Fast]) {
        let precision = arithmetic.precision;
        let (ours, bytes) = logits(gguf, arithmetic);
        let distance = worst(&ours.data, &truth.data) / spread;
        let tolerance = if precision == Precision::Fast { FAST_SHARE } else { EXACT_TOLERANCE };
        println!("{what:>6} {arithmetic}: at worst {distance:e} of the logits' spread, {bytes} bytes");
        findings.check(distance <= tolerance, || format!("{what} {arithmetic}: {distance:e} off"));
        // The oracle widens everything to f32.
        let most = 1.15 * gguf.bytes() as f64;
        findings.check(precision == Precision::Reference || bytes as f64 <= most, || {
            format!("{what} {arithmetic}: {bytes} bytes, at most {most}")
        });
    }
}

#[test]
fn every_block_format_gives_its_own_weights_logits() {
    let network = Network::random(7).gguf();
    let mut findings = Findings::default();
    for format in FORMATS {
        check_format(&format!("{format:?}"), &network.quantised(|_| format), &mut findings);
    }
    findings.assert_none();
}

#[test]
fn formats_may_be_mixed_in_a_file() {
    let mixed = Network::random(8).gguf().quantised(|name| match name {
        name if name.contains("token_embd") => GgmlDType::Q8_0,
        name if name.contains("attn_v") || name.contains("ffn_down") => GgmlDType::Q6K,
        name if name.contains("attn_k") => GgmlDType::Q5_0,
        _ => GgmlDType::Q4K,
    });
    let mut findings = Findings::default();
    check_format("mixed", &mixed, &mut findings);
    findings.assert_none();
}

#[test]
fn gguf_of_every_architecture_gives_the_references_logits() {
    let mut findings = Findings::default();
    for name in ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale"] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let case = Case::read(name);
        for version in [2, 3] {
            let path = folder.path().join(format!("v{version}.gguf"));
            Network::golden(name).gguf().write(&path, version);
            let loaded = Loaded::new(&path, Precision::Exact);
            for prompt in &case.golden.prompts {
                let ours = loaded.logits(&prompt.ids, None);
                let distance = worst(&ours.data, &case.tensor(&prompt.logits).data);
                findings.check(distance <= prompt.tolerance(), || {
                    format!("{name} as GGUF v{version}, {}: {distance:e} off", prompt.name)
                });
            }
        }
    }
    findings.assert_none();
}

/// Splits `model.safetensors` into two files and an index, as larger checkpoints come.
fn shard(folder: &Path) {
    use safetensors::SafeTensors;
    let whole = folder.join("model.safetensors");
    let bytes = std::fs::read(&whole).expect("the checkpoint was copied here");
    let file = SafeTensors::deserialize(&bytes).expect("the golden data is sound");
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut map = serde_json::Map::new();
    let second = tensors.split_off(tensors.len() / 2);
    for (number, part) in [(1, tensors), (2, second)] {
        let name = format!("model-{number:05}-of-00002.safetensors");
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), serde_json::json!(name))));
        let data = safetensors::serialize(part, None).expect("views of a sound file can be written");
        std::fs::write(folder.join(name), data).expect("the folder can be written");
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("as above");
    std::fs::remove_file(whole).expect("it was there");
}

#[test]
fn safetensors_may_come_in_several_files() {
    let case = Case::read("gemma2-gqa");
    let folder = case.checkpoint("config.json");
    shard(folder.path());
    let loaded = Loaded::new(folder.path(), Precision::Exact);
    let prompt = case.prompt("long");
    let distance = worst(&loaded.logits(&prompt.ids, None).data, &case.tensor(&prompt.logits).data);
    assert!(distance <= prompt.tolerance(), "{distance:e}");
}

#[test]
fn recurrentgemma_in_our_own_gguf_layout_is_the_network_of_the_folder() {
    let case = Case::read("recurrentgemma");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("model.gguf");
    Network::golden("recurrentgemma").gguf().write(&path, 3);
    let mut findings = Findings::default();
    for arithmetic in Arithmetic::all(&[Precision::Exact, Precision::Reference]) {
        let loaded = Loaded::new(&path, arithmetic);
        for prompt in &case.golden.prompts {
            let distance = worst(&loaded.logits(&prompt.ids, None).data, &case.tensor(&prompt.logits).data);
            findings.check(distance <= prompt.tolerance(), || {
                format!("{} ({arithmetic}): {distance:e}", prompt.name)
            });
        }
    }
    findings.assert_none();
}
