//! Numbers into storage formats: the blocks that [`quant`](crate::quant) reads.
//!
//! Every block looks for the scale (and minimum) of least squared error: quants of several scales are tried, each
//! with the scale that suits these quants best (least squares); what the format rounds the scale to is what
//! the quants are then made for. Nothing weighs one number more than another: without the activations that they
//! will meet, the mean squared error is the product's error.
//!
//! The bits are the same on every machine: nothing here is fused, and sums run in the order written.

// A closure would be compiled without the instructions of the function that it is in.
#![allow(clippy::needless_range_loop)]

mod k;

use half::{bf16, f16};

use crate::cpu::Level;
use crate::ops::ShapeError;
use crate::quant::Format;

/// Writes `numbers`, rows of `cols`, in `format`. `numbers` must be finite; what is larger than the format's
/// scales hold becomes the largest that they do.
///
/// An error if a row is no whole number of blocks, or the numbers are no whole number of rows. The formats
/// that a quantised model needs are F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K, Q5_K and Q6_K; Q4_1 and Q5_1 are
/// read only, and refused in the same way.
pub fn quantize(format: Format, cols: usize, numbers: &[f32]) -> Result<Vec<u8>, ShapeError> {
    let rows = numbers.len().checked_div(cols).unwrap_or(0);
    let wrong = || ShapeError { format, rows, cols, bytes: size_of_val(numbers) };
    let row_bytes = format.row_bytes(cols).ok_or_else(wrong)?;
    if rows * cols != numbers.len() || matches!(format, Format::Q4_1 | Format::Q5_1) {
        return Err(wrong());
    }
    let mut out = vec![0; rows * row_bytes];
    match Level::detect() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the level that was detected.
        Level::Avx512 | Level::Amx => unsafe { avx512(format, numbers, &mut out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2(format, numbers, &mut out) },
        _ => blocks(format, numbers, &mut out),
    }
    Ok(out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(format: Format, numbers: &[f32], out: &mut [u8]) {
    blocks(format, numbers, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
unsafe fn avx512(format: Format, numbers: &[f32], out: &mut [u8]) {
    blocks(format, numbers, out);
}

/// All blocks one after another; compiled into each of the functions above with their instructions.
#[inline(always)]
fn blocks(format: Format, numbers: &[f32], out: &mut [u8]) {
    match format {
        Format::F32 => each::<1, 4>(numbers, out, |x, b| *b = x[0].to_le_bytes()),
        Format::F16 => {
            each::<1, 2>(numbers, out, |x, b| *b = half_within(x[0]).to_le_bytes());
        }
        Format::BF16 => each::<1, 2>(numbers, out, |x, b| *b = bf16::from_f32(x[0]).to_le_bytes()),
        Format::Q8_0 => each::<32, 34>(numbers, out, q8_0),
        Format::Q4_0 => each::<32, 18>(numbers, out, q4_0),
        Format::Q5_0 => each::<32, 22>(numbers, out, q5_0),
        Format::Q4_K => each::<256, 144>(numbers, out, k::q4_k),
        Format::Q5_K => each::<256, 176>(numbers, out, k::q5_k),
        Format::Q6_K => each::<256, 210>(numbers, out, k::q6_k),
        Format::Q4_1 | Format::Q5_1 => {}
    }
}

#[inline(always)]
fn each<const LEN: usize, const BYTES: usize>(
    numbers: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    let (numbers, _) = numbers.as_chunks::<LEN>();
    let (out, _) = out.as_chunks_mut::<BYTES>();
    for i in 0..numbers.len().min(out.len()) {
        block(&numbers[i], &mut out[i]);
    }
}

/// The nearest whole number of one below 2^22 in size, ties to even: in two additions, without a call.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The nearest f16 that is finite.
#[inline(always)]
fn half_within(x: f32) -> f16 {
    f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// The number of largest size, with its sign.
#[inline(always)]
fn peak<const N: usize>(x: &[f32; N]) -> f32 {
    let (mut high, mut low) = (0.0_f32, 0.0_f32);
    for i in 0..N {
        high = high.max(x[i]);
        low = low.min(x[i]);
    }
    if high > -low { high } else { low }
}

/// What a whole number of steps of `scale` is nearest, within `low..=high`.
#[inline(always)]
fn quants<const N: usize>(x: &[f32; N], scale: f32, low: f32, high: f32) -> [f32; N] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut q = [0.0; N];
    for i in 0..N {
        // Clamped first: the rounding holds for small numbers only.
        q[i] = nearest((x[i] * inverse).max(low).min(high));
    }
    q
}

/// `sum(x q)` and `sum(q q)`, in eight sums of their own so that they fit vectors.
#[inline(always)]
fn products<const N: usize>(x: &[f32; N], q: &[f32; N]) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0; 8], [0.0; 8]);
    for i in 0..N / 8 {
        for lane in 0..8 {
            let (x, q) = (x[8 * i + lane], q[8 * i + lane]);
            xq[lane] += x * q;
            qq[lane] += q * q;
        }
    }
    (total(xq), total(qq))
}

#[inline(always)]
fn total(v: [f32; 8]) -> f32 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// `sum((x - scale q)^2)`.
#[inline(always)]
fn error<const N: usize>(x: &[f32; N], q: &[f32; N], scale: f32) -> f32 {
    let mut sums = [0.0; 8];
    for i in 0..N / 8 {
        for lane in 0..8 {
            let off = x[8 * i + lane] - scale * q[8 * i + lane];
            sums[lane] += off * off;
        }
    }
    total(sums)
}

/// The scale of least squared error with quants in `low..=high`; 0 for a block of zeros. The number of largest
/// size is tried at either end, and `steps` places of `step` around it.
#[inline(always)]
fn symmetric<const N: usize>(x: &[f32; N], low: f32, high: f32, steps: i32, step: f32) -> f32 {
    let peak = peak(x);
    let (mut best, mut scale) = (0.0, 0.0);
    if peak == 0.0 {
        return 0.0;
    }
    for end in [low, high] {
        for i in -steps..=steps {
            let q = quants(x, peak / (end + step * i as f32), low, high);
            let (xq, qq) = products(x, &q);
            // The error that is left is `sum(x x)` less this.
            let gain = xq * xq / qq;
            if gain > best {
                (best, scale) = (gain, xq / qq);
            }
        }
    }
    scale
}

/// The scale as an f16, and the quants that are right for it; the scale is improved once more for these.
#[inline(always)]
fn settled<const N: usize>(x: &[f32; N], scale: f32, low: f32, high: f32) -> (f16, [f32; N]) {
    let first = half_within(scale);
    let q = quants(x, first.to_f32(), low, high);
    let (xq, qq) = products(x, &q);
    let second = if qq == 0.0 { first } else { half_within(xq / qq) };
    let better = quants(x, second.to_f32(), low, high);
    if error(x, &better, second.to_f32()) < error(x, &q, first.to_f32()) {
        (second, better)
    } else {
        (first, q)
    }
}

#[inline(always)]
fn q8_0(x: &[f32; 32], out: &mut [u8; 34]) {
    // -128 is left out: what multiplies by the size of a quant has no room for it.
    let (scale, q) = settled(x, symmetric(x, -127.0, 127.0, 2, 0.25), -127.0, 127.0);
    out[..2].copy_from_slice(&scale.to_le_bytes());
    for i in 0..32 {
        out[2 + i] = q[i] as i8 as u8;
    }
}

#[inline(always)]
fn q4_0(x: &[f32; 32], out: &mut [u8; 18]) {
    let (scale, q) = settled(x, symmetric(x, -8.0, 7.0, 9, 0.1), -8.0, 7.0);
    out[..2].copy_from_slice(&scale.to_le_bytes());
    let q = raised(&q, 8.0);
    for i in 0..16 {
        out[2 + i] = q[i] | q[16 + i] << 4;
    }
}

#[inline(always)]
fn q5_0(x: &[f32; 32], out: &mut [u8; 22]) {
    let (scale, q) = settled(x, symmetric(x, -16.0, 15.0, 9, 0.1), -16.0, 15.0);
    out[..2].copy_from_slice(&scale.to_le_bytes());
    let q = raised(&q, 16.0);
    let mut fifth = 0_u32;
    for i in 0..32 {
        fifth |= u32::from(q[i] >> 4) << i;
    }
    out[2..6].copy_from_slice(&fifth.to_le_bytes());
    for i in 0..16 {
        out[6 + i] = q[i] & 15 | (q[16 + i] & 15) << 4;
    }
}

/// Quants as the format stores them, from 0 up.
#[inline(always)]
fn raised<const N: usize>(q: &[f32; N], by: f32) -> [u8; N] {
    let mut bytes = [0; N];
    for i in 0..N {
        bytes[i] = (q[i] + by) as u8;
    }
    bytes
}

#[cfg(test)]
mod tests;
