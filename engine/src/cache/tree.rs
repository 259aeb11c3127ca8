//! What is kept of one model: a tree over token ids. A path from the root spells a sequence that was computed;
//! where two sequences part, so does the tree.
//!
//! A node stands for a run of tokens and holds the pages in which that run lies. The first of them may begin
//! before the node does: it then holds those earlier tokens as well, as their sequence's writer copied it. So of
//! all the nodes of a path that hold a page, the deepest holds all of the path's tokens in it.
//!
//! Pages are taken away from the ends of leaves only. A model with state can be gone on from where a snapshot of
//! it is; the tokens of a leaf behind the last one are worth nothing, and go with it.

mod loss;
mod saved;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use gemma_kernels::{KvPage, PAGE_TOKENS};

use super::image::Image;
use super::ledger::{Ledger, Slot};
use super::sequence::{Layout, Lease, Memory, Sequence};
use crate::error::Result;
use crate::outline::resumable;
use loss::Worth;

type Id = usize;
const ROOT: Id = 0;

/// Sequences of one model.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    layout: Arc<Layout>,
    /// Milliseconds that a token takes to compute.
    pub(super) token_ms: f64,
    /// Whether something new was kept since this was last set to `false`.
    pub(super) changed: bool,
    /// By id; the root stands for no token.
    nodes: Vec<Node>,
    /// Ids that are not in use.
    free: Vec<Id>,
    /// Nodes that can lose something, by the worth of the first thing that they would.
    queue: BTreeSet<(Worth, Id)>,
    /// Nodes of which something was leased when they were last looked at.
    leased: Vec<Id>,
    ledger: Ledger,
    /// Where the parts are that are stored.
    image: Option<Arc<Image>>,
}

/// A run of tokens.
#[derive(Debug, Clone, Default)]
struct Node {
    parent: Id,
    /// Position of its first token.
    start: usize,
    tokens: Vec<u32>,
    /// Pages from the one in which its first token lies; gone where a sequence had dropped it.
    pages: Vec<Slot<KvPage>>,
    /// In order of length, all behind `start`.
    snapshots: Vec<Snapshot>,
    /// By their first tokens, in order.
    children: Vec<(u32, Id)>,
    leases: Vec<Weak<Lease>>,
    /// The clock when it was last used.
    used: f64,
    /// Its place in the queue.
    worth: Option<Worth>,
}

/// The state behind a path's first `len` tokens.
#[derive(Debug, Clone)]
struct Snapshot {
    len: usize,
    state: Slot<[f32]>,
    used: f64,
}

impl Node {
    /// Bytes of an empty one, its parent's link to it included.
    const BYTES: u64 = (size_of::<Self>() + size_of::<(u32, Id)>()) as u64;

    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The page of this index within the sequence.
    fn page(&self, index: usize) -> Option<&Slot<KvPage>> {
        self.pages.get(index.checked_sub(self.start / PAGE_TOKENS)?)
    }

    /// Lengths up to which its tokens are leased.
    fn leased(&self) -> Vec<usize> {
        self.leases.iter().filter_map(Weak::upgrade).map(|lease| lease.len).collect()
    }
}

impl Tree {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        Self {
            layout,
            token_ms: 1.0,
            changed: false,
            nodes: vec![Node::default()],
            free: Vec::new(),
            queue: BTreeSet::new(),
            leased: Vec::new(),
            ledger: Ledger::default(),
            image: None,
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// Nodes, the root not counted.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }

