//! What is being computed, and who wants to hear of it.

use tokio::sync::watch;

/// Counts computations for as long as they go on, which may be longer than anybody waits for them. Clones
/// count the same.
#[derive(Debug, Clone)]
pub(super) struct Running(watch::Sender<usize>);

impl Default for Running {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Running {
    /// Something is computed until the value that this gives is dropped.
    pub(super) fn begin(&self) -> Computation {
        self.0.send_modify(|count| *count += 1);
        Computation(self.0.clone())
    }

    /// How many there are now.
    pub(super) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Hears of every change from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// Something that is computed.
#[derive(Debug)]
pub(super) struct Computation(watch::Sender<usize>);

impl Drop for Computation {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
