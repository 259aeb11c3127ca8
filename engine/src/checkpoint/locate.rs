//! Where models lie on this machine, and which one a name means.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::catalogue::{DEFAULT_FILE, DEFAULT_MODEL, known};
use super::{Found, gguf, gguf_config};
use crate::error::{Error, ErrorKind, Result};

/// A GGUF file's architecture stands within this many bytes of its beginning.
const HEADER_BYTES: u64 = 1 << 16;
/// Configurations larger than this are no configurations.
const CONFIG_BYTES: u64 = 1 << 20;
/// How deep below a folder models are looked for.
const MAX_DEPTH: usize = 3;

/// The folders in which models are looked for.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Our own; the first is where pulled models go.
    pub(super) own: Vec<PathBuf>,
    /// What [`Found::source`] calls them.
    pub(super) own_source: &'static str,
    pub(super) huggingface: Vec<PathBuf>,
    pub(super) ollama: Vec<PathBuf>,
    pub(super) lmstudio: Vec<PathBuf>,
}

impl Places {
    /// As the user's environment says.
    pub(super) fn from_env() -> Self {
        Self::new(|key| std::env::var_os(key), dirs::home_dir(), dirs::data_dir())
    }

    fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
        data: Option<PathBuf>,
    ) -> Self {
        let path = |key: &str| variable(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let in_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let configured: Vec<PathBuf> = variable("GEMMA_LS_MODELS")
            .map(|list| std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        let (own, own_source) = if configured.is_empty() {
            let data = data.or_else(|| in_home(".local/share"));
            (data.map(|data| data.join("gemma-ls/models")).into_iter().collect(), "gemma-ls")
        } else {
            (configured, "$GEMMA_LS_MODELS")
        };
        let huggingface = path("HF_HUB_CACHE")
            .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| in_home(".cache/huggingface/hub"));
        let ollama = match path("OLLAMA_MODELS") {
            Some(models) => vec![models],
            // The second is where Ollama's Linux service keeps them.
            None => in_home(".ollama/models")
                .into_iter()
                .chain(["/usr/share/ollama/.ollama/models".into()])
                .collect(),
        };
        let lmstudio =
            [".lmstudio/models", ".cache/lm-studio/models"].into_iter().filter_map(in_home).collect();
        Self { own, own_source, huggingface: huggingface.into_iter().collect(), ollama, lmstudio }
    }

    /// Every model of the family, our own first.
    pub(super) fn find_all(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for folder in &self.own {
            scan(folder, self.own_source, MAX_DEPTH, &mut all);
        }
        for cache in &self.huggingface {
            scan_hub_cache(cache, &mut all);
        }
        for store in &self.ollama {
            scan_ollama(&store.join("manifests"), store, MAX_DEPTH + 1, &mut all);
        }
        for folder in &self.lmstudio {
            scan(folder, "lmstudio", MAX_DEPTH, &mut all);
        }
        let mut seen = HashSet::new();
        all.retain(|found| seen.insert(fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone())));
        all
    }

    /// The model that `spec` means; see [`resolve`].
    pub(super) fn resolve(&self, spec: Option<&str>) -> Result<Found> {
        match spec.filter(|spec| !spec.is_empty()) {
            Some(spec) => self.resolve_spec(spec),
            None => {
                let all = self.find_all();
                let best = all.iter().filter(|found| is_infill(found)).min_by_key(|found| found.preference());
                let default = || all.iter().find(|found| is_default(found));
                best.or_else(default).cloned().ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, "model", "there is no model on this machine yet").remedy(
                        "Run `gemma-ls model pull default` (253 MB), or name a model in the configuration.",
                    )
                })
            }
        }
    }

    fn resolve_spec(&self, spec: &str) -> Result<Found> {
        let path = expand_home(spec);
        if path.exists() {
            return Ok(at_path(path));
        }
        if let Some(hub) = spec.strip_prefix("hf:") {
            return self.resolve_hub(spec, hub);
        }
        let entry = known(spec);
        let wanted = base_name(entry.map_or(spec, |entry| entry.local_name()));
        let all = self.find_all();
        let exact = all.iter().find(|found| found.name.eq_ignore_ascii_case(spec));
        let alike =
            || all.iter().filter(|found| base_name(&found.name) == wanted).min_by_key(|found| found.bytes);
        if let Some(found) = exact.or_else(alike) {
            return Ok(found.clone());
        }
        let error = Error::new(ErrorKind::NotFound, spec, "there is no such model on this machine");
        Err(match entry {
            Some(entry) => error.remedy(format_args!("Run `gemma-ls model pull {}` to fetch it.", entry.name)),
            None if spec.contains(['/', '\\']) => error.remedy("Check the path: neither file nor folder is there."),
            None => error.remedy(
                "`gemma-ls model list` shows what is here and which names can be pulled; a path or hf:owner/repo works too.",
            ),
        })
    }

    /// `owner/repo` or `owner/repo/file` among what was pulled and in the hub's cache.
    fn resolve_hub(&self, spec: &str, hub: &str) -> Result<Found> {
        let mut parts = hub.splitn(3, '/');
        let (Some(owner), Some(repo)) = (parts.next(), parts.next()) else {
            return Err(Error::new(
                ErrorKind::Input,
                spec,
                "is not of the form hf:owner/repo or hf:owner/repo/file",
            ));
        };
        let file = parts.next();
        let stem = file.map(|file| file.rsplit('/').next().unwrap_or(file)).map(strip_gguf);
        let name = stem.unwrap_or(repo);
        let cached = hf_hub::Repo::model(format!("{owner}/{repo}")).folder_name();
        let fits = |found: &&Found| {
            let from_cache = found.path.components().any(|c| c.as_os_str() == cached.as_str());
            if found.source == "huggingface" {
                from_cache && stem.is_none_or(|stem| found.name.eq_ignore_ascii_case(stem))
            } else {
                found.source == self.own_source && found.name.eq_ignore_ascii_case(name)
            }
        };
        self.find_all().iter().find(fits).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, spec, "is not on this machine")
                .remedy(format_args!("Run `gemma-ls model pull {spec}` to fetch it."))
        })
    }
}

