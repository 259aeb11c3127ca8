//! The model in use: loaded in the background, replaced when the settings ask for another one, the old
//! one kept until the new one is ready.
//!
//! One load runs at a time. What is wanted may change meanwhile; then its result is dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gemma_engine::checkpoint::{DEFAULT_MODEL, LICENCE_PAGE, known};
use gemma_engine::{Error, ErrorKind};
use serde::Serialize;
use tokio::sync::watch;
use tower_lsp::gen_lsp_types::{MessageType, ProgressToken};
use tower_lsp::{Bounded, NotCancellable, OngoingProgress};

use crate::settings::{Device, KvFormat, Precision, Quantize, Settings};

use super::backend::{Backend, Completer, Doing, Progress};
use super::session::Session;

/// How long a client may take to agree to show progress.
const PATIENCE: Duration = Duration::from_secs(5);

/// The model in use, and the one that is wanted.
pub(super) struct Host {
    backend: Arc<dyn Backend>,
    wanted: watch::Sender<Option<Wanted>>,
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

/// A model to load, by the settings that make it the one it is.
#[derive(Clone)]
struct Wanted {
    settings: Arc<Settings>,
    key: Key,
}

/// The settings that decide which model completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    model: Option<String>,
    adapter: Option<String>,
    device: Device,
    threads: Option<usize>,
    memory_budget_mb: Option<u64>,
    precision: Precision,
    kv_format: KvFormat,
    quantize: Quantize,
}

impl Key {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            model: settings.model.clone(),
            adapter: settings.adapter.clone(),
            device: settings.device,
            threads: settings.threads,
            memory_budget_mb: settings.memory_budget_mb,
            precision: settings.precision,
            kv_format: settings.kv_format,
            quantize: settings.quantize,
        }
    }
}

#[derive(Default)]
struct State {
    current: Option<Arc<dyn Completer>>,
    loading: Option<watch::Receiver<Progress>>,
    /// Why the last load failed, until one succeeds.
    error: Option<String>,
}

impl State {
    /// A load begins, or will as soon as the one before it ends.
    fn begin(&mut self) -> watch::Sender<Progress> {
        let (progress, watching) = watch::channel(Progress::default());
        self.loading = Some(watching);
        self.error = None;
        progress
    }
}

/// What `gemma/status` tells of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// The model in use.
    pub(super) name: Option<String>,
    pub(super) state: Phase,
    /// How far the load is, in percent, while that is known.
    pub(super) percent: Option<u32>,
    /// Why the last load failed, and what to do.
    pub(super) error: Option<String>,
    pub(super) device: Option<String>,
    pub(super) weight_bytes: Option<u64>,
}

/// Whether there is a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// It is being loaded, or will be once the client has told which one it wants. Another one may
    /// complete meanwhile.
    #[default]
    Loading,
    Ready,
    /// The last load failed. The model before it, if there is one, goes on completing.
    Failed,
}

