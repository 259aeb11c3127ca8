//! A model on disk: a HuggingFace folder or a GGUF file, memory-mapped; where models are found and
//! how they get here.

mod catalogue;
pub(crate) mod gguf;
pub(crate) mod gguf_config;
pub(crate) mod gguf_writer;
mod hf_config;
mod hub;
mod locate;
pub(crate) mod map;
pub(crate) mod names;
mod network;
mod pull;
#[cfg(test)]
mod pull_tests;
mod python_package;
pub(crate) mod safetensors_folder;
#[cfg(test)]
pub(crate) mod test_gguf;
#[cfg(test)]
mod tests;
mod vision_config;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gemma_kernels::Format;
use serde_json::Value;

use crate::adapter;
use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{END_OF_TURN, Tokenizer};

pub use catalogue::{CATALOGUE, CatalogueEntry, DEFAULT_MODEL, LICENCE_PAGE, known};
pub use locate::{expand_home, find_all, resolve};
pub use names::from_huggingface as canonical_name;
pub use pull::{PullPhase, PullProgress, pull, reach_hub};

use gguf::Gguf;
use map::{MappedFile, cannot_read};
use network::Network;

/// One tensor of a checkpoint, borrowed from the mapped file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// How its numbers are stored.
    pub format: Format,
    /// Row-major, slowest dimension first: a linear layer is `[out, in]`.
    pub shape: Vec<usize>,
    /// Its bytes; `shape` in `format` says how many, checked. They may begin at any address.
    pub bytes: &'a [u8],
}

/// An opened checkpoint: configuration read, tensors mapped but not touched.
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    /// How the embedding table is stored, or would be.
    format: Format,
    files: Vec<MappedFile>,
    /// By canonical name.
    tensors: HashMap<String, Entry>,
    kind: Kind,
    chat_template: Option<String>,
}

/// A tensor that this engine can use.
struct Entry {
    file: usize,
    format: Format,
    shape: Vec<usize>,
    /// Inside the file: checked when the entry was made.
    range: Range<usize>,
}

enum Kind {
    Folder,
    Gguf(Gguf),
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens a HuggingFace folder, a `.gguf` file or a folder with one such file. Every tensor's place in
    /// the file is checked here, so that a truncated file fails now and not at its first use.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| cannot_read(path, &e))?;
        if !metadata.is_dir() {
            return open_gguf(path);
        }
        if path.join("config.json").is_file() {
            return open_folder(path);
        }
        if path.join(adapter::CONFIG_FILE).is_file() {
            return Err(is_adapter(path));
        }
        open_gguf(&only_gguf(path)?)
    }

    /// A HuggingFace folder without its weights: configuration, tokenizer and chat template are read, and no
    /// tensor is there. What it would take to run the model can be told before it is fetched.
    pub fn without_weights(folder: &Path) -> Result<Self> {
        let network = folder_network(folder)?;
        let format = network.stated_format.unwrap_or(Format::F32);
        let embed_scale = embed_scale(&network, Some(format));
        let config = network.into_config(&folder.join("config.json"), embed_scale, 1.0)?;
        Ok(Self {
            path: folder.to_owned(),
            config,
            format,
            files: Vec::new(),
            tensors: HashMap::new(),
            kind: Kind::Folder,
            chat_template: folder_chat_template(folder),
        })
    }

    /// The network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Reads the tokenizer (tokenizer.json, or the GGUF's metadata).
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.kind {
            Kind::Folder => {
                let path = self.path.join("tokenizer.json");
                Tokenizer::from_json(MappedFile::open(&path)?.bytes(), &path)
            }
            Kind::Gguf(gguf) => Tokenizer::from_gguf(gguf, self.file_bytes(0), &self.path),
        }
    }

    /// A tensor by its HuggingFace name without any wrapper's prefix
    /// (`model.layers.0.self_attn.q_proj.weight`), whatever the file calls it.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let found = self.tensors.get(name).and_then(|entry| {
            let bytes = self.file_bytes(entry.file).get(entry.range.clone())?;
            Some(TensorView { format: entry.format, shape: entry.shape.clone(), bytes })
        });
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, self.path.display(), format_args!("has no tensor {name}"))
                .remedy("The checkpoint is not complete or of another architecture: choose another.")
        })
    }

    /// Whether it has this tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Every tensor that the network needs, by the names of [`Checkpoint::tensor`], with its shape. The output
    /// table is not among them: the published models use the embedding table.
    pub fn required(&self) -> Vec<(String, Vec<usize>)> {
        names::required(&self.config)
    }

    /// How the embedding table is stored; where the weights are missing, how the configuration says it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.range.len() as u64).sum()
    }

    /// The folder or file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The chat template of tokenizer_config.json, chat_template.jinja or the GGUF, where there is one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Has the system read all files, for who is about to read them.
    pub(crate) fn read_ahead(&self) {
        self.files.iter().for_each(MappedFile::read_ahead);
    }

    /// The GGUF file's header and all its bytes; `None` for a folder.
    pub(crate) fn gguf(&self) -> Option<(&Gguf, &[u8])> {
        match &self.kind {
            Kind::Folder => None,
            Kind::Gguf(gguf) => Some((gguf, self.file_bytes(0))),
        }
    }

    fn file_bytes(&self, file: usize) -> &[u8] {
        self.files.get(file).map(MappedFile::bytes).unwrap_or_default()
    }
}

