//! Files that tests need and that are too large to commit: see `tests/tools/fetch_tokenizers.py`.

use std::path::{Path, PathBuf};

/// The path of a fetched file.
///
/// # Panics
/// If it was not fetched, with a message that says how: a test that skips itself proves nothing.
pub(crate) fn file(name: &str) -> PathBuf {
    let target = || {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
            .join("gemma-ls-test-cache")
    };
    let path = std::env::var_os("GEMMA_LS_TEST_CACHE").map_or_else(target, PathBuf::from).join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `python3 tests/tools/fetch_tokenizers.py` first",
        path.display()
    );
    path
}
