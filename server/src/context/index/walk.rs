//! Which files of the workspace may be read.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::{DirEntry, WalkBuilder};

use super::Coverage;
use crate::language::Language;
use crate::secrets::SecretFiles;

/// Whoever opens their home as a workspace does not want all of it read.
const MOST_ENTRIES: usize = 300_000;
/// Folders of other people's code, for workspaces whose ignore files do not name them.
const LIBRARIES: [&str; 3] = ["node_modules", "bower_components", "site-packages"];

/// What an index is of, ready for use.
#[derive(Debug)]
pub(super) struct Scope {
    pub coverage: Coverage,
    secrets: SecretFiles,
}

impl Scope {
    pub(super) fn new(coverage: &Coverage) -> Scope {
        Scope { coverage: coverage.clone(), secrets: SecretFiles::new(&coverage.secret_files).0 }
    }

    /// Whether a file lies in one of the folders and has no secrets in it.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.coverage.roots.iter().any(|root| path.starts_with(root)) && !self.secrets.is_secret(path)
    }

    /// The files to be read, in order of their paths: all, or those that changes are about.
    pub(super) fn files(&self, about: &About) -> impl Iterator<Item = (PathBuf, Language)> {
        let walks = self.coverage.roots.iter().flat_map(|root| walk(root, about));
        let files = walks.take(MOST_ENTRIES).filter(|entry| entry.file_type().is_some_and(|t| t.is_file()));
        let known = files.map(DirEntry::into_path).filter_map(|path| Some((language(&path)?, path)));
        known.filter(|(_, path)| !self.secrets.is_secret(path)).map(|(language, path)| (path, language))
    }
}

/// What of the workspace is looked at.
#[derive(Debug, Clone)]
pub(super) enum About {
    All,
    /// These files and folders, whether or not they are there.
    Some(Arc<BTreeSet<PathBuf>>),
}

impl About {
    /// Whether it is about this file.
    pub(super) fn is_about(&self, path: &Path) -> bool {
        match self {
            About::All => true,
            About::Some(paths) => path.ancestors().any(|path| paths.contains(path)),
        }
    }

    /// Whether it is about this entry or something in it.
    fn leads_through(&self, path: &Path) -> bool {
        match self {
            About::All => true,
            About::Some(paths) => {
                // Whatever begins with `path` stands right behind it in order.
                let next = paths.range::<Path, _>((Bound::Included(path), Bound::Unbounded)).next();
                next.is_some_and(|next| next.starts_with(path)) || self.is_about(path)
            }
        }
    }
}

/// The language of a file, if it is one in which things are defined.
pub(super) fn language(path: &Path) -> Option<Language> {
    Language::of_name(path).filter(|language| !language.spec().definitions.is_empty())
}

/// What lies in a folder, in order of the paths. What cannot be read is left out. A change is walked to from the
/// folder's top, because the ignore files on the way decide whether it counts.
fn walk(root: &Path, about: &About) -> impl Iterator<Item = DirEntry> + use<> {
    let about = about.clone();
    let mut walk = WalkBuilder::new(root);
    walk.require_git(false).sort_by_file_path(Path::cmp).filter_entry(move |entry| {
        let is_library = || LIBRARIES.iter().any(|name| entry.file_name() == *name);
        about.leads_through(entry.path()) && !(entry.depth() > 0 && is_library())
    });
    walk.build().filter_map(Result::ok)
}
