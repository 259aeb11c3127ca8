//! What a pass says of the next token: every token's logit, what finds those that are asked for, or only the best ones'
//! where the rest stays on a device.

use std::sync::Arc;

/// Logits behind one token.
#[derive(Debug, Clone, PartialEq)]
pub enum Scores {
    /// Of all tokens, by id.
    All(Arc<[f32]>),
    /// Of the best tokens alone.
    Best(Arc<Best>),
    /// Of those that somebody will ask for ([`crate::model::Network::best`]).
    Begun(Begun),
}

/// What the products with the vocabulary are begun with.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// `[hidden]`: what they read.
    pub x: Arc<[f32]>,
    /// `[vocab]`: the first products, see [`gemma_kernels::Matrix::upper`].
    pub first: Arc<[f32]>,
}

/// The best tokens behind one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Tokens and their logits, the best first.
    pub tokens: Vec<(u32, f32)>,
    /// `ln(sum(e^logit))` over the vocabulary.
    pub log_sum_exp: f32,
}

impl Scores {
    /// The logit of a token, if it is there.
    pub fn logit(&self, id: u32) -> Option<f32> {
        match self {
            Self::All(logits) => logits.get(id as usize).copied(),
            Self::Best(best) => best.tokens.iter().find(|token| token.0 == id).map(|token| token.1),
            Self::Begun(_) => None,
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::All(logits) => size_of_val(&**logits),
            Self::Best(best) => size_of_val(best.tokens.as_slice()),
            Self::Begun(begun) => size_of_val(&*begun.x) + size_of_val(&*begun.first),
        }
    }
}
