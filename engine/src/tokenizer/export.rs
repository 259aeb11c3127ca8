//! A HuggingFace folder's vocabulary as GGUF lists it: spellings, scores and kinds, numbered as llama.cpp's converter
//! numbers them.

use std::collections::HashMap;
use std::path::Path;

use super::json::{AddedToken, File, read};
use super::{byte_of, is_known_control};
use crate::error::{Error, ErrorKind, Result};

/// What an entry is, by GGUF's number.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// The score of what is never merged from pieces.
const ADDED_SCORE: f32 = -1000.0;
/// The score of rows of the table that no entry of the vocabulary uses.
const UNUSED_SCORE: f32 = -10_000.0;

/// An entry of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) spelling: String,
    pub(crate) score: f32,
    /// GGUF's number.
    pub(crate) kind: i32,
}

impl Entry {
    fn unused(id: usize) -> Self {
        Self { spelling: format!("[PAD{id}]"), score: UNUSED_SCORE, kind: kind::UNUSED }
    }
}

/// The vocabulary of a folder for a table of `rows` rows: that of tokenizer.json, else that of SentencePiece's
/// tokenizer.model. Rows without an entry get a filler; entries behind the last row are no tokens of the model.
pub(crate) fn vocabulary(folder: &Path, rows: usize) -> Result<Vec<Entry>> {
    let (json, model) = (folder.join("tokenizer.json"), folder.join("tokenizer.model"));
    let bytes = |path: &Path| std::fs::read(path).map_err(|e| crate::checkpoint::map::cannot_read(path, &e));
    let mut entries = if json.is_file() || !model.is_file() {
        from_json(&bytes(&json)?, &json)?
    } else {
        from_sentencepiece(&bytes(&model)?, &model)?
    };
    entries.truncate(rows);
    entries.extend((entries.len()..rows).map(Entry::unused));
    Ok(entries)
}

/// The entries of a tokenizer.json by id.
///
/// SentencePiece merges by score and the file lists merges by rank: a score is minus the place of a piece among
/// all, those that merge first before the others, and those that nothing merges into (single characters) last.
fn from_json(text: &[u8], path: &Path) -> Result<Vec<Entry>> {
    let file: File<'_> = read(text, path)?;
    let vocab = &file.model.vocab.0;
    let added = |token: &AddedToken| token.id as usize + 1;
    let len = vocab.iter().map(|(_, id)| *id as usize + 1).chain(file.added_tokens.iter().map(added)).max();
    let len = len.unwrap_or(0);
    if len > 2 * (vocab.len() + file.added_tokens.len()) {
        return Err(broken(path, format_args!("model.vocab names id {}, but has fewer entries", len - 1)));
    }
    let mut entries: Vec<Entry> = (0..len).map(Entry::unused).collect();
    for (spelling, id) in vocab {
        let kind = if byte_of(spelling).is_some() { kind::BYTE } else { kind::NORMAL };
        entries[*id as usize] = Entry { spelling: spelling.to_string(), score: 0.0, kind };
    }
    for token in &file.added_tokens {
        entries[token.id as usize] = added_entry(token);
    }
    let ids: HashMap<&str, u32> = vocab.iter().map(|(spelling, id)| (spelling.as_ref(), *id)).collect();
    let mut ranks = vec![usize::MAX; len];
    let mut joined = String::new();
    for (rank, pair) in file.model.merges.iter().enumerate() {
        joined.clear();
        joined.push_str(&pair.0);
        joined.push_str(&pair.1);
        if let Some(first) = ids.get(joined.as_str()).and_then(|&id| ranks.get_mut(id as usize)) {
            *first = (*first).min(rank);
        }
    }
    let mut normal: Vec<usize> = (0..len).filter(|&id| entries[id].kind == kind::NORMAL).collect();
    normal.sort_by_key(|&id| (ranks[id], id));
    for (place, id) in normal.into_iter().enumerate() {
        entries[id].score = -(place as f32);
    }
    Ok(entries)
}

fn added_entry(token: &AddedToken) -> Entry {
    let kind = if token.content == "<unk>" {
        kind::UNKNOWN
    } else if token.special || is_known_control(&token.content) || looks_like_control(&token.content) {
        kind::CONTROL
    } else {
        kind::USER_DEFINED
    };
    // What is matched in the text as it is written is spelt as it is written.
    let spelling = if kind == kind::USER_DEFINED {
        token.content.replace(super::SPACE, " ")
    } else {
        token.content.clone()
    };
    Entry { spelling, score: ADDED_SCORE, kind }
}

/// Tokens that are no text though the file does not say so: llama.cpp's converter knows them by their spelling.
fn looks_like_control(spelling: &str) -> bool {
    matches!(spelling, "<mask>" | "<2mass>" | "[@BOS@]")
        || (spelling.starts_with("<unused") && spelling.ends_with('>'))
}

