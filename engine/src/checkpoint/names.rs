//! Tensor names: how each kind of file spells them, and which tensors of which shapes a network needs.

use crate::config::{Architecture, Mixer, ModelConfig, Norms, Projector, VisionSpec};

/// What RecurrentGemma calls the parts that the rest of the family has too.
const RECURRENT_GEMMA: [(&str, &str); 7] = [
    ("temporal_pre_norm.", "input_layernorm."),
    ("channel_pre_norm.", "post_attention_layernorm."),
    ("mlp_block.", "mlp."),
    ("temporal_block.q_proj.", "self_attn.q_proj."),
    ("temporal_block.k_proj.", "self_attn.k_proj."),
    ("temporal_block.v_proj.", "self_attn.v_proj."),
    ("temporal_block.o_proj.", "self_attn.o_proj."),
];

/// The name by which [`Checkpoint::tensor`](super::Checkpoint::tensor) knows a tensor of a HuggingFace checkpoint:
/// without the prefixes of wrappers, and with one name for a part in all models.
pub fn from_huggingface(name: &str) -> String {
    let name = unwrapped(name);
    if name == "model.final_norm.weight" {
        return FINAL_NORM.to_owned();
    }
    let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return name;
    };
    for (theirs, canonical) in RECURRENT_GEMMA {
        if let Some(rest) = part.strip_prefix(theirs) {
            return format!("model.layers.{layer}.{canonical}{rest}");
        }
    }
    name
}

/// The name without the prefix that multimodal wrappers put before the language model's tensors.
/// Those of a tower lose what stands before and behind `vision_tower.`, a projector's what stands before.
fn unwrapped(name: &str) -> String {
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
    let inner = name.strip_prefix("model.").unwrap_or(name);
    if let Some(part) = inner.strip_prefix(TOWER) {
        return format!("{TOWER}{}", part.strip_prefix("vision_model.").unwrap_or(part));
    }
    if inner.starts_with(PROJECTOR) { inner.to_owned() } else { name.to_owned() }
}

