//! The driver's calls as safe functions, for tests that misuse it.

use std::ops::Deref;

use gemma_kernels::cuda::{Address, CudaError, Driver, Launch, Properties};

use crate::{Emulated, Schedule};

/// An emulated device of which anything may be asked: what callers of a driver have to vouch for, it checks itself.
/// Only a kernel that goes far astray can do harm, as any planted bug can.
#[derive(Debug)]
pub struct Bare(Emulated);

impl Deref for Bare {
    type Target = Emulated;

    fn deref(&self) -> &Emulated {
        &self.0
    }
}

impl Bare {
    /// As [`Emulated::new`].
    pub fn new(memory_bytes: u64, schedule: Schedule) -> Self {
        Self(Emulated::new(memory_bytes, schedule))
    }

    /// As [`Emulated::of`].
    pub fn of(properties: Properties, schedule: Schedule) -> Self {
        Self(Emulated::of(properties, schedule))
    }

    /// As [`Emulated::watched`].
    pub fn watched(properties: Properties, schedule: Schedule) -> Self {
        Self(Emulated::watched(properties, schedule))
    }

    /// As [`Driver::free`].
    pub fn free(&self, address: Address) {
        // SAFETY: what is no allocation's address is found, and addresses are never used twice.
        unsafe { self.0.free(address) }
    }

    /// As [`Driver::upload`].
    pub fn upload(&self, to: Address, from: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the bounds are checked.
        unsafe { self.0.upload(to, from) }
    }

    /// As [`Driver::download`].
    pub fn download(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: the bounds are checked.
        unsafe { self.0.download(from, to) }
    }

    /// As [`Driver::copy`].
    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the bounds are checked; the tests copy from one buffer to another.
        unsafe { self.0.copy(to, from, bytes) }
    }

    /// As [`Driver::fill`].
    pub fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the bounds are checked.
        unsafe { self.0.fill(to, byte, bytes) }
    }

    /// As [`Driver::launch`].
    pub fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        // SAFETY: the arguments' kinds are checked, and pages that nobody may access lie around all memory.
        unsafe { self.0.launch(launch) }
    }

    /// As [`Driver::replay`].
    pub fn replay(&self, recording: u64) -> Result<(), CudaError> {
        // SAFETY: as a launch, of each of them.
        unsafe { self.0.replay(recording) }
    }
}
