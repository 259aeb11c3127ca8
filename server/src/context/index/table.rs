//! Which file defines which names: the whole memory of an index.
//!
//! A name costs about 50 bytes and each file that defines it 12 more, so that the bounds below come to less than
//! 100 MB, and an ordinary workspace (2,000 files with 50 names) to 5 MB.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::texts::Stamp;
use crate::language::Language;

/// The most files.
pub(super) const MOST_FILES: usize = 20_000;
/// The most names of one file, and of all together; what is beyond is not found by its name.
const MOST_OF_ONE: usize = 1_000;
const MOST_NAMES: usize = 1 << 20;
/// A name that more files define than this is no more followed: it leads nowhere.
const COMMONEST: usize = 64;

/// What is known of a file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: Arc<Path>,
    /// How it was on disk when it was read.
    pub stamp: Stamp,
    pub language: Language,
    /// What imports call it, as a number (see [`super::super::facts::identity`]).
    pub stem: Option<u64>,
    /// The names that it defines, as numbers; sorted.
    names: Arc<[u64]>,
    /// The last pass that saw it.
    pass: u64,
}

/// The files that define a name.
#[derive(Debug)]
enum Places {
    /// Numbers of files, in no order that means anything.
    Few(Vec<u32>),
    /// More than [`COMMONEST`] by now or once: a later whole pass does not change that, a restart does.
    Many,
}

/// All files, by path and by name. A file has the same number for as long as it is known.
#[derive(Debug, Default)]
pub(super) struct Table {
    files: Vec<Option<File>>,
    free: Vec<u32>,
    by_path: HashMap<Arc<Path>, u32>,
    by_name: HashMap<u64, Places>,
    /// Names of all files, counted once for each.
    names: usize,
}

impl Table {
    /// How many files are known.
    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether one more file can be known.
    pub(super) fn has_room(&self) -> bool {
        self.len() < MOST_FILES
    }

    /// The number of a file.
    pub(super) fn number(&self, path: &Path) -> Option<u32> {
        self.by_path.get(path).copied()
    }

    /// The file of a number.
    pub(super) fn file(&self, number: u32) -> Option<&File> {
        self.files.get(number as usize)?.as_ref()
    }

    /// The numbers of the files that define a name; none where it is too common to mean anything.
    pub(super) fn defining(&self, name: u64) -> &[u32] {
        match self.by_name.get(&name) {
            Some(Places::Few(files)) => files,
            Some(Places::Many) | None => &[],
        }
    }

    /// Notes that a pass saw a file, if it is known as it is now.
    pub(super) fn seen(&mut self, path: &Path, stamp: Stamp, pass: u64) -> bool {
        let number = self.number(path);
        let file = number.and_then(|number| self.files[number as usize].as_mut());
        let Some(file) = file.filter(|file| file.stamp == stamp) else { return false };
        file.pass = pass;
        true
    }

    /// Takes a file in, in place of what was known of it.
    pub(super) fn put(
        &mut self,
        path: &Path,
        stamp: Stamp,
        language: Language,
        stem: Option<u64>,
        names: &[u64],
        pass: u64,
    ) {
        self.remove(path);
        if !self.has_room() {
            return;
        }
        let names = &names[..names.len().min(MOST_OF_ONE).min(MOST_NAMES - self.names)];
        let number = self.free.pop().unwrap_or_else(|| {
            self.files.push(None);
            u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
        });
        for name in names {
            let places = self.by_name.entry(*name).or_insert_with(|| Places::Few(Vec::with_capacity(1)));
            match places {
                Places::Few(files) if files.len() < COMMONEST => files.push(number),
                _ => *places = Places::Many,
            }
        }
        self.names += names.len();
        let path: Arc<Path> = path.into();
        self.by_path.insert(Arc::clone(&path), number);
        self.files[number as usize] = Some(File { path, stamp, language, stem, names: names.into(), pass });
    }

    /// Forgets a file.
    pub(super) fn remove(&mut self, path: &Path) {
        let Some(number) = self.by_path.remove(path) else { return };
        let Some(file) = self.files[number as usize].take() else { return };
        self.names -= file.names.len();
        self.free.push(number);
        for name in file.names.iter() {
            if let Some(Places::Few(files)) = self.by_name.get_mut(name) {
                files.retain(|one| *one != number);
                if files.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
    }

    /// Forgets the files that a pass was about and did not see.
    pub(super) fn sweep(&mut self, pass: u64, about: impl Fn(&Path) -> bool) {
        let unseen = self.files.iter().flatten().filter(|file| file.pass != pass && about(&file.path));
        for path in unseen.map(|file| Arc::clone(&file.path)).collect::<Vec<_>>() {
            self.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: &mut Table, path: &str, names: &[u64]) {
        table.put(Path::new(path), Stamp::default(), Language::Rust, None, names, 1);
    }

    fn defining(table: &Table, name: u64) -> Vec<String> {
        let files = table.defining(name).iter().filter_map(|number| table.file(*number));
        let mut paths: Vec<_> = files.map(|file| file.path.display().to_string()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn names_lead_to_the_files_that_define_them_now() {
        let mut table = Table::default();
        put(&mut table, "/a", &[1, 2]);
        put(&mut table, "/b", &[2, 3]);
        assert_eq!(defining(&table, 2), ["/a", "/b"]);
        put(&mut table, "/a", &[4]);
        assert_eq!(
            (defining(&table, 2), defining(&table, 4)),
            (vec!["/b".to_owned()], vec!["/a".to_owned()])
        );
        table.remove(Path::new("/b"));
        assert_eq!((defining(&table, 3), table.len(), table.names), (vec![], 1, 1));
        put(&mut table, "/c", &[3]);
        assert_eq!((defining(&table, 3), table.files.len()), (vec!["/c".to_owned()], 2));
    }

    #[test]
    fn what_a_pass_did_not_see_goes_if_the_pass_was_about_it() {
        let mut table = Table::default();
        for path in ["/a/x", "/a/y", "/b/z"] {
            put(&mut table, path, &[1]);
        }
        assert!(table.seen(Path::new("/a/x"), Stamp::default(), 2));
        assert!(!table.seen(Path::new("/a/y"), Stamp { size: 1, ..Stamp::default() }, 2));
        table.sweep(2, |path| path.starts_with("/a"));
        assert_eq!(defining(&table, 1), ["/a/x", "/b/z"]);
    }

    #[test]
    fn a_name_that_everybody_has_leads_nowhere() {
        let mut table = Table::default();
        for n in 0..=COMMONEST {
            assert_eq!(table.defining(1).len(), n);
            put(&mut table, &format!("/{n}"), &[1]);
        }
        assert_eq!(table.defining(1), [0; 0]);
        table.remove(Path::new("/0"));
        assert_eq!(table.defining(1), [0; 0]);
    }

    #[test]
    fn there_is_an_end_to_files_and_names() {
        let mut table = Table::default();
        let names: Vec<u64> = (0..2_000).collect();
        for n in 0..MOST_FILES + 10 {
            put(&mut table, &format!("/{n}"), if n % 10 == 0 { &names } else { &[] });
        }
        assert_eq!(table.len(), MOST_FILES);
        assert_eq!(table.names, MOST_NAMES);
    }
}
