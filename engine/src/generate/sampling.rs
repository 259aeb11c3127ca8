//! Picking the next token: repetition penalty, temperature, top-k, top-p, min-p, seed.

/// How tokens are picked. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 picks the most likely token; the other fields but the penalty are then unused.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide positive and multiply negative logits of tokens already present by this; 1 for none.
    pub repetition_penalty: f32,
    /// The same seed and prompt give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}
