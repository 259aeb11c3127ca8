//! A network and its vocabulary as GGUF's metadata, in the keys that llama.cpp's converter writes.

use gemma_kernels::quant;

use super::QuantType;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::gguf_config::query_scalar;
use crate::checkpoint::gguf_writer::Header;
use crate::config::{Architecture, AttentionSpec, Mixer, ModelConfig, Sight};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{END_OF_TURN, VocabularyEntry, folder_vocabulary};

/// The key of our own that tells what a cached file was made of.
pub(super) const SOURCE: &str = "gemma_ls.source";
/// The key of our own with a checksum a tensor, in the order of the file.
pub(super) const CHECKSUMS: &str = "gemma_ls.checksums";

/// The version of llama.cpp's block layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// llama.cpp's number for what most of a file is stored in.
fn file_type(kind: QuantType) -> u32 {
    match kind {
        QuantType::Q4_0 => 2,
        QuantType::Q8_0 => 7,
        QuantType::Q4_K_M => 15,
    }
}

/// The metadata of a folder's text network; whether there is a vocabulary in it.
pub(super) fn of_folder(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    kind: QuantType,
    header: &mut Header,
) -> Result<bool> {
    let path = checkpoint.path();
    header.string("general.architecture", &config.name());
    header.string("general.type", "model");
    let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(name) = folder.file_name() {
        header.string("general.name", &name.to_string_lossy());
    }
    of_network(config, header).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            path.display(),
            "has no attention layer, which a GGUF file cannot say",
        )
    })?;
    header.u32("general.file_type", file_type(kind));
    header.u32("general.quantization_version", QUANTIZATION_VERSION);
    match folder_vocabulary(path, config.vocab) {
        Ok(entries) => of_vocabulary(&entries, config, header),
        // Such a model runs by token ids.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(template) = checkpoint.chat_template() {
        header.string("tokenizer.chat_template", template);
    }
    Ok(true)
}

fn of_network(config: &ModelConfig, header: &mut Header) -> Option<()> {
    let (architecture, prefix) = (config.architecture, config.name());
    let attention = |wanted: &dyn Fn(&AttentionSpec) -> bool| {
        config.layers.iter().find_map(|layer| match &layer.mixer {
            Mixer::Attention(spec) if wanted(spec) => Some(spec),
            _ => None,
        })
    };
    let any = attention(&|_| true)?;
    let sliding = attention(&|spec| spec.window.is_some());
    let global = attention(&|spec| spec.window.is_none()).unwrap_or(any);
    let key = |name: &str| format!("{prefix}.{name}");
    let mut count = |name: &str, value: usize| header.u32(&key(name), value as u32);
    count("context_length", config.context);
    count("embedding_length", config.hidden);
    count("block_count", config.layers.len());
    count("feed_forward_length", config.layers.first()?.mlp.ffn);
    count("attention.head_count", any.heads);
    count("attention.head_count_kv", any.kv_heads);
    count("attention.key_length", any.head_dim);
    count("attention.value_length", any.head_dim);
    if let Some(window) = sliding.and_then(|spec| spec.window) {
        count("attention.sliding_window", window);
    }
    let recurrent = config.layers.iter().find_map(|layer| match &layer.mixer {
        Mixer::RgLru(spec) => Some(spec),
        Mixer::Attention(_) => None,
    });
    if architecture == Architecture::RecurrentGemma {
        count("rope.dimension_count", any.rotary);
        let recurrent = recurrent?;
        count("recurrent.width", recurrent.width);
        count("recurrent.convolution_length", recurrent.taps);
    }
    if let Some(vision) = &config.vision {
        count("vision.image_size", vision.image_size);
        count("vision.patch_size", vision.patch);
        count("vision.embedding_length", vision.hidden);
        count("vision.block_count", vision.layers);
        count("vision.attention.head_count", vision.heads);
        count("vision.feed_forward_length", vision.ffn);
        count("vision.image_token_id", vision.image_token as usize);
        header.f32(&key("vision.attention.layer_norm_epsilon"), vision.eps);
    }
    header.f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    header.f32(&key("rope.freq_base"), global.rope.theta);
    if global.rope.factor != 1.0 {
        header.string(&key("rope.scaling.type"), "linear");
        header.f32(&key("rope.scaling.factor"), global.rope.factor);
    }
    if let (Architecture::Gemma3, Some(sliding)) = (architecture, sliding) {
        header.f32(&key("rope.freq_base_swa"), sliding.rope.theta);
    }
    if let Some(cap) = any.soft_cap {
        header.f32(&key("attn_logit_softcapping"), cap);
    }
    if let Some(cap) = config.final_soft_cap {
        header.f32(&key("final_logit_softcapping"), cap);
    }
    Some(())
}

