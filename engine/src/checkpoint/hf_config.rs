//! `config.json` of a HuggingFace folder: the form of the published checkpoints and the form that
//! transformers 5 writes. Missing keys mean the published class's default.

use std::path::Path;

use gemma_kernels::Format;
use serde_json::{Map, Value};

use super::network::{Kind, MAX_DIM, MAX_LAYERS, Network};
use super::vision_config;
use crate::config::{Architecture, RgLruSpec, RopeSpec, Sight};
use crate::error::{Error, ErrorKind, Result};

/// Defaults of the published configuration classes.
struct Defaults {
    architecture: Architecture,
    vocab: usize,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    context: usize,
    rope_theta: f32,
    window: Option<usize>,
    attention_cap: Option<f32>,
    final_cap: Option<f32>,
    /// Key of the window's length.
    window_key: &'static str,
    /// Every how many-th layer sees everything; 1: all of them.
    global_every: usize,
}

const GEMMA: Defaults = Defaults {
    architecture: Architecture::Gemma,
    vocab: 256_000,
    hidden: 3072,
    ffn: 24_576,
    layers: 28,
    heads: 16,
    kv_heads: 16,
    context: 8192,
    rope_theta: 1e4,
    window: None,
    window_key: "sliding_window",
    attention_cap: None,
    final_cap: None,
    global_every: 1,
};

const GEMMA2: Defaults = Defaults {
    architecture: Architecture::Gemma2,
    vocab: 256_000,
    hidden: 2304,
    ffn: 9216,
    layers: 26,
    heads: 8,
    kv_heads: 4,
    context: 8192,
    rope_theta: 1e4,
    window: Some(4096),
    window_key: "sliding_window",
    attention_cap: Some(50.0),
    final_cap: Some(30.0),
    global_every: 2,
};

const GEMMA3: Defaults = Defaults {
    architecture: Architecture::Gemma3,
    vocab: 262_208,
    hidden: 2304,
    ffn: 9216,
    layers: 26,
    heads: 8,
    kv_heads: 4,
    context: 131_072,
    rope_theta: 1e6,
    window: Some(4096),
    window_key: "sliding_window",
    attention_cap: None,
    final_cap: None,
    global_every: 6,
};

const RECURRENT_GEMMA: Defaults = Defaults {
    architecture: Architecture::RecurrentGemma,
    vocab: 256_000,
    hidden: 2560,
    ffn: 7680,
    layers: 26,
    heads: 10,
    kv_heads: 1,
    // Trained on sequences of this length; the class has no key for it.
    context: 8192,
    rope_theta: 1e4,
    window: Some(2048),
    window_key: "attention_window_size",
    attention_cap: None,
    final_cap: Some(30.0),
    global_every: 0,
};

/// Reads the network of `config.json`'s text; `path` is the file, for messages.
pub(super) fn parse(text: &[u8], path: &Path) -> Result<Network> {
    let value: Value = serde_json::from_slice(text).map_err(|e| {
        Error::new(ErrorKind::BadFile, path.display(), format_args!("is not valid JSON: {e}"))
            .remedy("Download the file again.")
    })?;
    let Value::Object(outer) = &value else {
        return Err(Error::new(ErrorKind::BadFile, path.display(), "is not a JSON object"));
    };
    let outer = Fields { path, map: outer, prefix: "" };
    let model_type = outer.string("model_type")?.unwrap_or_default();
    if outer.get("quantization_config").is_some() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            path.display(),
            "quantization_config: quantised HuggingFace checkpoints are not supported",
        )
        .remedy("Use the original bf16 checkpoint or a GGUF file of the same model."));
    }
    let text_config = outer.object("text_config")?.map(|fields| fields.inside("text_config."));
    let (fields, defaults, sight) = match model_type {
        "gemma" => (outer, &GEMMA, None),
        "gemma2" => (outer, &GEMMA2, None),
        "gemma3_text" => (outer, &GEMMA3, None),
        "recurrent_gemma" => (outer, &RECURRENT_GEMMA, None),
        "gemma3" => {
            let sight = outer.stated("vision_config").map(|_| Sight::Picture);
            (text_config.unwrap_or(outer), &GEMMA3, sight)
        }
        "paligemma" => {
            let fields = text_config.ok_or_else(|| outer.wrong("text_config", "a JSON object"))?;
            let defaults = match fields.string("model_type")?.unwrap_or("gemma") {
                "gemma" => &GEMMA,
                "gemma2" => &GEMMA2,
                _ => return Err(fields.wrong("model_type", "`gemma` or `gemma2`")),
            };
            (fields, defaults, Some(Sight::Prefix))
        }
        other => return Err(unknown_type(path, other)),
    };
    refuse_what_no_published_model_has(&fields, sight)?;
    let mut network = read(&fields, defaults)?;
    network.vision = sight.map(|sight| vision_config::parse(&outer, sight)).transpose()?;
    // A wrapper may state the tokens beside its text_config.
    network.bos = fields.token("bos_token_id")?.or(outer.token("bos_token_id")?).unwrap_or(2);
    network.eos = fields.tokens("eos_token_id")?;
    for id in outer.tokens("eos_token_id")? {
        if !network.eos.contains(&id) {
            network.eos.push(id);
        }
    }
    network.stated_format = stated_format(&outer)?.or(stated_format(&fields)?);
    Ok(network)
}

