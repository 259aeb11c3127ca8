//! The golden cases under `tests/fixtures/golden`: what the reference implementation computed.
//! Their README says what each field means.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::numbers::Matrix;
use crate::places;

/// A tiny model with random weights and what comes out of it.
pub struct Case {
    /// Its folder's name.
    pub name: String,
    /// What was computed.
    pub golden: Golden,
    tensors: HashMap<String, Matrix>,
    /// What is no matrix.
    arrays: HashMap<String, Array>,
}

/// Numbers in more dimensions than two, or fewer.
pub struct Array {
    /// Its shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub data: Vec<f32>,
}

/// The parts of a model case's `golden.json` that the suite reads.
#[derive(Deserialize)]
pub struct Golden {
    /// Prompts with the logits of every position.
    pub prompts: Vec<Prompt>,
    /// Greedy continuations.
    pub greedy: Vec<Greedy>,
    /// Pairs of prompts with a common beginning.
    pub branches: Vec<Branch>,
    /// The case whose model an adapter belongs to.
    #[serde(default)]
    pub base: Option<String>,
}

/// One pass over a prompt.
#[derive(Deserialize)]
pub struct Prompt {
    /// What it is called in messages.
    pub name: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Name of the tensor with its logits.
    pub logits: String,
    /// How far the logits move under one rounding step of the embeddings.
    #[serde(default)]
    pub noise: f32,
    /// Which tokens see forward, in the cases with pictures.
    #[serde(default)]
    pub token_type_ids: Vec<u32>,
    /// Whether it is about the case's one picture.
    #[serde(default)]
    image: bool,
    /// How many of the case's pictures it is about.
    #[serde(default)]
    images: usize,
}

impl Prompt {
    /// How many of the case's pictures it is about.
    pub fn pictures(&self) -> usize {
        self.images.max(usize::from(self.image))
    }

    /// How far a sound engine in f32 may stand from the reference.
    pub fn tolerance(&self) -> f32 {
        (20.0 * self.noise).max(1e-4)
    }
}

/// 24 greedy tokens behind a prompt; EOS does not stop them.
#[derive(Deserialize)]
pub struct Greedy {
    /// Name of the prompt.
    pub prompt: String,
    /// The tokens.
    pub ids: Vec<u32>,
    /// Name of the tensor with the logits that each was picked from.
    pub logits: String,
}

/// Two prompts that begin alike.
#[derive(Deserialize)]
pub struct Branch {
    /// The prompt to run first.
    pub base: String,
    /// Tokens they have in common.
    pub prefix_len: usize,
    /// The prompt to run then.
    pub prompt: String,
}

impl Case {
    /// The pixel values of each picture, as the reference computed them.
    pub fn pixels(&self) -> Vec<Vec<f32>> {
        let values = self.array("pixel_values");
        values.data.chunks(values.data.len() / values.shape[0]).map(<[f32]>::to_vec).collect()
    }

    /// How many tokens of a sequence are the prompt that a PaliGemma sees in both directions; `None` for others.
    pub fn prefix(&self, prompt: &Prompt) -> Option<usize> {
        let prefix = || prompt.token_type_ids.iter().take_while(|&&kind| kind == 0).count();
        self.name.starts_with("paligemma").then(prefix)
    }

    /// Reads a case by its folder's name.
    pub fn read(name: &str) -> Self {
        let golden = json(&format!("{name}/golden.json"));
        let path = format!("{name}/golden.safetensors");
        let bytes = read(&places::golden(&path));
        let tensors = matrices(&bytes).unwrap_or_else(|e| panic!("{path}: {e}"));
        let arrays = arrays(&bytes).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { name: name.to_owned(), golden, tensors, arrays }
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> &Matrix {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no golden tensor {name}", self.name))
    }

    /// An array that is no matrix, by its name.
    pub fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("{}: no golden array {name}", self.name))
    }

    /// Whether there is a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A prompt by its name.
    pub fn prompt(&self, name: &str) -> &Prompt {
        let found = self.golden.prompts.iter().find(|prompt| prompt.name == name);
        found.unwrap_or_else(|| panic!("{}: no golden prompt {name}", self.name))
    }

    /// A copy of the checkpoint in a folder of its own, with one of its configurations
    /// (`config.json`, `config_legacy.json`) as its `config.json`.
    pub fn checkpoint(&self, config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (from, to) in [(config, "config.json"), ("model.safetensors", "model.safetensors")] {
            let from = places::golden(&self.name).join(from);
            std::fs::copy(&from, folder.path().join(to))
                .unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
        folder
    }
}

