//! Models that are loaded when they are first asked for, and kept: those that talk and those that see.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gemma_engine::{Error, ErrorKind};
use tokio::sync::mpsc::UnboundedSender;

use crate::settings::Settings;

use super::backend::{Backend, Progress, Resident};
use super::host::{Key, Phase, Status};

/// How a model is loaded.
pub(super) type Load<T> = fn(&dyn Backend, &Settings, &mut dyn FnMut(Progress)) -> Result<Arc<T>, Error>;

/// A model of one use, at most.
pub(super) struct OnDemand<T: ?Sized> {
    /// Held while it is loaded, so that whoever comes meanwhile waits for the same load.
    kept: tokio::sync::Mutex<Option<(Wanted, Arc<T>)>>,
    status: Mutex<Option<Status>>,
}

/// The settings that decide which model it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    key: Key,
    chat_model: Option<String>,
}

impl<T: ?Sized> Default for OnDemand<T> {
    fn default() -> Self {
        Self { kept: tokio::sync::Mutex::default(), status: Mutex::default() }
    }
}

impl<T: Resident + ?Sized + 'static> OnDemand<T> {
    /// The model for these settings, loaded if it is another one than last time. A load goes on when nobody
    /// waits for it any more: the next one who asks will be glad of it.
    pub(super) async fn get(
        self: &Arc<Self>,
        backend: Arc<dyn Backend>,
        settings: Arc<Settings>,
        load: Load<T>,
        progress: UnboundedSender<Progress>,
    ) -> Result<Arc<T>, Error> {
        let this = self.clone();
        let getting = tokio::spawn(async move { this.load(backend, settings, load, progress).await });
        getting.await.unwrap_or_else(|panic| Err(bug(panic)))
    }

    async fn load(
        &self,
        backend: Arc<dyn Backend>,
        settings: Arc<Settings>,
        load: Load<T>,
        progress: UnboundedSender<Progress>,
    ) -> Result<Arc<T>, Error> {
        let wanted = Wanted { key: Key::of(&settings), chat_model: settings.chat_model.clone() };
        let mut kept = self.kept.lock().await;
        if let Some((key, model)) = &*kept
            && *key == wanted
        {
            return Ok(model.clone());
        }
        self.set(Status { state: Phase::Loading, ..Status::default() });
        let loading = tokio::task::spawn_blocking(move || {
            load(backend.as_ref(), &settings, &mut |now| {
                // Nobody may wait for it any more.
                let _ = progress.send(now);
            })
        });
        match loading.await.unwrap_or_else(|panic| Err(bug(panic))) {
            Ok(model) => {
                self.set(Status {
                    name: Some(model.name().to_owned()),
                    state: Phase::Ready,
                    device: Some(model.device()),
                    weight_bytes: Some(model.weight_bytes()),
                    ..Status::default()
                });
                *kept = Some((wanted, model.clone()));
                Ok(model)
            }
            Err(error) => {
                let message = Some(error.to_string());
                self.set(Status { state: Phase::Failed, error: message, ..Status::default() });
                Err(error)
            }
        }
    }

    /// What `gemma/status` tells; nothing before the first use.
    pub(super) fn status(&self) -> Option<Status> {
        self.lock().clone()
    }

    fn set(&self, status: Status) {
        *self.lock() = Some(status);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Status>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bug(panic: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "loading a model", panic)
        .remedy("This is a bug in gemma-ls; please report it.")
}
