//! What an engine and a model are started with.

use std::path::PathBuf;

use gemma_kernels::cuda::Device;
use gemma_kernels::{KvFormat, Level};

use crate::adapter::{self, Adapter};
use crate::cache::CacheFolder;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::quantize::QuantType;

/// What an engine may use of the machine.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Compute threads; `None`: one a physical core.
    pub threads: Option<usize>,
    /// Whether fewer of them compute while other programs use the processor.
    pub makes_room: bool,
    /// Most bytes of keys and values kept for reuse, all models together; `None`: a quarter of memory. What
    /// pictures were encoded to takes at most an eighth of it on top.
    pub cache_bytes: Option<u64>,
    /// Where keys and values outlive the engine; `None`: nowhere.
    pub cache_folder: Option<CacheFolder>,
    /// What computes.
    pub device: DeviceChoice,
    /// How keys and values are kept with [`Precision::Fast`] on the processor; `None`: in f16, where the checkpoint's
    /// numbers are f32 in f32. A GPU keeps f16 whatever is said here.
    pub kv_format: Option<KvFormat>,
    /// What the weights of HuggingFace folders are quantised to when they are loaded; `None`: they are used as they
    /// are.
    pub quantize: Option<QuantizeAtLoad>,
    /// The most instructions that kernels on the processor use; `None`: all that it has, or as many as
    /// `GEMMA_LS_CPU` allows.
    pub level: Option<Level>,
}

/// Quantising at load: the first load of a folder makes a copy, the next ones find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizeAtLoad {
    /// What to store matrices in.
    pub kind: QuantType,
    /// Where copies are kept; made when something is first written.
    pub folder: PathBuf,
}

/// What computes.
#[derive(Debug, Clone, Default)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU if there is one that can be used and the model fits, else the processor.
    Auto,
    /// The GPU; a model fails to load where there is none, or it does not fit.
    Cuda,
    /// This one.
    Given(Device),
}

/// How numbers are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit activations against quantised weights, keys and values as [`EngineOptions::kv_format`] says.
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
    /// The adapter that runs beside it; requests can do without.
    pub adapter: AdapterChoice,
}

impl LoadOptions {
    /// This model, named by its file, in the default precision, without an adapter.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), name: None, precision: Precision::default(), adapter: AdapterChoice::None }
    }
}

/// Which adapter runs beside a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// None.
    #[default]
    None,
    /// The one that comes with the program, where it has one for this model: as it was published first, not tuned to talk.
    BuiltIn,
    /// The one at this path; it has to be one for this model.
    At(PathBuf),
}

impl AdapterChoice {
    /// The adapter, if there is one; fails where it cannot be read, or is for another model.
    pub fn open(&self, base: &Checkpoint) -> Result<Option<Adapter>> {
        let adapter = match self {
            Self::None => None,
            Self::BuiltIn if base.chat_template().is_some() => None,
            Self::BuiltIn => adapter::built_in(base.config()).transpose()?,
            Self::At(path) => Some(Adapter::open(path)?),
        };
        if let Some(adapter) = &adapter {
            adapter.check(base.config())?;
        }
        Ok(adapter)
    }
}

/// Progress of a load: `done` of `total` bytes of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes prepared so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}
