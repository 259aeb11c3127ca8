//! Ctrl-C: it stops what is computed and lets the answer so far be shown; where nothing is, or a second
//! time, it ends the process.

use std::sync::{Arc, Mutex, PoisonError};

use gemma_engine::CancelFlag;

use super::failure::Exit;

/// What Ctrl-C stops. Clones mean the same.
#[derive(Clone, Default)]
pub struct Interrupts {
    running: Arc<Mutex<Option<CancelFlag>>>,
}

impl Interrupts {
    /// Listens from now on. Without a handler (which the system may refuse) Ctrl-C simply ends the process.
    pub fn start() -> Self {
        let interrupts = Self::default();
        let heard = interrupts.clone();
        let spawned = std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
                return;
            };
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if !heard.stop() {
                        std::process::exit(Exit::Interrupted as i32);
                    }
                }
            });
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "Ctrl-C ends the process: no thread to wait for it");
        }
        interrupts
    }

    /// Something is computed from now on; the flag stops it.
    pub fn begin(&self) -> CancelFlag {
        let flag = CancelFlag::new();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(flag.clone());
        flag
    }

    /// It is done.
    pub fn end(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Stops what is computed; false when nothing is, or it was told to stop already.
    fn stop(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.as_ref().filter(|flag| !flag.is_cancelled()) {
            Some(flag) => {
                flag.cancel();
                true
            }
            None => false,
        }
    }
}

/// A flag that the first Ctrl-C sets; the second ends the process.
pub fn flag() -> CancelFlag {
    Interrupts::start().begin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_stopped_once_and_between_answers_nothing_is() {
        let interrupts = Interrupts::default();
        assert!(!interrupts.stop(), "nothing runs");
        for _ in 0..2 {
            let flag = interrupts.begin();
            assert!(interrupts.stop() && flag.is_cancelled());
            assert!(!interrupts.stop(), "the second time it is over");
        }
        let flag = interrupts.begin();
        interrupts.end();
        assert!(!interrupts.stop() && !flag.is_cancelled());
    }
}
