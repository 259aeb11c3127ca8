//! Adapters as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`, and beside them, where the adapter
//! teaches it, `fim.json` with the format of fill-in-the-middle.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use gemma_kernels::Format;
use regex::Regex;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use super::{Adapter, Builder, CONFIG_FILE, Factors, Infill, REMEDY, digest, name_of};
use crate::checkpoint::canonical_name;
use crate::checkpoint::map::{MappedFile, cannot_read};
use crate::checkpoint::safetensors_folder::format_of;
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::FimTokens;

const WEIGHTS_FILE: &str = "adapter_model.safetensors";
const INFILL_FILE: &str = "fim.json";

/// What PEFT puts before the names of the base's modules.
const PREFIX: &str = "base_model.model.";
const ROWS: &str = ".token_adapter.trainable_tokens_delta";

/// CodeGemma's control tokens of fill-in-the-middle: an adapter that trains the rows of the first three teaches them.
const CODEGEMMA: FimTokens = FimTokens { prefix: 67, middle: 68, suffix: 69, separator: 70 };

/// What counts of `adapter_config.json`.
#[derive(Deserialize)]
struct Config {
    peft_type: Option<String>,
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    lora_bias: bool,
    bias: Option<String>,
    alpha_pattern: Option<HashMap<String, f64>>,
    modules_to_save: Option<Vec<String>>,
    trainable_token_indices: Option<Value>,
}

/// The three files of a folder.
pub(super) struct Files<'a> {
    pub(super) config: &'a [u8],
    pub(super) weights: &'a [u8],
    pub(super) infill: Option<&'a [u8]>,
}

pub(super) fn open(folder: &Path) -> Result<Adapter> {
    let (config, weights) = (folder.join(CONFIG_FILE), folder.join(WEIGHTS_FILE));
    if !config.is_file() {
        let problem = format!("has no {CONFIG_FILE}: it is no adapter");
        return Err(Error::new(ErrorKind::NotFound, folder.display(), problem).remedy(REMEDY));
    }
    let infill = folder.join(INFILL_FILE);
    let infill = infill.is_file().then(|| std::fs::read(&infill).map_err(|e| cannot_read(&infill, &e)));
    let (infill, weights) = (infill.transpose()?, MappedFile::open(&weights)?);
    let config = std::fs::read(&config).map_err(|e| cannot_read(&config, &e))?;
    parse(&Files { config: &config, weights: weights.bytes(), infill: infill.as_deref() }, folder)
}

/// Reads an adapter from its files; `path` is for messages.
pub(super) fn parse(files: &Files<'_>, path: &Path) -> Result<Adapter> {
    let mut builder = Builder::new(path);
    let config: Config = serde_json::from_slice(files.config)
        .map_err(|e| builder.broken(format!("{CONFIG_FILE} is not that of a LoRA adapter: {e}")))?;
    refuse(&config, &builder)?;
    let tensors = SafeTensors::deserialize(files.weights)
        .map_err(|e| builder.broken(format!("{WEIGHTS_FILE} is broken or truncated: {e}")))?;
    let ids = token_ids(&config, &builder)?;
    let mut rows = BTreeMap::new();
    // What PEFT matches its patterns against, by the canonical name.
    let mut theirs = HashMap::new();
    for (name, tensor) in tensors.tensors() {
        let format = format_of(tensor.dtype())
            .map_err(|kind| builder.unsupported(format!("tensor {name} is stored as {kind}")))?;
        let module = name.strip_prefix(PREFIX).unwrap_or(&name);
        let factor = [(".lora_A.weight", false), (".lora_B.weight", true)]
            .into_iter()
            .find_map(|(end, second)| Some((module.strip_suffix(end)?, second)));
        if let Some((module, second)) = factor {
            let weight = canonical_name(&format!("{module}.weight"));
            let canonical = weight.strip_suffix(".weight").unwrap_or(&weight).to_owned();
            theirs.insert(canonical.clone(), module.to_owned());
            builder.take(canonical, second, tensor.shape(), format, tensor.data())?;
        } else if module.ends_with(&format!("embed_tokens{ROWS}")) {
            rows = token_rows(&builder, &ids, tensor.shape(), format, tensor.data())?;
        } else if !module.ends_with(ROWS) {
            return Err(builder.unsupported(format!("tensor {name} is no part of a low-rank product")));
        }
    }
    if rows.is_empty() && !ids.is_empty() {
        return Err(builder.broken(format!("{WEIGHTS_FILE} lacks the rows of the tokens that were trained")));
    }
    let alphas = Alphas::new(&config, &builder)?;
    let modules: BTreeMap<String, Factors> = builder.finish(|module, rank| {
        let theirs = theirs.get(module).map_or(module, String::as_str);
        let root = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(alphas.of(theirs) / root)
    })?;
    let infill = match files.infill {
        Some(text) => Some(infill(text, path)?),
        None => [CODEGEMMA.prefix, CODEGEMMA.middle, CODEGEMMA.suffix]
            .iter()
            .all(|id| rows.contains_key(id))
            .then_some(Infill { tokens: CODEGEMMA, order: None }),
    };
    Ok(Adapter {
        name: name_of(path),
        path: path.to_owned(),
        base: config.base_model_name_or_path,
        architecture: None,
        modules,
        rows,
        infill,
        digest: digest(&[files.config, files.weights]),
    })
}

