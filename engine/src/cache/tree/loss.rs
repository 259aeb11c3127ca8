//! What a tree gives up when there is no room: what costs least to compute again by the byte that it frees.

use gemma_kernels::PAGE_TOKENS;

use super::{Id, Node, ROOT, Tree};

/// Behind so many tokens, attention to them costs about what the weights do.
const DEEP: f64 = 8192.0;

/// The clock at which something was used, and the milliseconds a byte that computing it again would take. Not
/// negative, and so in the order of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth(u64);

/// Something that a node can lose.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// A leaf's tokens from this length on.
    Tail(usize),
    /// The snapshot of this index.
    Snapshot(usize),
}

impl Tree {
    /// The worth of the next loss of [`Tree::lose`]; `None` if nothing can be lost.
    pub(in crate::cache) fn next_loss(&mut self) -> Option<f64> {
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
    pub(in crate::cache) fn lose(&mut self) {
        let Some(&(_, id)) = self.queue.first() else { return };
        match self.cheapest(id) {
            Some((_, Loss::Tail(to))) => self.trim(id, to),
            Some((_, Loss::Snapshot(at))) => self.lose_snapshot(id, at),
            None => self.queue_again(id),
        }
    }

    /// Gives up the snapshot of this index; a leaf's last one with the tokens that are worth nothing without it.
    pub(super) fn lose_snapshot(&mut self, id: Id, at: usize) {
        let snapshot = self.nodes[id].snapshots.remove(at);
        self.ledger.release(&snapshot.state);
        let node = &self.nodes[id];
        if node.children.is_empty() && at == node.snapshots.len() {
            let to = node.snapshots.last().map_or(node.start, |last| last.len);
            self.trim(id, to);
        } else {
            self.queue_again(id);
        }
    }

    /// Looks at what was leased: what no longer is can be lost again.
    pub(in crate::cache) fn end_leases(&mut self) {
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
    pub(super) fn queue_again(&mut self, id: Id) {
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
            // What frees nothing by itself may be all that holds the pages above it: it counts with its share of a page.
            let share = (node.end() - to) as u64 * self.page_bytes() / PAGE_TOKENS as u64;
            let bytes = self.gain(node, to).max(share);
            losses.push((self.worth(used, self.cost(from, node.end()), bytes), Loss::Tail(to)));
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
        let pages: u64 = leaf.pages[kept..].iter().map(|page| self.ledger.gain(page)).sum();
        let states = leaf.snapshots.iter().filter(|s| s.len > to).map(|s| self.ledger.gain(&s.state));
        let tokens = (leaf.end() - to) * size_of::<u32>();
        pages + states.sum::<u64>() + tokens as u64 + whole
    }

    fn worth(&self, used: f64, cost: f64, bytes: u64) -> Worth {
        Worth((used + cost / bytes.max(1) as f64).max(0.0).to_bits())
    }

    /// Milliseconds to compute the tokens `from..to`.
    pub(super) fn cost(&self, from: usize, to: usize) -> f64 {
        let depth = (from + to) as f64 / 2.0;
        self.token_ms * to.saturating_sub(from) as f64 * (1.0 + depth / DEEP)
    }

    /// Cuts a leaf back to `to`, and what is worth nothing without what went.
    pub(super) fn trim(&mut self, id: Id, to: usize) {
        let (mut id, mut to) = (id, to);
        loop {
            let node = &mut self.nodes[id];
            let (start, parent) = (node.start, node.parent);
            let to_pages = if to > start { to.div_ceil(PAGE_TOKENS) - start / PAGE_TOKENS } else { 0 };
            node.pages.drain(to_pages..).for_each(|page| self.ledger.release(&page));
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
}

#[cfg(test)]
impl Tree {
    /// Panics unless all nodes are as they should be; the bytes that they take, counted anew.
    pub(in crate::cache) fn audit(&self) -> u64 {
        use crate::cache::ledger::Slot;
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
            let pages = node.pages.iter().filter_map(Slot::here).map(|p| std::sync::Arc::as_ptr(p).addr());
            let states = node.snapshots.iter().filter_map(|s| Some(s.state.here()?.as_ptr().addr()));
            parts.extend(pages.map(|page| (page, self.page_bytes())));
            parts.extend(states.map(|state| (state, self.state_bytes())));
        }
        assert_eq!((seen, queued), (self.nodes(), self.queue.len()));
        bytes + parts.values().sum::<u64>()
    }
}
