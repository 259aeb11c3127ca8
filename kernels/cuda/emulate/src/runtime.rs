//! The C++ runtime, as Rust sees it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::Range;

use gemma_kernels::cuda::{Arg, Launch};

use crate::schedule::Schedule;
use crate::source;

/// `LaunchRequest` of `runtime/launch.h`.
#[repr(C)]
struct Request {
    kernel: *const c_char,
    parameters: *const c_char,
    arguments: *mut *mut c_void,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    shared_limit: u32,
    overlaps: u32,
    order: u32,
    resident: u32,
    seed: u64,
    watch: *mut c_void,
    memory: [u64; 2],
    launch: u32,
    settled: u32,
}

/// `Failure` of `runtime/launch.h`.
#[repr(C)]
struct RawFailure {
    kind: u32,
    address: u64,
    object: *const c_char,
    registers: *const c_char,
    at: u64,
    other: u64,
    file: *const c_char,
    line: u32,
    text: [c_char; 1000],
}

unsafe extern "C" {
    fn emulation_launch(request: *const Request, failure: *mut RawFailure);
    fn emulation_kernel(number: u32) -> *const c_char;
    fn emulation_watch() -> *mut c_void;
    fn emulation_forget_watch(watch: *mut c_void);
}

/// Who is told of all accesses of kernels.
#[derive(Debug)]
pub(crate) struct Watch(*mut c_void);

// SAFETY: the C++ object is nobody else's, and used by one thread at a time: by a launch, which has the
// device's state.
unsafe impl Send for Watch {}

impl Watch {
    pub fn new() -> Self {
        // SAFETY: a new object.
        Self(unsafe { emulation_watch() })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used again.
        unsafe { emulation_forget_watch(self.0) };
    }
}

/// How a device runs launches.
#[derive(Debug, Clone)]
pub(crate) struct Terms<'a> {
    pub shared_limit: u32,
    pub schedule: Schedule,
    pub watch: Option<&'a Watch>,
    /// Where the device's memory lies.
    pub memory: Range<u64>,
    /// The launch's number, and the first one that may still be in flight.
    pub number: u32,
    pub settled: u32,
}

/// Why a launch failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the runtime says.
    Mistake(String),
    /// Memory was accessed that may not be.
    Access {
        /// Where that is.
        address: u64,
        writes: bool,
        /// The line and the thread, as far as they are known, and where in shared memory it is if it is
        /// there.
        text: String,
    },
}

/// Launches a kernel and waits for its end.
///
/// # Safety
/// Addresses among the arguments are of memory that may be accessed, or of pages that nobody may access.
pub(crate) unsafe fn launch(launch: &Launch<'_>, terms: Terms<'_>) -> Result<(), Failure> {
    let letter = |arg: &Arg| match arg {
        Arg::Address(_) => b'a',
        Arg::Int(_) => b'i',
        Arg::Float(_) => b'f',
    };
    let kernel = CString::new(launch.kernel).expect("a kernel's name has no zero");
    let parameters = CString::new(launch.args.iter().map(letter).collect::<Vec<_>>()).expect("letters");
    let mut words: Vec<u64> = launch.args.iter().map(Arg::word).collect();
    let mut arguments: Vec<*mut c_void> = words.iter_mut().map(|w| std::ptr::from_mut(w).cast()).collect();
    let (order, resident, seed) = terms.schedule.parts();
    let request = Request {
        kernel: kernel.as_ptr(),
        parameters: parameters.as_ptr(),
        arguments: arguments.as_mut_ptr(),
        grid: launch.grid,
        threads: launch.block,
        shared: launch.shared,
        shared_limit: terms.shared_limit,
        overlaps: launch.overlaps.into(),
        order,
        resident,
        seed,
        watch: terms.watch.map_or(std::ptr::null_mut(), |watch| watch.0),
        memory: [terms.memory.start, terms.memory.end],
        launch: terms.number,
        settled: terms.settled,
    };
    // SAFETY: all zeros are a value of this struct: no failure.
    let mut failure: RawFailure = unsafe { std::mem::zeroed() };
    // SAFETY: all that the request points to lives until the call's end, and the caller vouches for the
    // addresses.
    unsafe { emulation_launch(&raw const request, &raw mut failure) };
    if failure.kind == 0 { Ok(()) } else { Err(read(&failure)) }
}

/// Puts in words what the runtime found.
fn read(failure: &RawFailure) -> Failure {
    // SAFETY: the runtime ends its text with a zero.
    let said = unsafe { CStr::from_ptr(failure.text.as_ptr()) }.to_string_lossy();
    if failure.kind == 1 {
        return Failure::Mistake(said.into_owned());
    }
    // SAFETY: texts in the program, which end with a zero and stay.
    let [object, registers, file] = [failure.object, failure.registers, failure.file]
        .map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy());
    let line = |at| source::line_of(&object, &registers, at);
    if failure.kind == 5 {
        let places: Vec<String> =
            [failure.at, failure.other].into_iter().filter(|&at| at != 0).filter_map(line).collect();
        return Failure::Mistake(format!("{}: {said}", places.join(" and ")));
    }
    let place = match line(failure.at) {
        Some(line) => format!("at {line}"),
        None if file.is_empty() => String::new(),
        None => format!("after {file}:{}", failure.line),
    };
    match failure.kind {
        2 | 3 => Failure::Access {
            address: failure.address,
            writes: failure.kind == 3,
            text: format!("{place} {said}"),
        },
        _ => Failure::Mistake(format!(
            "{place} what a check of the compiler finds: an address that is not aligned to what is read there, an \
             index outside of an array, a shift by too much, a division by zero {said}"
        )),
    }
}

/// The names of all kernels.
pub(crate) fn kernels() -> Vec<&'static str> {
    let name = |number| {
        // SAFETY: any number may be asked for.
        let name = unsafe { emulation_kernel(number) };
        // SAFETY: a text in the program, which ends with a zero and stays.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().expect("names are plain"))
    };
    (0..).map_while(name).collect()
}
