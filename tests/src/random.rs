//! Models of the published sizes with random weights: speed and memory can be measured without a
//! download. The words are nonsense; what is computed, read and kept is not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::bf16;
use serde_json::{Map, Value, json};

use crate::synthetic::{Gguf, Naming};
use crate::vocabulary::Vocabulary;

/// Rows that are quantised at a time: a table of 256,000 rows must not stand in memory as f32.
const ROWS: usize = 4096;

/// A model that can be made.
pub struct Recipe {
    config: Value,
    /// By HuggingFace's names, in the file's order.
    tensors: Vec<Spec>,
}

struct Spec {
    name: String,
    shape: Vec<usize>,
    /// Numbers are spread around this.
    mean: f32,
    /// How far.
    spread: f32,
}

/// The models that [`Recipe::named`] knows.
pub const NAMES: [&str; 2] = ["codegemma-2b", "recurrentgemma-2b"];

impl Recipe {
    /// A model by its published name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "codegemma-2b" => Some(Self::new(codegemma_2b())),
            "recurrentgemma-2b" => Some(Self::new(recurrentgemma_2b())),
            _ => None,
        }
    }

    /// The tensors that a configuration asks for.
    fn new(config: Value) -> Self {
        let mut this = Self { config, tensors: Vec::new() };
        let number = |key: &str| this.config[key].as_u64().unwrap_or_default() as usize;
        let (hidden, layers, vocab) =
            (number("hidden_size"), number("num_hidden_layers"), number("vocab_size"));
        let (heads, kv_heads, head_dim) =
            (number("num_attention_heads"), number("num_key_value_heads"), number("head_dim"));
        let (ffn, width, taps) = (number("intermediate_size"), number("lru_width"), number("conv1d_width"));
        let recurrent = this.config["model_type"] == "recurrent_gemma";
        this.add("model.embed_tokens.weight", &[vocab, hidden], 0.0, 1.0 / (hidden as f32).sqrt());
        this.norm(if recurrent { "model.final_norm" } else { "model.norm" }, hidden);
        for layer in 0..layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            if !recurrent {
                this.norm(&name("input_layernorm"), hidden);
                this.norm(&name("post_attention_layernorm"), hidden);
                this.attention(&name("self_attn"), hidden, [heads, kv_heads, head_dim], false);
                this.mlp(&name("mlp"), hidden, ffn, false);
                continue;
            }
            this.norm(&name("temporal_pre_norm"), hidden);
            this.norm(&name("channel_pre_norm"), hidden);
            this.mlp(&name("mlp_block"), hidden, ffn / 2, true);
            if layer % 3 == 2 {
                this.attention(&name("temporal_block"), hidden, [heads, kv_heads, head_dim], true);
            } else {
                this.recurrence(&name("temporal_block"), hidden, [width, heads, taps]);
            }
        }
        this
    }

    fn add(&mut self, name: &str, shape: &[usize], mean: f32, spread: f32) {
        self.tensors.push(Spec { name: name.to_owned(), shape: shape.to_vec(), mean, spread });
    }

    fn norm(&mut self, name: &str, len: usize) {
        self.add(&format!("{name}.weight"), &[len], 0.0, 0.1);
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize, bias: bool) {
        self.add(&format!("{name}.weight"), &[rows, cols], 0.0, 1.0 / (cols as f32).sqrt());
        if bias {
            self.add(&format!("{name}.bias"), &[rows], 0.0, 0.1);
        }
    }

    fn attention(&mut self, name: &str, hidden: usize, [heads, kv_heads, dim]: [usize; 3], bias: bool) {
        self.linear(&format!("{name}.q_proj"), heads * dim, hidden, false);
        self.linear(&format!("{name}.k_proj"), kv_heads * dim, hidden, false);
        self.linear(&format!("{name}.v_proj"), kv_heads * dim, hidden, false);
        self.linear(&format!("{name}.o_proj"), hidden, heads * dim, bias);
    }

    fn mlp(&mut self, name: &str, hidden: usize, ffn: usize, bias: bool) {
        self.linear(&format!("{name}.gate_proj"), ffn, hidden, bias);
        self.linear(&format!("{name}.up_proj"), ffn, hidden, bias);
        self.linear(&format!("{name}.down_proj"), hidden, ffn, bias);
    }

    fn recurrence(&mut self, name: &str, hidden: usize, [width, blocks, taps]: [usize; 3]) {
        let side = width / blocks;
        self.linear(&format!("{name}.linear_x"), width, hidden, true);
        self.linear(&format!("{name}.linear_y"), width, hidden, true);
        self.linear(&format!("{name}.linear_out"), hidden, width, true);
        self.add(&format!("{name}.conv_1d.weight"), &[width, 1, taps], 0.0, 0.5);
        self.add(&format!("{name}.conv_1d.bias"), &[width], 0.0, 0.1);
        // Between channels that forget within a few tokens and channels that keep hundreds.
        self.add(&format!("{name}.rg_lru.recurrent_param"), &[width], -6.0, 1.0);
        for gate in ["input", "recurrent"] {
            let spread = 1.0 / (side as f32).sqrt();
            self.add(&format!("{name}.rg_lru.{gate}_gate_weight"), &[blocks, side, side], 0.0, spread);
            self.add(&format!("{name}.rg_lru.{gate}_gate_bias"), &[blocks, side], 0.0, 0.1);
        }
    }

    /// Writes a HuggingFace folder in bf16, tensor by tensor, with a vocabulary where one is given; `progress`
    /// hears of the bytes written.
    pub fn write_folder(
        &self,
        folder: &Path,
        vocabulary: Option<&Vocabulary>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        if let Some(vocabulary) = vocabulary {
            vocabulary.copy_into(folder)?;
        }
        std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&self.config)?)?;
        let mut header = Map::new();
        let mut end = 0;
        for spec in &self.tensors {
            let begin = end;
            end += 2 * spec.len() as u64;
            let place = json!({"dtype": "BF16", "shape": spec.shape, "data_offsets": [begin, end]});
            header.insert(spec.name.clone(), place);
        }
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let header = serde_json::to_vec(&header)?;
        let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut done = 0;
        for spec in &self.tensors {
            let mut numbers = spec.numbers();
            for first in (0..spec.rows()).step_by(ROWS) {
                let some = ROWS.min(spec.rows() - first) * spec.cols();
                let bytes: Vec<u8> = numbers.by_ref().take(some).flat_map(bf16::to_le_bytes).collect();
                file.write_all(&bytes)?;
                done += bytes.len() as u64;
                progress(done, end);
            }
        }
        file.flush()
    }

    /// Writes a GGUF file of the same numbers, its matrices in `format` and the rest in f32. Without a
    /// vocabulary it gets one of bytes and single letters.
    pub fn write_gguf(
        &self,
        path: &Path,
        format: GgmlDType,
        vocabulary: Option<&Vocabulary>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> candle_core::Result<()> {
        let naming = Naming::new(&self.config);
        let total = self.tensors.iter().map(|spec| spec.len() as u64).sum();
        let (mut tensors, mut done) = (Vec::with_capacity(self.tensors.len()), 0);
        for spec in &self.tensors {
            let kept =
                if spec.shape.len() == 2 && !spec.name.ends_with("bias") { format } else { GgmlDType::F32 };
            let (mut numbers, mut bytes) = (spec.numbers(), Vec::new());
            let offset = naming.offset(&spec.name);
            for first in (0..spec.rows()).step_by(ROWS) {
                let rows = ROWS.min(spec.rows() - first);
                let some = numbers.by_ref().take(rows * spec.cols()).map(|v| v.to_f32() + offset).collect();
                let some = Tensor::from_vec::<_, f32>(some, (rows, spec.cols()), &Device::Cpu)?;
                bytes.extend_from_slice(&QTensor::quantize(&some, kept)?.data()?);
                done += (rows * spec.cols()) as u64;
                progress(done, total);
            }
            let storage = QStorage::from_data(bytes.into(), &Device::Cpu, kept)?;
            tensors.push((naming.gguf(&spec.name), QTensor::new(storage, spec.shape.as_slice())?));
        }
        let mut metadata = naming.metadata();
        if let Some(vocabulary) = vocabulary {
            metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
            metadata.extend(vocabulary.metadata(naming.vocabulary_len())?);
        }
        Gguf::new(metadata, tensors).write(path, 3);
        Ok(())
    }
}

