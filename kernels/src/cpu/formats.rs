//! How a kernel reads each panel: of quantised weights quants and scales of 32 columns by 16 rows as vectors, of plain
//! numbers two columns.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::pack::{Group, IN_GROUP, PackedMatrix};
use super::simd::{LANES, Simd};

/// Bytes that weights are asked for ahead of their use.
pub(crate) const AHEAD: usize = 4096;
/// The same where several panels are read at a time: the processor runs ahead by itself for the most part.
pub(crate) const AHEAD_OF_SEVERAL: usize = 512;

/// The one place that knows which type reads which format: evaluates `$quantized` with `$block` as the [`Block`] of a
/// quantised format, or `$plain` with `$numbers` as the [`Plain`] of plain numbers.
macro_rules! by_format {
    ($format:expr, $block:ident => $quantized:expr, $numbers:ident => $plain:expr $(,)?) => {
        match $format {
            $crate::quant::Format::F32 => $crate::cpu::formats::with_type!($numbers = PlainF32 => $plain),
            $crate::quant::Format::F16 => $crate::cpu::formats::with_type!($numbers = PlainF16 => $plain),
            $crate::quant::Format::BF16 => $crate::cpu::formats::with_type!($numbers = PlainBF16 => $plain),
            $crate::quant::Format::Q8_0 => $crate::cpu::formats::with_type!($block = Q8_0 => $quantized),
            $crate::quant::Format::Q4_0 => $crate::cpu::formats::with_type!($block = Q4_0 => $quantized),
            $crate::quant::Format::Q4_1 => $crate::cpu::formats::with_type!($block = Q4_1 => $quantized),
            $crate::quant::Format::Q5_0 => $crate::cpu::formats::with_type!($block = Q5_0 => $quantized),
            $crate::quant::Format::Q5_1 => $crate::cpu::formats::with_type!($block = Q5_1 => $quantized),
            $crate::quant::Format::Q4_K => $crate::cpu::formats::with_type!($block = Q4K => $quantized),
            $crate::quant::Format::Q5_K => $crate::cpu::formats::with_type!($block = Q5K => $quantized),
            $crate::quant::Format::Q6_K => $crate::cpu::formats::with_type!($block = Q6K => $quantized),
        }
    };
    ($format:expr, $block:ident => $quantized:expr, _ => $plain:expr $(,)?) => {
        $crate::cpu::formats::by_format!($format, $block => $quantized, _Numbers => $plain)
    };
}
pub(crate) use by_format;

/// Evaluates an expression in which a type of this module goes by another name.
macro_rules! with_type {
    ($name:ident = $type:ident => $value:expr) => {{
        type $name = $crate::cpu::formats::$type;
        $value
    }};
}
pub(crate) use with_type;

/// A quantised panel format (see `pack`).
pub(crate) trait Block {
    /// Bytes of scales per 256 columns.
    const PER_256: usize;
    /// Bytes of scales per 32 columns.
    const PER_32: usize;
    /// Bytes of quants per 32 columns.
    const QUANTS: usize;
    /// Groups of columns within 32 that have a scale of their own.
    const GROUPS: usize = 1;
    /// Subtracted from a stored quant.
    const OFFSET: i32 = 0;
    /// The greatest stored quant; `None` where quants are signed bytes.
    const MOST: Option<u8> = Some(15);
    /// There is a minimum: `value = scale * q - minimum`.
    const MINIMUM: bool = false;
    /// How these lie in a panel.
    const LAID_OUT: Group = Group::new(Self::PER_256, Self::PER_32, Self::QUANTS);

    /// The quants, four columns a vector.
    ///
    /// # Safety
    /// As [`Simd`]; `q` points to [`Block::QUANTS`] bytes.
    unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8];

    /// Scales of the groups (the first twice where there is one) and the minimum.
    ///
    /// # Safety
    /// As [`Simd`]; the pointers lead to the scales of these 256 and 32 columns.
    unsafe fn scales<S: Simd>(per_256: *const u8, per_32: *const u8) -> ([S::F; 2], S::F);
}

/// A block of 32 columns of a panel.
pub(crate) struct Weights<S: Simd> {
    /// See [`Block::quants`].
    pub(crate) quants: [S::B; 8],
    /// See [`Block::scales`].
    pub(crate) scale: [S::F; 2],
    pub(crate) minimum: S::F,
}

