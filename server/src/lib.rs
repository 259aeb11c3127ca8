//! gemma-ls: a language server that completes code with Gemma models inside its own process.
//!
//! **Architecture invariant:** this crate knows the protocol, documents and prompts; it never names a
//! tensor or a device. Only [`lsp`] names a type of the protocol.

pub mod bench;
pub mod chat;
pub mod cli;
pub mod completion;
pub mod context;
pub mod documents;
pub mod explain;
pub mod language;
pub mod lsp;
pub mod models;
pub mod permission;
pub mod prompt;
pub mod secrets;
pub mod settings;
pub mod statistics;
pub mod text;
