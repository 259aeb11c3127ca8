//! What one conversation with an editor has in common: documents, settings, the model, what was told.
//!
//! Shared by all handlers. Every change here is made without waiting, so that handlers can make it
//! before their first wait.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use serde_json::Value;
use tempfile::TempPath;
use tokio::sync::watch;
use tower_lsp::Client;
use tower_lsp::gen_lsp_types::MessageType;

use crate::completion::Layouts;
use crate::completion::reuse::Recent;
use crate::context::index::{Coverage, Index};
use crate::documents::Documents;
use crate::permission::Permission;
use crate::settings::{LogLevel, Problem, Settings};
use crate::text::Encoding;

use super::ahead::Ahead;
use super::ask::Lane;
use super::backend::{Talker, Viewer};
use super::chats::Chats;
use super::counting::Counting;
use super::host::Host;
use super::on_demand::OnDemand;
use super::progress::{Outbox, Stoppable};
use super::record::Record;
use super::running::Running;

/// Told of the setting `logLevel` whenever it may have changed.
pub type OnLogLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The state of one conversation.
pub(super) struct Session {
    pub(super) client: Client,
    /// For what has to reach the client before an answer does.
    pub(super) outbox: Outbox,
    /// What was begun on tokens of the client, and can be stopped by them.
    pub(super) stoppable: Stoppable,
    pub(super) chats: Chats,
    /// The models that answer questions and that look at pictures: loaded when first asked.
    pub(super) talkers: Arc<OnDemand<dyn Talker>>,
    pub(super) viewers: Arc<OnDemand<dyn Viewer>>,
    pub(super) documents: Documents,
    /// What the files of the workspace define.
    pub(super) index: Arc<Index>,
    /// Ghost text, and menus.
    pub(super) inline: Arc<Lane>,
    pub(super) menu: Arc<Lane>,
    /// What is computed before anybody asks.
    pub(super) ahead: Ahead,
    pub(super) recent: Recent,
    /// What the prompts of each place showed last.
    pub(super) layouts: Arc<Layouts>,
    pub(super) host: Host,
    pub(super) record: Record,
    /// What becomes of suggestions.
    pub(super) counting: Counting,
    /// Computations going on, also those that nobody waits for any more.
    pub(super) running: Running,
    /// Counts edits, to wake what was computed for an older text.
    pub(super) edits: watch::Sender<u64>,
    /// True once the conversation ends.
    pub(super) closing: watch::Sender<bool>,
    agreed: OnceLock<Agreed>,
    roots: RwLock<Vec<PathBuf>>,
    sources: Mutex<Sources>,
    config: RwLock<Arc<Config>>,
    on_log_level: OnLogLevel,
    /// Numbers the attempts to get the client's configuration; only the newest counts.
    asked_for_configuration: AtomicU64,
    initialized: AtomicBool,
    started: AtomicBool,
    shut_down: AtomicBool,
    told: Mutex<HashSet<String>>,
    /// Files made to be shown; removed with the session.
    shown: Mutex<Vec<TempPath>>,
}

/// What was agreed on at `initialize`.
#[derive(Debug, Clone, Default)]
pub(super) struct Agreed {
    pub(super) encoding: Encoding,
    /// The client shows progress that the server begins.
    pub(super) progress: bool,
    /// The client answers `workspace/configuration`.
    pub(super) configuration: bool,
    /// The client wants to be asked to tell of configuration changes.
    pub(super) register_configuration: bool,
    /// The client wants to be asked to tell of changes on disk.
    pub(super) register_watching: bool,
    /// The client renders Markdown beside its menu.
    pub(super) markdown: bool,
    /// The client changes documents when the server asks it to.
    pub(super) apply_edit: bool,
    /// The client opens files when the server asks it to.
    pub(super) show_document: bool,
    /// The client takes code actions; others take only commands in their place.
    pub(super) code_actions: bool,
    /// The client carries out our commands itself.
    pub(super) commands: bool,
    /// The client wants to hear of changes of the status.
    pub(super) status: bool,
}

/// The settings in force, and what follows from them.
pub(super) struct Config {
    pub(super) settings: Arc<Settings>,
    pub(super) permission: Permission,
    pub(super) problems: Vec<Problem>,
}

/// Where settings come from, each over the one before.
struct Sources {
    base: Settings,
    base_problems: Vec<Problem>,
    options: Value,
    configuration: Value,
}

impl Sources {
    fn config(&self) -> Config {
        let (settings, more) = self.base.updated(&self.options);
        let (settings, yet_more) = settings.updated(&self.configuration);
        let problems = [self.base_problems.clone(), more, yet_more].concat();
        Config { permission: Permission::new(&settings), settings: Arc::new(settings), problems }
    }
}

