//! Adapters beside the tiny golden models, against what PEFT computes with them.

use std::path::PathBuf;

use gemma_engine::{LogitsRequest, Precision};
use gemma_tests::golden::Case;
use gemma_tests::models::{Arithmetic, Loaded};
use gemma_tests::numbers::{Findings, Matrix, worst};
use gemma_tests::places;

/// Cases in f32, some of them with the same adapter in llama.cpp's format.
const CASES: [&str; 4] = ["gemma1-mqa-lora", "gemma2-gqa-rslora", "gemma3-text-patterns", "gemma3-text-rows"];
/// A base in bf16, whose reference is f32 (`logits_f32`).
const BF16_CASE: &str = "gemma2-gqa-bf16-lora";

/// How far the default precision may stand from the f32 reference: keys and values are f16, activations of many rows bf16
/// on matrix units.
const FAST_TOLERANCE: f32 = 0.02;
const BF16_FAST_TOLERANCE: f32 = 0.1;

/// An adapter's case with its base's folder.
fn read(name: &str) -> (Case, PathBuf) {
    let case = Case::read(&format!("adapters/{name}"));
    let base = case.golden.base.as_deref().unwrap_or_else(|| panic!("{name} names its base"));
    let base = places::golden(base);
    (case, base)
}

/// The adapter's folder and, where it has one, its GGUF file.
fn spellings(name: &str) -> Vec<PathBuf> {
    let folder = places::golden(&format!("adapters/{name}"));
    let file = folder.join("adapter.gguf");
    if file.is_file() { vec![folder, file] } else { vec![folder] }
}

fn precisions() -> Vec<Arithmetic> {
    Arithmetic::all(&[Precision::Exact, Precision::Reference, Precision::Fast])
}

fn base_alone(loaded: &Loaded, ids: &[u32]) -> Matrix {
    loaded.logits_of(LogitsRequest { ids: ids.to_vec(), base_alone: true, ..LogitsRequest::default() })
}

#[test]
fn one_pass_and_single_tokens_give_pefts_logits() {
    let mut findings = Findings::default();
    for name in CASES {
        let (case, base) = read(name);
        for (how, adapter) in precisions()
            .into_iter()
            .flat_map(|how| spellings(name).into_iter().map(move |adapter| (how, adapter)))
        {
            let loaded = Loaded::adapted(&base, &adapter, how);
            for prompt in &case.golden.prompts {
                let fast = how.precision == Precision::Fast;
                let tolerance = prompt.tolerance().max(if fast { FAST_TOLERANCE } else { 0.0 });
                for split in [None, Some(vec![1; prompt.ids.len()])] {
                    let logits = loaded.logits(&prompt.ids, split.as_deref());
                    let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
                    findings.check(distance <= tolerance, || {
                        let (what, prompt) = (adapter.display(), &prompt.name);
                        format!("{what} ({how}) {prompt}, pieces {}: {distance:e}", split.is_some())
                    });
                }
            }
        }
    }
    findings.assert_none();
}

#[test]
fn a_base_in_bf16_stays_what_it_is() {
    let mut findings = Findings::default();
    let (case, base) = read(BF16_CASE);
    for how in Arithmetic::all(&[Precision::Exact, Precision::Fast]) {
        for adapter in spellings(BF16_CASE) {
            let loaded = Loaded::adapted(&base, &adapter, how);
            for prompt in &case.golden.prompts {
                let logits = loaded.logits(&prompt.ids, None);
                let distance =
                    |name: &str| worst(&logits.data, &case.tensor(&format!("{}_{name}", prompt.logits)).data);
                // The embeddings' scale is rounded as the checkpoint is.
                let distance = distance("f32_bf16scale");
                let tolerance = if how.precision == Precision::Fast { BF16_FAST_TOLERANCE } else { 1e-3 };
                findings.check(distance <= tolerance, || format!("{how} {}: {distance:e}", prompt.name));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn greedy_tokens_are_pefts() {
    for name in CASES {
        let (case, base) = read(name);
        for how in Arithmetic::all(&[Precision::Exact]) {
            let loaded = Loaded::adapted(&base, &spellings(name)[0], how);
            for greedy in &case.golden.greedy {
                let got = loaded.greedy(&case.prompt(&greedy.prompt).ids, greedy.ids.len()).ids();
                assert_eq!(got, greedy.ids, "{name} {how}");
            }
        }
    }
}

#[test]
fn without_it_the_base_is_the_base_to_the_bit() {
    for name in CASES.into_iter().chain([BF16_CASE]) {
        let (case, base) = read(name);
        for how in precisions() {
            let adapted = Loaded::adapted(&base, &spellings(name)[0], how);
            let plain = Loaded::new(&base, how);
            let ids = &case.prompt("long").ids;
            let (with, without) = (adapted.logits(ids, None), base_alone(&adapted, ids));
            assert_ne!(with.data, without.data, "{name} {how}: the adapter counts");
            assert_eq!(without.data, plain.logits(ids, None).data, "{name} {how}");
        }
    }
}

#[test]
fn no_prefix_is_shared_with_the_base() {
    for name in CASES {
        let (case, base) = read(name);
        let loaded = Loaded::adapted(&base, &spellings(name)[0], Precision::Exact);
        let ids = &case.prompt("long").ids;
        let first = loaded.greedy(ids, 8);
        let alone = loaded.run({
            let mut request = gemma_engine::GenerateRequest::new(loaded.model.clone(), ids.clone(), 8);
            request.base_alone = true;
            request.stop.ignore_eos = true;
            request
        });
        assert_eq!(
            alone.finished.timings.cached_tokens, 0,
            "{name}: what the adapter computed is not the base's"
        );
        assert_eq!(alone.ids(), Loaded::new(&base, Precision::Exact).greedy(ids, 8).ids(), "{name}");
        let again = loaded.greedy(ids, 8);
        assert!(again.finished.timings.cached_tokens > 0, "{name}: but is its own");
        assert_eq!(again.ids(), first.ids(), "{name}");
    }
}
