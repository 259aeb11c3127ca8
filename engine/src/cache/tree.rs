//! What is kept of one model: a tree over token ids. A path from the root spells a sequence that was computed;
//! where two sequences part, so does the tree.
//!
//! A node stands for a run of tokens and holds the pages in which that run lies. The first of them may begin
//! before the node does: it then holds those earlier tokens as well, as their sequence's writer copied it. So of
//! all the nodes of a path that hold a page, the deepest holds all of the path's tokens in it.
//!
//! Pages are taken away from the ends of leaves only. A model with state can be gone on from where a snapshot of
//! it is; the tokens of a leaf behind the last one are worth nothing, and go with it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use gemma_kernels::{KvPage, PAGE_TOKENS};

use super::ledger::Ledger;
use super::sequence::{Layout, Lease, Memory, Sequence};
use crate::outline::resumable;

type Id = usize;
const ROOT: Id = 0;

/// Behind so many tokens, attention to them costs about what the weights do.
const DEEP: f64 = 8192.0;

/// Sequences of one model.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    layout: Arc<Layout>,
    /// Milliseconds that a token takes to compute.
    pub(super) token_ms: f64,
    /// By id; the root stands for no token.
    nodes: Vec<Node>,
    /// Ids that are not in use.
    free: Vec<Id>,
    /// Nodes that can lose something, by the worth of the first thing that they would.
    queue: BTreeSet<(Worth, Id)>,
    /// Nodes of which something was leased when they were last looked at.
    leased: Vec<Id>,
    ledger: Ledger,
}

/// A run of tokens.
#[derive(Debug, Clone, Default)]
struct Node {
    parent: Id,
    /// Position of its first token.
    start: usize,
    tokens: Vec<u32>,
    /// Pages from the one in which its first token lies; `None` where a sequence had dropped it.
    pages: Vec<Option<Arc<KvPage>>>,
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
    state: Arc<[f32]>,
    used: f64,
}

/// The clock at which something was used, and the milliseconds a byte that computing it again would take. Not
/// negative, and so in the order of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth(u64);

/// Something that a node can lose.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// A leaf's tokens from this length on.
    Tail(usize),
    /// The snapshot of this index.
    Snapshot(usize),
}

impl Node {
    /// Bytes of an empty one, its parent's link to it included.
    const BYTES: u64 = (size_of::<Self>() + size_of::<(u32, Id)>()) as u64;

    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The page of this index within the sequence.
    fn page(&self, index: usize) -> Option<&Arc<KvPage>> {
        self.pages.get(index.checked_sub(self.start / PAGE_TOKENS)?)?.as_ref()
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
            nodes: vec![Node::default()],
            free: Vec::new(),
            queue: BTreeSet::new(),
            leased: Vec::new(),
            ledger: Ledger::default(),
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
        let (path, matched) = self.walk(&keys[..most]);
        let pages = self.pages(&path);
        let len = self.reach(&path, &pages, keys, matched);
        if len == 0 {
            return Sequence::new(self.layout.clone());
        }
        let first = self.layout.seen_from(len) / PAGE_TOKENS;
        let pages: VecDeque<_> = pages[first..len.div_ceil(PAGE_TOKENS)].iter().flatten().cloned().collect();
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
                    state = Some(snapshot.state.clone());
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
    fn pages(&self, path: &[Id]) -> Vec<Option<Arc<KvPage>>> {
        let mut pages = Vec::new();
        for &id in path {
            let node = &self.nodes[id];
            pages.truncate(node.start / PAGE_TOKENS);
            pages.extend_from_slice(&node.pages);
        }
        pages
    }

    /// The longest beginning of `keys`, of at most `len` tokens that `path` spells, that can be gone on from.
    fn reach(&self, path: &[Id], pages: &[Option<Arc<KvPage>>], keys: &[u32], mut len: usize) -> usize {
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
            match seen.rev().find(|&index| pages[index].is_none()) {
                Some(gap) => len = gap * PAGE_TOKENS,
                None => return len,
            }
        }
    }

