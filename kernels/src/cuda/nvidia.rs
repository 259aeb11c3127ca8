//! NVIDIA's driver: which devices there are, and one of them opened.
//!
//! The driver's library is looked for when the program runs; where there is none, or nothing that can be used, the
//! error says why in a sentence for people. Nothing here panics.
//!
//! `GEMMA_LS_GPU=off` hides all devices, `GEMMA_LS_GPU=1` all but the second.

mod call;
mod gpu;
mod graph;
mod images;
mod memory;
mod staging;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};

use self::call::{Failure, get, ok};
use self::gpu::Nvidia;
use super::{CudaError, Device, Properties};

/// The environment variable that hides devices.
const CHOICE: &str = "GEMMA_LS_GPU";
/// The driver's library, as this system calls it.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
/// The CUDA version of the oldest driver that has all the functions called here and loads the kernels, and its name.
const OLDEST_DRIVER: ((u32, u32), &str) = ((12, 0), "525");

/// A device of the driver's.
#[derive(Debug, Clone)]
struct Found {
    device: CUdevice,
    /// CUDA's version that the driver has.
    driver: (u32, u32),
    properties: Properties,
}

/// Which devices may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    One(usize),
}

/// The devices that can be used: one at least, or the reason why there is none.
///
/// It opens none of them and takes no memory.
pub fn probe() -> Result<Vec<Properties>, CudaError> {
    Ok(guarded(usable)?.into_iter().map(|found| found.properties).collect())
}

/// Opens a device, by its place among those of [`probe`].
///
/// Takes the driver's context on it, 0.3 to 0.5 GB of its memory, and loads all kernels.
pub fn open(index: usize) -> Result<Device, CudaError> {
    guarded(|| {
        let found = usable()?.into_iter().nth(index);
        let found = found.ok_or_else(|| unavailable(format!("there is no GPU {index} that can be used")))?;
        Ok(Device::new(Arc::new(Nvidia::open(&found)?)))
    })
}

/// Runs what calls the driver: the bindings panic where its library lacks a function.
fn guarded<T>(calls: impl FnOnce() -> Result<T, CudaError>) -> Result<T, CudaError> {
    catch_unwind(AssertUnwindSafe(calls))
        .unwrap_or_else(|_| Err(unavailable(format!("the NVIDIA driver ({LIBRARY}) lacks functions"))))
}

fn unavailable(reason: impl Into<String>) -> CudaError {
    CudaError::Unavailable(reason.into())
}

/// The devices that may be used and that the kernels run on.
fn usable() -> Result<Vec<Found>, CudaError> {
    let choice = choice(std::env::var(CHOICE).ok().as_deref())?;
    among(all()?, choice)
}

/// What the environment variable says.
fn choice(value: Option<&str>) -> Result<Choice, CudaError> {
    match value {
        None | Some("") => Ok(Choice::All),
        Some("off") => Err(unavailable(format!("GPUs are switched off ({CHOICE}=off)"))),
        Some(value) => value.parse().map(Choice::One).map_err(|_| {
            unavailable(format!("{CHOICE} is {value:?}: it takes \"off\", or a number that chooses a GPU"))
        }),
    }
}

/// Of all devices those that may be used and that the kernels run on.
fn among(all: Vec<Found>, choice: Choice) -> Result<Vec<Found>, CudaError> {
    let count = all.len();
    let (usable, too_old): (Vec<_>, Vec<_>) = all
        .into_iter()
        .enumerate()
        .filter(|(index, _)| matches!(choice, Choice::All) || choice == Choice::One(*index))
        .map(|(_, found)| found)
        .partition(|found| images::target(found.properties.capability).is_some());
    match (usable.is_empty(), too_old.first(), choice) {
        (false, ..) => Ok(usable),
        (true, Some(Found { properties: Properties { name, capability: (major, minor), .. }, .. }), _) => {
            Err(unavailable(format!(
                "the {name} is too old: it has compute capability {major}.{minor}, and 8.0 is needed"
            )))
        }
        (true, None, Choice::One(index)) => {
            Err(unavailable(format!("{CHOICE} is {index}, but the GPUs found are {count}, counted from 0")))
        }
        (true, None, Choice::All) => Err(unavailable("the NVIDIA driver finds no GPU")),
    }
}

