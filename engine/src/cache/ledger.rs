//! Parts that several nodes of a tree may share, and how many bytes they take together.

use std::collections::HashMap;
use std::sync::Arc;

/// A page or a state: in memory, in the file of an earlier session, or gone.
#[derive(Debug)]
pub(super) enum Slot<T: ?Sized> {
    Gone,
    Here(Arc<T>),
    /// The part of this number in the file.
    Stored(u32),
}

impl<T: ?Sized> Clone for Slot<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Gone => Self::Gone,
            Self::Here(part) => Self::Here(part.clone()),
            Self::Stored(number) => Self::Stored(*number),
        }
    }
}

impl<T: ?Sized> Slot<T> {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    /// The part, if it is in memory.
    pub(super) fn here(&self) -> Option<&Arc<T>> {
        match self {
            Self::Here(part) => Some(part),
            _ => None,
        }
    }

    /// What tells parts apart: an address, which is even, or an odd number for what is stored.
    pub(super) fn key(&self) -> Option<usize> {
        match self {
            Self::Gone => None,
            Self::Here(part) => Some(Arc::as_ptr(part).cast::<u8>().addr()),
            Self::Stored(number) => Some(2 * *number as usize + 1),
        }
    }
}

impl<T: ?Sized> From<Option<Arc<T>>> for Slot<T> {
    fn from(part: Option<Arc<T>>) -> Self {
        part.map_or(Self::Gone, Self::Here)
    }
}

/// Counts parts by their addresses. An address stays one part's as long as the ledger's owner holds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    parts: HashMap<usize, Part>,
    bytes: u64,
    /// Whether what is stored counts as if it were here.
    counts_stored: bool,
}

#[derive(Debug, Clone)]
struct Part {
    holders: u32,
    bytes: u64,
}

impl Ledger {
    /// One for which what is stored counts as well.
    pub(super) fn of_everything() -> Self {
        Self { counts_stored: true, ..Self::default() }
    }

    /// Bytes of everything that is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn key<T: ?Sized>(&self, slot: &Slot<T>) -> Option<usize> {
        if matches!(slot, Slot::Stored(_)) && !self.counts_stored { None } else { slot.key() }
    }

    /// One more holds this part of so many bytes.
    pub(super) fn hold<T: ?Sized>(&mut self, slot: &Slot<T>, bytes: u64) {
        let Some(key) = self.key(slot) else { return };
        let part = self.parts.entry(key).or_insert(Part { holders: 0, bytes });
        part.holders += 1;
        if part.holders == 1 {
            self.bytes += bytes;
        }
    }

    /// One less holds this part.
    pub(super) fn release<T: ?Sized>(&mut self, slot: &Slot<T>) {
        let Some(key) = self.key(slot) else { return };
        let Some(held) = self.parts.get_mut(&key) else { return };
        held.holders -= 1;
        if held.holders == 0 {
            self.bytes -= held.bytes;
            self.parts.remove(&key);
        }
    }

    /// Bytes that releasing this part once would give back: none while another holds it too.
    pub(super) fn gain<T: ?Sized>(&self, slot: &Slot<T>) -> u64 {
        let held = self.key(slot).and_then(|key| self.parts.get(&key));
        held.filter(|held| held.holders == 1).map_or(0, |held| held.bytes)
    }

    /// Counts what nobody shares.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Takes back what [`Ledger::add`] counted.
    pub(super) fn take(&mut self, bytes: u64) {
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_hold_counts_once() {
        let mut ledger = Ledger::default();
        let [a, b] = [1_u8, 2].map(|n| Slot::Here(Arc::new([n; 8])));
        ledger.hold(&a, 8);
        ledger.hold(&b, 8);
        ledger.hold(&a.clone(), 8);
        ledger.add(3);
        assert_eq!((ledger.bytes(), ledger.gain(&a), ledger.gain(&b)), (19, 0, 8));
        ledger.release(&a);
        assert_eq!((ledger.bytes(), ledger.gain(&a)), (19, 8));
        ledger.release(&a);
        ledger.release(&b);
        ledger.take(3);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn what_is_stored_counts_where_it_is_asked_for() {
        let stored = Slot::<[u8]>::Stored(0);
        for (mut ledger, bytes) in [(Ledger::default(), 0), (Ledger::of_everything(), 8)] {
            ledger.hold(&stored, 8);
            ledger.hold(&Slot::<[u8]>::Gone, 8);
            assert_eq!((ledger.bytes(), ledger.gain(&stored)), (bytes, bytes));
            ledger.release(&stored);
            assert_eq!(ledger.bytes(), 0);
        }
    }
}
