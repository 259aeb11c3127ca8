//! `gemma-ls bench`: how fast a model runs on this machine, what a keystroke costs, and which prompt suits a model.

use clap::{Subcommand, ValueEnum};

use super::Context;
use super::bench_fim::{self, FimArgs};
use super::bench_image::{self, ImageArgs};
use super::bench_keystroke::{self, KeystrokeArgs};
use super::bench_speed::{self, SpeedArgs, What};
use super::failure::{Exit, Outcome};
use crate::settings::{self, FimIds, FimOrder};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The GPU where there is one with room, else the processor
    Auto,
    /// The processor
    Cpu,
    /// The NVIDIA GPU
    Cuda,
}

impl From<Device> for settings::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => Self::Auto,
            Device::Cpu => Self::Cpu,
            Device::Cuda => Self::Cuda,
        }
    }
}

/// Measure how fast a model runs here, and what a keystroke costs
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Measure how fast a model generates here, as a fraction of the memory's bandwidth
    Decode(Box<SpeedArgs>),
    /// Measure how fast a model reads a prompt here, as a fraction of the processor's peak
    Prefill(Box<SpeedArgs>),
    Image(Box<ImageArgs>),
    Keystroke(Box<KeystrokeArgs>),
    Fim(Box<FimArgs>),
}

impl BenchCommand {
    /// Whether standard output is to be one JSON object.
    pub fn json(&self) -> bool {
        match self {
            Self::Decode(args) | Self::Prefill(args) => args.json,
            Self::Image(args) => args.json,
            Self::Keystroke(args) => args.json,
            Self::Fim(args) => args.json,
        }
    }
}

/// Runs `gemma-ls bench`.
pub fn run(context: &Context, command: &BenchCommand) -> Outcome<Exit> {
    match command {
        BenchCommand::Decode(args) => bench_speed::run(context, args, What::Decode),
        BenchCommand::Prefill(args) => bench_speed::run(context, args, What::Prefill),
        BenchCommand::Image(args) => bench_image::run(context, args),
        BenchCommand::Keystroke(args) => bench_keystroke::run(context, args),
        BenchCommand::Fim(args) => bench_fim::run(context, args),
    }
}

/// An order as the settings write it.
pub fn order(text: &str) -> Result<FimOrder, String> {
    let known = FimOrder::ALL.into_iter().find(|order| order.name().eq_ignore_ascii_case(text));
    known.ok_or_else(|| {
        let names: Vec<&str> = FimOrder::ALL.iter().map(|order| order.name()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

/// Token ids in the order prefix, middle, suffix, separator.
pub fn fim_ids(text: &str) -> Result<FimIds, String> {
    let ids: Result<Vec<u32>, _> = text.split(',').map(|id| id.trim().parse()).collect();
    match ids.as_deref() {
        Ok(&[prefix, middle, suffix, separator]) => Ok(FimIds { prefix, middle, suffix, separator }),
        _ => Err("four token ids are wanted: prefix, middle, suffix, separator".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_ids_are_read_as_the_settings_write_them() {
        for known in FimOrder::ALL {
            assert_eq!(order(known.name()), Ok(known));
            assert_eq!(serde_json::to_value(known).ok(), Some(known.name().into()));
        }
        assert_eq!(order("SPM"), Ok(FimOrder::Spm));
        assert!(order("mps").expect_err("no order").contains("psm, spm"));
        let ids = FimIds { prefix: 67, middle: 68, suffix: 69, separator: 70 };
        assert_eq!(fim_ids("67,68, 69,70"), Ok(ids));
        assert!(fim_ids("67,68,69").is_err() && fim_ids("a,b,c,d").is_err() && fim_ids("1,2,3,-4").is_err());
    }
}
