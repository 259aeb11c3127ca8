//! The entries of a vocabulary, by id and by spelling.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// What an entry of a vocabulary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text that merges make.
    Normal,
    /// Matched in the text before anything is merged (runs of newlines, HTML tags).
    Added,
    /// Never text: `<bos>`, `<start_of_turn>`.
    Control,
    /// One byte of a character that the vocabulary lacks.
    Byte(u8),
    /// An id without an entry.
    Hole,
}

/// All entries of a vocabulary. Spelling is the normal form, with U+2581 for spaces.
pub(super) struct Pieces {
    /// The spellings one after another.
    text: String,
    /// Where each spelling ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// Ids by spelling.
    by_text: HashTable<u32>,
    hasher: FixedState,
}

impl Pieces {
    /// An empty vocabulary with room for `count` entries.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            text: String::with_capacity(count * 8),
            ends: Vec::with_capacity(count),
            kinds: Vec::with_capacity(count),
            by_text: HashTable::with_capacity(count),
            hasher: FixedState::default(),
        }
    }

    /// Adds the entry of the next id. Where two have one spelling, the first is the one that is found.
    pub(super) fn push(&mut self, spelling: &str, kind: Kind) {
        let id = self.ends.len() as u32;
        self.text.push_str(spelling);
        self.ends.push(self.text.len() as u32);
        self.kinds.push(kind);
        if kind != Kind::Hole && self.id(spelling).is_none() {
            let Self { text, ends, by_text, hasher, .. } = self;
            let hash = hasher.hash_one(spelling.as_bytes());
            by_text.insert_unique(hash, id, |&id| hasher.hash_one(spelling_of(text, ends, id).as_bytes()));
        }
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The id of a spelling.
    pub(super) fn id(&self, spelling: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(spelling.as_bytes());
        self.by_text.find(hash, |&id| self.spelling(id) == spelling).copied()
    }

    /// The spelling of an id; empty for ids that there are not.
    pub(super) fn spelling(&self, id: u32) -> &str {
        spelling_of(&self.text, &self.ends, id)
    }

    /// What an id is for.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Hole)
    }

    /// Declares what an id is for.
    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// All ids of which there is an entry.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.kinds).filter(|(_, kind)| **kind != Kind::Hole).map(|(id, _)| id)
    }
}

/// The entries that are text, in order of spelling: what begins like a text stands together.
pub(super) struct Spelt {
    sorted: Vec<u32>,
    /// Byte tokens.
    bytes: Vec<(u8, u32)>,
}

impl Spelt {
    pub(super) fn new(pieces: &Pieces) -> Self {
        let mut sorted: Vec<u32> =
            pieces.ids().filter(|&id| matches!(pieces.kind(id), Kind::Normal | Kind::Added)).collect();
        sorted.sort_unstable_by_key(|&id| pieces.spelling(id));
        let byte = |id| match pieces.kind(id) {
            Kind::Byte(byte) => Some((byte, id)),
            _ => None,
        };
        Self { sorted, bytes: pieces.ids().filter_map(byte).collect() }
    }

    /// The entries whose spelling begins with `text`, given in the normal form, or `text` with it; and the tokens of
    /// the byte `first`.
    pub(super) fn along(&self, pieces: &Pieces, text: &[u8], first: Option<u8>) -> Vec<u32> {
        /// Bytes of the longest spelling that matters.
        const LONGEST: usize = 256;
        let spelling = |id: &u32| pieces.spelling(*id).as_bytes();
        let from = self.sorted.partition_point(|id| spelling(id) < text);
        let longer = self.sorted[from..].iter().take_while(|id| spelling(id).starts_with(text));
        let mut found: Vec<u32> = longer.copied().collect();
        for len in 1..text.len().min(LONGEST) {
            let shorter = &text[..len];
            let from = self.sorted.partition_point(|id| spelling(id) < shorter);
            found.extend(self.sorted[from..].iter().take_while(|id| spelling(id) == shorter));
        }
        found.extend(self.bytes.iter().filter(|(byte, _)| Some(*byte) == first).map(|(_, id)| id));
        found
    }
}

fn spelling_of<'a>(text: &'a str, ends: &[u32], id: u32) -> &'a str {
    let index = id as usize;
    let start = index.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied());
    match (start, ends.get(index)) {
        (Some(start), Some(&end)) => text.get(start as usize..end as usize).unwrap_or_default(),
        _ => "",
    }
}
