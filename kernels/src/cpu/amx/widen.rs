//! Panels of quantised weights as tiles of bf16.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::formats::{Block, Place};
use super::super::pack::PackedMatrix;
use super::super::x86::Avx512;

/// Writes some blocks of 32 columns of a panel as tiles: rows of 16 outputs by two columns, rounded to the nearest bf16.
///
/// # Safety
/// The level of AMX is there; `to` has room for a tile of 1,024 bytes a block, on a cache line.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn widen<B: Block>(matrix: &PackedMatrix, panel: usize, blocks: Range<usize>, to: *mut u8) {
    // SAFETY: the blocks are the panel's, and `to` has room.
    unsafe {
        let raise = if B::MOST.is_none() { 128 } else { 0 };
        let centre = _mm512_set1_ps((256 + B::OFFSET + raise) as f32);
        let mut to = to.cast::<__m512i>();
        for b in blocks {
            let place = Place::of::<B>(matrix, panel, b);
            let w = B::quants::<Avx512>(place.quants);
            let (scale, minimum) = place.scales::<Avx512, B>();
            let shift =
                [_mm512_fmadd_ps(scale[0], centre, minimum), _mm512_fmadd_ps(scale[1], centre, minimum)];
            for j in 0..8 {
                let (scale, shift) = (scale[j * B::GROUPS / 8], shift[j * B::GROUPS / 8]);
                let w = if B::MOST.is_none() { _mm512_xor_si512(w[j], _mm512_set1_epi8(-128)) } else { w[j] };
                let first = number(_mm512_slli_epi32::<15>(w), scale, shift);
                let second = number(_mm512_slli_epi32::<7>(w), scale, shift);
                let third = number(_mm512_srli_epi32::<1>(w), scale, shift);
                let fourth = number(_mm512_srli_epi32::<9>(w), scale, shift);
                _mm512_store_si512(to, pair(first, second));
                _mm512_store_si512(to.add(1), pair(third, fourth));
                to = to.add(2);
            }
        }
    }
}

/// `scale * q - (minimum + scale * offset)` of the byte `q` that lies at bit 15, where the mantissa of 256 counts ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn number(shifted: __m512i, scale: __m512, shift: __m512) -> __m512i {
    // 256 + q: (shifted & mask) | bits of 256.
    const MASKED_OR: i32 = 0xea;
    let mask = _mm512_set1_epi32(0xff << 15);
    let bits = _mm512_ternarylogic_epi32::<MASKED_OR>(shifted, mask, _mm512_set1_epi32(0x4380_0000));
    _mm512_castps_si512(_mm512_fmsub_ps(_mm512_castsi512_ps(bits), scale, shift))
}

/// Two vectors of f32 as pairs of bf16, to the nearest, ties away from zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pair(first: __m512i, second: __m512i) -> __m512i {
    let half = _mm512_set1_epi32(0x8000);
    let first = _mm512_srli_epi32::<16>(_mm512_add_epi32(first, half));
    _mm512_mask_mov_epi16(first, 0xaaaa_aaaa, _mm512_add_epi32(second, half))
}
