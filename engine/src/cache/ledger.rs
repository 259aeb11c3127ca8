//! How many bytes the parts of a tree take, what several of its nodes share counted once.

use std::collections::HashMap;
use std::sync::Arc;

/// Counts parts by their addresses. An address stays one part's as long as the ledger's owner holds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    parts: HashMap<usize, Part>,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Part {
    holders: u32,
    bytes: u64,
}

impl Ledger {
    /// Bytes of everything that is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One more holds this part of so many bytes.
    pub(super) fn hold<T: ?Sized>(&mut self, part: &Arc<T>, bytes: u64) {
        let part = self.parts.entry(address(part)).or_insert(Part { holders: 0, bytes });
        part.holders += 1;
        if part.holders == 1 {
            self.bytes += bytes;
        }
    }

    /// One less holds this part.
    pub(super) fn release<T: ?Sized>(&mut self, part: &Arc<T>) {
        let address = address(part);
        let Some(held) = self.parts.get_mut(&address) else { return };
        held.holders -= 1;
        if held.holders == 0 {
            self.bytes -= held.bytes;
            self.parts.remove(&address);
        }
    }

    /// Bytes that releasing this part once would give back: none while another holds it too.
    pub(super) fn gain<T: ?Sized>(&self, part: &Arc<T>) -> u64 {
        self.parts.get(&address(part)).filter(|held| held.holders == 1).map_or(0, |held| held.bytes)
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

fn address<T: ?Sized>(part: &Arc<T>) -> usize {
    Arc::as_ptr(part).cast::<u8>().addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_hold_counts_once() {
        let mut ledger = Ledger::default();
        let (a, b) = (Arc::new([0_u8; 8]), Arc::new([0_u8; 8]));
        ledger.hold(&a, 8);
        ledger.hold(&b, 8);
        ledger.hold(&a, 8);
        ledger.add(3);
        assert_eq!((ledger.bytes(), ledger.gain(&a), ledger.gain(&b)), (19, 0, 8));
        ledger.release(&a);
        assert_eq!((ledger.bytes(), ledger.gain(&a)), (19, 8));
        ledger.release(&a);
        ledger.release(&b);
        ledger.take(3);
        assert_eq!(ledger.bytes(), 0);
    }
}
