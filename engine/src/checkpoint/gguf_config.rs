//! The network that a GGUF file's metadata describes.

use std::path::Path;

use super::gguf::Gguf;
use super::network::{Kind, MAX_LAYERS, Network};
use super::vision_config;
use crate::config::{Architecture, Projector, RgLruSpec, RopeSpec, Sight, VisionSpec};
use crate::error::{Error, ErrorKind, Result};

/// Every sixth layer of Gemma 3 sees everything; files do not say so.
const GEMMA3_GLOBAL_EVERY: usize = 6;
/// The tensor that only recurrent layers have.
const RECURRENCE: &str = "rec_decay";

/// What files that see pictures are called begins so.
const PALIGEMMA: &str = "paligemma";
/// What files call themselves, and their decoders.
pub(super) const NAMES: [(&str, Architecture); 6] = [
    ("gemma", Architecture::Gemma),
    ("gemma2", Architecture::Gemma2),
    ("gemma3", Architecture::Gemma3),
    ("recurrentgemma", Architecture::RecurrentGemma),
    (PALIGEMMA, Architecture::Gemma),
    ("paligemma2", Architecture::Gemma2),
];

/// Reads the network from metadata. `bytes` is the whole file.
pub(super) fn parse(gguf: &Gguf, bytes: &[u8], path: &Path) -> Result<Network> {
    let (architecture, prefix) = architecture(gguf, bytes, path)?;
    let keys = Keys { gguf, path, architecture, prefix };
    let layers = keys.dim("block_count")?;
    if layers > MAX_LAYERS {
        return Err(keys.wrong("block_count", &format!("at most {MAX_LAYERS}")));
    }
    let hidden = keys.dim("embedding_length")?;
    let heads = keys.dim("attention.head_count")?;
    let head_dim = match keys.optional_dim("attention.key_length")? {
        Some(dim) => dim,
        None => hidden / heads.max(1),
    };
    if keys.optional_dim("attention.value_length")?.is_some_and(|value| value != head_dim) {
        return Err(keys.wrong("attention.value_length", "the same as attention.key_length"));
    }
    let window = match architecture {
        Architecture::Gemma => None,
        Architecture::Gemma2 => Some(keys.optional_dim("attention.sliding_window")?.unwrap_or(4096)),
        Architecture::Gemma3 | Architecture::RecurrentGemma => Some(keys.dim("attention.sliding_window")?),
    };
    let recurrent = architecture == Architecture::RecurrentGemma;
    let (rope_global, rope_local) = ropes(&keys, bytes, hidden, layers)?;
    let caps = architecture == Architecture::Gemma2;
    Ok(Network {
        architecture,
        vision: prefix.starts_with(PALIGEMMA).then(|| vision(&keys)).transpose()?,
        hidden,
        vocab: vocabulary(&keys)?,
        context: keys.dim("context_length")?,
        ffn: keys.dim("feed_forward_length")?,
        heads,
        kv_heads: keys.optional_dim("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        rotary: if recurrent { keys.dim("rope.dimension_count")? } else { head_dim },
        query_scalar: query_scalar(architecture, hidden, layers, heads, head_dim),
        norm_eps: keys.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
        layers: kinds(&keys, layers),
        recurrence: recurrent.then(|| recurrence(&keys, heads)).transpose()?,
        window,
        rope_global,
        rope_local,
        attention_cap: keys.float("attn_logit_softcapping")?.or(caps.then_some(50.0)),
        final_cap: keys.float("final_logit_softcapping")?.or(caps.then_some(30.0)),
        bos: keys.token("tokenizer.ggml.bos_token_id")?.unwrap_or(2),
        eos: eos(&keys, bytes)?,
        stated_format: None,
    })
}

/// The decoder's architecture, if it is one of the family's, and what the keys of the file begin with.
/// The decoder's architecture by what a file calls itself.
pub(crate) fn architecture_of(name: &str) -> Option<Architecture> {
    known(name).map(|(_, architecture)| architecture)
}

fn known(name: &str) -> Option<(&'static str, Architecture)> {
    NAMES.into_iter().find(|(known, _)| *known == name)
}

fn architecture(gguf: &Gguf, bytes: &[u8], path: &Path) -> Result<(Architecture, &'static str)> {
    let name = gguf.str(bytes, "general.architecture");
    if let Some((known, architecture)) = name.and_then(known) {
        return Ok((architecture, known));
    }
    match name {
        Some(other) => Err(Error::new(
            ErrorKind::Unsupported,
            path.display(),
            format_args!("general.architecture `{other}` is not supported ({} are)", NAMES.map(|(known, _)| known).join(", ")),
        )
        .remedy("Choose a Gemma 1, CodeGemma, Gemma 2, Gemma 3, RecurrentGemma or PaliGemma file; `gemma-ls model list` shows what is on this machine.")),
        None => Err(Error::new(ErrorKind::BadFile, path.display(), "general.architecture is missing from its metadata")
            .remedy("This is no language model, or the file was made by a broken converter: choose another.")),
    }
}

/// What the -1/2nd power of scales queries. The format has no key for it: the two 27B models divide the
/// hidden size among the heads, all others take the head size.
pub(crate) fn query_scalar(
    architecture: Architecture,
    hidden: usize,
    layers: usize,
    heads: usize,
    head_dim: usize,
) -> f32 {
    match (architecture, layers) {
        (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62) => (hidden / heads.max(1)) as f32,
        _ => head_dim as f32,
    }
}

/// What each layer mixes positions with: fixed by the architecture, except that RecurrentGemma's recurrent
/// layers are those that have a recurrent block.
fn kinds(keys: &Keys<'_>, layers: usize) -> Vec<Kind> {
    let sliding = |slides: bool| if slides { Kind::Sliding } else { Kind::Full };
    let is_recurrent = |layer: usize| {
        let name = format!("blk.{layer}.{RECURRENCE}");
        keys.gguf.tensors().iter().any(|tensor| tensor.name == name)
    };
    let kind = |layer: usize| match keys.architecture {
        Architecture::Gemma => Kind::Full,
        Architecture::Gemma2 => sliding(layer.is_multiple_of(2)),
        Architecture::Gemma3 => sliding(!(layer + 1).is_multiple_of(GEMMA3_GLOBAL_EVERY)),
        Architecture::RecurrentGemma if is_recurrent(layer) => Kind::Recurrent,
        Architecture::RecurrentGemma => Kind::Sliding,
    };
    (0..layers).map(kind).collect()
}

/// The recurrent blocks' sizes; their gates have a block a head.
fn recurrence(keys: &Keys<'_>, heads: usize) -> Result<RgLruSpec> {
    Ok(RgLruSpec {
        width: keys.dim("recurrent.width")?,
        blocks: heads,
        taps: keys.dim("recurrent.convolution_length")?,
    })
}

/// RoPE of global and of local layers. Ollama's own converter spells the bases differently.
fn ropes(keys: &Keys<'_>, bytes: &[u8], hidden: usize, layers: usize) -> Result<(RopeSpec, RopeSpec)> {
    let base = keys.float("rope.freq_base")?.or(keys.float("rope.global.freq_base")?);
    let scaling = keys.gguf.str(bytes, &keys.key("rope.scaling.type"));
    let stated = keys.float("rope.scaling.factor")?;
    let factor = match scaling {
        None | Some("linear") => stated,
        Some("none") => Some(1.0),
        Some(other) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                keys.path.display(),
                format_args!("{} `{other}` is not supported (linear is)", keys.key("rope.scaling.type")),
            )
            .remedy("Choose a file made from a checkpoint as Google published it."));
        }
    };
    if keys.architecture != Architecture::Gemma3 {
        let rope = RopeSpec { theta: base.unwrap_or(1e4), factor: factor.unwrap_or(1.0) };
        return Ok((rope, rope));
    }
    // Early files of the larger Gemma 3 models lack the factor 8 that these were all trained with.
    let published = match (hidden, layers) {
        (2560, 34) | (3840, 48) | (5376, 62) => 8.0,
        _ => 1.0,
    };
    let global = RopeSpec { theta: base.unwrap_or(1e6), factor: factor.unwrap_or(published) };
    let local_base = keys.float("rope.local.freq_base")?.or(keys.float("rope.freq_base_swa")?);
    Ok((global, RopeSpec { theta: local_base.unwrap_or(1e4), factor: 1.0 }))
}

