//! Rows into panels, a word of four numbers at a time: every layout keeps four neighbouring numbers of a row in one
//! word, so that a panel is its rows' words transposed.

// A closure would be compiled without the instructions of the function that it is in.
#![allow(clippy::needless_range_loop)]

use super::pack::PanelShape;
use super::simd::LANES;
use crate::quant::{self, Format};

/// Interleaves the rows of a panel, at most sixteen, one after another in `rows`; `panel` holds zeros.
pub(super) fn pack_panel(format: Format, shape: PanelShape, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    if row_bytes == 0 {
        return;
    }
    let (supers, rest) = panel.split_at_mut(shape.super_scales);
    let (scales, quants) = rest.split_at_mut(shape.block_scales);
    match format {
        Format::F32 | Format::BF16 => plain::<4>(rows, row_bytes, quants),
        Format::F16 => plain::<2>(rows, row_bytes, quants),
        Format::Q8_0 => {
            blocks::<34, 8, 1>(rows, row_bytes, quants, |b, _| words(b, 2));
            block_scales::<34>(rows, row_bytes, scales, 1);
        }
        Format::Q4_0 => {
            blocks::<18, 4, 1>(rows, row_bytes, quants, |b, _| words(b, 2));
            block_scales::<18>(rows, row_bytes, scales, 1);
        }
        Format::Q4_1 => {
            blocks::<20, 4, 1>(rows, row_bytes, quants, |b, _| words(b, 4));
            block_scales::<20>(rows, row_bytes, scales, 2);
        }
        Format::Q5_0 => {
            blocks::<22, 5, 1>(rows, row_bytes, quants, |b, _| with_fifth(words(b, 6), fifth_bits(b, 2)));
            block_scales::<22>(rows, row_bytes, scales, 1);
        }
        Format::Q5_1 => {
            blocks::<24, 5, 1>(rows, row_bytes, quants, |b, _| with_fifth(words(b, 8), fifth_bits(b, 4)));
            block_scales::<24>(rows, row_bytes, scales, 2);
        }
        Format::Q4_K => {
            blocks::<144, 4, 8>(rows, row_bytes, quants, |b, j| halves_of_bytes(b, 16, j));
            k_scales::<144>(rows, row_bytes, supers, scales);
        }
        Format::Q5_K => {
            blocks::<176, 5, 8>(rows, row_bytes, quants, |b, j| {
                with_fifth(halves_of_bytes(b, 48, j), plane(b, j))
            });
            k_scales::<176>(rows, row_bytes, supers, scales);
        }
        Format::Q6_K => {
            blocks::<210, 6, 8>(rows, row_bytes, quants, six_bits);
            q6_scales(rows, row_bytes, supers, scales);
        }
    }
}

/// Each block's 32 numbers (`EACH` runs of them) as `WORDS` words, which go to as many lines of sixteen lanes.
#[inline(always)]
fn blocks<const BYTES: usize, const WORDS: usize, const EACH: usize>(
    rows: &[u8],
    row_bytes: usize,
    quants: &mut [u8],
    words: impl Fn(&[u8; BYTES], usize) -> [u32; WORDS],
) {
    let (cells, _) = quants.as_chunks_mut::<4>();
    // A block of all rows at a time: its lines stay in the first cache until all lanes are in them.
    for i in 0..row_bytes / BYTES {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let Some(block) = row[i * BYTES..].first_chunk::<BYTES>() else { return };
            for j in 0..EACH {
                let from = (i * EACH + j) * WORDS * LANES;
                let to = &mut cells[from..from + WORDS * LANES];
                let words = words(block, j);
                for w in 0..WORDS {
                    to[w * LANES + lane] = words[w].to_le_bytes();
                }
            }
        }
    }
}

/// `N` words from byte `at` on.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8], at: usize) -> [u32; N] {
    let mut words = [0; N];
    for w in 0..N {
        let at = at + 4 * w;
        words[w] = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    }
    words
}

/// Four words of low bits and the fifth.
#[inline(always)]
fn with_fifth(low: [u32; 4], fifth: u32) -> [u32; 5] {
    [low[0], low[1], low[2], low[3], fifth]
}

/// A word of 32 fifth bits, bit `n` that of number `n`, as four bytes in which bit `j` of byte `c` is that of number
/// `4j + c`.
#[inline(always)]
fn fifth_bits(bytes: &[u8], at: usize) -> u32 {
    let [bits] = words::<1>(bytes, at);
    let mut out = 0;
    for c in 0..4 {
        let mut y = bits >> c & 0x1111_1111;
        y = (y | y >> 3) & 0x0303_0303;
        y = (y | y >> 6) & 0x000f_000f;
        out |= ((y | y >> 12) & 0xff) << (8 * c);
    }
    out
}

