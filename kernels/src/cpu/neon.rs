//! The ARM levels of [`Simd`]: NEON, with or without the instructions for dot products of bytes.
//!
//! A register holds four lanes. A vector of sixteen is four of them; a [`Quarter`] is one, for kernels that
//! share 32 registers out themselves (see `neon_products`).
//!
//! What the compiler has no stable name for yet (dot products, products of small matrices, conversion of
//! f16) is inline assembly.

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use half::f16;

use super::simd::Simd;

/// How a machine multiplies bytes and adds up four products a lane.
pub(crate) trait Bytes: Copy {
    /// Adds to each lane of `acc` the products of its four signed bytes of `w` with those of lane `I` of `x`.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn dot<const I: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Any ARMv8: products in 16 bits, added up in pairs.
#[derive(Clone, Copy)]
pub(crate) struct Widening;

/// ARMv8.2 with `SDOT`: Cortex-A75 and later, Neoverse, Apple's M1 and later.
#[derive(Clone, Copy)]
pub(crate) struct DotProducts;

// SAFETY (whole file): the trait's contract; these are the instructions of the level. NEON itself belongs to the
// target, so that newer compilers find some of the blocks superfluous.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe, reason = "see above")]
mod lanes {
    use super::*;

    impl Bytes for Widening {
        #[inline(always)]
        unsafe fn dot<const I: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
            // 2 * 128 * 127 fits in 16 bits.
            unsafe {
                let x = vreinterpretq_s8_s32(vdupq_laneq_s32::<I>(vreinterpretq_s32_s8(x)));
                let (low, high) = (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
                vpadalq_s16(acc, vpaddq_s16(low, high))
            }
        }
    }

    impl Bytes for DotProducts {
        #[inline(always)]
        unsafe fn dot<const I: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
            let mut acc = acc;
            unsafe {
                asm!(
                    "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
                    acc = inout(vreg) acc,
                    w = in(vreg) w,
                    x = in(vreg) x,
                    lane = const I,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            acc
        }
    }

