//! Files that tests need and that are too large to commit. `tests/run` fetches them: the vocabularies with
//! `tests/tools/fetch_tokenizers.py`, the real model with the binary itself.

use std::path::{Path, PathBuf};

/// The file of the real model.
const MODEL: &str = "gemma-3-270m-q4_k_m.gguf";

/// A published tokenizer.json (`gemma`, `codegemma`, `gemma2`, `gemma3`): in `$GEMMA_LS_TEST_TOKENIZERS`, else
/// where `tests/run` puts them.
///
/// # Panics
/// If it was not fetched, with a message that says how: a test that skips itself proves nothing.
pub(crate) fn tokenizer_json(vocabulary: &str) -> PathBuf {
    let folder = variable("GEMMA_LS_TEST_TOKENIZERS").unwrap_or_else(|| target().join("test-tokenizers"));
    let path = folder.join(vocabulary).join("tokenizer.json");
    assert!(
        path.is_file(),
        "{} is missing: run `python3 tests/tools/fetch_tokenizers.py {}` first",
        path.display(),
        folder.display()
    );
    path
}

/// The real Gemma 3 270M: `$GEMMA_LS_TEST_MODEL`, else what `tests/run` pulled.
///
/// # Panics
/// If it was not pulled.
pub(crate) fn real_model() -> PathBuf {
    let path = variable("GEMMA_LS_TEST_MODEL").unwrap_or_else(|| {
        variable("GEMMA_LS_MODELS").unwrap_or_else(|| target().join("models")).join(MODEL)
    });
    assert!(
        path.is_file(),
        "{} is missing: run tests/run once, or point GEMMA_LS_TEST_MODEL at {MODEL}",
        path.display()
    );
    path
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Cargo's target folder: where this test program was built.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let release = program.ancestors().find(|folder| folder.join("deps").is_dir()).and_then(Path::parent);
    release.expect("a test program stands in a target folder").to_path_buf()
}
