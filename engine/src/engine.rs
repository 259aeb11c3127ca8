//! The public face: start an engine, load models into it, submit requests, read tokens.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use gemma_kernels::cuda::{self, CudaError, Device};
use gemma_kernels::{Activation, Cpu, Format, KvFormat, Level, Ops, Reference};
use tokio::sync::mpsc::unbounded_channel;

use crate::adapter::Adapter;
use crate::cache::{CacheFolder, CacheStatistics, Kept, Layout};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{GenerateRequest, Priority, TokenStream};
use crate::machine;
use crate::model::{Network, load_device, load_host};
use crate::options::{DeviceChoice, EngineOptions, LoadOptions, LoadProgress, Precision, QuantizeAtLoad};
use crate::outline::Outline;
use crate::quantize;
use crate::scheduler::{Command, Expectation, Fallback, Job, Scheduler, Share};
use crate::tokenizer::{FimTokens, Tokenizer};

/// A loaded model: what anyone may know of it. The weights themselves belong to the engine's thread, which
/// frees them when the last handle to the model is dropped.
pub struct Model {
    pub(crate) id: u64,
    name: String,
    config: ModelConfig,
    tokenizer: Tokenizer,
    weight_bytes: u64,
    bytes_of_token: u64,
    kv_bytes_per_token: u64,
    chat_template: Option<String>,
    adapter: Option<Arc<Adapter>>,
    pub(crate) speed: Mutex<Option<Speed>>,
    device: Arc<Mutex<DeviceInfo>>,
    commands: Sender<Command>,
}

impl Model {
    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
    /// Its tokenizer; usable from any thread.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// Bytes its weights take in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
    /// Bytes of them that decoding a token reads at least, of which only the best next tokens are wanted.
    pub fn bytes_of_token(&self) -> u64 {
        self.bytes_of_token
    }
    /// Bytes that one token's keys and values take in the cache.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.kv_bytes_per_token
    }
    /// The adapter that it was loaded with.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }
    /// The fill-in-the-middle ids that its adapter taught it, else those that its vocabulary names.
    pub fn fim(&self) -> Option<FimTokens> {
        let taught = self.adapter.as_ref().and_then(|adapter| adapter.infill());
        taught.map(|infill| infill.tokens).or_else(|| self.tokenizer.fim())
    }
    /// Whether a request that fills nothing in should do without the adapter: one that teaches to fill in was trained on
    /// nothing else.
    pub fn adapter_infills(&self) -> bool {
        self.adapter.as_ref().is_some_and(|adapter| adapter.infill().is_some())
    }
    /// What a token takes, once some were computed.
    pub fn speed(&self) -> Option<Speed> {
        *self.speed.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What computes it now: a GPU that fails gives way to the processor.
    pub fn device(&self) -> DeviceInfo {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The checkpoint's own chat template, where it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // If the thread is gone, so are the weights.
        let _ = self.commands.send(Command::Remove(self.id));
    }
}

/// A sequence whose logits are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogitsRequest {
    /// The tokens, `<bos>` included.
    pub ids: Vec<u32>,
    /// Lengths of the pieces in which they are fed through the cache; `None`: all at once.
    pub split: Option<Vec<usize>>,
    /// What the runs of image tokens stand for, in order: pixel values `[3, image_size, image_size]` in -1..=1.
    pub pictures: Vec<Vec<f32>>,
    /// How many of the tokens are the prompt, which a PaliGemma sees in both directions; `None`: all.
    pub prefix: Option<usize>,
    /// Computes without the model's adapter.
    pub base_alone: bool,
}

/// All logits of a sequence, for holding a checkpoint against another implementation.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Tokens.
    pub rows: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// `[rows, vocab]`, row-major, after the final soft cap.
    pub data: Vec<f32>,
}

