//! Writing a planned file: rows are converted on every core and put into their places as they come, beside the file that
//! is to be, which appears whole or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use gemma_kernels::{Cpu, quantize};

use super::metadata::{self, is_same_network};
use super::{Plan, QuantizeOptions, Quantized, Tensor};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::CancelFlag;
use crate::options::LoadProgress;

/// Numbers that are converted at a time by a thread.
const PIECE: usize = 1 << 20;
/// How a file begins that is being written.
pub(super) const UNFINISHED: &str = ".unfinished-";

/// Rows of a tensor that are converted at once.
struct Piece<'a> {
    tensor: &'a Tensor<'a>,
    first: usize,
    rows: usize,
    /// Where they go in the file.
    at: u64,
    /// Bytes that they were read from.
    source: usize,
}

/// Writes the file of a plan to `to`.
pub(super) fn write(
    checkpoint: &Checkpoint,
    mut plan: Plan<'_>,
    to: &Path,
    options: &QuantizeOptions,
    cancel: &CancelFlag,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Quantized> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &io::Error| cannot_write(to, e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED).suffix(".gguf");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(|e| failed(&e))?;
    if let Some(source) = &plan.source {
        plan.header.string(metadata::SOURCE, source);
        plan.header.u32s(metadata::CHECKSUMS, plan.tensors.iter().map(|_| 0));
    }
    let places = plan.header.places(3);
    file.write_all(&places.head).and_then(|()| file.as_file().set_len(places.len)).map_err(|e| failed(&e))?;
    // Before the work: what the file says is read back and held against what it was made from.
    let same = match Checkpoint::open(file.path()) {
        Ok(made) => is_same_network(made.config(), checkpoint.config()),
        // A window that no layer has, and the like: the reader misses it.
        Err(error) if error.kind() == ErrorKind::BadFile => false,
        Err(error) => return Err(error),
    };
    if !same {
        return Err(Error::new(
            ErrorKind::Unsupported,
            checkpoint.path().display(),
            "is a network that differs from the published ones in what a GGUF file cannot say",
        )
        .remedy("Use it as it is."));
    }
    let pieces = pieces(&plan.tensors, &places.starts);
    let checksums = convert(&pieces, file.as_file_mut(), options, cancel, progress, checkpoint, to)?;
    if plan.source.is_some() {
        plan.header.u32s(metadata::CHECKSUMS, checksums.into_iter());
        let head = plan.header.places(3).head;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&head)).map_err(|e| failed(&e))?;
    }
    file.as_file().sync_data().map_err(|e| failed(&e))?;
    if options.overwrite {
        file.persist(to).map_err(|e| failed(&e.error))?;
    } else {
        file.persist_noclobber(to).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => exists(to),
            _ => failed(&e.error),
        })?;
    }
    Ok(Quantized {
        path: to.to_owned(),
        bytes: places.len,
        source_bytes: plan.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum(),
        formats: formats(&plan.tensors),
        remarks: plan.remarks,
    })
}

fn formats(tensors: &[Tensor<'_>]) -> Vec<(String, usize, u64)> {
    let mut formats: Vec<(String, usize, u64)> = Vec::new();
    for tensor in tensors {
        let name = format!("{:?}", tensor.to);
        match formats.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, count, bytes)) => {
                *count += 1;
                *bytes += tensor.new_bytes();
            }
            None => formats.push((name, 1, tensor.new_bytes())),
        }
    }
    formats.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
    formats
}

fn pieces<'a>(tensors: &'a [Tensor<'a>], starts: &[u64]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    for (tensor, start) in tensors.iter().zip(starts) {
        let (all, cols) = (tensor.rows(), tensor.cols().max(1));
        let row = tensor.to.row_bytes(cols).unwrap_or(0);
        let source = tensor.from.row_bytes(cols).unwrap_or(0);
        let at_once = (PIECE / cols).max(1);
        for first in (0..all).step_by(at_once) {
            let rows = at_once.min(all - first);
            pieces.push(Piece {
                tensor,
                first,
                rows,
                at: start + (first * row) as u64,
                source: source * rows,
            });
        }
    }
    pieces
}

