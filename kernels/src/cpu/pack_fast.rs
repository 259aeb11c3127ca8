//! Rows into panels, a word of four numbers at a time: every layout keeps four neighbouring numbers of a row in one
//! word, so that a panel is its rows' words transposed.

// A closure would be compiled without the instructions of the function that it is in.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::pack::Group;
use super::simd::LANES;
use crate::quant::{self, Format};

/// Interleaves the rows of a panel, at most sixteen, one after another in `rows`; `panel` holds zeros.
pub(super) fn pack_panel(format: Format, group: Group, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    if row_bytes == 0 {
        return;
    }
    let mut panel = Panel { group, panel };
    match format {
        Format::F32 | Format::BF16 => plain::<4>(rows, row_bytes, panel.panel),
        Format::F16 => plain::<2>(rows, row_bytes, panel.panel),
        Format::Q8_0 => {
            panel.blocks::<34, 8, 1>(rows, row_bytes, |b, _| words(b, 2));
            panel.block_scales::<34>(rows, row_bytes, 1, as_it_is);
        }
        Format::Q4_0 => {
            panel.blocks::<18, 4, 1>(rows, row_bytes, |b, _| words(b, 2));
            panel.block_scales::<18>(rows, row_bytes, 1, as_it_is);
        }
        Format::Q4_1 => {
            panel.blocks::<20, 4, 1>(rows, row_bytes, |b, _| words(b, 4));
            panel.block_scales::<20>(rows, row_bytes, 2, as_it_is);
        }
        Format::Q5_0 => {
            panel.blocks::<22, 5, 1>(rows, row_bytes, |b, _| in_five(halves(b, 6), fifth_bits(b, 2)));
            panel.block_scales::<22>(rows, row_bytes, 1, as_it_is);
        }
        Format::Q5_1 => {
            panel.blocks::<24, 5, 1>(rows, row_bytes, |b, _| in_five(halves(b, 8), fifth_bits(b, 4)));
            panel.block_scales::<24>(rows, row_bytes, 2, as_it_is);
        }
        Format::Q4_K => {
            panel.blocks::<144, 4, 8>(rows, row_bytes, |b, j| in_four(half_bytes(b, 16, j)));
            panel.k_scales::<144>(rows, row_bytes);
        }
        Format::Q5_K => {
            panel.blocks::<176, 5, 8>(rows, row_bytes, |b, j| in_five(half_bytes(b, 48, j), plane(b, j)));
            panel.k_scales::<176>(rows, row_bytes);
        }
        Format::Q6_K => {
            panel.blocks::<210, 6, 8>(rows, row_bytes, |b, j| in_six(six_bits(b, j)));
            panel.q6_scales(rows, row_bytes);
        }
    }
}

/// The upper five bits of rows of Q8_0 as a panel of Q5_0 with eight times the scales (see `screened`); whether these are
/// all numbers that an f16 holds.
pub(super) fn pack_upper(group: Group, rows: &[u8], row_bytes: usize, panel: &mut [u8]) -> bool {
    let mut panel = Panel { group, panel };
    panel.blocks::<34, 5, 1>(rows, row_bytes, |b, _| in_five(words(&quants(b).map(upper), 0), [0; 8]));
    let mut fit = true;
    panel.block_scales::<34>(rows, row_bytes, 1, |scale| {
        let eight_times = eight_times(u16::from_le_bytes(scale));
        fit &= eight_times.is_some();
        eight_times.unwrap_or_default().to_le_bytes()
    });
    fit
}

/// What the upper bits leave of rows of Q8_0, as a panel of Q4_0.
pub(super) fn pack_rest(group: Group, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let mut panel = Panel { group, panel };
    panel.blocks::<34, 4, 1>(rows, row_bytes, |b, _| in_four(words(&quants(b).map(rest), 0)));
    panel.block_scales::<34>(rows, row_bytes, 1, as_it_is);
}

/// The numbers of a block of Q8_0.
fn quants(block: &[u8; 34]) -> [u8; 32] {
    let mut quants = [0; 32];
    quants.copy_from_slice(&block[2..]);
    quants
}