/// Rows of the embedding table: the metadata states them only by way of the tokenizer.
fn vocabulary(keys: &Keys<'_>) -> Result<usize> {
    let table = keys.gguf.tensors().iter().find(|t| t.name == "token_embd.weight");
    match table.map(|t| t.shape.as_slice()) {
        Some(&[rows, _]) => Ok(rows),
        Some(_) => Err(Error::new(ErrorKind::BadFile, keys.path.display(), "token_embd.weight is no matrix")
            .remedy("Download the file again.")),
        None => Err(Error::new(ErrorKind::BadFile, keys.path.display(), "has no tensor token_embd.weight")
            .remedy("This file holds no language model (perhaps only an image tower or an adapter): choose another.")),
    }
}

/// Tokens that the metadata calls the end of a text or of a turn.
fn eos(keys: &Keys<'_>, bytes: &[u8]) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        all.extend(keys.token(key)?.filter(|id| !all.contains(id)));
    }
    let listed = keys.gguf.array("tokenizer.ggml.eos_token_ids").and_then(|a| a.numbers(bytes));
    for id in listed.into_iter().flatten().map(|id| id as u32) {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    if all.is_empty() {
        all.push(1);
    }
    Ok(all)
}

/// The tower of a PaliGemma, in our own layout.
fn vision(keys: &Keys<'_>) -> Result<VisionSpec> {
    let (image_size, patch) = (keys.dim("vision.image_size")?, keys.dim("vision.patch_size")?);
    let side = image_size / patch;
    let token = u32::try_from(keys.dim("vision.image_token_id")?);
    let spec = VisionSpec {
        image_size,
        patch,
        hidden: keys.dim("vision.embedding_length")?,
        layers: keys.dim("vision.block_count")?,
        heads: keys.dim("vision.attention.head_count")?,
        ffn: keys.dim("vision.feed_forward_length")?,
        eps: keys.float("vision.attention.layer_norm_epsilon")?.unwrap_or(1e-6),
        tokens: side.saturating_mul(side),
        image_token: token.map_err(|_| keys.wrong("vision.image_token_id", "a token id"))?,
        projector: Projector::Linear,
        sight: Sight::Prefix,
    };
    vision_config::check(&spec, keys.path)?;
    Ok(spec)
}

