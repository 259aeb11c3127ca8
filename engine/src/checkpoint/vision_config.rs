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

fn check(spec: &VisionSpec, path: &Path) -> Result<()> {
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
