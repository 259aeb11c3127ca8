//! The pieces of other documents that a place shows: chosen once, then left where they stand.
//!
//! They come first in a prompt, so changing one means computing all behind it anew. A piece stays as it is while
//! what it shows is true: every line of it stands in its document, in this order, or goes on there. (What was
//! added in between is missing; that is no reason to read a thousand tokens again.) It goes when it is untrue,
//! and then the others keep their order and what is new comes behind them. Besides, something new comes in only
//! where it is worth clearly more, and seldom.

use std::collections::HashMap;
use std::ops::Range;

use gemma_engine::Error;

use super::edit::{Edit, Inserted};
use crate::context;
use crate::documents::Snapshot;
use crate::language::Language;
use crate::prompt::{Piece, Tokens, fit_pieces, shown_path};

/// Requests at a place between two looks at what else could be shown, and between two changes for the better.
const LOOK: usize = 24;
const CALM: usize = 64;
/// What is worth this much (see [`context::Piece::score`]) is added where there is room.
const WORTHY: f32 = 1.0;
/// What is worth this much more than another takes its place: it defines a name that is used here.
const BETTER: f32 = 1.0;

/// Pieces of other documents, in the order in which they are shown.
#[derive(Debug, Clone)]
pub struct Shelf {
    kept: Vec<Kept>,
    state: State,
    /// Requests since the last look and since the last change.
    looked: usize,
    changed: usize,
    /// The tokens that they were chosen for.
    budget: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is kept was chosen for this place.
    Chosen,
    /// What is kept was chosen for another place: only what would be shown here anyway stays.
    Preferred,
}

/// A piece, and where it comes from.
#[derive(Debug, Clone)]
struct Kept {
    shown: Piece,
    /// The document as it was when this was last compared with it, and the piece's bytes in that.
    source: Snapshot,
    bytes: Range<usize>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { kept: Vec::new(), state: State::Preferred, looked: 0, changed: 0, budget: 0 }
    }
}

impl Shelf {
    /// The same pieces, as what a new place begins with.
    pub fn as_preference(&self) -> Shelf {
        Shelf { kept: self.kept.clone(), ..Shelf::default() }
    }

    /// What is shown.
    pub fn pieces(&self) -> Vec<Piece> {
        self.kept.iter().map(|kept| kept.shown.clone()).collect()
    }

    /// Brings the shelf up to date within a budget of tokens. `now` gives a document as it is now, and nothing where it
    /// is not to be shown any more; `arrived` says that the last request was made elsewhere; `found` is asked seldom,
    /// since it takes long.
    pub fn update(
        &mut self,
        now: &dyn Fn(&Snapshot) -> Option<Snapshot>,
        arrived: bool,
        budget: usize,
        tokens: &dyn Tokens,
        found: impl FnOnce() -> Found,
    ) -> Result<(), Error> {
        if self.budget != budget {
            (self.budget, self.state) = (budget, State::Preferred);
        }
        let before = self.kept.len();
        self.kept.retain_mut(|kept| kept.is_true(now));
        let lost = self.kept.len() < before;
        (self.looked, self.changed) = (self.looked + 1, self.changed + 1);
        let due = self.looked >= LOOK && (self.changed >= CALM || self.kept.is_empty());
        if self.state == State::Chosen && !lost && !arrived && !due {
            return Ok(());
        }
        self.looked = 0;
        let offers = found().offers();
        let wanted = match self.state {
            State::Preferred => self.chosen_anew(offers, budget, tokens)?,
            State::Chosen => self.bettered(offers, lost, budget, tokens)?,
        };
        self.state = State::Chosen;
        if let Some(wanted) = wanted {
            self.kept = wanted;
            self.changed = 0;
        }
        Ok(())
    }

    /// The best offers; those of them that are kept come first, as they are.
    fn chosen_anew(
        &self,
        offers: Vec<Offer>,
        budget: usize,
        tokens: &dyn Tokens,
    ) -> Result<Option<Vec<Kept>>, Error> {
        let best = fit(offers.into_iter().map(|offer| offer.kept).collect(), budget, tokens)?;
        let (known, new): (Vec<Kept>, Vec<Kept>) =
            best.into_iter().partition(|one| self.kept.iter().any(|kept| kept.overlaps(one)));
        let mut wanted: Vec<Kept> =
            self.kept.iter().filter(|kept| known.iter().any(|one| one.overlaps(kept))).cloned().collect();
        wanted.extend(new);
        Ok(Some(fit(wanted, budget, tokens)?))
    }

    /// What is kept, with what is clearly better behind it.
    fn bettered(
        &self,
        offers: Vec<Offer>,
        lost: bool,
        budget: usize,
        tokens: &dyn Tokens,
    ) -> Result<Option<Vec<Kept>>, Error> {
        let score = |kept: &Kept| {
            offers.iter().find(|offer| offer.kept.overlaps(kept)).map_or(0.0, |offer| offer.score)
        };
        let worth: Vec<f32> = self.kept.iter().map(score).collect();
        let new = offers.iter().filter(|offer| !self.kept.iter().any(|kept| kept.overlaps(&offer.kept)));
        let fill = lost || self.kept.is_empty();
        let new: Vec<&Offer> = new.filter(|offer| fill || offer.score >= WORTHY).collect();
        let mut wanted = self.kept.clone();
        wanted.extend(new.iter().map(|offer| offer.kept.clone()));
        let wanted = fit(wanted, budget, tokens)?;
        if lost || wanted.len() > self.kept.len() {
            return Ok(Some(wanted));
        }
        let worst = (0..worth.len()).min_by(|&a, &b| worth[a].total_cmp(&worth[b]).then(b.cmp(&a)));
        let (Some(worst), Some(best)) = (worst, new.first()) else { return Ok(None) };
        if best.score < worth[worst] + BETTER {
            return Ok(None);
        }
        let mut wanted = self.kept.clone();
        wanted.remove(worst);
        wanted.push(best.kept.clone());
        let wanted = fit(wanted, budget, tokens)?;
        Ok((wanted.len() == self.kept.len()).then_some(wanted))
    }
}