impl Host {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        let (wanted, changes) = (watch::Sender::new(None), watch::Sender::new(()));
        Self { backend, wanted, state: Mutex::default(), changes }
    }

    /// Asks for the model of these settings; nothing happens when it is the one asked for already.
    pub(super) fn want(&self, settings: &Arc<Settings>) {
        let key = Key::of(settings);
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.as_ref().is_none_or(|wanted| wanted.key != key);
            if is_new {
                self.state().begin();
                *wanted = Some(Wanted { settings: settings.clone(), key });
            }
            is_new
        });
        self.changed();
    }

    /// Hears of every change of [`Self::status`] from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }

    /// What a load does now, in words.
    pub(super) fn doing(&self) -> String {
        let doing =
            self.state().loading.as_ref().map_or(Doing::default(), |progress| progress.borrow().doing);
        let wanted = self.wanted.borrow();
        let named = wanted.as_ref().and_then(|wanted| wanted.settings.model.as_deref());
        match (doing, named) {
            (Doing::Loading, Some(name)) => format!("Loading {}", short(name)),
            _ => self::doing(doing).to_owned(),
        }
    }

    /// Where models come from.
    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }

    /// The model that completes, if there is one.
    pub(super) fn current(&self) -> Option<Arc<dyn Completer>> {
        self.state().current.clone()
    }

    /// Whether the last load failed and no other model is there.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.state();
        state.current.is_none() && state.loading.is_none() && state.error.is_some()
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        let current = state.current.as_ref();
        let phase = match (&state.loading, current, &state.error) {
            (Some(_), ..) => Phase::Loading,
            (None, _, Some(_)) => Phase::Failed,
            (None, Some(_), None) => Phase::Ready,
            (None, None, None) => Phase::Loading,
        };
        Status {
            name: current.map(|model| model.name().to_owned()),
            state: phase,
            percent: state.loading.as_ref().and_then(|progress| progress.borrow().percent()),
            error: state.error.clone(),
            device: current.map(|model| model.device()),
            weight_bytes: current.map(|model| model.weight_bytes()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Each change is one store; a panic between two leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads what is wanted, for as long as the session lasts.
pub(super) async fn keep_loaded(session: Arc<Session>) {
    let mut wanted = session.host.wanted.subscribe();
    let mut closing = session.closing.subscribe();
    let work = async {
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Some(now) = now {
                load(&session, now).await;
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = closed(&mut closing) => {}
    }
}

/// Waits until the conversation ends.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the session is gone, which is the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn load(session: &Arc<Session>, wanted: Wanted) {
    let host = &session.host;
    let progress = host.state().begin();
    tokio::spawn(report(session.clone(), progress.subscribe()));
    host.changed();
    let (backend, settings, changes) = (host.backend.clone(), wanted.settings.clone(), host.changes.clone());
    let loading = tokio::task::spawn_blocking(move || {
        backend.load(&settings, &mut |now| {
            progress.send_replace(now);
            changes.send_replace(());
        })
    });
    let result = loading.await.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Internal, "loading a model", panic)
            .remedy("This is a bug in gemma-ls; please report it."))
    });

    let still_wanted = host.wanted.borrow().as_ref().is_some_and(|now| now.key == wanted.key);
    if !still_wanted {
        return;
    }
    let mut state = host.state();
    state.loading = None;
    match result {
        Ok(model) => {
            tracing::info!("{} is ready on {}", model.name(), model.device());
            let old = state.current.replace(model);
            drop(state);
            drop(old);
            host.changed();
        }
        Err(error) => {
            state.error = Some(error.to_string());
            drop(state);
            host.changed();
            session.tell_once(MessageType::Error, format!("gemma-ls cannot load the model. {error}"));
        }
    }
}

/// Tells the user of a load until it ends.
async fn report(session: Arc<Session>, mut progress: watch::Receiver<Progress>) {
    let mut shown = *progress.borrow_and_update();
    let ongoing = begin_progress(&session, shown).await;
    loop {
        let now = *progress.borrow_and_update();
        // A download costs the user time and space: it is announced, also where no progress is shown.
        if now.doing == Doing::Downloading {
            session.tell_once(MessageType::Info, announcement());
        }
        if (now.doing, now.percent()) != (shown.doing, shown.percent())
            && let Some(ongoing) = &ongoing
        {
            ongoing.report_with_message(doing(now.doing), now.percent().unwrap_or(0)).await;
            shown = now;
        }
        if progress.changed().await.is_err() {
            break;
        }
    }
    if let Some(ongoing) = ongoing {
        ongoing.finish().await;
    }
}

/// Begins to show progress, where the client does that.
async fn begin_progress(
    session: &Session,
    now: Progress,
) -> Option<OngoingProgress<Bounded, NotCancellable>> {
    let token = create_progress(session, "load").await?;
    let progress = session.client.progress(token, "gemma-ls").with_percentage(now.percent().unwrap_or(0));
    Some(progress.with_message(doing(now.doing)).begin().await)
}

/// A token of the server's on which the client shows progress; `None` where it does not. Never to be awaited
/// by a handler: the client's answer is a message like any other.
pub(super) async fn create_progress(session: &Session, what: &str) -> Option<ProgressToken> {
    if !session.agreed().progress {
        return None;
    }
    let token = ProgressToken::String(format!("gemma-ls/{what}/{}", next_number()));
    let creating = session.client.create_work_done_progress(token.clone());
    // The protocol: a client that refuses gets no progress.
    matches!(tokio::time::timeout(PATIENCE, creating).await, Ok(Ok(()))).then_some(token)
}

/// What people call a model that is named so: of a path, the file's name.
fn short(name: &str) -> &str {
    let file = name.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(name);
    file.strip_suffix(".gguf").unwrap_or(file)
}

/// What a load does, in words.
pub(super) fn doing(doing: Doing) -> &'static str {
    match doing {
        Doing::Loading => "Loading the model",
        Doing::Downloading => "Downloading the default model",
    }
}

fn announcement() -> String {
    let model = known(DEFAULT_MODEL).map_or_else(
        || "the default model".to_owned(),
        |entry| format!("{} ({} MB), a small one", entry.local_name(), entry.bytes / 1_000_000),
    );
    format!(
        "gemma-ls: there is no model on this machine yet; downloading {model}. \
         Gemma is provided under and subject to the Gemma Terms of Use: {LICENCE_PAGE}"
    )
}

fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
