//! The networks on a graphics card, run by the emulation of one or, with `GEMMA_LS_TEST_GPU=1`, on this machine's: the
//! kernels that ship, in the engine that ships, held against the reference and against the processor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gemma_emulation::{Emulated, SCHEDULES, Schedule, ampere, hopper};
use gemma_engine::{
    AdapterChoice, DeviceChoice, Engine, EngineOptions, ErrorKind, GenerateRequest, LoadOptions,
    LogitsRequest, Picture, Precision, Sampling, Stop,
};
use gemma_kernels::cuda::{Device, Properties};
use gemma_tests::golden::{Case, Prompt};
use gemma_tests::models::Loaded;
use gemma_tests::numbers::{Findings, argmax, worst};
use gemma_tests::places;

/// Cases in f32.
const CASES: [&str; 6] =
    ["gemma1-mqa", "gemma1-mha", "gemma2-gqa", "gemma3-text", "gemma3-text-ropescale", "recurrentgemma"];

/// Cases with pictures, and the files of these.
const SEEING: [(&str, &[&str]); 3] = [
    ("paligemma", &["image.png"]),
    ("paligemma2", &["image.png"]),
    ("gemma3-mm", &["image0.png", "image1.png"]),
];

/// Adapters beside models of these.
const ADAPTERS: [&str; 4] =
    ["gemma1-mqa-lora", "gemma2-gqa-rslora", "gemma3-text-patterns", "gemma3-text-rows"];

/// How far the default precision may stand from the f32 reference: activations are rounded to bf16 where they meet
/// weights, keys and values to f16; as far as a bf16 checkpoint may in the reference itself.
const FAST_TOLERANCE: f32 = 0.25;

/// A GPU of few blocks, which the emulation runs one after the other: of each generation in turn.
fn emulated(number: usize) -> Arc<Emulated> {
    let properties = if number.is_multiple_of(2) { hopper(1 << 30) } else { ampere(1 << 30) };
    let properties = Properties { multiprocessors: 1, ..properties };
    Arc::new(Emulated::of(properties, SCHEDULES[number % SCHEDULES.len()]))
}

/// This machine's GPU where the tests shall use it, else an emulated one.
fn gpu(number: usize) -> Device {
    gemma_emulation::gpu().unwrap_or_else(|| Device::new(emulated(number)))
}

fn on(device: Device, case: &Case, precision: Precision) -> Loaded {
    let folder = case.checkpoint("config.json");
    let device = DeviceChoice::Given(device);
    let loaded = Loaded::with(folder.path(), precision, EngineOptions { device, ..EngineOptions::default() });
    assert_eq!(loaded.model.device().device, "cuda", "{:?}", loaded.model.device().why);
    loaded
}