/// The metadata of one architecture, read with messages that name the keys.
struct Keys<'a> {
    gguf: &'a Gguf,
    path: &'a Path,
    architecture: Architecture,
    /// What its keys begin with.
    prefix: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        Error::new(
            ErrorKind::BadFile,
            self.path.display(),
            format_args!("metadata {}: expected {expected}", self.key(name)),
        )
        .remedy("The file was damaged or made by a broken converter: download it again or choose another.")
    }

    fn dim(&self, name: &str) -> Result<usize> {
        self.optional_dim(name)?.ok_or_else(|| self.wrong(name, "a positive number, but it is missing"))
    }

    fn optional_dim(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.gguf.get(&self.key(name)) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(dim) if dim > 0 => Ok(Some(dim)),
            _ => Err(self.wrong(name, "a positive whole number")),
        }
    }

    fn float(&self, name: &str) -> Result<Option<f32>> {
        let Some(value) = self.gguf.get(&self.key(name)) else { return Ok(None) };
        match value.as_f32() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(name, "a number")),
        }
    }

    fn token(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.gguf.get(key) else { return Ok(None) };
        match value.as_u32() {
            Some(id) => Ok(Some(id)),
            None => Err(Error::new(
                ErrorKind::BadFile,
                self.path.display(),
                format_args!("metadata {key} is no token id"),
            )
            .remedy("Download the file again or choose another.")),
        }
    }
}
