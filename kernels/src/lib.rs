//! Numeric operations of the Gemma family on CPUs.
//!
//! **Architecture invariant:** nothing here knows of models, tokens, or when a cache is kept.

pub mod quant;

pub use quant::Format;