    /// Adds to the 2x2 numbers of `acc` the products of two rows of eight bytes of `a` with two of `b`.
    ///
    /// # Safety
    /// The machine has the instruction (`i8mm`).
    #[inline(always)]
    pub(crate) unsafe fn small_matrix(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        let mut acc = acc;
        unsafe {
            asm!(
                "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                acc = inout(vreg) acc,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    /// Four lanes: what a register holds. Pointers lead to a quarter of what [`Simd`] says.
    #[derive(Clone, Copy)]
    pub(crate) struct Quarter<D>(PhantomData<D>);

    impl<D: Bytes> Simd for Quarter<D> {
        type F = float32x4_t;
        type I = int32x4_t;
        type B = uint8x16_t;
        const SIGNED_OFFSET: i32 = 0;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::F {
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::F {
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: Self::F) {
            unsafe { vst1q_f32(p, x) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vdivq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: Self::F) -> Self::F {
            unsafe { vsqrtq_f32(a) }
        }
        #[inline(always)]
        unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vminq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
            unsafe { vmaxnmq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn round(a: Self::F) -> Self::F {
            unsafe { vrndnq_f32(a) }
        }
        #[inline(always)]
        unsafe fn exp2i(n: Self::F) -> Self::F {
            unsafe {
                let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self::F {
            let wide: float32x4_t;
            unsafe {
                let half = vld1_u16(p.cast());
                asm!(
                    "fcvtl {wide:v}.4s, {half:v}.4h",
                    wide = out(vreg) wide,
                    half = in(vreg) half,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            wide
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F) {
            unsafe {
                let pairs = vreinterpretq_u32_u8(Self::load_b(p.cast()));
                let second = vandq_u32(pairs, vdupq_n_u32(0xffff_0000));
                (vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)), vreinterpretq_f32_u32(second))
            }
        }
        #[inline(always)]
        unsafe fn load_u8(p: *const u8) -> Self::F {
            unsafe {
                let bytes = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
            }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const u8) -> Self::F {
            unsafe {
                let bytes = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            }
        }
        #[inline(always)]
        unsafe fn store_i8(p: *mut i8, x: Self::F) {
            unsafe {
                let words = vqmovn_s32(vcvtnq_s32_f32(x));
                let bytes = vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(words, words)));
                p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes));
            }
        }
        #[inline(always)]
        unsafe fn zero_i() -> Self::I {
            unsafe { vdupq_n_s32(0) }
        }
        #[inline(always)]
        unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
            unsafe { vaddq_s32(a, b) }
        }
        #[inline(always)]
        unsafe fn to_f(a: Self::I) -> Self::F {
            unsafe { vcvtq_f32_s32(a) }
        }
        #[inline(always)]
        unsafe fn load_b(p: *const u8) -> Self::B {
            unsafe { vld1q_u8(p) }
        }
        #[inline(always)]
        unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B {
            unsafe { vorrq_u8(a, b) }
        }
        #[inline(always)]
        unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B {
            unsafe {
                let shifted = match SHIFT {
                    0 => a,
                    1 => vshrq_n_u8::<1>(a),
                    2 => vshrq_n_u8::<2>(a),
                    3 => vshrq_n_u8::<3>(a),
                    4 => vshrq_n_u8::<4>(a),
                    5 => vshrq_n_u8::<5>(a),
                    6 => vshrq_n_u8::<6>(a),
                    _ => vshlq_u8(a, vdupq_n_s8(-(SHIFT as i8))),
                };
                vandq_u8(shifted, vdupq_n_u8(mask))
            }
        }
        #[inline(always)]
        unsafe fn byte<const K: u32>(a: Self::B) -> Self::F {
            unsafe {
                let shifted = vshlq_u32(vreinterpretq_u32_u8(a), vdupq_n_s32(-8 * K as i32));
                vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32(255)))
            }
        }
        #[inline(always)]
        unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F {
            unsafe {
                let top = vshlq_s32(vreinterpretq_s32_u8(a), vdupq_n_s32(24 - 8 * K as i32));
                vcvtq_f32_s32(vshrq_n_s32::<24>(top))
            }
        }
        #[inline(always)]
        unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
            // Below 64 a byte is the same number with a sign.
            unsafe { Self::dot_signed(acc, w, x) }
        }
        #[inline(always)]
        unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
            unsafe {
                let x = vdupq_n_s32(x.cast::<i32>().read_unaligned());
                D::dot::<0>(acc, vreinterpretq_s8_u8(w), vreinterpretq_s8_s32(x))
            }
        }
        #[inline(always)]
        unsafe fn sum(a: Self::F) -> f32 {
            unsafe {
                let two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
                vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
            }
        }
        #[inline(always)]
        unsafe fn greatest(a: Self::F) -> f32 {
            unsafe { vmaxvq_f32(a) }
        }
    }

    /// Sixteen lanes in four registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon<D>(PhantomData<D>);

    /// Applies an operation of a [`Quarter`] to all four.
    macro_rules! quarters {
        (|$($x:ident),+| $body:expr) => {
            unsafe {
                [
                    { $(let $x = $x[0];)+ $body },
                    { $(let $x = $x[1];)+ $body },
                    { $(let $x = $x[2];)+ $body },
                    { $(let $x = $x[3];)+ $body },
                ]
            }
        };
        ($p:ident + $step:literal => $body:expr) => {{
            let $p = [$p, $p.wrapping_add($step), $p.wrapping_add(2 * $step), $p.wrapping_add(3 * $step)];
            quarters!(|$p| $body)
        }};
    }