impl Spec {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.len() / self.cols()
    }

    /// The tensor's numbers, the same each time: its name is the seed.
    fn numbers(&self) -> impl Iterator<Item = bf16> + use<> {
        let seed = self.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (mean, spread) = (self.mean, self.spread);
        let mut state = seed | 1;
        std::iter::repeat_with(move || {
            // xorshift64*; four numbers out of each step.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
            [0, 16, 32, 48].map(|shift| {
                // Even over a range whose standard deviation is 1.
                let even = ((bits >> shift) as u16 as f32 / 32_768.0 - 1.0) * 3.0_f32.sqrt();
                bf16::from_f32(mean + spread * even)
            })
        })
        .flatten()
    }
}

/// As published.
fn codegemma_2b() -> Value {
    json!({
        "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "torch_dtype": "bfloat16",
        "vocab_size": 256_000, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0, "max_position_embeddings": 8192, "hidden_activation": "gelu_pytorch_tanh",
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    })
}

/// As published.
fn recurrentgemma_2b() -> Value {
    json!({
        "architectures": ["RecurrentGemmaForCausalLM"], "model_type": "recurrent_gemma",
        "torch_dtype": "bfloat16", "vocab_size": 256_000, "hidden_size": 2560, "intermediate_size": 15_360,
        "num_hidden_layers": 26, "num_attention_heads": 10, "num_key_value_heads": 1, "head_dim": 256,
        "lru_width": 2560, "conv1d_width": 4, "attention_window_size": 2048, "logits_soft_cap": 30.0,
        "block_types": ["recurrent", "recurrent", "attention"], "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "hidden_activation": "gelu_pytorch_tanh",
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    })
}

