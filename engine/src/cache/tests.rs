//! The cache as a whole: what is found again, what goes first when there is no room, what is leased, and that each page holds its tokens.

use std::collections::VecDeque;

use gemma_emulation::{Emulated, Schedule};
use gemma_kernels::cuda::{Device, PageMemory};
use gemma_kernels::{KvFormat, KvLayout, KvPage, PAGE_TOKENS};

use super::*;

/// A sequence alone in a tree, for tests of what can be cut back to.
impl Sequence {
    fn alone(&self) -> Tree {
        let mut tree = Tree::new(self.shared_layout().clone());
        tree.keep(self.clone().into_memory(), 0.0);
        tree
    }

    /// The longest beginning, of at most `len` tokens, that can be gone on from; 0 if there is none.
    pub(crate) fn reach(&self, len: usize) -> usize {
        self.alone().resume(self.tokens(), len.min(self.tokens().len()), 0.0).tokens().len()
    }

    /// The first `len` tokens, sharing their memory. `len` is something that [`Sequence::reach`] found.
    pub(crate) fn prefix(&self, len: usize) -> Self {
        let prefix = self.alone().resume(self.tokens(), len, 0.0);
        assert_eq!(prefix.tokens().len(), len, "it cannot be cut there");
        prefix
    }
}

/// Logits of a vocabulary of ten.
fn scores(logit: f32) -> Scores {
    Scores::All(Arc::from([logit; 10]))
}

pub(super) fn attention(horizon: Option<usize>) -> Arc<Layout> {
    Arc::new(Layout::without_state(KvLayout::new(KvFormat::F32, [(1, 8)]), horizon))
}

/// A sequence whose memory says which tokens it is of.
pub(super) fn sequence(layout: &Arc<Layout>, tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::new(layout.clone());
    extend(&mut sequence, tokens);
    sequence
}

/// The state behind some tokens: it depends on all of them and on their order.
fn recurrence(tokens: &[u32]) -> f32 {
    tokens.iter().fold(1, |state, token| (state * 31 + token) % 65_521) as f32
}

pub(super) fn extend(sequence: &mut Sequence, tokens: &[u32]) {
    sequence.reserve(tokens.len(), Marks::default());
    let rows = |width| -> Vec<f32> { tokens.iter().flat_map(|&t| vec![t as f32; width]).collect() };
    let attention = attention_layer(sequence.layout());
    if attention > 0 {
        let all = [sequence.tokens(), tokens].concat();
        let lens = sequence.tokens().len() + 1..=all.len();
        let states: Vec<f32> = lens.flat_map(|len| [recurrence(&all[..len]); 2]).collect();
        sequence.record(0, &rows(2), &states);
    }
    let rows = rows(sequence.layout().kv().head_dim(attention));
    sequence.store(attention, &rows, &rows);
    sequence.advance(tokens);
}

/// The one attention layer; before it there may be one with state.
fn attention_layer(layout: &Layout) -> usize {
    usize::from(layout.state_len() > 0)
}

/// Panics unless everything that the next token sees is that of the sequence's tokens.
pub(super) fn assert_sound(sequence: &Sequence) {
    let (tokens, layout) = (sequence.tokens(), sequence.layout());
    let seen_from = layout.seen_from(tokens.len());
    assert!(sequence.pages_from() <= seen_from, "what is seen is there");
    let attention = attention_layer(layout);
    for (i, &token) in tokens.iter().enumerate().skip(sequence.pages_from()) {
        let page = &sequence.pages()[i / PAGE_TOKENS - sequence.pages_from() / PAGE_TOKENS];
        let kept = page.key(layout.kv(), attention, 0, i % PAGE_TOKENS, 0);
        // Rounding a scale to half precision costs 2^-11 of a number.
        let rounded = if layout.kv().format() == KvFormat::Q8 { token as f32 / 1024.0 } else { 0.0 };
        assert!((kept - token as f32).abs() <= rounded, "token {i} is {kept}, not {token}");
    }
    if attention > 0 && !tokens.is_empty() {
        let (state, inputs) = sequence.state(0);
        assert_eq!(state, [recurrence(tokens); 2], "the state behind {} tokens", tokens.len());
        assert_eq!(inputs[2..], [tokens[tokens.len() - 1] as f32; 2]);
    }
}

