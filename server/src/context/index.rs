//! What the files of the workspace define, so that a name used at the cursor leads to where it is defined
//! though nobody has that file open.
//!
//! - One thread of the lowest priority reads the files. It does one file at a time, stands still while a
//!   completion is computed ([`Index::rest`]), and sleeps without a timer when there is nothing to do.
//! - Of a file is kept which names it defines, as numbers, and how to tell that it changed. Texts are read when
//!   a file is picked; the last few stay.
//! - Left out are: what `.gitignore` and its like name, hidden files, files with secrets, links, languages that
//!   define nothing, whatever is not UTF-8, and files of more than [`LARGEST`] bytes.
//! - What changed is told ([`Index::changed`]) or found: a picked file is held against the disk, and where
//!   somebody asks and the last walk is [`STALE`], there is another.
//!
//! **Invariants.** No method waits for the thread, and none but [`Index::files`] and [`Index::file`] touch the disk. A secret file
//! is never read, and what was read before it became one is never given out.

mod find;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod walk;
mod work;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;

use super::facts::Facts;
use crate::documents::Snapshot;
use table::Table;
use texts::Texts;
use work::{Work, locked};

/// Larger files are data or generated: they would take the thread long and the prompt nothing.
const LARGEST: u64 = 256 << 10;
/// After this time somebody has surely changed something that nobody told us of.
const STALE: Duration = Duration::from_secs(600);

/// What an index is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The folders. Without any there is nothing to do and nothing is known.
    pub roots: Vec<PathBuf>,
    /// The user's rules for secret files, see [`crate::secrets`].
    pub secret_files: Vec<String>,
}

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Files whose definitions are known.
    pub files: usize,
    /// Whether there are files to be read still.
    pub indexing: bool,
}

/// The definitions of a workspace. Shared by reference; usable from any thread.
#[derive(Default)]
pub struct Index {
    shared: Arc<Shared>,
}

/// What the index and its thread share.
#[derive(Default)]
struct Shared {
    work: Work,
    table: RwLock<Table>,
    texts: Texts,
}

impl Index {
    /// Of nothing yet; the thread begins with the first folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this an index of `coverage`. What is known already and still belongs to it stays; without folders all
    /// is forgotten.
    pub fn cover(&self, coverage: Coverage) {
        if !self.shared.work.cover(&coverage) {
            return;
        }
        // What is kept as text may be secret now.
        self.shared.texts.forget();
        if coverage.roots.is_empty() {
            *locked(self.shared.table.write()) = Table::default();
        } else {
            work::begin(&self.shared);
        }
    }

    /// These files or folders changed, came or went. They are read again soon.
    pub fn changed(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.shared.work.changed(paths);
    }

    /// The thread stands still until this is dropped.
    pub fn rest(&self) -> Rest {
        self.shared.work.rest(1);
        Rest(Arc::clone(&self.shared))
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        Status { files: locked(self.shared.table.read()).len(), indexing: self.shared.work.is_going_on() }
    }

    /// The few files that define what is used around `cursor` (in characters) and is defined neither in
    /// `document` nor in `open` documents; the most useful first, none of the open ones.
    ///
    /// Files that were picked before come out of memory; others are read, the first of them and then so many as
    /// have `budget` bytes together, so that the next call finds more. Not for the message loop.
    pub fn files(&self, document: &Snapshot, cursor: usize, open: &[Snapshot], budget: u64) -> Vec<Snapshot> {
        let Some(scope) = self.shared.work.scope(STALE) else { return Vec::new() };
        let wanted = find::wanted(document, &Facts::of(document), cursor, open);
        let table = locked(self.shared.table.read());
        let picked = find::pick(&table, document, &wanted, open);
        drop(table);
        let (mut files, mut read) = (Vec::new(), 0);
        for file in picked.into_iter().filter(|file| scope.holds(&file.path)) {
            let Some(stamp) = texts::stamp(&file.path) else {
                self.changed([file.path.to_path_buf()]);
                continue;
            };
            if stamp != file.stamp {
                self.changed([file.path.to_path_buf()]);
            }
            let kept = self.shared.texts.kept(&file.path, stamp);
            if kept.is_some() {
                files.extend(kept);
            } else if read == 0 || read + stamp.size <= budget {
                read += stamp.size;
                files.extend(self.shared.texts.read(&file.path));
            }
        }
        files
    }

    /// A file as it is now; `None` where it is gone, or secret, or in no folder of this index. One that was read before
    /// comes out of memory. Not for the message loop.
    pub fn file(&self, path: &Path) -> Option<Snapshot> {
        let scope = self.shared.work.scope(STALE)?;
        let stamp = scope.holds(path).then(|| texts::stamp(path))??;
        self.shared.texts.kept(path, stamp).or_else(|| self.shared.texts.read(path))
    }

    /// Waits until all that is known to have changed was read; false if that takes too long.
    #[cfg(test)]
    fn settle(&self) -> bool {
        self.shared.work.settle(Duration::from_secs(60))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.shared.work.end();
    }
}

/// While this lives, the thread stands still.
pub struct Rest(Arc<Shared>);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.work.rest(-1);
    }
}