/// Every model of the family on this machine: in gemma-ls's own folder (or `$GEMMA_LS_MODELS`), the
/// HuggingFace cache, Ollama's store and LM Studio's folders.
pub fn find_all() -> Vec<Found> {
    Places::from_env().find_all()
}

/// The model that `spec` means: a path, a name (`codegemma-2b`, `default`) or `hf:owner/repo[/file]`, if it is on
/// this machine. `None` means the best CodeGemma found, else the default model.
///
/// # Errors
/// `NotFound`, with the command that fetches it.
pub fn resolve(spec: Option<&str>) -> Result<Found> {
    Places::from_env().resolve(spec)
}

impl Found {
    /// Sorts models that fill in the middle: the latency of the small ones is what completion needs, and
    /// those tuned for conversation fill in worse.
    fn preference(&self) -> (bool, bool, u64) {
        let name = base_name(&self.name);
        (name.ends_with("-it") || name.contains("instruct"), !name.contains("2b"), self.bytes)
    }
}

fn is_infill(found: &Found) -> bool {
    base_name(&found.name).contains("codegemma")
}

fn is_default(found: &Found) -> bool {
    found.name.eq_ignore_ascii_case(strip_gguf(DEFAULT_FILE))
}

/// A model that the user gave the path of.
pub(super) fn at_path(path: PathBuf) -> Found {
    let bytes = if path.is_dir() { weight_bytes(&path) } else { fs::metadata(&path).map_or(0, |m| m.len()) };
    Found { name: name_of(&path), path, source: "path".to_owned(), bytes }
}

/// The path that a user wrote, `~/` being the home folder.
pub fn expand_home(spec: &str) -> PathBuf {
    match (spec.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(spec),
    }
}

fn strip_gguf(name: &str) -> &str {
    name.strip_suffix(".gguf").unwrap_or(name)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    strip_gguf(&name).to_owned()
}