#[test]
fn the_longest_prefix_is_resumed_but_never_the_whole_prompt() {
    let layout = attention(None);
    let mut cache = PrefixCache::new(u64::MAX);
    let long: Vec<u32> = (0..50).collect();
    cache.keep(1, sequence(&layout, &long));
    cache.keep(1, sequence(&layout, &[0, 1, 2, 90, 91]));
    assert_eq!(cache.resume(1, &layout, &long).tokens(), &long[..49]);
    assert_eq!(cache.resume(1, &layout, &[0, 1, 2, 90, 7, 8]).tokens(), [0, 1, 2, 90]);
    assert!(cache.resume(1, &layout, &[5, 6]).tokens().is_empty());
    assert!(cache.resume(2, &layout, &long).tokens().is_empty(), "another model's keys are other keys");
    let counted = cache.statistics();
    assert_eq!((counted.requests, counted.tokens_asked, counted.tokens_found), (4, 108, 53));
    assert_eq!((counted.tokens_computed, counted.nodes), (55, 3));
}

#[test]
fn resumed_sequences_diverge_without_touching_each_other() {
    let layout = attention(None);
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
    let layout = attention(None);
    let mut cache = PrefixCache::new(u64::MAX);
    // Three positions of one span, whose key is above every token.
    let span = u32::MAX - 7;
    let tokens = [2, 5, span, span, span, 6, 7];
    cache.keep(1, sequence(&layout, &tokens));
    for (prompt, resumed) in [(&tokens[..5], 2), (&tokens[..4], 2), (&tokens[..6], 5), (&tokens[..3], 2)] {
        assert_eq!(cache.resume(1, &layout, prompt).tokens(), &tokens[..resumed], "{prompt:?}");
    }
}

#[test]
fn a_longer_sequence_shares_the_pages_of_its_beginning() {
    let layout = attention(None);
    let page = layout.kv().page_bytes() as u64;
    let mut cache = PrefixCache::new(u64::MAX);
    let tokens: Vec<u32> = (0..33).collect();
    cache.keep(1, sequence(&layout, &tokens));
    let three = cache.bytes();
    assert!((3 * page..4 * page).contains(&three), "{three} bytes for three pages of {page}");
    let mut longer = cache.resume(1, &layout, &[&tokens[..], &[99, 98]].concat());
    extend(&mut longer, &[99]);
    cache.keep(1, longer);
    assert_eq!(cache.bytes(), three + 4, "a token more, in a page that took the other's place");
    let mut other = cache.resume(1, &layout, &[&tokens[..20], &[50, 51]].concat());
    extend(&mut other, &[50]);
    cache.keep(1, other);
    assert!((4 * page..6 * page).contains(&cache.bytes()), "one page was copied");
}

#[test]
fn the_most_recently_used_stay_within_the_budget() {
    let layout = attention(None);
    let tokens = |first: u32| -> Vec<u32> { (0..16).map(|i| first + i).collect() };
    let mut cache = PrefixCache::new(u64::MAX);
    cache.keep(1, sequence(&layout, &tokens(100)));
    let each = cache.bytes();
    let mut cache = PrefixCache::new(3 * each);
    for first in [100, 200, 300] {
        cache.keep(1, sequence(&layout, &tokens(first)));
    }
    let again = cache.resume(1, &layout, &[&tokens(100)[..], &[9, 9]].concat());
    assert_eq!(again.tokens().len(), 16);
    cache.keep(1, again);
    cache.keep(1, sequence(&layout, &tokens(400)));
    assert_eq!((cache.bytes(), cache.statistics().evictions), (3 * each, 1));
    assert!(cache.resume(1, &layout, &tokens(200)).tokens().is_empty(), "the longest unused went");
    assert_eq!(cache.resume(1, &layout, &tokens(100)).tokens().len(), 15);
    cache.forget(1);
    assert_eq!((cache.bytes(), cache.statistics().nodes), (0, 0));
}

