//! Which model to run: what was asked for, else what the user configured, else a CodeGemma found here,
//! else the default. For pictures one that sees, else there is none.

use std::fmt;
use std::path::{Path, PathBuf};

use gemma_engine::checkpoint::{self, Checkpoint};
use gemma_engine::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::settings::Settings;

/// Why a model was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was named on the command line.
    Named,
    /// The setting `model` names it.
    Configured,
    /// Nothing was named: the best one found on this machine.
    Found,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "it was named on the command line",
            Self::Configured => "the setting `model` names it",
            Self::Found => "no model is configured, and it is the best one on this machine",
        })
    }
}

/// A model that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// What it is called in messages.
    pub name: String,
    /// A HuggingFace folder or a GGUF file.
    pub path: PathBuf,
    /// Why it was chosen.
    pub why: Why,
}

/// The model to run. `named` comes from the command line and beats the settings.
///
/// Fails with [`NotFound`](gemma_engine::ErrorKind::NotFound) when it is not on this machine; with nothing
/// named or configured that means there is no model at all, and the default may be pulled.
pub fn choose(named: Option<&str>, settings: &Settings) -> Result<Choice> {
    let (wanted, why) = wanted(named, settings);
    let found = checkpoint::resolve(wanted)?;
    Ok(Choice { name: found.name, path: found.path, why })
}

/// What to do where no model sees pictures.
const SEEING: &str = "Run `gemma-ls model pull paligemma2-3b-mix-448` (6 GB; its licence has to be \
                          accepted on HuggingFace once), or name a PaliGemma or a Gemma 3 from 4B on with --model.";

/// The model that looks at pictures: the one named, else the first of those configured that sees, else the
/// first one on this machine that does.
///
/// Fails with [`NotFound`](ErrorKind::NotFound) when it is not on this machine, or nothing here sees, and with
/// [`Unsupported`](ErrorKind::Unsupported) when the one named does not.
pub fn choose_seeing(named: Option<&str>, settings: &Settings) -> Result<Choice> {
    let sees = |path: &Path| Ok(Checkpoint::open(path)?.config().vision.is_some());
    if named.is_some() {
        let choice = choose(named, settings)?;
        return match sees(&choice.path)? {
            true => Ok(choice),
            false => Err(blind(&choice.name)),
        };
    }
    let sees = |found: &checkpoint::Found| sees(&found.path).unwrap_or(false);
    let configured = [&settings.model, &settings.chat_model].into_iter().flatten();
    let configured = configured.filter_map(|name| checkpoint::resolve(Some(name)).ok()).find(sees);
    let (found, why) = match configured {
        Some(found) => (found, Why::Configured),
        None => {
            let found = checkpoint::find_all().into_iter().find(sees).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "model", "no model on this machine sees pictures")
                    .remedy(SEEING)
            })?;
            (found, Why::Found)
        }
    };
    Ok(Choice { name: found.name, path: found.path, why })
}

/// The error of a model that was asked to look at a picture and cannot.
pub fn blind(model: &str) -> Error {
    Error::new(ErrorKind::Unsupported, model, "this model reads text only, and no pictures").remedy(SEEING)
}

/// What is asked for, by whom; nothing when the choice is ours.
pub fn wanted<'a>(named: Option<&'a str>, settings: &'a Settings) -> (Option<&'a str>, Why) {
    match (named, settings.model.as_deref()) {
        (Some(name), _) => (Some(name), Why::Named),
        (None, Some(name)) => (Some(name), Why::Configured),
        (None, None) => (None, Why::Found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_beats_the_settings() {
        let configured = Settings { model: Some("b".into()), ..Settings::default() };
        for (named, settings, expected) in [
            (Some("a"), &configured, (Some("a"), Why::Named)),
            (None, &configured, (Some("b"), Why::Configured)),
            (None, &Settings::default(), (None, Why::Found)),
        ] {
            assert_eq!(wanted(named, settings), expected);
        }
    }

    #[test]
    fn a_path_is_a_model_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("my-model.gguf");
        std::fs::write(&path, "").expect("written");
        let choice = choose(path.to_str(), &Settings::default()).expect("it is there");
        assert_eq!((choice.name.as_str(), choice.why), ("my-model", Why::Named));
        assert_eq!(choice.path, path);
    }
}
