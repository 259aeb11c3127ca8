//! A model on disk: a HuggingFace folder or a GGUF file, memory-mapped; where models are found and
//! how they get here.

use std::path::{Path, PathBuf};

use gemma_kernels::Format;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// One tensor of a checkpoint, borrowed from the mapped file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// How its numbers are stored.
    pub format: Format,
    /// Row-major, slowest dimension first: a linear layer is `[out, in]`.
    pub shape: Vec<usize>,
    /// Its bytes; `shape` in `format` says how many, checked.
    pub bytes: &'a [u8],
}

/// An opened checkpoint: configuration read, tensors mapped but not touched.
pub struct Checkpoint {
    _private: (),
}

impl Checkpoint {
    /// Opens a HuggingFace folder, a `.gguf` file or a folder with one such file. Every tensor's place in
    /// the file is checked here, so that a truncated file fails now and not at its first use.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!("being written")
    }

    /// The network.
    pub fn config(&self) -> &ModelConfig {
        todo!("being written")
    }

    /// Reads the tokenizer (tokenizer.json, or the GGUF's metadata).
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        todo!("being written")
    }

    /// A tensor by its HuggingFace name without any wrapper's prefix
    /// (`model.layers.0.self_attn.q_proj.weight`), whatever the file calls it.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let _ = name;
        todo!("being written")
    }

    /// Whether it has this tensor.
    pub fn contains(&self, name: &str) -> bool {
        let _ = name;
        todo!("being written")
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        todo!("being written")
    }

    /// The folder or file it was opened from.
    pub fn path(&self) -> &Path {
        todo!("being written")
    }

    /// The chat template of tokenizer_config.json, chat_template.jinja or the GGUF, where there is one.
    pub fn chat_template(&self) -> Option<&str> {
        todo!("being written")
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
