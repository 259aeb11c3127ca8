//! A tokenizer from the metadata of a GGUF file: SentencePiece's pieces and scores.

use std::borrow::Cow;
use std::path::Path;

use super::bpe::Merges;
use super::pieces::{Kind, Pieces};
use super::{FimTokens, Parts, Tokenizer, byte_of, is_known_control};
use crate::checkpoint::gguf::Gguf;
use crate::error::{Error, ErrorKind, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";

impl Tokenizer {
    /// Reads the tokenizer of a GGUF file. `bytes` is the whole file, `path` is for messages.
    pub(crate) fn from_gguf(gguf: &Gguf, bytes: &[u8], path: &Path) -> Result<Self> {
        match gguf.str(bytes, "tokenizer.ggml.model") {
            Some("llama" | "gemma") => {}
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    path.display(),
                    format_args!(
                        "tokenizer.ggml.model `{other}` is not supported (llama is, which Gemma files have)"
                    ),
                )
                .remedy("Choose another GGUF file of the model."));
            }
            None => {
                return Err(Error::new(ErrorKind::NotFound, path.display(), "has no tokenizer in it")
                    .remedy("Choose a GGUF file that a current converter made."));
            }
        }
        let tokens = gguf.array(TOKENS).ok_or_else(|| missing(path, TOKENS))?;
        let kinds = numbers(gguf, bytes, path, "tokenizer.ggml.token_type", tokens.len())?;
        let mut scores = numbers(gguf, bytes, path, "tokenizer.ggml.scores", tokens.len())?;
        let mut pieces = Pieces::with_capacity(tokens.len());
        let spellings = tokens.strings(bytes).ok_or_else(|| missing(path, TOKENS))?;
        for ((raw, &kind), score) in spellings.zip(&kinds).zip(&mut scores) {
            let spelling = std::str::from_utf8(raw).map_err(|_| {
                Error::new(
                    ErrorKind::BadFile,
                    path.display(),
                    format_args!("{TOKENS}: entry {} is not UTF-8", pieces.len()),
                )
                .remedy("Choose another GGUF file of the model.")
            })?;
            let kind = kind_of(kind, spelling);
            if kind == Kind::Added {
                // What the converter writes here varies; SentencePiece takes these as the best of all.
                *score = 0.0;
            }
            // Some converters spell spaces as such and not in the normal form.
            let normal = if spelling.contains(' ') {
                Cow::Owned(spelling.replace(' ', "\u{2581}"))
            } else {
                spelling.into()
            };
            pieces.push(&normal, kind);
        }
        let token = |key: &str| gguf.get(key)?.as_u32();
        let unknown = token("tokenizer.ggml.unknown_token_id").unwrap_or(3);
        let fim = fim_by_keys(token);
        Tokenizer::assemble(Parts { pieces, merges: Merges::Scored(scores), unknown, fim }, path)
    }
}

/// The id of a piece by its spelling, found without building a tokenizer.
pub(crate) fn token(gguf: &Gguf, bytes: &[u8], piece: &str) -> Option<u32> {
    let position = gguf.array(TOKENS)?.strings(bytes)?.position(|spelling| spelling == piece.as_bytes())?;
    u32::try_from(position).ok()
}

fn missing(path: &Path, key: &str) -> Error {
    Error::new(
        ErrorKind::BadFile,
        path.display(),
        format_args!("metadata {key} is missing or of another type than Gemma's"),
    )
    .remedy("The file has no tokenizer of the Gemma family in it: choose another GGUF file of the model.")
}

/// A list of numbers that runs beside the tokens.
fn numbers(gguf: &Gguf, bytes: &[u8], path: &Path, key: &str, len: usize) -> Result<Vec<f32>> {
    let array = gguf.array(key).ok_or_else(|| missing(path, key))?;
    if array.len() != len {
        return Err(Error::new(
            ErrorKind::BadFile,
            path.display(),
            format_args!("metadata {key} has {} entries, {TOKENS} has {len}", array.len()),
        )
        .remedy("The file was made by a broken converter: choose another."));
    }
    let numbers = array.numbers(bytes).ok_or_else(|| missing(path, key))?;
    Ok(numbers.map(|n| n as f32).collect())
}

/// What an entry is for, by llama.cpp's number. Some converters call control tokens of the family something
/// else, so that a name that everybody knows goes first.
fn kind_of(number: f32, spelling: &str) -> Kind {
    if is_known_control(spelling) {
        return Kind::Control;
    }
    match number as i64 {
        2 | 3 => Kind::Control,
        4 => Kind::Added,
        6 => byte_of(spelling).map_or(Kind::Control, Kind::Byte),
        _ => Kind::Normal,
    }
}

/// The fill-in-the-middle tokens where the metadata names their ids.
fn fim_by_keys(token: impl Fn(&str) -> Option<u32>) -> Option<FimTokens> {
    let any = |names: [&str; 2]| names.iter().find_map(|name| token(&format!("tokenizer.ggml.{name}")));
    Some(FimTokens {
        prefix: any(["fim_pre_token_id", "prefix_token_id"])?,
        middle: any(["fim_mid_token_id", "middle_token_id"])?,
        suffix: any(["fim_suf_token_id", "suffix_token_id"])?,
        separator: any(["fim_sep_token_id", "file_separator_token_id"])?,
    })
}
