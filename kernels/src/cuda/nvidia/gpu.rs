//! A device behind NVIDIA's driver.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUmodule, CUstream, CUstream_flags};

use super::call::{Failure, get, ok};
use super::graph::{Queued, Recorded};
use super::images::{self, SOURCES, Target};
use super::memory::Memory;
use super::staging::{Downloads, PIECE, Uploads};
use super::{Context, Found, unavailable};
use crate::cuda::{Address, CudaError, Driver, Launch, Properties};

/// From this CUDA version on a driver takes launches that may overlap into a graph.
const GRAPHS_OVERLAP: (u32, u32) = (12, 3);

/// The device. What is declared last is given back last.
#[derive(Debug)]
pub(super) struct Nvidia {
    properties: Properties,
    /// Whether the kernels wait for the launch before by themselves.
    overlaps: bool,
    /// Whether they may in a graph.
    graphs_overlap: bool,
    /// Why nothing more can be asked of it.
    lost: OnceLock<CudaError>,
    kernels: HashMap<&'static str, CUfunction>,
    /// Locked before the queue, by whoever needs both.
    downloads: Mutex<Downloads>,
    queue: Mutex<Queue>,
    memory: Memory,
    _modules: Modules,
    context: Context,
}

/// The one stream that everything is put on, and what goes with it.
#[derive(Debug)]
pub(super) struct Queue {
    /// Launches that a thread records, in place of launching them.
    recording: HashMap<ThreadId, Vec<Queued>>,
    recorded: HashMap<u64, Recorded>,
    next: u64,
    uploads: Uploads,
    stream: Stream,
}

/// A stream of the driver's.
#[derive(Debug)]
struct Stream(CUstream);

/// What was loaded of the kernels.
#[derive(Debug)]
struct Modules(Vec<CUmodule>);

// SAFETY: the driver takes its handles from any thread that has entered the context, as every method here does first;
// what must not be used by two threads at once lies behind locks.
unsafe impl Send for Nvidia {}
// SAFETY: likewise.
unsafe impl Sync for Nvidia {}

/// A lock is good again after a panic: nothing here is left half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nvidia {
    /// Opens a device and loads all kernels.
    ///
    /// All at once, because a kernel that is loaded late makes its first launch wait for the device, and because a
    /// broken one shall be known at the start: about a millisecond a source, where reading a model takes seconds.
    pub(super) fn open(found: &Found) -> Result<Self, CudaError> {
        let Found { device, driver, properties } = found;
        let target = images::target(properties.capability)
            .ok_or_else(|| unavailable(format!("no kernels are compiled for the {}", properties.name)))?;
        let opened = || {
            let context = Context::new(*device)?;
            context.enter()?;
            let (modules, kernels) = Modules::load(target, properties.shared_bytes)?;
            Ok(Self {
                properties: properties.clone(),
                overlaps: target.waits(),
                graphs_overlap: target.waits() && *driver >= GRAPHS_OVERLAP,
                lost: OnceLock::new(),
                kernels,
                downloads: Mutex::new(Downloads::new()?),
                queue: Mutex::new(Queue::new()?),
                memory: Memory::new(*device)?,
                _modules: modules,
                context,
            })
        };
        opened().map_err(|failure: Failure| {
            unavailable(format!("the {} does not open ({failure})", properties.name))
        })
    }

    /// What a failure means; of one that nothing comes after, what was said first.
    fn failed(&self, failure: Failure, bytes: usize) -> CudaError {
        match failure.error(bytes) {
            lost @ CudaError::Lost(_) => self.lost.get_or_init(|| lost).clone(),
            other => other,
        }
    }

    /// Begins a method: this thread's calls mean this device from here on.
    fn enter(&self) -> Result<(), CudaError> {
        match self.lost.get() {
            Some(lost) => Err(lost.clone()),
            None => self.context.enter().map_err(|failure| self.failed(failure, 0)),
        }
    }

    /// The queue, for what cannot be recorded.
    fn queue(&self) -> Result<MutexGuard<'_, Queue>, CudaError> {
        self.enter()?;
        let queue = locked(&self.queue);
        match queue.recording.contains_key(&thread::current().id()) {
            true => Err(unavailable("the GPU was asked for more than launches while it records")),
            false => Ok(queue),
        }
    }
}

impl Driver for Nvidia {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> Result<u64, CudaError> {
        self.enter()?;
        self.memory.free_bytes().map_err(|failure| self.failed(failure, 0))
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        let queue = self.queue()?;
        // SAFETY: the stream is there.
        unsafe { self.memory.allocate(queue.stream(), bytes) }.map_err(|failure| self.failed(failure, bytes))
    }

    unsafe fn free(&self, address: Address) {
        if self.enter().is_ok() {
            let queue = locked(&self.queue);
            // SAFETY: the stream is there; the caller vouches for the memory. Who asks next hears of an error.
            let _ = unsafe { self.memory.free(queue.stream(), address) }.map_err(|f| self.failed(f, 0));
        }
    }

