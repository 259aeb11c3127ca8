//! Explaining pictures.

pub mod draw;
pub mod marks;
pub mod merge;
pub mod task;
pub mod tiles;