/// The entries of SentencePiece's own file: a protocol buffer whose repeated field 1 is a piece.
fn from_sentencepiece(bytes: &[u8], path: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for field in Fields(bytes) {
        let field = field.ok_or_else(|| broken(path, "is no SentencePiece model"))?;
        let (1, Payload::Bytes(piece)) = field else { continue };
        let mut entry = Entry { spelling: String::new(), score: 0.0, kind: kind::NORMAL };
        for field in Fields(piece) {
            match field.ok_or_else(|| broken(path, "is no SentencePiece model"))? {
                (1, Payload::Bytes(text)) => {
                    let text = std::str::from_utf8(text);
                    let text = text.map_err(|_| broken(path, "has a piece that is not UTF-8"))?;
                    entry.spelling = text.to_owned();
                }
                (2, Payload::Four(score)) => entry.score = f32::from_le_bytes(score),
                // GGUF took its numbers from here.
                (3, Payload::Number(kind)) => entry.kind = kind.min(kind::BYTE as u64) as i32,
                _ => {}
            }
        }
        if entry.kind == kind::USER_DEFINED {
            entry.spelling = entry.spelling.replace(super::SPACE, " ");
        } else if is_known_control(&entry.spelling) && entry.kind != kind::UNKNOWN {
            entry.kind = kind::CONTROL;
        }
        entries.push(entry);
    }
    if entries.is_empty() {
        return Err(broken(path, "is no SentencePiece model"));
    }
    Ok(entries)
}

/// The fields of a protocol buffer's message; `None` where it is none.
struct Fields<'a>(&'a [u8]);

enum Payload<'a> {
    Number(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Payload<'a>)> {
        let tag = self.number()?;
        let payload = match tag & 7 {
            0 => Payload::Number(self.number()?),
            1 => {
                self.0 = self.0.get(8..)?;
                Payload::Eight
            }
            2 => {
                let len = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Payload::Bytes(bytes)
            }
            5 => {
                let (four, rest) = self.0.split_first_chunk::<4>()?;
                self.0 = rest;
                Payload::Four(*four)
            }
            _ => return None,
        };
        Some((tag >> 3, payload))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Payload<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn broken(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::BadFile, path.display(), problem).remedy("Download the file again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": true}, {"id": 1, "content": "<unk>", "special": true},
            {"id": 2, "content": "<unused0>"}, {"id": 3, "content": "▁▁"}
        ],
        "model": {"type": "BPE", "byte_fallback": true, "vocab": {
            "<pad>": 0, "<unk>": 1, "<unused0>": 2, "▁▁": 3, "<0x0A>": 4, "ab": 5, "abc": 6, "a": 7, "b": 8, "c": 9,
            "bc": 10
        }, "merges": ["b c", "a b", "ab c", "a bc"]},
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    }"#;

    #[test]
    fn scores_order_pieces_as_merges_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), JSON).unwrap();
        let entries = vocabulary(folder.path(), 13).unwrap();
        let spelt: Vec<_> = entries.iter().map(|e| (e.spelling.as_str(), e.score, e.kind)).collect();
        assert_eq!(
            spelt,
            [
                ("<pad>", -1000.0, 3),
                ("<unk>", -1000.0, 2),
                ("<unused0>", -1000.0, 3),
                ("  ", -1000.0, 4),
                ("<0x0A>", 0.0, 6),
                ("ab", -1.0, 1),
                ("abc", -2.0, 1),
                ("a", -3.0, 1),
                ("b", -4.0, 1),
                ("c", -5.0, 1),
                ("bc", 0.0, 1),
                ("[PAD11]", -10_000.0, 5),
                ("[PAD12]", -10_000.0, 5),
            ]
        );
        assert_eq!(vocabulary(folder.path(), 6).unwrap().len(), 6);
    }

    #[test]
    fn sentencepieces_own_file_is_read() {
        let piece = |text: &str, score: f32, kind: u8| {
            let mut inner = vec![0x0a, text.len() as u8];
            inner.extend(text.as_bytes());
            inner.push(0x15);
            inner.extend(score.to_le_bytes());
            inner.extend([0x18, kind]);
            [&[0x0a, inner.len() as u8], inner.as_slice()].concat()
        };
        // Field 2 is the trainer's settings.
        let bytes = [piece("<unk>", 0.0, 2), piece("▁a", -1.5, 1), vec![0x12, 1, 7], piece("▁▁", 0.0, 4)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.model");
        std::fs::write(&path, bytes.concat()).unwrap();
        let entries = vocabulary(folder.path(), 3).unwrap();
        let spelt: Vec<_> = entries.iter().map(|e| (e.spelling.as_str(), e.score, e.kind)).collect();
        assert_eq!(spelt, [("<unk>", 0.0, 2), ("▁a", -1.5, 1), ("  ", 0.0, 4)]);
        for cut in [1, 3, bytes.concat().len() - 1] {
            std::fs::write(&path, &bytes.concat()[..cut]).unwrap();
            let error = vocabulary(folder.path(), 3).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadFile, "{cut}: {error}");
        }
    }

    #[test]
    fn a_folder_without_a_tokenizer_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(vocabulary(folder.path(), 3).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
