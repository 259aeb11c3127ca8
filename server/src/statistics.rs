//! What was suggested on this machine, and what of it was taken: numbers, and no text.
//!
//! **Invariant:** nothing here knows the network. The numbers lie in one file of the user's, [`file`].

mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use store::Store;

/// What typing one character takes, in milliseconds: 40 words a minute, five characters a word.
const MS_A_CHARACTER: u64 = 300;
/// Languages that are counted: a client that invents them without end must not fill the disk.
const MOST_LANGUAGES: usize = 200;
/// The longest name of a language, in bytes.
const LANGUAGE: usize = 40;

/// How something of a suggestion was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// All of it, or all that was left.
    Whole,
    /// A word of it.
    Word,
    /// A line of it.
    Line,
}

/// The numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// The day of the first one, such as `2026-11-22`; empty where nothing was counted.
    pub since: String,
    /// Suggestions that were shown.
    pub shown: u64,
    /// Suggestions of which something was taken.
    pub accepted: u64,
    /// How often a word was taken.
    pub words: u64,
    /// How often a line was taken.
    pub lines: u64,
    /// How often all of a suggestion was taken, or all that was left of it.
    pub wholes: u64,
    /// Characters that were taken in all.
    pub characters: u64,
    /// By language.
    pub languages: BTreeMap<String, Language>,
}

/// The numbers of one language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Language {
    /// Suggestions that were shown.
    pub shown: u64,
    /// Suggestions of which something was taken.
    pub accepted: u64,
    /// Characters that were taken.
    pub characters: u64,
}

impl Statistics {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self { since: self.since.clone(), ..Self::default() }
    }

    /// Counts a suggestion that is shown.
    pub fn show(&mut self, language: &str) {
        self.shown += 1;
        self.of(language).shown += 1;
    }

    /// Counts what is taken of a suggestion; `first`, where nothing of it was before.
    pub fn take(&mut self, language: &str, how: Taken, characters: u64, first: bool) {
        *match how {
            Taken::Whole => &mut self.wholes,
            Taken::Word => &mut self.words,
            Taken::Line => &mut self.lines,
        } += 1;
        self.accepted += u64::from(first);
        self.characters += characters;
        let language = self.of(language);
        language.accepted += u64::from(first);
        language.characters += characters;
    }

    fn of(&mut self, language: &str) -> &mut Language {
        let mut end = language.len().min(LANGUAGE);
        while !language.is_char_boundary(end) {
            end -= 1;
        }
        let room = self.languages.len() < MOST_LANGUAGES || self.languages.contains_key(&language[..end]);
        let name = if room { &language[..end] } else { "" };
        self.languages.entry(name.to_owned()).or_default()
    }

    /// Adds other numbers to these.
    pub fn add(&mut self, other: &Self) {
        // Numbers that somebody wrote into the file may be any.
        let sum = |number: &mut u64, more: u64| *number = number.saturating_add(more);
        sum(&mut self.shown, other.shown);
        sum(&mut self.accepted, other.accepted);
        sum(&mut self.words, other.words);
        sum(&mut self.lines, other.lines);
        sum(&mut self.wholes, other.wholes);
        sum(&mut self.characters, other.characters);
        for (name, more) in &other.languages {
            let language = self.of(name);
            sum(&mut language.shown, more.shown);
            sum(&mut language.accepted, more.accepted);
            sum(&mut language.characters, more.characters);
        }
    }

    /// What typing what was taken would have taken, in milliseconds.
    pub fn time_saved_ms(&self) -> u64 {
        self.characters.saturating_mul(MS_A_CHARACTER)
    }

    /// All of it, with what follows from it.
    pub fn to_json(&self) -> Value {
        let mut json = json!(self);
        json["timeSavedMs"] = self.time_saved_ms().into();
        json
    }
}

/// Where the statistics of this user are, whether or not there are any: `gemma-ls/statistics.json` in the data folder of
/// this system.
pub fn file() -> Option<PathBuf> {
    dirs::data_dir().map(|folder| folder.join("gemma-ls").join("statistics.json"))
}

/// Today, such as `2026-11-22`.
fn today() -> String {
    time::UtcDateTime::now().date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_so_that_they_sort() {
        let today = today();
        assert!(today.len() == 10 && today.as_str() > "2025-01-01", "{today}");
    }

    #[test]
    fn what_is_taken_in_parts_is_one_suggestion() {
        let mut all = Statistics::default();
        all.show("rust");
        all.take("rust", Taken::Word, 4, true);
        all.take("rust", Taken::Line, 10, false);
        all.take("rust", Taken::Whole, 6, false);
        assert_eq!((all.shown, all.accepted, all.words, all.lines, all.wholes), (1, 1, 1, 1, 1));
        assert_eq!((all.characters, all.time_saved_ms()), (20, 6000));
        assert_eq!(all.languages["rust"], Language { shown: 1, accepted: 1, characters: 20 });
        assert_eq!(all.to_json()["timeSavedMs"], 6000);

        let mut twice = all.clone();
        twice.add(&all);
        assert_eq!((twice.characters, twice.languages["rust"].characters), (40, 40));
        twice.add(&Statistics { characters: u64::MAX, ..Statistics::default() });
        assert_eq!(twice.characters, u64::MAX);
    }

    #[test]
    fn languages_without_end_are_counted_together() {
        let mut all = Statistics::default();
        for n in 0..1000 {
            all.show(&format!("language-{n}-{}", "ü".repeat(100)));
        }
        assert_eq!(all.languages.len(), MOST_LANGUAGES + 1);
        assert!(all.languages.keys().all(|name| name.len() <= LANGUAGE));
        assert_eq!(all.languages.values().map(|language| language.shown).sum::<u64>(), 1000);
    }
}