/// What computes, for people who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `cpu` or `cuda`.
    pub device: String,
    /// Instructions in use (`amx`, `avx512` or `avx2`; on ARM `i8mm`, `dotprod` or `neon`; else `portable`), or the GPU's
    /// name.
    pub level: String,
    /// Compute threads of the processor.
    pub threads: usize,
    /// Why it is the processor, where a GPU was wished for.
    pub why: Option<String>,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device.as_str() {
            "cpu" => write!(f, "cpu ({}, {} threads)", self.level, self.threads),
            device => write!(f, "{device} ({})", self.level),
        }
    }
}

/// What one token of a model takes on this machine, as measured lately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Milliseconds for a prompt's token, among many.
    pub prefill_ms: f64,
    /// Milliseconds for a generated token.
    pub decode_ms: f64,
}

/// What bounds the speed of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes a second from memory.
    pub bandwidth: f64,
    /// Floating-point operations a second.
    pub peak: f64,
}

/// A handle to the engine; clones share one engine, which stops with the last of them.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    scheduler: Scheduler,
    cache_folder: Option<CacheFolder>,
    quantize: Option<QuantizeAtLoad>,
    cpu: Arc<Cpu>,
    gpu: Gpu,
    kv_format: Option<KvFormat>,
    next_model: AtomicU64,
    /// One load at a time: two would fight over the compute threads and the disk.
    loading: Mutex<()>,
}

/// The GPU that models are loaded to.
enum Gpu {
    /// None is wished for.
    Unwanted,
    /// None can be used, and why not. A model may be loaded to the processor instead, or not.
    Missing(CudaError, bool),
    /// This one; what it has no room for may go to the processor, or not.
    Open(Device, bool),
}

impl Gpu {
    fn open(choice: &DeviceChoice) -> Self {
        let may_fall_back = matches!(choice, DeviceChoice::Auto);
        match choice {
            DeviceChoice::Cpu => Self::Unwanted,
            DeviceChoice::Given(device) => Self::Open(device.clone(), true),
            DeviceChoice::Auto | DeviceChoice::Cuda => match cuda::open(0) {
                Ok(device) => Self::Open(device, may_fall_back),
                Err(error) => Self::Missing(error, may_fall_back),
            },
        }
    }
}

