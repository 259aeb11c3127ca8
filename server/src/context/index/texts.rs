//! Files as documents: read when they are picked, the last few kept.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::{LARGEST, walk};
use crate::documents::{Snapshot, uri_of};

/// The most files that are kept, and the most bytes of their texts; trees and facts take some ten times that.
const MOST: usize = 32;
const MOST_BYTES: u64 = 2 << 20;

/// How a file is on disk: two that are alike are taken for the same text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub modified: Option<SystemTime>,
    /// Bytes.
    pub size: u64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp { modified: metadata.modified().ok(), size: metadata.len() }
    }
}

/// How a file is on disk; `None` for what is no file to be read.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= LARGEST).then(|| Stamp::of(&metadata))
}

/// Reads a file as a document with its syntax tree; `None` for what is not text or no longer there.
pub(super) fn read(path: &Path) -> Option<(Stamp, Snapshot)> {
    // What is not a plain file might never end.
    stamp(path)?;
    let file = fs::File::open(path).ok()?;
    let stamp = Stamp::of(&file.metadata().ok()?);
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > LARGEST || bytes.contains(&0) {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    let language = walk::language(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let document = Snapshot::new(&uri_of(path), language.id(), text);
    document.parse();
    Some((stamp, document))
}

/// The documents that were picked last.
#[derive(Default)]
pub(super) struct Texts {
    /// The newest last.
    kept: Mutex<VecDeque<(Stamp, Snapshot)>>,
}

impl Texts {
    /// A file that was read before and is as it was then.
    pub(super) fn kept(&self, path: &Path, stamp: Stamp) -> Option<Snapshot> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(_, document)| document.path.as_deref() == Some(path))?;
        let (then, document) = kept.remove(at)?;
        if then != stamp {
            return None;
        }
        kept.push_back((then, document.clone()));
        Some(document)
    }

    /// Reads a file and keeps it.
    pub(super) fn read(&self, path: &Path) -> Option<Snapshot> {
        let (stamp, document) = read(path)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, known)| known.path != document.path);
        kept.push_back((stamp, document.clone()));
        while kept.len() > MOST || kept.iter().map(|(stamp, _)| stamp.size).sum::<u64>() > MOST_BYTES {
            kept.pop_front();
        }
        Some(document)
    }

    /// Forgets all.
    pub(super) fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
