//! `gemma-ls model`: which models are here, getting others, and what a file holds.

use std::path::Path;

use clap::{Args, Subcommand};
use gemma_engine::checkpoint::{self, CATALOGUE, CatalogueEntry, Checkpoint, Found};
use gemma_engine::config::Mixer;
use gemma_engine::{ErrorKind, ModelConfig};
use serde_json::{Value, json};

use super::failure::{Exit, Outcome};
use super::{Context, output, session};
use crate::models;

/// List, download and describe models
#[derive(Subcommand)]
pub enum ModelCommand {
    List(ListArgs),
    Pull(PullArgs),
    Info(InfoArgs),
}

const LIST_EXAMPLES: &str = "\
Models are looked for in gemma-ls's own folder (or the folders of $GEMMA_LS_MODELS), HuggingFace's cache,
Ollama's store and LM Studio's folder. The one marked with * runs when none is named.

Examples:
  gemma-ls model list
  gemma-ls model list --json

JSON: models (each with name, path, source, bytes), use (the one that runs when none is named, or null),
known (names that can be pulled, each with name, repo, bytes, infill, installed).";

/// List the models on this machine, and those that can be downloaded
#[derive(Args)]
#[command(after_long_help = LIST_EXAMPLES)]
pub struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const PULL_EXAMPLES: &str = "\
NAME is one that `gemma-ls model list` shows, or hf:owner/repo for a folder or hf:owner/repo/file.gguf for
one file of HuggingFace's hub. A download that was interrupted goes on where it stopped; what arrives is
checked against its SHA-256. Google's own repositories want their licence accepted once on the hub, and a
token in $HF_TOKEN.

Examples:
  gemma-ls model pull default
  gemma-ls model pull codegemma-2b
  gemma-ls model pull hf:google/gemma-3-1b-it-qat-q4_0-gguf/gemma-3-1b-it-q4_0.gguf

JSON: name, path, source, bytes.";

/// Download a model
#[derive(Args)]
#[command(after_long_help = PULL_EXAMPLES)]
pub struct PullArgs {
    /// The model, for instance codegemma-2b or hf:owner/repo
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const INFO_EXAMPLES: &str = "\
Examples:
  gemma-ls model info ./gemma-3-270m-q4_k_m.gguf
  gemma-ls model info codegemma-2b --json

JSON: name, path, architecture, parameters, weight_bytes, bits_per_weight, context, vocab, layers, hidden,
ffn, heads, kv_heads, head_dim, window (null where every layer sees everything), kv_bytes_per_token (in the
cache, at f16), infill (whether it has fill-in-the-middle tokens), chat (whether it has turns).";

/// Describe a model: its network, and the memory it needs
#[derive(Args)]
#[command(after_long_help = INFO_EXAMPLES)]
pub struct InfoArgs {
    /// A folder, a .gguf file or a name
    #[arg(value_name = "PATH")]
    model: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ModelCommand {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Pull(args) => args.json,
            Self::Info(args) => args.json,
        }
    }
}

/// Runs `gemma-ls model`.
pub fn run(context: &Context, command: &ModelCommand) -> Outcome<Exit> {
    match command {
        ModelCommand::List(args) => list(context, args),
        ModelCommand::Pull(args) => pull(context, args),
        ModelCommand::Info(args) => info(args),
    }?;
    Ok(Exit::Ok)
}

