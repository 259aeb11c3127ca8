//! From a checkpoint to a smaller one: any HuggingFace folder or GGUF file of the family as GGUF, its matrices in
//! blocks of few bits. Text models become files that llama.cpp reads too; ARCHITECTURE.md has our own layouts for
//! RecurrentGemma and PaliGemma.

mod cache;
mod metadata;
mod mix;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gemma_kernels::Format;

use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::gguf_writer::Header;
use crate::checkpoint::{Checkpoint, names};
use crate::config::{Architecture, Mixer, ModelConfig, Sight};
use crate::error::{Error, ErrorKind, Result};
use crate::generate::CancelFlag;
use crate::options::LoadProgress;

pub(crate) use cache::cached;

/// What matrices are stored in. The names are llama.cpp's, and so are the mixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum QuantType {
    /// 8.5 bits a weight: next to nothing is lost.
    Q8_0,
    /// 4.5 bits a weight, the embedding table 6.6.
    Q4_0,
    /// 4.5 bits a weight, 6.6 where it matters most: the best quality for this size.
    Q4_K_M,
}

impl QuantType {
    /// All of them, the largest first.
    pub const ALL: [Self; 3] = [Self::Q8_0, Self::Q4_0, Self::Q4_K_M];

    /// `q8_0` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_K_M => "q4_k_m",
        }
    }
}

impl fmt::Display for QuantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for QuantType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::Input, text, format_args!("is no type to quantise to: {all} are"))
        })
    }
}

/// How to quantise.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// What to store matrices in.
    pub kind: QuantType,
    /// Threads; `None`: one a physical core.
    pub threads: Option<usize>,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// Whether what is quantised already is quantised again, at a loss.
    pub requantize: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of the weights that it was made from.
    pub source_bytes: u64,
    /// Formats by the bytes they take, the most first: name, tensors, bytes.
    pub formats: Vec<(String, usize, u64)>,
    /// What a user should know of the file: sentences.
    pub remarks: Vec<String>,
}

/// A file that is to be written.
struct Plan<'a> {
    header: Header,
    tensors: Vec<Tensor<'a>>,
    remarks: Vec<String>,
    /// What a file of the cache says that it was made of.
    source: Option<String>,
}

/// A tensor on its way from one file to another.
struct Tensor<'a> {
    /// GGUF's.
    name: String,
    shape: Vec<usize>,
    from: Format,
    bytes: &'a [u8],
    to: Format,
    /// Each number becomes `(number + offset) * scale`.
    offset: f32,
    scale: f32,
}

impl Tensor<'_> {
    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.shape.iter().product::<usize>() / self.cols().max(1)
    }

    /// Whether its bytes are written as they are.
    fn is_copied(&self) -> bool {
        self.from == self.to && self.offset == 0.0 && self.scale == 1.0
    }

    /// Bytes in the new file.
    fn new_bytes(&self) -> u64 {
        (self.to.row_bytes(self.cols()).unwrap_or(0) * self.rows()) as u64
    }
}

/// Writes the checkpoint at `from`, a folder or a GGUF file, to the file `to`: all of it or nothing. Memory holds
/// a few rows at a time.
///
/// `Input` if `to` is there and may not be replaced, or `from` is quantised already; `Unsupported` for what
/// GGUF has no words for; `Resources` where the disk is full; `Stopped` once cancelled.
pub fn quantize(
    from: &Path,
    to: &Path,
    options: &QuantizeOptions,
    cancel: &CancelFlag,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Quantized> {
    if to.is_dir() {
        return Err(Error::new(ErrorKind::Input, to.display(), "is a folder")
            .remedy("Give the name of the .gguf file to write."));
    }
    if to.exists() && !options.overwrite {
        return Err(write::exists(to));
    }
    let checkpoint = Checkpoint::open(from)?;
    let plan = plan(&checkpoint, options)?;
    write::write(&checkpoint, plan, to, options, cancel, progress)
}

/// What the new file will hold.
fn plan<'a>(checkpoint: &'a Checkpoint, options: &QuantizeOptions) -> Result<Plan<'a>> {
    match checkpoint.gguf() {
        Some((gguf, file)) => plan_of_gguf(checkpoint, gguf, file, options),
        None => plan_of_folder(checkpoint, options.kind),
    }
}

