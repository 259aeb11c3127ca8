//! Every published model's config.json, without weights: the network that is read from it has the published
//! dimensions, and needs exactly the tensors that the reference implementation builds from the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use gemma_engine::checkpoint::{Checkpoint, canonical_name};
use gemma_engine::config::{AttentionSpec, Mixer, ModelConfig, Norms, Projector, RgLruSpec, RopeSpec, Sight};
use gemma_tests::places;
use serde::Deserialize;

/// How a model's layers mix positions.
#[derive(Clone, Copy)]
enum Pattern {
    /// Every layer sees everything.
    Full,
    /// Layer 0 and every second one slides (Gemma 2).
    Alternating,
    /// Every sixth layer sees everything (Gemma 3).
    FiveToOne,
    /// Recurrent, recurrent, sliding (RecurrentGemma).
    Griffin,
}

/// The published facts of models with the same dimensions.
struct Facts {
    /// Folders of `fixtures/configurations`.
    names: &'static [&'static str],
    architecture: &'static str,
    layers: usize,
    pattern: Pattern,
    hidden: usize,
    ffn: usize,
    /// Query heads, key and value heads, width of a head.
    heads: (usize, usize, usize),
    /// Queries are scaled by its -1/2nd power.
    query_scalar: f32,
    vocab: usize,
    context: usize,
    window: Option<usize>,
    /// Of attention and of the final logits.
    caps: (Option<f32>, Option<f32>),
    /// RoPE base and factor of layers that see everything, and of those that slide.
    ropes: [(f32, f32); 2],
    /// sqrt(hidden) in the format that the weights are stored in.
    embed_scale: f32,
    /// Pixels a side and tokens of a picture.
    picture: Option<(usize, usize)>,
    /// The published number of parameters, and to what it is rounded.
    parameters: (u64, u64),
}

const GEMMA: Facts = Facts {
    names: &["gemma-2b", "codegemma-2b", "codegemma-1.1-2b"],
    architecture: "gemma",
    layers: 18,
    pattern: Pattern::Full,
    hidden: 2048,
    ffn: 16_384,
    heads: (8, 1, 256),
    query_scalar: 256.0,
    vocab: 256_000,
    context: 8192,
    window: None,
    caps: (None, None),
    ropes: [(1e4, 1.0), (1e4, 1.0)],
    embed_scale: 45.25,
    picture: None,
    parameters: (2_506_172_416, 1),
};

const GEMMA2: Facts = Facts {
    names: &["gemma-2-2b"],
    architecture: "gemma2",
    layers: 26,
    pattern: Pattern::Alternating,
    hidden: 2304,
    ffn: 9216,
    heads: (8, 4, 256),
    window: Some(4096),
    caps: (Some(50.0), Some(30.0)),
    embed_scale: 48.0,
    parameters: (2_614_341_888, 1),
    ..GEMMA
};

const GEMMA2_9B: Facts = Facts {
    names: &["gemma-2-9b"],
    layers: 42,
    hidden: 3584,
    ffn: 14_336,
    heads: (16, 8, 256),
    embed_scale: 59.866_52,
    parameters: (9_241_705_984, 1),
    ..GEMMA2
};

const GEMMA2_27B: Facts = Facts {
    names: &["gemma-2-27b"],
    layers: 46,
    hidden: 4608,
    ffn: 36_864,
    heads: (32, 16, 128),
    query_scalar: 144.0,
    embed_scale: 67.882_25,
    parameters: (27_227_128_320, 1),
    ..GEMMA2
};

const RECURRENT_GEMMA: Facts = Facts {
    names: &["recurrentgemma-2b"],
    architecture: "recurrentgemma",
    layers: 26,
    pattern: Pattern::Griffin,
    hidden: 2560,
    ffn: 7680,
    heads: (10, 1, 256),
    window: Some(2048),
    caps: (None, Some(30.0)),
    embed_scale: 50.5,
    parameters: (2_682_862_080, 1),
    ..GEMMA
};

const GEMMA3: Facts = Facts {
    names: &["gemma-3-270m"],
    architecture: "gemma3",
    layers: 18,
    pattern: Pattern::FiveToOne,
    hidden: 640,
    ffn: 2048,
    heads: (4, 1, 256),
    vocab: 262_144,
    context: 32_768,
    window: Some(512),
    ropes: [(1e6, 1.0), (1e4, 1.0)],
    embed_scale: 25.25,
    parameters: (268_098_176, 1),
    ..GEMMA
};

