//! The public face: start an engine, load models into it, submit requests, read tokens.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::generate::{GenerateRequest, TokenStream};
use crate::tokenizer::Tokenizer;

/// What an engine may use of the machine.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Compute threads; `None`: one a physical core.
    pub threads: Option<usize>,
    /// Most bytes of keys and values kept for reuse, all models together; `None`: a quarter of memory.
    pub cache_bytes: Option<u64>,
}

/// How numbers are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit activations against quantised weights, keys and values in f16.
    #[default]
    Fast,
    /// f32 activations, keys and values throughout.
    Exact,
    /// As `Exact`, in plain scalar code: the oracle that everything else is held against. Slow.
    Reference,
}

/// A model to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A HuggingFace folder or a GGUF file.
    pub path: PathBuf,
    /// What it is called in messages; `None`: the file's name.
    pub name: Option<String>,
    /// How numbers are computed.
    pub precision: Precision,
}

/// Progress of a load: `done` of `total` bytes of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes prepared so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A loaded model: what anyone may know of it. The weights themselves belong to the engine's thread.
pub struct Model {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) weight_bytes: u64,
}

impl Model {
    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
    /// Its tokenizer; usable from any thread.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// Bytes its weights take in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}

/// All logits of a sequence, for holding a checkpoint against another implementation.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Tokens.
    pub rows: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// `[rows, vocab]`, row-major, after the final soft cap.
    pub data: Vec<f32>,
}

/// A handle to the engine; clones share one engine, which stops with the last of them.
#[derive(Clone)]
pub struct Engine {
    _private: (),
}

impl Engine {
    /// Starts the engine's thread and its compute threads.
    pub fn start(options: EngineOptions) -> Result<Self> {
        let _ = options;
        todo!("being written")
    }

    /// Loads a model on the calling thread; requests for other models go on meanwhile.
    pub fn load(&self, options: LoadOptions, progress: &mut dyn FnMut(LoadProgress)) -> Result<Arc<Model>> {
        let _ = (options, progress);
        todo!("being written")
    }

    /// Frees a model once its running requests are done.
    pub fn unload(&self, model: &Arc<Model>) {
        let _ = model;
        todo!("being written")
    }

    /// Queues a request; never blocks.
    pub fn submit(&self, request: GenerateRequest) -> TokenStream {
        let _ = request;
        todo!("being written")
    }

    /// The logits of every position of `ids`, fed through a fresh cache in pieces of the lengths
    /// `split` (`None`: all at once). Blocks.
    ///
    /// Fails when `ids` is empty, holds an id outside the vocabulary, or `split` does not add up to it.
    pub fn logits(&self, model: &Arc<Model>, ids: &[u32], split: Option<&[usize]>) -> Result<Logits> {
        let _ = (model, ids, split);
        todo!("being written")
    }
}
