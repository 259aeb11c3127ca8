//! `gemma-ls model info`: what a file holds, what it needs, and what it is good for.

use std::path::Path;

use clap::Args;
use gemma_engine::checkpoint::{self, Checkpoint};
use gemma_engine::config::{Architecture, LayerSpec, Mixer, Sight};
use gemma_engine::{
    Adapter, AdapterChoice, Error, ErrorKind, KvFormat, ModelConfig, Tokenizer, context_bytes,
};
use serde_json::{Value, json};

use super::Context;
use super::failure::Outcome;
use super::{adapter_info, output};
use crate::models;

const EXAMPLES: &str = "\
PATH may be a HuggingFace folder whose weights are not there yet: config.json is enough.

Examples:
  gemma-ls model info ./gemma-3-270m-q4_k_m.gguf
  gemma-ls model info codegemma-2b --json
  gemma-ls model info ./my-adapter

JSON: name, path, family (CodeGemma, PaliGemma 2 and so on), architecture, parameters, weight_bytes and
bits_per_weight (null where the weights are missing), missing (what is missing, or null), context, vocab,
layers, kinds (of layers: each with kind, layers (how many), window, width), hidden, ffn, heads, kv_heads,
head_dim, window (null where every layer sees everything), kv_bytes_per_token (in the cache, as kvFormat says),
state_bytes (of recurrent layers), context_tokens, context_bytes (what the cache takes for so many),
pictures (null, or image_size, image_tokens, tower_layers, tower_parameters), infill (whether it has
fill-in-the-middle tokens), adapter (the one that comes with gemma-ls for it, or null), chat (whether it has turns), chat_template (whether it brings its own). Of an adapter:
adapter (its name), path, base (what its file calls that), rank, least_rank, parameters, layers and modules (that
it adds to), tokens (ids with rows of their own), infill (the ids of fill-in-the-middle and the order, or null).";

/// Describe a model or an adapter: its network, the memory it needs, and what it is good for
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct InfoArgs {
    /// A folder, a .gguf file or a name
    #[arg(value_name = "PATH")]
    model: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        self.json
    }
}

/// Runs `gemma-ls model info`.
pub fn run(context: &Context, args: &InfoArgs) -> Outcome {
    if let Some(adapter) = adapter_info::Facts::at(&checkpoint::expand_home(&args.model)) {
        let adapter = adapter?;
        return if args.json {
            output::print_json(&adapter.to_json())
        } else {
            output::print(&adapter.to_text())
        };
    }
    let found = checkpoint::resolve(Some(&args.model))?;
    let (checkpoint, missing) = match Checkpoint::open(&found.path) {
        Err(e) if e.kind() == ErrorKind::NotFound && found.path.join("config.json").is_file() => {
            (Checkpoint::without_weights(&found.path)?, Some(e))
        }
        other => (other?, None),
    };
    let tokenizer = match checkpoint.tokenizer() {
        // A model without one still runs by token ids.
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        other => Some(other?),
    };
    let kv = context.settings.kv_format.wished();
    let adapter = match models::follows_instructions(&found.name) {
        true => None,
        false => AdapterChoice::BuiltIn.open(&checkpoint)?,
    };
    let mut facts = Facts::new(&found.name, &checkpoint, missing.as_ref(), tokenizer.as_ref(), kv);
    facts.adapter = adapter.as_ref();
    if args.json { output::print_json(&facts.to_json()) } else { output::print(&facts.to_text()) }
}

/// What is told of a model.
struct Facts<'a> {
    name: &'a str,
    path: &'a Path,
    config: &'a ModelConfig,
    weight_bytes: Option<u64>,
    missing: Option<String>,
    kv: KvFormat,
    context_bytes: u64,
    tokens: Tokens,
    chat_template: bool,
    /// The one that comes with the program.
    adapter: Option<&'a Adapter>,
}

/// What the vocabulary has.
#[derive(Clone, Copy)]
struct Tokens {
    /// A tokenizer is there at all.
    known: bool,
    infill: bool,
    turns: bool,
}

/// Tokens of context for which the cache's memory is told.
const TOLD_CONTEXT: usize = 8192;

/// What is said of uses that depend on the vocabulary.
const NO_TOKENIZER: &str = "cannot be told: there is no tokenizer";

/// Layers that mix positions in the same way.
struct Kind {
    kind: &'static str,
    layers: usize,
    window: Option<usize>,
    /// Channels of a recurrence.
    width: Option<usize>,
}

impl Kind {
    fn of(layer: &LayerSpec) -> Self {
        match &layer.mixer {
            Mixer::RgLru(r) => Self { kind: "recurrent", layers: 1, window: None, width: Some(r.width) },
            Mixer::Attention(a) => {
                let kind = if a.window.is_some() { "sliding" } else { "full" };
                Self { kind, layers: 1, window: a.window, width: None }
            }
        }
    }