/// The cases of one vocabulary.
#[derive(Deserialize)]
pub struct Vocabulary {
    /// `gemma`, `codegemma` or `gemma3`.
    pub tokenizer: String,
    /// Control tokens by name.
    pub special_ids: HashMap<String, u32>,
    /// Texts and their ids.
    pub cases: Vec<Encoded>,
}

/// A text and its ids.
#[derive(Deserialize)]
pub struct Encoded {
    /// The text.
    pub text: String,
    /// Its ids, without `<bos>`.
    pub ids: Vec<u32>,
    decoded: Option<String>,
    decoded_without_special: Option<String>,
}

impl Encoded {
    /// What the ids decode to.
    pub fn decoded(&self) -> &str {
        self.decoded.as_deref().unwrap_or(&self.text)
    }

    /// What the ids decode to when control tokens are left out.
    pub fn decoded_without_special(&self) -> &str {
        self.decoded_without_special.as_deref().unwrap_or(self.decoded())
    }
}

/// What the reference makes of the real Gemma 3 270M.
#[derive(Deserialize)]
pub struct RealModel {
    /// SHA-256 of the file that it read.
    pub gguf_sha256: String,
    /// Excerpts of source files.
    pub prompts: Vec<RealPrompt>,
}

/// An excerpt of a source file.
#[derive(Deserialize)]
pub struct RealPrompt {
    /// What it is called in messages.
    pub name: String,
    /// The excerpt.
    pub text: String,
    /// Its tokens, `<bos>` included.
    pub ids: Vec<u32>,
    /// Mean negative log-likelihood of the tokens behind `<bos>`, in nats.
    pub mean_nll: f64,
    /// The most likely next token after each position.
    pub argmax: Vec<u32>,
    /// The most likely tokens after the last position, with the logarithms of their probabilities.
    pub top20: Vec<(u32, f64)>,
    /// 32 greedy tokens.
    pub greedy_ids: Vec<u32>,
    /// Largest minus second largest logit of each greedy step.
    pub greedy_margins: Vec<f32>,
}

/// Reads a JSON file of the golden data.
pub fn json<T: DeserializeOwned>(path: &str) -> T {
    let path = places::golden(path);
    let text = read(&path);
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The f32 matrices in the bytes of a safetensors file; what has another shape is left out.
pub fn matrices(bytes: &[u8]) -> Result<HashMap<String, Matrix>, safetensors::SafeTensorError> {
    let all = arrays(bytes)?.into_iter();
    Ok(all
        .filter_map(|(name, array)| match array.shape[..] {
            [_, cols] => Some((name, Matrix { cols, data: array.data })),
            _ => None,
        })
        .collect())
}

/// The f32 tensors in the bytes of a safetensors file.
fn arrays(bytes: &[u8]) -> Result<HashMap<String, Array>, safetensors::SafeTensorError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut found = HashMap::new();
    for (name, view) in file.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::F32) {
        let numbers = view.data().chunks_exact(4);
        let data = numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        found.insert(name, Array { shape: view.shape().to_vec(), data });
    }
    Ok(found)
}

fn read(path: &PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_what_its_json_names() {
        let case = Case::read("gemma1-mqa");
        let prompt = case.prompt("long");
        let logits = case.tensor(&prompt.logits);
        assert_eq!((logits.rows(), logits.cols), (prompt.ids.len(), 256));
        assert!(prompt.tolerance() >= 1e-4);
        for branch in &case.golden.branches {
            let (base, prompt) = (&case.prompt(&branch.base).ids, &case.prompt(&branch.prompt).ids);
            assert_eq!(base[..branch.prefix_len], prompt[..branch.prefix_len]);
            assert_ne!(base[branch.prefix_len], prompt[branch.prefix_len]);
        }
    }
}