fn list(context: &Context, args: &ListArgs) -> Outcome {
    let found = checkpoint::find_all();
    let choice = models::choose(None, &context.settings).ok();
    if args.json {
        let known: Vec<Value> = CATALOGUE.iter().map(|entry| entry_json(entry, &found)).collect();
        return output::print_json(&json!({
            "models": found.iter().map(found_json).collect::<Vec<_>>(),
            "use": choice,
            "known": known,
        }));
    }
    let mut text = String::new();
    if found.is_empty() {
        text.push_str("No models on this machine yet.\n");
    }
    let widest = found.iter().map(|found| found.name.chars().count()).max().unwrap_or(0);
    for model in &found {
        let used = choice.as_ref().is_some_and(|choice| choice.path == model.path);
        let pad = " ".repeat(widest - model.name.chars().count());
        text.push_str(&format!(
            "{} {}{pad}  {:>7}  {}  ({})\n",
            if used { "*" } else { " " },
            model.name,
            output::bytes(model.bytes),
            model.path.display(),
            model.source,
        ));
    }
    text.push_str("\nTo download: gemma-ls model pull NAME\n");
    let missing: Vec<(&str, String)> = CATALOGUE
        .iter()
        .filter(|entry| !is_installed(entry, &found))
        .map(|entry| {
            let infill = if entry.infill { "  made for code: fills in the middle" } else { "" };
            (entry.name, format!("{:>7}{infill}", output::bytes(entry.bytes)))
        })
        .collect();
    text.push_str(&output::table(&missing));
    output::print(&text)
}

/// The JSON of a model that was found.
pub fn found_json(found: &Found) -> Value {
    json!({ "name": found.name, "path": found.path, "source": found.source, "bytes": found.bytes })
}

fn entry_json(entry: &CatalogueEntry, found: &[Found]) -> Value {
    json!({
        "name": entry.name,
        "repo": entry.repo,
        "bytes": entry.bytes,
        "infill": entry.infill,
        "installed": is_installed(entry, found),
    })
}

fn is_installed(entry: &CatalogueEntry, found: &[Found]) -> bool {
    found.iter().any(|found| found.name.eq_ignore_ascii_case(entry.local_name()))
}

fn pull(context: &Context, args: &PullArgs) -> Outcome {
    let found = session::pull(context, &args.name)?;
    if args.json {
        return output::print_json(&found_json(&found));
    }
    output::print(&format!("{}  {}  {}\n", found.name, output::bytes(found.bytes), found.path.display()))
}

fn info(args: &InfoArgs) -> Outcome {
    let found = checkpoint::resolve(Some(&args.model))?;
    let checkpoint = Checkpoint::open(&found.path)?;
    let tokenizer = match checkpoint.tokenizer() {
        // A model without one still runs by token ids.
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        other => Some(other?),
    };
    let facts = Facts {
        name: &found.name,
        path: &found.path,
        config: checkpoint.config(),
        weight_bytes: checkpoint.weight_bytes(),
        infill: tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.fim().is_some()),
        chat: tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.turns().is_some()),
    };
    if args.json { output::print_json(&facts.to_json()) } else { output::print(&facts.to_text()) }
}

/// What is told of a model.
struct Facts<'a> {
    name: &'a str,
    path: &'a Path,
    config: &'a ModelConfig,
    weight_bytes: u64,
    infill: bool,
    chat: bool,
}

/// Bytes of a number in the cache, as completions keep them.
const CACHE_ELEMENT: usize = 2;
/// Tokens of context for which the cache's memory is told.
const TOLD_CONTEXT: usize = 8192;

