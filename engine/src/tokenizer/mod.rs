//! Text to token ids and back, for every vocabulary of the family.
//!
//! Gemma's tokenizer is byte-pair encoding with byte fallback over text in which spaces are U+2581. Added
//! tokens (runs of newlines, HTML tags) are cut out of the text before anything is merged.
//!
//! **Invariant:** the ids are the reference implementation's, whether the vocabulary came from a
//! tokenizer.json or from a GGUF file.

mod bpe;
mod export;
mod gguf;
mod json;
mod pieces;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Error, ErrorKind, Result};

use bpe::{Alphabet, Merges, Workspace, encode_word};
use pieces::{Kind, Pieces, Spelt};

pub(crate) use export::{Entry as VocabularyEntry, vocabulary as folder_vocabulary};
pub(crate) use gguf::token as gguf_token;
pub(crate) use json::added_token as json_added_token;
pub use stream::StreamDecoder;

/// What stands for a space in the vocabulary.
const SPACE: char = '\u{2581}';

const START_OF_TURN: &str = "<start_of_turn>";
/// The end of a turn in a conversation; ends a generation too.
pub(crate) const END_OF_TURN: &str = "<end_of_turn>";

/// Control tokens by name, for files that do not mark them.
const KNOWN_CONTROL: [&str; 13] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    START_OF_TURN,
    END_OF_TURN,
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|file_separator|>",
];

/// The four ids of CodeGemma's fill-in-the-middle format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FimTokens {
    /// `<|fim_prefix|>`
    pub prefix: u32,
    /// `<|fim_middle|>`
    pub middle: u32,
    /// `<|fim_suffix|>`
    pub suffix: u32,
    /// `<|file_separator|>`
    pub separator: u32,
}

/// A stretch of a text between control tokens, or a control token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPart<'a> {
    /// Text in which nothing has a special meaning.
    Text(&'a str),
    /// The id of a control token.
    Control(u32),
}

/// A tokenizer of the family. Cheap to clone and share, usable from any thread.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    pieces: Pieces,
    alphabet: Alphabet,
    merges: Merges,
    /// What is cut out of a text in which nothing has a special meaning.
    added: Matcher,
    /// The same and the control tokens.
    added_and_control: Matcher,
    /// Characters after which a piece goes on with a space: after all others a word ends there.
    joined_by_space: HashSet<char>,
    /// No piece goes on behind a line break with anything but line breaks.
    parts_at_line_breaks: bool,
    /// Made when it is first needed, or in good time ([`Tokenizer::prepare`]).
    spelt: OnceLock<Spelt>,
    fim: Option<FimTokens>,
    /// Why there is no vocabulary.
    missing: Option<Error>,
}

/// What the readers of files find in them.
struct Parts {
    pieces: Pieces,
    merges: Merges,
    /// The id for what cannot be encoded.
    unknown: u32,
    fim: Option<FimTokens>,
}

/// Finds added tokens in a text, the longest at each place.
struct Matcher {
    automaton: AhoCorasick,
    /// Ids by pattern.
    ids: Vec<u32>,
}

impl Matcher {
    fn new(pieces: &Pieces, wanted: impl Fn(Kind) -> bool) -> Result<Self, aho_corasick::BuildError> {
        let ids: Vec<u32> =
            pieces.ids().filter(|&id| wanted(pieces.kind(id)) && !pieces.spelling(id).is_empty()).collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(ids.iter().map(|&id| pieces.spelling(id)))?;
        Ok(Self { automaton, ids })
    }
}

