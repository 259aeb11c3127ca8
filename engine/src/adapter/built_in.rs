//! The adapter that comes with the program: it teaches Gemma 3 270M, the model that anybody may fetch, to fill in the
//! middle. Gemma is provided under and subject to the Gemma Terms of Use; see NOTICE beside its files.

use std::path::Path;

use super::{Adapter, peft};
use crate::config::{Architecture, ModelConfig};
use crate::error::Result;

const CONFIG: &[u8] = include_bytes!("../../adapters/gemma-3-270m-fim/adapter_config.json");
const WEIGHTS: &[u8] = include_bytes!("../../adapters/gemma-3-270m-fim/adapter_model.safetensors");
const INFILL: &[u8] = include_bytes!("../../adapters/gemma-3-270m-fim/fim.json");

/// What it is called.
const NAME: &str = "gemma-3-270m-fim";

/// Of its base: width, layers.
const BASE: (usize, usize) = (640, 18);

/// The adapter that comes with the program for such a network; `None` where there is none. Whether the model was tuned to
/// follow instructions, for which it was not trained, a network does not tell.
pub fn built_in(base: &ModelConfig) -> Option<Result<Adapter>> {
    let fits = base.architecture == Architecture::Gemma3 && (base.hidden, base.layers.len()) == BASE;
    let files = peft::Files { config: CONFIG, weights: WEIGHTS, infill: Some(INFILL) };
    fits.then(|| peft::parse(&files, Path::new(NAME)))
}
