//! Tensor names: how each kind of file spells them, and which tensors of which shapes a network needs.

use crate::config::{Architecture, Mixer, ModelConfig, Norms};

/// The name without the prefix that multimodal wrappers put before the language model's tensors.
/// Other tensors (a vision tower's) lose only the outer `model.`.
pub(super) fn from_huggingface(name: &str) -> String {
    for wrapper in ["language_model.", "model.language_model."] {
        if let Some(inner) = name.strip_prefix(wrapper) {
            // Newer saves put the text model's tensors directly behind `model.language_model.`.
            return if inner.starts_with("model.") || inner.starts_with("lm_head.") {
                inner.to_owned()
            } else {
                format!("model.{inner}")
            };
        }
    }
    match name.strip_prefix("model.") {
        Some(inner) if inner.starts_with("vision_tower.") || inner.starts_with("multi_modal_projector.") => {
            inner.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// The HuggingFace name of a GGUF tensor; `None` for what no text model of the family has.
pub(super) fn from_gguf(name: &str, architecture: Architecture) -> Option<String> {
    match name {
        "token_embd.weight" => return Some(EMBEDDING.to_owned()),
        "output_norm.weight" => return Some(FINAL_NORM.to_owned()),
        "output.weight" => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let module = match (rest.strip_suffix(".weight")?, architecture) {
        ("attn_norm", _) => "input_layernorm",
        ("attn_q", _) => "self_attn.q_proj",
        ("attn_k", _) => "self_attn.k_proj",
        ("attn_v", _) => "self_attn.v_proj",
        ("attn_output", _) => "self_attn.o_proj",
        ("attn_q_norm", _) => "self_attn.q_norm",
        ("attn_k_norm", _) => "self_attn.k_norm",
        ("ffn_gate", _) => "mlp.gate_proj",
        ("ffn_up", _) => "mlp.up_proj",
        ("ffn_down", _) => "mlp.down_proj",
        // Gemma 1 has one norm between attention and MLP, which HuggingFace names after what it follows.
        ("ffn_norm", Architecture::Gemma) => "post_attention_layernorm",
        ("ffn_norm", _) => "pre_feedforward_layernorm",
        ("post_attention_norm", _) => "post_attention_layernorm",
        ("post_ffw_norm", _) => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.weight"))
}

/// The embedding table.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The norm before the output table.
pub(super) const FINAL_NORM: &str = "model.norm.weight";
/// An output table of its own; the published models use the embedding table.
pub(super) const OUTPUT: &str = "lm_head.weight";

/// Every tensor the network needs, with its shape.
pub(super) fn required(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden;
    let mut all =
        vec![(EMBEDDING.to_owned(), vec![config.vocab, hidden]), (FINAL_NORM.to_owned(), vec![hidden])];
    for (index, layer) in config.layers.iter().enumerate() {
        let mut add = |module: &str, shape: Vec<usize>| {
            all.push((format!("model.layers.{index}.{module}.weight"), shape));
        };
        add("input_layernorm", vec![hidden]);
        add("post_attention_layernorm", vec![hidden]);
        if layer.norms == Norms::PrePost {
            add("pre_feedforward_layernorm", vec![hidden]);
            add("post_feedforward_layernorm", vec![hidden]);
        }
        let Mixer::Attention(attention) = &layer.mixer;
        let (queries, keys) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        add("self_attn.q_proj", vec![queries, hidden]);
        add("self_attn.k_proj", vec![keys, hidden]);
        add("self_attn.v_proj", vec![keys, hidden]);
        add("self_attn.o_proj", vec![hidden, queries]);
        if attention.qk_norm {
            add("self_attn.q_norm", vec![attention.head_dim]);
            add("self_attn.k_norm", vec![attention.head_dim]);
        }
        let ffn = layer.mlp.ffn;
        add("mlp.gate_proj", vec![ffn, hidden]);
        add("mlp.up_proj", vec![ffn, hidden]);
        add("mlp.down_proj", vec![hidden, ffn]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_fall_away() {
        for (file, canonical) in [
            ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("model.vision_tower.vision_model.x", "vision_tower.vision_model.x"),
            ("vision_tower.vision_model.x", "vision_tower.vision_model.x"),
        ] {
            assert_eq!(from_huggingface(file), canonical, "{file}");
        }
    }

    #[test]
    fn norms_of_gguf_depend_on_the_architecture() {
        for (file, architecture, canonical) in [
            (
                "blk.3.ffn_norm.weight",
                Architecture::Gemma,
                Some("model.layers.3.post_attention_layernorm.weight"),
            ),
            (
                "blk.3.ffn_norm.weight",
                Architecture::Gemma2,
                Some("model.layers.3.pre_feedforward_layernorm.weight"),
            ),
            (
                "blk.3.post_attention_norm.weight",
                Architecture::Gemma3,
                Some("model.layers.3.post_attention_layernorm.weight"),
            ),
            (
                "blk.3.post_ffw_norm.weight",
                Architecture::Gemma3,
                Some("model.layers.3.post_feedforward_layernorm.weight"),
            ),
            ("output.weight", Architecture::Gemma, Some("lm_head.weight")),
            ("blk.x.attn_q.weight", Architecture::Gemma, None),
            ("v.blk.0.attn_q.weight", Architecture::Gemma3, None),
        ] {
            assert_eq!(from_gguf(file, architecture).as_deref(), canonical, "{file}");
        }
    }
}
