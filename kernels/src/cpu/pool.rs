//! A thread pool for loops of microseconds: workers spin for the next loop for a moment, then sleep.
//!
//! A general pool wakes its threads through the kernel for every loop, which costs more than most of
//! the loops here take. An idle pool sleeps: it uses no CPU at all. And where other programs keep the
//! cores busy, a loop does not wait for a worker that has no core: only those that have joined it count.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the spinning loop before a worker sleeps: about a millisecond, more than lies between two
/// operations of one forward pass or between two tokens.
const SPINS: u32 = 20_000;

type Body<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// The number of the loop that workers may join; 0 while there is none.
    open: AtomicUsize,
    /// Workers inside the loop.
    joined: AtomicUsize,
    body: UnsafeCell<Option<Body<'static>>>,
    items: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Workers that may join; those behind them rest.
    wanted: AtomicUsize,
    /// Workers that sleep until there is a loop.
    sleepers: Mutex<usize>,
    wake: Condvar,
    /// What resting workers wait on.
    rest: Condvar,
}

// SAFETY: `body` is written only by the thread that holds the pool's turn, before it opens a loop and
// after `joined` was zero with no loop open; a worker reads it only while it has joined an open loop. Both
// counters are sequentially consistent, so a worker that joins either sees the loop closed or is seen.
unsafe impl Sync for Shared {}

/// A pool of `threads` threads, the calling one included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Number of the last loop; holding it is the turn to open one.
    turn: Mutex<usize>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts a pool; fewer threads than asked for if the system refuses some.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            open: AtomicUsize::new(0),
            joined: AtomicUsize::new(0),
            body: UnsafeCell::new(None),
            items: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wanted: AtomicUsize::new(usize::MAX),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            rest: Condvar::new(),
        });
        let workers = (0..threads.saturating_sub(1))
            .map_while(|i| {
                let shared = shared.clone();
                let name = format!("gemma-compute-{}", i + 1);
                std::thread::Builder::new().name(name).spawn(move || work(&shared, i)).ok()
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(0) }
    }

    /// Threads that compute, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Has the loops from now on run on at most so many of the threads, the calling one included; the others rest.
    pub fn use_threads(&self, count: usize) {
        let wanted = count.saturating_sub(1);
        if self.shared.wanted.swap(wanted, Ordering::Relaxed) == wanted {
            return;
        }
        // Whoever has just looked, and is about to sleep, holds the lock.
        drop(lock(&self.shared.sleepers));
        self.shared.wake.notify_all();
        self.shared.rest.notify_all();
    }

    /// How many of so many pieces of work to take at a time, at most `most`: a quarter of a thread's share, so that none waits
    /// long for the others at the end.
    pub(super) fn chunk(&self, pieces: usize, most: usize) -> usize {
        (pieces / (4 * self.threads())).clamp(1, most)
    }

    /// Calls `body` with every index below `items`, spread over the threads, and returns when all are
    /// done. Items are taken one at a time, so an uneven machine stays busy. A panic in `body` is
    /// passed on to the caller. Not to be called from inside `body`.
    pub fn run(&self, items: usize, body: &(dyn Fn(usize) + Sync)) {
        if items <= 1 || self.workers.is_empty() {
            (0..items).for_each(body);
            return;
        }
        let mut number = lock(&self.turn);
        *number = number.wrapping_add(1).max(1);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; this function does not return, nor unwind, before the loop
        // is closed and every worker has left it.
        let body: Body<'static> = unsafe { std::mem::transmute::<Body<'_>, Body<'static>>(body) };
        // SAFETY: no loop is open, nobody has joined one, and the turn is ours.
        unsafe { *shared.body.get() = Some(body) };
        shared.items.store(items, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.open.store(*number, Ordering::SeqCst);
        if *lock(&shared.sleepers) > 0 {
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| take_items(shared, body)));
        shared.open.store(0, Ordering::SeqCst);
        let mut spins = 0u32;
        while shared.joined.load(Ordering::SeqCst) != 0 {
            spins += 1;
            // With fewer free cores than threads a worker may need ours to get on.
            if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        match mine {
            Err(panic) => resume_unwind(panic),
            Ok(()) if theirs => panic!("a compute thread panicked"),
            Ok(()) => {}
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleepers));
        self.shared.wake.notify_all();
        self.shared.rest.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a body: there is nothing to report.
            let _ = worker.join();
        }
    }
}

fn take_items(shared: &Shared, body: Body<'_>) {
    let items = shared.items.load(Ordering::Relaxed);
    loop {
        let item = shared.next.fetch_add(1, Ordering::Relaxed);
        if item >= items {
            return;
        }
        body(item);
    }
}

fn work(shared: &Shared, worker: usize) {
    let mut seen = 0;
    while wait_for_loop(shared, worker, seen) {
        shared.joined.fetch_add(1, Ordering::SeqCst);
        let open = shared.open.load(Ordering::SeqCst);
        if open != 0 {
            seen = open;
            // SAFETY: this worker has joined and the loop is open: the caller waits for it.
            if let Some(body) = unsafe { *shared.body.get() }
                && catch_unwind(AssertUnwindSafe(|| take_items(shared, body))).is_err()
            {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.joined.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a loop other than `seen` in which the worker is wanted; `false` once the pool stops.
fn wait_for_loop(shared: &Shared, worker: usize, seen: usize) -> bool {
    let stops = || shared.stop.load(Ordering::SeqCst);
    let is_wanted = || worker < shared.wanted.load(Ordering::Relaxed);
    let ready = || {
        let open = shared.open.load(Ordering::SeqCst);
        (open != 0 && open != seen && is_wanted()) || stops()
    };
    loop {
        let mut spins = 0;
        while spins < SPINS && is_wanted() {
            if ready() {
                return !stops();
            }
            spins += 1;
            std::hint::spin_loop();
        }
        let mut sleepers = lock(&shared.sleepers);
        if ready() {
            return !stops();
        }
        // A loop may be over before whoever was woken for it runs: the next one follows soon, and is waited for spinning.
        if is_wanted() {
            *sleepers += 1;
            sleepers = shared.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
            *sleepers -= 1;
        } else {
            // No sleeper: a loop that opens need not wake it.
            drop(shared.rest.wait(sleepers).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_exactly_once() {
        let pool = Pool::new(4);
        for items in [0, 1, 2, 3, 17, 1000] {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            pool.run(items, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{items} items");
        }
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            // Long enough for the workers to fall asleep.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn threads_that_are_not_wanted_rest_until_they_are() {
        let pool = Pool::new(4);
        // Loops until so many threads have taken part, and some more.
        let threads = |used: usize| {
            let seen = Mutex::new(std::collections::HashSet::new());
            let (mut loops, mut more) = (0, 10);
            while loops < 10_000 && more > 0 {
                pool.run(16, &|_| {
                    lock(&seen).insert(std::thread::current().id());
                    std::thread::sleep(std::time::Duration::from_micros(50));
                });
                loops += 1;
                more -= usize::from(lock(&seen).len() >= used);
            }
            lock(&seen).len()
        };
        assert_eq!(threads(4), 4);
        for (wanted, used) in [(2, 2), (0, 1), (1, 1), (3, 3), (9, 4)] {
            pool.use_threads(wanted);
            assert_eq!(threads(used), used, "{wanted} are wanted");
            // Long enough for all to fall asleep.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(threads(used), used, "{wanted} are wanted, after a sleep");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(50, &|i| assert!(i != 33))));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(8, &|_| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3200);
    }
}
