//! A sequence of tokens with its keys and values, in pages that sequences share until one writes.

use std::sync::Arc;

use gemma_kernels::{KvLayout, KvPage, PAGE_TOKENS};

/// Tokens whose keys and values are there, and room for more.
#[derive(Debug, Clone)]
pub struct Sequence {
    layout: Arc<KvLayout>,
    tokens: Vec<u32>,
    pages: Vec<Arc<KvPage>>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new(layout: Arc<KvLayout>) -> Self {
        Self { layout, tokens: Vec::new(), pages: Vec::new() }
    }

    /// The tokens whose keys and values are there.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where things stand in a page.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// The pages from position 0 on, the last one possibly in part.
    pub fn pages(&self) -> &[Arc<KvPage>] {
        &self.pages
    }

    /// The first `len` tokens, sharing their pages.
    pub(super) fn prefix(&self, len: usize) -> Self {
        Self {
            layout: self.layout.clone(),
            tokens: self.tokens[..len].to_vec(),
            pages: self.pages[..len.div_ceil(PAGE_TOKENS)].to_vec(),
        }
    }

    /// Makes room for `n` more tokens and makes their pages this sequence's own.
    pub fn reserve(&mut self, n: usize) {
        let pages = (self.tokens.len() + n).div_ceil(PAGE_TOKENS);
        self.pages.resize_with(pages.max(self.pages.len()), || Arc::new(KvPage::new(&self.layout)));
        for page in &mut self.pages[self.tokens.len() / PAGE_TOKENS..] {
            Arc::make_mut(page);
        }
    }

    /// Stores the keys and values `[n, kv_heads * head_dim]` of a layer for the `n` tokens behind the
    /// last; room for them was reserved. They count once [`Sequence::advance`] is called.
    pub fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let width = self.layout.kv_heads(layer) * self.layout.head_dim(layer);
        let rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (keys, values)) in (self.tokens.len()..).zip(rows) {
            let page = Arc::make_mut(&mut self.pages[position / PAGE_TOKENS]);
            page.store(&self.layout, layer, position % PAGE_TOKENS, keys, values);
        }
    }

    /// Counts `tokens` in: all layers have stored their keys and values.
    pub fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}
