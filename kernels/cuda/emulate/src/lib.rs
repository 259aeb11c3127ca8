//! A CUDA device on the CPU: the kernels' own sources, compiled by a C++ compiler, every thread a fiber.
//!
//! It finds missing barriers, wrong waits, reads of what was never written, accesses outside of memory and much else;
//! it says nothing of speed, nor of the order in which a real device's memory sees writes. See its README.

use std::sync::Arc;

use gemma_kernels::cuda::Device;

mod coverage;
mod device;
mod memory;
mod runtime;
mod schedule;
mod source;

pub use coverage::{covers, kernels};
pub use device::{Emulated, ampere, hopper};
pub use schedule::{SCHEDULES, Schedule};

/// Devices that a kernel's test goes through, with what to call each: threads and blocks in every order, on what is
/// like an H100 and on what has less shared memory; and one that is told of every access to memory.
pub fn devices(memory_bytes: u64) -> Vec<(String, Device)> {
    let properties = |i| if i % 2 == 0 { hopper(memory_bytes) } else { ampere(memory_bytes) };
    let plain = SCHEDULES.into_iter().enumerate().map(|(i, schedule)| Emulated::of(properties(i), schedule));
    let watched = Emulated::watched(hopper(memory_bytes), Schedule::Forward);
    plain.chain([watched]).map(|device| (device.to_string(), Device::new(Arc::new(device)))).collect()
}
