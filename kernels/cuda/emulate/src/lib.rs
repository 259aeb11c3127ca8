//! A CUDA device on the CPU: the kernels' own sources, compiled by a C++ compiler, every thread a fiber.
//!
//! It finds missing barriers, wrong waits, reads of what was never written and writes outside of memory; it says
//! nothing of speed, and nothing of the order in which a real device's memory sees writes.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use gemma_kernels::cuda::{Address, Arg, CudaError, Device, Driver, Launch, Properties};

unsafe extern "C" {
    fn emu_launch(
        name: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared: c_uint,
        cooperative: c_int,
        args: *mut *mut c_void,
        order: c_int,
        error: *mut c_char,
        error_len: usize,
    ) -> c_int;
    fn emulate_register_all();
}

/// In which order the threads of a launch take their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Warp by warp, each as far as it goes.
    Forward,
    /// The last one first.
    Reverse,
    /// Drawn from a seed.
    Random(u16),
}

/// Schedules that a kernel's test goes through.
pub const SCHEDULES: [Schedule; 5] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Random(1), Schedule::Random(2), Schedule::Random(3)];

/// The device.
#[derive(Debug)]
pub struct Emulated {
    properties: Properties,
    schedule: Schedule,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    memory: HashMap<Address, Allocation>,
    used: u64,
    recording: Option<Vec<Recorded>>,
    recordings: HashMap<u64, Vec<Recorded>>,
    next: u64,
}

#[derive(Debug)]
struct Allocation {
    /// With a canary in front and behind.
    words: Vec<u64>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Recorded {
    kernel: &'static str,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    args: Vec<Arg>,
}

const CANARY: u64 = 0xA5A5_5A5A_C3C3_3C3C;
/// Words of canary on each side; a multiple of 32 keeps the memory between them at 256 bytes.
const GUARD: usize = 32;

impl Emulated {
    /// A device with so much memory whose threads take turns like this.
    pub fn new(memory_bytes: u64, schedule: Schedule) -> Self {
        let properties = Properties {
            name: "Emulated".to_owned(),
            capability: (9, 0),
            multiprocessors: 4,
            memory_bytes,
            shared_bytes: 227 << 10,
            driver: "none".to_owned(),
        };
        static TABLE: Once = Once::new();
        // SAFETY: it fills the table of kernels, once and before anything reads it.
        TABLE.call_once(|| unsafe { emulate_register_all() });
        Self { properties, schedule, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, launch: &Recorded) -> Result<(), CudaError> {
        let name = CString::new(launch.kernel).expect("a kernel's name has no zero");
        let mut words: Vec<u64> = launch.args.iter().map(Arg::word).collect();
        let mut args: Vec<*mut c_void> = words.iter_mut().map(|w| std::ptr::from_mut(w).cast()).collect();
        let order = match self.schedule {
            Schedule::Forward => 0,
            Schedule::Reverse => 1,
            Schedule::Random(seed) => 2 + c_int::from(seed),
        };
        let mut error = vec![0u8; 1024];
        // SAFETY: the launcher vouches for the arguments; the error's buffer is as long as is said.
        let failed = unsafe {
            emu_launch(
                name.as_ptr(),
                launch.grid.as_ptr(),
                [launch.block, 1, 1].as_ptr(),
                launch.shared,
                0,
                args.as_mut_ptr(),
                order,
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        let text = String::from_utf8_lossy(&error).trim_end_matches('\0').to_owned();
        if failed != 0 {
            return Err(CudaError::Lost(format!("{}: {text}", launch.kernel)));
        }
        let state = self.state();
        match state.memory.values().find(|allocation| !allocation.is_whole()) {
            Some(a) => Err(CudaError::Lost(format!(
                "{}: it wrote outside of a buffer of {} bytes",
                launch.kernel, a.bytes
            ))),
            None => Ok(()),
        }
    }
}

impl Allocation {
    fn new(bytes: usize) -> Self {
        let mut words = vec![u64::MAX; 2 * GUARD + 32 + bytes.div_ceil(8)];
        let len = words.len();
        words[..GUARD].fill(CANARY);
        words[len - GUARD..].fill(CANARY);
        let mut allocation = Self { words, bytes };
        allocation.paint();
        allocation
    }

    /// Bytes from the front to where the memory begins: behind the guard, at a multiple of 256.
    fn start(&self) -> usize {
        let base = self.words.as_ptr().addr() + 8 * GUARD;
        base.next_multiple_of(256) - self.words.as_ptr().addr()
    }

    fn raw(&mut self) -> &mut [u8] {
        let len = 8 * self.words.len();
        // SAFETY: any bytes are words, and the slice is the words' own memory.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }

    /// Canaries around the memory, NaN in it.
    fn paint(&mut self) {
        let (start, bytes) = (self.start(), self.bytes);
        for (i, byte) in self.raw().iter_mut().enumerate() {
            *byte = if (start..start + bytes).contains(&i) { 0xff } else { CANARY.to_le_bytes()[i % 8] };
        }
    }

    fn is_whole(&self) -> bool {
        let (start, end) = (self.start(), self.start() + self.bytes);
        let canary = CANARY.to_le_bytes();
        let whole = |range: std::ops::Range<usize>| {
            range.into_iter().all(|i| self.words[i / 8].to_le_bytes()[i % 8] == canary[i % 8])
        };
        whole(0..start) && whole(end..8 * self.words.len())
    }
}

impl Driver for Emulated {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> Result<u64, CudaError> {
        Ok(self.properties.memory_bytes - self.state().used)
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        let mut state = self.state();
        if state.used + bytes as u64 > self.properties.memory_bytes {
            return Err(CudaError::OutOfMemory { bytes });
        }
        let allocation = Allocation::new(bytes);
        let address = allocation.words.as_ptr().addr() + allocation.start();
        state.used += bytes as u64;
        state.memory.insert(address as Address, allocation);
        Ok(address as Address)
    }

    unsafe fn free(&self, address: Address) {
        let mut state = self.state();
        let allocation = state.memory.remove(&address).expect("only what was allocated is freed");
        state.used -= allocation.bytes as u64;
    }

    unsafe fn upload(&self, to: Address, from: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the caller vouches for the destination.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: the caller vouches for the source.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller vouches for both.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller vouches for the destination.
        unsafe { std::ptr::write_bytes(to as *mut u8, byte, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let Launch { kernel, grid, block, shared, args, .. } = *launch;
        let recorded = Recorded { kernel, grid, block, shared, args: args.to_vec() };
        if let Some(recording) = &mut self.state().recording {
            recording.push(recorded);
            return Ok(());
        }
        self.run(&recorded)
    }

    fn begin_recording(&self) -> Result<(), CudaError> {
        self.state().recording = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        let mut state = self.state();
        let launches = state.recording.take().expect("a recording was begun");
        state.next += 1;
        let number = state.next;
        state.recordings.insert(number, launches);
        Ok(number)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        let launches = self.state().recordings.get(&recording).expect("it was not forgotten").clone();
        launches.iter().try_for_each(|launch| self.run(launch))
    }

    fn forget(&self, recording: u64) {
        self.state().recordings.remove(&recording);
    }

    fn finish(&self) -> Result<(), CudaError> {
        Ok(())
    }
}

/// Devices that a kernel's test goes through, with what to call each: this one with its threads in every order.
pub fn devices(memory_bytes: u64) -> Vec<(String, Device)> {
    let emulated =
        |schedule| (format!("{schedule:?}"), Device::new(Arc::new(Emulated::new(memory_bytes, schedule))));
    SCHEDULES.into_iter().map(emulated).collect()
}
