//! The settings a user may give, one documented schema for every way of giving them: the editor's
//! `initializationOptions`, `workspace/configuration` (section `gemma`), `didChangeConfiguration`, and
//! the file `gemma-ls/config.json` in the user's configuration folder.
//!
//! The types here say what a setting is and what it defaults to; [`schema`] says how it is written,
//! and validates. What is wrong is reported and ignored one by one: a typing error in one key never
//! costs the user the others.

mod problem;
mod schema;

use std::path::PathBuf;

use gemma_engine::{QuantType, QuantizeAtLoad};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use problem::Problem;
pub use schema::{json_schema, markdown_table};

/// All settings, each with a default that needs no thought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// A model's name or path; `None`: the best one found, see `models`.
    pub model: Option<String>,
    /// What runs beside the model that completes; `None`: what the program has for it.
    pub adapter: Option<String>,
    /// Which model answers questions; `None`: the one that completes.
    pub chat_model: Option<String>,
    /// Where to compute.
    pub device: Device,
    /// Compute threads; `None`: one a physical core, fewer while other programs use these.
    pub threads: Option<usize>,
    /// Most MiB of keys and values kept for reuse; `None`: a quarter of memory.
    pub memory_budget_mb: Option<u64>,
    /// Most MiB of them that a file keeps for the next session; 0: none.
    pub persist_cache_mb: u64,
    /// How numbers are computed.
    pub precision: Precision,
    /// How keys and values are kept.
    pub kv_format: KvFormat,
    /// What the weights of folders are stored in when they are loaded.
    pub quantize: Quantize,
    /// When completions are computed.
    pub trigger: Trigger,
    /// Whether the machine works ahead while nobody waits for it.
    pub ahead_of_time: bool,
    /// Whether keys that come faster than answers are waited for.
    pub adaptive_delay: bool,
    /// Language identifiers in which nothing is completed.
    pub languages_off: Vec<String>,
    /// Globs of files in which nothing is completed.
    pub files_off: Vec<String>,
    /// Globs of files that are neither completed nor read as context, added to the built-in list.
    pub secret_files: Vec<String>,
    /// Whether files of the workspace that are not open are read as context.
    pub workspace_index: bool,
    /// Whether suggestions and what is taken of them are counted.
    pub statistics: bool,
    /// How much is written to the log.
    pub log_level: LogLevel,
    /// What a completion may cost and how it is asked for.
    #[serde(flatten)]
    pub completion: CompletionSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            adapter: None,
            chat_model: None,
            device: Device::default(),
            threads: None,
            memory_budget_mb: None,
            persist_cache_mb: 0,
            precision: Precision::default(),
            kv_format: KvFormat::default(),
            quantize: Quantize::default(),
            trigger: Trigger::default(),
            ahead_of_time: true,
            adaptive_delay: true,
            languages_off: Vec::new(),
            files_off: Vec::new(),
            secret_files: Vec::new(),
            workspace_index: true,
            statistics: true,
            log_level: LogLevel::default(),
            completion: CompletionSettings::default(),
        }
    }
}

/// What a completion may cost and how it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompletionSettings {
    /// Longest completion, in tokens.
    pub max_tokens: usize,
    /// Longest time a completion may take, in milliseconds; what is there by then is shown. `None`: what the
    /// model takes on this machine.
    pub max_time_ms: Option<u64>,
    /// Whether a completion may have several lines.
    pub multi_line: MultiLine,
    /// Most tokens of the text before the cursor.
    pub prefix_tokens: usize,
    /// Most tokens of the text behind the cursor.
    pub suffix_tokens: usize,
    /// Most tokens of other open files.
    pub other_files_tokens: usize,
    /// Whether tokens that stand elsewhere in the text are tried several at a time.
    pub speculation: bool,
    /// What comes first in a fill-in-the-middle prompt; `None`: what suits the model.
    #[serde(rename = "fimOrder")]
    pub order: Option<FimOrder>,
    /// The fill-in-the-middle token ids; `None`: those that the vocabulary names.
    pub fim: Option<FimIds>,
}

/// The defaults suit a small model on two cores, which reads about a thousand tokens a second: a cold
/// prompt stays near one second. The suffix is the dear part, since it is read anew with each key in
/// the prefix-first order; the prefix comes out of the cache.
impl Default for CompletionSettings {
    fn default() -> Self {
        Self {
            max_tokens: 96,
            max_time_ms: None,
            multi_line: MultiLine::default(),
            prefix_tokens: 768,
            suffix_tokens: 128,
            other_files_tokens: 256,
            speculation: true,
            order: None,
            fim: None,
        }
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The fastest one there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU.
    Cuda,
}

impl From<Device> for gemma_engine::DeviceChoice {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => Self::Auto,
            Device::Cpu => Self::Cpu,
            Device::Cuda => Self::Cuda,
        }
    }
}

/// How numbers are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 8-bit activations against quantised weights.
    #[default]
    Fast,
    /// f32 activations throughout.
    Exact,
}

impl From<Precision> for gemma_engine::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Fast => Self::Fast,
            Precision::Exact => Self::Exact,
        }
    }
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvFormat {
    /// In half precision.
    #[default]
    F16,
    /// In 8 bits.
    Q8,
}

