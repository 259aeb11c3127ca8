//! The engine of gemma-ls: checkpoints, tokenizers, networks, caches, sampling and scheduling for
//! the Gemma family.
//!
//! The public face is [`Engine`]: start it, load a model, submit requests, read a stream of tokens.
//!
//! **Architecture invariant:** nothing here knows of editors, the language server protocol or the
//! files of a workspace; what comes in are token ids and options, what goes out are tokens.

pub mod adapter;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod engine;
pub mod error;
pub mod generate;
pub mod machine;
pub mod model;
pub mod options;
mod outline;
pub mod picture;
pub mod quantize;
pub mod scheduler;
#[cfg(test)]
pub(crate) mod test_cache;
pub mod tokenizer;

pub use adapter::Adapter;
pub use cache::{CacheFolder, CacheStatistics};
pub use config::ModelConfig;
pub use engine::{DeviceInfo, Engine, Limits, Logits, LogitsRequest, Model, Speed, context_bytes};
pub use error::{Error, ErrorKind, Result};
pub use gemma_kernels::{KvFormat, Level};
pub use generate::{
    CancelFlag, Event, FinishReason, Finished, GenerateRequest, Priority, Sampling, Stop, Timings, Token,
    TokenStream,
};
pub use machine::{GpuInfo, Machine};
pub use options::{
    AdapterChoice, DeviceChoice, EngineOptions, LoadOptions, LoadProgress, Precision, QuantizeAtLoad,
};
pub use picture::{Picture, Resample};
pub use quantize::{QuantType, QuantizeOptions, Quantized, quantize};
pub use scheduler::Expectation;
pub use tokenizer::{ControlPart, FimTokens, Tokenizer};
