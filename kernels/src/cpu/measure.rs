//! What this machine can do at best, measured: the bounds that kernels are held against.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Cpu;
use super::pack::Aligned;
use super::simd::{Kernel, Simd};

/// Much larger than any cache.
const BYTES: usize = 1 << 29;
/// Parts that threads take in turn.
const PARTS: usize = 256;
/// Steps of a measured loop.
const STEPS: usize = 1 << 22;
/// Vectors that are multiplied and added without waiting for each other, at most.
const CHAINS: usize = 12;
/// Streams of which a core reads as much as of more, and bytes ahead at which it does best, of one stream and of these.
const STREAMS: usize = 4;
const AHEAD_OF_ONE: usize = 4096;
const AHEAD_OF_EACH: usize = 512;
/// Runs, of which the best counts.
const RUNS: usize = 3;

impl Cpu {
    /// Bytes a second that all threads together read from memory. Takes about a second and half a gigabyte.
    pub fn measure_bandwidth(&self) -> f64 {
        let mut memory = Aligned::zeroed(BYTES);
        // Pages that nobody has written are all one page of zeros.
        for at in (0..BYTES).step_by(4096) {
            // SAFETY: inside the memory.
            unsafe { *memory.as_mut_ptr().add(at) = 1 };
        }
        // SAFETY: the memory is that long and aligned to more than words.
        let words = unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<u64>(), BYTES / 8) };
        let total = AtomicU64::new(0);
        // A core reads faster with what it reads next asked for, or without; one stream, or several at a time.
        let ways = [(1, 0), (1, AHEAD_OF_ONE), (STREAMS, 0), (STREAMS, AHEAD_OF_EACH)];
        let seconds = ways.map(|(streams, ahead)| {
            best_of(|| {
                self.pool.run(PARTS, &|part| {
                    let part = &words[part * words.len() / PARTS..(part + 1) * words.len() / PARTS];
                    total.fetch_add(add_up(part, streams, ahead / 8), Ordering::Relaxed);
                });
            })
        });
        let seconds = seconds.into_iter().fold(f64::INFINITY, f64::min);
        black_box(total.into_inner());
        BYTES as f64 / seconds
    }

    /// Floating-point operations a second of all threads together, at what the level multiplies fastest: bf16 on matrix
    /// units, else f32 fused multiply-adds.
    pub fn measure_peak(&self) -> f64 {
        let threads = self.threads();
        let one = |work: &(dyn Fn() -> f64 + Sync)| {
            let operations = AtomicU64::new(0);
            let seconds = best_of(|| {
                operations.store(0, Ordering::Relaxed);
                self.pool.run(threads, &|_| {
                    operations.fetch_add(work() as u64, Ordering::Relaxed);
                });
            });
            operations.into_inner() as f64 / seconds
        };
        match self.level {
            #[cfg(target_arch = "x86_64")]
            super::Level::Amx => one(&|| super::amx::tile_products::busy(STEPS / 16)),
            level => one(&|| {
                let mut chains = 0;
                // SAFETY: the level was detected; there are no pointers.
                unsafe { level.run(Busy { chains: &mut chains }) };
                // Sixteen lanes, two operations each.
                (STEPS * chains * 16 * 2) as f64
            }),
        }
    }
}

/// Adds up words in so many streams side by side, which are asked for so many words ahead.
fn add_up(words: &[u64], streams: usize, ahead: usize) -> u64 {
    /// Words read of a stream at a time.
    const STEP: usize = 32;
    let stream = words.len() / streams;
    // Several sums, so that additions do not wait for each other.
    let mut sums = [0u64; STEP];
    for at in (0..stream).step_by(STEP) {
        for words in words.chunks_exact(stream) {
            let Some(words) = words.get(at..at + STEP) else { continue };
            if ahead > 0 {
                for line in words.chunks(8) {
                    prefetch(line.as_ptr().wrapping_add(ahead));
                }
            }
            sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Asks for a cache line, where there is an instruction for it.
fn prefetch(at: *const u64) {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: nothing is read; an address that is not there is passed over.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
}

/// The shortest of some runs, in seconds.
fn best_of(mut run: impl FnMut()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Multiplies and adds in registers, in as many chains as these hold; tells how many they are.
struct Busy<'a> {
    chains: &'a mut usize,
}

impl Kernel for Busy<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let count = if S::FEW_REGISTERS { CHAINS / 2 } else { CHAINS };
        *self.chains = count;
        // SAFETY: nothing but registers.
        unsafe {
            let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
            let mut chains = [S::splat(1.0); CHAINS];
            for _ in 0..STEPS {
                for chain in &mut chains[..count] {
                    *chain = S::fma(*chain, a, b);
                }
            }
            for chain in chains {
                black_box(S::sum(chain));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Level;

    #[test]
    fn the_bounds_are_numbers() {
        let cpu = Cpu::new(1, Level::detect());
        let (bandwidth, peak) = (cpu.measure_bandwidth(), cpu.measure_peak());
        assert!(bandwidth > 1e8 && bandwidth < 1e13, "{bandwidth:e} bytes a second");
        assert!(peak > 1e8 && peak < 1e16, "{peak:e} operations a second");
    }
}