#[test]
fn what_is_dear_by_the_byte_outlives_what_is_cheap() {
    let layout = attention(None);
    let mut cache = PrefixCache::new(u64::MAX);
    cache.keep(1, sequence(&layout, &(0..16).collect::<Vec<_>>()));
    let budget = 4 * cache.bytes();
    // A full page of one model, then of another that computes a token a hundred times as slowly.
    let mut cache = PrefixCache::new(budget);
    let tokens: Vec<u32> = (0..16).collect();
    cache.resume(2, &layout, &tokens);
    cache.set_token_ms(2, 100.0);
    cache.keep(2, sequence(&layout, &tokens));
    for first in 1..10 {
        cache.keep(1, sequence(&layout, &(0..16).map(|i| 100 * first + i).collect::<Vec<_>>()));
    }
    assert_eq!(cache.resume(2, &layout, &tokens).tokens().len(), 15);
    assert!(cache.resume(1, &layout, &[100, 101]).tokens().is_empty());
    assert!(cache.bytes() <= budget);
}

#[test]
fn of_what_is_larger_than_the_budget_the_beginning_stays() {
    for layout in [attention(None), Arc::new(Layout::recurrent(None))] {
        let tokens: Vec<u32> = (0..1000).collect();
        let mut cache = PrefixCache::new(u64::MAX);
        cache.keep(1, sequence(&layout, &tokens));
        let mut cache = PrefixCache::new(cache.bytes() / 4);
        cache.keep(1, sequence(&layout, &tokens));
        let found = cache.resume(1, &layout, &tokens);
        assert_sound(&found);
        assert!(found.tokens().len() > 150, "{} of 1000 tokens stayed", found.tokens().len());
        assert!(cache.bytes() <= cache.budget);
    }
}

#[test]
fn what_a_sequence_stands_on_stays_until_it_ends() {
    for layout in [attention(None), Arc::new(Layout::recurrent(None))] {
        let tokens: Vec<u32> = (0..100).collect();
        let mut cache = PrefixCache::new(u64::MAX);
        cache.keep(1, sequence(&layout, &tokens));
        let budget = cache.bytes();
        let mut cache = PrefixCache::new(budget);
        cache.keep(1, sequence(&layout, &tokens));
        let running = cache.resume(1, &layout, &tokens[..99]);
        let held = running.tokens().len();
        for first in 1..20 {
            cache.keep(1, sequence(&layout, &(0..90).map(|i| 1000 * first + i).collect::<Vec<_>>()));
        }
        assert_eq!(cache.resume(1, &layout, &tokens).tokens().len(), held, "it was leased");
        drop(running);
        for first in 20..40 {
            cache.keep(1, sequence(&layout, &(0..90).map(|i| 1000 * first + i).collect::<Vec<_>>()));
        }
        assert!(cache.resume(1, &layout, &tokens).tokens().len() < held, "and then no longer");
        assert!(cache.bytes() <= budget);
    }
}

#[test]
fn snapshots_go_where_another_is_near() {
    let layout = Arc::new(Layout::recurrent(None));
    let tokens: Vec<u32> = (0..1024).collect();
    let mut cache = PrefixCache::new(u64::MAX);
    cache.keep(1, sequence(&layout, &tokens));
    let before = cache.bytes();
    let mut cache = PrefixCache::new(before - 3 * 24);
    cache.keep(1, sequence(&layout, &tokens));
    // The last rows of the pass left one each.
    let end = cache.resume(1, &layout, &[&tokens[..], &[7, 7]].concat());
    assert!(end.tokens().len() >= 1020, "{} of 1024", end.tokens().len());
    for len in (64..1000).step_by(64) {
        assert_eq!(cache.resume(1, &layout, &tokens[..len + 2]).tokens().len(), len);
    }
}