    fn to_json(&self) -> Value {
        json!({ "kind": self.kind, "layers": self.layers, "window": self.window, "width": self.width })
    }

    fn to_text(&self) -> String {
        match (self.window, self.width) {
            (Some(window), _) => format!("{} attention with window {window}", self.layers),
            (_, Some(width)) => format!("{} recurrent of width {width}", self.layers),
            _ => format!("{} full attention", self.layers),
        }
    }
}

/// The layers by kind, in the order of their first ones.
fn kinds(config: &ModelConfig) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for layer in config.layers.iter().map(Kind::of) {
        match kinds.iter_mut().find(|k| (k.window, k.width) == (layer.window, layer.width)) {
            Some(kind) => kind.layers += 1,
            None => kinds.push(layer),
        }
    }
    kinds
}

/// What people call models of this network. CodeGemma has Gemma's, and tokens to fill in the middle.
fn family(config: &ModelConfig, infill: bool) -> &'static str {
    let sees_prompt_both_ways = config.vision.as_ref().is_some_and(|v| v.sight == Sight::Prefix);
    match (config.architecture, sees_prompt_both_ways) {
        (Architecture::Gemma, true) => "PaliGemma",
        (Architecture::Gemma2, true) => "PaliGemma 2",
        (Architecture::Gemma, false) if infill => "CodeGemma",
        (Architecture::Gemma, false) => "Gemma 1",
        (Architecture::Gemma2, false) => "Gemma 2",
        (Architecture::Gemma3, _) => "Gemma 3",
        (Architecture::RecurrentGemma, _) => "RecurrentGemma",
    }
}

impl<'a> Facts<'a> {
    fn new(
        name: &'a str,
        checkpoint: &'a Checkpoint,
        missing: Option<&Error>,
        tokenizer: Option<&Tokenizer>,
        kv: Option<KvFormat>,
    ) -> Self {
        Self {
            name,
            path: checkpoint.path(),
            config: checkpoint.config(),
            weight_bytes: missing.is_none().then(|| checkpoint.weight_bytes()),
            missing: missing.map(ToString::to_string),
            kv: kv.unwrap_or(KvFormat::F16),
            context_bytes: context_bytes(checkpoint, told(checkpoint.config()), kv),
            tokens: Tokens {
                known: tokenizer.is_some(),
                infill: tokenizer.is_some_and(|tokenizer| tokenizer.fim().is_some()),
                turns: tokenizer.is_some_and(|tokenizer| tokenizer.turns().is_some()),
            },
            chat_template: checkpoint.chat_template().is_some(),
            adapter: None,
        }
    }

    fn bits_per_weight(&self) -> Option<f64> {
        Some(self.weight_bytes? as f64 * 8.0 / self.config.parameters().max(1) as f64)
    }

