//! NVIDIA's driver as this crate calls it, where there is none: a stand-in of its library (`nvidia/libcuda.c`) takes the
//! calls. A process loads a library once, so each case runs in one of its own: this program again, with the library in
//! its path and `CASE` set.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use gemma_kernels::cuda::{Buffer, CudaError, Device, open, probe, rows};

/// The variable that makes of this program a case.
const CASE: &str = "NVIDIA_CASE";

/// A folder with the stand-in in it, compiled.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nvidia");
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvidia/libcuda.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.join("libcuda.so.1")).arg(source);
        assert!(command.status().expect("there is a C compiler").success(), "{command:?}");
        folder
    })
}

/// Runs a case with the stand-in, and gives the calls that it made. Cases of other systems' libraries are none.
fn in_a_process(case: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let log = library()
        .join(format!("{case}.{}.log", thread::current().name().unwrap_or("case").replace(':', "_")));
    let _ = std::fs::remove_file(&log);
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args(["--exact", "a_case", "--nocapture"]).env("LD_LIBRARY_PATH", library()).env(CASE, case);
    command.env_remove("GEMMA_LS_GPU").env("FAKE_CUDA_LOG", &log).envs(variables.iter().copied());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case} with {variables:?}: {said}");
    std::fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

/// What the processes do that the tests start; nothing in the tests' own.
#[test]
fn a_case() {
    match std::env::var(CASE).as_deref() {
        Ok("properties") => properties(),
        Ok("reason") => reason(),
        Ok("copies") => copies(),
        Ok("launches") => launches(),
        Ok("threads") => threads(),
        Ok("full") => full(),
        Ok("lost") => lost(),
        Ok(other) => panic!("there is no case {other}"),
        Err(_) => {}
    }
}

fn device() -> Device {
    open(0).unwrap_or_else(|e| panic!("{e}"))
}

fn numbers(device: &Device, values: impl Iterator<Item = f32>) -> Buffer {
    device.numbers(&values.collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"))
}

fn properties() {
    let found = probe().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].name.as_str(), found[0].capability, found[0].driver.as_str()),
        ("Fake", (9, 0), "12.4")
    );
    assert_eq!(
        (found[0].memory_bytes, found[0].shared_bytes, found[0].multiprocessors),
        (1 << 30, 232_448, 132)
    );
    assert_eq!(
        open(1).map(|_| ()),
        Err(CudaError::Unavailable("there is no GPU 1 that can be used".to_owned()))
    );
    assert_eq!(device().properties(), &found[0]);
}

/// The reason why there is none is the one that `REASON` says.
fn reason() {
    let expected = std::env::var("REASON").expect("it is set");
    let error = open(0).map(|_| ()).expect_err("nothing can be used");
    assert_eq!(error.to_string(), expected);
}

