//! Loading models into engines, and asking them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use gemma_engine::{
    AdapterChoice, Engine, EngineOptions, Finished, GenerateRequest, Level, LoadOptions, LogitsRequest,
    Model, Picture, Precision, Sampling, Stop, Token,
};

use crate::numbers::Matrix;

/// How a model computes on the processor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// In what numbers.
    pub precision: Precision,
    /// With what instructions; `None`: the best of this machine.
    pub level: Option<Level>,
}

impl Arithmetic {
    /// These precisions with each set of instructions that this machine has; the oracle has none of them.
    pub fn all(precisions: &[Precision]) -> Vec<Self> {
        let levels = |precision: &Precision| match precision {
            Precision::Reference => vec![None],
            _ => Level::available().into_iter().map(Some).collect(),
        };
        let each = |&precision: &Precision| {
            levels(&precision).into_iter().map(move |level| Self { precision, level })
        };
        precisions.iter().flat_map(each).collect()
    }
}

impl From<Precision> for Arithmetic {
    fn from(precision: Precision) -> Self {
        Self { precision, level: None }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.precision)?;
        self.level.map_or(Ok(()), |level| write!(f, ", {level:?}"))
    }
}

/// An engine with one model in it.
pub struct Loaded {
    /// The engine.
    pub engine: Engine,
    /// The model.
    pub model: Arc<Model>,
}

/// A generation: its tokens one by one, and its end.
pub struct Generated {
    /// The tokens as they came.
    pub tokens: Vec<Token>,
    /// The end.
    pub finished: Finished,
}

impl Generated {
    /// The tokens' ids.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

impl Loaded {
    /// Starts an engine and loads a model into it.
    pub fn new(path: &Path, arithmetic: impl Into<Arithmetic>) -> Self {
        let Arithmetic { precision, level } = arithmetic.into();
        Self::with(path, precision, EngineOptions { level, ..EngineOptions::default() })
    }

    /// The same with an engine of these options.
    pub fn with(path: &Path, precision: Precision, options: EngineOptions) -> Self {
        let engine = Engine::start(options).unwrap_or_else(|e| panic!("{e}"));
        Self::load(engine, LoadOptions { precision, ..LoadOptions::new(path) })
    }

    /// A model with an adapter beside it.
    pub fn adapted(path: &Path, adapter: &Path, arithmetic: impl Into<Arithmetic>) -> Self {
        let Arithmetic { precision, level } = arithmetic.into();
        let adapter = AdapterChoice::At(adapter.to_path_buf());
        let options = LoadOptions { precision, adapter, ..LoadOptions::new(path) };
        let engine = Engine::start(EngineOptions { level, ..EngineOptions::default() });
        Self::load(engine.unwrap_or_else(|e| panic!("{e}")), options)
    }

    fn load(engine: Engine, options: LoadOptions) -> Self {
        let model = engine.load(options, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        Self { engine, model }
    }

    /// The logits of every position, fed in pieces.
    pub fn logits(&self, ids: &[u32], split: Option<&[usize]>) -> Matrix {
        self.logits_of(LogitsRequest {
            ids: ids.to_vec(),
            split: split.map(<[usize]>::to_vec),
            ..LogitsRequest::default()
        })
    }

    /// The logits of every position of a sequence, with pictures or without.
    pub fn logits_of(&self, request: LogitsRequest) -> Matrix {
        let tokens = request.ids.len();
        let logits = self.engine.logits(&self.model, request).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(logits.rows, tokens, "a row of logits for each token");
        assert_eq!(logits.data.len(), logits.rows * logits.vocab);
        Matrix { cols: logits.vocab, data: logits.data }
    }

    /// Greedy tokens behind a prompt; the model's own end tokens do not stop them.
    pub fn greedy(&self, prompt: &[u32], max_tokens: usize) -> Generated {
        let stop = Stop { ignore_eos: true, ..Stop::default() };
        self.generate(prompt, max_tokens, Sampling::default(), stop)
    }

    /// A generation, waited for.
    pub fn generate(&self, prompt: &[u32], max_tokens: usize, sampling: Sampling, stop: Stop) -> Generated {
        self.run(self.request(prompt, Vec::new(), max_tokens, sampling, stop))
    }

    /// Greedy tokens behind a prompt with pictures; the model's own end tokens do not stop them.
    pub fn greedy_about(&self, prompt: &[u32], pictures: &[Arc<Picture>], max_tokens: usize) -> Generated {
        let stop = Stop { ignore_eos: true, ..Stop::default() };
        self.run(self.request(prompt, pictures.to_vec(), max_tokens, Sampling::default(), stop))
    }

    /// A request at the priority of a chat, to be changed or submitted.
    pub fn request(
        &self,
        prompt: &[u32],
        pictures: Vec<Arc<Picture>>,
        max_tokens: usize,
        sampling: Sampling,
        stop: Stop,
    ) -> GenerateRequest {
        GenerateRequest {
            pictures,
            sampling,
            stop,
            logprobs: true,
            ..GenerateRequest::new(self.model.clone(), prompt.to_vec(), max_tokens)
        }
    }

    /// A request, waited for.
    pub fn run(&self, request: GenerateRequest) -> Generated {
        let mut tokens = Vec::new();
        let finished = self.engine.submit(request).finish_blocking(|token| tokens.push(token.clone()));
        Generated { tokens, finished: finished.unwrap_or_else(|e| panic!("{e}")) }
    }
}

/// The logarithm of a token's probability, which was asked for.
pub fn certainty(token: &Token) -> f32 {
    token.logprob.expect("the request asked for probabilities")
}
