//! The HuggingFace hub: what a repository holds, and fetching its files so that a broken download goes on
//! where it stopped and a wrong byte never becomes a model.
//!
//! The transfer is our own and not the `hf-hub` crate's, which appends to a partial file whatever the
//! server answers, checks no SHA-256 and waits for ever on a silent server.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};

use super::catalogue::LICENCE_PAGE;
use crate::error::{Error, ErrorKind, Result};

/// Resolving a name and connecting together take at most five seconds: then the hub is out of reach.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that is silent for longer is taken for gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts in a row that bring no byte before a download is given up.
const FRUITLESS_ATTEMPTS: u32 = 3;
/// Bytes moved at a time.
const CHUNK: usize = 1 << 18;
/// A repository's listing is at most this long.
const LISTING_BYTES: u64 = 16 << 20;

/// Access to the hub.
pub(super) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    /// Wait between fruitless attempts.
    pub(super) pause: Duration,
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) repo: String,
    commit: String,
    pub(super) files: Vec<RemoteFile>,
}

#[derive(Deserialize)]
struct Answer {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// Told how many bytes of a file are there; its error ends the fetching.
pub(super) type OnBytes<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// How an attempt to fetch a file failed.
enum Failure {
    /// Trying again may help.
    Transient(String),
    /// It will not.
    Final(Error),
}

impl Hub {
    /// The hub as `HF_ENDPOINT` and `HF_TOKEN` (or the token file that `hf auth login` writes) say.
    pub(super) fn from_env() -> Self {
        let variable = |key: &str| {
            std::env::var_os(key).filter(|v| !v.is_empty()).and_then(|v: OsString| v.into_string().ok())
        };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let in_file = || {
            let path =
                variable("HF_TOKEN_PATH").map_or_else(|| hf_hub::Cache::from_env().token_path(), Into::into);
            std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
        };
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
        Self::new(&endpoint, token)
    }

    pub(super) fn new(endpoint: &str, token: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(RESOLVE_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("gemma-ls/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            pause: Duration::from_secs(1),
        }
    }

    /// What a repository (`owner/name`) holds.
    pub(super) fn list(&self, repo: &str) -> Result<Listing> {
        let url = format!("{}/api/models/{repo}?blobs=true", self.endpoint);
        let unreachable = |problem: String| {
            Error::new(
                ErrorKind::Network,
                &self.endpoint,
                format_args!("the hub cannot be reached: {problem}"),
            )
            .remedy(
                "Check the connection (HTTPS_PROXY is honoured; HF_ENDPOINT names a mirror) and try again.",
            )
        };
        let mut response = self.get(&url, None).map_err(|e| unreachable(e.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(self.refusal(repo, status));
        }
        let text = response.body_mut().with_config().limit(LISTING_BYTES).read_to_vec();
        let text = text.map_err(|e| unreachable(e.to_string()))?;
        let answer: Answer = serde_json::from_slice(&text).map_err(|e| {
            Error::new(ErrorKind::Network, &self.endpoint, format_args!("does not answer as a hub does: {e}"))
                .remedy("Check HF_ENDPOINT and whether a proxy answers in its place.")
        })?;
        let plain = |commit: &String| !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
        let commit = answer.sha.filter(plain).unwrap_or_else(|| "main".to_owned());
        let files = answer.siblings.into_iter().filter(|s| is_plain_path(&s.rfilename)).map(|sibling| {
            let (lfs_size, sha256) = sibling.lfs.map_or((None, None), |lfs| (lfs.size, lfs.sha256));
            RemoteFile { name: sibling.rfilename, size: lfs_size.or(sibling.size), sha256 }
        });
        Ok(Listing { repo: repo.to_owned(), commit, files: files.collect() })
    }

    /// Fetches a file to `target`, going on with what an earlier attempt left there. `on_bytes` is told how many
    /// bytes of it are there; its error ends this. `target` is complete and right when this returns; on failure what was fetched
    /// stays, unless it is wrong.
    pub(super) fn fetch(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        target: &Path,
        on_bytes: OnBytes<'_>,
    ) -> Result<()> {
        let mut partial = Partial::open(target, file.size, on_bytes)?;
        on_bytes(partial.len)?;
        let mut fruitless = 0;
        while file.size.is_none_or(|size| partial.len < size) {
            let before = partial.len;
            match self.attempt(listing, file, &mut partial, on_bytes) {
                Ok(()) if file.size.is_none_or(|size| partial.len >= size) => break,
                Ok(()) => fruitless = if partial.len > before { 0 } else { fruitless + 1 },
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(problem)) => {
                    fruitless = if partial.len > before { 0 } else { fruitless + 1 };
                    if fruitless >= FRUITLESS_ATTEMPTS {
                        let have = partial.len;
                        return Err(Error::new(
                            ErrorKind::Network,
                            &file.name,
                            format_args!("the download broke off after {have} bytes: {problem}"),
                        )
                        .remedy("Run the same command again: it goes on where it stopped."));
                    }
                }
            }
            if fruitless > 0 {
                on_bytes(partial.len)?;
                thread::sleep(self.pause * fruitless);
            }
            if fruitless >= FRUITLESS_ATTEMPTS {
                return Err(Error::new(ErrorKind::Network, &file.name, "the hub sends nothing of it")
                    .remedy("Run the same command again later."));
            }
        }
        partial.verify(file)
    }

    fn attempt(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        partial: &mut Partial<'_>,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Failure> {
        let transient = |e: ureq::Error| Failure::Transient(e.to_string());
        let Listing { repo, commit, .. } = listing;
        let url = format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, encode(&file.name));
        let mut response = self.get(&url, Some(partial.len)).map_err(transient)?;
        match response.status().as_u16() {
            206 if content_start(&response) == Some(partial.len) => {}
            // The whole file, whatever was asked for.
            200 => partial.restart()?,
            206 | 416 => {
                partial.restart()?;
                return Err(Failure::Transient("the hub sent another part than asked for".to_owned()));
            }
            status @ (408 | 425 | 429 | 500..=599) => {
                return Err(Failure::Transient(format!("the hub answers with status {status}")));
            }
            status => return Err(Failure::Final(self.refusal(repo, status))),
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let len = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Transient(error.to_string())),
            };
            partial.append(buffer.get(..len).unwrap_or_default())?;
            on_bytes(partial.len)?;
        }
    }

    fn get(&self, url: &str, from: Option<u64>) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(from) = from.filter(|&from| from > 0) {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call()
    }

    /// What a status that is no success means for the user.
    fn refusal(&self, repo: &str, status: u16) -> Error {
        let page = format!("https://huggingface.co/{repo}");
        let tokens = "https://huggingface.co/settings/tokens";
        match (status, &self.token) {
            (401 | 403, None) => {
                Error::new(ErrorKind::Access, repo, format_args!("the hub refuses it without a token (status {status})"))
                    .remedy(format_args!(
                        "Accept the licence ({LICENCE_PAGE}) at {page}, make a token at {tokens}, set HF_TOKEN to it and pull again."
                    ))
            }
            (401, Some(_)) => Error::new(ErrorKind::Access, repo, "the hub does not accept the token (status 401)")
                .remedy(format_args!("Make a new one at {tokens} and set HF_TOKEN to it (or run `hf auth login`).")),
            (403, Some(_)) => {
                Error::new(ErrorKind::Access, repo, "the token's account has not accepted the licence (status 403)").remedy(
                    format_args!("Accept it at {page} with the account of the token, and give the token the right to read gated repositories ({tokens}). Then pull again."),
                )
            }
            (404, _) => Error::new(ErrorKind::NotFound, repo, "there is no such repository or file on the hub")
                .remedy("Check the spelling of hf:owner/repo/file; a private repository needs HF_TOKEN."),
            _ => Error::new(ErrorKind::Network, repo, format_args!("the hub answers with status {status}"))
                .remedy("Try again later (https://status.huggingface.co)."),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The first byte of the part that an answer holds.
fn content_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Whether a name from the hub stays inside the folder it is written to.
fn is_plain_path(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':'])
        && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
}