    /// A sequence of the longest beginning of `keys[..most]` that is kept and can be gone on from; empty if there
    /// is none. What it stands on is leased to it.
    pub(super) fn resume(&mut self, keys: &[u32], most: usize, clock: f64) -> Sequence {
        let (path, len) = loop {
            let (path, matched) = self.walk(&keys[..most]);
            let len = self.reach(&path, keys, matched);
            if len == 0 {
                return Sequence::new(self.layout.clone());
            }
            if self.load(&path, len) {
                break (path, len);
            }
        };
        let first = self.layout.seen_from(len) / PAGE_TOKENS;
        let pages = &self.pages(&path)[first..len.div_ceil(PAGE_TOKENS)];
        let Some(pages) = pages.iter().map(|page| page.here().cloned()).collect() else {
            unreachable!("what is reached was loaded")
        };
        let lease = Arc::new(Lease { len });
        let mut state = None;
        for &id in &path {
            let node = &mut self.nodes[id];
            if node.end() <= len {
                node.used = clock;
            }
            if (node.start + 1..=node.end()).contains(&len) {
                node.leases.retain(|lease| lease.strong_count() > 0);
                node.leases.push(Arc::downgrade(&lease));
                if let Some(snapshot) = node.snapshots.iter_mut().find(|s| s.len == len) {
                    snapshot.used = clock;
                    state = snapshot.state.here().cloned();
                }
                self.leased.push(id);
            }
            self.queue_again(id);
        }
        Sequence::resumed(self.layout.clone(), lease, &keys[..len], (first, pages), state.as_deref())
    }

    /// The nodes below the root that spell the beginning of `keys`, and how much of it they do.
    fn walk(&self, keys: &[u32]) -> (Vec<Id>, usize) {
        let (mut path, mut len, mut at) = (Vec::new(), 0, ROOT);
        while let Some(child) = keys.get(len).and_then(|&key| self.child(at, key)) {
            let tokens = &self.nodes[child].tokens;
            let common = tokens.iter().zip(&keys[len..]).take_while(|(a, b)| a == b).count();
            path.push(child);
            len += common;
            if common < tokens.len() {
                break;
            }
            at = child;
        }
        (path, len)
    }

    fn child(&self, id: Id, token: u32) -> Option<Id> {
        let children = &self.nodes[id].children;
        children.binary_search_by_key(&token, |child| child.0).ok().map(|at| children[at].1)
    }

    /// The pages of a path, each from the deepest node that has a part in it.
    fn pages(&self, path: &[Id]) -> Vec<Slot<KvPage>> {
        let mut pages = Vec::new();
        for &id in path {
            let node = &self.nodes[id];
            pages.truncate(node.start / PAGE_TOKENS);
            pages.extend_from_slice(&node.pages);
        }
        pages
    }

    /// The longest beginning of `keys`, of at most `len` tokens that `path` spells, that can be gone on from.
    fn reach(&self, path: &[Id], keys: &[u32], mut len: usize) -> usize {
        let pages = self.pages(path);
        loop {
            len = resumable(keys, len);
            if self.layout.state_len() > 0 {
                let snapshots = path.iter().rev().flat_map(|&id| self.nodes[id].snapshots.iter().rev());
                let found = snapshots.map(|s| s.len).find(|&at| at <= len).unwrap_or(0);
                if resumable(keys, found) < found {
                    len = found - 1;
                    continue;
                }
                len = found;
            }
            // What the next token sees has to be there.
            let seen = self.layout.seen_from(len) / PAGE_TOKENS..len.div_ceil(PAGE_TOKENS);
            match seen.rev().find(|&index| pages[index].is_gone()) {
                Some(gap) => len = gap * PAGE_TOKENS,
                None => return len,
            }
        }
    }

    /// Brings what a sequence of a path's first `len` tokens needs into memory. `false` if some of it turned out
    /// damaged: it is gone then.
    fn load(&mut self, path: &[Id], len: usize) -> bool {
        let Some(image) = self.image.clone() else { return true };
        let needed = self.layout.seen_from(len) / PAGE_TOKENS..len.div_ceil(PAGE_TOKENS);
        let (page_bytes, state_bytes) = (self.page_bytes(), self.state_bytes());
        let (mut loaded, mut complete) = (HashMap::new(), true);
        for &id in path {
            // Also behind `len`: of the nodes that share a page, the deepest one's is taken.
            let node = &mut self.nodes[id];
            for (index, slot) in (node.start / PAGE_TOKENS..).zip(&mut node.pages) {
                if let (true, &mut Slot::Stored(number)) = (needed.contains(&index), &mut *slot) {
                    self.ledger.release(slot);
                    *slot = Slot::from(loaded.entry(number).or_insert_with(|| image.page(number)).clone());
                    self.ledger.hold(slot, page_bytes);
                    complete &= !slot.is_gone();
                }
            }
            let Some(at) = node.snapshots.iter().position(|s| s.len == len) else { continue };
            if let Slot::Stored(number) = node.snapshots[at].state {
                match image.state(number) {
                    Some(state) => {
                        let state = Slot::Here(state);
                        self.ledger.hold(&state, state_bytes);
                        self.ledger.release(&std::mem::replace(&mut node.snapshots[at].state, state));
                    }
                    None => {
                        self.lose_snapshot(id, at);
                        return false;
                    }
                }
            }
        }
        complete
    }

