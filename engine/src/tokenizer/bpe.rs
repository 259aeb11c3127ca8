//! Byte-pair encoding: the pieces of a word by merging neighbours, best pair first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;

use super::pieces::{Kind, Pieces};

/// Which pairs merge, and in which order.
pub(super) enum Merges {
    /// The list of a tokenizer.json: rank and result of each pair of ids.
    Listed(HashMap<(u32, u32), (u32, u32), FixedState>),
    /// SentencePiece's rule, for vocabularies that come with scores: neighbours merge if together they spell
    /// a piece; the highest score goes first. Among equal scores (the runs of spaces and newlines) the
    /// longest left part goes first, then the longest right part, which is the order in which HuggingFace's
    /// converter lists the pairs: both variants give the same ids.
    Scored(Vec<f32>),
}

impl Merges {
    /// What merging two neighbours gives, and its cost: the lowest goes first.
    fn merge(&self, pieces: &Pieces, left: &Symbol, right: &Symbol, word: &str) -> Option<(u64, u32)> {
        match self {
            Self::Listed(pairs) => pairs.get(&(left.id, right.id)).map(|&(rank, id)| (rank.into(), id)),
            Self::Scored(scores) => {
                if !left.whole || !right.whole {
                    return None;
                }
                let id = pieces.id(word.get(left.start as usize..right.end as usize)?)?;
                if !matches!(pieces.kind(id), Kind::Normal | Kind::Added) {
                    return None;
                }
                let lengths = u32::from(u16::MAX - left.chars) << 16 | u32::from(u16::MAX - right.chars);
                Some((u64::from(descending(*scores.get(id as usize)?)) << 32 | u64::from(lengths), id))
            }
        }
    }
}

/// Bits that order floats from the highest to the lowest; both zeros are the same.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits }
}

/// A piece of the word so far, in a doubly linked list of its neighbours.
struct Symbol {
    id: u32,
    /// Place in the word, in bytes.
    start: u32,
    end: u32,
    /// Length in characters.
    chars: u16,
    /// Whether it stands for whole characters and not for one byte of one.
    whole: bool,
    /// Index of the neighbours; `NONE` at the ends.
    prev: u32,
    next: u32,
    /// Swallowed by the piece to its left.
    gone: bool,
}

const NONE: u32 = u32::MAX;

/// Cost, index of the left piece, ends of left and right piece (to know when it is outdated), result.
type Candidate = Reverse<(u64, u32, u32, u32, u32)>;

/// Buffers for [`encode_word`], kept between words.
#[derive(Default)]
pub(super) struct Workspace {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Candidate>,
}

/// What words begin as: the id of each character, or of its bytes.
pub(super) struct Alphabet {
    ascii: [Option<u32>; 128],
    bytes: [Option<u32>; 256],
    unknown: u32,
}

impl Alphabet {
    /// The alphabet of a vocabulary; `unknown` stands for characters that have neither piece nor bytes.
    pub(super) fn new(pieces: &Pieces, unknown: u32) -> Self {
        let mut bytes = [None; 256];
        for id in pieces.ids() {
            if let Kind::Byte(byte) = pieces.kind(id) {
                bytes[usize::from(byte)] = Some(id);
            }
        }
        let mut ascii = [None; 128];
        for (code, slot) in (0u8..).zip(&mut ascii) {
            *slot = char_id(pieces, char::from(code));
        }
        Self { ascii, bytes, unknown }
    }

    fn id(&self, pieces: &Pieces, c: char) -> Option<u32> {
        match self.ascii.get(c as usize) {
            Some(id) => *id,
            None => char_id(pieces, c),
        }
    }
}

fn char_id(pieces: &Pieces, c: char) -> Option<u32> {
    let id = pieces.id(c.encode_utf8(&mut [0; 4]))?;
    matches!(pieces.kind(id), Kind::Normal | Kind::Added).then_some(id)
}

/// Appends the ids of `word` (normal form) to `out`.
pub(super) fn encode_word(
    pieces: &Pieces,
    alphabet: &Alphabet,
    merges: &Merges,
    word: &str,
    workspace: &mut Workspace,
    out: &mut Vec<u32>,
) {
    let Workspace { symbols, heap } = workspace;
    split_into_symbols(pieces, alphabet, word, symbols);
    heap.clear();
    for left in 0..symbols.len().saturating_sub(1) {
        offer(pieces, merges, word, symbols, left as u32, heap);
    }
    while let Some(Reverse((_, left, left_end, right_end, id))) = heap.pop() {
        let Some((prev, next)) = apply(symbols, left, left_end, right_end, id) else { continue };
        if prev != NONE {
            offer(pieces, merges, word, symbols, prev, heap);
        }
        if next != NONE {
            offer(pieces, merges, word, symbols, left, heap);
        }
    }
    out.extend(symbols.iter().filter(|s| !s.gone).map(|s| s.id));
}

fn split_into_symbols(pieces: &Pieces, alphabet: &Alphabet, word: &str, symbols: &mut Vec<Symbol>) {
    symbols.clear();
    let mut push = |id: u32, start: usize, end: usize, whole: bool| {
        let index = symbols.len() as u32;
        if let Some(before) = symbols.last_mut() {
            before.next = index;
            // Neighbouring unknown characters are one unknown.
            if id == alphabet.unknown && before.id == id {
                before.next = NONE;
                before.end = end as u32;
                return;
            }
        }
        symbols.push(Symbol {
            id,
            start: start as u32,
            end: end as u32,
            chars: 1,
            whole,
            prev: index.checked_sub(1).unwrap_or(NONE),
            next: NONE,
            gone: false,
        });
    };
    for (start, c) in word.char_indices() {
        let end = start + c.len_utf8();
        if let Some(id) = alphabet.id(pieces, c) {
            push(id, start, end, true);
            continue;
        }
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        let ids = bytes.iter().map(|&b| alphabet.bytes.get(usize::from(b)).copied().flatten());
        if ids.clone().all(|id| id.is_some()) {
            ids.flatten().for_each(|id| push(id, start, end, false));
        } else {
            push(alphabet.unknown, start, end, false);
        }
    }
}

/// Puts the pair that begins at `left` among the candidates, if it merges.
fn offer(
    pieces: &Pieces,
    merges: &Merges,
    word: &str,
    symbols: &[Symbol],
    left: u32,
    heap: &mut BinaryHeap<Candidate>,
) {
    let Some(left_symbol) = symbols.get(left as usize) else { return };
    let Some(right_symbol) = symbols.get(left_symbol.next as usize) else { return };
    if let Some((cost, id)) = merges.merge(pieces, left_symbol, right_symbol, word) {
        heap.push(Reverse((cost, left, left_symbol.end, right_symbol.end, id)));
    }
}

/// Merges the pair at `left` unless it is outdated; gives the neighbours of the result.
fn apply(symbols: &mut [Symbol], left: u32, left_end: u32, right_end: u32, id: u32) -> Option<(u32, u32)> {
    let left_symbol = symbols.get(left as usize).filter(|s| !s.gone && s.end == left_end)?;
    let right = left_symbol.next as usize;
    let right_symbol = symbols.get_mut(right).filter(|s| s.end == right_end)?;
    right_symbol.gone = true;
    let (next, chars) = (right_symbol.next, right_symbol.chars);
    if let Some(after) = symbols.get_mut(next as usize) {
        after.prev = left;
    }
    let merged = symbols.get_mut(left as usize)?;
    merged.id = id;
    merged.end = right_end;
    merged.next = next;
    merged.chars = merged.chars.saturating_add(chars);
    Some((merged.prev, next))
}