/// A file name for a URL.
fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte.into())
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A file in the middle of being fetched, and the hash of what is there.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    hasher: Sha256,
    len: u64,
}

impl<'a> Partial<'a> {
    /// Opens what is there, or begins anew if there is nothing or more than the file can have.
    fn open(path: &'a Path, size: Option<u64>, on_bytes: OnBytes<'_>) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| write_error(path, &e))?;
        let mut partial = Self { path, file, hasher: Sha256::new(), len: 0 };
        loop {
            let mut chunk = (&partial.file).take(CHUNK as u64);
            let copied = io::copy(&mut chunk, &mut HashWriter(&mut partial.hasher));
            match copied.map_err(|e| write_error(path, &e))? {
                0 => break,
                len => partial.len += len,
            }
            on_bytes(partial.len)?;
        }
        // A file of unknown size that is there may be whole, which nothing can tell: fetch it again.
        if size.is_none_or(|size| partial.len > size) {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn restart(&mut self) -> Result<()> {
        let rewind = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        rewind.map_err(|e| write_error(self.path, &e))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| write_error(self.path, &e))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Checks size and hash; a file that is wrong is removed, since going on with it cannot help.
    fn verify(self, expected: &RemoteFile) -> Result<()> {
        self.file.sync_all().map_err(|e| write_error(self.path, &e))?;
        let found = hex(&self.hasher.finalize());
        let wrong = match (&expected.sha256, expected.size) {
            (Some(sha256), _) if !sha256.eq_ignore_ascii_case(&found) => {
                format!("has SHA-256 {found}, the hub says {sha256}")
            }
            (_, Some(size)) if size != self.len => format!("has {} bytes, the hub says {size}", self.len),
            _ => return Ok(()),
        };
        // Where it cannot be removed, the next attempt finds it wrong again.
        let _ = std::fs::remove_file(self.path);
        Err(Error::new(ErrorKind::BadFile, &expected.name, format_args!("was damaged on the way: it {wrong}"))
            .remedy("What was fetched is deleted: pull again. If it happens again, something between here and the hub changes files."))
    }
}

/// Lets [`io::copy`] feed a hash.
pub(super) struct HashWriter<'a>(pub(super) &'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An I/O error on writing below `path` as an [`Error`].
pub(super) fn write_error(path: &Path, error: &io::Error) -> Error {
    let subject = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorKind::Resources, subject, "the disk is full")
                .remedy("Make room, or set GEMMA_LS_MODELS to a folder on another disk, and pull again: it goes on where it stopped.")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(ErrorKind::Resources, subject, "may not be written by this user")
                .remedy("Set GEMMA_LS_MODELS to a folder of your own.")
        }
        _ => Error::new(ErrorKind::Resources, subject, format_args!("cannot be written: {error}")),
    }
}
