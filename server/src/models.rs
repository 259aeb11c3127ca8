//! Which model to run: what was asked for, else what the user configured, else a CodeGemma found here,
//! else the default.

use std::path::{Path, PathBuf};

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
/// Fails with [`ErrorKind::NotFound`] when it is not on this machine; with nothing named or configured
/// that means there is no model at all, and the default may be pulled.
pub fn choose(named: Option<&str>, settings: &Settings) -> Result<Choice> {
    let (wanted, why) = match (named, settings.model.as_deref()) {
        (Some(name), _) => (Some(name), Why::Named),
        (None, Some(name)) => (Some(name), Why::Configured),
        (None, None) => (None, Why::Found),
    };
    let Some(wanted) = wanted else {
        return Err(Error::new(ErrorKind::NotFound, "model", "there is none on this machine"));
    };
    let path = Path::new(wanted);
    if !path.exists() {
        return Err(Error::new(ErrorKind::NotFound, wanted, "there is no such model on this machine"));
    }
    let name = path.file_stem().map_or_else(|| wanted.to_owned(), |stem| stem.to_string_lossy().into_owned());
    Ok(Choice { name, path: path.to_path_buf(), why })
}
