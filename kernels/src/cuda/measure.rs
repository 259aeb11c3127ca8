//! What a device can do at best: the bounds that kernels are held against.

use std::time::Instant;

use super::{CudaError, Device};

/// Bytes that are copied, much more than any cache holds.
const BYTES: usize = 1 << 30;
/// Copies in a run, and runs, of which the best counts.
const COPIES: usize = 8;
const RUNS: usize = 3;

impl Device {
    /// Bytes a second that a copy from memory to memory reads and writes. Takes 2 GiB, or less where less is free.
    pub fn measure_bandwidth(&self) -> Result<f64, CudaError> {
        let bytes = BYTES.min(self.free_bytes()? as usize / 4);
        let from = self.buffer_of(&vec![1; bytes])?;
        let mut to = self.buffer(bytes)?;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            self.finish()?;
            let begun = Instant::now();
            (0..COPIES).try_for_each(|_| to.copy_from(&from))?;
            self.finish()?;
            best = best.min(begun.elapsed().as_secs_f64());
        }
        Ok((2 * bytes * COPIES) as f64 / best)
    }

    /// Floating-point operations a second of dense bf16 products on tensor cores with f32 sums, by the highest clock
    /// and what a multiprocessor does in a cycle as its maker states it.
    pub fn peak(&self) -> f64 {
        let properties = self.properties();
        let a_cycle = match properties.capability {
            (8, 0) => 2048,
            (9 | 10, _) => 4096,
            // Those for desktops and laptops.
            _ => 512,
        };
        f64::from(properties.multiprocessors) * f64::from(a_cycle) * f64::from(properties.clock_mhz) * 1e6
    }
}
