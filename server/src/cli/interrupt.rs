//! Ctrl-C: the first stops the computing and lets the answer so far be shown, the second ends the process.

use gemma_engine::CancelFlag;

use super::failure::Exit;

/// A flag that the first Ctrl-C sets. Without a handler (which the system may refuse) Ctrl-C simply ends
/// the process.
pub fn flag() -> CancelFlag {
    let flag = CancelFlag::new();
    let cancel = flag.clone();
    let spawned = std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            cancel.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(Exit::Interrupted as i32);
            }
        });
    });
    if let Err(error) = spawned {
        tracing::debug!(%error, "Ctrl-C ends the process: no thread to wait for it");
    }
    flag
}