/// An adapter's case, and a model with it, or its base without.
fn with_adapter(device: Device, name: &str, adapted: bool, precision: Precision) -> (Case, Loaded) {
    let case = Case::read(&format!("adapters/{name}"));
    let base = places::golden(case.golden.base.as_deref().expect("an adapter's case names its base"));
    let adapter = match adapted {
        true => AdapterChoice::At(places::golden(&case.name)),
        false => AdapterChoice::None,
    };
    let options = EngineOptions { device: DeviceChoice::Given(device), ..EngineOptions::default() };
    let engine = Engine::start(options).expect("an engine starts");
    let options = LoadOptions { precision, adapter, ..LoadOptions::new(base) };
    let model = engine.load(options, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(model.device().device, "cuda", "{:?}", model.device().why);
    (case, Loaded { engine, model })
}

/// Holds the logits of a prompt, fed in pieces, against the reference's.
fn check(
    findings: &mut Findings,
    (case, loaded): (&Case, &Loaded),
    prompt: &Prompt,
    split: Option<Vec<usize>>,
    tolerance: f32,
) {
    let logits = loaded.logits(&prompt.ids, split.as_deref());
    let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
    findings.check(distance <= tolerance, || {
        format!("{} {} fed as {split:?}: {distance:e} from the reference", case.name, prompt.name)
    });
}

#[test]
fn logits_are_the_references() {
    let mut findings = Findings::default();
    for (number, name) in CASES.iter().enumerate() {
        let case = Case::read(name);
        for precision in [Precision::Exact, Precision::Fast] {
            let loaded = on(gpu(number), &case, precision);
            let (long, short) = (case.prompt("long"), case.prompt("window_plus1"));
            let tolerance = |prompt: &Prompt| match precision {
                Precision::Fast => FAST_TOLERANCE,
                _ => prompt.tolerance(),
            };
            let both = (&case, &loaded);
            // Pieces that begin in the middle of a page; the last one has many rows.
            for split in [None, Some(vec![1, 3, long.ids.len() - 4])] {
                check(&mut findings, both, long, split, tolerance(long));
            }
            check(&mut findings, both, short, Some(vec![1; short.ids.len()]), tolerance(short));
        }
    }
    findings.assert_none();
}

#[test]
fn adapters_give_pefts_logits() {
    let mut findings = Findings::default();
    for (number, name) in ADAPTERS.iter().enumerate() {
        for precision in [Precision::Exact, Precision::Fast] {
            let (case, loaded) = with_adapter(gpu(number), name, true, precision);
            let (long, short) = (case.prompt("long"), case.prompt("short"));
            let tolerance = |prompt: &Prompt| match precision {
                Precision::Fast => FAST_TOLERANCE,
                _ => prompt.tolerance(),
            };
            let both = (&case, &loaded);
            // Passes of many, of few, and of single tokens, which are recorded unless a trained row stands there.
            for split in [None, Some(vec![1, 3, long.ids.len() - 4]), Some(vec![12, long.ids.len() - 12])] {
                check(&mut findings, both, long, split, tolerance(long));
            }
            check(&mut findings, both, short, Some(vec![1; short.ids.len()]), tolerance(short));
            if precision == Precision::Exact {
                let greedy = &case.golden.greedy[0];
                let got = loaded.greedy(&case.prompt(&greedy.prompt).ids, 4).ids();
                assert_eq!(got, greedy.ids[..4], "{name}");
            }
        }
    }
    findings.assert_none();
}

#[test]
fn without_its_adapter_a_model_has_the_bits_of_its_base() {
    for (number, name) in ADAPTERS.iter().enumerate() {
        for precision in [Precision::Exact, Precision::Fast] {
            let (case, adapted) = with_adapter(gpu(number), name, true, precision);
            let plain = with_adapter(gpu(number), name, false, precision).1;
            let ids = &case.prompt("long").ids;
            let singles = vec![1; 3].into_iter().chain([5, ids.len() - 8]).collect::<Vec<_>>();
            for split in [vec![ids.len()], singles] {
                let ask = |loaded: &Loaded, base_alone| {
                    let (ids, split) = (ids.clone(), Some(split.clone()));
                    let request = LogitsRequest { ids, split, base_alone, ..LogitsRequest::default() };
                    loaded.logits_of(request).data
                };
                // The same passes with it, without it, and with it again: what is recorded of one is not the other's.
                let (with, without) = (ask(&adapted, false), ask(&adapted, true));
                assert_ne!(with, without, "{name} {precision:?} {split:?}: the adapter counts");
                assert_eq!(without, ask(&plain, false), "{name} {precision:?} {split:?}");
                assert_eq!(with, ask(&adapted, false), "{name} {precision:?} {split:?}");
            }
        }
    }
}

#[test]
fn pictures_are_read_as_the_reference_reads_them() {
    let mut findings = Findings::default();
    for (number, (name, _)) in SEEING.iter().enumerate() {
        let case = Case::read(name);
        let loaded = on(gpu(number), &case, Precision::Exact);
        for prompt in case.golden.prompts.iter().filter(|prompt| prompt.pictures() > 0).take(2) {
            let request = LogitsRequest {
                ids: prompt.ids.clone(),
                pictures: case.pixels()[..prompt.pictures()].to_vec(),
                prefix: case.prefix(prompt),
                ..LogitsRequest::default()
            };
            let logits = loaded.logits_of(request);
            let distance = worst(&logits.data, &case.tensor(&prompt.logits).data);
            findings.check(distance <= prompt.tolerance(), || {
                format!("{name} {}: {distance:e} from the reference", prompt.name)
            });
        }
    }
    findings.assert_none();
}

#[test]
fn a_shape_that_its_kernels_do_not_run_goes_to_the_processor() {
    // The tiny tower is 36 wide; tensor cores take their inputs by eight.
    let folder = Case::read(SEEING[0].0).checkpoint("config.json");
    let options = EngineOptions { device: DeviceChoice::Given(gpu(0)), ..EngineOptions::default() };
    let device = Loaded::with(folder.path(), Precision::Fast, options).model.device();
    assert_eq!(device.device, "cpu");
    assert!(device.why.as_ref().is_some_and(|why| why.contains("rows of 36 numbers")), "{device:?}");
}

#[test]
fn what_is_generated_follows_from_the_logits() {
    for (number, name) in ["gemma2-gqa", "recurrentgemma"].iter().enumerate() {
        let case = Case::read(name);
        let loaded = on(gpu(number), &case, Precision::Fast);
        let prompt = &case.prompt("window_plus1").ids;
        let request = |speculate| GenerateRequest {
            speculate,
            // What stands here is tried, and some of it is wrong.
            drafts: vec![Arc::from(&prompt[..])],
            ..loaded.request(prompt, Vec::new(), 6, Sampling::default(), endless())
        };
        let ask = |speculate| loaded.engine.submit(request(speculate)).finish_blocking(|_| {}).unwrap();
        let plain = ask(false);
        assert_eq!(plain.tokens.len(), 6, "{name}");
        // Recorded steps of one token have the bits of steps that are not.
        let ids = [&prompt[..], &plain.tokens].concat();
        let logits = loaded.logits(&ids, Some(&vec![1; ids.len()]));
        for (i, token) in plain.tokens.iter().enumerate() {
            assert_eq!(argmax(logits.row(prompt.len() - 1 + i)), *token as usize, "{name}: token {i}");
        }
        let drafted = ask(true);
        assert_eq!((drafted.tokens, drafted.timings.cached_tokens), (plain.tokens, prompt.len()), "{name}");
        // A chance among the best, and a penalty, for which all logits have to come back.
        let drawn = Sampling { temperature: 0.8, top_k: 8, seed: 3, ..Sampling::default() };
        let penalised = Sampling { repetition_penalty: 1.3, ..Sampling::default() };
        for sampling in [drawn, penalised] {
            let warm = loaded.generate(prompt, 3, sampling.clone(), endless());
            let cold = on(gpu(number), &case, Precision::Fast);
            assert_eq!(warm.ids(), cold.generate(prompt, 3, sampling, endless()).ids(), "{name}");
        }
    }
}

#[test]
fn a_prompt_goes_on_where_another_parted_from_it() {
    for (number, name) in ["gemma3-text", "recurrentgemma"].iter().enumerate() {
        let case = Case::read(name);
        let warm = on(gpu(number), &case, Precision::Exact);
        let long = &case.prompt("long").ids;
        let generated = warm.greedy(long, 2).ids();
        // More behind it, for a recurrence too; and cut back, which a recurrence of so few tokens cannot be.
        let more = [&long[..], &generated[..1], &[5, 6]].concat();
        let others = [more, case.prompt("branch_late").ids.clone()];
        for prompt in &others[..if *name == "gemma3-text" { 2 } else { 1 }] {
            let cold = on(gpu(number), &case, Precision::Exact);
            let (ours, theirs) = (warm.greedy(prompt, 3), cold.greedy(prompt, 3));
            assert_eq!(ours.ids(), theirs.ids(), "{name} {prompt:?}");
            let cached = ours.finished.timings.cached_tokens;
            assert!(cached >= long.len() - 8, "{name}: {cached} of {} tokens were found", prompt.len());
        }
    }
}

#[test]
fn a_model_whose_gpu_is_lost_goes_on_on_the_processor() {
    let case = Case::read("gemma1-mqa");
    let device = emulated(0);
    let loaded = on(Device::new(device.clone()), &case, Precision::Exact);
    let prompt = &case.prompt("short").ids;
    let before = loaded.greedy(prompt, 3);
    device.lose();
    let request = || loaded.request(&prompt[..4], Vec::new(), 3, Sampling::default(), endless());
    fails_over(&loaded, request, ErrorKind::DeviceLost);
    assert_eq!(loaded.greedy(prompt, 3).ids(), before.ids());
    assert!(loaded.model.device().why.is_some_and(|why| why.contains("GPU")));
}

#[test]
fn a_model_whose_gpu_has_no_room_for_its_work_goes_on_on_the_processor() {
    let case = Case::read("gemma1-mqa");
    let most = 1 << 30;
    let roomy = Device::new(Arc::new(Emulated::new(most, Schedule::Forward)));
    let _weights = on(roomy.clone(), &case, Precision::Exact);
    let weights = most - roomy.free_bytes().unwrap();
    let narrow = Device::new(Arc::new(Emulated::new(weights + (16 << 10), Schedule::Forward)));
    let loaded = on(narrow, &case, Precision::Exact);
    let prompt = &case.prompt("short").ids;
    let request = || loaded.request(prompt, Vec::new(), 3, Sampling::default(), endless());
    fails_over(&loaded, request, ErrorKind::DeviceFull);
    assert!(loaded.model.device().why.is_some_and(|why| why.contains("no room")));
}

/// A request fails with this, and later ones are answered by the processor.
fn fails_over(loaded: &Loaded, request: impl Fn() -> GenerateRequest, kind: ErrorKind) {
    let failed = loaded.engine.submit(request()).finish_blocking(|_| {});
    let error = failed.expect_err("its GPU fails it");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.remedy_text().is_some_and(|text| text.contains("processor")), "{error}");
    let begun = Instant::now();
    while loaded.model.device().device != "cpu" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the processor never took over");
        std::thread::sleep(Duration::from_millis(10));
    }
    let answer = loop {
        match loaded.engine.submit(request()).finish_blocking(|_| {}) {
            Ok(answer) => break answer,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "{error}"),
        }
    };
    assert_eq!(answer.tokens.len(), 3);
}