/// Five bits of a signed byte: its eighth to the nearest, raised by 16, at most 31.
#[inline(always)]
fn upper(q: u8) -> u8 {
    (q ^ 0x80).saturating_add(4) >> 3
}

/// What [`upper`] leaves of it, raised by 8: from 4 to 15.
#[inline(always)]
fn rest(q: u8) -> u8 {
    (q ^ 0x80).wrapping_sub(upper(q) << 3).wrapping_add(8)
}

/// Eight times an f16, by its bits; `None` where that is none.
fn eight_times(number: u16) -> Option<u16> {
    match number >> 10 & 31 {
        // So small that its exponent is not one.
        0 => Some(f16::from_f32(8.0 * f16::from_bits(number).to_f32()).to_bits()),
        1..=27 => Some(number + (3 << 10)),
        _ => None,
    }
}

fn as_it_is(number: [u8; 2]) -> [u8; 2] {
    number
}

/// A panel of quantised weights that is written.
struct Panel<'a> {
    group: Group,
    panel: &'a mut [u8],
}

impl Panel<'_> {
    /// Each block's 32 numbers (`EACH` runs of them) as `WORDS` words, which go to as many lines of sixteen lanes.
    #[inline(always)]
    fn blocks<const BYTES: usize, const WORDS: usize, const EACH: usize>(
        &mut self,
        rows: &[u8],
        row_bytes: usize,
        words: impl Fn(&[u8; BYTES], usize) -> [u32; WORDS],
    ) {
        // A block of all rows at a time: its lines stay in the first cache until all lanes are in them.
        for i in 0..row_bytes / BYTES {
            for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                let Some(block) = row[i * BYTES..].first_chunk::<BYTES>() else { return };
                for j in 0..EACH {
                    let to = &mut self.panel[self.group.quants(i * EACH + j)..];
                    let (cells, _) = to[..WORDS * LANES * 4].as_chunks_mut::<4>();
                    let words = words(block, j);
                    for w in 0..WORDS {
                        cells[w * LANES + lane] = words[w].to_le_bytes();
                    }
                }
            }
        }
    }

    /// The f16 at the head of each block, scale and (`kinds` 2) minimum, to lines of sixteen lanes, as `kept` makes them.
    #[inline(always)]
    fn block_scales<const BYTES: usize>(
        &mut self,
        rows: &[u8],
        row_bytes: usize,
        kinds: usize,
        mut kept: impl FnMut([u8; 2]) -> [u8; 2],
    ) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (blocks, _) = row.as_chunks::<BYTES>();
            for i in 0..blocks.len() {
                let (cells, _) = self.panel[self.group.scales(i)..].as_chunks_mut::<2>();
                for kind in 0..kinds {
                    cells[kind * LANES + lane] = kept([blocks[i][2 * kind], blocks[i][2 * kind + 1]]);
                }
            }
        }
    }

    /// The two f16 of each block of Q4_K or Q5_K, and its scales and minimums spread to bytes.
    #[inline(always)]
    fn k_scales<const BYTES: usize>(&mut self, rows: &[u8], row_bytes: usize) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (blocks, _) = row.as_chunks::<BYTES>();
            for i in 0..blocks.len() {
                let block = &blocks[i];
                let (cells, _) = self.panel[self.group.all_scales(8 * i)..].as_chunks_mut::<2>();
                for kind in 0..2 {
                    cells[kind * LANES + lane] = [block[2 * kind], block[2 * kind + 1]];
                }
                for j in 0..8 {
                    let to = &mut self.panel[self.group.scales(8 * i + j)..];
                    (to[lane], to[LANES + lane]) = quant::six_bit_scales(&block[4..16], j);
                }
            }
        }
    }

    /// The f16 of each block of Q6_K, and its scales, two a run.
    fn q6_scales(&mut self, rows: &[u8], row_bytes: usize) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (blocks, _) = row.as_chunks::<210>();
            for i in 0..blocks.len() {
                let (cells, _) = self.panel[self.group.all_scales(8 * i)..].as_chunks_mut::<2>();
                cells[lane] = [blocks[i][208], blocks[i][209]];
                for s in 0..16 {
                    self.panel[self.group.scales(8 * i + s / 2) + s % 2 * LANES + lane] = blocks[i][192 + s];
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

const HALVES: u32 = 0x0f0f_0f0f;

/// Eight words of numbers of 4 bits, those of the first four in the low halves of sixteen bytes.
#[inline(always)]
fn halves(bytes: &[u8], at: usize) -> [u32; 8] {
    let [a, b, c, d] = words(bytes, at).map(|word| word & HALVES);
    let [e, f, g, h] = words(bytes, at).map(|word| word >> 4 & HALVES);
    [a, b, c, d, e, f, g, h]
}

/// Run `j` of 4-bit numbers, of which two runs share 32 bytes, the first in their low halves.
#[inline(always)]
fn half_bytes(bytes: &[u8], at: usize, j: usize) -> [u32; 8] {
    words(bytes, at + 32 * (j / 2)).map(|word| word >> (4 * (j % 2)) & HALVES)
}

/// A word of 32 fifth bits, bit `n` that of number `n`, as words of ones and zeros.
#[inline(always)]
fn fifth_bits(bytes: &[u8], at: usize) -> [u32; 8] {
    let [bits] = words::<1>(bytes, at);
    let mut out = [0; 8];
    for v in 0..8 {
        // Bit `c` of four comes to byte `c`: multiplied, each is 7 bits on from the one before, none carries.
        out[v] = (bits >> (4 * v) & 15).wrapping_mul(0x0020_4081) & 0x0101_0101;
    }
    out
}

/// Fifth bits of run `j` of Q5_K, bit `j` of 32 bytes.
#[inline(always)]
fn plane(bytes: &[u8], j: usize) -> [u32; 8] {
    words(bytes, 16).map(|word| word >> j & 0x0101_0101)
}

/// Run `j` of Q6_K.
#[inline(always)]
fn six_bits(bytes: &[u8; 210], j: usize) -> [u32; 8] {
    let (half, quarter) = (j / 4, j % 4);
    let low = words::<8>(bytes, 64 * half + 32 * (quarter % 2));
    let high = words::<8>(bytes, 128 + 32 * half);
    let mut out = [0; 8];
    for v in 0..8 {
        out[v] = low[v] >> (4 * (quarter / 2)) & HALVES | (high[v] >> (2 * quarter) & 0x0303_0303) << 4;
    }
    out
}

/// Eight words of 4 bits in four, see `pack`.
#[inline(always)]
fn in_four(w: [u32; 8]) -> [u32; 4] {
    [w[0] | w[4] << 4, w[1] | w[5] << 4, w[2] | w[6] << 4, w[3] | w[7] << 4]
}

/// Eight words of 4 low bits and the fifth in five, see `pack`.
#[inline(always)]
fn in_five(low: [u32; 8], fifth: [u32; 8]) -> [u32; 5] {
    let mut w = low;
    for v in 0..8 {
        w[v] |= fifth[v] << 4;
    }
    let (low_three, high_two) =
        (|word: u32| (word & 0x0707_0707) << 5, |word: u32| (word >> 3 & 0x0303_0303) << 6);
    let bit = |word: u32, n: u32| (word >> n & 0x0101_0101) << 5;
    [
        w[0] | low_three(w[5]),
        w[1] | high_two(w[5]) | bit(w[7], 3),
        w[2] | low_three(w[6]),
        w[3] | high_two(w[6]) | bit(w[7], 4),
        w[4] | low_three(w[7]),
    ]
}

/// Eight words of 6 bits in six, see `pack`.
#[inline(always)]
fn in_six(w: [u32; 8]) -> [u32; 6] {
    let two = |word: u32, from: u32| (word >> from & 0x0303_0303) << 6;
    [
        w[0] | two(w[3], 0),
        w[1] | two(w[3], 2),
        w[2] | two(w[3], 4),
        w[4] | two(w[7], 0),
        w[5] | two(w[7], 2),
        w[6] | two(w[7], 4),
    ]
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
