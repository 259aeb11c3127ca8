//! Files mapped into memory: the one place of the engine that is `unsafe`.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, ErrorKind, Result};

/// A whole file as bytes, paged in by the operating system when it is read.
pub(crate) struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a file for reading.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| cannot_read(path, &e))?;
        let metadata = file.metadata().map_err(|e| cannot_read(path, &e))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::BadFile, path.display(), "is not a file"));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is private to this struct, read-only, and handed out only as `&[u8]` borrowed
        // from it. Nobody but another process can change the bytes below us: model files are replaced by
        // renaming (our own `pull` and the hub's tools do), as is the prefix cache's file, never written in place, and any byte value
        // is a valid `u8`, so that even a file that is overwritten gives wrong numbers at worst. A file
        // cut short by force ends the process with SIGBUS, as it does in every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| cannot_read(path, &e))?;
        Ok(Self { map: Some(map) })
    }

    /// Asks for all of it to be read from the disk, in large pieces, before somebody waits for each page. Returns when
    /// that is asked for, which is about when it is done.
    pub(crate) fn read_ahead(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // Whoever declines only makes the reading slower.
            let _ = map.advise(memmap2::Advice::WillNeed);
        }
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// An I/O error on reading `path` as an [`Error`].
pub(crate) fn cannot_read(path: &Path, error: &io::Error) -> Error {
    let subject = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, subject, "there is no such file")
            .remedy("Give the path of a model folder or a .gguf file; `gemma-ls model list` shows what is on this machine."),
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::BadFile, subject, "may not be read by this user")
            .remedy("Change its permissions (chmod a+r) or choose another model."),
        io::ErrorKind::OutOfMemory => Error::new(ErrorKind::Resources, subject, "cannot be mapped: not enough address space")
            .remedy("Raise the limit on virtual memory (ulimit -v) or choose a smaller model."),
        _ => Error::new(ErrorKind::BadFile, subject, format_args!("cannot be read: {error}")),
    }
}