    /// Takes a sequence's memory over. Returns the milliseconds that what is new in it took to compute.
    pub(super) fn keep(&mut self, memory: Memory, clock: f64) -> f64 {
        let Memory { tokens, first_page, pages, snapshots } = memory;
        let page = |index: usize| index.checked_sub(first_page).and_then(|at| pages.get(at)).cloned();
        let (path, matched) = self.walk(&tokens);
        self.fill_gaps(&path, matched, page);
        let mut at = path.last().copied().unwrap_or(ROOT);
        if matched < self.nodes[at].end() {
            at = self.split(at, matched);
        }
        if matched < tokens.len() {
            self.grow(at, &tokens[matched..], page);
        }
        let (path, _) = self.walk(&tokens);
        let bytes = self.state_bytes();
        for (len, state) in snapshots {
            let Some(&id) = path.iter().find(|&&id| len <= self.nodes[id].end()) else { continue };
            let of_node = &mut self.nodes[id].snapshots;
            if let Err(at) = of_node.binary_search_by_key(&len, |s| s.len) {
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
    fn fill_gaps(&mut self, path: &[Id], matched: usize, page: impl Fn(usize) -> Option<Arc<KvPage>>) {
        let bytes = self.page_bytes();
        for &id in path {
            let node = &mut self.nodes[id];
            let (first, end) = (node.start / PAGE_TOKENS, node.end());
            for (index, slot) in (first..).zip(&mut node.pages) {
                let whole = end.min((index + 1) * PAGE_TOKENS) <= matched;
                if let (None, true, Some(page)) = (&slot, whole, page(index)) {
                    self.ledger.hold(&page, bytes);
                    *slot = Some(page);
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
        if let (false, Some(Some(shared))) = (at.is_multiple_of(PAGE_TOKENS), upper.pages.last()) {
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
    fn grow(&mut self, at: Id, tokens: &[u32], page: impl Fn(usize) -> Option<Arc<KvPage>>) {
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
        let straddling = node.pages.drain(first - node.start / PAGE_TOKENS..).flatten();
        straddling.for_each(|page| self.ledger.release(&page));
        let node = &mut self.nodes[id];
        node.pages.extend((first..node.end().div_ceil(PAGE_TOKENS)).map(page));
        node.pages[first - node.start / PAGE_TOKENS..]
            .iter()
            .flatten()
            .for_each(|page| self.ledger.hold(page, bytes));
        self.share_upwards(id, from);
    }

    /// Gives the page that straddles position `from` to the nodes above that have a part in it: it holds all of
    /// their tokens, and what they had is not needed beside it.
    fn share_upwards(&mut self, id: Id, from: usize) {
        let index = from / PAGE_TOKENS;
        let Some(page) = self.nodes[id].page(index).cloned() else { return };
        let (bytes, mut up) = (self.page_bytes(), self.nodes[id].parent);
        while up != ROOT && self.nodes[up].end() > index * PAGE_TOKENS {
            let node = &mut self.nodes[up];
            let at = index - node.start / PAGE_TOKENS;
            self.ledger.hold(&page, bytes);
            if let Some(old) = node.pages[at].replace(page.clone()) {
                self.ledger.release(&old);
            }
            up = self.nodes[up].parent;
        }
    }

    /// The worth of the next loss of [`Tree::lose`]; `None` if nothing can be lost.
    pub(super) fn next_loss(&mut self) -> Option<f64> {
        loop {
            let &(worth, id) = self.queue.first()?;
            // What a loss costs changes with what is kept above it.
            if self.cheapest(id).is_some_and(|(now, _)| now == worth) {
                return Some(f64::from_bits(worth.0));
            }
            self.queue_again(id);
        }
    }

    /// Gives up what costs least, by the byte, to compute again.
    pub(super) fn lose(&mut self) {
        let Some(&(_, id)) = self.queue.first() else { return };
        match self.cheapest(id) {
            Some((_, Loss::Tail(to))) => self.trim(id, to),
            Some((_, Loss::Snapshot(at))) => {
                let snapshot = self.nodes[id].snapshots.remove(at);
                self.ledger.release(&snapshot.state);
                self.queue_again(id);
            }
            None => self.queue_again(id),
        }
    }

    /// Makes what is leased no longer evictable.
    pub(super) fn end_leases(&mut self) {
        for id in std::mem::take(&mut self.leased) {
            let node = &mut self.nodes[id];
            node.leases.retain(|lease| lease.strong_count() > 0);
            if !node.leases.is_empty() && !self.leased.contains(&id) {
                self.leased.push(id);
            }
            self.queue_again(id);
        }
    }

    /// Looks anew at what a node could lose.
    fn queue_again(&mut self, id: Id) {
        if let Some(worth) = self.nodes[id].worth.take() {
            self.queue.remove(&(worth, id));
        }
        if let Some((worth, _)) = self.cheapest(id) {
            self.nodes[id].worth = Some(worth);
            self.queue.insert((worth, id));
        }
    }

    /// What of a node is worth least, if anything may go.
    fn cheapest(&self, id: Id) -> Option<(Worth, Loss)> {
        let node = &self.nodes[id];
        let is_leaf = node.children.is_empty() && id != ROOT;
        let leased = node.leased();
        let mut losses = Vec::new();
        let single = node.snapshots.len() - usize::from(is_leaf && !node.snapshots.is_empty());
        let mut before = if node.snapshots.is_empty() { 0 } else { self.snapshot_before(id) };
        for (at, snapshot) in node.snapshots[..single].iter().enumerate() {
            if !leased.contains(&snapshot.len) {
                let gain = self.ledger.gain(&snapshot.state);
                let worth = self.worth(snapshot.used, self.cost(before, snapshot.len), gain);
                losses.push((worth, Loss::Snapshot(at)));
            }
            before = snapshot.len;
        }
        let leased_to = leased.into_iter().fold(node.start, usize::max);
        if is_leaf && leased_to < node.end() {
            let (to, from, used) = match node.snapshots.last() {
                Some(last) => (before.max(leased_to), before, last.used),
                None => {
                    let page = (node.end() - 1) / PAGE_TOKENS * PAGE_TOKENS;
                    (page.max(leased_to), page.max(leased_to), node.used)
                }
            };
            losses.push((self.worth(used, self.cost(from, node.end()), self.gain(node, to)), Loss::Tail(to)));
        }
        losses.into_iter().min_by_key(|(worth, _)| *worth)
    }

    /// Length of the last snapshot above a node; 0 if there is none.
    fn snapshot_before(&self, id: Id) -> usize {
        let mut up = self.nodes[id].parent;
        while up != ROOT {
            if let Some(last) = self.nodes[up].snapshots.last() {
                return last.len;
            }
            up = self.nodes[up].parent;
        }
        0
    }

    /// Bytes that cutting a leaf back to `to` gives back.
    fn gain(&self, leaf: &Node, to: usize) -> u64 {
        let (kept, whole) = if to <= leaf.start {
            (0, Node::BYTES)
        } else {
            (to.div_ceil(PAGE_TOKENS) - leaf.start / PAGE_TOKENS, 0)
        };
        let pages: u64 = leaf.pages[kept..].iter().flatten().map(|page| self.ledger.gain(page)).sum();
        let states = leaf.snapshots.iter().filter(|s| s.len > to).map(|s| self.ledger.gain(&s.state));
        let tokens = (leaf.end() - to) * size_of::<u32>();
        pages + states.sum::<u64>() + tokens as u64 + whole
    }

    fn worth(&self, used: f64, cost: f64, bytes: u64) -> Worth {
        Worth((used + cost / bytes.max(1) as f64).max(0.0).to_bits())
    }

    /// Milliseconds to compute the tokens `from..to`.
    fn cost(&self, from: usize, to: usize) -> f64 {
        let depth = (from + to) as f64 / 2.0;
        self.token_ms * to.saturating_sub(from) as f64 * (1.0 + depth / DEEP)
    }

    /// Cuts a leaf back to `to`, and what is worth nothing without what went.
    fn trim(&mut self, id: Id, to: usize) {
        let (mut id, mut to) = (id, to);
        loop {
            let node = &mut self.nodes[id];
            let (start, parent) = (node.start, node.parent);
            let to_pages = if to > start { to.div_ceil(PAGE_TOKENS) - start / PAGE_TOKENS } else { 0 };
            node.pages.drain(to_pages..).flatten().for_each(|page| self.ledger.release(&page));
            let snapshots = node.snapshots.partition_point(|s| s.len <= to);
            node.snapshots.drain(snapshots..).for_each(|s| self.ledger.release(&s.state));
            self.ledger.take(((node.end() - to.max(start)) * size_of::<u32>()) as u64);
            let first = node.tokens[0];
            node.tokens.truncate(to.saturating_sub(start));
            if to > start {
                self.queue_again(id);
                return;
            }
            self.ledger.take(Node::BYTES);
            if let Some(worth) = self.nodes[id].worth {
                self.queue.remove(&(worth, id));
            }
            self.nodes[id] = Node::default();
            self.free.push(id);
            self.nodes[parent].children.retain(|child| child.0 != first);
            let above = &self.nodes[parent];
            let last = above.snapshots.last().map_or(above.start, |last| last.len);
            if parent == ROOT
                || !above.children.is_empty()
                || self.layout.state_len() == 0
                || last == above.end()
            {
                self.queue_again(parent);
                return;
            }
            (id, to) = (parent, last);
        }
    }

    fn page_bytes(&self) -> u64 {
        self.layout.kv().page_bytes() as u64
    }

    fn state_bytes(&self) -> u64 {
        (self.layout.state_len() * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
impl Tree {
    /// Panics unless all nodes are as they should be; the bytes that they take, counted anew.
    pub(super) fn audit(&self) -> u64 {
        let mut parts = std::collections::HashMap::new();
        let (mut bytes, mut seen, mut queued, mut open) = (0, 0, 0, vec![ROOT]);
        while let Some(id) = open.pop() {
            let node = &self.nodes[id];
            let is_leaf = node.children.is_empty();
            assert!(node.children.is_sorted_by_key(|child| child.0));
            for &(first, child) in &node.children {
                let below = &self.nodes[child];
                assert_eq!((below.parent, below.start, below.tokens[0]), (id, node.end(), first));
                open.push(child);
            }
            assert_eq!(node.worth, self.cheapest(id).and(node.worth), "nothing is queued that cannot go");
            queued += usize::from(node.worth.is_some_and(|worth| self.queue.contains(&(worth, id))));
            if id == ROOT {
                continue;
            }
            seen += 1;
            let pages = node.end().div_ceil(PAGE_TOKENS) - node.start / PAGE_TOKENS;
            assert_eq!(node.pages.len(), pages, "the pages of {}..{}", node.start, node.end());
            assert!(node.snapshots.is_sorted_by_key(|s| s.len));
            assert!(node.snapshots.iter().all(|s| node.start < s.len && s.len <= node.end()));
            if is_leaf && self.layout.state_len() > 0 {
                assert_eq!(
                    node.snapshots.last().map(|s| s.len),
                    Some(node.end()),
                    "a leaf ends with a state"
                );
            }
            bytes += Node::BYTES + 4 * node.tokens.len() as u64;
            let pages = node.pages.iter().flatten().map(|p| (Arc::as_ptr(p).addr(), self.page_bytes()));
            let states = node.snapshots.iter().map(|s| (s.state.as_ptr().addr(), self.state_bytes()));
            parts.extend(pages.chain(states));
        }
        assert_eq!((seen, queued), (self.nodes(), self.queue.len()));
        bytes + parts.values().sum::<u64>()
    }
}