/// The byte that a piece like `<0x0A>` stands for.
fn byte_of(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn is_known_control(spelling: &str) -> bool {
    KNOWN_CONTROL.contains(&spelling)
}

impl Tokenizer {
    fn assemble(parts: Parts, path: &Path) -> Result<Self> {
        let Parts { pieces, merges, unknown, fim } = parts;
        let too_large = |e: aho_corasick::BuildError| {
            Error::new(ErrorKind::BadFile, path.display(), format_args!("has too many added tokens: {e}"))
                .remedy("Download the file again.")
        };
        let added = Matcher::new(&pieces, |kind| kind == Kind::Added).map_err(too_large)?;
        let added_and_control =
            Matcher::new(&pieces, |kind| matches!(kind, Kind::Added | Kind::Control)).map_err(too_large)?;
        let fim = fim_by_name(&pieces).or(fim);
        Ok(Self {
            inner: Arc::new(Inner {
                alphabet: Alphabet::new(&pieces, unknown),
                joined_by_space: joined_by_space(&pieces),
                parts_at_line_breaks: parts_at_line_breaks(&pieces),
                spelt: OnceLock::new(),
                pieces,
                merges,
                added,
                added_and_control,
                fim,
                missing: None,
            }),
        })
    }

    /// The tokenizer of a checkpoint that has none: ids have no text, and encoding fails with `reason`.
    /// Such a model still runs by ids.
    pub(crate) fn missing(reason: Error, path: &Path) -> Result<Self> {
        let parts = Parts {
            pieces: Pieces::with_capacity(0),
            merges: Merges::Scored(Vec::new()),
            unknown: 0,
            fim: None,
        };
        let mut tokenizer = Self::assemble(parts, path)?;
        if let Some(inner) = Arc::get_mut(&mut tokenizer.inner) {
            inner.missing = Some(reason);
        }
        Ok(tokenizer)
    }

    /// Ids of a text in which nothing has a special meaning: `<eos>` in a user's file is five characters.
    /// No `<bos>` is added. Gives exactly the reference's ids.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.inner.encode(&self.inner.added, text)
    }

    /// As [`Tokenizer::encode`], but control tokens in the text (`<start_of_turn>`, ...) become their ids.
    /// For texts of our own making only.
    pub fn encode_with_control(&self, text: &str) -> Result<Vec<u32>> {
        self.inner.encode(&self.inner.added_and_control, text)
    }

    /// Cuts a text of our own making at its control tokens. Encoding the parts gives what
    /// [`Tokenizer::encode_with_control`] gives for the whole.
    pub fn control_parts<'a>(&self, text: &'a str) -> Vec<ControlPart<'a>> {
        let mut parts = Vec::new();
        let mut done = 0;
        for found in self.inner.added_and_control.automaton.find_iter(text) {
            let Some(&id) = self.inner.added_and_control.ids.get(found.pattern().as_usize()) else {
                continue;
            };
            if self.is_control(id) {
                parts.extend(text.get(done..found.start()).filter(|t| !t.is_empty()).map(ControlPart::Text));
                parts.push(ControlPart::Control(id));
                done = found.end();
            }
        }
        parts.extend(text.get(done..).filter(|t| !t.is_empty()).map(ControlPart::Text));
        parts
    }

    /// Text of ids; control tokens are left out when `skip_control`.
    pub fn decode(&self, ids: &[u32], skip_control: bool) -> String {
        let mut decoder = StreamDecoder::new(self, skip_control);
        let mut text = String::new();
        for &id in ids {
            decoder.push_into(id, &mut text);
        }
        decoder.flush_into(&mut text);
        text
    }

    /// A streaming decoder that never gives out half a character.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self, true)
    }

    /// Id of a piece by its exact spelling in the vocabulary (`<start_of_turn>`, `▁the`).
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.pieces.id(piece)
    }

    /// Whether an id is a control token, which is never shown to anyone.
    pub fn is_control(&self, id: u32) -> bool {
        self.inner.pieces.kind(id) == Kind::Control
    }

    /// How many bytes at the beginning of `text` a token spells, if it spells nothing else before all of
    /// `text` is spelt: the token is the next part of `text`, or `text` is the beginning of the token.
    pub(crate) fn spells(&self, id: u32, text: &[u8]) -> Option<usize> {
        let pieces = &self.inner.pieces;
        match pieces.kind(id) {
            Kind::Byte(byte) => (text.first() == Some(&byte)).then_some(1),
            Kind::Normal | Kind::Added => common_bytes(pieces.spelling(id), text),
            Kind::Control | Kind::Hole => None,
        }
    }

    /// The tokens that spell a part of `text` from its beginning or all of it and more; see [`Tokenizer::spells`].
    pub(crate) fn spelling(&self, text: &[u8]) -> Vec<u32> {
        let space = SPACE.to_string();
        let normal = |&byte: &u8| if byte == b' ' { space.as_bytes().to_vec() } else { vec![byte] };
        let normal: Vec<u8> = text.iter().flat_map(normal).collect();
        let mut found = self.spelt().along(&self.inner.pieces, &normal, text.first().copied());
        // In the normal form a space and its sign are one.
        found.retain(|&id| self.spells(id, text).is_some());
        found
    }

    /// Makes now what [`Tokenizer::spelling`] would make at its first call.
    pub(crate) fn prepare(&self) {
        self.spelt();
    }

    fn spelt(&self) -> &Spelt {
        self.inner.spelt.get_or_init(|| Spelt::new(&self.inner.pieces))
    }

    /// Whether the ids of a text are the ids of its parts where it is cut behind a run of line breaks.
    pub fn parts_at_line_breaks(&self) -> bool {
        self.inner.parts_at_line_breaks
    }

    /// The fill-in-the-middle ids, if the vocabulary names them.
    pub fn fim(&self) -> Option<FimTokens> {
        self.inner.fim
    }

    /// `<start_of_turn>` and `<end_of_turn>`, if the vocabulary has them.
    pub fn turns(&self) -> Option<(u32, u32)> {
        Some((self.id(START_OF_TURN)?, self.id(END_OF_TURN)?))
    }

    /// Number of entries.
    pub fn vocab_size(&self) -> usize {
        self.inner.pieces.len()
    }
}