fn of_vocabulary(entries: &[VocabularyEntry], config: &ModelConfig, header: &mut Header) {
    header.string("tokenizer.ggml.model", "llama");
    header.string("tokenizer.ggml.pre", "default");
    header.strings("tokenizer.ggml.tokens", entries.iter().map(|entry| entry.spelling.as_str()));
    header.f32s("tokenizer.ggml.scores", entries.iter().map(|entry| entry.score));
    header.i32s("tokenizer.ggml.token_type", entries.iter().map(|entry| entry.kind));
    let id = |spelling: &str| {
        let place = entries.iter().position(|entry| entry.spelling == spelling);
        place.and_then(|place| u32::try_from(place).ok())
    };
    header.u32("tokenizer.ggml.bos_token_id", config.bos);
    let eos = config.eos.first().copied().unwrap_or(1);
    header.u32("tokenizer.ggml.eos_token_id", eos);
    header.u32("tokenizer.ggml.unknown_token_id", id("<unk>").unwrap_or(3));
    header.u32("tokenizer.ggml.padding_token_id", id("<pad>").unwrap_or(0));
    let turn = id(END_OF_TURN).filter(|turn| config.eos.contains(turn) && *turn != eos);
    if let Some(turn) = turn {
        header.u32("tokenizer.ggml.eot_token_id", turn);
    }
    if config.eos.iter().any(|id| *id != eos && Some(*id) != turn) {
        header.u32s("tokenizer.ggml.eos_token_ids", config.eos.iter().copied());
    }
    for (key, spelling) in [
        ("pre", "<|fim_prefix|>"),
        ("suf", "<|fim_suffix|>"),
        ("mid", "<|fim_middle|>"),
        ("sep", "<|file_separator|>"),
    ] {
        if let Some(id) = id(spelling) {
            header.u32(&format!("tokenizer.ggml.fim_{key}_token_id"), id);
        }
    }
    header.bool("tokenizer.ggml.add_bos_token", true);
    header.bool("tokenizer.ggml.add_eos_token", false);
    header.bool("tokenizer.ggml.add_space_prefix", false);
}

/// The metadata of another GGUF file, but for what quantising changes.
pub(super) fn of_gguf(gguf: &Gguf, file: &[u8], kind: QuantType, header: &mut Header) {
    for (key, range) in gguf.entries() {
        // Tensors are laid out anew, and what our caches say of themselves is not true of this file.
        if key != "general.alignment" && !key.starts_with("gemma_ls.") {
            header.raw(key, file.get(range.clone()).unwrap_or_default());
        }
    }
    header.u32("general.file_type", file_type(kind));
    header.u32("general.quantization_version", QUANTIZATION_VERSION);
}

/// What queries have to be multiplied with so that the scale of attention scores that a reader of GGUF assumes gives
/// those of this network: the format has no key for it. 1 for every published model.
pub(super) fn score_scale(config: &ModelConfig) -> f32 {
    let layers = config.layers.len();
    config
        .layers
        .iter()
        .find_map(|layer| match &layer.mixer {
            Mixer::Attention(spec) => {
                let scalar =
                    query_scalar(config.architecture, config.hidden, layers, spec.heads, spec.head_dim);
                let ratio = spec.scale * scalar.sqrt();
                // What is only rounding is none.
                Some(if (ratio - 1.0).abs() < 1e-6 { 1.0 } else { ratio })
            }
            Mixer::RgLru(_) => None,
        })
        .unwrap_or(1.0)
}

/// The end of the names of what is multiplied with [`score_scale`]: the last thing before the scores.
pub(super) fn scaled_queries(config: &ModelConfig) -> &'static str {
    match config.architecture {
        Architecture::Gemma3 => "self_attn.q_norm.weight",
        _ => "self_attn.q_proj.weight",
    }
}

/// Whether a file read back describes the network that it was made from. What GGUF reads otherwise by its nature is left
/// out: a tower that is not written (Gemma 3's), the 1 of norms, the rounding of the embeddings' scale, and how attention scores are scaled
/// ([`score_scale`] sees to it).
pub(super) fn is_same_network(made: &ModelConfig, from: &ModelConfig) -> bool {
    let bare = |config: &ModelConfig| {
        let mut bare = ModelConfig {
            vision: config.vision.clone().filter(|vision| vision.sight == Sight::Prefix),
            embed_scale: 1.0,
            norm_offset: 0.0,
            eos: Vec::new(),
            bos: 0,
            ..config.clone()
        };
        for layer in &mut bare.layers {
            if let Mixer::Attention(spec) = &mut layer.mixer {
                spec.scale = 1.0;
            }
        }
        bare
    };
    bare(made) == bare(from)
}

/// All numbers of rows of a tensor are finite.
pub(super) fn all_finite(numbers: &[f32]) -> bool {
    // A sum would overflow; this is a pass without branches.
    numbers.iter().fold(true, |all, number| all & number.is_finite())
}

/// A tensor's rows in f32.
pub(super) fn widened(tensor: &super::Tensor<'_>, first: usize, rows: usize) -> Option<Vec<f32>> {
    let cols = tensor.cols();
    let row_bytes = tensor.from.row_bytes(cols)?;
    let bytes = tensor.bytes.get(first * row_bytes..(first + rows) * row_bytes)?;
    let mut numbers = quant::dequantize(tensor.from, rows, cols, bytes).ok()?;
    if tensor.offset != 0.0 || tensor.scale != 1.0 {
        numbers.iter_mut().for_each(|number| *number = (*number + tensor.offset) * tensor.scale);
    }
    Some(numbers)
}
