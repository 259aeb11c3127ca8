//! The folder in which prefixes outlive the process: one file a model, written beside and put in place by
//! renaming, readable by its owner alone. Nothing here fails for anybody: what cannot be read is computed again,
//! what cannot be written is a warning in the log.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::image::{self, Image};
use super::sequence::Layout;
use super::tree::Tree;

/// How our files end.
const EXTENSION: &str = "prefixes";
/// How files begin that are being written.
const UNFINISHED: &str = ".unfinished-";
/// After this a file that is being written is what a crash has left.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Where prefixes are kept between sessions. The files hold what was typed, as token ids: the folder belongs among
/// the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFolder {
    /// The folder; made when something is first written.
    pub path: PathBuf,
    /// Most bytes of all files together, about.
    pub max_bytes: u64,
}

/// What a model's file is called, and what it has to say of itself.
#[derive(Debug, Clone)]
pub(crate) struct StoreKey {
    name: String,
    identity: [u8; 32],
}

impl StoreKey {
    /// The key of a checkpoint that is computed in the way that `how` describes; `None` if the checkpoint cannot
    /// be looked at.
    fn new(checkpoint: &Path, how: &str, layout: &Layout) -> Option<Self> {
        let place = checkpoint.canonicalize().ok()?;
        let name = Sha256::new_with_prefix(format!("{}\n{how}", place.display())).finalize();
        let mut identity = Sha256::new();
        identity.update(format!("{}\n{how}\n{layout:?}\n", env!("CARGO_PKG_VERSION")));
        for (path, metadata) in files(&place).ok()? {
            let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
            identity.update(format!("{}\n{}\n{written}\n", path.display(), metadata.len()));
        }
        let name: String = name[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { name: format!("{name}.{EXTENSION}"), identity: identity.finalize().into() })
    }
}

/// The files of a checkpoint that say what it computes, in order.
pub(crate) fn files(checkpoint: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let metadata = checkpoint.metadata()?;
    if !metadata.is_dir() {
        return Ok(vec![(checkpoint.to_owned(), metadata)]);
    }
    let mut files = Vec::new();
    for entry in checkpoint.read_dir()? {
        let path = entry?.path();
        let kinds = ["safetensors", "json", "jinja", "model"];
        let counts = path.extension().is_some_and(|end| kinds.iter().any(|kind| end == *kind));
        if counts {
            let metadata = path.metadata()?;
            files.push((path, metadata));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// What an earlier session left of a model.
pub(crate) struct Kept {
    pub(super) key: StoreKey,
    /// The tree and its clock.
    pub(super) tree: Option<(Tree, f64)>,
}

impl Kept {
    /// Looks for it. `how` tells apart what computes other numbers from the same checkpoint.
    pub(crate) fn look(
        folder: &CacheFolder,
        checkpoint: &Path,
        how: &str,
        layout: &Arc<Layout>,
    ) -> Option<Self> {
        let key = StoreKey::new(checkpoint, how, layout)?;
        let path = folder.path.join(&key.name);
        if !path.exists() {
            return Some(Self { key, tree: None });
        }
        let restored = Image::open(&path, &key.identity, layout).and_then(|(image, clock, records)| {
            let tree = Tree::restored(layout.clone(), image, records).filter(|_| clock.is_finite());
            Ok((tree.ok_or("its nodes make no tree")?, clock.max(0.0)))
        });
        if let Err(why) = &restored {
            tracing::debug!("kept prefixes {} are not used: {why}", path.display());
        }
        Some(Self { key, tree: restored.ok() })
    }
}

/// Writes trees into the folder, off the engine's thread.
#[derive(Debug)]
pub(super) struct Store {
    folder: CacheFolder,
    keys: HashMap<u64, StoreKey>,
    writers: Vec<JoinHandle<()>>,
}

impl Store {
    pub(super) fn new(folder: CacheFolder) -> Self {
        Self { folder, keys: HashMap::new(), writers: Vec::new() }
    }

    /// From now on a model's tree can be written.
    pub(super) fn name(&mut self, model: u64, key: StoreKey) {
        self.keys.insert(model, key);
    }

    /// Writes nothing of a model any more.
    pub(super) fn unname(&mut self, model: u64) {
        self.keys.remove(&model);
    }

    /// Whether something is being written right now.
    pub(super) fn is_writing(&mut self) -> bool {
        self.writers.retain(|writer| !writer.is_finished());
        !self.writers.is_empty()
    }

    /// Writes a model's tree as it is now, once what is being written is done.
    pub(super) fn write(&mut self, model: u64, mut tree: Tree, clock: f64) {
        let Some(key) = self.keys.get(&model).cloned() else { return };
        self.finish();
        let folder = self.folder.clone();
        let work = move || {
            tree.keep_the_best(folder.max_bytes);
            if let Err(error) = put(&folder, &key, &tree, clock) {
                let path = folder.path.display();
                tracing::warn!("prefixes for the next session could not be written to {path}: {error}");
            }
        };
        match std::thread::Builder::new().name("gemma-prefixes".to_owned()).spawn(work) {
            Ok(writer) => self.writers.push(writer),
            Err(error) => tracing::warn!("prefixes for the next session are not written: {error}"),
        }
    }

    fn finish(&mut self) {
        for writer in self.writers.drain(..) {
            if writer.join().is_err() {
                tracing::error!("a bug stopped the writing of prefixes for the next session");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Puts a tree into its file, all of it or nothing.
fn put(folder: &CacheFolder, key: &StoreKey, tree: &Tree, clock: f64) -> io::Result<()> {
    make(&folder.path)?;
    // Only its owner can read such a file. It need not survive a crash of the machine: checksums tell.
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&folder.path)?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut file);
    image::write(&mut out, &key.identity, tree.layout(), &tree.contents(clock), tree.image())?;
    out.flush()?;
    drop(out);
    file.persist(folder.path.join(&key.name)).map_err(|e| e.error)?;
    tidy(folder, &key.name);
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes what crashes have left, and the files written longest ago until all of them are within the bound.
fn tidy(folder: &CacheFolder, written: &str) {
    let Ok(entries) = folder.path.read_dir() else { return };
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in entries.flatten() {
        let (name, Ok(metadata)) = (entry.file_name(), entry.metadata()) else { continue };
        let (name, Ok(changed)) = (name.to_string_lossy(), metadata.modified()) else { continue };
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        if name.starts_with(UNFINISHED) && age > ABANDONED {
            let _ = fs::remove_file(entry.path());
        } else if entry.path().extension().is_some_and(|end| end == EXTENSION) {
            bytes += metadata.len();
            if name != written {
                files.push((changed, metadata.len(), entry.path()));
            }
        }
    }
    files.sort();
    for (_, len, path) in files {
        if bytes <= folder.max_bytes {
            break;
        }
        if fs::remove_file(path).is_ok() {
            bytes -= len;
        }
    }
}