/// How the weights are stored; newer configurations call it `dtype`.
fn stated_format(fields: &Fields<'_>) -> Result<Option<Format>> {
    let stated = fields.string("dtype")?.or(fields.string("torch_dtype")?);
    Ok(match stated {
        Some("bfloat16") => Some(Format::BF16),
        Some("float16") => Some(Format::F16),
        Some("float32") => Some(Format::F32),
        _ => None,
    })
}

/// The `eos_token_id`s of a `generation_config.json`.
pub(super) fn generation_eos(text: &[u8], path: &Path) -> Result<Vec<u32>> {
    let value: Value = serde_json::from_slice(text).map_err(|e| {
        Error::new(ErrorKind::BadFile, path.display(), format_args!("is not valid JSON: {e}"))
            .remedy("Download the file again, or delete it: it only holds defaults for sampling.")
    })?;
    match &value {
        Value::Object(map) => Fields { path, map, prefix: "" }.tokens("eos_token_id"),
        _ => Ok(Vec::new()),
    }
}

fn unknown_type(path: &Path, model_type: &str) -> Error {
    let problem = if model_type.is_empty() {
        "model_type is missing".to_owned()
    } else {
        format!(
            "model_type `{model_type}` is not supported (gemma, gemma2, gemma3, gemma3_text, recurrent_gemma and paligemma are)"
        )
    };
    Error::new(ErrorKind::Unsupported, path.display(), problem)
        .remedy("Choose a Gemma 1, CodeGemma, Gemma 2, Gemma 3, RecurrentGemma or PaliGemma checkpoint; `gemma-ls model list` shows what is on this machine.")
}

fn read(fields: &Fields<'_>, defaults: &Defaults) -> Result<Network> {
    let layers = fields.dim("num_hidden_layers", defaults.layers)?;
    if layers > MAX_LAYERS {
        return Err(fields.wrong("num_hidden_layers", &format!("at most {MAX_LAYERS}")));
    }
    let recurrent = defaults.architecture == Architecture::RecurrentGemma;
    let hidden = fields.dim("hidden_size", defaults.hidden)?;
    let heads = fields.dim("num_attention_heads", defaults.heads)?;
    let head_dim = fields.dim("head_dim", if recurrent { hidden / heads } else { 256 })?;
    // These have no such key; their queries are scaled by the head size.
    let query_scalar = match defaults.architecture {
        Architecture::Gemma | Architecture::RecurrentGemma => head_dim as f32,
        Architecture::Gemma2 | Architecture::Gemma3 => {
            fields.float("query_pre_attn_scalar")?.unwrap_or(256.0)
        }
    };
    let (rope_global, rope_local) = ropes(fields, defaults)?;
    Ok(Network {
        architecture: defaults.architecture,
        vision: None,
        hidden,
        vocab: fields.dim("vocab_size", defaults.vocab)?,
        context: fields.dim("max_position_embeddings", defaults.context)?,
        // RecurrentGemma states the width of gate and up together.
        ffn: fields.dim("intermediate_size", defaults.ffn)? / if recurrent { 2 } else { 1 },
        heads,
        kv_heads: fields.dim("num_key_value_heads", defaults.kv_heads)?,
        head_dim,
        rotary: if recurrent { half_rotary(fields, head_dim)? } else { head_dim },
        query_scalar,
        norm_eps: fields.float("rms_norm_eps")?.unwrap_or(1e-6),
        layers: kinds(fields, defaults, layers)?,
        recurrence: recurrent.then(|| recurrence(fields, hidden, heads)).transpose()?,
        window: match defaults.window {
            Some(window) => fields.optional_dim(defaults.window_key, Some(window))?,
            None => None,
        },
        rope_global,
        rope_local,
        attention_cap: fields.optional_float("attn_logit_softcapping", defaults.attention_cap)?,
        final_cap: fields.optional_float(
            if recurrent { "logits_soft_cap" } else { "final_logit_softcapping" },
            defaults.final_cap,
        )?,
        bos: 2,
        eos: Vec::new(),
        stated_format: None,
    })
}