    unsafe fn upload(&self, to: Address, from: &[u8]) -> Result<(), CudaError> {
        let mut to = to;
        // Piece by piece, so that others get at the queue in between.
        for piece in from.chunks(PIECE) {
            let mut queue = self.queue()?;
            let Queue { uploads, stream, .. } = &mut *queue;
            // SAFETY: the stream is there; the caller vouches for the destination.
            unsafe { uploads.put(stream.0, to, piece) }.map_err(|f| self.failed(f, from.len()))?;
            to += piece.len() as Address;
        }
        Ok(())
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), CudaError> {
        drop(self.queue()?);
        let bytes = to.len();
        // SAFETY: the caller vouches for the source.
        unsafe { locked(&self.downloads).take(&self.queue, from, to) }
            .map_err(|failure| self.failed(failure, bytes))
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        let queue = self.queue()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller vouches for both.
        ok(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, queue.stream()) })
            .map_err(|failure| self.failed(failure, bytes))
    }

    unsafe fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<(), CudaError> {
        let queue = self.queue()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller vouches for the destination.
        ok(unsafe { sys::cuMemsetD8Async(to, byte, bytes, queue.stream()) })
            .map_err(|failure| self.failed(failure, bytes))
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.enter()?;
        let function = *self.kernels.get(launch.kernel).ok_or_else(|| {
            unavailable(format!(
                "the compiled kernels lack {}: kernels/cuda/build.py makes them",
                launch.kernel
            ))
        })?;
        let queued = Queued::new(function, launch);
        let mut queue = locked(&self.queue);
        if let Some(recording) = queue.recording.get_mut(&thread::current().id()) {
            recording.push(queued);
            return Ok(());
        }
        // SAFETY: the stream is there; the caller vouches for the arguments.
        unsafe { queued.launch(queue.stream(), self.overlaps) }.map_err(|failure| self.failed(failure, 0))
    }

    fn begin_recording(&self) -> Result<(), CudaError> {
        self.queue()?.recording.insert(thread::current().id(), Vec::new());
        Ok(())
    }

    fn end_recording(&self) -> Result<u64, CudaError> {
        self.enter()?;
        let mut queue = locked(&self.queue);
        let launches = queue.recording.remove(&thread::current().id());
        let launches = launches.ok_or_else(|| unavailable("the GPU records nothing that could end"))?;
        // SAFETY: the stream is there, and this is the only one who holds the queue; who launched vouched for the
        // arguments.
        let recorded = unsafe { Recorded::new(queue.stream(), launches, self.graphs_overlap) };
        queue.next += 1;
        let number = queue.next;
        queue.recorded.insert(number, recorded);
        Ok(number)
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        let queue = self.queue()?;
        let recorded = queue.recorded.get(&recording);
        let recorded = recorded.ok_or_else(|| unavailable("the GPU was asked for what it has forgotten"))?;
        // SAFETY: the stream is there; the caller vouches for the launches.
        unsafe { recorded.launch(queue.stream(), self.overlaps) }.map_err(|failure| self.failed(failure, 0))
    }

    fn forget(&self, recording: u64) {
        // On a lost device the driver's handle is left: its context goes with everything in it.
        if self.enter().is_ok() {
            locked(&self.queue).recorded.remove(&recording);
        }
    }

    fn finish(&self) -> Result<(), CudaError> {
        drop(self.queue()?);
        locked(&self.downloads).wait(&self.queue).map_err(|failure| self.failed(failure, 0))
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // What follows needs the context, and that nothing runs any more. Errors have nobody to go to.
        let _ = self.context.enter();
        // SAFETY: the stream is there.
        let _ = unsafe { sys::cuStreamSynchronize(locked(&self.queue).stream()) };
    }
}

impl Queue {
    fn new() -> Result<Self, Failure> {
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: it fills a handle, which is given back below.
        let stream = Stream(unsafe { get(ptr::null_mut(), |out| sys::cuStreamCreate(out, flags))? });
        let (recording, recorded) = (HashMap::new(), HashMap::new());
        Ok(Self { recording, recorded, next: 0, uploads: Uploads::new()?, stream })
    }

    /// The stream.
    pub(super) fn stream(&self) -> CUstream {
        self.stream.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it was made above.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.0) };
    }
}

impl Modules {
    /// Loads every kernel, and lets each ask for as much shared memory as a block may have.
    fn load(target: Target, shared_bytes: u32) -> Result<(Self, HashMap<&'static str, CUfunction>), Failure> {
        let mut modules = Self(Vec::new());
        let mut kernels = HashMap::new();
        for source in SOURCES {
            let image = source.image(target).ok_or_else(|| Failure::of_image(source.name))?;
            // SAFETY: the image is a whole one, made by the compiler for this target; the module is given back below.
            let module =
                unsafe { get(ptr::null_mut(), |out| sys::cuModuleLoadData(out, image.as_ptr().cast())) }
                    .map_err(|failure| failure.during(source.name))?;
            modules.0.push(module);
            for &kernel in source.kernels {
                let function = function(module, kernel, shared_bytes).map_err(|f| f.during(kernel))?;
                kernels.insert(kernel, function);
            }
        }
        Ok((modules, kernels))
    }
}

/// A kernel of a module.
fn function(module: CUmodule, kernel: &str, shared_bytes: u32) -> Result<CUfunction, Failure> {
    let name = CString::new(kernel).unwrap_or_default();
    let own = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the module is loaded, the name ends with a zero, and the calls fill a handle and a number.
    unsafe {
        let function = get(ptr::null_mut(), |out| sys::cuModuleGetFunction(out, module, name.as_ptr()))?;
        let own = get(0, |out| sys::cuFuncGetAttribute(out, own, function))?;
        ok(sys::cuFuncSetAttribute(function, most, shared_bytes.cast_signed() - own))?;
        Ok(function)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        for module in self.0.drain(..) {
            // SAFETY: it was loaded above, and nothing runs any more. An error has nobody to go to.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}
