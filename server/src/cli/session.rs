//! What every command that runs a model begins with: find it, get it if need be, load it.

use std::sync::Arc;

use gemma_engine::checkpoint::{self, CatalogueEntry, DEFAULT_MODEL, Found, LICENCE_PAGE};
use gemma_engine::{
    AdapterChoice, CancelFlag, Engine, EngineOptions, ErrorKind, LoadOptions, Model, Precision,
};

use super::failure::{Failure, Outcome};
use super::{Context, ModelArgs, output};
use crate::models::{self, Choice, Why};
use crate::settings::Device;

/// An engine with its model loaded.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    /// The model.
    pub model: Arc<Model>,
}

impl Session {
    /// Chooses a model, downloads the default one if there is none and that is allowed, and loads it; with an adapter only
    /// if the command line names one.
    pub fn open(context: &Context, wanted: &ModelArgs, precision: Precision) -> Outcome<Self> {
        Self::open_on(context, wanted, precision, context.settings.device)
    }

    /// The same for completions: with the adapter that a server has beside the model.
    pub fn open_completing(context: &Context, wanted: &ModelArgs) -> Outcome<Self> {
        context.report_problems();
        let choice = choose(context, wanted)?;
        let adapter = models::adapter(wanted.adapter.as_deref(), &context.settings, &choice);
        let engine = start(context)?;
        let precision = context.settings.precision.into();
        Ok(Self { model: load(context, &engine, choice, adapter, precision)?, engine })
    }

    /// The same, on a device that is not the settings'.
    pub fn open_on(
        context: &Context,
        wanted: &ModelArgs,
        precision: Precision,
        device: Device,
    ) -> Outcome<Self> {
        context.report_problems();
        let choice = choose(context, wanted)?;
        let adapter = wanted.adapter.as_deref().map(models::adapter_named).unwrap_or_default();
        let engine = start_on(context, device)?;
        Ok(Self { model: load(context, &engine, choice, adapter, precision)?, engine })
    }
}

/// An engine with no model yet.
pub fn start(context: &Context) -> Outcome<Engine> {
    start_on(context, context.settings.device)
}

fn start_on(context: &Context, device: Device) -> Outcome<Engine> {
    let settings = &context.settings;
    Ok(Engine::start(EngineOptions {
        threads: settings.threads,
        makes_room: false,
        cache_bytes: settings.memory_budget_mb.map(|mib| mib.saturating_mul(1 << 20)),
        cache_folder: None,
        device: device.into(),
        kv_format: settings.kv_format.wished(),
        quantize: settings.quantize_at_load(),
        level: None,
    })?)
}

/// Loads a model into an engine, with a progress bar.
pub fn load(
    context: &Context,
    engine: &Engine,
    choice: Choice,
    adapter: AdapterChoice,
    precision: Precision,
) -> Outcome<Arc<Model>> {
    let bar = output::byte_bar(context.global.quiet, format!("Loading {}", choice.name));
    let name = Some(choice.name);
    let options = LoadOptions { name, precision, adapter, ..LoadOptions::new(choice.path) };
    let loaded = engine.load(options, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    Ok(loaded?)
}

/// The model to run; downloads the default one if nobody named one, there is none, and that is allowed.
pub fn choose(context: &Context, wanted: &ModelArgs) -> Outcome<Choice> {
    let (name, _) = models::wanted(wanted.model.as_deref(), &context.settings);
    match models::choose(wanted.model.as_deref(), &context.settings) {
        Err(error) if error.kind() == ErrorKind::NotFound && name.is_none() && !wanted.no_pull => {
            if !context.global.quiet {
                output::say(announcement(checkpoint::known(DEFAULT_MODEL)));
            }
            let found = pull(context, DEFAULT_MODEL, &CancelFlag::new())?;
            Ok(Choice { name: found.name, path: found.path, why: Why::Found })
        }
        outcome => outcome.map_err(Failure::from),
    }
}

/// What is about to be downloaded, before it is.
fn announcement(entry: Option<&CatalogueEntry>) -> String {
    let what = entry.map_or_else(
        || "the default model".to_owned(),
        |entry| format!("{} ({})", entry.local_name(), output::bytes(entry.bytes)),
    );
    format!(
        "There is no model on this machine yet. Downloading {what}, a small one to begin with.\n\
         Gemma is provided under and subject to the Gemma Terms of Use: {LICENCE_PAGE}"
    )
}

/// Downloads a model with a progress bar, until it is cancelled.
pub fn pull(context: &Context, spec: &str, cancel: &CancelFlag) -> Outcome<Found> {
    let bar = output::byte_bar(context.global.quiet, "");
    let pulled = checkpoint::pull(spec, cancel, &mut |progress| {
        bar.set_message(models::pulling(&progress));
        if let Some(total) = progress.total_bytes {
            bar.set_length(total);
        }
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    Ok(pulled?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_downloaded_is_said_with_its_size_and_licence() {
        let text = announcement(checkpoint::known(DEFAULT_MODEL));
        for part in ["gemma-3-270m-q4_k_m", "253 MB", LICENCE_PAGE] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_model_that_was_named_is_never_replaced_by_another() {
        let wanted = ModelArgs { model: Some("no-such-model".into()), ..ModelArgs::default() };
        let failure = choose(&Context::for_tests(), &wanted).expect_err("there is none");
        assert_eq!(failure.exit(), super::super::failure::Exit::Missing);
    }
}
