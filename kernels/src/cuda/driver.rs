//! What kernels need of a driver: memory, copies, launches, recordings of launches.

use std::fmt::Debug;

use thiserror::Error;

/// An address in the device's memory.
pub type Address = u64;

/// Why a device did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CudaError {
    /// Too little memory is free.
    #[error("the GPU has no room for another {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The device does not answer any more: reset, unplugged, gone with a sleep of the machine, or a kernel of ours
    /// failed. Nothing on it can be used again.
    #[error("the GPU was lost ({0})")]
    Lost(String),
    /// No device that can be used.
    #[error("{0}")]
    Unavailable(String),
}

/// What a device is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Its name, as its maker gives it.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Their highest clock, in MHz.
    pub clock_mhz: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Most bytes of shared memory that a block may ask for.
    pub shared_bytes: u32,
    /// The driver's version, such as `12.4`.
    pub driver: String,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer; 0 is null.
    Address(Address),
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl Arg {
    /// Its bits in a word whose first bytes they are.
    pub fn word(&self) -> u64 {
        match *self {
            Self::Address(address) => address,
            Self::Int(number) => u64::from(number.cast_unsigned()),
            Self::Float(number) => u64::from(number.to_bits()),
        }
    }
}

/// A kernel's launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name in the sources.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block, in one dimension.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Whether it may begin before the launch in front of it has ended: the kernel itself waits
    /// (`wait_for_launch_before`) before it reads what that one writes.
    pub overlaps: bool,
    /// In the order of the kernel's parameters.
    pub args: &'a [Arg],
}

/// A device behind its driver. All work is in one order: what is asked for later sees what was asked for before.
pub trait Driver: Send + Sync + Debug {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Bytes of its memory that are free.
    fn free_bytes(&self) -> Result<u64, CudaError>;

    /// Memory of `bytes > 0` bytes, aligned to 256; what stands in it is undefined.
    fn allocate(&self, bytes: usize) -> Result<Address, CudaError>;

    /// Gives memory back, once what was asked for before is done.
    ///
    /// # Safety
    /// It came from [`Driver::allocate`] and is not used again.
    unsafe fn free(&self, address: Address);

    /// Copies to the device; `from` may be changed again on return.
    ///
    /// # Safety
    /// The destination is inside memory that is allocated.
    unsafe fn upload(&self, to: Address, from: &[u8]) -> Result<(), CudaError>;

    /// Copies from the device, and waits for that.
    ///
    /// # Safety
    /// The source is inside memory that is allocated.
    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError>;

    /// Copies within the device.
    ///
    /// # Safety
    /// Both are inside memory that is allocated, and do not overlap.
    unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError>;

    /// Sets every byte.
    ///
    /// # Safety
    /// The destination is inside memory that is allocated.
    unsafe fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<(), CudaError>;

    /// Launches a kernel, or records the launch between [`Driver::begin_recording`] and [`Driver::end_recording`].
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what it reads and writes is inside memory that is allocated.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// From here on launches are recorded, and nothing else is asked for.
    fn begin_recording(&self) -> Result<(), CudaError>;

    /// Ends the recording; it is known by a number.
    fn end_recording(&self) -> Result<u64, CudaError>;

    /// Launches all that was recorded, in its order.
    ///
    /// # Safety
    /// As [`Driver::launch`] for each of them.
    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError>;

    /// Forgets a recording.
    fn forget(&self, recording: u64);

    /// Waits until everything that was asked for is done.
    fn finish(&self) -> Result<(), CudaError>;
}
