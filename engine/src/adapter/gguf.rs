//! Adapters as llama.cpp has them: a GGUF file with `NAME.lora_a` and `NAME.lora_b` for each product.

use std::path::Path;

use super::{Adapter, Builder, digest, name_of};
use crate::checkpoint::gguf::{Gguf, Value, type_name};
use crate::checkpoint::map::MappedFile;
use crate::checkpoint::{gguf_config, names};
use crate::error::Result;

pub(super) fn open(path: &Path) -> Result<Adapter> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes();
    let gguf = Gguf::parse(bytes, path)?;
    let mut builder = Builder::new(path);
    if !gguf.is_adapter(bytes) {
        return Err(builder.unsupported("is a model and not an adapter"));
    }
    match gguf.str(bytes, "adapter.type") {
        Some("lora") => {}
        kind => {
            let kind = kind.unwrap_or("unknown");
            return Err(builder.unsupported(format!("is an adapter of the kind {kind}")));
        }
    }
    let name = gguf.str(bytes, "general.architecture").unwrap_or("unknown");
    let Some(architecture) = gguf_config::architecture_of(name) else {
        return Err(builder.unsupported(format!("is an adapter for the architecture {name}")));
    };
    // Without one llama.cpp takes the product as it is.
    let alpha = gguf.get("adapter.lora.alpha").and_then(Value::as_f32).filter(|&alpha| alpha != 0.0);
    if alpha.is_some_and(|alpha| !alpha.is_finite()) {
        return Err(builder.broken("adapter.lora.alpha is not finite"));
    }
    for tensor in gguf.tensors() {
        let (base, second) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".lora_b"))
        {
            (Some(base), _) => (base, false),
            (_, Some(base)) => (base, true),
            _ => {
                let problem = format!("tensor {} is no part of a low-rank product", tensor.name);
                return Err(builder.unsupported(problem));
            }
        };
        let weight = names::from_gguf(base, architecture);
        let module = weight.as_deref().and_then(|weight| weight.strip_suffix(".weight"));
        let Some(module) = module.filter(|module| module.starts_with("model.layers.")) else {
            return Err(builder.unsupported(format!("adds to {base}")));
        };
        let format = tensor.format.map_err(|number| {
            builder.unsupported(format!("tensor {} is stored as {}", tensor.name, type_name(number)))
        })?;
        let data = bytes.get(tensor.range.clone()).unwrap_or_default();
        builder.take(module.to_owned(), second, &tensor.shape, format, data)?;
    }
    let scale = |rank: usize| alpha.map_or(1.0, |alpha| f64::from(alpha) / rank as f64);
    Ok(Adapter {
        name: name_of(path),
        path: path.to_owned(),
        architecture: Some(architecture),
        modules: builder.finish(|_, rank| Ok(scale(rank)))?,
        rows: Default::default(),
        infill: None,
        digest: digest(&[bytes]),
    })
}
