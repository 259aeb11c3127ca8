//! The device: memory, launches and recordings as a driver has them, and every misuse of it an error.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gemma_kernels::cuda::{Address, Arg, CudaError, Driver, Launch, Properties};

use crate::memory::Memory;
use crate::runtime::{self, Failure, Terms, Watch};
use crate::{Schedule, coverage};

/// A device that runs on the CPU. A launch is done when it returns; where one fails the device is lost, as a
/// real one is.
#[derive(Debug)]
pub struct Emulated {
    properties: Properties,
    schedule: Schedule,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    recording: Option<Vec<Recorded>>,
    recordings: HashMap<u64, Vec<Recorded>>,
    next: u64,
    watch: Option<Watch>,
    /// Launches so far, and how many of them had ended at the last operation that waits for all.
    launches: u32,
    settled: u32,
    /// Why nothing can be done any more.
    lost: Option<String>,
}

/// A launch with its arguments.
#[derive(Debug, Clone)]
struct Recorded {
    kernel: &'static str,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    overlaps: bool,
    args: Vec<Arg>,
}

/// What an emulated H100 says of itself, with so much memory.
pub fn hopper(memory_bytes: u64) -> Properties {
    Properties {
        name: "Emulated 9.0".to_owned(),
        capability: (9, 0),
        multiprocessors: 4,
        clock_mhz: 1000,
        memory_bytes,
        shared_bytes: 227 << 10,
        driver: "none".to_owned(),
    }
}

/// What an emulated device says of itself that is older, with the shared memory that the smallest ones have.
pub fn ampere(memory_bytes: u64) -> Properties {
    Properties {
        name: "Emulated 8.0".to_owned(),
        capability: (8, 0),
        shared_bytes: 99 << 10,
        ..hopper(memory_bytes)
    }
}

impl Emulated {
    /// One like an H100, with so much memory, whose threads take turns like this.
    pub fn new(memory_bytes: u64, schedule: Schedule) -> Self {
        Self::of(hopper(memory_bytes), schedule)
    }

    /// One with these properties.
    pub fn of(properties: Properties, schedule: Schedule) -> Self {
        Self { properties, schedule, state: Mutex::default() }
    }

    /// One that is told of every access to memory, and finds those that nothing orders: slower, by ten times
    /// and more.
    pub fn watched(properties: Properties, schedule: Schedule) -> Self {
        let device = Self::of(properties, schedule);
        device.lock().watch = Some(Watch::new());
        device
    }

    /// From here on all fails, as on a device that was reset or unplugged.
    pub fn lose(&self) {
        self.lock().lost = Some("unplugged".to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for what may not be done while launches are recorded.
    fn idle(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let mut state = self.present()?;
        match state.recording {
            Some(_) => Err(state.lose("something else than a launch while launches are recorded".to_owned())),
            None => Ok(state),
        }
    }

    /// The same, for what waits until all launches before have ended.
    fn after_all(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let mut state = self.idle()?;
        state.settled = state.launches;
        Ok(state)
    }

    /// The state, unless the device is lost.
    fn present(&self) -> Result<MutexGuard<'_, State>, CudaError> {
        let state = self.lock();
        match &state.lost {
            Some(why) => Err(CudaError::Lost(why.clone())),
            None => Ok(state),
        }
    }

    fn run(&self, state: &mut State, launch: &Launch<'_>) -> Result<(), CudaError> {
        state.check_arguments(launch).map_err(|why| state.lose(why))?;
        state.launches += 1;
        if !launch.overlaps {
            state.settled = state.launches - 1;
        }
        let terms = Terms {
            shared_limit: self.properties.shared_bytes,
            schedule: self.schedule,
            watch: state.watch.as_ref(),
            memory: state.memory.span(),
            number: state.launches,
            settled: state.settled + 1,
        };
        // SAFETY: the addresses among the arguments are inside allocations, and around those are guarding
        // pages.
        let run = unsafe { runtime::launch(launch, terms) };
        let kernel = launch.kernel;
        let checked = run
            .map_err(|failure| match failure {
                Failure::Mistake(text) => format!("{kernel}: {text}"),
                Failure::Access { address, writes, text } => {
                    let verb = if writes { "writes" } else { "reads" };
                    // The runtime knows where in shared memory it is; anything else is global.
                    let place =
                        if text.contains("shared") { String::new() } else { state.memory.describe(address) };
                    format!("{kernel}: it {verb} {place} {text}")
                }
            })
            .and_then(|()| {
                let whole = addresses(launch).try_for_each(|(_, address)| state.memory.check_whole(address));
                whole.map_err(|why| format!("{kernel}: {why}"))
            });
        coverage::note(kernel);
        checked.map_err(|why| state.lose(why))
    }
}

impl fmt::Display for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = if self.lock().watch.is_some() { ", watched" } else { "" };
        write!(f, "{}, {:?}{watched}", self.properties.name, self.schedule)
    }
}

