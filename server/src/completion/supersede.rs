//! One request a document: a newer one takes the place of the older one, which is answered at once.
//!
//! Clients do not reliably cancel what they no longer want, so the server does it for them. Whether what was
//! computed for the older one goes on is the business of [`running`](super::running).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;

/// The newest request of each document.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    newest: DashMap<Arc<str>, Newest>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Newest {
    number: u64,
    superseded: watch::Sender<bool>,
}

/// The right to be answered in one document, until a newer ticket for it is drawn.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    uri: Arc<str>,
    number: u64,
    superseded: watch::Receiver<bool>,
}

impl Slots {
    /// No document has a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws the newest ticket for a document; the one before it is superseded. Call it in the order in
    /// which the requests arrived.
    pub fn begin(&self, uri: &Arc<str>) -> Ticket {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, superseded) = watch::channel(false);
        if let Some(older) = self.shared.newest.insert(uri.clone(), Newest { number, superseded: sender }) {
            older.superseded.send_replace(true);
        }
        Ticket { shared: self.shared.clone(), uri: uri.clone(), number, superseded }
    }

    /// Nobody wants an answer in a document any more, for instance because it is closed.
    pub fn cancel(&self, uri: &str) {
        if let Some(newest) = self.shared.newest.get(uri) {
            newest.superseded.send_replace(true);
        }
    }

    /// How many documents have a request.
    pub fn len(&self) -> usize {
        self.shared.newest.len()
    }

    /// Whether no document has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ticket {
    /// Waits until a newer ticket is drawn or nobody wants the answer any more.
    pub async fn superseded(&self) {
        // Without a sender there is a newer ticket.
        let _ = self.superseded.clone().wait_for(|superseded| *superseded).await;
    }

    /// Whether that is so.
    pub fn is_superseded(&self) -> bool {
        *self.superseded.borrow()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Only its own entry: a newer ticket may have taken the place.
        self.shared.newest.remove_if(&self.uri, |_, newest| newest.number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_of_a_burst_is_the_only_one_not_superseded() {
        let slots = Slots::new();
        let uri: Arc<str> = "file:///a".into();
        let tickets: Vec<_> = (0..20).map(|_| slots.begin(&uri)).collect();
        let live: Vec<_> = (0..20).filter(|&i| !tickets[i].is_superseded()).collect();
        assert_eq!(live, [19]);
        assert_eq!(slots.len(), 1);
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
    fn dropping_the_older_one_spares_the_newer() {
        let slots = Slots::new();
        let uri: Arc<str> = "file:///a".into();
        let older = slots.begin(&uri);
        let newer = slots.begin(&uri);
        drop(older);
        assert!(!newer.is_superseded());
        assert_eq!(slots.len(), 1);
        drop(newer);
        assert!(slots.is_empty());
    }
}