/// Switches of the configuration classes that every published text generator leaves off. PaliGemma's text is
/// bidirectional, whether its configuration says so or is too old to.
fn refuse_what_no_published_model_has(fields: &Fields<'_>, sight: Option<Sight>) -> Result<()> {
    for key in ["attention_bias", "use_bidirectional_attention"] {
        if key == "use_bidirectional_attention" && sight == Some(Sight::Prefix) {
            continue;
        }
        if !matches!(fields.get(key), None | Some(Value::Null | Value::Bool(false))) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                fields.path.display(),
                format_args!("{}{key} is switched on, which no Gemma text generator does", fields.prefix),
            )
            .remedy("Choose a Gemma 1, CodeGemma, Gemma 2 or Gemma 3 checkpoint."));
        }
    }
    Ok(())
}

/// The recurrent blocks' sizes; their gates have a block a head.
fn recurrence(fields: &Fields<'_>, hidden: usize, heads: usize) -> Result<RgLruSpec> {
    Ok(RgLruSpec {
        width: fields.dim("lru_width", hidden)?,
        blocks: heads,
        taps: fields.dim("conv1d_width", 4)?,
    })
}

/// How many numbers of a head RoPE turns: half of them unless stated.
fn half_rotary(fields: &Fields<'_>, head_dim: usize) -> Result<usize> {
    const KEY: &str = "partial_rotary_factor";
    let nested = fields.object("rope_parameters")?.map(|map| map.float(KEY)).transpose()?.flatten();
    let share = nested.or(fields.float(KEY)?).unwrap_or(0.5);
    if !(0.0..=1.0).contains(&share) {
        return Err(fields.wrong(KEY, "a number from 0 to 1"));
    }
    Ok((share * head_dim as f32) as usize)
}

/// What each layer mixes positions with: stated one by one, or by a pattern, or by the class.
fn kinds(fields: &Fields<'_>, defaults: &Defaults, layers: usize) -> Result<Vec<Kind>> {
    if defaults.architecture == Architecture::RecurrentGemma {
        return block_types(fields, layers);
    }
    if defaults.global_every == 1 {
        return Ok(vec![Kind::Full; layers]);
    }
    if let Some(value) = fields.get("layer_types").filter(|v| !v.is_null()) {
        const EXPECTED: &str = "a list of `sliding_attention` and `full_attention`, one for each layer";
        let types = value.as_array().filter(|types| types.len() == layers);
        return types
            .and_then(|types| {
                types
                    .iter()
                    .map(|t| match t.as_str()? {
                        "sliding_attention" => Some(Kind::Sliding),
                        "full_attention" => Some(Kind::Full),
                        _ => None,
                    })
                    .collect()
            })
            .ok_or_else(|| fields.wrong("layer_types", EXPECTED));
    }
    let mut every = defaults.global_every;
    for key in ["_sliding_window_pattern", "sliding_window_pattern"] {
        every = fields.dim(key, every)?;
    }
    let kind = |layer: usize| if (layer + 1).is_multiple_of(every) { Kind::Full } else { Kind::Sliding };
    Ok((0..layers).map(kind).collect())
}

/// RecurrentGemma's pattern, repeated over the layers. Its attention always slides.
fn block_types(fields: &Fields<'_>, layers: usize) -> Result<Vec<Kind>> {
    let Some(value) = fields.stated("block_types") else {
        let pattern = [Kind::Recurrent, Kind::Recurrent, Kind::Sliding];
        return Ok(pattern.into_iter().cycle().take(layers).collect());
    };
    let kind = |value: &Value| match value.as_str()? {
        "recurrent" => Some(Kind::Recurrent),
        "attention" => Some(Kind::Sliding),
        _ => None,
    };
    let pattern: Option<Vec<Kind>> = value.as_array().and_then(|types| types.iter().map(kind).collect());
    match pattern {
        Some(pattern) if !pattern.is_empty() => Ok(pattern.into_iter().cycle().take(layers).collect()),
        _ => Err(fields.wrong("block_types", "a list of `recurrent` and `attention`")),
    }
}