const GEMMA3_4B: Facts = Facts {
    names: &["gemma-3-4b"],
    layers: 34,
    hidden: 2560,
    ffn: 10_240,
    heads: (8, 4, 256),
    vocab: 262_208,
    context: 131_072,
    window: Some(1024),
    ropes: [(1e6, 8.0), (1e4, 1.0)],
    embed_scale: 50.5,
    picture: Some((896, 256)),
    parameters: (4_300_079_472, 1),
    ..GEMMA3
};

const PALIGEMMA: Facts = Facts {
    names: &["paligemma-3b-pt-224"],
    architecture: "paligemma",
    vocab: 257_216,
    embed_scale: 45.254_833,
    picture: Some((224, 256)),
    parameters: (2_923_466_480, 1),
    ..GEMMA
};

const PALIGEMMA2: Facts = Facts {
    names: &["paligemma2-3b-pt-224"],
    architecture: "paligemma2",
    vocab: 257_216,
    picture: Some((224, 256)),
    parameters: (3_030_000_000, 10_000_000),
    ..GEMMA2
};

const PALIGEMMA2_10B: Facts = Facts {
    names: &["paligemma2-10b-pt-224"],
    architecture: "paligemma2",
    vocab: 257_216,
    embed_scale: 59.75,
    picture: Some((224, 256)),
    parameters: (9_660_000_000, 10_000_000),
    ..GEMMA2_9B
};

const PALIGEMMA2_28B: Facts = Facts {
    names: &["paligemma2-28b-pt-224"],
    architecture: "paligemma2",
    vocab: 257_216,
    embed_scale: 68.0,
    picture: Some((224, 256)),
    parameters: (27_700_000_000, 100_000_000),
    ..GEMMA2_27B
};

const MEDIUM: Option<(usize, usize)> = Some((448, 1024));
const LARGE: Option<(usize, usize)> = Some((896, 4096));

const ALL: &[Facts] = &[
    GEMMA,
    Facts {
        names: &["gemma-7b", "codegemma-7b", "codegemma-7b-it", "codegemma-1.1-7b-it"],
        layers: 28,
        hidden: 3072,
        ffn: 24_576,
        heads: (16, 16, 256),
        embed_scale: 55.5,
        parameters: (8_537_680_896, 1),
        ..GEMMA
    },
    GEMMA2,
    GEMMA2_9B,
    GEMMA2_27B,
    RECURRENT_GEMMA,
    Facts {
        names: &["recurrentgemma-9b"],
        layers: 38,
        hidden: 4096,
        ffn: 12_288,
        heads: (16, 1, 256),
        embed_scale: 64.0,
        parameters: (8_580_000_000, 10_000_000),
        ..RECURRENT_GEMMA
    },
    GEMMA3,
    Facts {
        names: &["gemma-3-1b"],
        layers: 26,
        hidden: 1152,
        ffn: 6912,
        embed_scale: 34.0,
        parameters: (999_885_952, 1),
        ..GEMMA3
    },
    GEMMA3_4B,
    Facts {
        names: &["gemma-3-12b"],
        layers: 48,
        hidden: 3840,
        ffn: 15_360,
        heads: (16, 8, 256),
        embed_scale: 62.0,
        parameters: (12_187_325_040, 1),
        ..GEMMA3_4B
    },
    Facts {
        names: &["gemma-3-27b"],
        layers: 62,
        hidden: 5376,
        ffn: 21_504,
        heads: (32, 16, 128),
        query_scalar: 168.0,
        embed_scale: 73.5,
        parameters: (27_432_406_640, 1),
        ..GEMMA3_4B
    },
    PALIGEMMA,
    Facts {
        names: &["paligemma-3b-pt-448"],
        picture: MEDIUM,
        parameters: (2_920_000_000, 10_000_000),
        ..PALIGEMMA
    },
    Facts {
        names: &["paligemma-3b-pt-896"],
        picture: LARGE,
        parameters: (2_930_000_000, 10_000_000),
        ..PALIGEMMA
    },
    PALIGEMMA2,
    Facts { names: &["paligemma2-3b-pt-448"], picture: MEDIUM, ..PALIGEMMA2 },
    Facts {
        names: &["paligemma2-3b-pt-896"],
        picture: LARGE,
        parameters: (3_040_000_000, 10_000_000),
        ..PALIGEMMA2
    },
    PALIGEMMA2_10B,
    Facts { names: &["paligemma2-10b-pt-448"], picture: MEDIUM, ..PALIGEMMA2_10B },
    Facts {
        names: &["paligemma2-10b-pt-896"],
        picture: LARGE,
        parameters: (9_670_000_000, 10_000_000),
        ..PALIGEMMA2_10B
    },
    PALIGEMMA2_28B,
    Facts { names: &["paligemma2-28b-pt-448"], picture: MEDIUM, ..PALIGEMMA2_28B },
    Facts { names: &["paligemma2-28b-pt-896"], picture: LARGE, ..PALIGEMMA2_28B },
];

