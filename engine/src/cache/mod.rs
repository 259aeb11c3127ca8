//! The prefix cache: keys, values and recurrent state kept between requests, so that a prompt costs the tokens that
//! are new in it.
//!
//! *Invariant:* whatever was asked before, an answer is the answer of a cold start. A sequence's pages
//! hold exactly the keys and values of its tokens, its state is that of its tokens; a page that two sequences share is never written,
//! the writer takes a copy. With batch-invariant kernels the two runs agree to the bit.

mod sequence;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

pub use sequence::{Layout, Marks, Sequence};

use crate::outline::resumable;

/// Sequences kept beside their bytes; a bound on the search, far above what an editor needs.
const MAX_SEQUENCES: usize = 256;

/// Finished sequences of all models, most recently used last, within a budget of bytes.
#[derive(Debug)]
pub struct PrefixCache {
    budget: u64,
    entries: Vec<Entry>,
    rows: VecDeque<(u64, Vec<u32>, Arc<[f32]>)>,
}

#[derive(Debug)]
struct Entry {
    model: u64,
    sequence: Sequence,
}

impl PrefixCache {
    /// An empty cache that keeps at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, entries: Vec::new(), rows: VecDeque::new() }
    }

    /// A sequence that holds the longest prefix of `prompt` (the keys of its tokens) that any kept sequence
    /// of this model begins with and can be gone on from; empty if there is none. At least one token of
    /// the prompt is left to compute, since the next token's logits are not kept.
    pub fn resume(&mut self, model: u64, layout: &Arc<Layout>, prompt: &[u32]) -> Sequence {
        let usable = &prompt[..prompt.len().saturating_sub(1)];
        let best = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.model == model)
            .map(|(i, entry)| {
                let common = common_prefix(entry.sequence.tokens(), usable);
                (entry.sequence.reach(resumable(prompt, common)), i)
            })
            .max();
        match best {
            Some((len, i)) if len > 0 => {
                let entry = self.entries.remove(i);
                let sequence = entry.sequence.prefix(len);
                self.entries.push(entry);
                sequence
            }
            _ => Sequence::new(layout.clone()),
        }
    }

    /// Keeps a sequence; drops those it makes superfluous and the least recently used above the budget.
    pub fn keep(&mut self, model: u64, sequence: Sequence) {
        let tokens = sequence.tokens();
        if tokens.is_empty() {
            return;
        }
        self.entries.retain(|e| e.model != model || !tokens.starts_with(e.sequence.tokens()));
        self.entries.push(Entry { model, sequence });
        let surplus = self.entries.len().saturating_sub(MAX_SEQUENCES);
        self.entries.drain(..surplus);
        while self.bytes() > self.budget && !self.entries.is_empty() {
            self.entries.remove(0);
        }
    }

    /// Keeps the logits behind a whole prompt.
    pub fn keep_logits(&mut self, model: u64, prompt: &[u32], logits: Arc<[f32]>) {
        const MOST: usize = 16;
        self.rows.retain(|(m, tokens, _)| *m != model || tokens != prompt);
        self.rows.push_back((model, prompt.to_vec(), logits));
        let surplus = self.rows.len().saturating_sub(MOST);
        self.rows.drain(..surplus);
    }

    /// The logits behind a whole prompt, if they were kept.
    pub fn logits(&self, model: u64, prompt: &[u32]) -> Option<Arc<[f32]>> {
        let row = self.rows.iter().rev().find(|(m, tokens, _)| *m == model && tokens == prompt);
        row.map(|(.., logits)| logits.clone())
    }

    /// Forgets a model's sequences.
    pub fn forget(&mut self, model: u64) {
        self.entries.retain(|entry| entry.model != model);
        self.rows.retain(|(m, ..)| *m != model);
    }

    /// Bytes of what is kept, shared parts counted once.
    pub fn bytes(&self) -> u64 {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for entry in &self.entries {
            for (address, size) in entry.sequence.parts() {
                if seen.insert(address) {
                    bytes += size;
                }
            }
        }
        bytes
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use gemma_kernels::{KvFormat, KvLayout, PAGE_TOKENS};

    use super::*;

    fn layout() -> Arc<Layout> {
        Arc::new(Layout::without_state(KvLayout::new(KvFormat::F32, [(1, 4)])))
    }

    /// A sequence whose keys are its tokens.
    fn sequence(layout: &Arc<Layout>, tokens: &[u32]) -> Sequence {
        let mut sequence = Sequence::new(layout.clone());
        extend(&mut sequence, tokens);
        sequence
    }

    fn extend(sequence: &mut Sequence, tokens: &[u32]) {
        let keys: Vec<f32> = tokens.iter().flat_map(|&t| [t as f32; 4]).collect();
        sequence.reserve(tokens.len(), Marks::default());
        sequence.store(0, &keys, &keys);
        sequence.advance(tokens);
    }

    fn assert_sound(sequence: &Sequence) {
        for (i, &token) in sequence.tokens().iter().enumerate() {
            let at = sequence.layout().kv().key(0, 0) + i % PAGE_TOKENS * 4;
            assert_eq!(sequence.pages()[i / PAGE_TOKENS].get(at), token as f32, "token {i}");
        }
    }

    #[test]
    fn the_longest_prefix_is_resumed_but_never_the_whole_prompt() {
        let layout = layout();
        let mut cache = PrefixCache::new(u64::MAX);
        let long: Vec<u32> = (0..50).collect();
        cache.keep(1, sequence(&layout, &long));
        cache.keep(1, sequence(&layout, &[0, 1, 2, 90, 91]));
        assert_eq!(cache.resume(1, &layout, &long).tokens(), &long[..49]);
        assert_eq!(cache.resume(1, &layout, &[0, 1, 2, 90, 7, 8]).tokens(), [0, 1, 2, 90]);
        assert!(cache.resume(1, &layout, &[5, 6]).tokens().is_empty());
        assert!(cache.resume(2, &layout, &long).tokens().is_empty(), "another model's keys are other keys");
    }

    #[test]
    fn resumed_sequences_diverge_without_touching_each_other() {
        let layout = layout();
        let mut cache = PrefixCache::new(u64::MAX);
        let base: Vec<u32> = (0..40).collect();
        cache.keep(1, sequence(&layout, &base));
        let mut prompt = base[..21].to_vec();
        prompt.extend([70, 71, 72]);
        let mut a = cache.resume(1, &layout, &prompt);
        extend(&mut a, &[70, 71, 72]);
        let mut b = cache.resume(1, &layout, &base);
        extend(&mut b, &[39, 80]);
        for s in [&a, &b, &cache.resume(1, &layout, &base)] {
            assert_sound(s);
        }
    }

    #[test]
    fn a_span_is_resumed_whole_or_not_at_all() {
        let layout = layout();
        let mut cache = PrefixCache::new(u64::MAX);
        // Three positions of one span, whose key is above every token.
        let span = u32::MAX - 7;
        let tokens = [2, 5, span, span, span, 6, 7];
        cache.keep(1, sequence(&layout, &tokens));
        for (prompt, resumed) in [(&tokens[..5], 2), (&tokens[..4], 2), (&tokens[..6], 5), (&tokens[..3], 2)]
        {
            assert_eq!(cache.resume(1, &layout, prompt).tokens(), &tokens[..resumed], "{prompt:?}");
        }
    }

    #[test]
    fn the_budget_holds_and_the_most_recently_used_stay() {
        let layout = layout();
        let page = layout.kv().page_bytes() as u64;
        let mut cache = PrefixCache::new(3 * page);
        for first in [10, 20, 30] {
            cache.keep(1, sequence(&layout, &[first, 1, 2]));
        }
        assert_eq!(cache.resume(1, &layout, &[10, 1, 9]).tokens(), [10, 1]);
        cache.keep(1, sequence(&layout, &[40, 1, 2]));
        assert_eq!(cache.bytes(), 3 * page);
        assert!(cache.resume(1, &layout, &[20, 1]).tokens().is_empty(), "the least recently used went");
        assert!(!cache.resume(1, &layout, &[10, 1]).tokens().is_empty());
    }

    #[test]
    fn a_longer_sequence_replaces_its_prefixes_and_shares_their_pages() {
        let layout = layout();
        let mut cache = PrefixCache::new(u64::MAX);
        let tokens: Vec<u32> = (0..33).collect();
        cache.keep(1, sequence(&layout, &tokens));
        let mut longer = cache.resume(1, &layout, &[&tokens[..], &[99, 98]].concat());
        extend(&mut longer, &[99]);
        cache.keep(1, longer);
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.bytes(), 3 * layout.kv().page_bytes() as u64);
    }
}
