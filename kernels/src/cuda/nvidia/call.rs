//! Answers of the driver.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr;

use cudarc::driver::sys::{self, CUresult};

use crate::cuda::CudaError;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    code: u32,
    /// The driver's name of it, and its sentence.
    words: String,
}

/// Whether the driver's answer is success.
pub(super) fn ok(answer: CUresult) -> Result<(), Failure> {
    match answer as u32 {
        0 => Ok(()),
        code => Err(Failure { code, words: words(answer, code) }),
    }
}

/// What a call fills in.
pub(super) fn get<T>(mut empty: T, fill: impl FnOnce(&mut T) -> CUresult) -> Result<T, Failure> {
    ok(fill(&mut empty))?;
    Ok(empty)
}

/// What the driver calls an answer. A driver may know more of them than these bindings, hence the number.
fn words(answer: CUresult, code: u32) -> String {
    let said = |ask: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = ptr::null();
        // SAFETY: it points `text` to a string that ends with a zero and stays, or to nothing.
        unsafe {
            let _ = ask(answer, &mut text);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = said(sys::cuGetErrorName).unwrap_or_else(|| format!("error {code}"));
    match said(sys::cuGetErrorString) {
        Some(sentence) => format!("{name}: {sentence}"),
        None => name,
    }
}

impl Failure {
    /// Of an image that the driver need not be asked for.
    pub(super) fn of_image(source: &str) -> Self {
        let code = CUresult::CUDA_ERROR_INVALID_IMAGE as u32;
        Self { code, words: format!("the compiled kernels of {source} are broken") }
    }

    /// Whether it is this one.
    pub(super) fn is(&self, answer: CUresult) -> bool {
        self.code == answer as u32
    }

    /// The same, with what was being done.
    pub(super) fn during(mut self, what: &str) -> Self {
        self.words = format!("{what}: {}", self.words);
        self
    }

    /// What it means for whoever asked for so many bytes, or for none.
    pub(super) fn error(self, bytes: usize) -> CudaError {
        if bytes > 0 && self.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) {
            CudaError::OutOfMemory { bytes }
        } else {
            CudaError::Lost(self.words)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
