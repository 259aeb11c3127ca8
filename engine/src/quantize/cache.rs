//! Quantised copies of checkpoints, made once and kept in a folder: each says what it was made of, and is believed only
//! while that is as it was and every tensor's checksum agrees.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{QuantType, QuantizeOptions, metadata, plan, write};
use crate::cache::checkpoint_files;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::CancelFlag;
use crate::options::LoadProgress;

/// After this a file that is being written is what a crash has left.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The quantised copy of a HuggingFace folder, from `folder` or newly made there.
pub(crate) fn cached(
    checkpoint: &Checkpoint,
    kind: QuantType,
    folder: &Path,
    threads: usize,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Checkpoint> {
    let place = checkpoint.path().canonicalize().unwrap_or_else(|_| checkpoint.path().to_owned());
    let source = source(&place, kind)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, place.display(), "cannot be looked at any more"))?;
    let path = folder.join(file_name(&place, kind));
    match kept(&path, &source, threads) {
        Ok(copy) => return Ok(copy),
        Err(why) if path.exists() => tracing::info!("{} is made anew: {why}", path.display()),
        Err(_) => {}
    }
    fs::create_dir_all(folder).map_err(|e| {
        Error::new(ErrorKind::Resources, folder.display(), format_args!("cannot be made: {e}"))
    })?;
    tidy(folder);
    let options = QuantizeOptions { kind, threads: Some(threads), overwrite: true, requantize: false };
    let mut plan = plan(checkpoint, &options)?;
    plan.source = Some(source);
    write::write(checkpoint, plan, &path, &options, &CancelFlag::new(), progress)?;
    Checkpoint::open(&path)
}

/// What a folder's copy was made of: names, sizes and times of its files, and what made it.
fn source(place: &Path, kind: QuantType) -> Option<String> {
    let mut identity = Sha256::new();
    identity.update(format!("{}\n{kind}\n", env!("CARGO_PKG_VERSION")));
    for (path, metadata) in checkpoint_files(place).ok()? {
        let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        identity.update(format!("{}\n{}\n{written}\n", path.display(), metadata.len()));
    }
    Some(hex(&identity.finalize()))
}

/// What a copy is called: recognisable, and one a place and type.
fn file_name(place: &Path, kind: QuantType) -> PathBuf {
    let hash = Sha256::digest(place.as_os_str().as_encoded_bytes());
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{kind}-{}.gguf", hex(&hash[..4])).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The copy at `path`, if it is sound and of `source`; else why not.
fn kept(path: &Path, source: &str, threads: usize) -> Result<Checkpoint, String> {
    let copy = Checkpoint::open(path).map_err(|e| e.to_string())?;
    let (gguf, file) = copy.gguf().ok_or("it is no GGUF file")?;
    if gguf.str(file, metadata::SOURCE) != Some(source) {
        return Err("it was made of other files, or by another version".to_owned());
    }
    let checksums = gguf.array(metadata::CHECKSUMS).and_then(|array| array.numbers(file));
    let checksums: Vec<u32> = checksums.ok_or("it has no checksums")?.map(|sum| sum as u32).collect();
    let tensors = gguf.tensors();
    if checksums.len() != tensors.len() {
        return Err("it has checksums of other tensors".to_owned());
    }
    let (next, sound) = (AtomicUsize::new(0), AtomicBool::new(true));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(tensor) = tensors.get(number) else { break };
                    let bytes = file.get(tensor.range.clone()).unwrap_or_default();
                    if crc32fast::hash(bytes) != checksums[number] {
                        sound.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if !sound.into_inner() {
        return Err("it is damaged".to_owned());
    }
    Ok(copy)
}

/// Removes what crashes have left.
fn tidy(folder: &Path) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries.flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(write::UNFINISHED);
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.map(|changed| SystemTime::now().duration_since(changed).unwrap_or_default());
        if unfinished && age.is_ok_and(|age| age > ABANDONED) {
            // It is in nobody's way if it stays.
            let _ = fs::remove_file(entry.path());
        }
    }
}