impl Inner {
    fn encode(&self, matcher: &Matcher, text: &str) -> Result<Vec<u32>> {
        if let Some(reason) = &self.missing {
            return Err(reason.clone());
        }
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut workspace = Workspace::default();
        let mut normal = String::new();
        let mut done = 0;
        for found in matcher.automaton.find_iter(text) {
            let between = text.get(done..found.start()).unwrap_or_default();
            self.encode_between(between, &mut normal, &mut workspace, &mut out);
            out.extend(matcher.ids.get(found.pattern().as_usize()));
            done = found.end();
        }
        self.encode_between(text.get(done..).unwrap_or_default(), &mut normal, &mut workspace, &mut out);
        Ok(out)
    }

    /// Encodes a stretch without added tokens. No piece spans a place where a run of spaces begins, save
    /// after the few characters in `joined_by_space`: cutting there keeps words short and changes no id.
    fn encode_between(&self, text: &str, normal: &mut String, workspace: &mut Workspace, out: &mut Vec<u32>) {
        normal.clear();
        normal.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        let mut rest = normal.as_str();
        let mut before = SPACE;
        let mut start = 0;
        for (at, c) in normal.char_indices() {
            if c == SPACE && before != SPACE && !self.joined_by_space.contains(&before) {
                let (word, tail) = rest.split_at_checked(at - start).unwrap_or((rest, ""));
                encode_word(&self.pieces, &self.alphabet, &self.merges, word, workspace, out);
                (rest, start) = (tail, at);
            }
            before = c;
        }
        if !rest.is_empty() {
            encode_word(&self.pieces, &self.alphabet, &self.merges, rest, workspace, out);
        }
    }
}

/// The length of the shorter of a piece's text and `text` where the longer begins with it.
fn common_bytes(spelling: &str, text: &[u8]) -> Option<usize> {
    let mut left = spelling.as_bytes();
    let mut same = 0;
    while let (Some(&byte), Some(&wanted)) = (left.first(), text.get(same)) {
        let (byte, rest) = match left.strip_prefix("\u{2581}".as_bytes()) {
            Some(rest) => (b' ', rest),
            None => (byte, &left[1..]),
        };
        if byte != wanted {
            return None;
        }
        (left, same) = (rest, same + 1);
    }
    (same > 0).then_some(same)
}

fn joined_by_space(pieces: &Pieces) -> HashSet<char> {
    let mut joined = HashSet::new();
    for id in pieces.ids().filter(|&id| matches!(pieces.kind(id), Kind::Normal | Kind::Added)) {
        let mut before = SPACE;
        for c in pieces.spelling(id).chars() {
            if c == SPACE && before != SPACE {
                joined.insert(before);
            }
            before = c;
        }
    }
    joined
}

fn parts_at_line_breaks(pieces: &Pieces) -> bool {
    let mut text = pieces.ids().filter(|&id| matches!(pieces.kind(id), Kind::Normal | Kind::Added));
    text.all(|id| {
        let behind = pieces.spelling(id).split_once('\n').map_or("", |(_, behind)| behind);
        behind.bytes().all(|byte| byte == b'\n')
    })
}

fn fim_by_name(pieces: &Pieces) -> Option<FimTokens> {
    Some(FimTokens {
        prefix: pieces.id("<|fim_prefix|>")?,
        middle: pieces.id("<|fim_middle|>")?,
        suffix: pieces.id("<|fim_suffix|>")?,
        separator: pieces.id("<|file_separator|>")?,
    })
}
