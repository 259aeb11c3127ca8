//! The models of this process: one engine, each model loaded once however many uses it has.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gemma_engine::checkpoint::{self, DEFAULT_MODEL};
use gemma_engine::{
    AdapterChoice, CacheFolder, CacheStatistics, CancelFlag, Engine, EngineOptions, Error, ErrorKind,
    Finished, LoadOptions, Model, Picture,
};

use crate::chat::{ChatModel, ChatRequest, Conversation};
use crate::completion::{self, Answer, Request};
use crate::explain::{self, Explainer, Look, OnProgress};
use crate::models::{self, Choice, Why};
use crate::settings::{Device, KvFormat, Precision, Quantize, Settings};

use super::backend::{
    Backend, Completer, Doing, Heard, Pending, Progress, Resident, Seen, Shown, Talker, Viewer,
};

/// Models of this process.
#[derive(Default)]
pub(super) struct Local {
    /// Held while a model is loaded: who wants the same one meanwhile waits for it.
    running: Mutex<Option<Running>>,
}

/// An engine, kept while the settings that it was started with stay, and its models.
struct Running {
    key: EngineKey,
    engine: Engine,
    models: Vec<(Same, Weak<Model>)>,
}

/// What makes two models the same one.
#[derive(PartialEq, Eq)]
struct Same {
    path: PathBuf,
    adapter: AdapterChoice,
    precision: Precision,
}

/// The settings that an engine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EngineKey {
    device: Device,
    threads: Option<usize>,
    memory_budget_mb: Option<u64>,
    persist_cache_mb: u64,
    kv_format: KvFormat,
    quantize: Quantize,
}

/// Where prefixes are kept for the next session; `None` if they are not.
fn cache_folder(settings: &Settings) -> Option<CacheFolder> {
    let max_bytes = settings.persist_cache_mb.saturating_mul(1 << 20);
    let path = dirs::cache_dir().filter(|_| max_bytes > 0)?.join("gemma-ls").join("prefix");
    Some(CacheFolder { path, max_bytes })
}

impl Running {
    fn start(settings: &Settings) -> Result<Self, Error> {
        let options = EngineOptions {
            threads: settings.threads,
            makes_room: settings.threads.is_none(),
            cache_bytes: settings.memory_budget_mb.map(|mb| mb.saturating_mul(1 << 20)),
            cache_folder: cache_folder(settings),
            device: settings.device.into(),
            kv_format: settings.kv_format.wished(),
            quantize: settings.quantize_at_load(),
            level: None,
        };
        Ok(Self { key: EngineKey::of(settings), engine: Engine::start(options)?, models: Vec::new() })
    }

    /// A model that is loaded already.
    fn loaded(&mut self, same: &Same) -> Option<Arc<Model>> {
        self.models.retain(|(_, model)| model.strong_count() > 0);
        let found = self.models.iter().find(|(loaded, _)| loaded == same);
        found.and_then(|(_, model)| model.upgrade())
    }
}

impl EngineKey {
    fn of(settings: &Settings) -> Self {
        Self {
            device: settings.device,
            threads: settings.threads,
            memory_budget_mb: settings.memory_budget_mb,
            persist_cache_mb: settings.persist_cache_mb,
            kv_format: settings.kv_format,
            quantize: settings.quantize,
        }
    }
}

