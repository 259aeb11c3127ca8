//! A sequence of tokens with what the layers remember of it: keys and values in pages that sequences
//! share until one writes, and the recurrent layers' state with snapshots of it.
//!
//! Attention can be cut back to any token, a recurrence only to where its state was written down. So a
//! sequence keeps snapshots: every [`EVERY`] tokens, densely over the last rows of a pass of several, and wherever
//! the caller expects that an editor's next prompt will part from this one.
//!
//! *Fixed size:* where every attention layer has a window, what lies too far back to matter is dropped, so
//! that memory stays the same however long the sequence gets (only the token ids, 4 bytes each, are kept).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use gemma_kernels::cuda::{DevicePage, PageMemory};
use gemma_kernels::{KvFormat, KvLayout, KvPage, PAGE_TOKENS};

use crate::config::{Mixer, ModelConfig};

/// Tokens from one snapshot to the next: what a cut in the middle may have to compute again.
const EVERY: usize = 64;
/// Rows at the end of a pass of several that each leave a snapshot.
const DENSE: usize = 4;
/// Places where the caller expected prompts to part that are remembered far behind the end, the last ones.
const CUTS: usize = 8;

/// Where things stand in a sequence's memory, derived from a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    kv: KvLayout,
    /// For each layer its part of the state; empty for attention.
    states: Vec<Range<usize>>,
    /// Channels of the recurrence of each layer; 0 for attention.
    widths: Vec<usize>,
    horizon: Option<usize>,
    /// The device that its pages belong on.
    memory: Option<PageMemory>,
}

impl Layout {
    /// The layout of a network whose keys and values are stored as `format`, on a device or not.
    pub fn new(config: &ModelConfig, format: KvFormat, memory: Option<PageMemory>) -> Self {
        let mut len = 0;
        let mut states = Vec::with_capacity(config.layers.len());
        let mut widths = Vec::with_capacity(config.layers.len());
        let heads = config.layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(a) => (a.kv_heads, a.head_dim, 0, 0),
            Mixer::RgLru(r) => (0, 0, r.state_len(), r.width),
        });
        let kv = heads.map(|(kv_heads, head_dim, state, width)| {
            states.push(len..len + state);
            widths.push(width);
            len += state;
            (kv_heads, head_dim)
        });
        let kv = KvLayout::new(format, kv);
        Self { kv, states, widths, horizon: config.horizon(), memory }
    }

    /// Attention alone; with a horizon, every layer has a window.
    #[cfg(test)]
    pub(super) fn without_state(kv: KvLayout, horizon: Option<usize>) -> Self {
        Self { kv, states: Vec::new(), widths: Vec::new(), horizon, memory: None }
    }

    /// One attention layer of one head of eight, its pages on a device.
    #[cfg(test)]
    pub(super) fn on_device(memory: PageMemory) -> Self {
        let kv = KvLayout::new(KvFormat::F16, [(1, 8)]);
        Self { memory: Some(memory), ..Self::without_state(kv, None) }
    }

    /// One recurrent layer of two channels and three taps over one attention layer of one head of two.
    #[cfg(test)]
    pub(super) fn recurrent(horizon: Option<usize>) -> Self {
        let kv = KvLayout::new(KvFormat::F32, [(0, 0), (1, 2)]);
        Self { kv, states: vec![0..6, 6..6], widths: vec![2, 0], horizon, memory: None }
    }

    /// The same without dropping what is never read.
    #[cfg(test)]
    pub(crate) fn keeping_everything(&self) -> Self {
        Self { horizon: None, ..self.clone() }
    }

    /// The device that its pages belong on, if any.
    pub fn memory(&self) -> Option<&PageMemory> {
        self.memory.as_ref()
    }

    /// A page of zeros.
    fn page(&self) -> KvPage {
        match &self.memory {
            Some(memory) => KvPage::Device(DevicePage::new(memory, self.kv.page_bytes())),
            None => KvPage::new(&self.kv),
        }
    }

    /// Where keys and values stand in a page.
    pub fn kv(&self) -> &KvLayout {
        &self.kv
    }

    /// Bytes of memory of a sequence of `tokens` tokens that were read in one pass, the token ids not counted.
    pub fn bytes(&self, tokens: usize) -> u64 {
        let dropped = self.horizon.map_or(0, |horizon| tokens.saturating_sub(2 * horizon) / PAGE_TOKENS);
        let pages = tokens.div_ceil(PAGE_TOKENS) - dropped;
        let oldest = self.horizon.filter(|_| dropped > 0).map_or(1, |h| dropped * PAGE_TOKENS + h);
        let kept = |len: &usize| len.is_multiple_of(EVERY) || len + DENSE >= tokens;
        let snapshots = (oldest..=tokens).filter(kept).count();
        let state = self.state_len() * size_of::<f32>();
        (pages * self.kv.page_bytes() + (1 + snapshots) * state) as u64
    }

    /// Numbers of state of all layers; 0 where none is recurrent.
    pub(super) fn state_len(&self) -> usize {
        self.states.last().map_or(0, |last| last.end)
    }

    /// Where a recurrent layer's numbers begin in a state of all layers.
    pub fn state_at(&self, layer: usize) -> usize {
        self.states[layer].start
    }

    /// The first position that has to be there still for a token behind `len` others.
    pub(super) fn seen_from(&self, len: usize) -> usize {
        self.horizon.map_or(0, |horizon| len.saturating_sub(horizon))
    }
}