    fn window(&self) -> Option<usize> {
        kinds(self.config).iter().find_map(|kind| kind.window)
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
            "family": family(config, self.tokens.infill),
            "architecture": config.name(),
            "parameters": config.parameters(),
            "weight_bytes": self.weight_bytes,
            "bits_per_weight": self.bits_per_weight(),
            "missing": self.missing,
            "context": config.context,
            "vocab": config.vocab,
            "layers": config.layers.len(),
            "kinds": kinds(config).iter().map(Kind::to_json).collect::<Vec<_>>(),
            "hidden": config.hidden,
            "ffn": first.map(|layer| layer.mlp.ffn),
            "heads": attention.map(|attention| attention.heads),
            "kv_heads": attention.map(|attention| attention.kv_heads),
            "head_dim": attention.map(|attention| attention.head_dim),
            "window": self.window(),
            "kv_bytes_per_token": config.kv_bytes_per_token(self.kv),
            "state_bytes": config.state_bytes(),
            "context_tokens": told(config),
            "context_bytes": self.context_bytes,
            "pictures": config.vision.as_ref().map(|vision| json!({
                "image_size": vision.image_size,
                "image_tokens": vision.tokens,
                "tower_layers": vision.layers,
                "tower_parameters": vision.parameters(config.hidden),
            })),
            "infill": self.tokens.infill,
            "adapter": self.adapter.map(Adapter::name),
            "chat": self.tokens.turns,
            "chat_template": self.chat_template,
        })
    }

    fn to_text(&self) -> String {
        let config = self.config;
        let json = self.to_json();
        let number = |name: &str| json[name].to_string();
        let kinds: Vec<String> = kinds(config).iter().map(Kind::to_text).collect();
        let rows = [
            ("model", self.name.to_owned()),
            ("path", self.path.display().to_string()),
            ("family", family(config, self.tokens.infill).to_owned()),
            ("architecture", config.name()),
            ("parameters", count(config.parameters())),
            ("weights", self.weights()),
            (
                "network",
                format!(
                    "hidden {}, ffn {}, heads {} / {} of {}",
                    number("hidden"),
                    number("ffn"),
                    number("heads"),
                    number("kv_heads"),
                    number("head_dim")
                ),
            ),
            ("layers", format!("{}: {}", config.layers.len(), kinds.join(", "))),
            ("context", format!("{} tokens", config.context)),
            ("vocabulary", format!("{} tokens", config.vocab)),
            ("cache", self.cache()),
            ("pictures", self.pictures()),
            ("completion", self.completion().to_owned()),
            ("chat", self.chat().to_owned()),
        ];
        output::table(&rows)
    }

    fn weights(&self) -> String {
        match (self.weight_bytes, self.bits_per_weight()) {
            (Some(bytes), Some(bits)) => format!("{}, {bits:.1} bits a weight", output::bytes(bytes)),
            _ => format!(
                "missing; at 16 bits a weight they are {}",
                output::bytes(self.config.parameters().saturating_mul(2))
            ),
        }
    }

    fn cache(&self) -> String {
        let taken = format!("{} for {} tokens", output::bytes(self.context_bytes), told(self.config));
        let state = self.config.state_bytes() as u64;
        let state = if state == 0 {
            String::new()
        } else {
            format!(", of which a state is {}", output::bytes(state))
        };
        match self.config.horizon() {
            Some(horizon) => format!("{taken}{state}; no more from {} on", 2 * horizon),
            None => format!("{taken}{state}"),
        }
    }

    fn pictures(&self) -> String {
        let Some(vision) = &self.config.vision else { return "no".to_owned() };
        format!(
            "{size} x {size} pixels as {tokens} tokens; a tower of {layers} layers, {parameters} parameters",
            size = vision.image_size,
            tokens = vision.tokens,
            layers = vision.layers,
            parameters = count(vision.parameters(self.config.hidden)),
        )
    }

    /// Whether it answers about pictures in the short forms it was tuned for, and is no model to talk with.
    fn reads_for_tasks(&self) -> bool {
        self.config.vision.as_ref().is_some_and(|vision| vision.sight == Sight::Prefix)
    }

    fn completion(&self) -> &'static str {
        match self.tokens {
            _ if self.reads_for_tasks() => "no: it was made to read pictures",
            Tokens { known: false, .. } => NO_TOKENIZER,
            Tokens { infill: true, .. } => "fills in the middle",
            _ if self.adapter.is_some() => "fills in the middle, with the adapter that comes with gemma-ls",
            _ => "goes on from what is before the cursor; no fill-in-the-middle tokens",
        }
    }

    fn chat(&self) -> &'static str {
        match (self.tokens.turns, self.chat_template) {
            _ if self.reads_for_tasks() => {
                "no: it answers about pictures (caption, ocr, answer, detect, segment)"
            }
            _ if !self.tokens.known => NO_TOKENIZER,
            (true, true) => "yes, with its own template",
            (true, false) => "has turns but no template of its own: perhaps it was not tuned to talk",
            (false, _) => "no turns",
        }
    }
}

/// A number of parameters in words.
pub(super) fn count(parameters: u64) -> String {
    match parameters {
        0..1_000_000 => parameters.to_string(),
        1_000_000..1_000_000_000 => format!("{:.0} million", parameters as f64 / 1e6),
        _ => format!("{:.2} billion", parameters as f64 / 1e9),
    }
}

/// Tokens of context for which memory is told.
fn told(config: &ModelConfig) -> usize {
    config.longest().map_or(TOLD_CONTEXT, |longest| longest.min(TOLD_CONTEXT))
}

#[cfg(test)]
mod tests {
    use gemma_engine::config::{AttentionSpec, MlpSpec, Norms, Projector, RgLruSpec, RopeSpec, VisionSpec};

    use super::*;

    fn attention(window: Option<usize>) -> Mixer {
        Mixer::Attention(AttentionSpec {
            heads: 4,
            kv_heads: 1,
            head_dim: 256,
            scale: 1.0,
            window,
            rope: RopeSpec { theta: 1e4, factor: 1.0 },
            rotary: 256,
            qk_norm: true,
            soft_cap: None,
            out_bias: false,
        })
    }

    fn config(architecture: Architecture, mixers: Vec<Mixer>) -> ModelConfig {
        let layer =
            |mixer| LayerSpec { mixer, mlp: MlpSpec { ffn: 2048, bias: false }, norms: Norms::PrePost };
        ModelConfig {
            architecture,
            vision: None,
            first_position: 0,
            hidden: 640,
            vocab: 262_144,
            context: 32_768,
            embed_scale: 25.25,
            norm_eps: 1e-6,
            norm_offset: 1.0,
            layers: mixers.into_iter().map(layer).collect(),
            final_soft_cap: None,
            bos: 2,
            eos: vec![1],
        }
    }

