//! What a pass says of the next token: every token's logit, or only the best ones' where the rest stays on a device.

use std::sync::Arc;

use gemma_kernels::cuda::best::Best;

/// Logits behind one token.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Of all tokens, by id.
    All(Arc<[f32]>),
    /// Of the best tokens alone.
    Best(Arc<Best>),
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
