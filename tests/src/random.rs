//! Models of the published sizes with random weights: speed and memory can be measured without a
//! download. The words are nonsense; what is computed, read and kept is not.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::bf16;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::synthetic::{Gguf, Naming};
use crate::vocabulary::Vocabulary;

/// Rows that are made at a time: a table of 256,000 rows must not stand in memory as f32.
const ROWS: usize = 4096;

/// A model that can be made.
pub struct Recipe {
    config: Value,
    /// By HuggingFace's names, in the file's order.
    tensors: Vec<Spec>,
}

/// In which formats a file keeps its matrices; all else is kept in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// All of them in this one.
    All(GgmlDType),
    /// As llama.cpp mixes Q4_K_M: Q4_K, but Q6_K for the table of embeddings, and in the layers that matter most to the
    /// answer for the values and the way down.
    Q4KM,
}

struct Spec {
    name: String,
    shape: Vec<usize>,
    /// Numbers are spread around this.
    mean: f32,
    /// How far.
    spread: f32,
}

/// Rows of a tensor that are made at once.
struct Piece<'a> {
    /// Which tensor it is of.
    number: usize,
    spec: &'a Spec,
    first: usize,
    rows: usize,
}

/// A tensor, or one of each of several layers, as `tensors.json` lists it.
#[derive(Deserialize)]
struct Listed {
    name: String,
    shape: Vec<usize>,
    #[serde(default)]
    layers: Vec<usize>,
}

/// The tensors of the published models.
const TENSORS: &str = include_str!("../fixtures/configurations/tensors.json");

/// The models that [`Recipe::named`] knows, each with its published configuration.
macro_rules! published {
    ($($name:literal),*) => {
        /// The models that [`Recipe::named`] knows.
        pub const NAMES: [&str; [$($name),*].len()] = [$($name),*];
        const CONFIGURATIONS: [&str; NAMES.len()] =
            [$(include_str!(concat!("../fixtures/configurations/", $name, "/config.json"))),*];
    };
}
published!(
    "codegemma-2b",
    "codegemma-7b",
    "gemma-2-9b",
    "gemma-3-4b",
    "paligemma-3b-pt-224",
    "recurrentgemma-2b"
);

impl Recipe {
    /// A model by its published name.
    pub fn named(name: &str) -> Option<Self> {
        let place = NAMES.iter().position(|known| *known == name)?;
        let config = serde_json::from_str(CONFIGURATIONS[place]).expect("a fixture is JSON");
        let all: Value = serde_json::from_str(TENSORS).expect("a fixture is JSON");
        let listed = Vec::<Listed>::deserialize(&all["models"][name]["tensors"]).expect("each is listed");
        let tensors = listed.iter().flat_map(|tensor| {
            let layers = tensor.layers.iter().map(|layer| tensor.name.replace('*', &layer.to_string()));
            let names = if tensor.layers.is_empty() { vec![tensor.name.clone()] } else { layers.collect() };
            names.into_iter().map(|name| Spec::new(name, tensor.shape.clone()))
        });
        Some(Self { config, tensors: tensors.collect() })
    }

    /// The same with as many layers as wanted; `None` where layers differ from each other.
    pub fn with_layers(mut self, layers: usize) -> Option<Self> {
        let number = |spec: &Spec| spec.name.split('.').find_map(|part| part.parse::<usize>().ok());
        let of = |layer: usize| {
            let own = self.tensors.iter().filter(move |spec| number(spec) == Some(layer));
            own.map(move |spec| (spec.name.replacen(&format!(".{layer}."), ".*.", 1), spec.shape.clone()))
        };
        let known = self.tensors.iter().filter_map(number).max()?;
        let first: Vec<_> = of(0).collect();
        if (1..=known).any(|layer| !of(layer).eq(first.iter().cloned())) {
            return None;
        }
        self.tensors.retain(|spec| number(spec).is_none());
        for layer in 0..layers {
            let each =
                first.iter().map(|(name, shape)| (name.replace('*', &layer.to_string()), shape.clone()));
            self.tensors.extend(each.map(|(name, shape)| Spec::new(name, shape)));
        }
        self.config["num_hidden_layers"] = json!(layers);
        Some(self)
    }

