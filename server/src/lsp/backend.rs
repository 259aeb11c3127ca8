//! What the protocol side asks of the model side: load a model, complete with it. Behind a trait, so
//! that everything about the protocol is tested without a model.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use gemma_engine::checkpoint::{self, DEFAULT_MODEL};
use gemma_engine::{CancelFlag, Engine, EngineOptions, Error, ErrorKind, LoadOptions, Model};

use crate::completion::{self, Answer, Request};
use crate::models::{self, Choice, Why};
use crate::settings::Settings;

/// A future of a trait's method.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a load does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Doing {
    #[default]
    Loading,
    /// There is no model on this machine and none is configured: the default one is fetched.
    Downloading,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub(super) doing: Doing,
    /// Units done.
    pub(super) done: u64,
    /// Units in all; 0 while that is not known.
    pub(super) total: u64,
}

impl Progress {
    /// Whole percent, once the total is known.
    pub(super) fn percent(self) -> Option<u32> {
        let percent = self.done.saturating_mul(100).checked_div(self.total)?;
        Some(u32::try_from(percent.min(100)).unwrap_or(100))
    }
}

/// Makes completers out of settings.
pub(super) trait Backend: Send + Sync + 'static {
    /// Loads the model that the settings ask for. Blocks for as long as that takes.
    fn load(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Completer>, Error>;
}

/// A loaded model that completes.
pub(super) trait Completer: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> &str;
    /// Where it computes, in words.
    fn device(&self) -> String;
    /// Bytes its weights take in memory.
    fn weight_bytes(&self) -> u64;
    /// Bytes kept for reuse right now. Blocks for as long as a step of the model takes.
    fn cache_bytes(&self) -> u64;
    /// Completes once; `cancel` stops the computing.
    fn complete<'a>(
        &'a self,
        settings: &'a Settings,
        request: Request,
        cancel: CancelFlag,
    ) -> Pending<'a, Result<Answer, Error>>;
}

/// Models of this process. The engine is kept while the settings that it was started with stay.
#[derive(Default)]
pub(super) struct Local {
    engine: Mutex<Option<(EngineKey, Engine)>>,
}

/// The settings that an engine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EngineKey {
    threads: Option<usize>,
    memory_budget_mb: Option<u64>,
}

impl Local {
    fn engine(&self, settings: &Settings) -> Result<Engine, Error> {
        let key = EngineKey { threads: settings.threads, memory_budget_mb: settings.memory_budget_mb };
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((running, engine)) = &*engine
            && *running == key
        {
            return Ok(engine.clone());
        }
        let options = EngineOptions {
            threads: settings.threads,
            cache_bytes: settings.memory_budget_mb.map(|mb| mb.saturating_mul(1 << 20)),
        };
        let started = Engine::start(options)?;
        *engine = Some((key, started.clone()));
        Ok(started)
    }
}

impl Backend for Local {
    fn load(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Completer>, Error> {
        let choice = choose(settings, progress)?;
        let engine = self.engine(settings)?;
        let options =
            LoadOptions { path: choice.path, name: Some(choice.name), precision: settings.precision.into() };
        let model = engine.load(options, &mut |p| {
            progress(Progress { doing: Doing::Loading, done: p.done, total: p.total });
        })?;
        Ok(Arc::new(Loaded { engine, model }))
    }
}

/// The model to run. A user who configured none and has none gets the default one.
fn choose(settings: &Settings, progress: &mut dyn FnMut(Progress)) -> Result<Choice, Error> {
    match models::choose(None, settings) {
        Err(error) if error.kind() == ErrorKind::NotFound && settings.model.is_none() => {
            let found = checkpoint::pull(DEFAULT_MODEL, &mut |p| {
                let total = p.total_bytes.unwrap_or(0);
                progress(Progress { doing: Doing::Downloading, done: p.done_bytes, total });
            })?;
            Ok(Choice { name: found.name, path: found.path, why: Why::Found })
        }
        outcome => outcome,
    }
}

/// A model in an engine, which frees it when this and all its requests are gone.
struct Loaded {
    engine: Engine,
    model: Arc<Model>,
}

impl Completer for Loaded {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn device(&self) -> String {
        let info = self.engine.device();
        format!("{} ({}, {} threads)", info.device, info.level, info.threads)
    }

    fn cache_bytes(&self) -> u64 {
        self.engine.cache_bytes()
    }

    fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    fn complete<'a>(
        &'a self,
        settings: &'a Settings,
        request: Request,
        cancel: CancelFlag,
    ) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(completion::complete(&self.engine, &self.model, settings, request, cancel))
    }
}