    impl<D: Bytes> Simd for Neon<D> {
        type F = [float32x4_t; 4];
        type I = [int32x4_t; 4];
        type B = [uint8x16_t; 4];
        const SIGNED_OFFSET: i32 = 0;
        const FEW_REGISTERS: bool = true;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::F {
            unsafe { [Quarter::<D>::splat(x); 4] }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::F {
            quarters!(p + 4 => Quarter::<D>::load(p))
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: Self::F) {
            unsafe {
                Quarter::<D>::store(p, x[0]);
                Quarter::<D>::store(p.add(4), x[1]);
                Quarter::<D>::store(p.add(8), x[2]);
                Quarter::<D>::store(p.add(12), x[3]);
            }
        }
        #[inline(always)]
        unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::add(a, b))
        }
        #[inline(always)]
        unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::sub(a, b))
        }
        #[inline(always)]
        unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::mul(a, b))
        }
        #[inline(always)]
        unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::div(a, b))
        }
        #[inline(always)]
        unsafe fn sqrt(a: Self::F) -> Self::F {
            quarters!(|a| Quarter::<D>::sqrt(a))
        }
        #[inline(always)]
        unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::min(a, b))
        }
        #[inline(always)]
        unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
            quarters!(|a, b| Quarter::<D>::max(a, b))
        }
        #[inline(always)]
        unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            quarters!(|a, b, c| Quarter::<D>::fma(a, b, c))
        }
        #[inline(always)]
        unsafe fn round(a: Self::F) -> Self::F {
            quarters!(|a| Quarter::<D>::round(a))
        }
        #[inline(always)]
        unsafe fn exp2i(n: Self::F) -> Self::F {
            quarters!(|n| Quarter::<D>::exp2i(n))
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self::F {
            quarters!(p + 4 => Quarter::<D>::load_f16(p))
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F) {
            let pairs = quarters!(p + 8 => Quarter::<D>::load_bf16_pairs(p));
            (quarters!(|pairs| pairs.0), quarters!(|pairs| pairs.1))
        }
        #[inline(always)]
        unsafe fn load_u8(p: *const u8) -> Self::F {
            quarters!(p + 4 => Quarter::<D>::load_u8(p))
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const u8) -> Self::F {
            quarters!(p + 4 => Quarter::<D>::load_i8(p))
        }
        #[inline(always)]
        unsafe fn store_i8(p: *mut i8, x: Self::F) {
            unsafe {
                Quarter::<D>::store_i8(p, x[0]);
                Quarter::<D>::store_i8(p.add(4), x[1]);
                Quarter::<D>::store_i8(p.add(8), x[2]);
                Quarter::<D>::store_i8(p.add(12), x[3]);
            }
        }
        #[inline(always)]
        unsafe fn zero_i() -> Self::I {
            unsafe { [Quarter::<D>::zero_i(); 4] }
        }
        #[inline(always)]
        unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
            quarters!(|a, b| Quarter::<D>::add_i(a, b))
        }
        #[inline(always)]
        unsafe fn to_f(a: Self::I) -> Self::F {
            quarters!(|a| Quarter::<D>::to_f(a))
        }
        #[inline(always)]
        unsafe fn load_b(p: *const u8) -> Self::B {
            quarters!(p + 16 => Quarter::<D>::load_b(p))
        }
        #[inline(always)]
        unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B {
            quarters!(|a, b| Quarter::<D>::or_b(a, b))
        }
        #[inline(always)]
        unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B {
            quarters!(|a| Quarter::<D>::shift_right::<SHIFT>(a, mask))
        }
        #[inline(always)]
        unsafe fn byte<const K: u32>(a: Self::B) -> Self::F {
            quarters!(|a| Quarter::<D>::byte::<K>(a))
        }
        #[inline(always)]
        unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F {
            quarters!(|a| Quarter::<D>::byte_signed::<K>(a))
        }
        #[inline(always)]
        unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
            quarters!(|acc, w| Quarter::<D>::dot(acc, w, x))
        }
        #[inline(always)]
        unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
            quarters!(|acc, w| Quarter::<D>::dot_signed(acc, w, x))
        }
        #[inline(always)]
        unsafe fn sum(a: Self::F) -> f32 {
            unsafe {
                let (even, odd) = (vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
                Quarter::<D>::sum(vaddq_f32(even, odd))
            }
        }
        #[inline(always)]
        unsafe fn greatest(a: Self::F) -> f32 {
            unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[1]), vmaxq_f32(a[2], a[3]))) }
        }
    }
}

pub(crate) use lanes::{Neon, Quarter, small_matrix};