#[test]
fn what_does_not_fit_goes_to_the_processor_and_says_why() {
    let case = Case::read("gemma1-mqa");
    let folder = case.checkpoint("config.json");
    let tiny = Device::new(Arc::new(Emulated::new(1 << 16, Schedule::Forward)));
    let options = EngineOptions { device: DeviceChoice::Given(tiny), ..EngineOptions::default() };
    let loaded = Loaded::with(folder.path(), Precision::Exact, options);
    let device = loaded.model.device();
    assert_eq!(device.device, "cpu");
    assert!(device.why.as_ref().is_some_and(|why| why.contains("no room")), "{device:?}");
    let prompt = case.prompt("short");
    let distance = worst(&loaded.logits(&prompt.ids, None).data, &case.tensor(&prompt.logits).data);
    assert!(distance <= prompt.tolerance());
}

#[test]
fn a_screenshot_is_explained_from_its_file() {
    let (name, files) = SEEING[0];
    let case = Case::read(name);
    let loaded = on(gpu(0), &case, Precision::Exact);
    let path: PathBuf = places::golden(name).join(files[0]);
    let picture = Arc::new(Picture::open(&path).unwrap());
    let prompt = case.golden.prompts.iter().find(|prompt| prompt.pictures() == 1).unwrap();
    let seen = loaded.greedy_about(&prompt.ids, std::slice::from_ref(&picture), 2);
    assert!(seen.finished.timings.image_tokens > 0);
    let again = loaded.greedy_about(&prompt.ids, &[picture], 2);
    assert_eq!((again.ids(), again.finished.timings.image_tokens), (seen.ids(), 0), "its features were kept");
}

fn endless() -> Stop {
    Stop { ignore_eos: true, ..Stop::default() }
}
