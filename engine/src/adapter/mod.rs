//! Low-rank adapters (LoRA, Hu et al. 2021): a few trained numbers that are added to the products of a base model, and
//! rows that stand in place of its embeddings. From PEFT's folders and from llama.cpp's GGUF files.

mod built_in;
mod gguf;
mod peft;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use gemma_kernels::{Format, quant};
use sha2::{Digest, Sha256};

use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::map::{MappedFile, cannot_read};
use crate::checkpoint::names;
use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::FimTokens;

pub use built_in::built_in;

/// What PEFT calls an adapter's configuration.
pub(crate) const CONFIG_FILE: &str = "adapter_config.json";

/// The largest rank that is read: beyond it the numbers are no longer few.
const MOST_RANK: usize = 1024;

/// An adapter, read whole.
#[derive(Clone)]
pub struct Adapter {
    name: String,
    path: PathBuf,
    /// What its file calls its base.
    base: Option<String>,
    /// Of its base, where its file says.
    architecture: Option<Architecture>,
    /// By the canonical names of modules (`model.layers.3.self_attn.q_proj`).
    modules: BTreeMap<String, Factors>,
    rows: BTreeMap<u32, Vec<f32>>,
    infill: Option<Infill>,
    digest: [u8; 32],
}

/// What is added to the product of one module: `up (down x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Rows of `down`, columns of `up`.
    pub rank: usize,
    /// `[rank, in]`, row-major.
    pub down: Vec<f32>,
    /// `[out, rank]`, row-major, with the adapter's scale in it.
    pub up: Vec<f32>,
}

impl Factors {
    /// Columns of the base's matrix.
    pub fn inputs(&self) -> usize {
        self.down.len() / self.rank
    }

    /// Rows of the base's matrix.
    pub fn outputs(&self) -> usize {
        self.up.len() / self.rank
    }
}

/// The format of fill-in-the-middle that an adapter teaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Infill {
    /// The ids of its control tokens.
    pub tokens: FimTokens,
    /// The order of prefix, suffix and middle that it was trained on, as the setting `order` names it.
    pub order: Option<String>,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Adapter {
    /// Reads an adapter: PEFT's folder (or its `adapter_model.safetensors`), or llama.cpp's `.gguf` file.
    ///
    /// Fails where it is broken, or of a kind that adds something else than low-rank products (DoRA, biases, whole
    /// modules trained anew).
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| cannot_read(path, &e))?;
        if metadata.is_dir() {
            return peft::open(path);
        }
        match path.extension().and_then(|end| end.to_str()) {
            Some("gguf") => gguf::open(path),
            Some("safetensors") => peft::open(path.parent().unwrap_or(Path::new("."))),
            _ => Err(Error::new(ErrorKind::Unsupported, path.display(), "is no adapter").remedy(REMEDY)),
        }
    }

    /// Whether there is an adapter at a path, and no model; it may be a broken one.
    pub fn is_at(path: &Path) -> bool {
        let file = || MappedFile::open(path).ok();
        let is_gguf = path.extension().is_some_and(|end| end == "gguf");
        path.join(CONFIG_FILE).is_file() && !path.join("config.json").is_file()
            || is_gguf
                && file().is_some_and(|file| {
                    Gguf::parse(file.bytes(), path).is_ok_and(|gguf| gguf.is_adapter(file.bytes()))
                })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was read from; nowhere if it came with the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its file calls the model that it was trained on.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// What it adds to, by the canonical names of modules.
    pub fn modules(&self) -> &BTreeMap<String, Factors> {
        &self.modules
    }

    /// Token ids, and what stands in place of their embeddings, before these are scaled. The output product keeps the
    /// base's.
    pub fn rows(&self) -> &BTreeMap<u32, Vec<f32>> {
        &self.rows
    }

    /// The format of fill-in-the-middle that it teaches.
    pub fn infill(&self) -> Option<&Infill> {
        self.infill.as_ref()
    }

    /// The ranks of its products, least and greatest.
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.modules.values().map(|factors| factors.rank);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }

    /// Numbers that were trained.
    pub fn parameters(&self) -> u64 {
        let products = self.modules.values().map(|factors| factors.down.len() + factors.up.len());
        let rows = self.rows.values().map(Vec::len);
        products.chain(rows).sum::<usize>() as u64
    }

    /// Tells adapters of different contents apart.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it is one for this network: everything that it adds to is there, in its shape.
    pub fn check(&self, base: &ModelConfig) -> Result<()> {
        let wrong = |problem: String| {
            let error = Error::new(ErrorKind::Input, format!("adapter {}", self.name), problem);
            Err(match &self.base {
                Some(base) => {
                    error.remedy(format!("It was trained on {base}: choose that model, or another adapter."))
                }
                None => error.remedy(ANOTHER_BASE),
            })
        };
        if let Some(architecture) = self.architecture.filter(|&made_for| made_for != base.architecture) {
            return wrong(format!(
                "was trained for {architecture:?}, the model is a {:?}",
                base.architecture
            ));
        }
        let shapes: HashMap<String, Vec<usize>> = names::required(base).into_iter().collect();
        for (module, factors) in &self.modules {
            if !module.starts_with("model.layers.") {
                let problem = format!("adds to {module}; only layers of the decoder can be added to");
                return Err(Error::new(ErrorKind::Unsupported, format!("adapter {}", self.name), problem));
            }
            let found = [factors.outputs(), factors.inputs()];
            match shapes.get(&format!("{module}.weight")) {
                Some(shape) if **shape == found => {}
                Some(shape) => {
                    return wrong(format!("{module} is {found:?} in it, and {shape:?} in the model"));
                }
                None => return wrong(format!("adds to {module}, which the model does not have")),
            }
        }
        for (&id, row) in &self.rows {
            if id as usize >= base.vocab || row.len() != base.hidden {
                let (width, vocab, hidden) = (row.len(), base.vocab, base.hidden);
                return wrong(format!(
                    "has a row of {width} numbers for token {id}, the model {vocab} rows of {hidden}"
                ));
            }
        }
        Ok(())
    }
}

