//! What was picked for each document lately. A prompt goes on showing a piece of a file for as long as the file is
//! among those that may be shown, so a file that is no more among the best does not leave at once: whoever comes
//! back to a place finds the files that were picked there.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The most documents that are remembered, and the most files of one.
const DOCUMENTS: usize = 8;
const FILES: usize = 16;

/// The files picked lately, by document.
#[derive(Default)]
pub(super) struct Picks {
    /// The newest first.
    latest: Mutex<VecDeque<Picked>>,
}

struct Picked {
    /// Its URI.
    document: Arc<str>,
    /// The newest first.
    files: Vec<Arc<Path>>,
}

impl Picks {
    /// Notes what is picked for a document now, and gives what was picked before besides, the latest first.
    pub(super) fn note<'a>(
        &self,
        document: &Arc<str>,
        now: impl Iterator<Item = &'a Arc<Path>>,
    ) -> Vec<Arc<Path>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.iter().position(|picked| picked.document == *document);
        let mut before =
            known.and_then(|at| latest.remove(at)).map(|picked| picked.files).unwrap_or_default();
        let now: Vec<_> = now.cloned().collect();
        before.retain(|path| !now.contains(path));
        before.truncate(FILES - FILES.min(now.len()));
        latest.push_front(Picked { document: Arc::clone(document), files: [now, before.clone()].concat() });
        latest.truncate(DOCUMENTS);
        before
    }

    /// Forgets all.
    pub(super) fn forget(&self) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_files_of_the_latest_documents() {
        let picks = Picks::default();
        let note = |document: &str, now: &[usize]| {
            let now: Vec<Arc<Path>> = now.iter().map(|n| Path::new(&n.to_string()).into()).collect();
            let before = picks.note(&document.into(), now.iter());
            before.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(note("a", &[1, 2]), [""; 0]);
        assert_eq!(note("a", &[3]), ["1", "2"]);
        assert_eq!(note("a", &[2, 4]), ["3", "1"]);
        assert_eq!(note("b", &[1]), [""; 0], "each document has its own");
        assert_eq!(note("a", &(10..22).collect::<Vec<_>>()), ["2", "4", "3", "1"]);
        assert_eq!(note("a", &(30..38).collect::<Vec<_>>()).len(), FILES - 8);
        for n in 0..DOCUMENTS {
            note(&n.to_string(), &[1]);
        }
        assert_eq!(note("a", &[1]), [""; 0]);
    }
}
