//! The file of the statistics, which all servers of a user share.
//!
//! **Invariants.**
//! - The file is only ever replaced by a whole one, under a lock, by its old numbers and what is new: several
//!   servers add up.
//! - What cannot be written is not lost while the server runs, and is no error of the user's work.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gemma_engine::{Error, ErrorKind};
use serde_json::{Map, Value};

use super::{Statistics, today};

/// How long another server may hold the lock before the numbers wait for the next time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the lock is free.
const POLL: Duration = Duration::from_millis(5);
/// Longer files are none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// The statistics of a user.
#[derive(Debug)]
pub struct Store {
    /// `None`: this user has no folder for data, and the numbers last as long as the process.
    path: Option<PathBuf>,
    /// What is counted here and not in the file yet.
    unwritten: Mutex<Statistics>,
}

impl Store {
    /// The statistics in a file, which need not be there.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, unwritten: Mutex::default() }
    }

    /// Counts. Nothing is written yet.
    pub fn count<T>(&self, count: impl FnOnce(&mut Statistics) -> T) -> T {
        count(&mut self.unwritten())
    }

    /// Writes what is new. What cannot be written stays for the next time.
    ///
    /// # Errors
    /// The file, or the folder that it is in, cannot be written, or another process holds its lock.
    pub fn write(&self) -> Result<(), Error> {
        if self.unwritten().is_empty() {
            return Ok(());
        }
        self.change(|all, new| all.add(new)).map(drop)
    }

    /// All numbers, those of the file and those that are new.
    pub fn read(&self) -> Statistics {
        let written = self.write();
        let in_file = self.path.as_deref().and_then(|path| load(path).ok());
        let mut all = in_file.map(|(all, _)| all).unwrap_or_default();
        if written.is_err() || self.path.is_none() {
            all.add(&self.unwritten());
        }
        begun(all)
    }

    /// What is wrong with the file, if something is.
    pub fn problem(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        let problem = load(path).map_or_else(|error| Some(error.to_string()), |(_, damage)| damage);
        problem.map(|problem| format!("{}: {problem}", path.display()))
    }

    /// Forgets all numbers, and begins anew today.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn reset(&self) -> Result<Statistics, Error> {
        self.change(|all, _| *all = Statistics::default())
    }

    /// Changes the numbers in the file by what is new, which then is not new any more.
    fn change(&self, change: impl FnOnce(&mut Statistics, &Statistics)) -> Result<Statistics, Error> {
        let new = std::mem::take(&mut *self.unwritten());
        let changed = match &self.path {
            None => {
                let mut all = Statistics::default();
                change(&mut all, &new);
                self.unwritten().add(&all);
                return Ok(begun(all));
            }
            Some(path) => change_file(path, |all| change(all, &new)),
        };
        changed.map_err(|error| {
            self.unwritten().add(&new);
            let file = self.path.as_deref().unwrap_or(Path::new("")).display();
            Error::new(ErrorKind::Resources, file, format_args!("the statistics cannot be kept: {error}"))
        })
    }

    fn unwritten(&self) -> MutexGuard<'_, Statistics> {
        // Each change adds numbers; a panic between two leaves a count that is one too low.
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers that begin today if they have not begun.
fn begun(mut all: Statistics) -> Statistics {
    if all.since.is_empty() {
        all.since = today();
    }
    all
}

/// Changes the numbers in a file, which need not be there.
fn change_file(path: &Path, change: impl FnOnce(&mut Statistics)) -> io::Result<Statistics> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let _lock = lock(&beside(path, ".lock"))?;
    let (mut all, damage) = load(path)?;
    if let Some(damage) = damage {
        let aside = beside(path, ".damaged");
        fs::rename(path, &aside)?;
        tracing::warn!("{}: {damage}; it is kept as {}", path.display(), aside.display());
    }
    change(&mut all);
    let all = begun(all);
    replace(path, &all)?;
    Ok(all)
}

/// The numbers of a file, none where there is no file; and what is wrong in it.
fn load(path: &Path) -> io::Result<(Statistics, Option<String>)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Statistics::default(), None)),
        Err(error) => return Err(error),
    };
    let read = match u64::try_from(bytes.len()) {
        // A list would do for the type alone.
        Ok(..=MOST_BYTES) => serde_json::from_slice(&bytes)
            .and_then(|object: Map<_, _>| serde_json::from_value(Value::Object(object)))
            .map_err(|error| error.to_string()),
        _ => Err("it is too long".to_owned()),
    };
    Ok(match read {
        Ok(all) => (all, None),
        Err(problem) => (Statistics::default(), Some(problem)),
    })
}