/// Run `j` of 4-bit numbers, of which two runs share 32 bytes, the first in their low halves.
#[inline(always)]
fn halves_of_bytes(bytes: &[u8], at: usize, j: usize) -> [u32; 4] {
    const LOW: u32 = 0x0f0f_0f0f;
    let source = words::<8>(bytes, at + 32 * (j / 2));
    let mut out = [0; 4];
    for v in 0..4 {
        let (low, high) = (source[v] >> (4 * (j % 2)) & LOW, source[4 + v] >> (4 * (j % 2)) & LOW);
        out[v] = low | high << 4;
    }
    out
}

/// Fifth bits of run `j` of Q5_K, bit `j` of 32 bytes.
#[inline(always)]
fn plane(bytes: &[u8], j: usize) -> u32 {
    let source = words::<8>(bytes, 16);
    let mut out = 0;
    for g in 0..8 {
        out |= (source[g] >> j & 0x0101_0101) << g;
    }
    out
}

/// Run `j` of Q6_K.
#[inline(always)]
fn six_bits(bytes: &[u8; 210], j: usize) -> [u32; 6] {
    let (half, quarter) = (j / 4, j % 4);
    let low = words::<8>(bytes, 64 * half + 32 * (quarter % 2));
    let high = words::<8>(bytes, 128 + 32 * half);
    let mut out = [0; 6];
    for v in 0..4 {
        let shift = 4 * (quarter / 2);
        out[v] = low[v] >> shift & 0x0f0f_0f0f | (low[4 + v] >> shift & 0x0f0f_0f0f) << 4;
    }
    for g in 0..8 {
        out[4 + g / 4] |= (high[g] >> (2 * quarter) & 0x0303_0303) << (2 * (g % 4));
    }
    out
}

/// The f16 at the head of each block, scale and (`kinds` 2) minimum, to lines of sixteen lanes.
#[inline(always)]
fn block_scales<const BYTES: usize>(rows: &[u8], row_bytes: usize, scales: &mut [u8], kinds: usize) {
    let (cells, _) = scales.as_chunks_mut::<2>();
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (blocks, _) = row.as_chunks::<BYTES>();
        for i in 0..blocks.len() {
            for kind in 0..kinds {
                cells[(i * kinds + kind) * LANES + lane] = [blocks[i][2 * kind], blocks[i][2 * kind + 1]];
            }
        }
    }
}

/// The two f16 of each block of Q4_K or Q5_K, and its scales and minimums spread to bytes.
#[inline(always)]
fn k_scales<const BYTES: usize>(rows: &[u8], row_bytes: usize, supers: &mut [u8], scales: &mut [u8]) {
    let (cells, _) = supers.as_chunks_mut::<2>();
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (blocks, _) = row.as_chunks::<BYTES>();
        for i in 0..blocks.len() {
            let block = &blocks[i];
            for kind in 0..2 {
                cells[(2 * i + kind) * LANES + lane] = [block[2 * kind], block[2 * kind + 1]];
            }
            for j in 0..8 {
                let to = &mut scales[(8 * i + j) * 2 * LANES..];
                (to[lane], to[LANES + lane]) = quant::six_bit_scales(&block[4..16], j);
            }
        }
    }
}

/// The f16 of each block of Q6_K, and its scales, two a run.
fn q6_scales(rows: &[u8], row_bytes: usize, supers: &mut [u8], scales: &mut [u8]) {
    let (cells, _) = supers.as_chunks_mut::<2>();
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (blocks, _) = row.as_chunks::<210>();
        for i in 0..blocks.len() {
            cells[i * LANES + lane] = [blocks[i][208], blocks[i][209]];
            for s in 0..16 {
                scales[(16 * i + s) * LANES + lane] = blocks[i][192 + s];
            }
        }
    }
}

/// Numbers of `N` bytes that fill a lane's cell, alone or in pairs: F32 and BF16 by four bytes, F16 by two.
#[inline(always)]
fn plain<const N: usize>(rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    /// Lines that stay in the first cache until all lanes are in them.
    const AT_ONCE: usize = 128;
    let (cells, _) = panel.as_chunks_mut::<N>();
    for from in (0..row_bytes / N).step_by(AT_ONCE) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (numbers, _) = row.as_chunks::<N>();
            for k in from..numbers.len().min(from + AT_ONCE) {
                cells[k * LANES + lane] = numbers[k];
            }
        }
    }
    // Half a pair at the end of a row of bf16.
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (numbers, rest) = row.as_chunks::<N>();
        if !rest.is_empty() {
            cells[numbers.len() * LANES + lane][..rest.len()].copy_from_slice(rest);
        }
    }
}