/// A name in lower case and without what says how the weights are stored, so that
/// `codegemma-2b.Q4_K_M`, `codegemma:2b` and `codegemma-2b` are the same model.
fn base_name(name: &str) -> String {
    let mut name = name.to_lowercase().replace(':', "-");
    if name == DEFAULT_MODEL {
        return name;
    }
    for suffix in ["-gguf", "-latest"] {
        name = name.strip_suffix(suffix).unwrap_or(&name).to_owned();
    }
    let storage = |part: &str| {
        let quantised = part.strip_prefix('i').unwrap_or(part).strip_prefix('q');
        matches!(part, "f32" | "f16" | "bf16" | "fp16" | "qat")
            || quantised.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    while let Some((head, tail)) = name.rsplit_once(['-', '.']) {
        if !storage(tail) {
            break;
        }
        name = head.to_owned();
    }
    name
}

/// Looks for models in a folder and the folders below it.
fn scan(folder: &Path, source: &str, depth: usize, all: &mut Vec<Found>) {
    if is_family_folder(folder) {
        let bytes = weight_bytes(folder);
        all.push(Found { name: name_of(folder), path: folder.to_owned(), source: source.to_owned(), bytes });
        return;
    }
    for path in entries(folder) {
        if path.is_dir() {
            if depth > 0 {
                scan(&path, source, depth - 1, all);
            }
        } else if is_family_gguf(&path) {
            let bytes = fs::metadata(&path).map_or(0, |m| m.len());
            all.push(Found { name: name_of(&path), path, source: source.to_owned(), bytes });
        }
    }
}

/// The entries of a folder that are not hidden and not unfinished, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && !name.ends_with(".part")
        })
        .collect();
    paths.sort();
    paths
}

/// `models--owner--repo/snapshots/COMMIT`: of several, the one that `main` means, else the newest.
fn scan_hub_cache(cache: &Path, all: &mut Vec<Found>) {
    for repo in entries(cache) {
        let folder_name = repo.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, name)) = folder_name.strip_prefix("models--").and_then(|rest| rest.split_once("--"))
        else {
            continue;
        };
        let main = fs::read_to_string(repo.join("refs/main")).ok();
        let main = main.map(|commit| repo.join("snapshots").join(commit.trim())).filter(|path| path.is_dir());
        let newest = || {
            let modified = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
            entries(&repo.join("snapshots")).into_iter().max_by_key(modified)
        };
        let Some(snapshot) = main.or_else(newest) else { continue };
        let first = all.len();
        scan(&snapshot, "huggingface", 1, all);
        for found in all.iter_mut().skip(first).filter(|found| found.path == snapshot) {
            found.name = name.to_owned();
        }
    }
}

/// Ollama's manifests: `HOST/NAMESPACE/MODEL/TAG` files of JSON that name the blob with the weights.
fn scan_ollama(folder: &Path, store: &Path, depth: usize, all: &mut Vec<Found>) {
    for path in entries(folder) {
        if path.is_dir() {
            if depth > 0 {
                scan_ollama(&path, store, depth - 1, all);
            }
            continue;
        }
        let Some(blob) = ollama_blob(&path, store).filter(|blob| is_family_gguf_content(blob)) else {
            continue;
        };
        let model = path.parent().map(name_of).unwrap_or_default();
        let tag = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::metadata(&blob).map_or(0, |m| m.len());
        all.push(Found { name: format!("{model}:{tag}"), path: blob, source: "ollama".to_owned(), bytes });
    }
}

/// The blob of a manifest's model layer.
fn ollama_blob(manifest: &Path, store: &Path) -> Option<PathBuf> {
    let manifest: Value = serde_json::from_slice(&read_start(manifest, CONFIG_BYTES)?).ok()?;
    let layers = manifest.get("layers")?.as_array()?;
    let is_model = |layer: &&Value| {
        layer.get("mediaType").and_then(Value::as_str) == Some("application/vnd.ollama.image.model")
    };
    let digest = layers.iter().find(is_model)?.get("digest")?.as_str()?.strip_prefix("sha256:")?;
    digest
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| store.join("blobs").join(format!("sha256-{digest}")))
}

fn is_family_gguf(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    // Split files hold a part of the tensors each, which no reader of single files can use.
    let split = name.contains("-of-0");
    name.ends_with(".gguf") && !split && is_family_gguf_content(path)
}

fn is_family_gguf_content(path: &Path) -> bool {
    let architecture = read_start(path, HEADER_BYTES).and_then(|bytes| gguf::architecture_at_start(&bytes));
    gguf_config::NAMES.iter().any(|(known, _)| architecture.as_deref() == Some(known))
}

/// A HuggingFace folder of the family that has its weights.
fn is_family_folder(folder: &Path) -> bool {
    let Some(text) = read_start(&folder.join("config.json"), CONFIG_BYTES) else { return false };
    let Ok(config) = serde_json::from_slice::<Value>(&text) else { return false };
    let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let ours =
        matches!(kind, "gemma" | "gemma2" | "gemma3" | "gemma3_text" | "recurrent_gemma" | "paligemma");
    ours && weight_bytes(folder) > 0
}