/// The HuggingFace name of a GGUF tensor; `None` for what no text model of the family has.
pub(crate) fn from_gguf(name: &str, architecture: Architecture) -> Option<String> {
    match name {
        "token_embd.weight" => return Some(EMBEDDING.to_owned()),
        "output_norm.weight" => return Some(FINAL_NORM.to_owned()),
        "output.weight" => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    if architecture == Architecture::RecurrentGemma
        && let Some(part) = recurrent_from_gguf(rest)
    {
        return Some(format!("model.layers.{layer}.{part}"));
    }
    let theirs = rest.strip_suffix(".weight")?;
    let module = modules(architecture).find(|(gguf, _)| *gguf == theirs)?.1;
    Some(format!("model.layers.{layer}.{module}.weight"))
}

/// The canonical name of a tensor that reads pictures; `None` for what is none. The layout is our own.
pub(super) fn tower_from_gguf(name: &str) -> Option<String> {
    let inner = |ours: &str, theirs: &str| Some(format!("{theirs}{}", name.strip_prefix(ours)?));
    inner(TOWER_GGUF, TOWER).or_else(|| inner(PROJECTOR_GGUF, PROJECTOR))
}

/// The GGUF name of a tensor by its canonical name; `None` for what is none.
pub(crate) fn to_gguf(name: &str, architecture: Architecture) -> Option<String> {
    for (canonical, ours) in [(TOWER, TOWER_GGUF), (PROJECTOR, PROJECTOR_GGUF)] {
        if let Some(inner) = name.strip_prefix(canonical) {
            return Some(format!("{ours}{inner}"));
        }
    }
    match name {
        EMBEDDING => return Some("token_embd.weight".to_owned()),
        FINAL_NORM => return Some("output_norm.weight".to_owned()),
        OUTPUT => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if let Some(module) = rest.strip_suffix(".weight")
        && let Some((gguf, _)) = modules(architecture).find(|(_, canonical)| *canonical == module)
    {
        return Some(format!("blk.{layer}.{gguf}.weight"));
    }
    if architecture != Architecture::RecurrentGemma {
        return None;
    }
    let known = RECURRENT_GGUF.iter().find(|part| recurrent_from_gguf(part).as_deref() == Some(rest))?;
    Some(format!("blk.{layer}.{known}"))
}

/// What GGUF and HuggingFace call the parts of a layer, up to `.weight`.
const MODULES: [(&str, &str); 10] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The norms around the MLP. Gemma 1 has one between attention and MLP, which HuggingFace names after what it
/// follows.
fn norms(architecture: Architecture) -> &'static [(&'static str, &'static str)] {
    match architecture {
        Architecture::Gemma | Architecture::RecurrentGemma => &[("ffn_norm", "post_attention_layernorm")],
        Architecture::Gemma2 | Architecture::Gemma3 => &[
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
    }
}

fn modules(architecture: Architecture) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    MODULES.iter().chain(norms(architecture))
}

/// The parts of a layer that [`recurrent_from_gguf`] knows.
const RECURRENT_GGUF: [&str; 17] = [
    "rec_decay",
    "rec_x.weight",
    "rec_x.bias",
    "rec_y.weight",
    "rec_y.bias",
    "rec_out.weight",
    "rec_out.bias",
    "rec_conv.weight",
    "rec_conv.bias",
    "rec_input_gate.weight",
    "rec_input_gate.bias",
    "rec_gate.weight",
    "rec_gate.bias",
    "attn_output.bias",
    "ffn_gate.bias",
    "ffn_up.bias",
    "ffn_down.bias",
];

/// Tensors of our own layout for RecurrentGemma, which no public converter writes: biases, and the recurrent
/// block's parts in the shapes that HuggingFace gives them.
fn recurrent_from_gguf(part: &str) -> Option<String> {
    const RECURRENCE: &str = "temporal_block.rg_lru";
    if part == "rec_decay" {
        return Some(format!("{RECURRENCE}.recurrent_param"));
    }
    let (module, kind) = part.split_once('.')?;
    let canonical = match (module, kind) {
        ("rec_x", _) => "temporal_block.linear_x",
        ("rec_y", _) => "temporal_block.linear_y",
        ("rec_out", _) => "temporal_block.linear_out",
        ("rec_conv", _) => "temporal_block.conv_1d",
        ("rec_input_gate", _) => return Some(format!("{RECURRENCE}.input_gate_{kind}")),
        ("rec_gate", _) => return Some(format!("{RECURRENCE}.recurrent_gate_{kind}")),
        ("attn_output", "bias") => "self_attn.o_proj",
        ("ffn_gate", "bias") => "mlp.gate_proj",
        ("ffn_up", "bias") => "mlp.up_proj",
        ("ffn_down", "bias") => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("{canonical}.{kind}"))
}

/// The embedding table.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The norm before the output table.
pub(super) const FINAL_NORM: &str = "model.norm.weight";
/// An output table of its own; the published models use the embedding table.
pub(crate) const OUTPUT: &str = "lm_head.weight";

/// What the names of a tower's tensors begin with.
pub(crate) const TOWER: &str = "vision_tower.";
/// What the names of a projector's tensors begin with.
const PROJECTOR: &str = "multi_modal_projector.";
/// The same in GGUF.
pub(crate) const TOWER_GGUF: &str = "v.";
/// The same in GGUF.
pub(crate) const PROJECTOR_GGUF: &str = "mm.";

/// Every tensor the network needs, with its shape.
pub(crate) fn required(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden;
    let mut all =
        vec![(EMBEDDING.to_owned(), vec![config.vocab, hidden]), (FINAL_NORM.to_owned(), vec![hidden])];
    for (index, layer) in config.layers.iter().enumerate() {
        let mut add = |tensor: &str, shape: Vec<usize>| {
            all.push((format!("model.layers.{index}.{tensor}"), shape));
        };
        let mut linear = |module: &str, out: usize, input: usize, bias: bool| {
            add(&format!("{module}.weight"), vec![out, input]);
            if bias {
                add(&format!("{module}.bias"), vec![out]);
            }
        };
        let (ffn, bias) = (layer.mlp.ffn, layer.mlp.bias);
        linear("mlp.gate_proj", ffn, hidden, bias);
        linear("mlp.up_proj", ffn, hidden, bias);
        linear("mlp.down_proj", hidden, ffn, bias);
        match &layer.mixer {
            Mixer::Attention(a) => {
                let (queries, keys) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
                linear("self_attn.q_proj", queries, hidden, false);
                linear("self_attn.k_proj", keys, hidden, false);
                linear("self_attn.v_proj", keys, hidden, false);
                linear("self_attn.o_proj", hidden, queries, a.out_bias);
                if a.qk_norm {
                    add("self_attn.q_norm.weight", vec![a.head_dim]);
                    add("self_attn.k_norm.weight", vec![a.head_dim]);
                }
            }
            Mixer::RgLru(r) => {
                let block = r.width / r.blocks;
                linear("temporal_block.linear_x", r.width, hidden, true);
                linear("temporal_block.linear_y", r.width, hidden, true);
                linear("temporal_block.linear_out", hidden, r.width, true);
                add("temporal_block.conv_1d.weight", vec![r.width, 1, r.taps]);
                add("temporal_block.conv_1d.bias", vec![r.width]);
                add("temporal_block.rg_lru.recurrent_param", vec![r.width]);
                for gate in ["input", "recurrent"] {
                    add(&format!("temporal_block.rg_lru.{gate}_gate_weight"), vec![r.blocks, block, block]);
                    add(&format!("temporal_block.rg_lru.{gate}_gate_bias"), vec![r.blocks, block]);
                }
            }
        }
        add("input_layernorm.weight", vec![hidden]);
        add("post_attention_layernorm.weight", vec![hidden]);
        if layer.norms == Norms::PrePost {
            add("pre_feedforward_layernorm.weight", vec![hidden]);
            add("post_feedforward_layernorm.weight", vec![hidden]);
        }
    }
    if let Some(vision) = &config.vision {
        required_for_pictures(vision, hidden, &mut all);
    }
    all
}

/// What the tower and the projector in front of a decoder `text` wide need.
fn required_for_pictures(spec: &VisionSpec, text: usize, all: &mut Vec<(String, Vec<usize>)>) {
    let (hidden, ffn, patch) = (spec.hidden, spec.ffn, spec.patch);
    let mut add = |module: String, weight: Vec<usize>, bias: bool| {
        if bias {
            all.push((format!("{module}.bias"), vec![weight[0]]));
        }
        all.push((format!("{module}.weight"), weight));
    };
    add(format!("{TOWER}embeddings.patch_embedding"), vec![hidden, 3, patch, patch], true);
    add(format!("{TOWER}embeddings.position_embedding"), vec![spec.patches(), hidden], false);
    for layer in 0..spec.layers {
        let mut add = |part: &str, weight: Vec<usize>| {
            add(format!("{TOWER}encoder.layers.{layer}.{part}"), weight, true);
        };
        add("layer_norm1", vec![hidden]);
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            add(&format!("self_attn.{part}"), vec![hidden, hidden]);
        }
        add("layer_norm2", vec![hidden]);
        add("mlp.fc1", vec![ffn, hidden]);
        add("mlp.fc2", vec![hidden, ffn]);
    }
    add(format!("{TOWER}post_layernorm"), vec![hidden], true);
    match spec.projector {
        Projector::Linear => add(format!("{PROJECTOR}linear"), vec![text, hidden], true),
        Projector::Pool => {
            add(format!("{PROJECTOR}mm_soft_emb_norm"), vec![hidden], false);
            // Stored as [in, out], unlike every linear layer, and without `.weight`.
            all.push((format!("{PROJECTOR}mm_input_projection_weight"), vec![hidden, text]));
        }
    }
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
            ("model.final_norm.weight", "model.norm.weight"),
            ("model.layers.3.temporal_block.o_proj.bias", "model.layers.3.self_attn.o_proj.bias"),
            ("model.layers.0.mlp_block.up_proj.bias", "model.layers.0.mlp.up_proj.bias"),
            ("model.layers.0.temporal_block.linear_x.bias", "model.layers.0.temporal_block.linear_x.bias"),
            ("model.vision_tower.vision_model.encoder.x", "vision_tower.encoder.x"),
            ("model.vision_tower.encoder.x", "vision_tower.encoder.x"),
            ("vision_tower.vision_model.encoder.x", "vision_tower.encoder.x"),
            ("vision_tower.encoder.x", "vision_tower.encoder.x"),
            ("model.multi_modal_projector.linear.bias", "multi_modal_projector.linear.bias"),
            ("multi_modal_projector.linear.bias", "multi_modal_projector.linear.bias"),
        ] {
            assert_eq!(from_huggingface(file), canonical, "{file}");
        }
    }

    #[test]
    fn a_name_goes_to_gguf_and_back() {
        use Architecture::{Gemma, Gemma2, Gemma3, RecurrentGemma};
        for architecture in [Gemma, Gemma2, Gemma3, RecurrentGemma] {
            let layer = modules(architecture).map(|(gguf, _)| format!("blk.7.{gguf}.weight"));
            let recurrent = RECURRENT_GGUF.iter().map(|part| format!("blk.7.{part}"));
            let recurrent = recurrent.filter(|_| architecture == RecurrentGemma);
            let whole = ["token_embd.weight", "output_norm.weight", "output.weight"].map(str::to_owned);
            for name in layer.chain(recurrent).chain(whole) {
                let canonical = from_gguf(&name, architecture).expect("it is known");
                assert_eq!(to_gguf(&canonical, architecture).as_deref(), Some(name.as_str()), "{canonical}");
            }
        }
        for name in ["v.post_layernorm.weight", "mm.linear.bias"] {
            let canonical = tower_from_gguf(name).expect("it is known");
            assert_eq!(to_gguf(&canonical, Gemma).as_deref(), Some(name));
        }
        assert_eq!(to_gguf("model.layers.0.mlp.up_proj.bias", Gemma), None);
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
