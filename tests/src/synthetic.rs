//! Models made for tests: a network with random or golden weights, written as GGUF in any block format.
//!
//! candle's quantisers and its GGUF writer do the work, so that what the engine reads was written by
//! somebody else's understanding of the formats.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::json;

use crate::places;

/// A network as HuggingFace stores it: a configuration, and tensors in f32 by their names.
pub struct Network {
    config: serde_json::Value,
    tensors: BTreeMap<String, Tensor>,
}

/// A network as GGUF stores it.
pub struct Gguf {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

/// Names that GGUF gives to the tensors of a layer.
const LAYER_NAMES: [(&str, &str); 13] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Names of our own layout for the tensors of a RecurrentGemma layer, up to `.weight` and `.bias`.
const RECURRENT_NAMES: [(&str, &str); 16] = [
    ("temporal_pre_norm", "attn_norm"),
    ("channel_pre_norm", "ffn_norm"),
    ("mlp_block.gate_proj", "ffn_gate"),
    ("mlp_block.up_proj", "ffn_up"),
    ("mlp_block.down_proj", "ffn_down"),
    ("temporal_block.q_proj", "attn_q"),
    ("temporal_block.k_proj", "attn_k"),
    ("temporal_block.v_proj", "attn_v"),
    ("temporal_block.o_proj", "attn_output"),
    ("temporal_block.linear_x", "rec_x"),
    ("temporal_block.linear_y", "rec_y"),
    ("temporal_block.linear_out", "rec_out"),
    ("temporal_block.conv_1d", "rec_conv"),
    ("temporal_block.rg_lru.recurrent_param", "rec_decay"),
    ("temporal_block.rg_lru.input_gate", "rec_input_gate"),
    ("temporal_block.rg_lru.recurrent_gate", "rec_gate"),
];

impl Network {
    /// The network of a golden case, its configuration in the spelling of the published checkpoints.
    pub fn golden(case: &str) -> Self {
        let config = crate::golden::json(&format!("{case}/config_legacy.json"));
        let path = places::golden(case).join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let numbers = |data: &[u8]| -> Vec<f32> {
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            assert_eq!(view.dtype(), safetensors::Dtype::F32, "{case}: {name} is not f32");
            (name, tensor(numbers(view.data()), view.shape()))
        });
        Self { config, tensors: tensors.collect() }
    }

    /// A Gemma 3 with random weights and the structure of the published ones, in widths that every block
    /// format divides.
    pub fn random(seed: u64) -> Self {
        let (hidden, ffn, heads, kv_heads, head_dim, vocab, layers) = (256, 512, 4, 1, 64, 512, 7);
        let config = json!({
            "model_type": "gemma3_text", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": ffn,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "sliding_window": 8,
            "rope_theta": 1_000_000.0, "query_pre_attn_scalar": head_dim,
        });
        let mut random = Random(seed);
        let mut tensors = BTreeMap::new();
        let mut matrix = |name: String, rows: usize, cols: usize| {
            let data = (0..rows * cols).map(|_| random.normal() / (cols as f32).sqrt()).collect();
            tensors.insert(name + ".weight", tensor(data, &[rows, cols]));
        };
        matrix("model.embed_tokens".to_owned(), vocab, hidden);
        for layer in 0..layers {
            let mut matrix =
                |name: &str, rows, cols| matrix(format!("model.layers.{layer}.{name}"), rows, cols);
            matrix("self_attn.q_proj", heads * head_dim, hidden);
            matrix("self_attn.k_proj", kv_heads * head_dim, hidden);
            matrix("self_attn.v_proj", kv_heads * head_dim, hidden);
            matrix("self_attn.o_proj", hidden, heads * head_dim);
            matrix("mlp.gate_proj", ffn, hidden);
            matrix("mlp.up_proj", ffn, hidden);
            matrix("mlp.down_proj", hidden, ffn);
        }
        let norms = LAYER_NAMES.iter().filter(|(name, _)| name.ends_with("norm"));
        let mut names: Vec<_> = norms
            .flat_map(|(name, _)| (0..layers).map(move |l| format!("model.layers.{l}.{name}.weight")))
            .collect();
        names.push("model.norm.weight".to_owned());
        for name in names {
            let len = if name.contains("self_attn") { head_dim } else { hidden };
            tensors.insert(name, tensor((0..len).map(|_| 0.1 * random.normal()).collect(), &[len]));
        }
        Self { config, tensors }
    }