/// Fails for what is more than low-rank products.
fn refuse(config: &Config, builder: &Builder<'_>) -> Result<()> {
    let kind = config.peft_type.as_deref().unwrap_or("LORA");
    let saved = config.modules_to_save.as_deref().unwrap_or_default();
    let problem = if kind != "LORA" {
        format!("is an adapter of the kind {kind}")
    } else if config.use_dora {
        "is a DoRA adapter, which scales the base's weights too".to_owned()
    } else if config.fan_in_fan_out {
        "was trained on layers whose weights are turned (fan_in_fan_out)".to_owned()
    } else if config.lora_bias || config.bias.as_deref().is_some_and(|bias| bias != "none") {
        "has trained biases".to_owned()
    } else if !saved.is_empty() {
        format!("has modules that were trained whole: {}", saved.join(", "))
    } else if config.r == 0 || !config.lora_alpha.is_finite() {
        return Err(builder.broken(format!("has the rank {} and the alpha {}", config.r, config.lora_alpha)));
    } else {
        return Ok(());
    };
    Err(builder.unsupported(problem))
}

/// `lora_alpha` by module: the pattern that matches the end of a module's name, else that of all.
struct Alphas {
    patterns: Vec<(Regex, f64)>,
    all: f64,
}

impl Alphas {
    fn new(config: &Config, builder: &Builder<'_>) -> Result<Self> {
        let mut patterns = Vec::new();
        for (pattern, &alpha) in config.alpha_pattern.iter().flatten() {
            let whole = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
            let whole = whole.map_err(|e| builder.broken(format!("alpha_pattern `{pattern}`: {e}")))?;
            patterns.push((whole, alpha));
        }
        Ok(Self { patterns, all: config.lora_alpha })
    }

    fn of(&self, module: &str) -> f64 {
        self.patterns
            .iter()
            .find(|(pattern, _)| pattern.is_match(module))
            .map_or(self.all, |(_, alpha)| *alpha)
    }
}

/// The ids whose rows were trained: a list, or one by the module's name.
fn token_ids(config: &Config, builder: &Builder<'_>) -> Result<Vec<u32>> {
    let list = match &config.trainable_token_indices {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(modules)) => {
            if let Some(other) = modules.keys().find(|module| !module.ends_with("embed_tokens")) {
                return Err(builder.unsupported(format!("has trained rows of {other}")));
            }
            modules.values().next()
        }
        other => other.as_ref(),
    };
    let ids = list.and_then(Value::as_array).and_then(|ids| {
        ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect::<Option<Vec<_>>>()
    });
    ids.ok_or_else(|| builder.broken("trainable_token_indices is no list of token ids"))
}

fn token_rows(
    builder: &Builder<'_>,
    ids: &[u32],
    shape: &[usize],
    format: Format,
    bytes: &[u8],
) -> Result<BTreeMap<u32, Vec<f32>>> {
    let &[count, width] = shape else {
        return Err(builder.broken(format!("the rows of tokens have the shape {shape:?}")));
    };
    if count != ids.len() || width == 0 {
        return Err(builder.broken(format!("has {count} rows for {} tokens", ids.len())));
    }
    let numbers = builder.numbers("the tensor of tokens' rows", [count, width], format, bytes)?;
    Ok(ids.iter().copied().zip(numbers.chunks_exact(width).map(<[f32]>::to_vec)).collect())
}

/// What `fim.json` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InfillFile {
    prefix: u32,
    middle: u32,
    suffix: u32,
    separator: u32,
    order: Option<String>,
}

fn infill(text: &[u8], path: &Path) -> Result<Infill> {
    let InfillFile { prefix, middle, suffix, separator, order } =
        serde_json::from_slice(text).map_err(|e| {
            Error::new(ErrorKind::BadFile, path.join(INFILL_FILE).display(), e).remedy(
                r#"It looks like { "prefix": 67, "middle": 68, "suffix": 69, "separator": 70, "order": "spm" }."#,
            )
        })?;
    Ok(Infill { tokens: FimTokens { prefix, middle, suffix, separator }, order })
}