/// Arguments that are addresses, with their places.
fn addresses<'a>(launch: &'a Launch<'_>) -> impl Iterator<Item = (usize, Address)> + 'a {
    launch.args.iter().enumerate().filter_map(|(i, arg)| match arg {
        Arg::Address(address) if *address != 0 => Some((i, *address)),
        _ => None,
    })
}

impl State {
    fn lose(&mut self, why: String) -> CudaError {
        self.lost = Some(why.clone());
        CudaError::Lost(why)
    }

    fn check_arguments(&self, launch: &Launch<'_>) -> Result<(), String> {
        addresses(launch).try_for_each(|(i, address)| {
            let checked = self.memory.check(address, 0);
            checked.map_err(|what| format!("{}: argument {i} points to what is {what}", launch.kernel))
        })
    }

    /// Bytes that the host accesses.
    fn check(&mut self, what: &str, address: Address, bytes: usize) -> Result<(), CudaError> {
        let checked = self.memory.check(address, bytes);
        checked.map_err(|place| self.lose(format!("{what} of {bytes} bytes {place}")))
    }
}

impl Driver for Emulated {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> Result<u64, CudaError> {
        Ok(self.properties.memory_bytes - self.present()?.memory.used())
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        let mut state = self.idle()?;
        if state.memory.used() + bytes as u64 > self.properties.memory_bytes {
            return Err(CudaError::OutOfMemory { bytes });
        }
        state.memory.allocate(bytes).ok_or(CudaError::OutOfMemory { bytes })
    }

    unsafe fn free(&self, address: Address) {
        let mut state = self.lock();
        if state.recording.is_some() {
            state.lose("memory is freed while launches are recorded".to_owned());
        }
        match state.memory.free(address) {
            Some(Ok(())) => {}
            Some(Err(why)) => drop(state.lose(why)),
            None => {
                let place = state.memory.describe(address);
                drop(state.lose(format!("what is freed begins {place}")));
            }
        }
    }

    unsafe fn upload(&self, to: Address, from: &[u8]) -> Result<(), CudaError> {
        self.after_all()?.check("an upload", to, from.len())?;
        // SAFETY: inside an allocation.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError> {
        let mut state = self.after_all()?;
        state.check("a download", from, to.len())?;
        state.memory.check_all().map_err(|why| state.lose(why))?;
        // SAFETY: inside an allocation.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        let mut state = self.after_all()?;
        state.check("a copy", from, bytes)?;
        state.check("a copy", to, bytes)?;
        // SAFETY: both inside allocations, and the caller vouches that they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<(), CudaError> {
        self.after_all()?.check("a fill", to, bytes)?;
        // SAFETY: inside an allocation.
        unsafe { std::ptr::write_bytes(to as *mut u8, byte, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let mut state = self.present()?;
        let Launch { kernel, grid, block, shared, overlaps, args } = *launch;
        if let Some(recording) = &mut state.recording {
            recording.push(Recorded { kernel, grid, block, shared, overlaps, args: args.to_vec() });
            return Ok(());
        }
        self.run(&mut state, launch)
    }

    fn begin_recording(&self) -> Result<(), CudaError> {
        self.idle()?.recording = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        // What went wrong since it began is said here; the recording has ended all the same.
        let launches = self.lock().recording.take();
        let mut state = self.present()?;
        let Some(launches) = launches else {
            return Err(state.lose("a recording ends that was not begun".to_owned()));
        };
        state.next += 1;
        let number = state.next;
        state.recordings.insert(number, launches);
        Ok(number)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        let mut state = self.after_all()?;
        // Out of the map while they run: the state is needed meanwhile.
        let Some(launches) = state.recordings.remove(&recording) else {
            return Err(state.lose("a recording is replayed that was forgotten".to_owned()));
        };
        let replayed = launches.iter().try_for_each(|recorded| {
            let &Recorded { kernel, grid, block, shared, overlaps, ref args } = recorded;
            self.run(&mut state, &Launch { kernel, grid, block, shared, overlaps, args })
        });
        state.recordings.insert(recording, launches);
        replayed
    }

    fn forget(&self, recording: u64) {
        self.lock().recordings.remove(&recording);
    }

    fn finish(&self) -> Result<(), CudaError> {
        let mut state = self.after_all()?;
        state.memory.check_all().map_err(|why| state.lose(why))
    }
}