/// Where a block of 32 columns of a panel lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// See [`Block::quants`].
    pub(crate) quants: *const u8,
    /// See [`Block::scales`].
    pub(crate) per_256: *const u8,
    pub(crate) per_32: *const u8,
}

impl Place {
    /// The block need not be there: a place beyond a panel's blocks is to be asked for ahead, not read.
    #[inline(always)]
    pub(crate) fn of<B: Block>(matrix: &PackedMatrix, panel: usize, block: usize) -> Self {
        Self::in_group::<B>(Self::group::<B>(matrix, panel, block), block % IN_GROUP)
    }

    /// The group of 256 columns that a block is in.
    #[inline(always)]
    pub(crate) fn group<B: Block>(matrix: &PackedMatrix, panel: usize, block: usize) -> *const u8 {
        matrix.panel(panel).wrapping_add(B::LAID_OUT.all_scales(block))
    }

    #[inline(always)]
    fn in_group<B: Block>(group: *const u8, block: usize) -> Self {
        Self {
            quants: group.wrapping_add(B::LAID_OUT.quants(block)),
            per_256: group,
            per_32: group.wrapping_add(B::LAID_OUT.scales(block)),
        }
    }

    /// The block's scales.
    ///
    /// # Safety
    /// As [`Simd`]; the block is there.
    #[inline(always)]
    pub(crate) unsafe fn scales<S: Simd, B: Block>(self) -> ([S::F; 2], S::F) {
        // SAFETY: a block has scales of its own and of its group.
        unsafe { B::scales::<S>(self.per_256, self.per_32) }
    }
}

impl<S: Simd> Weights<S> {
    /// Block `block` of a group, of which `ahead` bytes on are asked for.
    ///
    /// # Safety
    /// As [`Simd`]; the group is one of a matrix of format `B`, and has so many blocks.
    #[inline(always)]
    pub(crate) unsafe fn read<B: Block>(group: *const u8, block: usize, ahead: usize) -> Self {
        let place = Place::in_group::<B>(group, block);
        // An eighth of a group with each of its blocks: scales are asked for too.
        let share = const { B::LAID_OUT.bytes() / IN_GROUP };
        for line in (0..share).step_by(64) {
            S::prefetch(group.wrapping_add(ahead + block * share + line));
        }
        // SAFETY: the caller's block.
        unsafe {
            let quants = B::quants::<S>(place.quants);
            let (scale, minimum) = place.scales::<S, B>();
            Self { quants, scale, minimum }
        }
    }

    /// The numbers of four columns, from `4 * j` of the block on.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub(crate) unsafe fn numbers<B: Block>(&self, j: usize) -> [S::F; 4] {
        let (w, scale) = (self.quants[j], self.scale[j * B::GROUPS / 8]);
        // SAFETY: as the caller's.
        unsafe {
            let mut numbers = if B::MOST.is_none() {
                [
                    S::byte_signed::<0>(w),
                    S::byte_signed::<1>(w),
                    S::byte_signed::<2>(w),
                    S::byte_signed::<3>(w),
                ]
            } else {
                [S::byte::<0>(w), S::byte::<1>(w), S::byte::<2>(w), S::byte::<3>(w)]
            };
            for k in 0..4 {
                let q = S::sub(numbers[k], S::splat(B::OFFSET as f32));
                numbers[k] = S::sub(S::mul(q, scale), self.minimum);
            }
            numbers
        }
    }
}

#[inline(always)]
unsafe fn nibbles<S: Simd>(q: *const u8) -> [S::B; 8] {
    // SAFETY: the caller's pointer is valid for 256 bytes.
    unsafe {
        let (a, b) = (S::load_b(q), S::load_b(q.add(64)));
        let (c, d) = (S::load_b(q.add(128)), S::load_b(q.add(192)));
        [
            S::shift_right::<0>(a, 15),
            S::shift_right::<0>(b, 15),
            S::shift_right::<0>(c, 15),
            S::shift_right::<0>(d, 15),
            S::shift_right::<4>(a, 15),
            S::shift_right::<4>(b, 15),
            S::shift_right::<4>(c, 15),
            S::shift_right::<4>(d, 15),
        ]
    }
}

