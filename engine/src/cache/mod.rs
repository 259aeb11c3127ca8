//! The prefix cache: keys, values and recurrent state kept between requests, so that a prompt costs the tokens that
//! are new in it.
//!
//! *Invariant:* whatever was asked before, an answer is the answer of a cold start. A sequence's pages
//! hold exactly the keys and values of its tokens, its state is that of its tokens; a page that two sequences share is never written,
//! the writer takes a copy. With batch-invariant kernels the two runs agree to the bit.
//!
//! What is kept stays within a budget of bytes. Above it goes first what costs least to compute again by the byte
//! that it gives back, aged by a clock: what was used lately is worth its cost on top of the clock of that time
//! (GreedyDual). The clock runs with what is lost and with what comes in, so that whatever nobody uses ends up
//! below everything that somebody does.

mod image;
mod ledger;
mod sequence;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

pub use sequence::{Layout, Marks, Sequence};
pub use store::CacheFolder;
pub(crate) use store::Kept;
use store::Store;
pub(crate) use store::files as checkpoint_files;
use tree::Tree;

use crate::error::Result;
use crate::generate::Scores;

/// Prompts whose next token's logits are kept: those of the last few places, a vocabulary of numbers each.
const MAX_ROWS: usize = 16;

/// What the prefix cache holds and what it was good for, all models together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheStatistics {
    /// Prompts that were looked up.
    pub requests: u64,
    /// Their tokens.
    pub tokens_asked: u64,
    /// Those of them that were found.
    pub tokens_found: u64,
    /// Those of them that were not, and had to be computed.
    pub tokens_computed: u64,
    /// Bytes that are kept right now, what is shared counted once.
    pub bytes: u64,
    /// Most bytes that are kept.
    pub budget: u64,
    /// Pieces that were dropped to stay within the budget: ends of sequences, snapshots, rows of logits.
    pub evictions: u64,
    /// Runs of tokens that are kept, each up to where prompts parted.
    pub nodes: u64,
    /// Bytes of what pictures were encoded to, which have a budget of their own.
    pub picture_bytes: u64,
}

/// What is kept of all models, within a budget of bytes.
#[derive(Debug)]
pub struct PrefixCache {
    budget: u64,
    trees: HashMap<u64, Tree>,
    /// The longest unused first.
    rows: VecDeque<Row>,
    clock: f64,
    counted: CacheStatistics,
    store: Option<Store>,
}

/// The logits behind a prompt.
#[derive(Debug)]
struct Row {
    model: u64,
    tokens: Vec<u32>,
    scores: Scores,
    /// The worth of a token's computing by the byte, on top of the clock when it was used.
    worth: f64,
}

impl Row {
    fn bytes(&self) -> u64 {
        (self.scores.bytes() + size_of_val(self.tokens.as_slice())) as u64
    }
}

