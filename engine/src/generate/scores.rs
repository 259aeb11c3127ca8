//! What a pass says of the next token: every token's logit, or only the best ones' where no more was computed or the rest
//! stays on a device.

use std::sync::Arc;

/// Logits behind one token.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Of all tokens, by id.
    All(Arc<[f32]>),
    /// Of the best tokens alone.
    Best(Arc<Best>),
}

/// The best tokens behind one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Tokens and their logits, the best first.
    pub tokens: Vec<(u32, f32)>,
    /// `ln(sum(e^logit))` over the vocabulary, where all of it was computed.
    pub log_sum_exp: Option<f32>,
}

impl Scores {
    /// The logit of a token, if it is there.
    pub fn logit(&self, id: u32) -> Option<f32> {
        match self {
            Self::All(logits) => logits.get(id as usize).copied(),
            Self::Best(best) => best.tokens.iter().find(|token| token.0 == id).map(|token| token.1),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::All(logits) => size_of_val(&**logits),
            Self::Best(best) => size_of_val(best.tokens.as_slice()),
        }
    }
}
