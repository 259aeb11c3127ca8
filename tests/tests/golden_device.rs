//! The networks on a graphics card, run by the emulation of one: the kernels that ship, in the engine that ships, held
//! against the reference and against the processor.

use std::sync::Arc;

use gemma_emulation::{Emulated, SCHEDULES, Schedule};
use gemma_engine::{DeviceChoice, EngineOptions, Precision};
use gemma_kernels::cuda::Device;
use gemma_tests::golden::Case;
use gemma_tests::models::Loaded;
use gemma_tests::numbers::{Findings, worst};

/// Cases in f32.
const CASES: [&str; 6] =
    ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale", "recurrentgemma"];

/// How far the default precision may stand from the f32 reference: activations are rounded to bf16 where they meet
/// weights, keys and values to f16.
const FAST_TOLERANCE: f32 = 0.25;

fn device(schedule: Schedule) -> DeviceChoice {
    DeviceChoice::Given(Device::new(Arc::new(Emulated::new(1 << 30, schedule))))
}

fn load(name: &str, precision: Precision, schedule: Schedule) -> (Case, Loaded) {
    let case = Case::read(name);
    let folder = case.checkpoint("config.json");
    let options = EngineOptions { device: device(schedule), ..EngineOptions::default() };
    let loaded = Loaded::with(folder.path(), precision, options);
    assert_eq!(loaded.model.device().device, "cuda", "{:?}", loaded.model.device().why);
    (case, loaded)
}

/// A few ways of feeding `len` tokens: all at once, one by one, and in pieces that begin in the middle of a page.
fn splits(len: usize) -> Vec<Option<Vec<usize>>> {
    let mut ways = vec![None, Some(vec![1; len])];
    ways.extend([3, 7, 17].into_iter().filter(|&at| at < len).map(|at| Some(vec![at, len - at])));
    ways
}

#[test]
fn exact_logits_are_the_references() {
    let mut findings = Findings::default();
    for (name, schedule) in CASES.iter().zip(SCHEDULES.iter().cycle()) {
        let (case, loaded) = load(name, Precision::Exact, *schedule);
        for prompt in &case.golden.prompts {
            for split in splits(prompt.ids.len()) {
                let logits = loaded.logits(&prompt.ids, split.as_deref());
                let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
                findings.check(distance <= prompt.tolerance(), || {
                    format!("{name} {} fed as {split:?}: {distance:e} from the reference", prompt.name)
                });
            }
        }
    }
    findings.assert_none();
}

#[test]
fn fast_logits_are_near_the_references() {
    let mut findings = Findings::default();
    for (name, schedule) in CASES.iter().zip(SCHEDULES.iter().cycle()) {
        let (case, loaded) = load(name, Precision::Fast, *schedule);
        for prompt in &case.golden.prompts {
            for split in splits(prompt.ids.len()) {
                let logits = loaded.logits(&prompt.ids, split.as_deref());
                let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
                findings.check(distance <= FAST_TOLERANCE, || {
                    format!("{name} {} fed as {split:?}: {distance:e} from the reference", prompt.name)
                });
            }
        }
    }
    findings.assert_none();
}
