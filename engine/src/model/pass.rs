//! What a forward pass reads, whose logits it gives, and what may stop it.

use std::time::Instant;

use gemma_kernels::Span;

use crate::generate::CancelFlag;

/// Whose logits a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Those of this many tokens, the last ones; of none, only keys and values are wanted.
    Last(usize),
    /// Every token's.
    All,
}

/// What is wanted of a row's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Every token's.
    All,
    /// Those of a few tokens, the best or certain ones, which are asked for later.
    Few,
}

/// What a forward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The tokens; below the vocabulary's size, except where a picture stands. The caller checks.
    pub ids: &'a [u32],
    /// What the sequence remembers them by, one a token: two prompts share what has the same keys.
    pub keys: &'a [u32],
    /// Pictures: the first of their tokens in `ids`, and what stands in place of their embeddings,
    /// `[tokens, hidden]`.
    pub pictures: &'a [(usize, &'a [f32])],
    /// Where the whole sequence sees forward. A pass computes a span whole or not at all.
    pub spans: &'a [Span],
    /// Whether the model's adapter is on.
    pub adapted: bool,
}

impl<'a> Input<'a> {
    /// Text alone, every token behind the last, without an adapter.
    pub fn text(ids: &'a [u32]) -> Self {
        Self { ids, keys: ids, pictures: &[], spans: &[], adapted: false }
    }
}

/// What may stop a forward pass between two layers.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// Set from outside.
    pub cancel: CancelFlag,
    /// Set when the engine stops.
    pub shutdown: CancelFlag,
    /// The time after which nobody wants the result.
    pub deadline: Option<Instant>,
}

impl Interrupt {
    /// Whether to stop now.
    pub fn is_due(&self) -> bool {
        self.cancel.is_cancelled() || self.shutdown.is_cancelled() || self.is_late()
    }

    /// Whether the deadline has passed.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