/// All devices of the driver.
fn all() -> Result<Vec<Found>, CudaError> {
    // SAFETY: it loads the driver's library by its name, and lets go of it.
    if !unsafe { sys::is_culib_present() } {
        return Err(unavailable(format!("no NVIDIA driver was found ({LIBRARY})")));
    }
    // SAFETY: it takes a number that must be 0.
    ok(unsafe { sys::cuInit(0) }).map_err(|failure| not_started(&failure))?;
    listed().map_err(|failure| not_started(&failure))?
}

/// Why the driver does not start.
fn not_started(failure: &Failure) -> CudaError {
    unavailable(match failure {
        failure if failure.is(CUresult::CUDA_ERROR_NO_DEVICE) => "the NVIDIA driver finds no GPU".to_owned(),
        failure => format!("the NVIDIA driver does not start ({failure})"),
    })
}

/// The driver's devices, or, of a driver that is too old, that it is.
fn listed() -> Result<Result<Vec<Found>, CudaError>, Failure> {
    // SAFETY: each fills a number.
    let (version, count) =
        unsafe { (get(0, |out| sys::cuDriverGetVersion(out))?, get(0, |out| sys::cuDeviceGetCount(out))?) };
    let version = version.unsigned_abs();
    let driver = (version / 1000, version % 1000 / 10);
    let (oldest, name) = OLDEST_DRIVER;
    if driver < oldest {
        let reason = format!(
            "the NVIDIA driver is too old: it has CUDA {}.{}; version {name} or newer is needed",
            driver.0, driver.1
        );
        return Ok(Err(unavailable(reason)));
    }
    (0..count).map(|ordinal| found(ordinal, driver)).collect::<Result<_, _>>().map(Ok)
}

/// Asks what a device is.
fn found(ordinal: i32, driver: (u32, u32)) -> Result<Found, Failure> {
    // SAFETY: it fills a number; the driver says how many devices there are.
    let device = unsafe { get(0, |out| sys::cuDeviceGet(out, ordinal))? };
    let attribute = |which: CUdevice_attribute| {
        // SAFETY: it fills a number, of a device that is there.
        unsafe { get(0, |out| sys::cuDeviceGetAttribute(out, which, device)) }.map(i32::unsigned_abs)
    };
    let mut name = [0u8; 128];
    // SAFETY: both fill what they are given, the name with a zero behind it within its bytes.
    let memory = unsafe {
        ok(sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device))?;
        get(0, |out| sys::cuDeviceTotalMem_v2(out, device))?
    };
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let properties = Properties {
        name: String::from_utf8_lossy(name).into_owned(),
        capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock_mhz: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
        memory_bytes: memory as u64,
        shared_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver: format!("{}.{}", driver.0, driver.1),
    };
    Ok(Found { device, driver, properties })
}

/// The driver's context on a device: what belongs to this process there.
#[derive(Debug)]
struct Context {
    device: CUdevice,
    raw: sys::CUcontext,
}

impl Context {
    fn new(device: CUdevice) -> Result<Self, Failure> {
        // SAFETY: it fills a handle, which is given back below.
        let raw = unsafe { get(ptr::null_mut(), |out| sys::cuDevicePrimaryCtxRetain(out, device))? };
        Ok(Self { device, raw })
    }

    /// Makes it the one that this thread's calls mean.
    fn enter(&self) -> Result<(), Failure> {
        // SAFETY: the context is there as long as this.
        ok(unsafe { sys::cuCtxSetCurrent(self.raw) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. An error has nobody to go to.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
