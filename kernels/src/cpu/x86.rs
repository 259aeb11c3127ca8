//! The two x86 levels of [`Simd`]: AVX-512 (F, BW, DQ, VL, VNNI) and AVX2 (with FMA and F16C).
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use half::f16;

use super::simd::Simd;

/// AVX-512 with VNNI: Ice Lake, Sapphire Rapids, Zen 4 and later.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY (whole implementation): the trait's contract; these are the instructions of the level.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const SIGNED_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::F) -> Self::F {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn exp2i(n: Self::F) -> Self::F {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F) {
        unsafe {
            let pairs = _mm512_loadu_si512(p.cast());
            let first = _mm512_slli_epi32::<16>(pairs);
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(first), _mm512_castsi512_ps(second))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: Self::F) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x))) }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<SHIFT>(a), _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn byte<const K: u32>(a: Self::B) -> Self::F {
        unsafe {
            let shifted = _mm512_srlv_epi32(a, _mm512_set1_epi32(8 * K as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)))
        }
    }
    #[inline(always)]
    unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F {
        unsafe {
            let top = _mm512_sllv_epi32(a, _mm512_set1_epi32(24 - 8 * K as i32));
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
        }
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        unsafe { _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        // The instruction wants unsigned weights: flipping the sign bit adds 128.
        unsafe { Self::dot(acc, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x) }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(a);
            sum8(_mm256_add_ps(_mm512_castps512_ps256(a), high))
        }
    }
    #[inline(always)]
    unsafe fn greatest(a: Self::F) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
}

/// The sum of eight lanes, halves folded onto each other.
#[inline(always)]
unsafe fn sum8(a: __m256) -> f32 {
    // SAFETY: AVX is part of both levels.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// How many sums of two products of bytes, weights of at most `most` with activations, add up in 16 bits.
pub(crate) const fn products_in_16_bits(most: u8) -> usize {
    i16::MAX as usize / (2 * 127 * most as usize)
}

/// AVX2 with FMA and F16C: Haswell, Zen and later. A vector is two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Applies one 256-bit operation to both halves.
macro_rules! halves {
    (|$($x:ident),+| $body:expr) => {
        unsafe {
            [{ $(let $x = $x[0];)+ $body }, { $(let $x = $x[1];)+ $body }]
        }
    };
}

// SAFETY (whole implementation): the trait's contract; these are the instructions of the level.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    const SIGNED_OFFSET: i32 = 0;
    const FEW_REGISTERS: bool = true;

    // A core of Zen 3 reads weights twice as fast so, 13 to 27 GB/s in four bits; one of Sapphire Rapids, at its own
    // level, more slowly.
    #[inline(always)]
    fn prefetch(p: *const u8) {
        // SAFETY: nothing is read; an address that is not there is passed over.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_div_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::F) -> Self::F {
        halves!(|a| _mm256_sqrt_ps(a))
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_min_ps(a, b))
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(|a, b, c| _mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        halves!(|a| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    unsafe fn exp2i(n: Self::F) -> Self::F {
        halves!(|n| {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::F {
        unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F) {
        let pairs = unsafe { Self::load_b(p.cast()) };
        let first = halves!(|pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)));
        let second = halves!(|pairs| {
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            _mm256_castsi256_ps(_mm256_and_si256(pairs, mask))
        });
        (first, second)
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::F {
        let bytes = unsafe { [_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast())] };
        halves!(|bytes| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::F {
        let bytes = unsafe { [_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast())] };
        halves!(|bytes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: Self::F) {
        let x = halves!(|x| _mm256_cvtps_epi32(x));
        unsafe {
            // Packing goes by halves of a register: words 0-3, 8-11, 4-7, 12-15.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        halves!(|a, b| _mm256_add_epi32(a, b))
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        halves!(|a| _mm256_cvtepi32_ps(a))
    }
    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B {
        halves!(|a, b| _mm256_or_si256(a, b))
    }
    #[inline(always)]
    unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B {
        halves!(|a| {
            let shifted = _mm256_srl_epi16(a, _mm_cvtsi32_si128(SHIFT as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
        })
    }
    #[inline(always)]
    unsafe fn byte<const K: u32>(a: Self::B) -> Self::F {
        halves!(|a| {
            let shifted = _mm256_srlv_epi32(a, _mm256_set1_epi32(8 * K as i32));
            _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255)))
        })
    }
    #[inline(always)]
    unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F {
        halves!(|a| {
            let top = _mm256_sllv_epi32(a, _mm256_set1_epi32(24 - 8 * K as i32));
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top))
        })
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        // Two products of at most 63 * 127 fit in 16 bits.
        halves!(|acc, w| {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        // |w| <= 128 against |x| <= 127: two products still fit, which 255 against 127 would not.
        halves!(|acc, w| {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
    #[inline(always)]
    unsafe fn dots(w: &[Self::B], x: *const i8, most: Option<u8>) -> Self::I {
        unsafe {
            let mut sums = Self::zero_i();
            let Some(most) = most else {
                for j in 0..w.len() {
                    sums = Self::dot_signed(sums, w[j], x.add(4 * j));
                }
                return sums;
            };
            let depth = products_in_16_bits(most);
            for first in (0..w.len()).step_by(depth) {
                let mut pairs = Self::zero_i();
                for j in first..w.len().min(first + depth) {
                    let (w, x) = (w[j], _mm256_set1_epi32(x.add(4 * j).cast::<i32>().read_unaligned()));
                    for h in 0..2 {
                        pairs[h] = _mm256_add_epi16(pairs[h], _mm256_maddubs_epi16(w[h], x));
                    }
                }
                for h in 0..2 {
                    let pairs = _mm256_madd_epi16(pairs[h], _mm256_set1_epi16(1));
                    sums[h] = _mm256_add_epi32(sums[h], pairs);
                }
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe { sum8(_mm256_add_ps(a[0], a[1])) }
    }
    #[inline(always)]
    unsafe fn greatest(a: Self::F) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(a[0], a[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