impl PrefixCache {
    /// An empty cache that keeps at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        let (trees, rows, counted) = (HashMap::new(), VecDeque::new(), CacheStatistics::default());
        Self { budget, trees, rows, clock: 0.0, counted, store: None }
    }

    /// The same, but what it holds can outlive it in this folder.
    pub(crate) fn stored_in(mut self, folder: Option<CacheFolder>) -> Self {
        self.store = folder.filter(|folder| folder.max_bytes > 0 && self.budget > 0).map(Store::new);
        self
    }

    /// Begins a model with what an earlier session left of it.
    pub(crate) fn begin(&mut self, model: u64, kept: Kept) {
        let Some(store) = &mut self.store else { return };
        store.name(model, kept.key);
        if let Some((mut tree, clock)) = kept.tree {
            // What was used last then counts as used now.
            self.clock = self.clock.max(clock);
            tree.set_forward(self.clock - clock);
            self.trees.insert(model, tree);
            self.shrink();
        }
    }

    /// Whether anything is ever written.
    pub(crate) fn is_stored(&self) -> bool {
        self.store.is_some()
    }

    /// Writes for the next session what has changed since it was last written, unless that is being done already.
    pub(crate) fn save(&mut self) {
        let Some(store) = &mut self.store else { return };
        if store.is_writing() {
            return;
        }
        for (&model, tree) in &mut self.trees {
            if std::mem::take(&mut tree.changed) {
                store.write(model, tree.clone(), self.clock);
            }
        }
    }

    /// A sequence that holds the longest prefix of `prompt` (the keys of its tokens) that is kept of this
    /// model and can be gone on from; empty if there is none. At least one token of the prompt is left
    /// to compute, unless [`PrefixCache::logits`] has what computing it would give.
    ///
    /// What the sequence stands on stays until it is kept or dropped.
    pub fn resume(&mut self, model: u64, layout: &Arc<Layout>, prompt: &[u32]) -> Sequence {
        let has_logits = self.rows.iter().any(|row| row.model == model && row.tokens == prompt);
        let most = if has_logits { prompt.len() } else { prompt.len().saturating_sub(1) };
        let tree = self.trees.entry(model).or_insert_with(|| Tree::new(layout.clone()));
        let sequence = tree.resume(prompt, most, self.clock);
        let (asked, found) = (prompt.len() as u64, sequence.tokens().len() as u64);
        self.counted.requests += 1;
        self.counted.tokens_asked += asked;
        self.counted.tokens_found += found;
        self.counted.tokens_computed += asked - found;
        sequence
    }

    /// Keeps a sequence, and drops what is worth least above the budget.
    pub fn keep(&mut self, model: u64, sequence: Sequence) {
        if self.budget > 0 && !sequence.tokens().is_empty() {
            let layout = sequence.shared_layout().clone();
            let tree = self.trees.entry(model).or_insert_with(|| Tree::new(layout));
            let cost = tree.keep(sequence.into_memory(), self.clock);
            self.clock += cost / self.budget as f64;
        }
        self.shrink();
    }

    /// Keeps the logits of the token behind a prompt, given by the keys of its tokens.
    pub fn keep_logits(&mut self, model: u64, prompt: &[u32], scores: Scores) {
        self.forget_logits(model, prompt);
        let cost = self.trees.get(&model).map_or(1.0, |tree| tree.token_ms);
        let mut row = Row { model, tokens: prompt.to_vec(), scores, worth: 0.0 };
        row.worth = self.clock + cost / row.bytes() as f64;
        self.rows.push_back(row);
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_front();
            self.counted.evictions += 1;
        }
        self.shrink();
    }

    /// Forgets the logits behind a prompt.
    pub fn forget_logits(&mut self, model: u64, prompt: &[u32]) {
        self.rows.retain(|row| row.model != model || row.tokens != prompt);
    }

    /// The logits of the token behind exactly this prompt, if they were kept.
    pub fn logits(&mut self, model: u64, prompt: &[u32]) -> Option<Scores> {
        let at = self.rows.iter().position(|row| row.model == model && row.tokens == prompt)?;
        let mut row = self.rows.remove(at)?;
        let cost = self.trees.get(&model).map_or(1.0, |tree| tree.token_ms);
        row.worth = self.clock + cost / row.bytes() as f64;
        let scores = row.scores.clone();
        self.rows.push_back(row);
        Some(scores)
    }

    /// States what a token of a model takes to compute, in milliseconds. It weighs models against each other.
    pub fn set_token_ms(&mut self, model: u64, token_ms: f64) {
        if let Some(tree) = self.trees.get_mut(&model)
            && token_ms.is_finite()
        {
            tree.token_ms = token_ms.max(0.0);
        }
    }

    /// Forgets a model's sequences without a file for the next session, now and later: they were computed on a device that
    /// is given up, and whatever comes now is computed elsewhere.
    pub(crate) fn give_up(&mut self, model: u64) {
        if let Some(store) = &mut self.store {
            store.unname(model);
        }
        self.forget(model);
    }

    /// Forgets a model's sequences, in memory.
    pub fn forget(&mut self, model: u64) {
        if let (Some(tree), Some(store)) = (self.trees.remove(&model), &mut self.store)
            && tree.changed
        {
            store.write(model, tree, self.clock);
        }
        self.rows.retain(|row| row.model != model);
    }

    /// Bytes of what is kept, shared parts counted once.
    pub fn bytes(&self) -> u64 {
        let trees: u64 = self.trees.values().map(Tree::bytes).sum();
        trees + self.rows.iter().map(Row::bytes).sum::<u64>()
    }

    /// What it holds and what it was good for.
    pub fn statistics(&self) -> CacheStatistics {
        let nodes = self.trees.values().map(|tree| tree.nodes() as u64).sum();
        CacheStatistics { bytes: self.bytes(), budget: self.budget, nodes, ..self.counted }
    }

    /// Makes room on devices: the half of what is kept there that was used longest ago, as far as nothing is in use, goes
    /// into this machine's memory. Returns the bytes that this frees.
    pub(crate) fn put_away(&mut self) -> Result<u64> {
        self.trees.values().map(Tree::put_away).sum()
    }

    /// Writes what has changed for the next session, and waits for that.
    pub(crate) fn close(mut self) {
        let models: Vec<u64> = self.trees.keys().copied().collect();
        models.into_iter().for_each(|model| self.forget(model));
    }

    /// Drops what is worth least, until the rest is within the budget or in use.
    fn shrink(&mut self) {
        let mut bytes = self.bytes();
        if bytes <= self.budget {
            return;
        }
        self.trees.values_mut().for_each(Tree::end_leases);
        while bytes > self.budget {
            let losses = self.trees.values_mut().filter_map(|tree| Some((tree.next_loss()?, tree)));
            let loss = losses.min_by(|a, b| a.0.total_cmp(&b.0));
            let row = self.rows.front().map(|row| row.worth);
            match (loss, row) {
                (Some((worth, tree)), row) if row.is_none_or(|row| worth <= row) => {
                    self.clock = self.clock.max(worth);
                    let before = tree.bytes();
                    tree.lose();
                    bytes -= before - tree.bytes();
                }
                (_, Some(worth)) => {
                    self.clock = self.clock.max(worth);
                    bytes -= self.rows.pop_front().map_or(0, |row| row.bytes());
                }
                _ => return,
            }
            self.counted.evictions += 1;
        }
    }
}