impl KvFormat {
    /// What the engine is told.
    pub fn wished(self) -> Option<gemma_engine::KvFormat> {
        match self {
            Self::F16 => None,
            Self::Q8 => Some(gemma_engine::KvFormat::Q8),
        }
    }
}

/// What the weights of HuggingFace folders are quantised to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantize {
    /// They are used as they are.
    #[default]
    #[serde(rename = "none")]
    Off,
    /// 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    Q8,
    /// 4.5 bits a weight.
    #[serde(rename = "q4_0")]
    Q4,
    /// About 4.8 bits a weight, more where it matters most.
    #[serde(rename = "q4_k_m")]
    Q4KM,
}

impl Settings {
    /// What an engine quantises when it loads a folder, and where it keeps that; `None` where it does not.
    pub fn quantize_at_load(&self) -> Option<QuantizeAtLoad> {
        let kind = match self.quantize {
            Quantize::Off => return None,
            Quantize::Q8 => QuantType::Q8_0,
            Quantize::Q4 => QuantType::Q4_0,
            Quantize::Q4KM => QuantType::Q4_K_M,
        };
        let cache = dirs::cache_dir().unwrap_or_else(std::env::temp_dir);
        Some(QuantizeAtLoad { kind, folder: cache.join("gemma-ls").join("quantized") })
    }
}

/// When completions are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Whenever the editor asks.
    #[default]
    Automatic,
    /// Only when the user asks.
    Manual,
}

/// Whether a completion may have several lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultiLine {
    /// Decided from the syntax tree and what stands right of the cursor.
    #[default]
    Auto,
    /// Wherever the model goes on.
    Always,
    /// One line.
    Never,
}

/// How the text around the cursor is put before a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FimOrder {
    /// `<|fim_prefix|>` P `<|fim_suffix|>` S `<|fim_middle|>`: with each key that changes P, S is read anew.
    Psm,
    /// `<|fim_prefix|> <|fim_suffix|>` S `<|fim_middle|>` P: typing only appends, and an accepted completion is in
    /// the cache already, as a part of P.
    Spm,
    /// `<|fim_suffix|>` S `<|fim_prefix|>` P `<|fim_middle|>`: typing appends before one last token, and an
    /// accepted completion has to be read again.
    SpmMiddleLast,
    /// The text before the cursor alone, also where the model can fill in the middle.
    Plain,
}

impl FimOrder {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Psm, Self::Spm, Self::SpmMiddleLast];

    /// Whether the text behind the cursor stands before the text before it.
    pub fn suffix_first(self) -> bool {
        matches!(self, Self::Spm | Self::SpmMiddleLast)
    }

    /// As it is written in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Psm => "psm",
            Self::Spm => "spm",
            Self::SpmMiddleLast => "spmMiddleLast",
            Self::Plain => "plain",
        }
    }
}

/// The fill-in-the-middle token ids of a model whose vocabulary does not name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FimIds {
    /// Opens the text before the cursor.
    pub prefix: u32,
    /// Opens what is to be written.
    pub middle: u32,
    /// Opens the text behind the cursor.
    pub suffix: u32,
    /// Stands between files.
    pub separator: u32,
}

impl FimIds {
    /// The first of them that a vocabulary of so many entries does not have: what it is for, and the id.
    pub fn beyond(self, entries: usize) -> Option<(&'static str, u32)> {
        let named = [
            ("prefix", self.prefix),
            ("middle", self.middle),
            ("suffix", self.suffix),
            ("separator", self.separator),
        ];
        named.into_iter().find(|(_, id)| usize::try_from(*id).map_or(true, |id| id >= entries))
    }
}

impl From<FimIds> for gemma_engine::FimTokens {
    fn from(ids: FimIds) -> Self {
        Self { prefix: ids.prefix, middle: ids.middle, suffix: ids.suffix, separator: ids.separator }
    }
}

/// How much is written to the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is odd.
    Warn,
    /// What was done.
    #[default]
    Info,
    /// What was decided, and why.
    Debug,
    /// Everything.
    Trace,
}

impl Settings {
    /// The settings of one JSON object over the defaults, with everything that is wrong in it.
    pub fn from_json(json: &Value) -> (Self, Vec<Problem>) {
        Self::default().updated(json)
    }

    /// These settings with those of a JSON object over them: keys that are absent, `null` or wrong keep
    /// their value.
    pub fn updated(&self, json: &Value) -> (Self, Vec<Problem>) {
        schema::update(self, json)
    }

    /// The JSON schema of the settings, for editors and for whoever writes a client.
    pub fn json_schema() -> Value {
        schema::json_schema()
    }

    /// The settings of the user's configuration file over the defaults; the defaults when there is none.
    pub fn from_config_file() -> (Self, Vec<Problem>) {
        let Some(path) = config_file() else { return (Self::default(), Vec::new()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return (Self::default(), Vec::new());
            }
            Err(error) => return (Self::default(), vec![Problem::unreadable(path.display(), error)]),
        };
        match serde_json::from_str(&text) {
            Ok(json) => Self::from_json(&json),
            Err(error) => (Self::default(), vec![Problem::unreadable(path.display(), error)]),
        }
    }
}

/// Where the user's configuration file is, whether or not it exists: `gemma-ls/config.json` in the
/// configuration folder of this system.
pub fn config_file() -> Option<PathBuf> {
    dirs::config_dir().map(|folder| folder.join("gemma-ls").join("config.json"))
}
