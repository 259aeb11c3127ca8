//! What is put before the model: fill-in-the-middle, plain text and chat, within budgets of tokens.
//!
//! **Laid out for the cache:** what changes least comes first (other files, the path, the head of the
//! file), what changes with every key comes last, and windows move in jumps (see [`window`]). Whatever
//! two keystrokes have in common at the start of their prompts is computed once.

pub mod chat;
pub mod fim;
pub mod plain;
pub mod remembered;
pub mod window;

use std::path::Path;

use gemma_engine::{ControlPart, Error, Tokenizer};
use ropey::RopeSlice;

use crate::language::Language;

/// Whatever turns text into ids. A trait, so that layouts can be tested without a vocabulary.
pub trait Tokens {
    /// Ids of a text in which nothing has a special meaning.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// A text of our own making, cut at the control tokens that are spelt in it.
    fn control_parts<'a>(&self, text: &'a str) -> Vec<ControlPart<'a>>;

    /// Whether no id spans the place behind a run of line breaks: a text that is cut there has the ids of its
    /// parts.
    fn parts_at_line_breaks(&self) -> bool;

    /// How many there are.
    fn count(&self, text: &str) -> Result<usize, Error> {
        Ok(if text.is_empty() { 0 } else { self.encode(text)?.len() })
    }
}

impl Tokens for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Tokenizer::encode(self, text)
    }

    fn parts_at_line_breaks(&self) -> bool {
        Tokenizer::parts_at_line_breaks(self)
    }

    fn control_parts<'a>(&self, text: &'a str) -> Vec<ControlPart<'a>> {
        Tokenizer::control_parts(self, text)
    }
}

/// A piece of another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The file, as the model is shown it: relative to the workspace, with `/`.
    pub path: String,
    /// What it is written in.
    pub language: Language,
    /// Whole lines.
    pub text: String,
}

/// Everything a completion prompt is made of, already within its budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Pieces of other files, those that stay longest first.
    pub pieces: Vec<Piece>,
    /// The file with the cursor, as the model is shown it.
    pub path: String,
    /// What it is written in.
    pub language: Language,
    /// Imports and enclosing headers from above the window; empty when the window begins with the file.
    pub head: String,
    /// The window of text before the cursor.
    pub before: String,
    /// The window of text behind the cursor.
    pub after: String,
}

/// A prompt, ready for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, `<bos>` included.
    pub ids: Vec<u32>,
    /// Ids that end the answer.
    pub stop: Vec<u32>,
    /// Texts that end the answer: what the layout itself puts between its parts, written on by the model.
    pub stop_texts: Vec<String>,
    /// How many of the ids later prompts will probably have in common with this one, ascending: those for a
    /// cursor a few keys further on, and those for another place of the document.
    pub cuts: Vec<usize>,
    /// Whether the model's adapter is left out: one that fills in the middle has nothing to say where nothing is filled in.
    pub base_alone: bool,
}

impl Material {
    /// Head and window as one text, each on its own lines.
    fn prefix(&self) -> String {
        format!("{}{}", ended(&self.head), self.before)
    }
}

/// A file as the model is shown it: relative to the workspace, else its name alone, with `/`.
pub fn shown_path(location: &Path, root: Option<&Path>) -> String {
    let relative = root.and_then(|root| location.strip_prefix(root).ok());
    let name = location.file_name().map(Path::new);
    relative.or(name).unwrap_or(location).to_string_lossy().replace('\\', "/")
}

/// Text with line ends as models know them.
pub fn lines(text: &RopeSlice<'_>) -> String {
    text.to_string().replace("\r\n", "\n").replace('\r', "\n")
}