fn folder(name: &str) -> PathBuf {
    places::repository().join("tests/fixtures/configurations").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::without_weights(&folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What the reference implementation builds.
#[derive(Deserialize)]
struct Reference {
    models: BTreeMap<String, Built>,
}

#[derive(Deserialize)]
struct Built {
    parameters: u64,
    tensors: Vec<Tensor>,
}

/// A tensor, or one that these layers have in common: `*` stands for the layer's number.
#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    #[serde(default)]
    layers: Vec<usize>,
}

impl Tensor {
    fn names(&self) -> Vec<String> {
        if self.layers.is_empty() {
            return vec![self.name.clone()];
        }
        self.layers.iter().map(|layer| self.name.replace('*', &layer.to_string())).collect()
    }
}

fn reference() -> Reference {
    let path = folder("tensors.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_configuration_is_held_against_facts_and_reference() {
    let facts: BTreeSet<&str> = ALL.iter().flat_map(|facts| facts.names).copied().collect();
    let built = reference().models;
    assert_eq!(built.keys().map(String::as_str).collect::<BTreeSet<_>>(), facts);
    let folders = std::fs::read_dir(folder(".")).expect("the fixtures are there");
    let folders = folders.flatten().filter(|entry| entry.path().is_dir());
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(folders.iter().map(String::as_str).collect::<BTreeSet<_>>(), facts);
}

#[test]
fn networks_have_the_published_dimensions() {
    for facts in ALL {
        for name in facts.names {
            let config = open(name).config().clone();
            println!("{name}: {} parameters", config.parameters());
            check_network(name, &config, facts);
            check_picture(name, &config, facts);
            for (index, layer) in config.layers.iter().enumerate() {
                let what = format!("{name}, layer {index}");
                assert_eq!(layer.mlp.ffn, facts.ffn, "{what}");
                let griffin = matches!(facts.pattern, Pattern::Griffin);
                assert_eq!(layer.mlp.bias, griffin, "{what}");
                let pre = griffin || matches!(facts.pattern, Pattern::Full);
                assert_eq!(layer.norms, if pre { Norms::Pre } else { Norms::PrePost }, "{what}");
                assert_eq!(layer.mixer, expected_mixer(facts, index), "{what}");
            }
        }
    }
}

fn check_network(name: &str, config: &ModelConfig, facts: &Facts) {
    assert_eq!(config.name(), facts.architecture, "{name}");
    assert_eq!((config.hidden, config.layers.len()), (facts.hidden, facts.layers), "{name}");
    assert_eq!((config.vocab, config.context), (facts.vocab, facts.context), "{name}");
    assert_eq!(config.final_soft_cap, facts.caps.1, "{name}");
    assert_eq!((config.norm_eps, config.norm_offset), (1e-6, 1.0), "{name}");
    assert_eq!(config.embed_scale, facts.embed_scale, "{name}");
    assert_eq!((config.bos, config.eos.contains(&1)), (2, true), "{name}");
    let (published, unit) = facts.parameters;
    let off = config.parameters().abs_diff(published);
    assert!(2 * off < unit, "{name} has {} parameters, published are {published}", config.parameters());
}

fn check_picture(name: &str, config: &ModelConfig, facts: &Facts) {
    let Some((size, tokens)) = facts.picture else {
        assert_eq!(config.vision, None, "{name}");
        assert_eq!(config.first_position, 0, "{name}");
        return;
    };
    let vision = config.vision.as_ref().unwrap_or_else(|| panic!("{name} reads no pictures"));
    assert_eq!((vision.image_size, vision.tokens, vision.patch), (size, tokens, 14), "{name}");
    assert_eq!((vision.layers, vision.hidden, vision.ffn), (27, 1152, 4304), "{name}");
    assert_eq!((vision.heads, vision.head_dim(), vision.eps), (16, 72, 1e-6), "{name}");
    let gemma3 = facts.architecture == "gemma3";
    let (projector, sight, token) = if gemma3 {
        (Projector::Pool, Sight::Picture, 262_144)
    } else {
        (Projector::Linear, Sight::Prefix, 257_152)
    };
    assert_eq!((vision.projector, vision.sight, vision.image_token), (projector, sight, token), "{name}");
    assert_eq!(config.first_position, usize::from(!gemma3), "{name}");
}

fn expected_mixer(facts: &Facts, index: usize) -> Mixer {
    let slides = match facts.pattern {
        Pattern::Full => false,
        Pattern::Alternating => index.is_multiple_of(2),
        Pattern::FiveToOne => index % 6 != 5,
        Pattern::Griffin if index % 3 != 2 => {
            return Mixer::RgLru(RgLruSpec { width: facts.hidden, blocks: facts.heads.0, taps: 4 });
        }
        Pattern::Griffin => true,
    };
    let (heads, kv_heads, head_dim) = facts.heads;
    let (theta, factor) = facts.ropes[usize::from(slides)];
    let griffin = matches!(facts.pattern, Pattern::Griffin);
    Mixer::Attention(AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        scale: facts.query_scalar.powf(-0.5),
        window: facts.window.filter(|_| slides),
        rope: RopeSpec { theta, factor },
        rotary: if griffin { head_dim / 2 } else { head_dim },
        qk_norm: matches!(facts.pattern, Pattern::FiveToOne),
        soft_cap: facts.caps.0,
        out_bias: griffin,
    })
}

#[test]
fn layers_of_a_kind_add_up() {
    let count = |name: &str| {
        let config = open(name).config().clone();
        let recurrent = config.layers.iter().filter(|l| matches!(l.mixer, Mixer::RgLru(_))).count();
        (recurrent, config.layers.len() - recurrent)
    };
    assert_eq!(count("recurrentgemma-2b"), (18, 8));
    assert_eq!(count("recurrentgemma-9b"), (26, 12));
    assert_eq!(count("gemma-2-9b"), (0, 42));
}

#[test]
fn the_required_tensors_are_those_of_the_reference() {
    for (name, built) in reference().models {
        let checkpoint = open(&name);
        let mut theirs = BTreeMap::new();
        for tensor in &built.tensors {
            for full in tensor.names() {
                let twice = theirs.insert(canonical_name(&full), tensor.shape.clone());
                assert!(twice.is_none(), "{name}: two tensors are called {}", canonical_name(&full));
            }
        }
        let ours: BTreeMap<String, Vec<usize>> = checkpoint.required().into_iter().collect();
        let missing: Vec<_> = theirs.iter().filter(|(tensor, _)| !ours.contains_key(*tensor)).collect();
        assert!(missing.is_empty(), "{name}: the engine does not read {missing:?}");
        assert_eq!(ours, theirs, "{name}");
        let numbers: u64 = ours.values().map(|shape| shape.iter().product::<usize>() as u64).sum();
        assert_eq!(numbers, built.parameters, "{name}");
        assert_eq!(checkpoint.config().parameters(), built.parameters, "{name}");
    }
}

/// The published files spell wrapped names otherwise than the reference implementation of today.
#[test]
fn published_names_of_wrapped_tensors_mean_the_same() {
    for name in ["paligemma-3b-pt-224", "paligemma2-28b-pt-896", "gemma-3-12b"] {
        for tensor in reference().models[name].tensors.iter().flat_map(Tensor::names) {
            let published = tensor
                .replace("model.language_model.", "language_model.model.")
                .replace("model.vision_tower.", "vision_tower.vision_model.")
                .replace("model.multi_modal_projector.", "multi_modal_projector.");
            assert_ne!(published, tensor, "every tensor is wrapped");
            assert_eq!(canonical_name(&published), canonical_name(&tensor), "{name}");
        }
    }
}
