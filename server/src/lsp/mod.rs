//! The language server.
mod frames;
