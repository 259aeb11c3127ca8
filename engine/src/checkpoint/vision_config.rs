//! The `vision_config` of a HuggingFace folder. Missing keys mean the published class's default.

use std::path::Path;

use super::hf_config::Fields;
use super::network::{MAX_DIM, MAX_LAYERS, senseless};
use crate::config::{Projector, Sight, VisionSpec};
use crate::error::{Error, ErrorKind, Result};

/// Larger than any tower's input, small enough that its pixels can be counted.
const MAX_IMAGE_SIZE: usize = 1 << 14;

/// Reads the tower of `outer`, a whole config.json, as the defaults of its class have it.
pub(super) fn parse(outer: &Fields<'_>, sight: Sight) -> Result<VisionSpec> {
    let fields = outer
        .object("vision_config")?
        .ok_or_else(|| outer.wrong("vision_config", "a JSON object"))?
        .inside("vision_config.");
    let kind = fields.string("model_type")?.unwrap_or("siglip_vision_model");
    let channels = fields.dim("num_channels", 3)?;
    if kind != "siglip_vision_model" || channels != 3 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            outer.path().display(),
            format_args!(
                "vision_config is a `{kind}` of {channels} channels; siglip_vision_model of 3 is known"
            ),
        )
        .remedy("Choose a checkpoint as Google published it."));
    }
    let (image_size, patch) = (fields.dim("image_size", 224)?, fields.dim("patch_size", 16)?);
    let side = image_size / patch;
    let (projector, tokens, image_token) = match sight {
        Sight::Prefix => (Projector::Linear, side * side, 256_000),
        Sight::Picture => (Projector::Pool, outer.dim("mm_tokens_per_image", 256)?, 262_144),
    };
    let stated = outer.token("image_token_index")?.or(outer.token("image_token_id")?);
    let spec = VisionSpec {
        image_size,
        patch,
        hidden: fields.dim("hidden_size", 768)?,
        layers: fields.dim("num_hidden_layers", 12)?,
        heads: fields.dim("num_attention_heads", 12)?,
        ffn: fields.dim("intermediate_size", 3072)?,
        eps: fields.float("layer_norm_eps")?.unwrap_or(1e-6),
        tokens,
        image_token: stated.unwrap_or(image_token),
        projector,
        sight,
    };
    check(&spec, outer.path())?;
    Ok(spec)
}

