//! A tree on its way to a file, and back.

use std::collections::HashMap;
use std::sync::Arc;

use gemma_kernels::PAGE_TOKENS;

use super::{Id, Node, ROOT, Snapshot, Tree};
use crate::cache::image::{Contents, Image, Record};
use crate::cache::ledger::{Ledger, Slot};
use crate::cache::sequence::Layout;
use crate::outline::SPANS;

impl Tree {
    /// Where it keeps the parts that are stored.
    pub(in crate::cache) fn image(&self) -> Option<&Image> {
        self.image.as_deref()
    }

    pub(in crate::cache) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Keeps of it what may be written down and what, of that, is worth most within so many bytes.
    pub(in crate::cache) fn keep_the_best(&mut self, bytes: u64) {
        self.leased.clear();
        self.nodes.iter_mut().for_each(|node| node.leases.clear());
        self.recount(Ledger::of_everything());
        self.cut_spans();
        while self.bytes() > bytes && self.next_loss().is_some() {
            self.lose();
        }
    }

    /// Cuts every path before the first span: the names of spans are this process's own.
    fn cut_spans(&mut self) {
        let order = self.in_order();
        let mut doomed = vec![false; self.nodes.len()];
        for &id in &order {
            let node = &self.nodes[id];
            doomed[id] = doomed[node.parent] || node.tokens.iter().any(|&token| token >= SPANS);
        }
        // From the leaves up, so that whatever is cut is a leaf by then.
        for &id in order.iter().rev().filter(|&&id| doomed[id]) {
            let node = &self.nodes[id];
            if node.tokens.is_empty() {
                continue;
            }
            let plain = node.tokens.iter().take_while(|&&token| token < SPANS).count();
            let end = if doomed[node.parent] { node.start } else { node.start + plain };
            let to = match self.layout.state_len() {
                0 => end,
                _ => node.snapshots.iter().rfind(|s| s.len <= end).map_or(node.start, |s| s.len),
            };
            self.trim(id, to);
        }
    }

    /// All nodes but the root, parents before their children.
    fn in_order(&self) -> Vec<Id> {
        let mut order = vec![ROOT];
        let mut next = 0;
        while let Some(&id) = order.get(next) {
            order.extend(self.nodes[id].children.iter().map(|child| child.1));
            next += 1;
        }
        order.split_off(1)
    }

    /// Counts all bytes and puts all nodes into the queue anew.
    fn recount(&mut self, ledger: Ledger) {
        self.ledger = ledger;
        let (page_bytes, state_bytes) = (self.page_bytes(), self.state_bytes());
        let order = self.in_order();
        for &id in &order {
            let node = &self.nodes[id];
            self.ledger.add(Node::BYTES + size_of_val(node.tokens.as_slice()) as u64);
            node.pages.iter().for_each(|page| self.ledger.hold(page, page_bytes));
            node.snapshots.iter().for_each(|s| self.ledger.hold(&s.state, state_bytes));
        }
        order.into_iter().for_each(|id| self.queue_again(id));
    }

    /// Everything in it, as it is written.
    pub(in crate::cache) fn contents(&self, clock: f64) -> Contents {
        let mut contents = Contents { clock, ..Contents::default() };
        let order = self.in_order();
        let places: HashMap<Id, u32> = order.iter().copied().zip(1..).collect();
        let (mut pages, mut states) = (HashMap::new(), HashMap::new());
        for &id in &order {
            let node = &self.nodes[id];
            for page in &node.pages {
                number(page, &mut pages, &mut contents.pages);
            }
            for snapshot in &node.snapshots {
                number(&snapshot.state, &mut states, &mut contents.states);
            }
        }
        let behind_pages = contents.pages.len() as u32;
        for &id in &order {
            let node = &self.nodes[id];
            let state = |slot: &Slot<[f32]>| slot.key().and_then(|key| states.get(&key)).copied();
            let snapshots = node.snapshots.iter();
            contents.records.push(Record {
                parent: places.get(&node.parent).copied().unwrap_or(0),
                used: node.used,
                tokens: node.tokens.clone(),
                pages: node.pages.iter().map(|p| pages.get(&p.key()?).copied()).collect(),
                snapshots: snapshots
                    .filter_map(|s| Some((s.len as u32, behind_pages + state(&s.state)?)))
                    .collect(),
            });
        }
        contents
    }

    /// A tree whose parts are stored in `image`; `None` unless the nodes make one.
    pub(in crate::cache) fn restored(
        layout: Arc<Layout>,
        image: Image,
        records: Vec<Record>,
    ) -> Option<Self> {
        let mut tree = Self::new(layout);
        for (id, record) in (1..).zip(records) {
            let parent = record.parent as usize;
            let (start, first) = (tree.nodes.get(parent)?.end(), *record.tokens.first()?);
            let siblings = &mut tree.nodes[parent].children;
            let place = siblings.binary_search_by_key(&first, |child| child.0).err()?;
            siblings.insert(place, (first, id));
            let snapshots = record.snapshots.into_iter().map(|(len, number)| Snapshot {
                len: len as usize,
                state: Slot::Stored(number),
                used: record.used,
            });
            let node = Node {
                parent,
                start,
                pages: record.pages.into_iter().map(|p| p.map_or(Slot::Gone, Slot::Stored)).collect(),
                snapshots: snapshots.collect(),
                tokens: record.tokens,
                used: record.used,
                ..Node::default()
            };
            let pages = node.end().div_ceil(PAGE_TOKENS) - start / PAGE_TOKENS;
            let in_order = node.snapshots.is_sorted_by(|a, b| a.len < b.len);
            let inside = node.snapshots.iter().all(|s| start < s.len && s.len <= node.end());
            let plain = node.tokens.iter().all(|&token| token < SPANS);
            let used = record.used.is_finite() && record.used >= 0.0;
            if node.pages.len() != pages || !in_order || !inside || !plain || !used {
                return None;
            }
            tree.nodes.push(node);
        }
        let has_state = tree.layout.state_len() > 0;
        let sound = |node: &Node| match node.snapshots.last() {
            Some(last) => has_state && (last.len == node.end() || !node.children.is_empty()),
            None => !has_state || !node.children.is_empty(),
        };
        if !tree.nodes[1..].iter().all(sound) {
            return None;
        }
        tree.image = Some(Arc::new(image));
        tree.recount(Ledger::default());
        Some(tree)
    }

    /// Sets all clocks in it on.
    pub(in crate::cache) fn set_forward(&mut self, by: f64) {
        for id in self.in_order() {
            let node = &mut self.nodes[id];
            node.used += by;
            node.snapshots.iter_mut().for_each(|s| s.used += by);
            self.queue_again(id);
        }
    }
}

/// Gives a part its place in `parts`, unless it has one.
fn number<T: ?Sized>(slot: &Slot<T>, known: &mut HashMap<usize, u32>, parts: &mut Vec<Slot<T>>) {
    if let Some(key) = slot.key() {
        known.entry(key).or_insert_with(|| {
            parts.push(slot.clone());
            parts.len() as u32 - 1
        });
    }
}
