//! Sixteen lanes, whatever the machine: AVX-512 with VNNI, AVX2, NEON, or plain code for the compiler.
//!
//! A kernel is written once over [`Simd`] and instantiated per level. Every level does the same
//! operations in the same order on the same lanes, so that all fused levels give the same bits.

use half::f16;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Vectors of 16 f32, of 16 i32 and of 64 bytes (four a lane).
///
/// # Safety
/// Every method must run on a machine that has the level's instructions, inside a function compiled
/// for them; pointers must be valid for what is read or written. No alignment is needed.
pub(crate) trait Simd: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixty-four bytes.
    type B: Copy;
    /// What [`Simd::dot_signed`] adds to each weight; the caller takes its share off again.
    const SIGNED_OFFSET: i32;
    /// The registers hold eight vectors and not 32: sums of fewer stay in them.
    const FEW_REGISTERS: bool = false;

    /// Asks for the cache line at `p`, which need not be there, where reading is faster so.
    #[inline(always)]
    fn prefetch(_p: *const u8) {}

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sqrt(a: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// `b` where `a` is not a number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c` in one rounding where the machine can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `2^n` for integral `n` in -126..=127.
    unsafe fn exp2i(n: Self::F) -> Self::F;
    unsafe fn load_f16(p: *const f16) -> Self::F;
    /// Two vectors from 16 pairs of bf16: the first of each pair, the second of each.
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F);
    unsafe fn load_u8(p: *const u8) -> Self::F;
    unsafe fn load_i8(p: *const u8) -> Self::F;

    /// Stores whole numbers of -127..=127 as bytes.
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, x: Self::F) {
        let mut numbers = [0.0f32; LANES];
        // SAFETY: the caller's pointer is valid for 16 bytes.
        unsafe {
            Self::store(numbers.as_mut_ptr(), x);
            for (i, number) in numbers.into_iter().enumerate() {
                *p.add(i) = number as i8;
            }
        }
    }

    unsafe fn zero_i() -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn to_f(a: Self::I) -> Self::F;
    unsafe fn load_b(p: *const u8) -> Self::B;
    unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B;
    /// `(a >> SHIFT) & mask` of each byte; the mask leaves out what a neighbour would shift in.
    unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B;
    /// Byte `K` of each lane, unsigned.
    unsafe fn byte<const K: u32>(a: Self::B) -> Self::F;
    /// Byte `K` of each lane, signed.
    unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F;
    /// Adds to each lane the products of its four unsigned bytes (at most 63) with the four signed ones at `x`.
    unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I;
    /// As [`Simd::dot`] with signed bytes of `w`, each raised by [`Simd::SIGNED_OFFSET`].
    unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I;

    /// [`Simd::dot`] of all vectors of `w`, four columns each, with the bytes from `x` on; `most` is the greatest of the
    /// weights, or `None` where they are signed.
    #[inline(always)]
    unsafe fn dots(w: &[Self::B], x: *const i8, most: Option<u8>) -> Self::I {
        // SAFETY: the caller's pointer is valid for four bytes a vector.
        unsafe {
            // Two chains, so that one need not wait for the other.
            let mut chains = [Self::zero_i(); 2];
            for j in 0..w.len() {
                let (chain, x) = (&mut chains[j % 2], x.add(4 * j));
                *chain = match most {
                    Some(_) => Self::dot(*chain, w[j], x),
                    None => Self::dot_signed(*chain, w[j], x),
                };
            }
            Self::add_i(chains[0], chains[1])
        }
    }

    /// The sum of all lanes, halves folded onto each other.
    unsafe fn sum(a: Self::F) -> f32;
    /// The greatest lane.
    unsafe fn greatest(a: Self::F) -> f32;

    /// `e^x` within two units in the last place, `x` held within -87..=88 (Cephes' polynomial).
    #[allow(clippy::excessive_precision, reason = "the digits as published")]
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // SAFETY: as the caller's.
        unsafe {
            let x = Self::max(Self::min(x, Self::splat(88.0)), Self::splat(-87.0));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            // ln 2 in two parts, so that the difference is exact.
            let r = Self::fma(n, Self::splat(-0.693_359_375), x);
            let r = Self::fma(n, Self::splat(2.121_944_400_5e-4), r);
            let mut p = Self::splat(1.987_569_150_0e-4);
            for c in [
                1.398_199_950_7e-3,
                8.333_451_907_3e-3,
                4.166_579_589_4e-2,
                1.666_666_545_9e-1,
                5.000_000_120_1e-1,
            ] {
                p = Self::fma(p, r, Self::splat(c));
            }
            let p = Self::add(Self::fma(p, Self::mul(r, r), r), Self::splat(1.0));
            Self::mul(p, Self::exp2i(n))
        }
    }

    /// `tanh(x)`, absolute error below 3e-7.
    #[inline(always)]
    unsafe fn tanh(x: Self::F) -> Self::F {
        // SAFETY: as the caller's.
        unsafe {
            let e = Self::exp(Self::mul(x, Self::splat(2.0)));
            let share = Self::div(Self::splat(2.0), Self::add(e, Self::splat(1.0)));
            Self::sub(Self::splat(1.0), share)
        }
    }
}