fn copies() {
    let device = device();
    let free = device.free_bytes();
    // Several times around the ring, and neither a whole number of pieces nor of words.
    let bytes: Vec<u8> = (0..70_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut buffer = device.buffer(bytes.len() + 5).unwrap_or_else(|e| panic!("{e}"));
    buffer.fill(7).unwrap_or_else(|e| panic!("{e}"));
    buffer.upload(3, &bytes).unwrap_or_else(|e| panic!("{e}"));
    let mut other = device.buffer(buffer.bytes()).unwrap_or_else(|e| panic!("{e}"));
    other.copy_from(&buffer).unwrap_or_else(|e| panic!("{e}"));
    let mut read = vec![0; buffer.bytes()];
    other.download(0, &mut read).unwrap_or_else(|e| panic!("{e}"));
    assert!(read[3..3 + bytes.len()] == bytes[..], "what comes back is what went there");
    assert_eq!((&read[..3], &read[3 + bytes.len()..]), (&[7; 3][..], &[7; 2][..]));
    let mut empty = device.buffer(0).unwrap_or_else(|e| panic!("{e}"));
    let nothing = empty.fill(1).and_then(|()| empty.upload(0, &[])).and_then(|()| empty.download(0, &mut []));
    assert_eq!(nothing, Ok(()));
    drop((buffer, other, empty));
    assert_eq!(device.finish(), Ok(()));
    assert_eq!(device.free_bytes(), free, "everything was given back");
}

fn launches() {
    let device = device();
    let x = numbers(&device, (0..1000).map(|i| i as f32));
    let ones = numbers(&device, (0..1000).map(|_| 1.0));
    rows::add(&x, &ones, 999).unwrap_or_else(|e| panic!("{e}"));
    let twice = device.record(|| rows::add(&x, &ones, 1000).and_then(|()| rows::add(&x, &ones, 1000)));
    let twice = twice.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(x.read_numbers(998, 2), Ok(vec![999.0, 999.0]), "recorded is not launched");
    twice.replay().and_then(|()| twice.replay()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(x.read_numbers(0, 2), Ok(vec![5.0, 6.0]));
    assert_eq!(x.read_numbers(999, 1), Ok(vec![1003.0]));
}

/// While one thread records, others allocate, copy and launch, and a buffer of the recording thread goes.
fn threads() {
    let device = device();
    let x = numbers(&device, (0..1000).map(|_| 0.0));
    let ones = numbers(&device, (0..1000).map(|_| 1.0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..50 {
                    let mine = numbers(&device, (0..500).map(|i| (i + round) as f32));
                    rows::add(&mine, &ones, 500).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!(mine.read_numbers(499, 1), Ok(vec![(500 + round) as f32]));
                }
            });
        }
        for _ in 0..50 {
            let unused = device.buffer(1000).unwrap_or_else(|e| panic!("{e}"));
            let recording = device.record(|| {
                rows::add(&x, &ones, 1000)?;
                drop(unused);
                rows::add(&x, &ones, 1000)
            });
            recording.and_then(|recording| recording.replay()).unwrap_or_else(|e| panic!("{e}"));
        }
    });
    assert_eq!(x.read_numbers(0, 1), Ok(vec![100.0]));
    let asked = device.record(|| device.buffer(10).map(drop)).map(drop);
    assert!(matches!(asked, Err(CudaError::Unavailable(_))), "{asked:?}");
    assert_eq!(device.buffer(10).map(drop), Ok(()), "and it goes on");
}

fn full() {
    let device = device();
    let some = device.buffer(600_000).unwrap_or_else(|e| panic!("{e}"));
    let error = device.buffer(600_000).map(drop).expect_err("there is no room for both");
    assert_eq!(error, CudaError::OutOfMemory { bytes: 600_000 });
    drop(some);
    assert_eq!(device.buffer(600_000).map(drop), Ok(()), "a full device goes on");
}

fn lost() {
    let device = device();
    let x = numbers(&device, (0..10).map(|_| 0.0));
    let words = "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered";
    let error = CudaError::Lost(words.to_owned());
    assert_eq!(x.read_numbers(0, 1), Err(error.clone()));
    assert_eq!(error.to_string(), format!("the GPU was lost ({words})"));
    // What it said first, and without asking it again.
    assert_eq!(device.buffer(10).map(drop), Err(error.clone()));
    assert_eq!(rows::add(&x, &x, 10), Err(error.clone()));
    assert_eq!(device.record(|| rows::add(&x, &x, 10)).map(drop), Err(error));
}

#[test]
fn a_device_is_found_and_opened() {
    let calls = in_a_process("properties", &[]);
    assert_eq!(count(&calls, "cuDevicePrimaryCtxRetain"), 1, "looking opens nothing");
    assert_eq!(count(&calls, "cuDevicePrimaryCtxRelease_v2"), 1);
    for (made, gone) in [
        ("cuModuleLoadData", "cuModuleUnload"),
        ("cuStreamCreate", "cuStreamDestroy_v2"),
        ("cuEventCreate", "cuEventDestroy_v2"),
        ("cuMemHostAlloc", "cuMemFreeHost"),
    ] {
        assert!(count(&calls, made) > 0 && count(&calls, made) == count(&calls, gone), "{made}");
    }
    assert_eq!(
        calls.last().map(String::as_str),
        Some("cuDevicePrimaryCtxRelease_v2"),
        "the context goes last"
    );
}