    fn gemma3() -> ModelConfig {
        let mixer = |i: usize| attention((i % 6 != 5).then_some(512));
        config(Architecture::Gemma3, (0..18).map(mixer).collect())
    }

    fn paligemma() -> ModelConfig {
        let vision = VisionSpec {
            image_size: 224,
            patch: 14,
            hidden: 1152,
            layers: 27,
            heads: 16,
            ffn: 4304,
            eps: 1e-6,
            tokens: 256,
            image_token: 257_152,
            projector: Projector::Linear,
            sight: Sight::Prefix,
        };
        ModelConfig { vision: Some(vision), ..config(Architecture::Gemma2, vec![attention(None)]) }
    }

    fn facts(config: &ModelConfig) -> Facts<'_> {
        Facts {
            name: "m",
            path: Path::new("/m/m.gguf"),
            config,
            weight_bytes: Some(250_000_000),
            missing: None,
            kv: KvFormat::F16,
            context_bytes: 151_000_000,
            tokens: Tokens { known: true, infill: false, turns: true },
            chat_template: false,
            adapter: None,
        }
    }

    /// Every key of an object and of what is inside it.
    fn keys(value: &Value) -> Vec<String> {
        match value {
            Value::Object(map) => {
                map.iter().flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
            }
            Value::Array(list) => list.iter().flat_map(keys).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_json_has_all_that_is_documented() {
        let config = paligemma();
        let json = facts(&config).to_json();
        let (_, help) = EXAMPLES.split_once("JSON:").expect("the help names the keys");
        let (model, adapter) = help.split_once("Of an adapter:").expect("and those of an adapter");
        let words = |text: &'static str| text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let documented: Vec<&str> = words(model).collect();
        let case = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/golden/adapters/gemma3-text-rows");
        let of_adapter =
            adapter_info::Facts::at(Path::new(case)).expect("it is one").expect("it can be read");
        let documented_too: Vec<&str> = words(adapter).collect();
        for name in of_adapter.to_json().as_object().expect("an object").keys() {
            assert!(documented_too.contains(&name.as_str()), "the help does not name {name}");
        }
        for name in keys(&json) {
            assert!(documented.contains(&name.as_str()), "the help does not name {name}");
        }
        for name in documented.iter().filter(|word| word.contains('_')) {
            assert!(keys(&json).iter().any(|key| key == name), "the JSON has no {name}");
        }
        let config = gemma3();
        let json = facts(&config).to_json();
        assert_eq!((&json["layers"], &json["window"]), (&json!(18), &json!(512)));
        assert_eq!(json["kv_bytes_per_token"], 18 * 2 * 256 * 2);
        assert_eq!(json["kinds"][0]["layers"], 15);
        let parameters = json["parameters"].as_u64().expect("a count");
        assert!((268_000_000..269_000_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn the_text_says_what_memory_it_takes() {
        let config = gemma3();
        let text = facts(&config).to_text();
        for part in [
            "250 MB",
            "268 million",
            "262144 tokens",
            "151 MB for 8192 tokens",
            "18: 15 attention with window 512, 3 full attention",
            "Gemma 3\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn recurrent_layers_are_told_apart_and_memory_has_an_end() {
        let recurrent = Mixer::RgLru(RgLruSpec { width: 640, blocks: 4, taps: 4 });
        let layers = (0..26).map(|i| if i % 3 == 2 { attention(Some(2048)) } else { recurrent.clone() });
        let config = config(Architecture::RecurrentGemma, layers.collect());
        let text = facts(&config).to_text();
        for part in ["26: 18 recurrent of width 640, 8 attention with window 2048", "no more from 4096 on"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_it_is_good_for() {
        let (gemma, paligemma) = (config(Architecture::Gemma, vec![attention(None)]), paligemma());
        let mut facts = facts(&gemma);
        assert_eq!(family(facts.config, false), "Gemma 1");
        facts.tokens.infill = true;
        assert!(facts.to_text().contains("CodeGemma\n"));
        assert!(facts.to_text().contains("fills in the middle"));
        facts.config = &paligemma;
        let text = facts.to_text();
        for part in ["PaliGemma 2\n", "224 x 224 pixels as 256 tokens", "made to read pictures", "detect"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        (facts.weight_bytes, facts.missing) = (None, Some("no weights".to_owned()));
        assert!(facts.to_text().contains("missing; at 16 bits"));
        assert_eq!(facts.to_json()["weight_bytes"], Value::Null);
    }
}
