//! From the names around the cursor to the files that define them.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::table::{File, Table};
use crate::context::facts::{Facts, identity};
use crate::context::lines;
use crate::context::pieces::names_around;
use crate::documents::Snapshot;

/// The most files that are picked, and the most for one name.
const MOST: usize = 8;
const MOST_OF_ONE: usize = 2;
/// A name that more files define than this says nothing about which of them is meant.
const COMMON: usize = 12;

/// What is looked for.
pub(super) struct Wanted {
    /// The names; sorted.
    names: Vec<u64>,
    /// The words of the document's imports and of the lines around the cursor: they may mention files.
    mentioned: HashSet<u64>,
}

/// The names used around the cursor that no document at hand defines. `facts` are those of the document.
pub(super) fn wanted(document: &Snapshot, facts: &Facts, cursor: usize, open: &[Snapshot]) -> Wanted {
    let mut names = names_around(document, cursor);
    let mut mentioned: HashSet<u64> = names.iter().copied().collect();
    for chars in facts.imports() {
        let import = String::from(document.text.slice(chars.clone()));
        let words = import.split(|c| !lines::is_word(c)).filter(|word| !word.is_empty());
        mentioned.extend(words.map(identity));
    }
    names.retain(|name| facts.names(&document.text).binary_search(name).is_err());
    for other in open {
        let facts = Facts::of(other);
        names.retain(|name| facts.names(&other.text).binary_search(name).is_err());
    }
    Wanted { names, mentioned }
}

/// The files to show, the most useful first: those that define more of the names, rare ones counting more; of
/// several that define the same, those that the document imports or mentions, then those nearest to it.
pub(super) fn pick(table: &Table, document: &Snapshot, wanted: &Wanted, open: &[Snapshot]) -> Vec<File> {
    let shown = open.iter().chain([document]).filter_map(|one| table.number(one.path.as_deref()?));
    let shown: HashSet<u32> = shown.collect();
    let mut found: HashMap<u32, Found> = HashMap::new();
    for name in &wanted.names {
        let defining = table.defining(*name).iter().filter(|number| !shown.contains(number));
        let files = defining.filter_map(|number| Some((*number, table.file(*number)?)));
        let files = files.filter(|(_, file)| file.language.is_kin_of(document.language));
        let mut places: Vec<_> =
            files.map(|(number, file)| (number, Place::of(file, document, wanted))).collect();
        if places.len() > COMMON {
            continue;
        }
        let worth = 1.0 / places.len() as f32;
        places.sort_by(|(_, a), (_, b)| a.order(b));
        for (number, place) in places.into_iter().take(MOST_OF_ONE) {
            let found = found.entry(number).or_insert(Found { worth: 0.0, place });
            found.worth += if found.place.mentioned { 2.0 * worth } else { worth };
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by(|a, b| b.worth.total_cmp(&a.worth).then_with(|| a.place.order(&b.place)));
    found.into_iter().take(MOST).map(|found| found.place.file.clone()).collect()
}

/// A file that defines something.
struct Found<'a> {
    worth: f32,
    place: Place<'a>,
}

/// Where a file stands to the document.
struct Place<'a> {
    file: &'a File,
    /// Whether the document imports or mentions it.
    mentioned: bool,
    /// Folders between the two.
    distance: usize,
}

impl<'a> Place<'a> {
    fn of(file: &'a File, document: &Snapshot, wanted: &Wanted) -> Self {
        let mentioned = file.stem.is_some_and(|stem| wanted.mentioned.contains(&stem));
        let distance = document.path.as_deref().map_or(usize::MAX, |path| distance(path, &file.path));
        Self { file, mentioned, distance }
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |place: &Self| (!place.mentioned, place.distance);
        key(self).cmp(&key(other)).then_with(|| self.file.path.cmp(&other.file.path))
    }
}

/// Folders to go up and down from one path to another.
fn distance(a: &Path, b: &Path) -> usize {
    let shared = a.components().zip(b.components()).take_while(|(a, b)| a == b).count();
    a.components().count() + b.components().count() - 2 * shared
}