/// The recurrent layers' state behind a sequence's first `len` tokens.
#[derive(Debug, Clone)]
struct Snapshot {
    len: usize,
    state: Arc<[f32]>,
    /// Whether the caller expects a prompt to part here.
    cut: bool,
}

/// A state that a running pass leaves.
#[derive(Debug, Clone)]
struct Pending {
    len: usize,
    state: Vec<f32>,
    /// Whether a snapshot of it is kept.
    kept: bool,
    /// Whether the caller expects a prompt to part here.
    cut: bool,
}

/// Where a pass leaves states behind, besides every [`EVERY`] tokens and its last rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'a> {
    /// Lengths of the sequence at which later prompts will probably part from this one.
    pub cuts: &'a [usize],
    /// Rows at the pass's end of which it is not known yet how many will count.
    pub draft: usize,
}

/// What a sequence remembers, as the prefix cache takes it over.
pub(super) struct Memory {
    pub(super) tokens: Vec<u32>,
    /// Index of the first page that is there.
    pub(super) first_page: usize,
    pub(super) pages: VecDeque<Arc<KvPage>>,
    /// States behind so many tokens, in order; where there is state, the last one is the end's.
    pub(super) snapshots: Vec<(usize, Arc<[f32]>)>,
}

/// Held by a sequence: what it was resumed from, up to this length, is not evicted meanwhile.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) len: usize,
}

