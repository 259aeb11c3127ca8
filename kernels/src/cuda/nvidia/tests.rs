//! What can be said of the driver without a device: reasons, choices, and what the program carries.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::images::{SOURCES, Target, target};
use super::*;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn a_device(name: &str, capability: (u32, u32)) -> Found {
    let properties = Properties { name: name.to_owned(), capability, ..Properties::default() };
    Found { device: 0, driver: (12, 4), properties }
}

fn names(found: Result<Vec<Found>, CudaError>) -> Result<Vec<String>, String> {
    match found {
        Ok(found) => Ok(found.into_iter().map(|found| found.properties.name).collect()),
        Err(CudaError::Unavailable(reason)) => Err(reason),
        Err(other) => panic!("a reason was expected: {other:?}"),
    }
}

/// The kernels of each source, as their first lines name them.
fn kernels_of_the_sources() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(folder("cuda")).expect("it is there").flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("sources are text");
        let kernels = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("KERNEL")?;
            let rest = rest.strip_prefix("_OF").map_or(Some(rest), |rest| Some(rest.split_once(')')?.1))?;
            Some(rest.split_once('(')?.0.trim().to_owned())
        });
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        found.insert(name, kernels.collect());
    }
    found
}

#[test]
fn without_a_driver_there_is_a_reason() {
    // SAFETY: it loads the driver's library by its name, and lets go of it.
    if unsafe { sys::is_culib_present() } {
        eprintln!("this machine has a driver: nothing to see here");
        return;
    }
    let reason = CudaError::Unavailable("no NVIDIA driver was found (libcuda.so.1)".to_owned());
    if cfg!(target_os = "linux") && std::env::var_os(CHOICE).is_none() {
        assert_eq!(probe(), Err(reason.clone()));
        assert_eq!(open(0).map(|_| ()), Err(reason.clone()));
        assert_eq!(reason.to_string(), "no NVIDIA driver was found (libcuda.so.1)");
    }
}

#[test]
fn a_panic_of_the_bindings_is_a_reason() {
    let error = guarded::<()>(|| panic!("Missing symbol cuSomething")).expect_err("it panicked");
    assert!(error.to_string().contains("lacks functions"), "{error}");
}

#[test]
fn the_environment_hides_devices() {
    assert_eq!(choice(None), Ok(Choice::All));
    assert_eq!(choice(Some("")), Ok(Choice::All));
    assert_eq!(choice(Some("1")), Ok(Choice::One(1)));
    let reason = |value| choice(Some(value)).expect_err("no device may be used").to_string();
    assert_eq!(reason("off"), "GPUs are switched off (GEMMA_LS_GPU=off)");
    for wrong in ["on", "-1", "1.5", "cuda:0"] {
        assert!(reason(wrong).contains(wrong) && reason(wrong).contains("\"off\""), "{}", reason(wrong));
    }
}

#[test]
fn of_the_devices_found_those_are_used_that_can_be() {
    let machine = || vec![a_device("Old", (7, 5)), a_device("New", (8, 9)), a_device("Newer", (9, 0))];
    assert_eq!(names(among(machine(), Choice::All)), Ok(vec!["New".to_owned(), "Newer".to_owned()]));
    assert_eq!(names(among(machine(), Choice::One(2))), Ok(vec!["Newer".to_owned()]));
    let too_old = "the Old is too old: it has compute capability 7.5, and 8.0 is needed";
    assert_eq!(names(among(machine(), Choice::One(0))), Err(too_old.to_owned()));
    assert_eq!(names(among(vec![a_device("Old", (7, 5))], Choice::All)), Err(too_old.to_owned()));
    let outside = names(among(machine(), Choice::One(3))).expect_err("there are three");
    assert!(outside.contains("GEMMA_LS_GPU is 3") && outside.contains("are 3, counted from 0"), "{outside}");
    let none = names(among(Vec::new(), Choice::All));
    assert_eq!(none, Err("the NVIDIA driver finds no GPU".to_owned()));
}

#[test]
fn a_device_runs_what_was_compiled_for_it() {
    let cases = [
        ((7, 5), None),
        ((8, 0), Some(Target::Sm80)),
        ((8, 6), Some(Target::Sm80)),
        ((8, 9), Some(Target::Sm80)),
        // Systems on a chip.
        ((8, 7), Some(Target::Compute80)),
        ((9, 0), Some(Target::Sm90a)),
        ((10, 0), Some(Target::Compute80)),
        ((11, 0), Some(Target::Compute80)),
        ((12, 0), Some(Target::Sm120)),
        ((12, 1), Some(Target::Sm120)),
        ((13, 0), Some(Target::Compute80)),
    ];
    for (capability, expected) in cases {
        assert_eq!(target(capability), expected, "{capability:?}");
    }
    // Kernels compiled for 8.0 do not wait for the launch before, wherever they run.
    assert!(Target::Sm90a.waits() && Target::Sm120.waits());
    assert!(!Target::Sm80.waits() && !Target::Compute80.waits());
}

#[test]
fn images_are_what_their_targets_take() {
    assert!(!SOURCES.is_empty());
    for source in SOURCES {
        for (target, number) in [(Target::Sm80, 80), (Target::Sm90a, 90), (Target::Sm120, 120)] {
            let image = source.image(target).expect("it is whole");
            assert_eq!(&image[..4], b"\x7fELF", "{} for {target:?}", source.name);
            // EM_CUDA, and the capability that the header's flags name.
            assert_eq!(image[18..20], 190u16.to_le_bytes(), "{} for {target:?}", source.name);
            assert!(image[48..52].contains(&number), "{} for {target:?}", source.name);
        }
        let text = source.image(Target::Compute80).expect("it is whole");
        assert_eq!(text.iter().position(|&byte| byte == 0), Some(text.len() - 1), "one zero, at the end");
        assert!(String::from_utf8_lossy(&text).contains(".target sm_80"), "{}", source.name);
    }
}

#[test]
fn every_kernel_of_the_sources_is_carried() {
    let carried: BTreeMap<String, Vec<String>> = SOURCES
        .iter()
        .map(|s| (s.name.to_owned(), s.kernels.iter().map(|&kernel| kernel.to_owned()).collect()))
        .collect();
    assert_eq!(carried, kernels_of_the_sources(), "kernels/cuda/build.py compiles them again");
    let mut names: Vec<_> = carried.values().flatten().collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "no two kernels have one name");
}

#[test]
fn the_manifest_lists_every_kernel_of_the_sources() {
    let text = fs::read(folder("prebuilt/manifest.json")).expect("it is there");
    let manifest: Value = serde_json::from_slice(&text).expect("it is JSON");
    for (source, kernels) in kernels_of_the_sources() {
        let listed = &manifest["sources"][format!("{source}.cu")]["kernels"];
        assert_eq!(listed.as_object().map(|all| all.len()), Some(kernels.len()), "{source}");
        for kernel in kernels {
            for target in ["sm_80", "sm_90a", "sm_120"] {
                let use_of = |what: &str| listed[&kernel][target][what].as_u64();
                let registers = use_of("registers").expect("a number");
                let threads = use_of("threads").expect("a number");
                assert_eq!(use_of("spills"), Some(0), "{kernel} for {target}");
                assert!(registers * threads <= 65536, "{kernel} for {target} cannot be launched");
            }
        }
    }
}
