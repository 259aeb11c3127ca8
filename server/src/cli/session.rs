//! What every command that runs a model begins with: find it, get it if need be, load it.

use std::sync::Arc;

use gemma_engine::{Engine, EngineOptions, LoadOptions, Model, Precision};

use super::failure::Outcome;
use super::{Context, ModelArgs, output};
use crate::models::{self, Choice};

/// An engine with its model loaded.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    /// The model.
    pub model: Arc<Model>,
}

impl Session {
    /// Chooses a model, downloads the default one if there is none and that is allowed, and loads it.
    pub fn open(context: &Context, wanted: &ModelArgs, precision: Precision) -> Outcome<Self> {
        context.report_problems();
        let choice = choose(context, wanted)?;
        let settings = &context.settings;
        let engine = Engine::start(EngineOptions {
            threads: settings.threads,
            cache_bytes: settings.memory_budget_mb.map(|mib| mib.saturating_mul(1 << 20)),
        })?;
        let bar = output::byte_bar(context.global.quiet, 0, format!("Loading {}", choice.name));
        let options = LoadOptions { path: choice.path, name: Some(choice.name), precision };
        let loaded = engine.load(options, &mut |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        Ok(Self { model: loaded?, engine })
    }
}

/// The model to run; downloads the default one if there is none and that is allowed.
pub fn choose(context: &Context, wanted: &ModelArgs) -> Outcome<Choice> {
    Ok(models::choose(wanted.model.as_deref(), &context.settings)?)
}