impl Session {
    pub(super) fn new(
        client: Client,
        outbox: Outbox,
        host: Host,
        start: super::Start,
        closing: watch::Sender<bool>,
    ) -> Self {
        let sources = Sources {
            base: start.settings,
            base_problems: start.problems,
            options: Value::Null,
            configuration: Value::Null,
        };
        Self {
            client,
            outbox,
            stoppable: Stoppable::default(),
            chats: Chats::default(),
            talkers: Arc::default(),
            viewers: Arc::default(),
            documents: Documents::new(),
            index: Arc::new(Index::new()),
            inline: Arc::default(),
            menu: Arc::default(),
            ahead: Ahead::default(),
            recent: Recent::new(),
            layouts: Arc::default(),
            host,
            record: Record::default(),
            counting: Counting::new(start.statistics),
            running: Running::default(),
            edits: watch::Sender::new(0),
            closing,
            agreed: OnceLock::new(),
            roots: RwLock::default(),
            config: RwLock::new(Arc::new(sources.config())),
            sources: Mutex::new(sources),
            on_log_level: start.on_log_level,
            asked_for_configuration: AtomicU64::new(0),
            initialized: AtomicBool::new(false),
            started: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            told: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// What was agreed on; the protocol's defaults before `initialize`.
    pub(super) fn agreed(&self) -> Agreed {
        self.agreed.get().cloned().unwrap_or_default()
    }

    /// The first agreement stands: a second `initialize` is an error of the client.
    pub(super) fn agree(&self, agreed: Agreed) {
        let _ = self.agreed.set(agreed);
    }

    /// The settings in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the `initializationOptions`.
    pub(super) fn set_options(&self, options: Value) {
        lock(&self.sources).options = section(options);
        self.configure();
    }

    /// Begins an attempt to get the client's configuration. What comes of earlier ones is void.
    pub(super) fn ask_for_configuration(&self) -> u64 {
        self.asked_for_configuration.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Takes the configuration that attempt `number` brought.
    pub(super) fn set_configuration(&self, number: u64, configuration: Value) {
        let mut sources = lock(&self.sources);
        if self.asked_for_configuration.load(Ordering::SeqCst) != number {
            return;
        }
        sources.configuration = section(configuration);
        drop(sources);
        self.configure();
    }

    /// Puts the settings of all sources in force.
    fn configure(&self) {
        let config = Arc::new(lock(&self.sources).config());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
        (self.on_log_level)(config.settings.log_level);
        if self.started.load(Ordering::SeqCst) {
            self.take_effect();
        }
    }

    /// Whether this is the first `initialized` of the conversation: one model loader is enough for any client.
    pub(super) fn is_first_initialized(&self) -> bool {
        !self.initialized.swap(true, Ordering::SeqCst)
    }

    /// From now on the settings have effects outside: a model is loaded, problems are told.
    pub(super) fn start(&self) {
        self.started.store(true, Ordering::SeqCst);
        self.take_effect();
    }

    fn take_effect(&self) {
        let config = self.config();
        self.host.want(&config.settings);
        self.cover();
        for problem in &config.problems {
            self.tell_once(MessageType::Warning, format!("gemma-ls settings: {problem}"));
        }
    }

    /// Shows a message to the user and logs it; the same one only once in a session.
    pub(super) fn tell_once(&self, kind: MessageType, text: String) {
        /// A client that invents problems without end must not fill the memory with them.
        const MOST: usize = 1000;
        let mut told = lock(&self.told);
        if told.len() >= MOST || !told.insert(text.clone()) {
            return;
        }
        drop(told);
        if kind == MessageType::Info {
            tracing::info!("{text}");
        } else {
            tracing::warn!("{text}");
        }
        let client = self.client.clone();
        tokio::spawn(async move {
            client.log_message(kind, &text).await;
            client.show_message(kind, &text).await;
        });
    }

    /// Keeps a file that the client shows until the session ends.
    pub(super) fn keep(&self, shown: TempPath) {
        lock(&self.shown).push(shown);
    }

    /// The text of a document has changed.
    pub(super) fn edited(&self, uri: &str) {
        // First of all those who wait for a text hear of it; what becomes of what they wait for comes second.
        self.edits.send_modify(|edits| *edits += 1);
        if let Some(document) = self.documents.snapshot(uri) {
            self.inline.edited(&document);
            self.menu.edited(&document);
            self.ahead.edited(&document);
        }
    }

    /// The folders of the workspace.
    pub(super) fn change_roots(&self, removed: &[PathBuf], added: Vec<PathBuf>) {
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        roots.retain(|root| !removed.contains(root) && !added.contains(root));
        roots.extend(added);
        drop(roots);
        if self.started.load(Ordering::SeqCst) {
            self.cover();
        }
    }

    /// Keeps the index to the folders and the settings in force.
    fn cover(&self) {
        let settings = self.config().settings.clone();
        let wanted = settings.workspace_index && settings.completion.other_files_tokens > 0;
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let roots = if wanted && !self.is_shut_down() { roots.clone() } else { Vec::new() };
        self.index.cover(Coverage { roots, secret_files: settings.secret_files.clone() });
    }

    /// The innermost folder of the workspace that holds a file.
    pub(super) fn root_of(&self, path: &Path) -> Option<PathBuf> {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let holding = roots.iter().filter(|root| path.starts_with(root));
        holding.max_by_key(|root| root.components().count()).cloned()
    }

    /// Notes that the client said `shutdown`, and stops what is running.
    pub(super) fn shut_down(&self) {
        self.shut_down.store(true, Ordering::SeqCst);
        self.closing.send_replace(true);
        self.cover();
    }

    /// Whether the client said `shutdown`.
    pub(super) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::SeqCst)
    }
}

/// Our section of what a client sends: some send `{"gemma": {...}}`, some what is in it.
fn section(mut value: Value) -> Value {
    match value.get_mut("gemma") {
        Some(section) => section.take(),
        None => value,
    }
}

/// No lock here is held over anything that can leave its data half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
