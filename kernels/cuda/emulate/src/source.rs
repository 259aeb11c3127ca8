//! Lines of the sources that machine code was made from.

use std::ffi::{CStr, c_void};
use std::path::Path;
use std::process::Command;

/// The line that the instruction at an address of this process was made from, as `file:line`. It asks `addr2line`, which
/// is there where a C++ compiler is; without it, or without line tables, there is none.
pub(crate) fn line_of(instruction: u64) -> Option<String> {
    // SAFETY: all zeros are a value of this struct.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for, and the answer has room.
    let known = unsafe { libc::dladdr(instruction as *const c_void, &raw mut found) };
    if known == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own text, which ends with a zero and stays.
    let file = unsafe { CStr::from_ptr(found.dli_fname) }.to_str().ok()?;
    let offset = instruction - found.dli_fbase as u64;
    let output = Command::new("addr2line").args(["-i", "-e", file, &format!("{offset:#x}")]).output().ok()?;
    // Inlined functions come first, each followed by where it was called.
    let text = String::from_utf8(output.stdout).ok()?;
    let kernels = text.lines().find(|line| line.contains(".cu:") || line.contains(".cuh:"))?;
    let line = kernels.split(" (").next()?;
    Some(Path::new(line).file_name()?.to_str()?.to_owned())
}