/// Tokens, what the layers remember of them, and room for more.
#[derive(Debug, Clone)]
pub struct Sequence {
    layout: Arc<Layout>,
    /// Only held.
    _lease: Option<Arc<Lease>>,
    tokens: Vec<u32>,
    pages: VecDeque<Arc<KvPage>>,
    /// Pages dropped from the front.
    dropped: usize,
    /// The state behind the last token: for each recurrent layer the recurrence's `[width]`, then the
    /// convolution's last inputs `[taps - 1, width]`, oldest first.
    state: Vec<f32>,
    /// A buffer for the next state.
    spare: Vec<f32>,
    /// In order of length.
    snapshots: Vec<Snapshot>,
    /// States that the running pass leaves, in order of length; the last one is the pass's end.
    pending: Vec<Pending>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new(layout: Arc<Layout>) -> Self {
        let state = vec![0.0; layout.state_len()];
        Self {
            layout,
            _lease: None,
            tokens: Vec::new(),
            pages: VecDeque::new(),
            dropped: 0,
            state,
            spare: Vec::new(),
            snapshots: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// A sequence whose memory is given: its tokens, their pages from the one of index `first_page` on, the
    /// state behind the last token where there is one.
    pub(super) fn resumed(
        layout: Arc<Layout>,
        lease: Arc<Lease>,
        tokens: &[u32],
        (first_page, pages): (usize, VecDeque<Arc<KvPage>>),
        state: Option<&[f32]>,
    ) -> Self {
        let (tokens, dropped) = (tokens.to_vec(), first_page);
        let fresh = Self::new(layout);
        let state = state.map_or_else(|| fresh.state.clone(), <[f32]>::to_vec);
        Self { _lease: Some(lease), tokens, pages, dropped, state, ..fresh }
    }

    /// What the sequence remembers; its lease ends.
    pub(super) fn into_memory(mut self) -> Memory {
        let len = self.tokens.len();
        // An interrupted pass may have left pages that no token counts in.
        self.pages.truncate(len.div_ceil(PAGE_TOKENS) - self.dropped);
        let mut snapshots: Vec<_> = self.snapshots.into_iter().map(|s| (s.len, s.state)).collect();
        if !self.state.is_empty() && snapshots.last().is_none_or(|last| last.0 < len) {
            snapshots.push((len, self.state.into()));
        }
        let Self { tokens, dropped: first_page, pages, .. } = self;
        Memory { tokens, first_page, pages, snapshots }
    }

    /// The tokens that count.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where things stand in its memory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same, to be shared.
    pub(super) fn shared_layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The pages from [`Sequence::pages_from`] on, the last one possibly in part.
    pub fn pages(&self) -> &VecDeque<Arc<KvPage>> {
        &self.pages
    }

    /// Position of the first page's first token.
    pub fn pages_from(&self) -> usize {
        self.dropped * PAGE_TOKENS
    }

    /// Bytes of memory, the token ids not counted.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        let states = usize::from(!self.state.is_empty()) + self.snapshots.len();
        let state = size_of_val(self.state.as_slice());
        (self.pages.len() * self.layout.kv.page_bytes() + states * state) as u64
    }

    /// Makes room for a pass over `n` more tokens and makes the pages it writes this sequence's own.
    pub fn reserve(&mut self, n: usize, marks: Marks<'_>) {
        let (start, end) = (self.tokens.len(), self.tokens.len() + n);
        let pages = end.div_ceil(PAGE_TOKENS) - self.dropped;
        let layout = &self.layout;
        self.pages.resize_with(pages.max(self.pages.len()), || Arc::new(layout.page()));
        for page in self.pages.range_mut(start / PAGE_TOKENS - self.dropped..) {
            Arc::make_mut(page);
        }
        self.pending.clear();
        if self.state.is_empty() {
            return;
        }
        let certain = end - marks.draft.min(n);
        let dense = if certain > start + 1 { certain.saturating_sub(DENSE) } else { certain + 1 };
        for len in start + 1..=end {
            let cut = marks.cuts.contains(&len);
            let recent = (dense..=certain).contains(&len);
            let kept = cut || recent || len.is_multiple_of(EVERY);
            if kept || len >= certain {
                let mut state = std::mem::take(&mut self.spare);
                state.resize(self.state.len(), 0.0);
                self.pending.push(Pending { len, state, kept, cut });
            }
        }
    }

    /// Stores the keys and values `[n, kv_heads * head_dim]` of a layer for the `n` tokens behind the
    /// last; room for them was reserved. They count once [`Sequence::advance`] is called.
    pub fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let kv = &self.layout.kv;
        let width = kv.kv_heads(layer) * kv.head_dim(layer);
        let rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (keys, values)) in (self.tokens.len()..).zip(rows) {
            let page = Arc::make_mut(&mut self.pages[position / PAGE_TOKENS - self.dropped]);
            page.store(kv, layer, position % PAGE_TOKENS, keys, values);
        }
    }

    /// A recurrent layer's state behind the last token: the recurrence's `[width]` and the convolution's
    /// inputs `[taps - 1, width]`, oldest first.
    pub fn state(&self, layer: usize) -> (&[f32], &[f32]) {
        self.state[self.layout.states[layer].clone()].split_at(self.layout.widths[layer])
    }

    /// All recurrent layers' state behind the last token, layer by layer as [`Sequence::state`] has it.
    pub fn states(&self) -> &[f32] {
        &self.state
    }

    /// The states that the reserved pass has to leave: behind which of its rows, and where they go, laid out as
    /// [`Sequence::states`].
    pub fn states_to_leave(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        let start = self.tokens.len();
        self.pending.iter_mut().map(move |pending| (pending.len - start - 1, &mut pending.state[..]))
    }

    /// Notes what a recurrent layer computed for the `n` tokens behind the last: the convolution's inputs
    /// and the recurrence's states, `[n, width]` each; room was reserved. Counts once
    /// [`Sequence::advance`] is called.
    pub fn record(&mut self, layer: usize, inputs: &[f32], states: &[f32]) {
        let (width, range) = (self.layout.widths[layer], self.layout.states[layer].clone());
        let (start, (_, carried)) = (self.tokens.len(), self.state[range.clone()].split_at(width));
        for Pending { len, state, .. } in &mut self.pending {
            let behind = (*len - start) * width;
            let (recurrence, last) = state[range.clone()].split_at_mut(width);
            recurrence.copy_from_slice(&states[behind - width..behind]);
            // The newest inputs, reaching back into what was carried before the pass.
            let own = last.len().min(behind);
            let older = last.len() - own;
            last[..older].copy_from_slice(&carried[carried.len() - older..]);
            last[older..].copy_from_slice(&inputs[behind - own..behind]);
        }
    }

    /// Counts `tokens` in: all layers have stored what they remember of them. They are the reserved pass's, or
    /// all but some of its draft; those are then forgotten.
    pub fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        let len = self.tokens.len();
        for Pending { len: at, state, kept, cut } in self.pending.drain(..) {
            if kept && at <= len {
                self.snapshots.push(Snapshot { len: at, state: state.as_slice().into(), cut });
            }
            if at == len {
                self.spare = std::mem::replace(&mut self.state, state);
            }
        }
        if !self.state.is_empty() {
            // Where typing no longer is, a snapshot now and then does.
            let mut cuts = self.snapshots.iter().filter(|s| s.cut).count();
            self.snapshots.retain(|s| {
                let recent_cut = s.cut && cuts <= CUTS;
                cuts -= usize::from(s.cut);
                recent_cut || s.len.is_multiple_of(EVERY) || s.len + 2 * EVERY > len
            });
        }
        self.drop_what_is_never_read();
    }

    /// Drops keys and values that lie two horizons back, and snapshots that cannot be gone on from
    /// without them. One horizon more than the next token sees is kept to be cut back into.
    fn drop_what_is_never_read(&mut self) {
        let Some(horizon) = self.layout.horizon else { return };
        let kept_from = self.tokens.len().saturating_sub(2 * horizon) / PAGE_TOKENS;
        if kept_from > self.dropped {
            self.pages.drain(..kept_from - self.dropped);
            self.dropped = kept_from;
            let oldest = self.pages_from() + horizon;
            self.snapshots.retain(|s| s.len >= oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(horizon: Option<usize>) -> Arc<Layout> {
        Arc::new(Layout::recurrent(horizon))
    }

    /// Feeds tokens whose inputs and states say which token they belong to.
    fn feed(sequence: &mut Sequence, tokens: &[u32]) {
        feed_marked(sequence, tokens, Marks::default());
    }

    fn feed_marked(sequence: &mut Sequence, tokens: &[u32], marks: Marks<'_>) {
        sequence.reserve(tokens.len(), marks);
        fill(sequence, tokens);
        sequence.advance(tokens);
    }

    fn fill(sequence: &mut Sequence, tokens: &[u32]) {
        let rows: Vec<f32> = tokens.iter().flat_map(|&t| [t as f32; 2]).collect();
        let states: Vec<f32> = rows.iter().map(|v| v + 0.5).collect();
        sequence.record(0, &rows, &states);
        sequence.store(1, &rows, &rows);
    }

    fn assert_state(sequence: &Sequence, what: &str) {
        let before = |back: usize| {
            let i = sequence.tokens.len().checked_sub(back);
            i.map_or(0.0, |i| sequence.tokens[i] as f32)
        };
        let (recurrence, inputs) = sequence.state(0);
        assert_eq!(recurrence, [before(1) + 0.5; 2], "{what}");
        assert_eq!(inputs, [before(2), before(2), before(1), before(1)], "{what}");
    }

    #[test]
    fn the_state_follows_the_tokens_in_pieces_of_any_length() {
        let mut sequence = Sequence::new(layout(None));
        let mut next = 10;
        for n in [1, 1, 3, 1, 2, 90, 1, 64] {
            feed(&mut sequence, &(next..next + n).collect::<Vec<_>>());
            next += n;
            assert_state(&sequence, &format!("after {n} more"));
        }
    }

    #[test]
    fn every_reachable_cut_has_the_state_of_its_tokens() {
        let tokens: Vec<u32> = (100..400).collect();
        let mut sequence = Sequence::new(layout(None));
        feed(&mut sequence, &tokens[..200]);
        feed(&mut sequence, &tokens[200..299]);
        feed(&mut sequence, &tokens[299..]);
        let mut reached = 0;
        for len in 1..=tokens.len() {
            let found = sequence.reach(len);
            assert!(found <= len && len - found <= EVERY, "{found} for {len}");
            reached = reached.max(found);
            if found > 0 {
                let prefix = sequence.prefix(found);
                assert_eq!(prefix.tokens(), &tokens[..found]);
                assert_state(&prefix, &format!("cut to {found}"));
            }
        }
        assert_eq!(reached, tokens.len());
        for back in 1..=DENSE {
            assert_eq!(sequence.reach(300 - back), 300 - back, "{back} tokens before the prompt's end");
        }
    }

    #[test]
    fn a_cut_is_gone_on_from_exactly_however_short_the_pass() {
        let mut sequence = Sequence::new(layout(None));
        feed(&mut sequence, &(100..170).collect::<Vec<_>>());
        // A prompt that ends behind one more token, then an answer that the next prompt does not go on with.
        let prompt = sequence.tokens().len() + 1;
        feed_marked(&mut sequence, &[170], Marks { cuts: &[prompt], draft: 0 });
        for token in 500..700 {
            feed(&mut sequence, &[token]);
        }
        assert_eq!(sequence.reach(prompt), prompt);
        assert_state(&sequence.prefix(prompt), "cut to the prompt");
    }

    #[test]
    fn of_a_draft_as_much_counts_as_was_right() {
        let pass: Vec<u32> = (900..909).collect();
        for (certain, right) in (1..=pass.len()).flat_map(|c| (0..=pass.len() - c).map(move |r| (c, r))) {
            // Short of a multiple of 64, so that a draft may cross it.
            let mut sequence = Sequence::new(layout(None));
            feed(&mut sequence, &(100..158).collect::<Vec<_>>());
            sequence.reserve(pass.len(), Marks { cuts: &[], draft: pass.len() - certain });
            fill(&mut sequence, &pass);
            sequence.advance(&pass[..certain + right]);
            assert_eq!(sequence.tokens().len(), 58 + certain + right);
            assert_state(&sequence, &format!("{right} of a draft"));
            feed(&mut sequence, &[7, 8, 9]);
            assert_state(&sequence, "after a draft");
            let len = sequence.tokens().len();
            for cut in 1..=len {
                let found = sequence.reach(cut);
                assert!(cut - found <= EVERY, "{found} for {cut}");
                if found > 0 {
                    assert_state(
                        &sequence.prefix(found),
                        &format!("cut to {found} after {right} of a draft"),
                    );
                }
            }
        }
    }

    #[test]
    fn a_pass_that_does_not_end_leaves_no_trace() {
        let mut sequence = Sequence::new(layout(None));
        feed(&mut sequence, &[1, 2, 3]);
        sequence.reserve(2, Marks::default());
        sequence.record(0, &[8.0; 4], &[9.0; 4]);
        assert_state(&sequence, "before advancing");
        feed(&mut sequence, &[4]);
        assert_state(&sequence, "after another pass");
    }

    #[test]
    fn the_memory_of_a_sequence_can_be_told_beforehand() {
        for horizon in [None, Some(100)] {
            for tokens in [2, 5, 16, 63, 64, 65, 200, 201, 300, 517, 1000] {
                let layout = layout(horizon);
                let mut sequence = Sequence::new(layout.clone());
                feed(&mut sequence, &(0..tokens as u32).collect::<Vec<_>>());
                assert_eq!(layout.bytes(tokens), sequence.bytes(), "{tokens} tokens, horizon {horizon:?}");
            }
        }
    }

    #[test]
    fn memory_stays_the_same_once_the_window_is_full() {
        let mut sequence = Sequence::new(layout(Some(100)));
        let mut sizes = Vec::new();
        for step in 0..400u32 {
            feed(&mut sequence, &(step * 16..step * 16 + 16).collect::<Vec<_>>());
            sizes.push(sequence.bytes());
        }
        let full = *sizes[..40].iter().max().expect("sizes");
        assert!(sizes[40..].iter().all(|&bytes| bytes <= full), "{full} bytes were exceeded");
        let len = sequence.tokens().len();
        assert_eq!(sequence.reach(len), len);
        let back = sequence.reach(len - 50);
        assert!(back > len - 50 - EVERY, "{back} of {len}");
        assert_eq!(sequence.reach(200), 0, "what was dropped cannot be gone on from");
    }
}
