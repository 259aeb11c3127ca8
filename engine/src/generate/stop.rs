//! When a generation ends before its token limit: by token id, by text, by the caller's own rule.

/// A caller's rule: `true` once the text so far is enough. Runs on the engine's thread; keep it short.
pub type Enough = Box<dyn FnMut(&str) -> bool + Send>;

/// When a generation ends before its token limit. The model's own end tokens stop it too.
#[derive(Default)]
pub struct Stop {
    /// Token ids that end it, compared by id, never by text; not part of the answer.
    pub tokens: Vec<u32>,
    /// Texts that end it; cut off together with what follows.
    pub texts: Vec<String>,
    /// Asked after each token with all the text so far; what is there stays in the answer.
    pub enough: Option<Enough>,
    /// Take the model's own end tokens for tokens like any other: for comparisons and measurements.
    pub ignore_eos: bool,
}