    /// The same with this number throughout the last norm's weights.
    pub fn with_last_norm(mut self, weight: f32) -> Self {
        let name = "model.norm.weight";
        let len = self.tensors[name].dims()[0];
        self.tensors.insert(name.to_owned(), tensor(vec![weight; len], &[len]));
        self
    }

    /// The same with an embedding table of so many rows, all zeros behind those that it has.
    pub fn with_rows(mut self, rows: usize) -> Self {
        let name = "model.embed_tokens.weight";
        let table = &self.tensors[name];
        let padded = table.pad_with_zeros(0, 0, rows - table.dims()[0]);
        self.tensors.insert(name.to_owned(), padded.unwrap_or_else(|e| panic!("{name}: {e}")));
        self.config["vocab_size"] = json!(rows);
        self
    }

    /// Writes it as a HuggingFace folder in f32.
    pub fn write_folder(&self, folder: &Path) {
        let tensors: std::collections::HashMap<String, Tensor> =
            self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let written = candle_core::safetensors::save(&tensors, folder.join("model.safetensors"));
        written.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let config = self.config.to_string();
        std::fs::write(folder.join("config.json"), config).expect("the folder can be written");
    }

    /// The network as GGUF in f32, as the usual converter writes it: 1 added to the norms. GGUF cannot
    /// say that scores are scaled by anything but the head's width, so that goes into the queries.
    pub fn gguf(&self) -> Gguf {
        let naming = Naming::new(&self.config);
        let head_dim = f64::from(naming.count("head_dim"));
        let score_scale =
            naming.number("query_pre_attn_scalar").map_or(1.0, |scalar| (head_dim / scalar).sqrt());
        let scaled = if naming.architecture() == "gemma3" { "q_norm" } else { "q_proj" };
        let tensors = self.tensors.iter().map(|(name, tensor)| {
            let offset = f64::from(naming.offset(name));
            let scale = if name.contains(scaled) { score_scale } else { 1.0 };
            let tensor = tensor.affine(1.0, offset).and_then(|t| t.affine(scale, 0.0));
            let tensor = tensor.and_then(|t| QTensor::quantize(&t, GgmlDType::F32));
            (naming.gguf(name), tensor.unwrap_or_else(|e| panic!("{name}: {e}")))
        });
        Gguf { metadata: naming.metadata(), tensors: tensors.collect() }
    }
}

/// What GGUF calls the things of a HuggingFace configuration.
pub(crate) struct Naming<'a> {
    config: &'a serde_json::Value,
}

impl<'a> Naming<'a> {
    pub(crate) fn new(config: &'a serde_json::Value) -> Self {
        Self { config }
    }

    /// What the usual converter adds to a tensor's numbers.
    pub(crate) fn offset(&self, name: &str) -> f32 {
        if name.ends_with("norm.weight") { 1.0 } else { 0.0 }
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.config[key].as_f64()
    }

    fn count(&self, key: &str) -> u32 {
        let number = self.config[key].as_u64().and_then(|n| u32::try_from(n).ok());
        number.unwrap_or_else(|| panic!("the configuration has no {key}"))
    }