/// A computation written once over [`Simd`] and run at the level a machine has.
pub(crate) trait Kernel {
    /// Runs it.
    ///
    /// # Safety
    /// The level's instructions must exist, and whatever pointers the kernel holds must be valid.
    unsafe fn run<S: Simd>(self);
}

/// Arrays of sixteen, which the compiler vectorises as far as the target's baseline goes (NEON on ARM).
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each<T: Copy, U: Copy + Default>(a: [T; 16], f: impl Fn(T) -> U) -> [U; 16] {
    let mut out = [U::default(); 16];
    for i in 0..16 {
        out[i] = f(a[i]);
    }
    out
}

#[inline(always)]
fn both(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut out = [0.0; 16];
    for i in 0..16 {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Portable {
    type F = [f32; 16];
    type I = [i32; 16];
    type B = [u8; 64];
    const SIGNED_OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the caller's pointer is valid for 16 f32.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        // SAFETY: the caller's pointer is valid for 16 f32.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::F) -> Self::F {
        each(a, f32::sqrt)
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Without the instruction a fused product is a call into libm, a hundred times slower.
        let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = if fused { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        out
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        each(a, f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2i(n: Self::F) -> Self::F {
        each(n, |n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::F {
        // SAFETY: the caller's pointer is valid for 16 f16.
        each(unsafe { p.cast::<[f16; 16]>().read_unaligned() }, f16::to_f32)
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16) -> (Self::F, Self::F) {
        // SAFETY: the caller's pointer is valid for 32 bf16.
        let pairs = unsafe { p.cast::<[u32; 16]>().read_unaligned() };
        let pairs = each(pairs, u32::from_le);
        (each(pairs, |p| f32::from_bits(p << 16)), each(pairs, |p| f32::from_bits(p & 0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::F {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        each(unsafe { p.cast::<[u8; 16]>().read_unaligned() }, f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self::F {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        each(unsafe { p.cast::<[i8; 16]>().read_unaligned() }, f32::from)
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        [0; 16]
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        let mut out = a;
        for i in 0..16 {
            out[i] += b[i];
        }
        out
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        each(a, |a| a as f32)
    }
    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        // SAFETY: the caller's pointer is valid for 64 bytes.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B {
        let mut out = a;
        for i in 0..64 {
            out[i] |= b[i];
        }
        out
    }
    #[inline(always)]
    unsafe fn shift_right<const SHIFT: u32>(a: Self::B, mask: u8) -> Self::B {
        let mut out = a;
        for i in 0..64 {
            out[i] = (a[i] >> SHIFT) & mask;
        }
        out
    }
    #[inline(always)]
    unsafe fn byte<const K: u32>(a: Self::B) -> Self::F {
        let mut out = [0.0; 16];
        for (i, o) in out.iter_mut().enumerate() {
            *o = f32::from(a[4 * i + K as usize]);
        }
        out
    }
    #[inline(always)]
    unsafe fn byte_signed<const K: u32>(a: Self::B) -> Self::F {
        let mut out = [0.0; 16];
        for (i, o) in out.iter_mut().enumerate() {
            *o = f32::from(a[4 * i + K as usize] as i8);
        }
        out
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        // Below 64 a byte is the same number with a sign.
        // SAFETY: the caller's pointer is valid for four bytes.
        unsafe { Self::dot_signed(acc, w, x) }
    }
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::B, x: *const i8) -> Self::I {
        // SAFETY: the caller's pointer is valid for four bytes.
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() };
        let mut out = acc;
        for (i, o) in out.iter_mut().enumerate() {
            for k in 0..4 {
                *o += i32::from(w[4 * i + k] as i8) * i32::from(x[k]);
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        let mut a = a;
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }
    #[inline(always)]
    unsafe fn greatest(a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
