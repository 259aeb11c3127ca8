//! Numbers of a page as vectors: in f32, in f16, or in 8 bits with a scale for each key and each value.

use half::f16;

use crate::cpu::simd::Simd;
use crate::kv::KvPage;

/// A number of a page, widened to f32 vectors.
pub(super) trait Element: Copy {
    /// Whether what is read has still to be multiplied with its row's scale.
    const SCALED: bool = false;
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    fn wide(self) -> f32;
    fn page(page: &KvPage) -> *const Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::F32(numbers) => numbers.as_ptr(),
            KvPage::F16(_) | KvPage::Q8(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
        }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::F16(numbers) => numbers.as_ptr(),
            KvPage::F32(_) | KvPage::Q8(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
        }
    }
}

/// A number in 8 bits, without its scale.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Byte(u8);

impl Element for Byte {
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { S::load_i8(p.cast()) }
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from(self.0 as i8)
    }
    #[inline(always)]
    fn page(page: &KvPage) -> *const Self {
        match page {
            KvPage::Q8(numbers) => numbers.as_ptr().cast(),
            KvPage::F32(_) | KvPage::F16(_) | KvPage::Device(_) => {
                unreachable!("pages have their layout's format")
            }
        }
    }
}