    /// Puts pages away from the device that they are on, those used longest ago first, until half of them are. Returns
    /// the bytes that this frees there.
    pub(super) fn put_away(&self) -> Result<u64> {
        let Some(memory) = self.layout.memory() else { return Ok(0) };
        let most = memory.used() / 2;
        let mut nodes: Vec<&Node> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| a.used.total_cmp(&b.used));
        let mut freed = 0;
        for page in nodes.iter().flat_map(|node| &node.pages) {
            if let Some(KvPage::Device(page)) = page.here().map(|page| &**page)
                && freed < most
            {
                freed += page.put_away()? as u64;
            }
        }
        Ok(freed)
    }

    /// Takes a sequence's memory over. Returns the milliseconds that what is new in it took to compute.
    pub(super) fn keep(&mut self, memory: Memory, clock: f64) -> f64 {
        let Memory { tokens, first_page, pages, snapshots } = memory;
        let page =
            |index: usize| Slot::from(index.checked_sub(first_page).and_then(|at| pages.get(at)).cloned());
        let (path, matched) = self.walk(&tokens);
        self.fill_gaps(&path, matched, page);
        let mut at = path.last().copied().unwrap_or(ROOT);
        if matched < self.nodes[at].end() {
            at = self.split(at, matched);
        }
        if matched < tokens.len() {
            self.changed = true;
            self.grow(at, &tokens[matched..], page);
        }
        let (path, _) = self.walk(&tokens);
        let bytes = self.state_bytes();
        for (len, state) in snapshots {
            let Some(&id) = path.iter().find(|&&id| len <= self.nodes[id].end()) else { continue };
            let of_node = &mut self.nodes[id].snapshots;
            if let Err(at) = of_node.binary_search_by_key(&len, |s| s.len) {
                let state = Slot::Here(state);
                self.ledger.hold(&state, bytes);
                of_node.insert(at, Snapshot { len, state, used: clock });
            }
        }
        for id in path {
            self.nodes[id].used = clock;
            self.queue_again(id);
        }
        self.cost(matched, tokens.len())
    }

    /// Puts a sequence's pages where the nodes of its path have none.
    fn fill_gaps(&mut self, path: &[Id], matched: usize, page: impl Fn(usize) -> Slot<KvPage>) {
        let bytes = self.page_bytes();
        for &id in path {
            let node = &mut self.nodes[id];
            let (first, end) = (node.start / PAGE_TOKENS, node.end());
            for (index, slot) in (first..).zip(&mut node.pages) {
                let whole = end.min((index + 1) * PAGE_TOKENS) <= matched;
                if slot.is_gone() && whole {
                    *slot = page(index);
                    self.ledger.hold(slot, bytes);
                }
            }
        }
    }