    fn architecture(&self) -> &'static str {
        match self.config["model_type"].as_str() {
            Some("gemma") => "gemma",
            Some("gemma2") => "gemma2",
            Some("gemma3_text") => "gemma3",
            Some("recurrent_gemma") => "recurrentgemma",
            other => panic!("no GGUF architecture for the model type {other:?}"),
        }
    }

    /// A tensor's name.
    pub(crate) fn gguf(&self, name: &str) -> String {
        match name {
            "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
            "model.norm.weight" | "model.final_norm.weight" => return "output_norm.weight".to_owned(),
            _ => {}
        }
        let parts = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let (layer, rest) = parts.unwrap_or_else(|| panic!("{name}?"));
        if self.architecture() == "recurrentgemma" {
            let known = RECURRENT_NAMES.iter().find_map(|(theirs, ours)| {
                let kind = rest.strip_prefix(theirs)?;
                Some(format!(
                    "blk.{layer}.{ours}{}",
                    kind.replace("_weight", ".weight").replace("_bias", ".bias")
                ))
            });
            return known.unwrap_or_else(|| panic!("{name}?"));
        }
        let part = rest.strip_suffix(".weight").unwrap_or_else(|| panic!("{name}?"));
        // Gemma 1 has one norm before each half of a layer, and this is the second.
        if self.architecture() == "gemma" && part == "post_attention_layernorm" {
            return format!("blk.{layer}.ffn_norm.weight");
        }
        let known = LAYER_NAMES.iter().find(|(theirs, _)| *theirs == part);
        format!("blk.{layer}.{}.weight", known.unwrap_or_else(|| panic!("{name}?")).1)
    }

    /// The configuration as metadata, with a vocabulary of its size.
    pub(crate) fn metadata(&self) -> Vec<(String, Value)> {
        let architecture = self.architecture();
        let mut metadata = vec![
            ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
            ("general.name".to_owned(), Value::String("made for tests".to_owned())),
        ];
        let mut put = |key: &str, value| metadata.push((format!("{architecture}.{key}"), value));
        for (key, theirs) in [
            ("block_count", "num_hidden_layers"),
            ("embedding_length", "hidden_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.key_length", "head_dim"),
            ("attention.value_length", "head_dim"),
        ] {
            put(key, Value::U32(self.count(theirs)));
        }
        // RecurrentGemma states the width of gate and up together, and no length.
        let (ffn, context) = match architecture {
            "recurrentgemma" => (self.count("intermediate_size") / 2, 8192),
            _ => (self.count("intermediate_size"), self.count("max_position_embeddings")),
        };
        put("feed_forward_length", Value::U32(ffn));
        put("context_length", Value::U32(context));
        if architecture == "recurrentgemma" {
            let share = self.number("partial_rotary_factor").unwrap_or(0.5);
            put("rope.dimension_count", Value::U32((share * f64::from(self.count("head_dim"))) as u32));
            put("attention.sliding_window", Value::U32(self.count("attention_window_size")));
            put("recurrent.width", Value::U32(self.count("lru_width")));
            put("recurrent.convolution_length", Value::U32(self.count("conv1d_width")));
        }
        if self.config["sliding_window"].is_u64() {
            put("attention.sliding_window", Value::U32(self.count("sliding_window")));
        }
        for (key, theirs) in [
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("rope.freq_base", "rope_theta"),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("final_logit_softcapping", "logits_soft_cap"),
        ] {
            if let Some(number) = self.number(theirs) {
                put(key, Value::F32(number as f32));
            }
        }
        if let Some(factor) = self.config["rope_scaling"]["factor"].as_f64() {
            put("rope.scaling.type", Value::String("linear".to_owned()));
            put("rope.scaling.factor", Value::F32(factor as f32));
        }
        metadata.extend(vocabulary(self.count("vocab_size")));
        metadata
    }

    /// How many entries the vocabulary has.
    pub(crate) fn vocabulary_len(&self) -> usize {
        self.count("vocab_size") as usize
    }
}

/// A vocabulary of this many entries: the four control tokens of the family, bytes, letters.
fn vocabulary(len: u32) -> Vec<(String, Value)> {
    let (control, unknown, byte, normal) = (3, 2, 6, 1);
    let special = [("<pad>", control), ("<eos>", control), ("<bos>", control), ("<unk>", unknown)];
    let special = special.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
    let bytes = (0..=255).map(|b| (format!("<0x{b:02X}>"), byte));
    let letters = (0x4e00_u32..).filter_map(char::from_u32).map(|c| (c.to_string(), normal));
    // Where there is no room for all bytes there are none: a tokenizer with half of them is no tokenizer.
    let bytes = bytes.take(if len >= 512 { 256 } else { 0 });
    let entries: Vec<(String, i32)> = special.chain(bytes).chain(letters).take(len as usize).collect();
    let list = |values: Vec<Value>| Value::Array(values);
    [
        ("model", Value::String("llama".to_owned())),
        ("tokens", list(entries.iter().map(|(name, _)| Value::String(name.clone())).collect())),
        ("scores", list((0..entries.len()).map(|rank| Value::F32(-(rank as f32))).collect())),
        ("token_type", list(entries.iter().map(|(_, kind)| Value::I32(*kind)).collect())),
        ("bos_token_id", Value::U32(2)),
        ("eos_token_id", Value::U32(1)),
        ("unknown_token_id", Value::U32(3)),
        ("padding_token_id", Value::U32(0)),
    ]
    .into_iter()
    .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
    .collect()
}