/// The bytes of a piece in the new file.
fn made(piece: &Piece<'_>) -> Result<Vec<u8>, String> {
    let Piece { tensor, first, rows, .. } = *piece;
    if tensor.is_copied() {
        let row = tensor.from.row_bytes(tensor.cols()).unwrap_or(0);
        let bytes = tensor.bytes.get(first * row..(first + rows) * row);
        return bytes.map(<[u8]>::to_vec).ok_or_else(|| "is too short".to_owned());
    }
    let numbers = metadata::widened(tensor, first, rows).ok_or("is too short")?;
    if !metadata::all_finite(&numbers) {
        return Err("holds a number that is not finite".to_owned());
    }
    quantize::quantize(tensor.to, tensor.cols(), &numbers).map_err(|e| e.to_string())
}

/// Converts all pieces and writes each into its place; a checksum a tensor.
fn convert(
    pieces: &[Piece<'_>],
    file: &mut File,
    options: &QuantizeOptions,
    cancel: &CancelFlag,
    progress: &mut dyn FnMut(LoadProgress),
    checkpoint: &Checkpoint,
    to: &Path,
) -> Result<Vec<u32>> {
    let threads = options.threads.unwrap_or_else(Cpu::physical_cores).max(1);
    let total = pieces.iter().map(|piece| piece.source as u64).sum();
    let (mut done, next) = (0, &AtomicUsize::new(0));
    let mut checksums = vec![crc32fast::Hasher::new(); pieces.len()];
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = pieces.get(number) else { break };
                    let made = made(piece).map(|bytes| {
                        let mut checksum = crc32fast::Hasher::new();
                        checksum.update(&bytes);
                        (bytes, checksum)
                    });
                    // Nobody takes it once something has failed.
                    if sender.send((number, made)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (number, made) in receiver {
            if cancel.is_cancelled() {
                return Err(Error::new(ErrorKind::Stopped, to.display(), "stopped: nothing was written"));
            }
            let piece = &pieces[number];
            let (bytes, checksum) = made.map_err(|problem| {
                let subject = format!("{}: tensor {}", checkpoint.path().display(), piece.tensor.name);
                Error::new(ErrorKind::BadFile, subject, problem)
                    .remedy("The checkpoint is damaged: download it again.")
            })?;
            let written = file.seek(SeekFrom::Start(piece.at)).and_then(|_| file.write_all(&bytes));
            written.map_err(|e| cannot_write(to, &e))?;
            checksums[number] = checksum;
            done += piece.source as u64;
            progress(LoadProgress { done, total });
        }
        Ok(())
    })?;
    let mut of_tensors: Vec<crc32fast::Hasher> = Vec::new();
    for (piece, checksum) in pieces.iter().zip(&checksums) {
        match of_tensors.last_mut() {
            Some(last) if piece.first > 0 => last.combine(checksum),
            _ => of_tensors.push(checksum.clone()),
        }
    }
    Ok(of_tensors.into_iter().map(crc32fast::Hasher::finalize).collect())
}

/// The file is there already.
pub(super) fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Input, path.display(), "is there already")
        .remedy("Give another name, or add --force to replace it.")
}

/// An I/O error on writing `path`.
fn cannot_write(path: &Path, error: &io::Error) -> Error {
    let subject = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::new(ErrorKind::Resources, subject, "the disk is full, and nothing was kept")
                .remedy("Make room, or write to another disk.")
        }
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, subject, "its folder does not exist")
            .remedy("Make the folder first, or give another place."),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(ErrorKind::Resources, subject, "may not be written by this user")
                .remedy("Give a place in a folder of your own.")
        }
        _ => Error::new(ErrorKind::Resources, subject, format_args!("cannot be written: {error}")),
    }
}