fn is_adapter(path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, path.display(), "is an adapter and no model")
        .remedy("Give the model that it was trained on, and this with --adapter or the setting `adapter`.")
}

/// The one `.gguf` file of a folder without config.json.
fn only_gguf(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|e| cannot_read(folder, &e))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")))
        .collect();
    found.sort();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => Err(Error::new(
            ErrorKind::NotFound,
            folder.display(),
            "has neither a config.json nor a .gguf file",
        )
        .remedy(
            "Give a HuggingFace folder or a .gguf file; `gemma-ls model list` shows what is on this machine.",
        )),
        n => Err(Error::new(ErrorKind::Input, folder.display(), format_args!("has {n} .gguf files")).remedy(
            format_args!(
                "Say which: {}",
                found.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

fn open_gguf(path: &Path) -> Result<Checkpoint> {
    let file = MappedFile::open(path)?;
    let gguf = Gguf::parse(file.bytes(), path)?;
    if gguf.is_adapter(file.bytes()) {
        return Err(is_adapter(path));
    }
    let mut network = gguf_config::parse(&gguf, file.bytes(), path)?;
    if let Some(id) = crate::tokenizer::gguf_token(&gguf, file.bytes(), END_OF_TURN)
        && !network.eos.contains(&id)
    {
        network.eos.push(id);
    }
    let architecture = network.architecture;
    // llama.cpp scales embeddings in f32, whatever the table is stored in; the converter has already added
    // the 1 to the norms.
    let embed_scale = embed_scale(&network, None);
    let config = network.into_config(path, embed_scale, 0.0)?;
    let mut tensors = HashMap::new();
    let mut unknown = HashMap::new();
    for tensor in gguf.tensors() {
        let tower = || config.vision.as_ref().and_then(|_| names::tower_from_gguf(&tensor.name));
        let Some(name) = names::from_gguf(&tensor.name, architecture).or_else(tower) else { continue };
        match tensor.format {
            Ok(format) => {
                let entry =
                    Entry { file: 0, format, shape: tensor.shape.clone(), range: tensor.range.clone() };
                tensors.insert(name, entry);
            }
            Err(number) => drop(unknown.insert(name, gguf::type_name(number))),
        }
    }
    check_tensors(path, &config, &tensors, &unknown)?;
    let format = format_of(names::EMBEDDING, &tensors).unwrap_or(Format::F32);
    let chat_template = gguf.str(file.bytes(), "tokenizer.chat_template").map(str::to_owned);
    Ok(Checkpoint {
        path: path.to_owned(),
        config,
        format,
        files: vec![file],
        tensors,
        kind: Kind::Gguf(gguf),
        chat_template,
    })
}

fn folder_network(folder: &Path) -> Result<Network> {
    let config_path = folder.join("config.json");
    let text = std::fs::read(&config_path).map_err(|e| cannot_read(&config_path, &e))?;
    let mut network = hf_config::parse(&text, &config_path)?;
    for id in more_eos(folder)? {
        if !network.eos.contains(&id) {
            network.eos.push(id);
        }
    }
    if network.eos.is_empty() {
        network.eos.push(1);
    }
    Ok(network)
}

/// What embeddings are multiplied with: in the format they are stored in; `None`: in f32.
fn embed_scale(network: &Network, format: Option<Format>) -> f32 {
    let scale = (network.hidden as f32).sqrt();
    match format {
        // RecurrentGemma's is kept in bf16 whatever it computes in.
        _ if network.architecture == Architecture::RecurrentGemma => half::bf16::from_f32(scale).to_f32(),
        Some(Format::BF16) => half::bf16::from_f32(scale).to_f32(),
        Some(Format::F16) => half::f16::from_f32(scale).to_f32(),
        _ => scale,
    }
}

fn format_of(name: &str, tensors: &HashMap<String, Entry>) -> Option<Format> {
    tensors.get(name).map(|entry| entry.format)
}

fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let mut network = folder_network(folder)?;
    let weights = safetensors_folder::open(folder)?;
    let mut tensors = HashMap::new();
    let mut unknown = HashMap::new();
    for (file_name, place) in weights.tensors {
        let name = names::from_huggingface(&file_name);
        match place.format {
            Ok(format) => {
                let entry = Entry { file: place.file, format, shape: place.shape, range: place.range };
                tensors.insert(name, entry);
            }
            Err(dtype) => drop(unknown.insert(name, dtype)),
        }
    }
    if network.reads_pictures_if_it_can() && !tensors.keys().any(|name| name.starts_with(names::TOWER)) {
        network.vision = None;
    }
    let format = format_of(names::EMBEDDING, &tensors);
    let embed_scale = embed_scale(&network, format);
    let config = network.into_config(&folder.join("config.json"), embed_scale, 1.0)?;
    check_tensors(folder, &config, &tensors, &unknown)?;
    let chat_template = folder_chat_template(folder);
    Ok(Checkpoint {
        path: folder.to_owned(),
        config,
        format: format.unwrap_or(Format::F32),
        files: weights.files,
        tensors,
        kind: Kind::Folder,
        chat_template,
    })
}

/// Ends of generation that config.json does not state: those of generation_config.json, and the end of a turn
/// where the vocabulary has one (the published chat models of Gemma 1 name only `<eos>`).
fn more_eos(folder: &Path) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    let path = folder.join("generation_config.json");
    if path.is_file() {
        let text = std::fs::read(&path).map_err(|e| cannot_read(&path, &e))?;
        all = hf_config::generation_eos(&text, &path)?;
    }
    let path = folder.join("tokenizer.json");
    if path.is_file() {
        all.extend(crate::tokenizer::json_added_token(MappedFile::open(&path)?.bytes(), END_OF_TURN));
    }
    Ok(all)
}

/// Checks that every tensor the network needs is there, of a known type and of the right shape.
fn check_tensors(
    path: &Path,
    config: &ModelConfig,
    tensors: &HashMap<String, Entry>,
    unknown: &HashMap<String, String>,
) -> Result<()> {
    let mut required = names::required(config);
    if tensors.contains_key(names::OUTPUT) || unknown.contains_key(names::OUTPUT) {
        required.push((names::OUTPUT.to_owned(), vec![config.vocab, config.hidden]));
    }
    for (name, shape) in required {
        if let Some(kind) = unknown.get(&name) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                path.display(),
                format_args!("tensor {name} is stored as {kind}, which is not supported"),
            )
            .remedy("Choose a file in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K (Q4_K_M files have the best size for their quality)."));
        }
        let Some(entry) = tensors.get(&name) else {
            return Err(Error::new(ErrorKind::BadFile, path.display(), format_args!("lacks tensor {name}"))
                .remedy("The file is not complete, or its configuration belongs to another model: download it again."));
        };
        if entry.shape != shape {
            return Err(Error::new(
                ErrorKind::BadFile,
                path.display(),
                format_args!(
                    "tensor {name} has the shape {:?}, the configuration says {shape:?}",
                    entry.shape
                ),
            )
            .remedy("Configuration and weights do not belong together: download both again."));
        }
    }
    Ok(())
}

/// The chat template of a HuggingFace folder; a broken file only means that there is none.
fn folder_chat_template(folder: &Path) -> Option<String> {
    if let Ok(template) = std::fs::read_to_string(folder.join("chat_template.jinja")) {
        return Some(template);
    }
    let text = std::fs::read(folder.join("tokenizer_config.json")).ok()?;
    let config: Value = serde_json::from_slice(&text).ok()?;
    match config.get("chat_template")? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            default.or(named.first())?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// A model found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What to call it (`codegemma-2b`, `gemma-3-270m-q4_k_m`).
    pub name: String,
    /// Folder or file.
    pub path: PathBuf,
    /// Where it was found: `gemma-ls`, `huggingface`, `ollama`, `lmstudio`, `$GEMMA_LS_MODELS`.
    pub source: String,
    /// Bytes on disk.
    pub bytes: u64,
}
