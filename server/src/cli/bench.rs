//! `gemma-ls bench`: what a keystroke costs on this machine, and which prompt suits a model.

use clap::Subcommand;

use super::Context;
use super::bench_keystroke::{self, KeystrokeArgs};
use super::failure::{Exit, Outcome};

/// Measure what a keystroke costs here
#[derive(Subcommand)]
pub enum BenchCommand {
    Keystroke(Box<KeystrokeArgs>),
}

impl BenchCommand {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        match self {
            Self::Keystroke(args) => args.json,
        }
    }
}

/// Runs `gemma-ls bench`.
pub fn run(context: &Context, command: &BenchCommand) -> Outcome<Exit> {
    match command {
        BenchCommand::Keystroke(args) => bench_keystroke::run(context, args),
    }
}
