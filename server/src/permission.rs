//! Where nothing is completed: languages and files switched off, and files with secrets in them.

use std::fmt;
use std::path::Path;

use gemma_engine::{Error, ErrorKind};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::documents::Snapshot;
use crate::secrets::SecretFiles;
use crate::settings::Settings;

/// The rules of one set of settings, ready for use.
pub struct Permission {
    languages_off: Vec<String>,
    files_off: GlobSet,
    secrets: SecretFiles,
}

impl Permission {
    /// Globs have been validated with the settings; one that cannot be read is left out.
    pub fn new(settings: &Settings) -> Self {
        let mut files_off = GlobSetBuilder::new();
        for glob in &settings.files_off {
            // `*.md` and `src/*.md` mean anywhere, as in the ignore files people know.
            let anywhere = if glob.starts_with('/') || glob.starts_with("**/") { "" } else { "**/" };
            let glob = GlobBuilder::new(&format!("{anywhere}{glob}")).literal_separator(true).build();
            if let Ok(glob) = glob {
                files_off.add(glob);
            }
        }
        Self {
            languages_off: settings.languages_off.clone(),
            files_off: files_off.build().unwrap_or_else(|_| GlobSet::empty()),
            secrets: SecretFiles::new(&settings.secret_files).0,
        }
    }

    /// The rule by which nothing is completed in a document, if there is one.
    pub fn refusal(&self, document: &Snapshot) -> Option<&'static str> {
        let location = document.location();
        let known_as = [document.language_id.as_ref(), document.language.id()];
        if self.secrets.is_secret(&location) {
            Some("secretFiles")
        } else if self.languages_off.iter().any(|off| known_as.iter().any(|id| id.eq_ignore_ascii_case(off)))
        {
            Some("languagesOff")
        } else if self.files_off.is_match(&location) {
            Some("filesOff")
        } else {
            None
        }
    }

    /// Refuses to show a model a file that may hold secrets; `name` is what it is called to the user.
    ///
    /// Fails with [`Input`](ErrorKind::Input) where it may.
    pub fn allow_reading(&self, path: &Path, name: impl fmt::Display) -> Result<(), Error> {
        if self.may_be_read(path) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Input, name, "it may hold secrets, so no model reads it")
            .remedy("The setting secretFiles says which files these are; a rule with ! in front allows one."))
    }

    /// Whether a document may be shown to the model as context for another.
    pub fn may_be_read(&self, path: &Path) -> bool {
        !self.secrets.is_secret(path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_rule_names_itself() {
        let (settings, problems) = Settings::from_json(&json!({
            "languagesOff": ["Markdown", "tsx"], "filesOff": ["*.gen.rs", "vendor/**"], "secretFiles": ["*.vault"],
        }));
        assert_eq!(problems, []);
        let permission = Permission::new(&settings);
        for (uri, language, refusal) in [
            ("file:///p/src/main.rs", "rust", None),
            ("file:///p/README.md", "markdown", Some("languagesOff")),
            ("file:///p/src/a.gen.rs", "rust", Some("filesOff")),
            ("file:///p/vendor/x/y.rs", "rust", Some("filesOff")),
            ("file:///p/.env", "shellscript", Some("secretFiles")),
            ("file:///p/keys.vault", "plaintext", Some("secretFiles")),
            ("untitled:Untitled-1", "rust", None),
            ("untitled:a.gen.rs", "rust", Some("filesOff")),
        ] {
            let document = Snapshot::new(uri, language, "");
            assert_eq!(permission.refusal(&document), refusal, "{uri}");
        }
        assert!(!permission.may_be_read(Path::new("/p/.env")));
        assert!(permission.may_be_read(Path::new("/p/README.md")));
    }
}
