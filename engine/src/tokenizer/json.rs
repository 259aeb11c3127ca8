//! A tokenizer from HuggingFace's `tokenizer.json`.
//!
//! Read here and not by the `tokenizers` crate because a vocabulary of 262,144 entries stands between a user
//! and the first completion: the tests hold the ids against that crate's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use foldhash::fast::FixedState;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::bpe::Merges;
use super::pieces::{Kind, Pieces};
use super::{Parts, Tokenizer, byte_of, is_known_control};
use crate::error::{Error, ErrorKind, Result};

#[derive(serde::Deserialize)]
pub(super) struct File<'a> {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

#[derive(serde::Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

#[derive(serde::Deserialize)]
pub(super) struct Model<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(borrow)]
    pub(super) vocab: Vocab<'a>,
    #[serde(borrow)]
    pub(super) merges: Vec<Pair<'a>>,
}

/// The vocabulary in the order of the file.
pub(super) struct Vocab<'a>(pub(super) Vec<(Cow<'a, str>, u32)>);

/// Two pieces that merge, spelled `"a b"` or `["a", "b"]`.
pub(super) struct Pair<'a>(pub(super) Cow<'a, str>, pub(super) Cow<'a, str>);

/// A string that is borrowed from the text where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl Tokenizer {
    /// Reads a tokenizer.json; `path` is for messages.
    pub(crate) fn from_json(text: &[u8], path: &Path) -> Result<Self> {
        let file = read(text, path)?;
        let mut pieces = collect_pieces(&file, path)?;
        for token in &file.added_tokens {
            let control = token.special || is_known_control(&token.content);
            pieces.set_kind(token.id, if control { Kind::Control } else { Kind::Added });
        }
        let merges = collect_merges(&file.model.merges, &pieces, path)?;
        let unknown = file.model.unk_token.as_deref().and_then(|unk| pieces.id(unk)).unwrap_or(3);
        Tokenizer::assemble(Parts { pieces, merges, unknown, fim: None }, path)
    }
}

/// The file's contents, seen to be a tokenizer of the family.
pub(super) fn read<'a>(text: &'a [u8], path: &Path) -> Result<File<'a>> {
    let file: File<'_> = serde_json::from_slice(text).map_err(|e| {
        Error::new(
            ErrorKind::BadFile,
            path.display(),
            format_args!("is no tokenizer of the Gemma family: {e}"),
        )
        .remedy("Download the file again.")
    })?;
    check_kind(&file, path)?;
    Ok(file)
}

/// Refuses what would give other ids than the file means.
fn check_kind(file: &File<'_>, path: &Path) -> Result<()> {
    let model = &file.model;
    let space = |v: Option<&Value>| v.and_then(|p| p.get("String")).and_then(Value::as_str) == Some(" ");
    let replaces_spaces = file.normalizer.as_ref().is_some_and(|n| {
        n.get("type").and_then(Value::as_str) == Some("Replace")
            && space(n.get("pattern"))
            && n.get("content").and_then(Value::as_str) == Some("\u{2581}")
    });
    // Splitting at spaces does nothing once they are replaced.
    let splits_nothing = file
        .pre_tokenizer
        .as_ref()
        .is_none_or(|p| p.get("type").and_then(Value::as_str) == Some("Split") && space(p.get("pattern")));
    let plain = |t: &AddedToken| !t.normalized && !t.lstrip && !t.rstrip && !t.single_word;
    let wrong = if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        "model.type is not BPE"
    } else if !model.byte_fallback || model.ignore_merges || model.dropout.is_some_and(|d| d != 0.0) {
        "model has other settings"
    } else if model.continuing_subword_prefix.is_some() || model.end_of_word_suffix.is_some() {
        "model has prefixes or suffixes"
    } else if !replaces_spaces {
        "normalizer is another"
    } else if !splits_nothing {
        "pre_tokenizer is another"
    } else if !file.added_tokens.iter().all(plain) {
        "added_tokens have options"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        path.display(),
        format_args!("is not a tokenizer of the Gemma family: {wrong} than Gemma's"),
    )
    .remedy("Use the tokenizer.json that belongs to the published checkpoint."))
}