/// A text that ends with a line break, unless it is empty.
fn ended(text: &str) -> String {
    let text = text.trim_end_matches('\n');
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

/// The lengths at which later prompts will part from one: where a part of it ends, and, behind the last of
/// `ends`, where the text before the cursor does, a few tokens earlier too, since the next key may join them.
fn cuts(ends: &[usize]) -> Vec<usize> {
    /// One key changes at most so many tokens at the end of a text, nearly always.
    const JOINED: usize = 3;
    let Some((&last, parts)) = ends.split_last() else { return Vec::new() };
    let mut cuts: Vec<usize> = parts.iter().copied().chain(last.saturating_sub(JOINED)..=last).collect();
    cuts.retain(|&cut| cut > 0);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Keeps as many pieces as fit a budget of tokens, in their order; the first that does not fit is cut at
/// a line, if enough of it is left to say something.
pub fn fit_pieces(pieces: Vec<Piece>, budget: usize, tokens: &dyn Tokens) -> Result<Vec<Piece>, Error> {
    /// Fewer tokens of a file say nothing.
    const WORTH: usize = 32;
    let mut left = budget;
    let mut kept = Vec::new();
    for mut piece in pieces {
        // A line more for the path, and what joins the pieces.
        let around = tokens.count(&piece.path)? + 4;
        let end = window::end(&piece.text, left.saturating_sub(around), tokens)?;
        let whole = end == piece.text.len();
        piece.text.truncate(end);
        let used = around + tokens.count(&piece.text)?;
        if whole || (used >= around + WORTH && !piece.text.trim().is_empty()) {
            left = left.saturating_sub(used);
            kept.push(piece);
        }
        if !whole {
            break;
        }
    }
    Ok(kept)
}

#[cfg(test)]
pub(crate) mod fake {
    //! A tokenizer for tests: one token a word, a run of blanks or a sign.

    use std::cell::RefCell;
    use std::collections::HashMap;

    use gemma_engine::{ControlPart, Error};

    use super::Tokens;

    /// The control tokens that it knows.
    const CONTROL: [(&str, u32); 4] =
        [("<eos>", 1), ("<bos>", 2), ("<start_of_turn>", 105), ("<end_of_turn>", 106)];

    /// Ids from here on are words; the ones below are free for control tokens.
    pub const FIRST_WORD: u32 = 1000;

    /// Learns words as it meets them.
    #[derive(Default)]
    pub struct Words {
        ids: RefCell<HashMap<String, u32>>,
    }

    impl Words {
        /// Text of ids; ids below [`FIRST_WORD`] as `<id>`.
        pub fn text(&self, ids: &[u32]) -> String {
            let words: HashMap<u32, String> =
                self.ids.borrow().iter().map(|(w, i)| (*i, w.clone())).collect();
            ids.iter().map(|id| words.get(id).cloned().unwrap_or_else(|| format!("<{id}>"))).collect()
        }
    }

    impl Tokens for Words {
        fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
            let kind = |c: char| match c {
                c if c.is_alphanumeric() => 0,
                '\n' => 1,
                c if c.is_whitespace() => 2,
                _ => 3,
            };
            let mut ids = Vec::new();
            let mut rest = text;
            while let Some(first) = rest.chars().next() {
                let end = match kind(first) {
                    3 => first.len_utf8(),
                    k => rest.find(|c| kind(c) != k).unwrap_or(rest.len()),
                };
                let mut known = self.ids.borrow_mut();
                let next = FIRST_WORD + known.len() as u32;
                ids.push(*known.entry(rest[..end].to_string()).or_insert(next));
                rest = &rest[end..];
            }
            Ok(ids)
        }

        fn parts_at_line_breaks(&self) -> bool {
            true
        }

        fn control_parts<'a>(&self, text: &'a str) -> Vec<ControlPart<'a>> {
            let mut parts = Vec::new();
            let mut rest = text;
            let next = |text: &str| {
                CONTROL.iter().filter_map(|(name, id)| Some((text.find(name)?, name.len(), *id))).min()
            };
            while let Some((at, length, id)) = next(rest) {
                parts.push(ControlPart::Text(&rest[..at]));
                parts.push(ControlPart::Control(id));
                rest = &rest[at + length..];
            }
            parts.push(ControlPart::Text(rest));
            parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_kept_while_they_fit_and_cut_at_a_line() {
        let words = fake::Words::default();
        let piece = |path: &str, lines: usize| Piece {
            path: path.into(),
            language: Language::Other,
            text: "one two three\n".repeat(lines),
        };
        // A line is six tokens; a path is three and costs four more.
        let kept = |budget| {
            let pieces = vec![piece("a.x", 2), piece("b.x", 20), piece("c.x", 1)];
            let kept = fit_pieces(pieces, budget, &words).expect("counts");
            kept.iter().map(|p| (p.path.clone(), p.text.lines().count())).collect::<Vec<_>>()
        };
        assert_eq!(kept(1000), [("a.x".into(), 2), ("b.x".into(), 20), ("c.x".into(), 1)]);
        assert_eq!(kept(100), [("a.x".into(), 2), ("b.x".into(), 12)]);
        assert_eq!(kept(30), [("a.x".into(), 2)]);
        assert_eq!(kept(0), []);
    }
}
