//! Token healing: an answer that has to begin with a given text.
//!
//! Half a word at the end of a prompt is tokenised as no text the model has learnt from ever is. So the
//! half word is left out of the prompt, and the first new tokens are held to it: only tokens that spell
//! the next part of it, or all that is left of it and more, may be picked.

use crate::tokenizer::Tokenizer;

/// What the next tokens have to spell.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    rest: Vec<u8>,
}

impl Beginning {
    pub(crate) fn new(text: &str) -> Self {
        Self { rest: text.as_bytes().to_vec() }
    }

    /// Whether everything was spelt.
    pub(crate) fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether a token goes on with it.
    pub(crate) fn allows(&self, tokenizer: &Tokenizer, id: u32) -> bool {
        self.rest.is_empty() || tokenizer.spells(id, &self.rest).is_some()
    }

    /// The tokens below `vocab` that go on with it, in order; `None` where any token will do. Byte tokens spell whatever
    /// the vocabulary does not; in a vocabulary without them there may be none, and then any token will do.
    pub(crate) fn tokens(&mut self, tokenizer: &Tokenizer, vocab: usize) -> Option<Vec<u32>> {
        if self.is_complete() {
            return None;
        }
        let mut allowed = tokenizer.spelling(&self.rest);
        allowed.retain(|&id| (id as usize) < vocab);
        allowed.sort_unstable();
        allowed.dedup();
        if allowed.is_empty() {
            self.rest.clear();
            return None;
        }
        Some(allowed)
    }

    /// Takes a picked token into account.
    pub(crate) fn advance(&mut self, tokenizer: &Tokenizer, id: u32) {
        let spelt = tokenizer.spells(id, &self.rest).unwrap_or(self.rest.len());
        self.rest.drain(..spelt);
    }
}