impl Facts<'_> {
    fn bits_per_weight(&self) -> f64 {
        self.weight_bytes as f64 * 8.0 / self.config.parameters().max(1) as f64
    }

    fn window(&self) -> Option<usize> {
        self.config.layers.iter().find_map(|layer| match &layer.mixer {
            Mixer::Attention(attention) => attention.window,
            Mixer::RgLru(_) => None,
        })
    }

    fn to_json(&self) -> Value {
        let config = self.config;
        let first = config.layers.first();
        let attention = config.layers.iter().find_map(|layer| match &layer.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::RgLru(_) => None,
        });
        json!({
            "name": self.name,
            "path": self.path,
            "architecture": config.name(),
            "parameters": config.parameters(),
            "weight_bytes": self.weight_bytes,
            "bits_per_weight": self.bits_per_weight(),
            "context": config.context,
            "vocab": config.vocab,
            "layers": config.layers.len(),
            "hidden": config.hidden,
            "ffn": first.map(|layer| layer.mlp.ffn),
            "heads": attention.map(|attention| attention.heads),
            "kv_heads": attention.map(|attention| attention.kv_heads),
            "head_dim": attention.map(|attention| attention.head_dim),
            "window": self.window(),
            "kv_bytes_per_token": config.kv_bytes_per_token(CACHE_ELEMENT),
            "infill": self.infill,
            "chat": self.chat,
        })
    }

    fn to_text(&self) -> String {
        let config = self.config;
        let json = self.to_json();
        let number = |name: &str| json[name].to_string();
        let told = config.context.min(TOLD_CONTEXT);
        let cache = config.kv_bytes_per_token(CACHE_ELEMENT).saturating_mul(told) as u64;
        let window =
            self.window().map_or_else(String::new, |window| format!(", window {window} in some layers"));
        let yes = |is| if is { "yes" } else { "no" }.to_owned();
        let rows = [
            ("model", self.name.to_owned()),
            ("path", self.path.display().to_string()),
            ("architecture", config.name()),
            ("parameters", format!("{:.2} billion", config.parameters() as f64 / 1e9)),
            (
                "weights",
                format!("{}, {:.1} bits a weight", output::bytes(self.weight_bytes), self.bits_per_weight()),
            ),
            (
                "network",
                format!(
                    "{} layers, hidden {}, ffn {}, heads {} / {} of {}",
                    number("layers"),
                    number("hidden"),
                    number("ffn"),
                    number("heads"),
                    number("kv_heads"),
                    number("head_dim")
                ),
            ),
            ("context", format!("{} tokens{window}", config.context)),
            ("vocabulary", format!("{} tokens", config.vocab)),
            ("cache", format!("{} for {told} tokens", output::bytes(cache))),
            ("fill in the middle", yes(self.infill)),
            ("chat turns", yes(self.chat)),
        ];
        output::table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemma_engine::config::{Architecture, AttentionSpec, LayerSpec, MlpSpec, Norms, RopeSpec};

    fn config() -> ModelConfig {
        let attention = AttentionSpec {
            heads: 4,
            kv_heads: 1,
            head_dim: 256,
            scale: 1.0,
            window: Some(512),
            rope: RopeSpec { theta: 1e4, factor: 1.0 },
            rotary: 256,
            qk_norm: true,
            soft_cap: None,
            out_bias: false,
        };
        let layer = LayerSpec {
            mixer: Mixer::Attention(attention),
            mlp: MlpSpec { ffn: 2048, bias: false },
            norms: Norms::PrePost,
        };
        ModelConfig {
            architecture: Architecture::Gemma3,
            vision: None,
            first_position: 0,
            hidden: 640,
            vocab: 262_144,
            context: 32_768,
            embed_scale: 25.25,
            norm_eps: 1e-6,
            norm_offset: 1.0,
            layers: vec![layer; 18],
            final_soft_cap: None,
            bos: 2,
            eos: vec![1],
        }
    }

    fn facts(config: &ModelConfig) -> Facts<'_> {
        let path = Path::new("/m/m.gguf");
        Facts { name: "m", path, config, weight_bytes: 250_000_000, infill: false, chat: true }
    }

    #[test]
    fn the_json_has_all_that_is_documented() {
        let config = config();
        let json = facts(&config).to_json();
        for name in json.as_object().expect("an object").keys() {
            assert!(INFO_EXAMPLES.contains(name.as_str()), "the help does not name {name}");
        }
        assert_eq!((&json["layers"], &json["window"]), (&json!(18), &json!(512)));
        assert_eq!(json["kv_bytes_per_token"], 18 * 2 * 256 * 2);
        let parameters = json["parameters"].as_u64().expect("a count");
        assert!((268_000_000..269_000_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn the_text_says_what_memory_it_takes() {
        let config = config();
        let text = facts(&config).to_text();
        for part in ["250 MB", "0.27 billion", "262144 tokens", "151 MB for 8192 tokens", "window 512"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_here_is_not_offered_again() {
        let entry = checkpoint::known("codegemma-2b").expect("known");
        let found = |name: &str| Found { name: name.into(), path: "/p".into(), source: "s".into(), bytes: 1 };
        assert!(is_installed(entry, &[found("other"), found("CodeGemma-2B")]));
        assert!(!is_installed(entry, &[found("codegemma-7b")]));
        assert_eq!(entry_json(entry, &[])["installed"], false);
    }
}