    /// Makes all tensors piece by piece on every core, and hands each piece over as soon as it is made.
    fn in_pieces<Made: Send, E>(
        &self,
        make: impl Fn(&Piece<'_>) -> Made + Sync,
        mut take: impl FnMut(&Piece<'_>, Made) -> Result<(), E>,
    ) -> Result<(), E> {
        let pieces: Vec<Piece<'_>> = self.tensors.iter().enumerate().flat_map(pieces).collect();
        let (next, threads) = (AtomicUsize::new(0), thread::available_parallelism().map_or(1, usize::from));
        let (pieces, next, make) = (&pieces, &next, &make);
        thread::scope(|scope| {
            let (made, taken) = mpsc::sync_channel(threads);
            for _ in 0..threads {
                let made = made.clone();
                scope.spawn(move || {
                    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // Nobody takes it where the last one could not be taken.
                        if made.send((piece, make(piece))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(made);
            taken.into_iter().try_for_each(|(piece, made)| take(piece, made))
        })
    }

    /// Writes a HuggingFace folder in bf16, with a vocabulary where one is given; `progress` hears of the bytes
    /// written.
    pub fn write_folder(
        &self,
        folder: &Path,
        vocabulary: Option<&Vocabulary>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        if let Some(vocabulary) = vocabulary {
            vocabulary.copy_into(folder)?;
        }
        std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&self.config)?)?;
        let mut header = Map::new();
        let (mut begins, mut end) = (Vec::with_capacity(self.tensors.len()), 0);
        for spec in &self.tensors {
            begins.push(end);
            end += 2 * spec.len() as u64;
            let place = json!({"dtype": "BF16", "shape": spec.shape, "data_offsets": [end - 2 * spec.len() as u64, end]});
            header.insert(spec.name.clone(), place);
        }
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let header = serde_json::to_vec(&header)?;
        let mut file = File::create(folder.join("model.safetensors"))?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut done = 0;
        let bytes = |piece: &Piece<'_>| piece.numbers().flat_map(bf16::to_le_bytes).collect::<Vec<u8>>();
        self.in_pieces(bytes, |piece, bytes| {
            let at = begins[piece.number] + 2 * (piece.first * piece.spec.cols()) as u64;
            file.seek(SeekFrom::Start(8 + header.len() as u64 + at))?;
            file.write_all(&bytes)?;
            done += bytes.len() as u64;
            progress(done, end);
            Ok(())
        })
    }

    /// Writes a GGUF file of the same numbers, its matrices in `mix` and the rest in f32. Without a
    /// vocabulary it gets one of bytes and single letters. What sees pictures has no such file.
    pub fn write_gguf(
        &self,
        path: &Path,
        mix: Mix,
        vocabulary: Option<&Vocabulary>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> candle_core::Result<()> {
        if self.config["vision_config"].is_object() {
            candle_core::bail!("a model that sees is written as a folder only");
        }
        let naming = Naming::new(&self.config);
        let layers = self.config["num_hidden_layers"].as_u64().unwrap_or_default() as usize;
        let kept = |spec: &Spec| spec.kept(mix, layers);
        let total = self.tensors.iter().map(|spec| spec.len() as u64).sum();
        let quantised = |piece: &Piece<'_>| {
            let offset = naming.offset(&piece.spec.name);
            let numbers: Vec<f32> = piece.numbers().map(|v| v.to_f32() + offset).collect();
            let numbers = Tensor::from_vec(numbers, (piece.rows, piece.spec.cols()), &Device::Cpu)?;
            let quantised = QTensor::quantize(&numbers, kept(piece.spec))?;
            Ok::<_, candle_core::Error>(quantised.data()?.into_owned())
        };
        let mut bytes: Vec<Vec<u8>> =
            self.tensors.iter().map(|spec| vec![0; spec.bytes(kept(spec))]).collect();
        let mut done = 0;
        self.in_pieces(quantised, |piece, made| {
            let (made, whole) = (made?, &mut bytes[piece.number]);
            let at = whole.len() / piece.spec.rows() * piece.first;
            whole[at..at + made.len()].copy_from_slice(&made);
            done += (piece.rows * piece.spec.cols()) as u64;
            progress(done, total);
            Ok::<_, candle_core::Error>(())
        })?;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (spec, bytes) in self.tensors.iter().zip(bytes) {
            let storage = QStorage::from_data(bytes.into(), &Device::Cpu, kept(spec))?;
            tensors.push((naming.gguf(&spec.name), QTensor::new(storage, spec.shape.as_slice())?));
        }
        let mut metadata = naming.metadata();
        if let Some(vocabulary) = vocabulary {
            metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
            metadata.extend(vocabulary.metadata(naming.vocabulary_len())?);
        }
        Gguf::new(metadata, tensors).write(path, 3);
        Ok(())
    }
}

/// The pieces of a tensor.
fn pieces((number, spec): (usize, &Spec)) -> impl Iterator<Item = Piece<'_>> {
    let starts = (0..spec.rows()).step_by(ROWS);
    starts.map(move |first| Piece { number, spec, first, rows: ROWS.min(spec.rows() - first) })
}

/// The layers to which llama.cpp gives more bits: the first and the last eighth, and every third between.
fn matters(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl Spec {
    /// Numbers as large as those of a trained model, so that nothing overflows.
    fn new(name: String, shape: Vec<usize>) -> Self {
        let norm = name.contains("norm") && name.ends_with("weight");
        let (mean, spread) = if name.ends_with("recurrent_param") {
            // Between channels that forget within a few tokens and channels that keep hundreds.
            (-6.0, 1.0)
        } else if norm {
            // The tower's norms multiply by their weight, all others by one more.
            (if name.contains("vision_tower") { 1.0 } else { 0.0 }, 0.1)
        } else if name.ends_with("bias") {
            (0.0, 0.1)
        } else if name.ends_with("conv_1d.weight") {
            (0.0, 0.5)
        } else {
            let inputs: usize =
                if shape.len() == 4 { shape[1..].iter().product() } else { shape[shape.len() - 1] };
            (0.0, 1.0 / (inputs as f32).sqrt())
        };
        Self { name, shape, mean, spread }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.len() / self.cols()
    }

    /// In which format it stands in a file of a model of so many layers.
    fn kept(&self, mix: Mix, layers: usize) -> GgmlDType {
        if self.name.ends_with("gate_weight") {
            // As `gemma-ls model quantize` leaves a recurrence's gates.
            return GgmlDType::BF16;
        }
        if self.shape.len() != 2 || self.name.ends_with("bias") {
            return GgmlDType::F32;
        }
        match mix {
            Mix::All(format) => format,
            Mix::Q4KM if self.name.ends_with("embed_tokens.weight") => GgmlDType::Q6K,
            Mix::Q4KM if self.name.ends_with("v_proj.weight") || self.name.ends_with("down_proj.weight") => {
                let layer = self.name.split('.').find_map(|part| part.parse().ok());
                if layer.is_some_and(|layer| matters(layer, layers)) {
                    GgmlDType::Q6K
                } else {
                    GgmlDType::Q4K
                }
            }
            Mix::Q4KM => GgmlDType::Q4K,
        }
    }

    /// Its size in a format.
    fn bytes(&self, format: GgmlDType) -> usize {
        self.len() / format.block_size() * format.type_size()
    }
}

impl Piece<'_> {
    /// Its numbers, the same each time: the tensor's name and the place in it are the seed.
    fn numbers(&self) -> impl Iterator<Item = bf16> + use<> {
        let seed = self.spec.name.bytes().chain(self.first.to_le_bytes());
        let seed = seed.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (mean, spread) = (self.spec.mean, self.spec.spread);
        let mut state = seed | 1;
        std::iter::repeat_with(move || {
            // xorshift64*; four numbers out of each step.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
            [0, 16, 32, 48].map(|shift| {
                // Even over a range whose standard deviation is 1.
                let even = ((bits >> shift) as u16 as f32 / 32_768.0 - 1.0) * 3.0_f32.sqrt();
                bf16::from_f32(mean + spread * even)
            })
        })
        .flatten()
        .take(self.rows * self.spec.cols())
    }
}

#[cfg(test)]
mod tests {
    use gemma_engine::Precision;

    use super::*;
    use crate::models::Loaded;
    use crate::numbers::worst;

    /// A published model with all dimensions made smaller, four layers of it, and a table of more rows than are made
    /// at a time.
    fn small(name: &str, dimensions: &[(usize, usize)]) -> Recipe {
        let mut recipe = Recipe::named(name).expect("it is known");
        let smaller = |n: usize| dimensions.iter().find(|(from, _)| *from == n).map_or(n, |(_, to)| *to);
        for key in [
            "vocab_size",
            "hidden_size",
            "lru_width",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "query_pre_attn_scalar",
        ] {
            if let Some(number) = recipe.config[key].as_u64() {
                recipe.config[key] = json!(smaller(number as usize));
            }
        }
        recipe.config["num_hidden_layers"] = json!(4);
        let layer = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
        recipe.tensors.retain(|spec| layer(&spec.name).is_none_or(|layer| layer < 4));
        let tensors = recipe.tensors.into_iter();
        let tensors = tensors.map(|s| Spec::new(s.name, s.shape.into_iter().map(smaller).collect()));
        Recipe { tensors: tensors.collect(), config: recipe.config }
    }

    #[test]
    fn folder_and_gguf_are_the_same_model() {
        let vocab = (256_000, ROWS + 300);
        let models = [
            small("codegemma-2b", &[vocab, (2048, 64), (16_384, 256), (256, 16), (8, 4)]),
            small(
                "gemma-2-9b",
                &[vocab, (3584, 64), (4096, 64), (2048, 32), (14_336, 256), (256, 16), (16, 4), (8, 2)],
            ),
            small("recurrentgemma-2b", &[vocab, (2560, 64), (15_360, 256), (7680, 128), (256, 16), (10, 4)]),
        ];
        for recipe in models {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            recipe.write_folder(folder.path(), None, &mut |_, _| {}).expect("written");
            let file = folder.path().join("model.gguf");
            recipe.write_gguf(&file, Mix::All(GgmlDType::F32), None, &mut |_, _| {}).expect("written");
            let ids: Vec<u32> = (0..20).map(|i| 2 + i * 211).collect();
            let logits = |path: &Path| Loaded::new(path, Precision::Exact).logits(&ids, None);
            let (ours, theirs) = (logits(folder.path()), logits(&file));
            // The scale of the embeddings is rounded with bf16 weights and not in GGUF.
            assert!(worst(&ours.data, &theirs.data) < 0.05, "{}", worst(&ours.data, &theirs.data));
        }
    }

    #[test]
    fn layers_can_be_added_where_all_are_alike() {
        let named = |name| Recipe::named(name).expect("it is known");
        let count = |recipe: &Recipe| recipe.tensors.len();
        let (few, many) = (named("codegemma-2b"), named("codegemma-2b"));
        let many = many.with_layers(20).expect("its layers are alike");
        assert_eq!(count(&many) - count(&few), 2 * 9);
        assert!(many.tensors.iter().any(|spec| spec.name == "model.layers.19.mlp.up_proj.weight"));
        let same = named("codegemma-2b").with_layers(18).expect("its layers are alike");
        let mut names = [&few, &same].map(|r| r.tensors.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
        names.iter_mut().for_each(|names| names.sort());
        assert_eq!(names[0], names[1]);
        assert!(named("recurrentgemma-2b").with_layers(30).is_none());
    }

    #[test]
    fn q4_k_m_is_mixed_as_llama_cpp_mixes_it() {
        let recipe = Recipe::named("codegemma-2b").expect("it is known");
        let of = |name: &str| {
            let spec = recipe.tensors.iter().find(|spec| spec.name == name).expect("the model has it");
            spec.kept(Mix::Q4KM, 18)
        };
        assert_eq!(of("model.embed_tokens.weight"), GgmlDType::Q6K);
        assert_eq!(of("model.norm.weight"), GgmlDType::F32);
        // What llama-quantize says of Gemma 2B's 18 layers.
        let more = [0, 1, 4, 7, 10, 13, 15, 16, 17];
        for layer in 0..18 {
            let name = |part: &str| format!("model.layers.{layer}.{part}_proj.weight");
            let expected = if more.contains(&layer) { GgmlDType::Q6K } else { GgmlDType::Q4K };
            assert_eq!(of(&name("self_attn.v")), expected, "values of layer {layer}");
            assert_eq!(of(&name("mlp.down")), expected, "the way down of layer {layer}");
            assert_eq!(of(&name("mlp.up")), GgmlDType::Q4K);
        }
    }

    #[test]
    fn every_published_model_can_be_made() {
        for name in NAMES {
            let recipe = Recipe::named(name).expect("it is known");
            let gemma = recipe.tensors.iter().any(|spec| spec.name.ends_with("embed_tokens.weight"));
            assert!(gemma && recipe.tensors.len() > 100, "{name} has {} tensors", recipe.tensors.len());
        }
    }
}