#[cfg(test)]
mod tests {
    use gemma_engine::Precision;

    use super::*;
    use crate::models::Loaded;
    use crate::numbers::worst;

    /// A small model made the same way, with a table of more rows than are written at a time.
    fn small(mut config: Value) -> Recipe {
        for (key, value) in [
            ("vocab_size", ROWS + 300),
            ("hidden_size", 64),
            ("lru_width", 64),
            ("intermediate_size", 256),
            ("num_hidden_layers", 4),
            ("num_attention_heads", 4),
            ("head_dim", 16),
        ] {
            config[key] = json!(value);
        }
        Recipe::new(config)
    }

    #[test]
    fn folder_and_gguf_are_the_same_model() {
        for config in [codegemma_2b(), recurrentgemma_2b()] {
            let recipe = small(config);
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            recipe.write_folder(folder.path(), None, &mut |_, _| {}).expect("written");
            let file = folder.path().join("model.gguf");
            recipe.write_gguf(&file, GgmlDType::F32, None, &mut |_, _| {}).expect("written");
            let ids: Vec<u32> = (0..20).map(|i| 2 + i * 211).collect();
            let logits = |path: &Path| Loaded::new(path, Precision::Exact).logits(&ids, None);
            let (ours, theirs) = (logits(folder.path()), logits(&file));
            // The scale of the embeddings is rounded with bf16 weights and not in GGUF.
            assert!(worst(&ours.data, &theirs.data) < 0.05, "{}", worst(&ours.data, &theirs.data));
        }
    }
}