impl Local {
    /// A model, loaded unless it is here already.
    fn model(
        &self,
        settings: &Settings,
        choice: Choice,
        adapter: AdapterChoice,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Loaded, Error> {
        // A panic in a load leaves the engine without that model, and nothing else behind.
        let mut running = lock(&self.running);
        let running = match running.take().filter(|running| running.key == EngineKey::of(settings)) {
            Some(same) => running.insert(same),
            None => running.insert(Running::start(settings)?),
        };
        let engine = running.engine.clone();
        let same = Same { path: choice.path, adapter, precision: settings.precision };
        if let Some(model) = running.loaded(&same) {
            return Ok(Loaded { engine, model });
        }
        let options = LoadOptions {
            name: Some(choice.name),
            precision: settings.precision.into(),
            adapter: same.adapter.clone(),
            ..LoadOptions::new(&same.path)
        };
        let model = engine.load(options, &mut |p| {
            progress(Progress { doing: Doing::Loading, done: p.done, total: p.total });
        })?;
        running.models.push((same, Arc::downgrade(&model)));
        Ok(Loaded { engine, model })
    }
}

impl Backend for Local {
    fn load(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Completer>, Error> {
        let choice = choose(None, settings, progress)?;
        let adapter = models::adapter(None, settings, &choice);
        Ok(Arc::new(self.model(settings, choice, adapter, progress)?))
    }

    fn talker(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Talker>, Error> {
        let choice = choose(models::for_chat(settings).as_deref(), settings, progress)?;
        let adapter = beside_completions(settings, &choice);
        let loaded = self.model(settings, choice, adapter, progress)?;
        let chat = ChatModel::new(loaded.engine.clone(), loaded.model.clone());
        Ok(Arc::new(Talking { loaded, chat }))
    }

    fn viewer(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Arc<dyn Viewer>, Error> {
        let choice = models::choose_seeing(None, settings)?;
        let writer = models::choose_writer(None, settings, &choice)?;
        let adapter = beside_completions(settings, &choice);
        let loaded = self.model(settings, choice, adapter, progress)?;
        let mut viewing = Viewing { loaded, writer: None, looks: Mutex::default() };
        if let Some(writer) = writer
            && !viewing.explainer(CancelFlag::new())?.converses()
        {
            let adapter = beside_completions(settings, &writer);
            viewing.writer = Some(self.model(settings, writer, adapter, progress)?.model);
        }
        Ok(Arc::new(viewing))
    }
}

/// The model to run. A user who configured none and has none gets the default one.
fn choose(
    named: Option<&str>,
    settings: &Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Choice, Error> {
    let ours = named.is_none() && settings.model.is_none();
    match models::choose(named, settings) {
        Err(error) if error.kind() == ErrorKind::NotFound && ours => {
            let found = checkpoint::pull(DEFAULT_MODEL, &CancelFlag::new(), &mut |p| {
                let total = p.total_bytes.unwrap_or(0);
                progress(Progress { doing: Doing::Downloading, done: p.done_bytes, total });
            })?;
            Ok(Choice { name: found.name, path: found.path, why: Why::Found })
        }
        outcome => outcome,
    }
}

/// The adapter of a model that does something else than complete: the one that it has where it completes too, so that it is
/// loaded once for both.
fn beside_completions(settings: &Settings, choice: &Choice) -> AdapterChoice {
    match models::choose(None, settings) {
        Ok(completes) if completes.path == choice.path => models::adapter(None, settings, &completes),
        _ => AdapterChoice::None,
    }
}

/// A model in an engine, which frees it when this and all its requests are gone.
struct Loaded {
    engine: Engine,
    model: Arc<Model>,
}

/// A use of a loaded model.
trait UseOf: Send + Sync {
    /// The model.
    fn loaded(&self) -> &Loaded;
    /// Bytes of other models that it needs besides.
    fn other_bytes(&self) -> u64 {
        0
    }
}

impl<T: UseOf> Resident for T {
    fn name(&self) -> &str {
        self.loaded().model.name()
    }

    fn device(&self) -> String {
        self.loaded().model.device().to_string()
    }

    fn weight_bytes(&self) -> u64 {
        self.loaded().model.weight_bytes() + self.other_bytes()
    }
}

impl UseOf for Loaded {
    fn loaded(&self) -> &Loaded {
        self
    }
}

impl Completer for Loaded {
    fn cache(&self) -> CacheStatistics {
        self.engine.cache_statistics()
    }

    fn complete<'a>(
        &'a self,
        settings: &'a Settings,
        request: Request,
        cancel: CancelFlag,
        heard: completion::Heard<'a>,
    ) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(completion::complete(&self.engine, &self.model, settings, request, cancel, heard))
    }
}

/// A model that answers questions.
struct Talking {
    loaded: Loaded,
    chat: ChatModel,
}

impl UseOf for Talking {
    fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}

impl Talker for Talking {
    fn follows_instructions(&self) -> bool {
        models::follows_instructions(self.name())
    }

    fn ask(
        &self,
        conversation: &mut Conversation,
        request: ChatRequest,
        cancel: CancelFlag,
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Finished, Error> {
        let reply = self.chat.ask(conversation, request, cancel)?;
        heard(Heard::Shown(Shown {
            prompt_tokens: reply.prompt_tokens,
            turns: conversation.turns().len() / 2,
            dropped: reply.dropped,
        }));
        reply.follow(conversation, |text| heard(Heard::Text(text)))
    }
}

/// So many pictures are kept with what was read of them.
const LOOKS: usize = 4;

/// A model that looks at pictures.
struct Viewing {
    loaded: Loaded,
    writer: Option<Arc<Model>>,
    /// The last ones looked at, the newest first.
    looks: Mutex<VecDeque<Looked>>,
}

/// A picture that was looked at.
struct Looked {
    digest: [u8; 32],
    /// Held while it is explained.
    look: Arc<Mutex<Look>>,
}

impl Viewing {
    fn explainer(&self, cancel: CancelFlag) -> Result<Explainer, Error> {
        let Loaded { engine, model } = &self.loaded;
        let explainer = Explainer::new(engine.clone(), model.clone(), explain::Options::default(), cancel)?;
        Ok(match &self.writer {
            Some(writer) => explainer.with_writer(writer.clone()),
            None => explainer,
        })
    }

    /// What is known of a picture; nothing yet of a new one.
    fn look(&self, explainer: &Explainer, picture: Arc<Picture>) -> Arc<Mutex<Look>> {
        let mut looks = lock(&self.looks);
        let digest = *picture.digest();
        let same = looks.iter().position(|one| one.digest == digest).and_then(|at| looks.remove(at));
        let look = same.map(|one| one.look);
        let look = look.unwrap_or_else(|| Arc::new(Mutex::new(explainer.look(picture))));
        looks.push_front(Looked { digest, look: look.clone() });
        looks.truncate(LOOKS);
        look
    }
}

impl UseOf for Viewing {
    fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn other_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.weight_bytes())
    }
}

impl Viewer for Viewing {
    fn writer(&self) -> Option<&str> {
        self.writer.as_ref().map(|writer| writer.name())
    }

    fn explain(
        &self,
        picture: Arc<Picture>,
        question: Option<&str>,
        cancel: CancelFlag,
        progress: OnProgress<'_>,
    ) -> Result<Seen, Error> {
        let explainer = self.explainer(cancel)?;
        let look = self.look(&explainer, picture);
        let mut look = lock(&look);
        let answer = explainer.explain(&mut look, question, progress)?;
        Ok(Seen { answer, tiles: look.tiles() })
    }
}

/// A panic under one of these locks leaves what was there before it.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