/// Puts a new file in the place of the old one in one step.
fn replace(path: &Path, all: &Statistics) -> io::Result<()> {
    let new = beside(path, &format!(".{}.new", std::process::id()));
    let text = serde_json::to_string_pretty(all).map_err(io::Error::other)?;
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // It is of no use to anybody, and may be what fills the disk.
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// A file beside another, of its name and this end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Keeps two servers from writing over each other; the lock ends with the value. It is a file of its own since
/// the other one is replaced.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            // Some network file systems have no locks: two servers at once may then lose a count.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Taken;

    fn shown(store: &Store, times: u64) {
        for _ in 0..times {
            store.count(|new| new.show("rust"));
        }
    }

    #[test]
    fn several_servers_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/below/statistics.json");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let store = Store::new(Some(path.clone()));
                    for _ in 0..20 {
                        shown(&store, 1);
                        store.count(|new| new.take("rust", Taken::Word, 3, true));
                        store.write().expect("it can be written");
                    }
                });
            }
        });
        let all = Store::new(Some(path.clone())).read();
        assert_eq!((all.shown, all.accepted, all.words, all.characters), (160, 160, 160, 480));
        assert_eq!(all.languages["rust"].shown, 160);
        assert_eq!(all.since, today());
        let mut left: Vec<_> = fs::read_dir(path.parent().expect("a folder"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        assert_eq!(left, ["statistics.json", "statistics.json.lock"]);
    }

    #[test]
    fn what_is_counted_while_it_is_written_is_not_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(Some(folder.path().join("s.json")));
        thread::scope(|scope| {
            let counting = scope.spawn(|| shown(&store, 5_000));
            while !counting.is_finished() {
                store.write().expect("it can be written");
            }
        });
        assert_eq!(store.read().shown, 5_000);
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        for damaged in ["", "{\"shown\": 3", "[]", "{\"shown\": -1}", "\u{0}\u{0}"] {
            fs::write(&path, damaged).expect("written");
            let store = Store::new(Some(path.clone()));
            assert_eq!(store.read().shown, 0, "{damaged}");
            shown(&store, 2);
            assert_eq!(store.read().shown, 2, "{damaged}");
            let aside = fs::read_to_string(folder.path().join("s.json.damaged")).expect("kept");
            assert_eq!(aside, damaged);
        }
        // What a newer gemma-ls writes besides is no damage.
        fs::write(&path, "{\"shown\": 3, \"since\": \"2026-01-01\", \"more\": []}").expect("written");
        let all = Store::new(Some(path)).read();
        assert_eq!((all.shown, all.since.as_str()), (3, "2026-01-01"));
    }

    #[test]
    fn what_cannot_be_written_stays_here() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("written");
        // A folder below a file can be made by nobody, root included.
        let store = Store::new(Some(folder.path().join("file/s.json")));
        shown(&store, 2);
        let error = store.write().expect_err("it cannot be written");
        assert!(error.to_string().contains("statistics cannot be kept"), "{error}");
        shown(&store, 1);
        assert_eq!(store.read().shown, 3);
        assert!(store.reset().is_err());

        let nowhere = Store::new(None);
        shown(&nowhere, 2);
        nowhere.write().expect("there is nothing to write to");
        assert_eq!((nowhere.read().shown, nowhere.read().since), (2, today()));
        assert_eq!(nowhere.reset().expect("it is here").shown, 0);
        assert_eq!(nowhere.read().shown, 0);
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        let other = File::create(beside(&path, ".lock")).expect("a file");
        other.lock().expect("locked");
        let store = Store::new(Some(path));
        shown(&store, 1);
        assert!(store.write().is_err());
        drop(other);
        store.write().expect("it is free");
        assert_eq!(store.read().shown, 1);
    }

    #[test]
    fn a_reset_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        fs::write(&path, "{\"shown\": 3, \"since\": \"2026-01-01\"}").expect("written");
        let store = Store::new(Some(path.clone()));
        shown(&store, 1);
        assert_eq!(store.reset().expect("written"), Statistics { since: today(), ..Statistics::default() });
        assert_eq!(Store::new(Some(path)).read().shown, 0);
        assert_eq!(store.read().shown, 0);
    }
}