pub(super) fn check(spec: &VisionSpec, path: &Path) -> Result<()> {
    let VisionSpec { image_size, patch, hidden, heads, tokens, .. } = *spec;
    if image_size > MAX_IMAGE_SIZE || !image_size.is_multiple_of(patch) {
        let problem = format_args!("pictures of {image_size} pixels a side in patches of {patch}");
        return Err(senseless(path, problem));
    }
    if spec.layers > MAX_LAYERS || spec.ffn > MAX_DIM {
        return Err(senseless(path, format_args!("a tower of {} layers", spec.layers)));
    }
    if !hidden.is_multiple_of(heads) {
        return Err(senseless(path, format_args!("{heads} heads in a tower {hidden} wide")));
    }
    let across = tokens.isqrt();
    if across * across != tokens || !spec.side().is_multiple_of(across) {
        let problem = format_args!("{} x {} patches in {tokens} tokens", spec.side(), spec.side());
        return Err(senseless(path, problem));
    }
    if !spec.eps.is_finite() || spec.eps <= 0.0 {
        return Err(senseless(path, format_args!("the tower's norm epsilon is {}", spec.eps)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{hf_config, names};
    use super::*;
    use crate::config::ModelConfig;

    fn network(config: &Value) -> Result<ModelConfig> {
        let path = Path::new("config.json");
        hf_config::parse(config.to_string().as_bytes(), path)?.into_config(path, 1.0, 1.0)
    }

    /// The tower of every published checkpoint.
    fn so400m(image_size: Option<usize>) -> Value {
        let mut tower = json!({
            "hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false,
        });
        if let Some(size) = image_size {
            tower["image_size"] = json!(size);
        }
        tower
    }

    /// As the published file has it.
    fn paligemma(image_size: Option<usize>) -> Value {
        json!({
            "model_type": "paligemma", "hidden_size": 2048, "image_token_index": 257_152,
            "projection_dim": 2048, "bos_token_id": 2, "eos_token_id": 1,
            "text_config": {
                "hidden_size": 2048, "intermediate_size": 16_384, "model_type": "gemma",
                "num_attention_heads": 8, "num_hidden_layers": 18, "num_image_tokens": 256,
                "num_key_value_heads": 1, "torch_dtype": "float32", "vocab_size": 257_216,
            },
            "vision_config": so400m(image_size),
        })
    }

    fn paligemma2() -> Value {
        json!({
            "model_type": "paligemma", "image_token_index": 257_152, "projection_dim": 2304,
            "text_config": {
                "hidden_size": 2304, "intermediate_size": 9216, "model_type": "gemma2",
                "num_hidden_layers": 26, "num_image_tokens": 1024, "query_pre_attn_scalar": 256,
                "use_bidirectional_attention": true, "vocab_size": 257_216,
            },
            "vision_config": so400m(Some(448)),
        })
    }

    fn gemma3() -> Value {
        json!({
            "model_type": "gemma3", "boi_token_index": 255_999, "eoi_token_index": 256_000,
            "image_token_index": 262_144, "mm_tokens_per_image": 256,
            "text_config": {
                "hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text",
                "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
            "vision_config": so400m(Some(896)),
        })
    }

    #[test]
    fn published_networks_have_their_published_sizes() {
        for (file, name, tokens, parameters) in [
            (paligemma(None), "paligemma", 256, 2_923_466_480),
            (paligemma(Some(448)), "paligemma", 1024, 2_924_351_216),
            (paligemma2(), "paligemma2", 1024, 3_033_127_152),
            (gemma3(), "gemma3", 256, 4_300_079_472),
        ] {
            let config = network(&file).unwrap();
            let vision = config.vision.as_ref().unwrap();
            assert_eq!((config.name().as_str(), vision.tokens, vision.head_dim()), (name, tokens, 72));
            assert_eq!(config.first_position, usize::from(name != "gemma3"));
            assert_eq!(config.parameters(), parameters, "{name}");
            assert_eq!(config.operations(1), 2 * (parameters - vision.parameters(config.hidden)), "{name}");
            let required = names::required(&config);
            let sum: usize = required.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(sum as u64, parameters, "{name}");
        }
        assert_eq!(network(&gemma3()).unwrap().vision.unwrap().pool(), 4);
    }

    #[test]
    fn a_pictures_operations_are_those_of_its_products() {
        let config = network(&paligemma(None)).unwrap();
        let vision = config.vision.as_ref().unwrap();
        let matrices = names::required(&config).into_iter().filter(|(name, shape)| {
            let seen = name.contains("vision_tower") || name.contains("projector");
            seen && shape.len() > 1 && !name.contains("position")
        });
        let weights: usize = matrices.map(|(_, shape)| shape.iter().product::<usize>()).sum();
        // Each weight meets each patch, and in each layer each patch meets each other as a key and as a value.
        let products = 256 * weights + 27 * 2 * 256 * 256 * 1152;
        assert_eq!(vision.operations(config.hidden), 2 * products as u64);
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        for (key, value, said) in [
            ("patch_size", json!(15), "224 pixels a side in patches of 15"),
            ("num_attention_heads", json!(7), "7 heads in a tower 1152 wide"),
            ("num_channels", json!(1), "1 channels"),
            ("model_type", json!("clip_vision_model"), "clip_vision_model"),
            ("hidden_size", json!("wide"), "vision_config.hidden_size is \"wide\""),
            ("image_size", json!(14_000_000), "pixels a side"),
            ("layer_norm_eps", json!(0.0), "norm epsilon is 0"),
        ] {
            let mut file = paligemma(None);
            file["vision_config"][key] = value;
            let error = network(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{key}: {error}");
        }
        let mut file = gemma3();
        file["mm_tokens_per_image"] = json!(200);
        assert!(network(&file).unwrap_err().to_string().contains("64 x 64 patches in 200 tokens"));
        for key in ["text_config", "vision_config"] {
            let mut file = paligemma(None);
            file.as_object_mut().unwrap().remove(key);
            assert!(network(&file).unwrap_err().to_string().contains(&format!("{key} is missing")));
        }
        let mut file = paligemma(None);
        file["text_config"]["model_type"] = json!("llama");
        assert!(network(&file).unwrap_err().to_string().contains("text_config.model_type is \"llama\""));
        // Only PaliGemma's text sees both ways.
        let mut file = gemma3();
        file["text_config"]["use_bidirectional_attention"] = json!(true);
        assert!(network(&file).unwrap_err().to_string().contains("use_bidirectional_attention"));
    }
}
