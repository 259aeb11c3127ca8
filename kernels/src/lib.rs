//! Numeric operations of the Gemma family on CPUs and NVIDIA GPUs.
//!
//! [`Ops`] is the contract of every operation; [`Cpu`] runs them fast, [`Reference`] in plain scalar
//! code, the oracle that everything is held against.
//!
//! **Architecture invariant:** nothing here knows of models, tokens, or when a cache is kept.

pub mod cpu;
pub mod cuda;
pub mod kv;
pub mod ops;
pub mod quant;
pub mod quantize;
pub mod reference;
#[doc(hidden)]
pub mod testing;

pub use cpu::{Cpu, FEW_ROWS, Level};
pub use kv::{KvFormat, KvLayout, KvPage, PAGE_TOKENS};
pub use ops::{
    Activation, Attention, BlockProjection, CausalConv, DenseAttention, LowRank, Matrix, Ops, Projection,
    RgLru, Rope, ShapeError, Span, visible,
};
pub use quant::Format;
pub use reference::Reference;