fn weight_bytes(folder: &Path) -> u64 {
    let is_weights = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors" || e == "gguf");
    entries(folder)
        .iter()
        .filter(|p| is_weights(p))
        .filter_map(|p| fs::metadata(p).ok())
        .map(|m| m.len())
        .sum()
}

/// The first bytes of a file.
fn read_start(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use gemma_kernels::Format;

    use super::super::test_gguf::tiny;
    use super::*;

    fn write(path: &Path, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn model(path: &Path, architecture: &str) {
        write(path, tiny(architecture, Format::F32).bytes());
    }

    fn hf_folder(path: &Path, model_type: &str) {
        write(&path.join("config.json"), format!("{{\"model_type\": \"{model_type}\"}}"));
        write(&path.join("model.safetensors"), [0; 99]);
    }

    fn ollama(store: &Path, name: &str, digest: &str, architecture: &str) {
        let manifest = serde_json::json!({"layers": [
            {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:00"},
            {"mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{digest}")},
        ]});
        write(&store.join("manifests/registry.ollama.ai/library").join(name), manifest.to_string());
        model(&store.join(format!("blobs/sha256-{digest}")), architecture);
    }

    /// A home folder, and the places that environment variables in it mean.
    fn home(variables: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let variable = |key: &str| {
            let (_, value) = variables.iter().find(|(name, _)| *name == key)?;
            Some(OsString::from(value.replace('~', root.to_str().unwrap())))
        };
        let mut places = Places::new(variable, Some(root.clone()), Some(root.join("data")));
        places.ollama.retain(|path| path.starts_with(&root));
        (home, places)
    }

    fn names(places: &Places) -> Vec<(String, String)> {
        places.find_all().into_iter().map(|f| (f.name, f.source)).collect()
    }

    #[test]
    fn models_are_found_wherever_tools_put_them() {
        let (home, places) = home(&[]);
        let root = home.path();
        assert_eq!(places.find_all(), []);
        assert_eq!(places.own, [root.join("data/gemma-ls/models")]);
        model(&root.join("data/gemma-ls/models/gemma-3-270m-q4_k_m.gguf"), "gemma3");
        write(&root.join("data/gemma-ls/models/half.gguf.part"), "GGUF");
        hf_folder(&root.join("data/gemma-ls/models/gemma-2b.part"), "gemma");
        let hub = root.join(".cache/huggingface/hub");
        hf_folder(&hub.join("models--google--codegemma-2b/snapshots/abc"), "gemma");
        hf_folder(&hub.join("models--google--codegemma-2b/snapshots/old"), "gemma");
        write(&hub.join("models--google--codegemma-2b/refs/main"), "abc\n");
        hf_folder(&hub.join("models--google--paligemma2-3b-mix-448/snapshots/abc"), "paligemma");
        hf_folder(&hub.join("models--google--recurrentgemma-2b/snapshots/abc"), "recurrent_gemma");
        hf_folder(&hub.join("models--meta--llama/snapshots/abc"), "llama");
        write(&hub.join("models--google--gemma-7b/snapshots/abc/config.json"), "{\"model_type\": \"gemma\"}");
        ollama(&root.join(".ollama/models"), "codegemma/7b", "ab12", "gemma");
        ollama(&root.join(".ollama/models"), "llama3/latest", "cd34", "llama");
        ollama(&root.join(".ollama/models"), "evil/latest", "../../etc", "gemma");
        model(&root.join(".lmstudio/models/bartowski/gemma-2-2b-GGUF/gemma-2-2b-Q4_K_M.gguf"), "gemma2");
        model(&root.join(".lmstudio/models/x/y/clip.gguf"), "clip");
        write(&root.join(".lmstudio/models/x/y/broken.gguf"), "GGUF\x03");
        let expected = [
            ("gemma-3-270m-q4_k_m", "gemma-ls"),
            ("codegemma-2b", "huggingface"),
            ("paligemma2-3b-mix-448", "huggingface"),
            ("recurrentgemma-2b", "huggingface"),
            ("codegemma:7b", "ollama"),
            ("gemma-2-2b-Q4_K_M", "lmstudio"),
        ];
        assert_eq!(names(&places), expected.map(|(n, s)| (n.to_owned(), s.to_owned())));
        assert!(places.find_all()[1].path.ends_with("snapshots/abc"));
        assert_eq!(places.find_all()[1].bytes, 99);
    }

    #[test]
    fn the_environment_moves_the_places() {
        let list = std::env::join_paths(["~/one", "~/two"]).unwrap();
        let (home, places) = home(&[
            ("GEMMA_LS_MODELS", list.to_str().unwrap()),
            ("HF_HOME", "~/hf"),
            ("OLLAMA_MODELS", "~/ollama"),
        ]);
        let root = home.path();
        assert_eq!(places.own, [root.join("one"), root.join("two")]);
        assert_eq!(places.huggingface, [root.join("hf/hub")]);
        model(&root.join("two/gemma-2b.gguf"), "gemma");
        ollama(&root.join("ollama"), "gemma/2b", "ff", "gemma");
        assert_eq!(places.find_all()[0].source, "$GEMMA_LS_MODELS");
        assert_eq!(places.find_all()[1].name, "gemma:2b");
    }

    #[test]
    fn what_a_specification_means() {
        let (home, places) = home(&[]);
        let own = home.path().join("data/gemma-ls/models");
        let error = places.resolve(None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.remedy_text().unwrap().contains("gemma-ls model pull default"));
        model(&own.join("gemma-2-9b-it-Q4_K_M.gguf"), "gemma2");
        assert!(places.resolve(None).is_err(), "neither a CodeGemma nor the default");
        model(&own.join("gemma-3-270m-q4_k_m.gguf"), "gemma3");
        assert_eq!(places.resolve(None).unwrap().name, "gemma-3-270m-q4_k_m");
        hf_folder(
            &home.path().join(".cache/huggingface/hub/models--google--codegemma-7b-it/snapshots/a"),
            "gemma",
        );
        assert_eq!(places.resolve(None).unwrap().name, "codegemma-7b-it");
        ollama(&home.path().join(".ollama/models"), "codegemma/2b", "ab", "gemma");
        assert_eq!(places.resolve(None).unwrap().name, "codegemma:2b");
        for (spec, name) in [
            ("default", "gemma-3-270m-q4_k_m"),
            ("gemma-3-270m", "gemma-3-270m-q4_k_m"),
            ("codegemma-2b", "codegemma:2b"),
            ("codegemma:2b", "codegemma:2b"),
            ("gemma-2-9b-it", "gemma-2-9b-it-Q4_K_M"),
            ("GEMMA-2-9B-IT", "gemma-2-9b-it-Q4_K_M"),
            ("codegemma-7b-it", "codegemma-7b-it"),
            ("hf:google/codegemma-7b-it", "codegemma-7b-it"),
            ("hf:anyone/x/gemma-3-270m-q4_k_m.gguf", "gemma-3-270m-q4_k_m"),
        ] {
            assert_eq!(places.resolve(Some(spec)).unwrap().name, name, "{spec}");
        }
        let path = own.join("gemma-2-9b-it-Q4_K_M.gguf");
        let by_path = places.resolve(path.to_str()).unwrap();
        assert_eq!((by_path.path, by_path.source.as_str()), (path, "path"));
        for (spec, remedy) in [
            ("gemma-2-9b", "gemma-ls model pull gemma-2-9b"),
            ("codegemma-7b", "gemma-ls model pull codegemma-7b"),
            ("hf:google/gemma-7b", "gemma-ls model pull hf:google/gemma-7b"),
            ("no/such/file.gguf", "path"),
            ("gpt-5", "model list"),
        ] {
            let error = places.resolve(Some(spec)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{spec}");
            assert!(error.remedy_text().unwrap().contains(remedy), "{spec}: {error}");
        }
    }

    #[test]
    fn names_without_their_storage() {
        for (name, base) in [
            ("codegemma-2b.Q4_K_M", "codegemma-2b"),
            ("codegemma:2b", "codegemma-2b"),
            ("gemma-2-9b-it-Q4_K_M", "gemma-2-9b-it"),
            ("gemma-3-1b-it-q4_0", "gemma-3-1b-it"),
            ("gemma-3-1b-it-IQ4_XS", "gemma-3-1b-it"),
            ("codegemma-1.1-2b-GGUF", "codegemma-1.1-2b"),
            ("gemma-2b-bf16", "gemma-2b"),
            ("gemma3:latest", "gemma3"),
        ] {
            assert_eq!(base_name(name), base, "{name}");
        }
    }
}