#[inline(always)]
unsafe fn fives<S: Simd>(q: *const u8) -> [S::B; 8] {
    // SAFETY: the caller's pointer is valid for 320 bytes.
    unsafe {
        let (a, b, c) = (S::load_b(q), S::load_b(q.add(64)), S::load_b(q.add(128)));
        let (d, e) = (S::load_b(q.add(192)), S::load_b(q.add(256)));
        let last = S::or_b(S::shift_right::<5>(e, 7), S::shift_right::<2>(b, 8));
        [
            S::shift_right::<0>(a, 31),
            S::shift_right::<0>(b, 31),
            S::shift_right::<0>(c, 31),
            S::shift_right::<0>(d, 31),
            S::shift_right::<0>(e, 31),
            S::or_b(S::shift_right::<5>(a, 7), S::shift_right::<3>(b, 24)),
            S::or_b(S::shift_right::<5>(c, 7), S::shift_right::<3>(d, 24)),
            S::or_b(last, S::shift_right::<1>(d, 16)),
        ]
    }
}

/// Four vectors of 6 bits.
#[inline(always)]
unsafe fn sixes<S: Simd>(q: *const u8) -> [S::B; 4] {
    // SAFETY: the caller's pointer is valid for 192 bytes.
    unsafe {
        let (a, b, c) = (S::load_b(q), S::load_b(q.add(64)), S::load_b(q.add(128)));
        let low = S::or_b(S::shift_right::<6>(a, 3), S::shift_right::<4>(b, 12));
        [
            S::shift_right::<0>(a, 63),
            S::shift_right::<0>(b, 63),
            S::shift_right::<0>(c, 63),
            S::or_b(low, S::shift_right::<2>(c, 48)),
        ]
    }
}

#[inline(always)]
unsafe fn one_scale<S: Simd>(per_32: *const u8) -> ([S::F; 2], S::F) {
    // SAFETY: the caller's pointer is valid for 16 f16.
    unsafe { ([S::load_f16(per_32.cast::<f16>()); 2], S::splat(0.0)) }
}

/// Q4_1 and Q5_1 store what is added.
#[inline(always)]
unsafe fn scale_and_addend<S: Simd>(per_32: *const u8) -> ([S::F; 2], S::F) {
    // SAFETY: the caller's pointer is valid for 32 f16.
    unsafe {
        let addend = S::load_f16(per_32.add(32).cast::<f16>());
        ([S::load_f16(per_32.cast::<f16>()); 2], S::sub(S::splat(0.0), addend))
    }
}

#[inline(always)]
unsafe fn k_scale_and_minimum<S: Simd>(per_256: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
    // SAFETY: the caller's pointers are valid for 32 f16 and 32 bytes.
    unsafe {
        let scale = S::mul(S::load_f16(per_256.cast::<f16>()), S::load_u8(per_32));
        let minimum = S::mul(S::load_f16(per_256.add(32).cast::<f16>()), S::load_u8(per_32.add(16)));
        ([scale; 2], minimum)
    }
}

pub(crate) struct Q8_0;
pub(crate) struct Q4_0;
pub(crate) struct Q4_1;
pub(crate) struct Q5_0;
pub(crate) struct Q5_1;
pub(crate) struct Q4K;
pub(crate) struct Q5K;
pub(crate) struct Q6K;

// SAFETY (all implementations): the trait's contract says how far the pointers reach.
#[allow(clippy::undocumented_unsafe_blocks)]
mod blocks {
    use super::*;

