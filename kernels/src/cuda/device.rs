//! A device with its memory as owned buffers: what is safe of a [`Driver`].

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Address, Arg, CudaError, Driver, Launch, Properties};

/// A device; clones are the same one.
#[derive(Clone)]
pub struct Device {
    driver: Arc<dyn Driver>,
    memory: Arc<Mutex<Memory>>,
}

/// What is allocated, and what recordings need of it.
#[derive(Default)]
struct Memory {
    allocations: BTreeMap<Address, Allocation>,
    /// While launches are recorded: the allocations that they name.
    named: Option<Vec<Address>>,
}

struct Allocation {
    bytes: usize,
    /// What its contents name.
    holds: Vec<Arc<dyn Any + Send + Sync>>,
    /// Recordings that name it.
    recordings: usize,
    /// Whether its buffer is gone: it is freed with the last of the recordings.
    dropped: bool,
}

/// Memory of a device, given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    device: Device,
    address: Address,
    bytes: usize,
}

/// Rows of numbers in a buffer: `row i = buffer[first + i * stride ..]`, in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The first row's first number.
    pub first: usize,
    /// From one row to the next.
    pub stride: usize,
}

impl<'a> Strided<'a> {
    /// All of a buffer as rows of so many numbers.
    pub fn whole(buffer: &'a Buffer, width: usize) -> Self {
        Self { buffer, first: 0, stride: width }
    }

    /// A buffer's first row again and again.
    pub fn repeated(buffer: &'a Buffer) -> Self {
        Self { buffer, first: 0, stride: 0 }
    }
}

/// Launches that can be asked for as one. The memory that they name is kept until it is dropped.
#[derive(Debug)]
pub struct Recording {
    device: Device,
    number: u64,
    named: Vec<Address>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl Device {
    /// The device behind a driver.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, memory: Arc::default() }
    }

    /// What it is.
    pub fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// Bytes of its memory that are free.
    pub fn free_bytes(&self) -> Result<u64, CudaError> {
        self.driver.free_bytes()
    }

    /// Memory of `bytes` bytes; what stands in it is undefined.
    pub fn buffer(&self, bytes: usize) -> Result<Buffer, CudaError> {
        let address = self.driver.allocate(bytes.max(1))?;
        let allocation = Allocation { bytes: bytes.max(1), holds: Vec::new(), recordings: 0, dropped: false };
        self.memory().allocations.insert(address, allocation);
        Ok(Buffer { device: self.clone(), address, bytes })
    }

    /// Memory that holds these bytes.
    pub fn buffer_of(&self, bytes: &[u8]) -> Result<Buffer, CudaError> {
        let mut buffer = self.buffer(bytes.len())?;
        buffer.upload(0, bytes)?;
        Ok(buffer)
    }