fn plan_of_folder(checkpoint: &Checkpoint, kind: QuantType) -> Result<Plan<'_>> {
    let config = checkpoint.config();
    let mut remarks = Vec::new();
    let mut text = config.clone();
    if text.vision.take_if(|vision| vision.sight == Sight::Picture).is_some() {
        remarks.push(
            "Its picture part is left out: this file reads and writes text, as llama.cpp's does.".to_owned(),
        );
    }
    if text.vision.is_some() || config.architecture == Architecture::RecurrentGemma {
        remarks.push("Its layout is our own: llama.cpp does not read it.".to_owned());
    }
    let mut header = Header::default();
    let has_vocabulary = metadata::of_folder(checkpoint, &text, kind, &mut header)?;
    if !has_vocabulary {
        remarks
            .push("The folder has no tokenizer, and so has the file: it runs by token ids only.".to_owned());
    }
    let mut wanted: Vec<(String, Vec<usize>)> = names::required(&text);
    if let Some(output) = own_output(checkpoint)? {
        wanted.push((names::OUTPUT.to_owned(), output));
    }
    let tied = !wanted.iter().any(|(name, _)| name == names::OUTPUT);
    let score_scale = metadata::score_scale(&text);
    let mut tensors = Vec::with_capacity(wanted.len());
    for (canonical, shape) in wanted {
        let view = checkpoint.tensor(&canonical)?;
        let name = names::to_gguf(&canonical, config.architecture).ok_or_else(|| {
            let problem = format_args!("tensor {canonical} has no place in a GGUF file");
            Error::new(ErrorKind::Internal, checkpoint.path().display(), problem)
        })?;
        // The tower's norms have no 1 to add, and its queries are scaled as its width says.
        let of_text = !canonical.starts_with(names::TOWER);
        let offset = if of_text && canonical.ends_with("norm.weight") { config.norm_offset } else { 0.0 };
        let is_scaled = of_text && canonical.ends_with(metadata::scaled_queries(&text));
        let scale = if is_scaled { score_scale } else { 1.0 };
        let to =
            mix::format(kind, &name, &shape, view.format, text.layers.len(), attention_place(&text), tied);
        tensors.push(Tensor { name, shape, from: view.format, bytes: view.bytes, to, offset, scale });
    }
    tensors.iter().for_each(|tensor| put(&mut header, tensor));
    Ok(Plan { header, tensors, remarks, source: None })
}

/// The shape of an output table that is not the embedding table, where there is one.
fn own_output(checkpoint: &Checkpoint) -> Result<Option<Vec<usize>>> {
    if !checkpoint.contains(names::OUTPUT) {
        return Ok(None);
    }
    let (output, table) = (checkpoint.tensor(names::OUTPUT)?, checkpoint.tensor(names::EMBEDDING)?);
    Ok((output.format != table.format || output.bytes != table.bytes).then_some(output.shape))
}

/// Which attention layer a layer is, and of how many: the mixtures count these apart.
fn attention_place(config: &ModelConfig) -> impl Fn(usize) -> (usize, usize) + '_ {
    move |layer| {
        let attends = |index: &usize| matches!(config.layers[*index].mixer, Mixer::Attention(_));
        let all = (0..config.layers.len()).filter(attends).count();
        ((0..layer.min(config.layers.len())).filter(attends).count(), all)
    }
}

fn plan_of_gguf<'a>(
    checkpoint: &Checkpoint,
    gguf: &Gguf,
    file: &'a [u8],
    options: &QuantizeOptions,
) -> Result<Plan<'a>> {
    let (config, kind, path) = (checkpoint.config(), options.kind, checkpoint.path());
    let mut header = Header::default();
    metadata::of_gguf(gguf, file, kind, &mut header);
    let tied = !gguf.tensors().iter().any(|tensor| tensor.name == "output.weight");
    let (mut tensors, mut quantised_again, mut kept) = (Vec::new(), None, Vec::new());
    for tensor in gguf.tensors() {
        let from = tensor.format.map_err(|_| {
            let problem = format_args!("tensor {} is stored in a format that is not supported", tensor.name);
            Error::new(ErrorKind::Unsupported, path.display(), problem)
                .remedy("Choose a file in F32, F16, BF16 or Q8_0 of the same model.")
        })?;
        let place = attention_place(config);
        let mut to = mix::format(kind, &tensor.name, &tensor.shape, from, config.layers.len(), place, tied);
        if !mix::is_matrix(&tensor.name, &tensor.shape) {
            to = from;
        } else if mix::is_quantised(from) && from != to {
            if mix::bits(from) <= mix::bits(to) {
                kept.push(from);
                to = from;
            } else {
                quantised_again.get_or_insert(from);
            }
        }
        let bytes = file.get(tensor.range.clone()).unwrap_or_default();
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        tensors.push(Tensor { name, shape, from, bytes, to, offset: 0.0, scale: 1.0 });
    }
    if tensors.iter().all(Tensor::is_copied) {
        let problem =
            format_args!("is quantised already, in no more bits than {kind} has: nothing would change");
        return Err(Error::new(ErrorKind::Input, path.display(), problem)
            .remedy("Use the file as it is, or quantise the original weights."));
    }
    if let (Some(from), false) = (quantised_again, options.requantize) {
        let problem =
            format_args!("is quantised already ({from:?}); quantising again loses more than quantising once");
        return Err(Error::new(ErrorKind::Input, path.display(), problem).remedy(
            "Quantise the original weights (a HuggingFace folder, or a GGUF file in F32, F16 or BF16), or add --allow-requantize.",
        ));
    }
    let mut remarks = Vec::new();
    if let Some(from) = quantised_again {
        remarks.push(format!(
            "It was made from weights in {from:?}: quantised from the original ones it would be better."
        ));
    }
    if let Some(from) = kept.first() {
        remarks.push(format!("What is stored in few bits already ({from:?}) stays as it is."));
    }
    tensors.iter().for_each(|tensor| put(&mut header, tensor));
    Ok(Plan { header, tensors, remarks, source: None })
}

fn put(header: &mut Header, tensor: &Tensor<'_>) {
    let number = crate::checkpoint::gguf_writer::number(tensor.to);
    header.tensor(&tensor.name, &tensor.shape, number, tensor.new_bytes());
}
