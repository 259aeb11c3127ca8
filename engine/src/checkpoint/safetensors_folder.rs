//! The weights of a HuggingFace folder: one `model.safetensors`, or shards with an index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use gemma_kernels::Format;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::map::{MappedFile, cannot_read};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the number before a safetensors header.
const LENGTH_BYTES: usize = 8;

/// Where a tensor stands in the mapped files.
pub(super) struct Place {
    /// Index into the list of mapped files.
    pub(super) file: usize,
    /// The storage format, or the name of one this engine does not know.
    pub(super) format: Result<Format, String>,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// The mapped weight files of a folder and all tensors in them by the names the files use.
pub(super) struct Weights {
    pub(super) files: Vec<MappedFile>,
    pub(super) tensors: HashMap<String, Place>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Maps the weight files of `folder` and reads their headers.
pub(super) fn open(folder: &Path) -> Result<Weights> {
    let index_path = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    if single.is_file() || !index_path.is_file() {
        return read_shards(vec![single_file(folder, single)?]);
    }
    let text = std::fs::read(&index_path).map_err(|e| cannot_read(&index_path, &e))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| {
        Error::new(
            ErrorKind::BadFile,
            index_path.display(),
            format_args!("is no index of safetensors shards: {e}"),
        )
        .remedy("Download the file again.")
    })?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    let shards =
        names.into_iter().map(|name| shard_path(folder, &index_path, name)).collect::<Result<Vec<_>>>()?;
    let weights = read_shards(shards)?;
    if let Some((tensor, shard)) = index.weight_map.iter().find(|(t, _)| !weights.tensors.contains_key(*t)) {
        return Err(Error::new(
            ErrorKind::BadFile,
            folder.join(shard).display(),
            format_args!("lacks tensor {tensor}, which {} places there", index_path.display()),
        )
        .remedy("The files are not of one download: download the folder again."));
    }
    Ok(weights)
}

/// `model.safetensors`, or the only `.safetensors` file of the folder whatever it is called.
fn single_file(folder: &Path, usual: PathBuf) -> Result<PathBuf> {
    if usual.is_file() {
        return Ok(usual);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| cannot_read(folder, &e))?;
    let (mut found, mut pickled) = (Vec::new(), false);
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => found.push(path),
            Some("bin" | "pth" | "pt" | "ckpt") => pickled = true,
            _ => {}
        }
    }
    match (found.len(), pickled) {
        (1, _) => Ok(found.swap_remove(0)),
        (0, true) => Err(Error::new(
            ErrorKind::Unsupported,
            folder.display(),
            "has its weights in PyTorch files, not in safetensors",
        )
        .remedy("Use a checkpoint with model.safetensors, or convert it (transformers: save_pretrained).")),
        (0, false) => Err(Error::new(
            ErrorKind::NotFound,
            folder.display(),
            "has a config.json but no model.safetensors",
        )
        .remedy("The download is not complete: fetch the weights too.")),
        _ => Err(Error::new(
            ErrorKind::NotFound,
            folder.display(),
            "has several .safetensors files, but neither model.safetensors nor model.safetensors.index.json",
        )
        .remedy("Fetch model.safetensors.index.json from where the shards came from.")),
    }
}

/// The path of a shard named in the index, which must be a plain name inside the folder.
fn shard_path(folder: &Path, index: &Path, name: &str) -> Result<PathBuf> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !plain {
        return Err(Error::new(
            ErrorKind::BadFile,
            index.display(),
            format_args!("names the shard `{name}`, which is no file name"),
        )
        .remedy("Download the file again."));
    }
    let path = folder.join(name);
    if !path.is_file() {
        return Err(Error::new(ErrorKind::NotFound, path.display(), "this shard of the model is missing")
            .remedy("The download is not complete: fetch this file too."));
    }
    Ok(path)
}

fn read_shards(paths: Vec<PathBuf>) -> Result<Weights> {
    let mut weights = Weights { files: Vec::with_capacity(paths.len()), tensors: HashMap::new() };
    for (file, path) in paths.iter().enumerate() {
        let mapped = MappedFile::open(path)?;
        let (header, metadata) = SafeTensors::read_metadata(mapped.bytes()).map_err(|e| {
            Error::new(ErrorKind::BadFile, path.display(), format_args!("is broken or truncated: {e}"))
                .remedy("Compare its size with the place it came from and download it again.")
        })?;
        let data = LENGTH_BYTES + header;
        for (name, info) in metadata.tensors() {
            // `read_metadata` has checked that offsets follow each other up to exactly the file's end.
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            let place = Place { file, format: format_of(info.dtype), shape: info.shape.clone(), range };
            if weights.tensors.insert(name.clone(), place).is_some() {
                return Err(Error::new(
                    ErrorKind::BadFile,
                    path.display(),
                    format_args!("tensor {name} stands in another shard too"),
                )
                .remedy("The files are not of one download: download the folder again."));
            }
        }
        weights.files.push(mapped);
    }
    Ok(weights)
}

/// The storage format of a type, or its name where this engine does not know it.
pub(crate) fn format_of(dtype: Dtype) -> Result<Format, String> {
    match dtype {
        Dtype::F32 => Ok(Format::F32),
        Dtype::F16 => Ok(Format::F16),
        Dtype::BF16 => Ok(Format::BF16),
        other => Err(format!("{other:?}")),
    }
}
