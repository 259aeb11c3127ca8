//! `gemma-ls model`: which models are here, getting others, what a file holds, and making it smaller.

use clap::{Args, Subcommand};
use gemma_engine::checkpoint::{self, CATALOGUE, CatalogueEntry, Found};
use serde_json::{Value, json};

use super::failure::{Exit, Outcome};
use super::model_info::{self, InfoArgs};
use super::model_quantize::{self, QuantizeArgs};
use super::{Context, interrupt, output, session};
use crate::models::{self, is_installed};

/// List, download, describe and shrink models
#[derive(Subcommand)]
pub enum ModelCommand {
    List(ListArgs),
    Pull(PullArgs),
    Info(InfoArgs),
    Quantize(QuantizeArgs),
}

const LIST_EXAMPLES: &str = "\
Models are looked for in gemma-ls's own folder (or the folders of $GEMMA_LS_MODELS), HuggingFace's cache,
Ollama's store and LM Studio's folder. The one marked with * runs when none is named.

Examples:
  gemma-ls model list
  gemma-ls model list --json

JSON: models (each with name, path, source, bytes), use (the one that runs when none is named, or null),
known (names that can be pulled, each with name, repo, bytes, infill, pictures, licence (whether the hub asks for it
to be accepted), installed).";

/// List the models on this machine, and those that can be downloaded
#[derive(Args)]
#[command(after_long_help = LIST_EXAMPLES)]
pub struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const PULL_EXAMPLES: &str = "\
NAME is one that `gemma-ls model list` shows, or hf:owner/repo for a folder or hf:owner/repo/file.gguf for
one file of HuggingFace's hub. A download that was interrupted goes on where it stopped; what arrives is
checked against its SHA-256. Google's own repositories want their licence accepted once on the hub, and a
token in $HF_TOKEN.

Examples:
  gemma-ls model pull default
  gemma-ls model pull codegemma-2b
  gemma-ls model pull hf:google/gemma-3-1b-it-qat-q4_0-gguf/gemma-3-1b-it-q4_0.gguf

JSON: name, path, source, bytes.";

/// Download a model
#[derive(Args)]
#[command(after_long_help = PULL_EXAMPLES)]
pub struct PullArgs {
    /// The model, for instance codegemma-2b or hf:owner/repo
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ModelCommand {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Pull(args) => args.json,
            Self::Info(args) => args.json(),
            Self::Quantize(args) => args.json(),
        }
    }
}

/// Runs `gemma-ls model`.
pub fn run(context: &Context, command: &ModelCommand) -> Outcome<Exit> {
    match command {
        ModelCommand::List(args) => list(context, args),
        ModelCommand::Pull(args) => pull(context, args),
        ModelCommand::Info(args) => model_info::run(context, args),
        ModelCommand::Quantize(args) => model_quantize::run(context, args),
    }?;
    Ok(Exit::Ok)
}

fn list(context: &Context, args: &ListArgs) -> Outcome {
    let found = checkpoint::find_all();
    let choice = models::choose(None, &context.settings).ok();
    if args.json {
        let known: Vec<Value> = CATALOGUE.iter().map(|entry| entry_json(entry, &found)).collect();
        return output::print_json(&json!({
            "models": found.iter().map(found_json).collect::<Vec<_>>(),
            "use": choice,
            "known": known,
        }));
    }
    let mut text = String::new();
    if found.is_empty() {
        text.push_str("No models on this machine yet.\n");
    }
    let widest = found.iter().map(|found| found.name.chars().count()).max().unwrap_or(0);
    for model in &found {
        let used = choice.as_ref().is_some_and(|choice| choice.path == model.path);
        let pad = " ".repeat(widest - model.name.chars().count());
        text.push_str(&format!(
            "{} {}{pad}  {:>7}  {}  ({})\n",
            if used { "*" } else { " " },
            model.name,
            output::bytes(model.bytes),
            model.path.display(),
            model.source,
        ));
    }
    text.push_str("\nTo download: gemma-ls model pull NAME\n");
    let missing: Vec<(&str, String)> = CATALOGUE
        .iter()
        .filter(|entry| !is_installed(entry, &found))
        .map(|entry| (entry.name, format!("{:>7}{}", output::bytes(entry.bytes), remark(entry))))
        .collect();
    text.push_str(&output::table(&missing));
    text.push_str(
        "\n(licence): asks for Google's licence to be accepted once on the hub; `model pull` says how.\n",
    );
    output::print(&text)
}

/// What a model was made for, and whether it asks for a licence.
fn remark(entry: &CatalogueEntry) -> String {
    let made_for = match (entry.infill, entry.pictures) {
        (true, _) => "  made for code: fills in the middle",
        (_, true) => "  reads pictures",
        _ => "",
    };
    format!("{made_for}{}", if entry.asks_for_licence() { "  (licence)" } else { "" })
}

/// The JSON of a model that was found.
pub fn found_json(found: &Found) -> Value {
    json!({ "name": found.name, "path": found.path, "source": found.source, "bytes": found.bytes })
}

fn entry_json(entry: &CatalogueEntry, found: &[Found]) -> Value {
    json!({
        "name": entry.name,
        "repo": entry.repo,
        "bytes": entry.bytes,
        "infill": entry.infill,
        "pictures": entry.pictures,
        "licence": entry.asks_for_licence(),
        "installed": is_installed(entry, found),
    })
}

fn pull(context: &Context, args: &PullArgs) -> Outcome {
    let cancel = interrupt::flag();
    let found =
        session::pull(context, &args.name, &cancel).map_err(|failure| match cancel.is_cancelled() {
            true => failure.interrupted(),
            false => failure,
        })?;
    if args.json {
        return output::print_json(&found_json(&found));
    }
    output::print(&format!("{}  {}  {}\n", found.name, output::bytes(found.bytes), found.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn what_is_here_is_not_offered_again() {
        let entry = checkpoint::known("codegemma-2b").expect("known");
        let found = |name: &str| Found { name: name.into(), path: "/p".into(), source: "s".into(), bytes: 1 };
        assert!(is_installed(entry, &[found("other"), found("CodeGemma-2B")]));
        assert!(!is_installed(entry, &[found("codegemma-7b")]));
        assert_eq!(entry_json(entry, &[])["installed"], false);
    }
}