    /// Cuts a node in two before position `at`; returns the upper part, which is new.
    fn split(&mut self, id: Id, at: usize) -> Id {
        let upper_id = self.free.pop().unwrap_or(self.nodes.len());
        let node = &mut self.nodes[id];
        let first_page = node.start / PAGE_TOKENS;
        let tokens = node.tokens.split_off(at - node.start);
        let snapshots = node.snapshots.split_off(node.snapshots.partition_point(|s| s.len <= at));
        let behind = |lease: &Weak<Lease>| lease.upgrade().is_some_and(|lease| lease.len > at);
        let (leases, upper_leases) = std::mem::take(&mut node.leases).into_iter().partition(behind);
        let upper = Node {
            parent: node.parent,
            start: node.start,
            tokens: std::mem::replace(&mut node.tokens, tokens),
            pages: node.pages[..at.div_ceil(PAGE_TOKENS) - first_page].to_vec(),
            snapshots: std::mem::replace(&mut node.snapshots, snapshots),
            children: vec![(node.tokens[0], id)],
            leases: upper_leases,
            used: node.used,
            worth: None,
        };
        node.pages.drain(..at / PAGE_TOKENS - first_page);
        node.leases = leases;
        node.start = at;
        node.parent = upper_id;
        if let (false, Some(shared)) = (at.is_multiple_of(PAGE_TOKENS), upper.pages.last()) {
            self.ledger.hold(shared, self.layout.kv().page_bytes() as u64);
        }
        self.ledger.add(Node::BYTES);
        let siblings = &mut self.nodes[upper.parent].children;
        if let Ok(at) = siblings.binary_search_by_key(&upper.tokens[0], |child| child.0) {
            siblings[at].1 = upper_id;
        }
        self.place(upper_id, upper);
        self.leased.extend([id, upper_id]);
        self.queue_again(id);
        self.queue_again(upper_id);
        upper_id
    }

    fn place(&mut self, id: Id, node: Node) {
        match self.nodes.get_mut(id) {
            Some(place) => *place = node,
            None => self.nodes.push(node),
        }
    }

    /// Appends tokens to a path that ends with the node `at`: to the node itself where it is a leaf, else as
    /// another child of it.
    fn grow(&mut self, at: Id, tokens: &[u32], page: impl Fn(usize) -> Slot<KvPage>) {
        let from = self.nodes[at].end();
        let id = if at == ROOT || !self.nodes[at].children.is_empty() {
            let id = self.free.pop().unwrap_or(self.nodes.len());
            self.place(id, Node { parent: at, start: from, ..Node::default() });
            let siblings = &mut self.nodes[at].children;
            let place = siblings.partition_point(|child| child.0 < tokens[0]);
            siblings.insert(place, (tokens[0], id));
            self.ledger.add(Node::BYTES);
            id
        } else {
            at
        };
        let (first, bytes) = (from / PAGE_TOKENS, self.page_bytes());
        let node = &mut self.nodes[id];
        node.tokens.extend_from_slice(tokens);
        self.ledger.add(size_of_val(tokens) as u64);
        let kept = first - node.start / PAGE_TOKENS;
        node.pages.drain(kept..).for_each(|page| self.ledger.release(&page));
        node.pages.extend((first..node.end().div_ceil(PAGE_TOKENS)).map(page));
        node.pages[kept..].iter().for_each(|page| self.ledger.hold(page, bytes));
        self.share_upwards(id, from);
    }

    /// Gives the page that straddles position `from` to the nodes above that have a part in it: it holds all of
    /// their tokens, and what they had is not needed beside it.
    fn share_upwards(&mut self, id: Id, from: usize) {
        let index = from / PAGE_TOKENS;
        let Some(page) = self.nodes[id].page(index).filter(|page| !page.is_gone()).cloned() else { return };
        let (bytes, mut up) = (self.page_bytes(), self.nodes[id].parent);
        while up != ROOT && self.nodes[up].end() > index * PAGE_TOKENS {
            let node = &mut self.nodes[up];
            let at = index - node.start / PAGE_TOKENS;
            self.ledger.hold(&page, bytes);
            self.ledger.release(&std::mem::replace(&mut node.pages[at], page.clone()));
            up = self.nodes[up].parent;
        }
    }

    fn page_bytes(&self) -> u64 {
        self.layout.kv().page_bytes() as u64
    }

    fn state_bytes(&self) -> u64 {
        (self.layout.state_len() * size_of::<f32>()) as u64
    }
}