/// RoPE of global and of local layers.
fn ropes(fields: &Fields<'_>, defaults: &Defaults) -> Result<(RopeSpec, RopeSpec)> {
    let gemma3 = defaults.architecture == Architecture::Gemma3;
    let theta = fields.float("rope_theta")?.unwrap_or(defaults.rope_theta);
    let local_theta = fields.float("rope_local_base_freq")?.unwrap_or(1e4);
    let global_rope = |map: Option<Fields<'_>>| rope(map, theta);
    if let Some(parameters) = fields.object("rope_parameters")? {
        if let Some(full) = parameters.object("full_attention")? {
            let global = global_rope(Some(full))?;
            let local = rope(parameters.object("sliding_attention")?, local_theta)?;
            return Ok((global, local));
        }
        let global = global_rope(Some(parameters))?;
        let local = if gemma3 { RopeSpec { theta: local_theta, factor: 1.0 } } else { global };
        return Ok((global, local));
    }
    let global = global_rope(fields.object("rope_scaling")?)?;
    let local = if gemma3 { RopeSpec { theta: local_theta, factor: 1.0 } } else { global };
    Ok((global, local))
}

/// One set of RoPE parameters.
fn rope(fields: Option<Fields<'_>>, default_theta: f32) -> Result<RopeSpec> {
    let Some(fields) = fields else { return Ok(RopeSpec { theta: default_theta, factor: 1.0 }) };
    let theta = fields.float("rope_theta")?.unwrap_or(default_theta);
    let kind = match fields.string("rope_type")? {
        Some(kind) => kind,
        None => fields.string("type")?.unwrap_or("default"),
    };
    let factor = match kind {
        "default" => 1.0,
        "linear" => fields.float("factor")?.ok_or_else(|| fields.wrong("factor", "a number"))?,
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                fields.path.display(),
                format_args!(
                    "{}rope_type `{other}` is not supported (default and linear are)",
                    fields.prefix
                ),
            )
            .remedy("Choose a checkpoint as Google published it."));
        }
    };
    Ok(RopeSpec { theta, factor })
}

/// The keys of one JSON object, read with messages that name them.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
    /// What stands before a key's name in messages.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// The file, for messages.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The same keys, named with what stands around them.
    pub(super) fn inside(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// As [`Fields::get`], with `null` taken for missing.
    fn stated(&self, key: &str) -> Option<&'a Value> {
        self.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match self.get(key) {
            Some(value) => {
                let text = value.to_string();
                let shown: String = text.chars().take(40).collect();
                format!("is {shown}{}", if shown.len() < text.len() { "..." } else { "" })
            }
            None => "is missing".to_owned(),
        };
        Error::new(
            ErrorKind::BadFile,
            self.path.display(),
            format_args!("{}{key} {found}; expected {expected}", self.prefix),
        )
        .remedy("Download the file again, or correct the field.")
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.stated(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key, "a string"))).transpose()
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        match self.stated(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { path: self.path, map, prefix: self.prefix })),
            Some(_) => Err(self.wrong(key, "a JSON object")),
        }
    }

    pub(super) fn dim(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_dim_stated(key)?.unwrap_or(default))
    }

    fn optional_dim_stated(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.stated(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(dim) if (1..=MAX_DIM).contains(&dim) => Ok(Some(dim)),
            _ => Err(self.wrong(key, &format!("a whole number from 1 to {MAX_DIM}"))),
        }
    }

    /// A dimension that `null` switches off.
    fn optional_dim(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(default),
            Some(_) => self.optional_dim_stated(key),
        }
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.stated(key) else { return Ok(None) };
        match value.as_f64().map(|v| v as f32) {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(key, "a number")),
        }
    }

    /// A number that `null` switches off.
    fn optional_float(&self, key: &str, default: Option<f32>) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(default),
            Some(_) => self.float(key),
        }
    }

    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.tokens(key)?.first().copied())
    }

    /// A token id or a list of them.
    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
        let Some(value) = self.stated(key) else { return Ok(Vec::new()) };
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect::<Option<Vec<_>>>(),
            single => id(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of token ids"))
    }
}