fn collect_pieces(file: &File<'_>, path: &Path) -> Result<Pieces> {
    let broken = |problem: String| {
        Error::new(ErrorKind::BadFile, path.display(), problem).remedy("Download the file again.")
    };
    let vocab = &file.model.vocab.0;
    let all = vocab.iter().map(|(text, id)| (text.as_ref(), *id));
    let all = all.chain(file.added_tokens.iter().map(|t| (t.content.as_str(), t.id)));
    let count = all.clone().map(|(_, id)| id as usize + 1).max().unwrap_or(0);
    if count > 2 * (vocab.len() + file.added_tokens.len()) {
        return Err(broken(format!(
            "model.vocab names id {}, but has only {} entries",
            count - 1,
            vocab.len()
        )));
    }
    let mut spellings: Vec<Option<&str>> = vec![None; count];
    for (text, id) in all {
        match spellings.get_mut(id as usize) {
            Some(Some(other)) if *other != text => {
                return Err(broken(format!("gives id {id} to `{text}` and to `{other}`")));
            }
            Some(slot) => *slot = Some(text),
            None => {}
        }
    }
    let mut pieces = Pieces::with_capacity(count);
    for spelling in spellings {
        match spelling {
            Some(text) => pieces.push(text, byte_of(text).map_or(Kind::Normal, Kind::Byte)),
            None => pieces.push("", Kind::Hole),
        }
    }
    Ok(pieces)
}

fn collect_merges(pairs: &[Pair<'_>], pieces: &Pieces, path: &Path) -> Result<Merges> {
    let mut merges = HashMap::with_capacity_and_hasher(pairs.len(), FixedState::default());
    let mut joined = String::new();
    let mut result = None;
    for (rank, Pair(left, right)) in (0u32..).zip(pairs) {
        // The pairs that give one piece mostly stand together: look it up once.
        if joined.strip_prefix(left.as_ref()) != Some(right.as_ref()) {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            result = pieces.id(&joined);
        }
        let (Some(l), Some(r), Some(id)) = (pieces.id(left), pieces.id(right), result) else {
            return Err(Error::new(
                ErrorKind::BadFile,
                path.display(),
                format_args!(
                    "model.merges joins `{left}` and `{right}`, of which the vocabulary lacks one or the result"
                ),
            )
            .remedy("Download the file again."));
        };
        merges.entry((l, r)).or_insert((rank, id));
    }
    Ok(Merges::Listed(merges))
}

/// The id of an added token, found without reading the vocabulary behind it.
pub(crate) fn added_token(text: &[u8], content: &str) -> Option<u32> {
    struct Search<'s> {
        content: &'s str,
        found: &'s mut Option<u32>,
    }
    impl<'de> Visitor<'de> for Search<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a tokenizer")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                if key == "added_tokens" {
                    let tokens: Vec<AddedToken> = map.next_value()?;
                    *self.found = tokens.iter().find(|t| t.content == self.content).map(|t| t.id);
                    return Err(de::Error::custom("the rest is of no interest"));
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut found = None;
    // The result is an error whenever the search ended early, and of no interest otherwise: a broken file
    // is reported when the tokenizer is read.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(Search { content, found: &mut found });
    found
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(V)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vocab<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from pieces to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(piece), id)) = map.next_entry()? {
                    entries.push((piece, id));
                }
                Ok(Vocab(entries))
            }
        }
        deserializer.deserialize_map(V)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pair<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of pieces, as a list or with a space between them")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                let (left, right) =
                    text.split_once(' ').ok_or_else(|| E::custom("a merge without a space"))?;
                Ok(Pair(Cow::Borrowed(left), Cow::Borrowed(right)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let (left, right) =
                    text.split_once(' ').ok_or_else(|| E::custom("a merge without a space"))?;
                Ok(Pair(Cow::Owned(left.to_owned()), Cow::Owned(right.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                match (seq.next_element()?, seq.next_element()?, seq.next_element::<IgnoredAny>()?) {
                    (Some(Text(left)), Some(Text(right)), None) => Ok(Pair(left, right)),
                    _ => Err(de::Error::custom("a merge that is no pair")),
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}