impl Engine {
    /// Starts the engine's thread and its compute threads.
    pub fn start(options: EngineOptions) -> Result<Self> {
        let threads = options.threads.unwrap_or_else(Cpu::physical_cores).max(1);
        let cache_bytes = options.cache_bytes.unwrap_or_else(|| total_memory() / 4);
        let cpu = Arc::new(Cpu::new(threads, options.level.unwrap_or_else(Level::detect)));
        let share = options.makes_room.then(|| Share::new(cpu.clone()));
        let inner = Inner {
            scheduler: Scheduler::start(cache_bytes, options.cache_folder.clone(), share)?,
            cache_folder: options.cache_folder,
            quantize: options.quantize,
            cpu,
            gpu: Gpu::open(&options.device),
            kv_format: options.kv_format,
            next_model: AtomicU64::new(1),
            loading: Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What computes unless a model does not fit.
    pub fn device(&self) -> DeviceInfo {
        match &self.inner.gpu {
            Gpu::Open(device, _) => self.gpu_info(device),
            Gpu::Missing(error, _) => self.cpu_info(Some(error.to_string())),
            Gpu::Unwanted => self.cpu_info(None),
        }
    }

    fn cpu_info(&self, why: Option<String>) -> DeviceInfo {
        let level = format!("{:?}", self.inner.cpu.level()).to_lowercase();
        DeviceInfo { device: "cpu".to_owned(), level, threads: self.inner.cpu.threads(), why }
    }

    fn gpu_info(&self, device: &Device) -> DeviceInfo {
        let level = device.properties().name.clone();
        DeviceInfo { device: "cuda".to_owned(), level, ..self.cpu_info(None) }
    }

    /// What bounds a model's speed where it runs, measured: takes a second or two, in which nothing else should run.
    pub fn measure_limits(&self, model: &Model) -> Result<Limits> {
        let (bandwidth, peak) = match &self.inner.gpu {
            Gpu::Open(device, _) if model.device().device == "cuda" => {
                (device.measure_bandwidth()?, device.peak())
            }
            _ => (self.inner.cpu.measure_bandwidth(), self.inner.cpu.measure_peak()),
        };
        Ok(Limits { bandwidth, peak })
    }

    /// What is kept for reuse right now, and what that was good for. Waits for the running step.
    pub fn cache_statistics(&self) -> CacheStatistics {
        let (reply, answer) = channel();
        self.inner.scheduler.send(Command::CacheStatistics(reply));
        answer.recv().unwrap_or_default()
    }

    /// Bytes that are kept for reuse right now, pictures included. Waits for the running step.
    pub fn cache_bytes(&self) -> u64 {
        let statistics = self.cache_statistics();
        statistics.bytes + statistics.picture_bytes
    }

    /// Loads a model on the calling thread; requests for other models go on meanwhile.
    pub fn load(&self, options: LoadOptions, progress: &mut dyn FnMut(LoadProgress)) -> Result<Arc<Model>> {
        let _one_at_a_time = self.inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let checkpoint = self.quantised(Checkpoint::open(&options.path)?, options.precision, progress);
        let adapter = options.adapter.open(&checkpoint)?.map(Arc::new);
        let tokenizer = match checkpoint.tokenizer() {
            // Without one a model still runs by token ids.
            Err(e) if e.kind() == ErrorKind::NotFound => Tokenizer::missing(e, checkpoint.path())?,
            other => other?,
        };
        let prepared = tokenizer.clone();
        // Beside the weights, which take longer. Without it the first half word takes the time.
        let _ =
            std::thread::Builder::new().name("gemma-spelling".to_owned()).spawn(move || prepared.prepare());
        let (network, info) = std::thread::scope(|scope| {
            // Without a thread to spare for it each page is read when it is wanted.
            let _ = std::thread::Builder::new()
                .name("gemma-readahead".to_owned())
                .spawn_scoped(scope, || checkpoint.read_ahead());
            self.network(&checkpoint, adapter.as_deref(), options.precision, progress)
        })?;
        let id = self.inner.next_model.fetch_add(1, Ordering::Relaxed);
        let kv = network.layout().kv().format();
        let device = Arc::new(Mutex::new(info.clone()));
        let model = Model {
            id,
            name: options.name.unwrap_or_else(|| file_name(&options.path)),
            config: network.config().clone(),
            tokenizer,
            weight_bytes: network.weight_bytes(),
            bytes_of_token: network.bytes_of_token(),
            kv_bytes_per_token: network.config().kv_bytes_per_token(kv) as u64,
            chat_template: checkpoint.chat_template().map(str::to_owned),
            adapter: adapter.clone(),
            speed: Mutex::default(),
            device: device.clone(),
            commands: self.inner.scheduler.sender(),
        };
        let kept = self.inner.cache_folder.as_ref().and_then(|folder| {
            // What one adapter computes is of no use to another, or to the base.
            let adapter = adapter.as_ref().map(|adapter| adapter.digest());
            let level = self.inner.cpu.level();
            let how = format!("{:?} {kv:?} {} {level:?} {adapter:?}", options.precision, info.device);
            Kept::look(folder, checkpoint.path(), &how, network.layout())
        });
        let fallback = matches!(network, Network::Device(_)).then(|| {
            let (cpu, info) = (self.inner.cpu.clone(), self.cpu_info(None));
            let kv = kv_format(&checkpoint, options.precision, self.inner.kv_format);
            let again = move |why| {
                let network =
                    host_network(&checkpoint, adapter.as_deref(), options.precision, kv, &cpu, &mut |_| {})?;
                *device.lock().unwrap_or_else(PoisonError::into_inner) =
                    DeviceInfo { why: Some(why), ..info };
                Ok(network)
            };
            Box::new(again) as Fallback
        });
        self.inner.scheduler.send(Command::Add {
            id,
            network: Box::new(network),
            kept: kept.map(Box::new),
            fallback,
        });
        Ok(Arc::new(model))
    }

    /// The quantised copy of a folder, if copies are wished for; what cannot be quantised, or written, is used as it is.
    fn quantised(
        &self,
        checkpoint: Checkpoint,
        precision: Precision,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Checkpoint {
        let Some(QuantizeAtLoad { kind, folder }) = &self.inner.quantize else { return checkpoint };
        if checkpoint.gguf().is_some() || precision == Precision::Reference {
            return checkpoint;
        }
        quantize::cached(&checkpoint, *kind, folder, self.inner.cpu.threads(), progress).unwrap_or_else(|e| {
            tracing::warn!("{} is used as it is and not as {kind}: {e}", checkpoint.path().display());
            checkpoint
        })
    }

    /// The checkpoint's weights, on the GPU if there is one with room for them.
    fn network(
        &self,
        checkpoint: &Checkpoint,
        adapter: Option<&Adapter>,
        precision: Precision,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(Network, DeviceInfo)> {
        let why = match &self.inner.gpu {
            _ if precision == Precision::Reference => None,
            Gpu::Unwanted => None,
            Gpu::Missing(error, true) => Some(error.to_string()),
            Gpu::Missing(error, false) => return Err(error.clone().into()),
            Gpu::Open(device, may_fall_back) => {
                match load_device(checkpoint, adapter, device, precision == Precision::Exact, progress) {
                    Ok(network) => {
                        if self.inner.kv_format.is_some_and(|wished| wished != network.layout().kv().format())
                        {
                            tracing::warn!(
                                "keys and values on the GPU are kept in f16, not as kvFormat says"
                            );
                        }
                        return Ok((Network::Device(Box::new(network)), self.gpu_info(device)));
                    }
                    Err(error) if *may_fall_back && error.is_of_device() => {
                        tracing::warn!("{} goes to the processor: {error}", checkpoint.path().display());
                        Some(error.to_string())
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let kv = kv_format(checkpoint, precision, self.inner.kv_format);
        let network = host_network(checkpoint, adapter, precision, kv, &self.inner.cpu, progress)?;
        Ok((network, self.cpu_info(why)))
    }

    /// Has less urgent work put aside for a request of this priority that is being made ready, until what comes back is
    /// dropped: the making takes milliseconds, and would share the processor with a chat.
    pub fn expect(&self, priority: Priority) -> Expectation {
        self.inner.scheduler.expect(priority)
    }

    /// Queues a request; never blocks. A prompt that is empty, too long, or has ids outside the
    /// vocabulary ends with an error.
    pub fn submit(&self, request: GenerateRequest) -> TokenStream {
        let (events, receiver) = unbounded_channel();
        let shutdown = self.inner.scheduler.shutdown().clone();
        let outline = check_prompt(&request.model, &request.prompt).and_then(|()| {
            Outline::new(request.model.config(), &request.prompt, request.pictures.len(), None)
        });
        let (outline, checked) = match outline {
            Ok(outline) => (outline, Ok(())),
            Err(error) => (Outline::default(), Err(error)),
        };
        let mut job = Job::new(request, outline, events, shutdown);
        match checked {
            Ok(()) => self.inner.scheduler.submit(Box::new(job)),
            Err(error) => drop(job.fail(error)),
        }
        TokenStream { events: receiver }
    }

    /// The logits of every position of a sequence, fed through a fresh cache. Blocks.
    ///
    /// Fails when there is no token, one outside the vocabulary, or another number of pictures than the tokens
    /// stand for, and when the split does not add up, or cuts a picture (a PaliGemma's prompt) in two: what
    /// sees forward is computed at once.
    pub fn logits(&self, model: &Arc<Model>, request: LogitsRequest) -> Result<Logits> {
        let LogitsRequest { ids, split, pictures, prefix, base_alone } = &request;
        let adapted = model.adapter.is_some() && !base_alone;
        check_prompt(model, ids)?;
        let outline = Outline::new(model.config(), ids, pictures.len(), *prefix)?;
        check_split(split.as_deref(), ids.len(), &outline)?;
        let (reply, answer) = channel();
        self.inner.scheduler.send(Command::Logits { model: model.id, request, adapted, outline, reply });
        answer.recv().unwrap_or_else(|_| Err(Error::new(ErrorKind::Stopped, "engine", "it was stopped")))
    }

    /// What a picture, `[3, image_size, image_size]` in -1..=1, becomes among the embeddings:
    /// `[tokens, hidden]`. Blocks.
    ///
    /// Fails when the model reads no pictures, or none of this size.
    pub fn picture_features(&self, model: &Arc<Model>, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let (reply, answer) = channel();
        self.inner.scheduler.send(Command::Features { model: model.id, pixels, reply });
        answer.recv().unwrap_or_else(|_| Err(Error::new(ErrorKind::Stopped, "engine", "it was stopped")))
    }
}

/// A checkpoint's weights on the processor.
fn host_network(
    checkpoint: &Checkpoint,
    adapter: Option<&Adapter>,
    precision: Precision,
    kv: KvFormat,
    cpu: &Arc<Cpu>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Network> {
    let (ops, activation): (Arc<dyn Ops>, _) = match precision {
        Precision::Fast => (cpu.clone(), Activation::Rounded),
        Precision::Exact => (cpu.clone(), Activation::F32),
        Precision::Reference => (Arc::new(Reference), Activation::F32),
    };
    Ok(Network::Host(Box::new(load_host(checkpoint, adapter, ops, activation, kv, progress)?)))
}

fn check_split(split: Option<&[usize]>, len: usize, outline: &Outline) -> Result<()> {
    let Some(split) = split else { return Ok(()) };
    let error = |problem: String| Err(Error::new(ErrorKind::Input, "split", problem));
    let total = split.iter().try_fold(0usize, |sum, &piece| sum.checked_add(piece));
    if total != Some(len) || split.contains(&0) {
        return error(format!("its pieces must be positive and add up to {len} tokens"));
    }
    let mut end = 0;
    for piece in split {
        end += piece;
        if let Some(span) = outline.cut(end) {
            let (first, behind) = (span.start, span.end);
            return error(format!(
                "{end} lies inside {first}..{behind}, where tokens see each other both ways"
            ));
        }
    }
    Ok(())
}

fn check_prompt(model: &Model, ids: &[u32]) -> Result<()> {
    let error = |problem| Err(Error::new(ErrorKind::Input, format!("prompt for {}", model.name()), problem));
    let config = model.config();
    if ids.is_empty() {
        return error("it is empty".to_owned());
    }
    let image_token = config.vision.as_ref().map(|vision| vision.image_token);
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab && Some(id) != image_token) {
        return error(format!("token id {id} is not below the vocabulary's {}", config.vocab));
    }
    if let Some(most) = config.longest().filter(|&most| ids.len() > most) {
        let problem = format!("it has {} tokens, the model reads {most} at most", ids.len());
        return error(problem);
    }
    Ok(())
}

/// How keys and values are kept on the processor. Where the checkpoint's numbers are f32, somebody wants them so.
fn kv_format(checkpoint: &Checkpoint, precision: Precision, wished: Option<KvFormat>) -> KvFormat {
    match wished {
        _ if precision != Precision::Fast => KvFormat::F32,
        Some(wished) => wished,
        None if checkpoint.format() == Format::F32 => KvFormat::F32,
        None => KvFormat::F16,
    }
}

/// Bytes that a model of this checkpoint, loaded for [`Precision::Fast`], remembers of a prompt of `tokens` tokens: keys and
/// values (`kv` as in [`EngineOptions::kv_format`]), the recurrent layers' state, and the snapshots of it that are kept to
/// go back to.
pub fn context_bytes(checkpoint: &Checkpoint, tokens: usize, kv: Option<KvFormat>) -> u64 {
    Layout::new(checkpoint.config(), kv_format(checkpoint, Precision::Fast, kv), None).bytes(tokens)
}

fn file_name(path: &std::path::Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Bytes of memory of this machine; 4 GiB where it does not say.
fn total_memory() -> u64 {
    machine::memory_bytes().unwrap_or(4 << 30)
}
