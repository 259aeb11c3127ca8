//! Where things are: the repository, its fixtures, cargo's target folder, the real model.

use std::path::{Path, PathBuf};

/// The repository's top folder: `$GEMMA_LS_TEST_REPOSITORY` where the tests run elsewhere, else the one that they were
/// built in.
pub fn repository() -> PathBuf {
    if let Some(elsewhere) = std::env::var_os("GEMMA_LS_TEST_REPOSITORY") {
        return elsewhere.into();
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the crate stands one folder below the repository").to_path_buf()
}

/// A folder or file of the golden data.
pub fn golden(path: &str) -> PathBuf {
    repository().join("tests/fixtures/golden").join(path)
}

/// Cargo's target folder: where this very test program was built.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let release = program.ancestors().find(|folder| folder.join("deps").is_dir());
    release
        .and_then(Path::parent)
        .unwrap_or_else(|| panic!("{} is in no target folder", program.display()))
        .to_path_buf()
}

/// The real Gemma 3 270M in Q4_K_M: `$GEMMA_LS_TEST_MODEL`, else what `tests/run` pulled.
pub fn real_model() -> PathBuf {
    let pulled = || {
        let models =
            std::env::var_os("GEMMA_LS_MODELS").map_or_else(|| target().join("models"), PathBuf::from);
        find(&models, "gemma-3-270m-q4_k_m.gguf").unwrap_or(models)
    };
    let path = std::env::var_os("GEMMA_LS_TEST_MODEL").map_or_else(pulled, PathBuf::from);
    assert!(
        path.is_file(),
        "the real Gemma 3 270M is not here (looked at \"{}\"): run tests/run once, or point \
         GEMMA_LS_TEST_MODEL at gemma-3-270m-q4_k_m.gguf",
        path.display()
    );
    path
}

/// A published tokenizer.json (`gemma`, `codegemma`, `gemma3`): in `$GEMMA_LS_TEST_TOKENIZERS`, else where
/// `tests/run` puts them.
pub fn tokenizer_json(vocabulary: &str) -> PathBuf {
    let folder = std::env::var_os("GEMMA_LS_TEST_TOKENIZERS");
    let folder = folder.map_or_else(|| target().join("test-tokenizers"), PathBuf::from);
    let path = folder.join(vocabulary).join("tokenizer.json");
    assert!(path.is_file(), "{} is not there: run tests/run once", path.display());
    path
}

/// The first file of this name in or below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name() == name {
                return Some(path);
            }
        }
    }
    None
}