/// As many as a budget has room for, in their order.
fn fit(pieces: Vec<Kept>, budget: usize, tokens: &dyn Tokens) -> Result<Vec<Kept>, Error> {
    let shown = fit_pieces(pieces.iter().map(|kept| kept.shown.clone()).collect(), budget, tokens)?;
    let cut = |(kept, shown): (Kept, Piece)| Kept { bytes: kept.bytes_of(&shown.text), shown, ..kept };
    Ok(pieces.into_iter().zip(shown).map(cut).collect())
}

/// What could be shown.
pub struct Found {
    /// Documents.
    pub documents: Vec<Snapshot>,
    /// Pieces of them, as each is shown and where it is from; the best first.
    pub pieces: Vec<(Piece, context::Piece)>,
}

/// A piece that could be shown.
struct Offer {
    kept: Kept,
    score: f32,
}

impl Found {
    fn offers(self) -> Vec<Offer> {
        let documents: HashMap<&str, &Snapshot> =
            self.documents.iter().map(|document| (&*document.uri, document)).collect();
        let offer = |(shown, piece): (Piece, context::Piece)| {
            let source = (*documents.get(&*piece.uri)?).clone();
            let byte = |chars: usize| source.text.char_to_byte(chars.min(source.text.len_chars()));
            let bytes = byte(piece.chars.start)..byte(piece.chars.end);
            Some(Offer { kept: Kept { shown, source, bytes }, score: piece.score })
        };
        self.pieces.into_iter().filter_map(offer).collect()
    }
}

impl Kept {
    fn overlaps(&self, other: &Kept) -> bool {
        let (bytes, others) = (&self.bytes, &other.bytes);
        self.source.uri == other.source.uri && bytes.start < others.end && others.start < bytes.end
    }

    /// The bytes of the first lines of this piece, as many as `shown` has.
    fn bytes_of(&self, shown: &str) -> Range<usize> {
        let text = &self.source.text;
        let lines = shown.trim_end_matches('\n').matches('\n').count() + 1;
        let end = text.line_to_byte((text.byte_to_line(self.bytes.start) + lines).min(text.len_lines()));
        self.bytes.start..end.min(self.bytes.end)
    }

    /// Whether what is shown still stands in its document, which may be shown.
    fn is_true(&mut self, now: &dyn Fn(&Snapshot) -> Option<Snapshot>) -> bool {
        let Some(now) = now(&self.source) else { return false };
        if now.revision == self.source.revision {
            return true;
        }
        let before = std::mem::replace(&mut self.source, now);
        let (old, new) = (&before.text, &self.source.text);
        let Some(edit) = Edit::between(old, new) else { return true };
        let start = edit.moved_line(self.bytes.start, old, new).unwrap_or(edit.start);
        let end = edit.moved(self.bytes.end, Inserted::Behind).unwrap_or(edit.new_end);
        let untouched = edit.old_end <= self.bytes.start || edit.start >= self.bytes.end;
        let found = if untouched { Some(start..end) } else { self.found(start..end) };
        self.bytes = found.clone().unwrap_or_default();
        found.is_some()
    }

    /// Where among some bytes every line that is shown stands, in order and perhaps longer, with not too much
    /// between them.
    fn found(&self, among: Range<usize>) -> Option<Range<usize>> {
        /// A piece may grow by so many lines beyond its own number.
        const GROWN: usize = 8;
        let text = &self.source.text;
        let first = text.byte_to_line(among.start);
        let lines: Vec<String> = text.lines_at(first).map(String::from).collect();
        let lines = &lines[..(text.byte_to_line(among.end) + 1 - first).min(lines.len())];
        let mut shown = self.shown.text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let (begins, most) = (shown.next()?, 2 * shown.clone().count() + GROWN);
        (0..lines.len()).filter(|&at| lines[at].starts_with(begins)).find_map(|at| {
            let mut now = lines.iter().enumerate().skip(at + 1).take(most);
            let last = shown
                .clone()
                .try_fold(at, |_, line| now.find(|(_, now)| now.starts_with(line)).map(|(place, _)| place))?;
            let end = text.line_to_byte(first + last) + lines[last].trim_end_matches(['\n', '\r']).len();
            Some(text.line_to_byte(first + at)..end)
        })
    }
}

/// A piece as the model is shown it.
pub fn as_shown(piece: &context::Piece, root: Option<&std::path::Path>) -> Piece {
    Piece {
        path: shown_path(&piece.path, root),
        language: Language::of_name(&piece.path).unwrap_or(Language::Other),
        text: piece.text.replace("\r\n", "\n"),
    }
}
