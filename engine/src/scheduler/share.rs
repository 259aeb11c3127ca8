//! How many threads compute while other programs use the processor too.
//!
//! A loop over threads ends with the last of them: one that has to share its processor holds up all the others, and the other
//! program with them: where one of two cores is taken, a 270M writes 46 tokens a second with two threads and 59 with one, and
//! the other program gets a third more done. So no more threads compute than there are processors that nobody else uses,
//! but never fewer than half of the threads: whoever types waits for the answer. What runs at a low priority makes room by
//! itself and does not count, nor does what a virtual machine's host takes. Known on Linux only; elsewhere all compute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gemma_kernels::Cpu;

/// Between two looks: the system counts hundredths of a second.
const PERIOD: Duration = Duration::from_millis(250);
/// What was counted over a longer time says little about now.
const LONGEST: Duration = Duration::from_secs(5);

/// The compute threads' share of the processor.
pub(crate) struct Share {
    cpu: Arc<Cpu>,
    before: Option<(Instant, Ticks)>,
}

impl Share {
    /// Of these threads, all of which compute until something else is seen.
    pub(crate) fn new(cpu: Arc<Cpu>) -> Self {
        Self { cpu, before: None }
    }

    /// To be called again and again while there is something to compute; now and then it looks what else runs.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if self.before.is_some_and(|(at, _)| now - at < PERIOD) {
            return;
        }
        let before = self.before.take();
        self.before = Ticks::read().map(|ticks| (now, ticks));
        if let (Some((_, ticks)), Some((at, before))) = (self.before, before)
            && now - at <= LONGEST
            && let Some(free) = ticks.free_since(before)
        {
            self.cpu.use_threads(threads(self.cpu.threads(), free));
        }
    }
}

/// How many of `all` threads compute where so many processors are free.
fn threads(all: usize, free: f64) -> usize {
    (free.round() as usize).clamp(all.div_ceil(2), all)
}

/// What processors have done so far, in the system's unit of time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    processors: usize,
    /// All time there was, of all processors together.
    all: u64,
    /// In which somebody computed, at a usual priority.
    busy: u64,
    /// This process among them.
    own: u64,
}

impl Ticks {
    fn read() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let read = |path| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// Of what `/proc/stat` and `/proc/self/stat` say, see proc(5).
    fn parse(system: &str, own: &str) -> Option<Self> {
        let mut lines = system.lines();
        let numbers = lines.next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<u64>);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
        // What is computed for guests counts in the first two already.
        let [user, _nice, kernel, _idle, _waiting, interrupts, soft_interrupts] = *numbers.first_chunk()?;
        let processors = lines.take_while(|line| line.starts_with("cpu")).count();
        // The name before it, in parentheses, may hold anything.
        let mut own = own.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u64>);
        let (own_user, own_kernel) = (own.next()?.ok()?, own.next()?.ok()?);
        Some(Self {
            processors,
            all: numbers.iter().take(8).sum(),
            busy: user + kernel + interrupts + soft_interrupts,
            own: own_user + own_kernel,
        })
    }

    /// How many processors nobody else used, on average; `None` where no time has passed.
    fn free_since(self, before: Self) -> Option<f64> {
        let passed = |of: fn(Self) -> u64| of(self).saturating_sub(of(before)) as f64;
        let all = passed(|ticks| ticks.all);
        let others = (passed(|ticks| ticks.busy) - passed(|ticks| ticks.own)).max(0.0);
        (all > 0.0).then(|| self.processors as f64 * (1.0 - others / all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "cpu  1000 20 300 5000 40 5 6 700 80 9\ncpu0 1 0 0 0\ncpu1 1 0 0 0\nintr 5 6\n";

    fn of_own(user: u64, kernel: u64) -> String {
        format!("77 (a (b) 1 2 3) S 1 2 3 4 5 6 7 8 9 10 {user} {kernel} 0 0 20 0 4 0 1")
    }

    #[test]
    fn ticks_are_read() {
        let ticks = Ticks { processors: 2, all: 7071, busy: 1311, own: 33 };
        assert_eq!(Ticks::parse(SYSTEM, &of_own(30, 3)), Some(ticks));
        for (system, own) in
            [("", ""), (SYSTEM, ""), ("", "1 (a) S"), ("cpu  1 2 x\n", "1 (a) S"), ("cpu  1 2\n", "1 (a) S")]
        {
            assert_eq!(Ticks::parse(system, own), None, "{system:?}, {own:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_system_tells() {
        let ticks = Ticks::read().expect("Linux counts what its processors do");
        assert!(ticks.processors > 0 && ticks.all > ticks.busy, "{ticks:?}");
    }

    #[test]
    fn a_processor_that_others_use_is_not_free() {
        let at = |all, busy, own| Ticks { processors: 8, all, busy, own };
        let free = |all: u64, busy: u64, own: u64| {
            at(1000 + all, 500 + busy, 100 + own).free_since(at(1000, 500, 100))
        };
        assert_eq!(free(800, 0, 0), Some(8.0));
        assert_eq!(free(800, 400, 400), Some(8.0), "what we use ourselves is free");
        assert_eq!(free(800, 700, 400), Some(5.0));
        assert_eq!(free(800, 390, 400), Some(8.0), "both are not counted at the same time");
        assert_eq!(free(0, 0, 0), None);
    }

    #[test]
    fn half_of_the_threads_compute_whatever_else_runs() {
        for (all, free, want) in [
            (8, 8.0, 8),
            (8, 16.0, 8),
            (8, 5.4, 5),
            (8, 0.0, 4),
            (2, 1.6, 2),
            (2, 1.4, 1),
            (3, 0.0, 2),
            (1, 0.0, 1),
        ] {
            assert_eq!(threads(all, free), want, "{all} threads, {free} processors");
        }
    }
}
