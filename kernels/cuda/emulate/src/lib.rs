//! A CUDA device on the CPU: the kernels' own sources, compiled by a C++ compiler, every thread a fiber.
//!
//! It finds missing barriers, wrong waits, reads of what was never written, accesses outside of memory and
//! much else; it says nothing of speed, nor of the order in which a real device's memory sees writes. See its
//! README.

use std::sync::{Arc, OnceLock};

use gemma_kernels::cuda::Device;

mod bare;
mod coverage;
mod device;
mod memory;
mod runtime;
mod schedule;
mod source;

pub use bare::Bare;
pub use coverage::{covers, kernels};
pub use device::{Emulated, ampere, hopper};
pub use schedule::{SCHEDULES, Schedule};

/// The environment variable that lets tests use this machine's GPU where it is `1`.
const GPU: &str = "GEMMA_LS_TEST_GPU";

/// Devices that a kernel's test goes through, with what to call each: threads and blocks in every order, on
/// what is like an H100 and on what has less shared memory; one that is told of every access to memory; and,
/// where `GEMMA_LS_TEST_GPU=1` asks for it, a real one.
///
/// # Panics
/// If a real one is asked for and cannot be opened.
pub fn devices(memory_bytes: u64) -> Vec<(String, Device)> {
    let properties = |i| if i % 2 == 0 { hopper(memory_bytes) } else { ampere(memory_bytes) };
    let plain = SCHEDULES.into_iter().enumerate().map(|(i, schedule)| Emulated::of(properties(i), schedule));
    let watched = Emulated::watched(hopper(memory_bytes), Schedule::Forward);
    let emulated = plain.chain([watched]).map(|device| (device.to_string(), Device::new(Arc::new(device))));
    emulated.chain(gpu().map(|device| (device.properties().name.clone(), device))).collect()
}

/// This machine's GPU where `GEMMA_LS_TEST_GPU=1` asks for it, opened once for all tests of a program.
///
/// # Panics
/// If it is asked for and cannot be opened.
pub fn gpu() -> Option<Device> {
    static OPENED: OnceLock<Device> = OnceLock::new();
    let open = || gemma_kernels::cuda::open(0).unwrap_or_else(|e| panic!("{GPU}=1, but {e}"));
    let asked = std::env::var_os(GPU).is_some_and(|asked| asked == "1");
    asked.then(|| OPENED.get_or_init(open).clone())
}