#[test]
fn what_cannot_be_used_has_a_reason() {
    let old_driver = "the NVIDIA driver is too old: it has CUDA 11.4; version 525 or newer is needed";
    let old_device = "the Fake is too old: it has compute capability 7.5, and 8.0 is needed";
    for (variable, value, reason) in [
        ("GEMMA_LS_GPU", "off", "GPUs are switched off (GEMMA_LS_GPU=off)"),
        ("FAKE_CUDA_VERSION", "11040", old_driver),
        ("FAKE_CUDA_CAPABILITY", "75", old_device),
        ("FAKE_CUDA_FAILS", "cuInit=100", "the NVIDIA driver finds no GPU"),
        ("FAKE_CUDA_FAILS", "cuInit=803", "the NVIDIA driver does not start (error 803)"),
        ("FAKE_CUDA_FAILS", "cuDevicePrimaryCtxRetain=46", "the Fake does not open (error 46)"),
    ] {
        in_a_process("reason", &[(variable, value), ("REASON", reason)]);
    }
}

#[test]
fn copies_go_through_the_ring_in_pieces() {
    let calls = in_a_process("copies", &[]);
    assert_eq!(count(&calls, "cuMemcpyDtoDAsync_v2"), 1);
    assert!(count(&calls, "cuMemcpyHtoDAsync_v2") >= 17 && count(&calls, "cuMemcpyDtoHAsync_v2") >= 17);
}

#[test]
fn what_is_freed_goes_back_beyond_a_slack() {
    assert_eq!(count(&in_a_process("copies", &[]), "cuMemPoolTrimTo"), 0);
    assert!(count(&in_a_process("copies", &[("FAKE_CUDA_KEPT", "600000000")]), "cuMemPoolTrimTo") > 0);
}

#[test]
fn launches_are_recorded_into_a_graph() {
    let calls = in_a_process("launches", &[]);
    assert_eq!(count(&calls, "cuGraphLaunch"), 2);
    assert_eq!((count(&calls, "cuLaunchKernelEx"), count(&calls, "an overlapping launch")), (3, 3));
    assert_eq!((count(&calls, "cuGraphDestroy"), count(&calls, "cuGraphExecDestroy")), (1, 1));
}

#[test]
fn launches_overlap_only_where_kernels_and_driver_can() {
    // Kernels compiled for 8.0, whatever runs them, do not wait for the launch before by themselves.
    for capability in ["80", "89", "100"] {
        let calls = in_a_process("launches", &[("FAKE_CUDA_CAPABILITY", capability)]);
        assert_eq!(count(&calls, "an overlapping launch"), 0, "{capability}");
    }
    // Before CUDA 12.3 a graph takes no such launch.
    let calls = in_a_process("launches", &[("FAKE_CUDA_VERSION", "12020")]);
    assert_eq!((count(&calls, "an overlapping launch"), count(&calls, "cuGraphLaunch")), (1, 2));
    // One that should and does not gets them without.
    let calls = in_a_process("launches", &[("FAKE_CUDA_NO_OVERLAP_IN_GRAPHS", "1")]);
    assert_eq!((count(&calls, "an overlapping launch"), count(&calls, "cuGraphLaunch")), (2, 2));
}

#[test]
fn without_graphs_launches_go_one_by_one() {
    for failing in ["cuStreamBeginCapture_v2=1", "cuStreamEndCapture=901", "cuGraphInstantiateWithFlags=2"] {
        let calls = in_a_process("launches", &[("FAKE_CUDA_FAILS", failing)]);
        assert_eq!(count(&calls, "cuGraphLaunch"), 0, "{failing}");
    }
    let calls = in_a_process("launches", &[("FAKE_CUDA_FAILS", "cuGraphLaunch=2")]);
    assert_eq!(count(&calls, "cuLaunchKernelEx"), 7, "no room for the graph");
}

#[test]
fn threads_do_not_disturb_a_recording() {
    in_a_process("threads", &[]);
}

#[test]
fn a_full_device_goes_on() {
    let calls = in_a_process("full", &[("FAKE_CUDA_MEMORY", "1000000")]);
    assert_eq!(count(&calls, "cuMemPoolTrimTo"), 1, "it tries again with what the pool kept");
}

#[test]
fn a_lost_device_says_why_and_is_not_asked_again() {
    let calls = in_a_process("lost", &[("FAKE_CUDA_FAILS", "cuEventSynchronize=700")]);
    assert_eq!(count(&calls, "cuMemAllocAsync"), 1);
}
