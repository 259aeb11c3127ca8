//! One thread owns the models; requests wait in a queue by priority and are worked on in steps.
//!
//! A step is a part of a picture or a pass: a chunk of prefill, a token with what may follow it. A pass is put aside
//! between two layers, or two parts of the product with the vocabulary, as soon as something more urgent waits: a
//! keystroke waits for the hundredth part of a chat's token. *Invariant:* every request gets exactly one end.

mod job;
mod pace;
mod pictures;
mod share;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cache::{CacheFolder, CacheStatistics, Kept, PrefixCache, Sequence};
use crate::engine::{Logits, LogitsRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{CancelFlag, Priority};
use crate::model::{Input, Interrupt, Network, Rows};
use crate::outline::Outline;

pub(crate) use job::Job;
use job::Tools;
use pace::Pace;
use pictures::PictureCache;
pub(crate) use share::Share;

/// After so long without a request, what is kept is written for the next session.
const IDLE: Duration = Duration::from_secs(180);

/// Loads a model again, to the processor; it is told why.
pub(crate) type Fallback = Box<dyn FnOnce(String) -> Result<Network> + Send>;

/// What the engine's thread is told.
pub(crate) enum Command {
    /// Take over a model, what an earlier session kept of it, and how it is loaded again if its GPU fails it.
    Add { id: u64, network: Box<Network>, kept: Option<Box<Kept>>, fallback: Option<Fallback> },
    /// Forget a model; none of its jobs is left.
    Remove(u64),
    /// Work on a request.
    Submit(Box<Job>),
    /// Compute all logits of a sequence; its split is there and adds up.
    Logits {
        model: u64,
        request: LogitsRequest,
        adapted: bool,
        outline: Outline,
        reply: Sender<Result<Logits>>,
    },
    /// Compute the features of a picture given as its pixel values.
    Features { model: u64, pixels: Vec<f32>, reply: Sender<Result<Vec<f32>>> },
    /// Report on the prefix cache.
    CacheStatistics(Sender<CacheStatistics>),
    /// Look again whether something is to be done.
    Wake,
    /// End the thread.
    Stop,
}

/// Requests that were submitted and that the engine's thread has not looked at yet, by priority.
#[derive(Debug, Default)]
pub(crate) struct Waiting([AtomicUsize; 3]);

impl Waiting {
    fn add(&self, priority: Priority) {
        self.0[priority as usize].fetch_add(1, Ordering::Release);
    }

    fn take(&self, priority: Priority) {
        self.0[priority as usize].fetch_sub(1, Ordering::Release);
    }

    fn more_urgent_than(&self, priority: Priority) -> bool {
        self.0[priority as usize + 1..].iter().any(|count| count.load(Ordering::Acquire) > 0)
    }
}

/// Has less urgent work put aside for a request that is being made ready; until it is dropped.
pub struct Expectation {
    waiting: Arc<Waiting>,
    commands: Sender<Command>,
    priority: Priority,
}

impl Drop for Expectation {
    fn drop(&mut self) {
        self.waiting.take(self.priority);
        // If the thread is gone, nothing was put aside.
        let _ = self.commands.send(Command::Wake);
    }
}

/// The engine's thread, seen from outside.
pub(crate) struct Scheduler {
    commands: Sender<Command>,
    waiting: Arc<Waiting>,
    shutdown: CancelFlag,
    thread: Option<JoinHandle<()>>,
}

impl Scheduler {
    /// `share`: the threads that make room for other programs.
    pub(crate) fn start(
        cache_bytes: u64,
        cache_folder: Option<CacheFolder>,
        share: Option<Share>,
    ) -> Result<Self> {
        let (commands, receiver) = channel();
        let (shutdown, waiting) = (CancelFlag::new(), Arc::<Waiting>::default());
        let worker = Worker {
            waiting: waiting.clone(),
            commands: receiver,
            shutdown: shutdown.clone(),
            cache: PrefixCache::new(cache_bytes).stored_in(cache_folder),
            pictures: PictureCache::new(cache_bytes / 8),
            sender: commands.clone(),
            networks: HashMap::new(),
            fallbacks: HashMap::new(),
            paces: HashMap::new(),
            share,
            jobs: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("gemma-engine".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| {
                Error::new(ErrorKind::Resources, "engine", format!("its thread does not start: {e}"))
                    .remedy("Close other programs, or raise the limit of threads of this user.")
            })?;
        Ok(Self { commands, waiting, shutdown, thread: Some(thread) })
    }

    /// A sender for things that outlive a borrow of this.
    pub(crate) fn sender(&self) -> Sender<Command> {
        self.commands.clone()
    }

    /// Set once the engine stops; running steps look at it.
    pub(crate) fn shutdown(&self) -> &CancelFlag {
        &self.shutdown
    }

    /// Has less urgent work put aside for a request that will be submitted in a moment.
    pub(crate) fn expect(&self, priority: Priority) -> Expectation {
        self.waiting.add(priority);
        Expectation { waiting: self.waiting.clone(), commands: self.commands.clone(), priority }
    }

    /// Queues a request; whatever is less urgent is put aside for it.
    pub(crate) fn submit(&self, job: Box<Job>) {
        self.waiting.add(job.priority());
        self.send(Command::Submit(job));
    }

    /// Hands a command over. If the thread is gone, the command is dropped, and with it the channel
    /// its sender waits on.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Its panics were caught and answered where they happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    commands: Receiver<Command>,
    waiting: Arc<Waiting>,
    shutdown: CancelFlag,
    cache: PrefixCache,
    pictures: PictureCache,
    /// For models that are loaded again.
    sender: Sender<Command>,
    networks: HashMap<u64, Box<Network>>,
    fallbacks: HashMap<u64, Fallback>,
    /// What the passes of each model cost.
    paces: HashMap<u64, Pace>,
    /// The threads that make room for other programs, if they do.
    share: Option<Share>,
    /// In order of arrival.
    jobs: Vec<Job>,
}

impl Worker {
    fn run(mut self) {
        while self.take_commands() {
            self.step();
        }
        if let Err(error) = guarded(|| self.cache.close()) {
            tracing::error!("prefixes for the next session were not written: {error}");
        }
    }

    /// Waits for a command. What has changed in the cache is written when there is none for long.
    fn wait(&mut self) -> std::result::Result<Command, TryRecvError> {
        while self.cache.is_stored() {
            match self.commands.recv_timeout(IDLE) {
                Ok(command) => return Ok(command),
                Err(RecvTimeoutError::Disconnected) => return Err(TryRecvError::Disconnected),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = guarded(|| self.cache.save()) {
                        tracing::error!("prefixes for the next session were not written: {error}");
                    }
                }
            }
        }
        self.commands.recv().map_err(|_| TryRecvError::Disconnected)
    }

    /// Takes what has arrived, waiting while there is nothing to do. `false` ends the thread.
    fn take_commands(&mut self) -> bool {
        loop {
            let command = match self.next() {
                None => self.wait(),
                Some(next) if self.is_held(next) => {
                    self.commands.recv().map_err(|_| TryRecvError::Disconnected)
                }
                Some(_) => self.commands.try_recv(),
            };
            match command {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Who is worked for next. Who is not wanted any more goes first: what was computed for it is then there for
    /// the others, and ending costs nothing. Then the first of the highest priority: among equals whoever came
    /// first.
    fn next(&self) -> Option<usize> {
        let urgency = |&i: &usize| (self.jobs[i].is_over(), self.jobs[i].priority());
        (0..self.jobs.len()).rev().max_by_key(urgency)
    }

    /// Whether a job stands aside for a request that is being made ready: its making needs the processor too.
    fn is_held(&self, job: usize) -> bool {
        let job = &self.jobs[job];
        !job.is_over() && self.waiting.more_urgent_than(job.priority())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { id, network, kept, fallback } => {
                self.networks.insert(id, network);
                self.fallbacks.extend(fallback.map(|fallback| (id, fallback)));
                if let Some(kept) = kept {
                    self.cache.begin(id, *kept);
                }
            }
            Command::Remove(id) => {
                self.networks.remove(&id);
                self.fallbacks.remove(&id);
                self.paces.remove(&id);
                self.cache.forget(id);
                self.pictures.forget(id);
            }
            Command::Submit(job) => {
                self.waiting.take(job.priority());
                self.jobs.push(*job);
            }
            Command::Logits { model, request, adapted, outline, reply } => {
                let result = guarded(|| self.logits(model, &request, adapted, &outline)).unwrap_or_else(Err);
                let _ = reply.send(result);
            }
            Command::Features { model, pixels, reply } => {
                let result = guarded(|| self.features(model, &pixels)).unwrap_or_else(Err);
                let _ = reply.send(result);
            }
            Command::CacheStatistics(reply) => {
                let picture_bytes = self.pictures.bytes();
                let _ = reply.send(CacheStatistics { picture_bytes, ..self.cache.statistics() });
            }
            Command::Wake | Command::Stop => {}
        }
    }

    /// One step of the most urgent job.
    fn step(&mut self) {
        let Some(i) = self.next() else { return };
        if let Some(share) = &mut self.share {
            share.look();
        }
        let job = &mut self.jobs[i];
        let (networks, cache, pictures) = (&mut self.networks, &mut self.cache, &mut self.pictures);
        let (pace, waiting) = (self.paces.entry(job.model_id()).or_default(), &*self.waiting);
        let done = guarded(|| match networks.get_mut(&job.model_id()) {
            Some(network) => {
                let done = job.step(&mut Tools { network, cache, pictures, pace, waiting })?;
                job.tell_speed(pace);
                if let Some(speed) = pace.speed() {
                    cache.set_token_ms(job.model_id(), speed.prefill_ms);
                }
                Ok(done)
            }
            None => Ok(job.fail(Error::new(
                ErrorKind::Stopped,
                job.model_name(),
                "it is not loaded: unloaded, or on its way from the GPU to the processor",
            ))),
        });
        match done.flatten() {
            Ok(false) => {}
            Ok(true) => drop(self.jobs.remove(i)),
            Err(error) => {
                let mut job = self.jobs.remove(i);
                tracing::error!("a request failed: {error}");
                if matches!(error.kind(), ErrorKind::DeviceLost | ErrorKind::DeviceFull) {
                    self.fall_back(job.model_id(), &error);
                }
                job.fail(error);
            }
        }
    }

    /// Loads a model to the processor whose GPU was lost or has no room for its work, on a thread of its own.
    fn fall_back(&mut self, model: u64, why: &Error) {
        let Some(fallback) = self.fallbacks.remove(&model) else { return };
        self.networks.remove(&model);
        self.paces.remove(&model);
        self.cache.give_up(model);
        let (commands, why) = (self.sender.clone(), why.problem().to_owned());
        let load = move || match fallback(why) {
            Ok(network) => {
                let (network, kept, fallback) = (Box::new(network), None, None);
                // If the engine has stopped meanwhile, nobody misses it.
                let _ = commands.send(Command::Add { id: model, network, kept, fallback });
            }
            Err(error) => tracing::error!("the model was not loaded to the processor either: {error}"),
        };
        if let Err(error) = std::thread::Builder::new().name("gemma-fallback".to_owned()).spawn(load) {
            tracing::error!("no thread to load the model to the processor: {error}");
        }
    }

    fn logits(
        &mut self,
        model: u64,
        request: &LogitsRequest,
        adapted: bool,
        outline: &Outline,
    ) -> Result<Logits> {
        let pictures = request.pictures.iter().map(|pixels| self.features(model, pixels));
        let features = pictures.collect::<Result<Vec<_>>>()?;
        let network = self.networks.get_mut(&model).ok_or_else(stopped)?;
        let interrupt = Interrupt { shutdown: self.shutdown.clone(), ..Interrupt::default() };
        let mut sequence = Sequence::new(network.layout().clone());
        let ids = &request.ids;
        let mut data = Vec::with_capacity(ids.len() * network.config().vocab);
        let mut from = 0;
        for len in request.split.as_deref().unwrap_or(&[ids.len()]) {
            let piece = from..from + len;
            let runs = outline.pictures.iter().zip(&features);
            let pictures: Vec<_> = runs
                .filter(|(run, _)| piece.contains(&run.start))
                .map(|(run, features)| (run.start - from, features.as_slice()))
                .collect();
            let text = Input::text(&ids[piece]);
            let input = Input { pictures: &pictures, spans: &outline.spans, adapted, ..text };
            data.extend(network.forward(&mut sequence, input, Rows::All, &interrupt)?.ok_or_else(stopped)?);
            from += len;
        }
        Ok(Logits { rows: ids.len(), vocab: network.config().vocab, data })
    }

    fn features(&self, model: u64, pixels: &[f32]) -> Result<Vec<f32>> {
        let network = self.networks.get(&model).ok_or_else(stopped)?;
        let mut picture = network.begin_picture(pixels)?.ok_or_else(|| {
            let problem = match &network.config().vision {
                Some(vision) => format!("{} numbers, the tower takes {}", pixels.len(), vision.pixels()),
                None => format!("{} reads no pictures", network.config().name()),
            };
            Error::new(ErrorKind::Input, "pixel values", problem)
        })?;
        loop {
            if self.shutdown.is_cancelled() {
                return Err(stopped());
            }
            if let Some(features) = network.read_on(&mut picture)? {
                return Ok(features);
            }
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "engine", "it was stopped, or the model unloaded")
}

/// Runs `work`; a panic in it, a bug of ours, becomes an error and the thread lives on.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Error::new(ErrorKind::Internal, "engine", format!("a bug stopped this request ({message})"))
            .remedy("Please report it with the log; the engine goes on with the next request.")
    })
}