#[test]
fn a_prompt_whose_logits_are_kept_is_found_whole() {
    let layout = attention(None);
    let mut cache = PrefixCache::new(u64::MAX);
    let prompt = [2, 7, 8, 9];
    cache.keep(1, sequence(&layout, &prompt));
    cache.keep_logits(1, &prompt, scores(0.5));
    assert_eq!(cache.resume(1, &layout, &prompt).tokens(), prompt);
    assert_eq!(cache.logits(1, &prompt), Some(scores(0.5)));
    assert_eq!(cache.logits(2, &prompt), None, "another model's logits are others");
    assert_eq!(cache.resume(1, &layout, &prompt[..3]).tokens(), &prompt[..2]);
    for other in 0..MAX_ROWS as u32 - 1 {
        cache.keep_logits(1, &[2, other], scores(0.0));
    }
    assert!(cache.logits(1, &prompt).is_some());
    let bytes = cache.bytes();
    cache.keep_logits(1, &[3], scores(0.0));
    assert_eq!(cache.bytes(), bytes - 4, "the longest unused row went");
    assert!(cache.logits(1, &[2, 0]).is_none());
    cache.forget(1);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn a_budget_of_nothing_keeps_nothing() {
    let layout = attention(None);
    let mut cache = PrefixCache::new(0);
    cache.keep(1, sequence(&layout, &[1, 2, 3]));
    cache.keep_logits(1, &[1, 2, 3], scores(0.0));
    assert_eq!(cache.bytes(), 0);
    assert!(cache.resume(1, &layout, &[1, 2, 3]).tokens().is_empty());
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// A few prompts that begin alike in many ways, one changed at a time, as typing, jumping and pasting do.
fn next_prompt(random: &mut Random, prompts: &mut [Vec<u32>]) -> Vec<u32> {
    let at = random.below(prompts.len());
    let other = random.below(prompts.len());
    let cut = random.below(prompts[other].len() + 1);
    match random.below(8) {
        0 => prompts[at] = prompts[other][..cut].to_vec(),
        1 => prompts[at].truncate(cut.max(1)),
        _ => {
            let n = 1 + random.below(40);
            prompts[at].extend((0..n).map(|_| 3 + random.below(3) as u32));
            prompts[at].truncate(400);
        }
    }
    if prompts[at].is_empty() {
        prompts[at].push(2);
    }
    prompts[at].clone()
}

#[test]
fn whatever_was_kept_what_is_found_is_exact_and_all_of_it() {
    for seed in 1..=60 {
        let layout = match seed % 4 {
            0 => attention(None),
            1 => attention(Some(50)),
            2 => Arc::new(Layout::recurrent(None)),
            _ => Arc::new(Layout::recurrent(Some(50))),
        };
        let random = &mut Random(seed * 0x9e37_79b9);
        let budget = [u64::MAX, 4_000, 30_000][random.below(3)];
        let mut cache = PrefixCache::new(budget);
        let mut kept: Vec<Vec<u32>> = Vec::new();
        let mut prompts = vec![vec![2], vec![2], vec![5]];
        let mut running: VecDeque<Sequence> = VecDeque::new();
        for step in 0..150 {
            let what = format!("seed {seed}, step {step}");
            let prompt = next_prompt(random, &mut prompts);
            let mut found = cache.resume(1, &layout, &prompt);
            assert_sound(&found);
            let len = found.tokens().len();
            assert_eq!(found.tokens(), &prompt[..len], "{what}");
            let common = |kept: &Vec<u32>| kept.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
            let best = kept.iter().map(common).max().unwrap_or(0).min(prompt.len() - 1);
            assert!(len <= best, "{what}: nothing is found that was not kept");
            if budget == u64::MAX && layout.seen_from(1000) == 0 {
                let most = if layout.state_len() > 0 { 64 } else { 0 };
                assert!(best - len <= most, "{what}: {len} of {best} were found");
            }
            let rest = prompt[len..].to_vec();
            // In chunks, possibly cancelled, and with others at the same time.
            let end = if random.below(4) == 0 { random.below(rest.len() + 1) } else { rest.len() };
            for chunk in rest[..end].chunks(1 + random.below(30)) {
                extend(&mut found, chunk);
            }
            assert_sound(&found);
            running.push_back(found);
            while running.len() > random.below(3) {
                let Some(done) = running.pop_front() else { break };
                kept.push(done.tokens().to_vec());
                cache.keep(1, done);
            }
            let recounted: u64 = cache.trees.values().map(Tree::audit).sum();
            assert_eq!(cache.bytes(), recounted, "{what}");
            if running.is_empty() {
                assert!(cache.bytes() <= budget, "{what}: {} of {budget} bytes", cache.bytes());
            }
        }
    }
}

#[test]
fn what_shares_its_page_with_what_is_above_it_goes_too() {
    // Pages as large as a model's, beside which the ids of their tokens weigh nothing.
    let kv = KvLayout::new(KvFormat::F32, [(1, 2048)]);
    let layout = Arc::new(Layout::without_state(kv, None));
    let mut cache = PrefixCache::new(24 * layout.kv().page_bytes() as u64);
    for first in 0..12 {
        let tokens: Vec<u32> = (0..40).map(|i| 100 * first + i).collect();
        cache.keep(1, sequence(&layout, &tokens));
        // Another end from the middle of a page on: the two parts of the first one share that page now.
        let other = [&tokens[..20], &[90_000 + first, 1, 2]].concat();
        let mut parted = cache.resume(1, &layout, &other);
        let found = parted.tokens().len();
        extend(&mut parted, &other[found..]);
        cache.keep(1, parted);
    }
    for round in 0..12 {
        let tokens: Vec<u32> = (0..6 * PAGE_TOKENS as u32).map(|i| 50_000 + 1000 * round + i).collect();
        cache.keep(1, sequence(&layout, &tokens));
        let found = cache.resume(1, &layout, &tokens).tokens().len();
        assert_eq!(found, tokens.len() - 1, "what came last is there whole, round {round}");
    }
}

/// A sequence whose pages have memory on their device, or why not.
fn on_device(layout: &Arc<Layout>, tokens: &[u32]) -> Result<Sequence> {
    let mut sequence = Sequence::new(layout.clone());
    sequence.reserve(tokens.len(), Marks::default());
    for page in sequence.pages() {
        let KvPage::Device(page) = &**page else { panic!("a page of the layout's") };
        page.to_write()?;
    }
    sequence.advance(tokens);
    Ok(sequence)
}

#[test]
fn pages_that_were_not_used_lately_make_room_on_their_device() {
    let device = Device::new(Arc::new(Emulated::new(1 << 20, Schedule::Forward)));
    let page = 2 * PAGE_TOKENS * 8 * 2;
    let memory = PageMemory::new(&device, 4 * page as u64);
    let layout = Arc::new(Layout::on_device(memory.clone()));
    let mut cache = PrefixCache::new(1 << 20);
    let prompts = [1, 100, 200].map(|first| (first..first + 2 * PAGE_TOKENS as u32).collect::<Vec<_>>());
    for prompt in &prompts[..2] {
        cache.keep(1, on_device(&layout, prompt).unwrap());
    }
    assert_eq!(memory.used(), 4 * page as u64);
    assert!(on_device(&layout, &prompts[2]).is_err(), "it is full");
    let in_use = cache.resume(1, &layout, &[&prompts[1][..], &[7]].concat());
    assert_eq!(cache.put_away().unwrap(), 2 * page as u64);
    cache.keep(1, on_device(&layout, &prompts[2]).unwrap());
    // Nothing was forgotten, and what comes back takes room again.
    let first = cache.resume(1, &layout, &[&prompts[0][..], &[7]].concat());
    assert_eq!((first.tokens().len(), in_use.tokens().len()), (2 * PAGE_TOKENS, 2 * PAGE_TOKENS));
    let KvPage::Device(away) = &*first.pages()[0] else { panic!("a page of the layout's") };
    assert!(away.to_read().is_err(), "it is full again");
    assert_eq!(away.contents().unwrap().len(), page);
}
