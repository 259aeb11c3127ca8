//! Vocabularies for models made here: a published one, as GGUF writes it.

use std::io;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;

/// A `tokenizer.json` of the family.
pub struct Vocabulary {
    path: PathBuf,
    json: serde_json::Value,
}

/// GGUF's numbers for what an entry is.
mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const BYTE: i32 = 6;
}

impl Vocabulary {
    /// Reads a `tokenizer.json`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let wrong = |what: &dyn std::fmt::Display| io::Error::other(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| wrong(&e))?;
        let json = serde_json::from_slice(&bytes).map_err(|e| wrong(&e))?;
        Ok(Self { path: path.to_owned(), json })
    }

    /// Puts it into a HuggingFace folder.
    pub fn copy_into(&self, folder: &Path) -> io::Result<()> {
        std::fs::copy(&self.path, folder.join("tokenizer.json")).map(drop)
    }

    /// The same as a GGUF file's metadata, for a model of `len` entries.
    pub fn metadata(&self, len: usize) -> io::Result<Vec<(String, Value)>> {
        let (spellings, kinds) = self.entries(len)?;
        // The family's vocabularies are numbered in the order in which their entries are merged.
        let scores = (0..len).map(|id| Value::F32(-(id as f32)));
        Ok(vec![
            ("tokenizer.ggml.model".to_owned(), Value::String("llama".to_owned())),
            ("tokenizer.ggml.scores".to_owned(), Value::Array(scores.collect())),
            (
                "tokenizer.ggml.tokens".to_owned(),
                Value::Array(spellings.into_iter().map(Value::String).collect()),
            ),
            (
                "tokenizer.ggml.token_type".to_owned(),
                Value::Array(kinds.into_iter().map(Value::I32).collect()),
            ),
            ("tokenizer.ggml.padding_token_id".to_owned(), Value::U32(0)),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(1)),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(2)),
            ("tokenizer.ggml.unknown_token_id".to_owned(), Value::U32(3)),
            ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(true)),
            ("tokenizer.ggml.add_space_prefix".to_owned(), Value::Bool(false)),
        ])
    }

    /// The spellings by id, and what each entry is.
    fn entries(&self, len: usize) -> io::Result<(Vec<String>, Vec<i32>)> {
        let known =
            self.json["model"]["vocab"].as_object().ok_or_else(|| self.wrong("model.vocab is missing"))?;
        let mut spellings = vec![None; len];
        for (spelling, id) in known {
            let place = id.as_u64().and_then(|id| spellings.get_mut(id as usize));
            *place.ok_or_else(|| self.wrong(&format!("it has more entries than the model's {len}")))? =
                Some(spelling);
        }
        let spellings: Option<Vec<String>> = spellings.into_iter().map(Option::<&String>::cloned).collect();
        let spellings =
            spellings.ok_or_else(|| self.wrong(&format!("it has fewer entries than the model's {len}")))?;
        let byte = |s: &str| s.len() == 6 && s.starts_with("<0x") && s.ends_with('>');
        let kind = |s: &String| if byte(s) { kind::BYTE } else { kind::NORMAL };
        let mut kinds: Vec<i32> = spellings.iter().map(kind).collect();
        for added in self.json["added_tokens"].as_array().into_iter().flatten() {
            let place = added["id"].as_u64().and_then(|id| kinds.get_mut(id as usize));
            let place =
                place.ok_or_else(|| self.wrong("it has added tokens behind the model's last entry"))?;
            *place = match (added["content"].as_str(), added["special"].as_bool()) {
                (Some("<unk>"), _) => kind::UNKNOWN,
                (_, Some(true)) => kind::CONTROL,
                _ => kind::USER_DEFINED,
            };
        }
        Ok((spellings, kinds))
    }

    fn wrong(&self, what: &str) -> io::Error {
        io::Error::other(format!("{}: {what}", self.path.display()))
    }
}