impl Gguf {
    /// A file of these entries and tensors.
    pub(crate) fn new(metadata: Vec<(String, Value)>, tensors: Vec<(String, QTensor)>) -> Self {
        Self { metadata, tensors }
    }

    /// The same with its matrices in other formats.
    pub fn quantised(&self, format: impl Fn(&str) -> GgmlDType) -> Self {
        self.map(|name, tensor| match tensor.rank() {
            2 => QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, format(name)),
            _ => QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::F32),
        })
    }

    /// The same widened to f32.
    pub fn dequantised(&self) -> Self {
        self.map(|_, tensor| QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::F32))
    }

    fn map(&self, change: impl Fn(&str, &QTensor) -> candle_core::Result<QTensor>) -> Self {
        let tensors = self.tensors.iter().map(|(name, tensor)| {
            (name.clone(), change(name, tensor).unwrap_or_else(|e| panic!("{name}: {e}")))
        });
        Self { metadata: self.metadata.clone(), tensors: tensors.collect() }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|(_, tensor)| tensor.storage_size_in_bytes()).sum()
    }

    /// The same with one more metadata entry, or another value for it.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// The same with the tokens that open and close a turn as the last of its vocabulary, and with a chat
    /// template where one is given.
    pub fn with_turns(mut self, template: Option<&str>) -> Self {
        for (key, value) in &mut self.metadata {
            let Value::Array(entries) = value else { continue };
            let last = entries.len() - 2;
            match key.as_str() {
                "tokenizer.ggml.tokens" => {
                    entries[last] = Value::String("<start_of_turn>".to_owned());
                    entries[last + 1] = Value::String("<end_of_turn>".to_owned());
                }
                "tokenizer.ggml.token_type" => entries[last..].fill(Value::I32(3)),
                _ => {}
            }
        }
        match template {
            Some(template) => self.with("tokenizer.chat_template", Value::String(template.to_owned())),
            None => self,
        }
    }

    /// The same without a metadata entry.
    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self
    }

    /// The same without a tensor.
    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|(tensor, _)| tensor != name);
        self
    }

    /// Writes it as version 2 or 3 of the format, which differ in nothing but the number.
    pub fn write(&self, path: &Path, version: u32) {
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let written = File::create(path).map_err(candle_core::Error::from).and_then(|mut file| {
            gguf_file::write(&mut file, &metadata, &tensors)?;
            file.seek(SeekFrom::Start(4))?;
            file.write_all(&version.to_le_bytes())?;
            Ok(())
        });
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

fn tensor(data: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap_or_else(|e| panic!("{e}"))
}

/// A small generator: the same seed, the same model, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Near enough to a normal distribution: the sum of twelve even ones.
    fn normal(&mut self) -> f32 {
        let even = |bits: u64| (bits >> 40) as f32 / (1_u64 << 24) as f32;
        (0..12).map(|_| even(self.next())).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("model.gguf");
        let gguf = Network::random(1).gguf().quantised(|_| GgmlDType::Q4K);
        gguf.write(&path, 3);
        let mut file = File::open(&path).expect("it was just written");
        let content = gguf_file::Content::read(&mut file).expect("candle reads what it wrote");
        assert_eq!(content.tensor_infos.len(), gguf.tensors.len());
        assert_eq!(content.tensor_infos["blk.0.attn_q.weight"].ggml_dtype, GgmlDType::Q4K);
        assert_eq!(content.tensor_infos["blk.0.attn_q_norm.weight"].ggml_dtype, GgmlDType::F32);
        assert!(content.metadata.contains_key("gemma3.attention.sliding_window"));
    }

    #[test]
    fn golden_networks_convert() {
        for case in ["gemma1-mqa", "gemma2-gqa", "gemma3-text-ropescale", "recurrentgemma"] {
            let network = Network::golden(case);
            let gguf = network.gguf();
            assert_eq!(gguf.tensors.len(), network.tensors.len(), "{case}");
        }
    }
}
