//! One completion a document: a newer request cancels the computing of the older one.
//!
//! Clients do not reliably cancel what they no longer want, so the server does it for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use gemma_engine::CancelFlag;
use tokio::sync::Notify;

/// The running completion of each document.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    running: DashMap<Arc<str>, Running>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    cancel: CancelFlag,
    told: Arc<Notify>,
}

/// The right to complete in one document, until a newer ticket for it is drawn. Dropping it stops the
/// computing, so a handler that is aborted leaves nothing running behind.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    uri: Arc<str>,
    number: u64,
    cancel: CancelFlag,
    told: Arc<Notify>,
}

impl Slots {
    /// No document has anything running.
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws the newest ticket for a document and cancels the one before it. Call it in the order in
    /// which the requests arrived.
    pub fn begin(&self, uri: &Arc<str>) -> Ticket {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (cancel, told) = (CancelFlag::new(), Arc::<Notify>::default());
        let running = Running { number, cancel: cancel.clone(), told: told.clone() };
        if let Some(older) = self.shared.running.insert(uri.clone(), running) {
            older.stop();
        }
        Ticket { shared: self.shared.clone(), uri: uri.clone(), number, cancel, told }
    }

    /// Cancels what runs for a document, for instance when it is closed or edited.
    pub fn cancel(&self, uri: &str) {
        if let Some(running) = self.shared.running.get(uri) {
            running.stop();
        }
    }

    /// How many completions are running.
    pub fn running(&self) -> usize {
        self.shared.running.len()
    }
}

impl Running {
    fn stop(&self) {
        self.cancel.cancel();
        // Kept for the ticket if it does not wait yet.
        self.told.notify_one();
    }
}

impl Ticket {
    /// Waits until a newer ticket is drawn or the document's completion is cancelled. For one waiter.
    pub async fn superseded(&self) {
        if !self.is_superseded() {
            self.told.notified().await;
        }
    }

    /// The flag to hand to the engine.
    pub fn flag(&self) -> CancelFlag {
        self.cancel.clone()
    }

    /// Whether a newer ticket was drawn or the client cancelled.
    pub fn is_superseded(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel.cancel();
        // Only its own entry: a newer ticket may have taken the place.
        self.shared.running.remove_if(&self.uri, |_, running| running.number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_of_a_burst_is_the_only_one_not_cancelled() {
        let slots = Slots::new();
        let uri: Arc<str> = "file:///a".into();
        let tickets: Vec<_> = (0..20).map(|_| slots.begin(&uri)).collect();
        let live: Vec<_> = (0..20).filter(|&i| !tickets[i].is_superseded()).collect();
        assert_eq!(live, [19]);
        assert_eq!(slots.running(), 1);
    }

    #[tokio::test]
    async fn the_older_one_is_told() {
        let slots = Slots::new();
        let uri: Arc<str> = "file:///a".into();
        let older = slots.begin(&uri);
        let waiting = tokio::spawn(async move { older.superseded().await });
        let newer = slots.begin(&uri);
        waiting.await.unwrap();
        slots.cancel(&uri);
        newer.superseded().await;
    }

    #[test]
    fn documents_do_not_disturb_each_other() {
        let slots = Slots::new();
        let a = slots.begin(&"file:///a".into());
        let b = slots.begin(&"file:///b".into());
        assert!(!a.is_superseded() && !b.is_superseded());
        slots.cancel("file:///a");
        assert!(a.is_superseded() && !b.is_superseded());
    }

    #[test]
    fn dropping_stops_the_computing_and_spares_the_newer() {
        let slots = Slots::new();
        let uri: Arc<str> = "file:///a".into();
        let older = slots.begin(&uri);
        let flag = older.flag();
        let newer = slots.begin(&uri);
        drop(older);
        assert!(flag.is_cancelled());
        assert!(!newer.is_superseded());
        assert_eq!(slots.running(), 1);
        drop(newer);
        assert_eq!(slots.running(), 0);
    }
}