const REMEDY: &str = "Give a PEFT folder (adapter_config.json and adapter_model.safetensors) or llama.cpp's .gguf of an \
                      adapter.";
const ANOTHER_BASE: &str =
    "An adapter runs on the base that it was trained on: choose that model, or another adapter.";

/// An adapter while its file is read.
struct Builder<'a> {
    path: &'a Path,
    /// First and second factors by module, with their shapes.
    halves: BTreeMap<String, [Option<Half>; 2]>,
}

/// One factor: `[rows, cols]`.
struct Half {
    rows: usize,
    cols: usize,
    numbers: Vec<f32>,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, halves: BTreeMap::new() }
    }

    fn broken(&self, problem: impl fmt::Display) -> Error {
        Error::new(ErrorKind::BadFile, self.path.display(), problem)
            .remedy("Compare it with the place it came from, and fetch it again.")
    }

    fn unsupported(&self, problem: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Unsupported, self.path.display(), problem)
            .remedy("Low-rank products and trained token rows are supported: train the adapter with these alone, or merge it into its base.")
    }

    /// The numbers of a tensor, which are finite.
    fn numbers(
        &self,
        what: impl std::fmt::Display,
        [rows, cols]: [usize; 2],
        format: Format,
        bytes: &[u8],
    ) -> Result<Vec<f32>> {
        let numbers = quant::dequantize(format, rows, cols, bytes);
        let numbers = numbers.map_err(|e| self.broken(format!("{what}: {e}")))?;
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(self.broken(format!("{what} has numbers that are not finite")));
        }
        Ok(numbers)
    }

    /// Takes a factor: the first (`down`, `[rank, in]`) or the second (`up`, `[out, rank]`) of a module.
    fn take(
        &mut self,
        module: String,
        second: bool,
        shape: &[usize],
        format: Format,
        bytes: &[u8],
    ) -> Result<()> {
        let &[rows, cols] = shape else {
            return Err(self.broken(format!("a factor of {module} has the shape {shape:?}")));
        };
        let numbers = self.numbers(format_args!("a factor of {module}"), [rows, cols], format, bytes)?;
        let half = &mut self.halves.entry(module.clone()).or_default()[usize::from(second)];
        match half.replace(Half { rows, cols, numbers }) {
            None => Ok(()),
            Some(_) => Err(self.broken(format!("a factor of {module} stands in it twice"))),
        }
    }

    /// Both factors of every module; `scale` says by a module's name and its rank what they are multiplied with.
    fn finish(self, scale: impl Fn(&str, usize) -> Result<f64>) -> Result<BTreeMap<String, Factors>> {
        let mut modules = BTreeMap::new();
        let halves = &self.halves;
        for (module, halves) in halves {
            let [Some(down), Some(up)] = halves else {
                return Err(self.broken(format!("has one factor of {module} and not the other")));
            };
            let rank = down.rows;
            if up.cols != rank || rank == 0 || rank > MOST_RANK || down.cols == 0 || up.rows == 0 {
                let problem = format!(
                    "the factors of {module} are [{rank}, {}] and [{}, {}]",
                    down.cols, up.rows, up.cols
                );
                return Err(self.broken(problem));
            }
            let scale = scale(module, rank)?;
            let up = up.numbers.iter().map(|&number| (f64::from(number) * scale) as f32).collect();
            modules.insert(module.clone(), Factors { rank, down: down.numbers.clone(), up });
        }
        match modules.is_empty() {
            true => Err(self.broken("has no low-rank products")),
            false => Ok(modules),
        }
    }
}

/// What an adapter at this path is called.
fn name_of(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