    impl Block for Q8_0 {
        const PER_256: usize = 0;
        const PER_32: usize = 32;
        const QUANTS: usize = 512;
        const MOST: Option<u8> = None;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe {
                [
                    S::load_b(q),
                    S::load_b(q.add(64)),
                    S::load_b(q.add(128)),
                    S::load_b(q.add(192)),
                    S::load_b(q.add(256)),
                    S::load_b(q.add(320)),
                    S::load_b(q.add(384)),
                    S::load_b(q.add(448)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(_: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { one_scale::<S>(per_32) }
        }
    }

    impl Block for Q4_0 {
        const PER_256: usize = 0;
        const PER_32: usize = 32;
        const QUANTS: usize = 256;
        const OFFSET: i32 = 8;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { nibbles::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(_: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { one_scale::<S>(per_32) }
        }
    }

    impl Block for Q4_1 {
        const PER_256: usize = 0;
        const PER_32: usize = 64;
        const QUANTS: usize = 256;
        const MINIMUM: bool = true;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { nibbles::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(_: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { scale_and_addend::<S>(per_32) }
        }
    }

    impl Block for Q5_0 {
        const PER_256: usize = 0;
        const PER_32: usize = 32;
        const QUANTS: usize = 320;
        const MOST: Option<u8> = Some(31);
        const OFFSET: i32 = 16;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { fives::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(_: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { one_scale::<S>(per_32) }
        }
    }

    impl Block for Q5_1 {
        const PER_256: usize = 0;
        const PER_32: usize = 64;
        const QUANTS: usize = 320;
        const MOST: Option<u8> = Some(31);
        const MINIMUM: bool = true;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { fives::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(_: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { scale_and_addend::<S>(per_32) }
        }
    }

    impl Block for Q4K {
        const PER_256: usize = 64;
        const PER_32: usize = 32;
        const QUANTS: usize = 256;
        const MINIMUM: bool = true;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { nibbles::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(per_256: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { k_scale_and_minimum::<S>(per_256, per_32) }
        }
    }

    impl Block for Q5K {
        const PER_256: usize = 64;
        const PER_32: usize = 32;
        const QUANTS: usize = 320;
        const MOST: Option<u8> = Some(31);
        const MINIMUM: bool = true;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe { fives::<S>(q) }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(per_256: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe { k_scale_and_minimum::<S>(per_256, per_32) }
        }
    }

    impl Block for Q6K {
        const PER_256: usize = 32;
        const PER_32: usize = 32;
        const QUANTS: usize = 384;
        const MOST: Option<u8> = Some(63);
        const GROUPS: usize = 2;
        const OFFSET: i32 = 32;
        #[inline(always)]
        unsafe fn quants<S: Simd>(q: *const u8) -> [S::B; 8] {
            unsafe {
                let ([a, b, c, d], [e, f, g, h]) = (sixes::<S>(q), sixes::<S>(q.add(192)));
                [a, b, c, d, e, f, g, h]
            }
        }
        #[inline(always)]
        unsafe fn scales<S: Simd>(per_256: *const u8, per_32: *const u8) -> ([S::F; 2], S::F) {
            unsafe {
                let d = S::load_f16(per_256.cast::<f16>());
                let scales = [S::mul(d, S::load_i8(per_32)), S::mul(d, S::load_i8(per_32.add(16)))];
                (scales, S::splat(0.0))
            }
        }
    }
}

/// A panel of plain numbers, two columns at a time.
pub(crate) trait Plain {
    /// Bytes of two columns of a panel.
    const PAIR: usize;
    /// # Safety
    /// As [`Simd`]; `p` points to [`Plain::PAIR`] bytes, or to half of them if `last`.
    unsafe fn pair<S: Simd>(p: *const u8, last: bool) -> (S::F, S::F);
}

pub(crate) struct PlainF32;
pub(crate) struct PlainF16;
pub(crate) struct PlainBF16;

impl Plain for PlainF32 {
    const PAIR: usize = 8 * LANES;
    #[inline(always)]
    unsafe fn pair<S: Simd>(p: *const u8, last: bool) -> (S::F, S::F) {
        // SAFETY: the trait's contract.
        unsafe {
            let second = if last { S::splat(0.0) } else { S::load(p.cast::<f32>().add(LANES)) };
            (S::load(p.cast()), second)
        }
    }
}

impl Plain for PlainF16 {
    const PAIR: usize = 4 * LANES;
    #[inline(always)]
    unsafe fn pair<S: Simd>(p: *const u8, last: bool) -> (S::F, S::F) {
        // SAFETY: the trait's contract.
        unsafe {
            let second = if last { S::splat(0.0) } else { S::load_f16(p.cast::<f16>().add(LANES)) };
            (S::load_f16(p.cast()), second)
        }
    }
}

impl Plain for PlainBF16 {
    const PAIR: usize = 4 * LANES;
    #[inline(always)]
    unsafe fn pair<S: Simd>(p: *const u8, _: bool) -> (S::F, S::F) {
        // SAFETY: a panel of bf16 holds whole pairs, the last one filled up with zeros.
        unsafe { S::load_bf16_pairs(p.cast()) }
    }
}