    /// Memory that holds these numbers.
    pub fn numbers(&self, numbers: &[f32]) -> Result<Buffer, CudaError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.buffer_of(&bytes)
    }

    /// Waits until everything that was asked for is done.
    pub fn finish(&self) -> Result<(), CudaError> {
        self.driver.finish()
    }

    /// Records what `launches` launches instead of launching it. Nothing else may be asked of the device meanwhile.
    pub fn record<E: From<CudaError>>(
        &self,
        launches: impl FnOnce() -> Result<(), E>,
    ) -> Result<Recording, E> {
        self.driver.begin_recording()?;
        self.memory().named = Some(Vec::new());
        let launched = launches();
        let number = self.driver.end_recording();
        let mut memory = self.memory();
        let mut named = memory.named.take().unwrap_or_default();
        let number = number?;
        named.sort_unstable();
        named.dedup();
        for base in &named {
            if let Some(allocation) = memory.allocations.get_mut(base) {
                allocation.recordings += 1;
            }
        }
        drop(memory);
        let recording = Recording { device: self.clone(), number, named };
        launched.map(|()| recording)
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// As [`Driver::launch`].
    pub(crate) unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.memory().note(launch.args);
        // SAFETY: the caller vouches for it.
        unsafe { self.driver.launch(launch) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an allocation back that neither its buffer nor a recording needs.
    fn free_unneeded(&self, mut memory: MutexGuard<'_, Memory>, address: Address) {
        if memory.allocations.get(&address).is_some_and(|a| a.dropped && a.recordings == 0) {
            let gone = memory.allocations.remove(&address);
            drop(memory);
            drop(gone);
            // SAFETY: it was allocated here, nobody names it any more, and the driver waits for what still uses it.
            unsafe { self.driver.free(address) };
        }
    }
}

impl Memory {
    /// Notes the allocations that a recorded launch names.
    fn note(&mut self, args: &[Arg]) {
        let Self { allocations, named: Some(named) } = self else { return };
        for arg in args {
            let Arg::Address(address) = *arg else { continue };
            let below = allocations.range(..=address).next_back();
            named.extend(below.filter(|(base, a)| address - **base < a.bytes as u64).map(|(base, _)| *base));
        }
    }
}

impl Buffer {
    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Copies `from` to it, from byte `at` on. Panics if that is outside of it.
    pub fn upload(&mut self, at: usize, from: &[u8]) -> Result<(), CudaError> {
        self.check(at, from.len());
        // SAFETY: inside this buffer.
        unsafe { self.device.driver.upload(self.address + at as u64, from) }
    }

    /// Keeps what its contents name for as long as the memory is there: longer than the buffer, where a recording needs
    /// it. What was held before is let go of.
    pub(super) fn hold(&self, named: Vec<Arc<dyn Any + Send + Sync>>) {
        let mut memory = self.device.memory();
        let before =
            memory.allocations.get_mut(&self.address).map(|a| std::mem::replace(&mut a.holds, named));
        // What is let go of may be memory of this device, and wants the lock when it goes.
        drop(memory);
        drop(before);
    }

    /// Copies from byte `at` on to `to`, and waits for that. Panics if that is outside of it.
    pub fn download(&self, at: usize, to: &mut [u8]) -> Result<(), CudaError> {
        self.check(at, to.len());
        // SAFETY: inside this buffer.
        unsafe { self.device.driver.download(self.address + at as u64, to) }
    }

    /// The f32 numbers in it, `len` of them from number `first` on; waits.
    pub fn read_numbers(&self, first: usize, len: usize) -> Result<Vec<f32>, CudaError> {
        let mut bytes = vec![0; 4 * len];
        self.download(4 * first, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Copies all of another buffer of this size. Panics if it has another one.
    pub fn copy_from(&mut self, other: &Self) -> Result<(), CudaError> {
        assert_eq!(self.bytes, other.bytes, "buffers of one size");
        // SAFETY: two buffers of this size; `&mut` says that they are not the same.
        unsafe { self.device.driver.copy(self.address, other.address, self.bytes) }
    }

    /// Sets every byte.
    pub fn fill(&mut self, byte: u8) -> Result<(), CudaError> {
        // SAFETY: inside this buffer.
        unsafe { self.device.driver.fill(self.address, byte, self.bytes) }
    }

    fn check(&self, at: usize, len: usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.bytes);
        assert!(inside, "bytes {at}..+{len} of a buffer of {}", self.bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut memory = self.device.memory();
        if let Some(allocation) = memory.allocations.get_mut(&self.address) {
            allocation.dropped = true;
        }
        self.device.free_unneeded(memory, self.address);
    }
}

impl Recording {
    /// Launches what was recorded.
    pub fn replay(&self) -> Result<(), CudaError> {
        // SAFETY: as safe as the launches were, since what they name is still there.
        unsafe { self.device.driver.replay(self.number) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.device.driver.forget(self.number);
        for &address in &self.named {
            let mut memory = self.device.memory();
            if let Some(allocation) = memory.allocations.get_mut(&address) {
                allocation.recordings -= 1;
            }
            self.device.free_unneeded(memory, address);
        }
    }
}
