//! The order of weights on a device: 16 rows of a file become one row of groups. `kernels/cuda/format.cuh` states it.

use half::{bf16, f16};

use super::matrix::{GROUP_INPUTS, GROUP_OUTPUTS};
use crate::quant::{Format, quants, six_bit_scales};

/// Groups that a block of 256 numbers spans.
const HEAD_GROUPS: usize = 4;
const LANES: usize = 32;

/// Bytes of a group's numbers, of their upper bits where these stand apart, and of their scales.
const fn sections(format: Format) -> (usize, usize, usize) {
    match format {
        Format::F32 => (4096, 0, 0),
        Format::F16 | Format::BF16 => (2048, 0, 0),
        Format::Q8_0 => (1024, 0, 64),
        Format::Q4_0 | Format::Q4_K => (512, 0, 64),
        Format::Q4_1 => (512, 0, 128),
        Format::Q5_0 | Format::Q5_K => (512, 128, 64),
        Format::Q5_1 => (512, 128, 128),
        Format::Q6_K => (512, 256, 64),
    }
}

/// Bytes of a group without its head.
pub(crate) const fn group_bytes(format: Format) -> usize {
    let (numbers, high, scales) = sections(format);
    numbers + high + scales
}

/// Bytes behind each four groups.
pub(crate) const fn head_bytes(format: Format) -> usize {
    match format {
        Format::Q4_K | Format::Q5_K => 64,
        Format::Q6_K => 32,
        _ => 0,
    }
}

/// Repacks up to 16 rows of `cols` numbers to a row of groups. `out` is zeros.
pub(crate) fn repack_row(from: Format, to: Format, rows: &[&[u8]], cols: usize, out: &mut [u8]) {
    match to {
        Format::F32 => plain_row(rows, cols, out, single_of(from)),
        Format::F16 | Format::BF16 => plain_row(rows, cols, out, rounded_of(from)),
        quantised => quantised_row(quantised, rows, cols, out),
    }
}

/// Reads number `i` of a row as f32.
fn single_of(from: Format) -> fn(&[u8], usize) -> [u8; 4] {
    match from {
        Format::F32 => |row, i| [row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]],
        _ => |row, i| f16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32().to_le_bytes(),
    }
}

/// Reads number `i` of a row as bf16.
fn rounded_of(from: Format) -> fn(&[u8], usize) -> [u8; 2] {
    match from {
        Format::F32 => |row, i| {
            let bytes = [row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]];
            bf16::from_f32(f32::from_le_bytes(bytes)).to_le_bytes()
        },
        Format::F16 => |row, i| {
            let number = f16::from_le_bytes([row[2 * i], row[2 * i + 1]]);
            bf16::from_f32(number.to_f32()).to_le_bytes()
        },
        _ => |row, i| [row[2 * i], row[2 * i + 1]],
    }
}

/// The first of the pair of numbers that a lane holds in a register of a tile: its row and column in the group.
fn pair(lane: usize, tile: usize, register: usize) -> (usize, usize) {
    let row = lane / 4 + 8 * (register % 2);
    (row, 32 * (tile / 2) + 8 * (lane % 4) + 4 * (tile % 2) + 2 * (register / 2))
}

/// Numbers of `N` bytes: 16 bytes of a lane are four registers of two bf16, or half of one output's four f32 and then
/// the other's.
fn plain_row<const N: usize>(rows: &[&[u8]], cols: usize, out: &mut [u8], read: fn(&[u8], usize) -> [u8; N]) {
    for (group, out) in out.chunks_exact_mut(GROUP_INPUTS * GROUP_OUTPUTS * N).enumerate() {
        for tile in 0..4 {
            for lane in 0..LANES {
                for register in 0..4 {
                    let (row, col) = pair(lane, tile, register);
                    let first = GROUP_INPUTS * group + col;
                    let at = if N == 2 {
                        16 * (LANES * tile + lane) + 4 * register
                    } else {
                        16 * (LANES * (2 * tile + register % 2) + lane) + 8 * (register / 2)
                    };
                    let Some(source) = rows.get(row) else { continue };
                    for (i, to) in (first..cols.min(first + 2)).zip(out[at..].chunks_exact_mut(N)) {
                        to.copy_from_slice(&read(source, i));
                    }
                }
            }
        }
    }
}

/// Quantised numbers of 16 rows and 256 inputs, and the blocks that they come from.
struct Span<'a> {
    format: Format,
    /// From 0 up, but Q8_0's in two's complement.
    numbers: Box<[[u8; 256]; GROUP_OUTPUTS]>,
    /// What is left of each row, from this span on.
    rows: [&'a [u8]; GROUP_OUTPUTS],
}

fn quantised_row(format: Format, rows: &[&[u8]], cols: usize, out: &mut [u8]) {
    let per_row = 256 / format.block_len() * format.block_bytes();
    let mut span = Span { format, numbers: Box::new([[0; 256]; GROUP_OUTPUTS]), rows: [&[]; GROUP_OUTPUTS] };
    let span_bytes = HEAD_GROUPS * group_bytes(format) + head_bytes(format);
    for (s, out) in out.chunks_mut(span_bytes).enumerate() {
        let blocks = 256.min(cols - 256 * s) / format.block_len();
        for (r, row) in rows.iter().enumerate() {
            span.rows[r] = &row[per_row * s..][..blocks * format.block_bytes()];
        }
        span.read_numbers();
        let (groups, head) = out.split_at_mut(out.len() / group_bytes(format) * group_bytes(format));
        for (group, out) in groups.chunks_exact_mut(group_bytes(format)).enumerate() {
            let (numbers, high, _) = sections(format);
            let (numbers, rest) = out.split_at_mut(numbers);
            let (high, scales) = rest.split_at_mut(high);
            match format {
                Format::Q8_0 => span.write_bytes(group, numbers),
                _ => span.write_nibbles(group, numbers),
            }
            span.write_high(group, high);
            span.write_scales(group, scales);
        }
        span.write_head(head);
    }
}

impl Span<'_> {
    fn read_numbers(&mut self) {
        let centre = match self.format {
            Format::Q4_0 => 8,
            Format::Q5_0 => 16,
            Format::Q6_K => 32,
            _ => 0,
        };
        let mut block = [0i8; 256];
        for (numbers, row) in self.numbers.iter_mut().zip(self.rows) {
            numbers.fill(0);
            let blocks = row.chunks_exact(self.format.block_bytes());
            for (numbers, bytes) in numbers.chunks_exact_mut(self.format.block_len()).zip(blocks) {
                quants(self.format, bytes, &mut block);
                for (to, &q) in numbers.iter_mut().zip(&block) {
                    *to = (q + centre).cast_unsigned();
                }
            }
        }
    }

    /// The pair of numbers in a lane's register of a tile.
    fn pair(&self, group: usize, lane: usize, tile: usize, register: usize) -> (u32, u32) {
        let (row, col) = pair(lane, tile, register);
        let numbers = &self.numbers[row][GROUP_INPUTS * group + col..][..2];
        (u32::from(numbers[0]), u32::from(numbers[1]))
    }

    fn write_bytes(&self, group: usize, out: &mut [u8]) {
        for (at, word) in out.chunks_exact_mut(4).enumerate() {
            let (half, lane, tile, part) = (at / 128, at / 4 % LANES, at / 2 % 2, at % 2);
            let (a, b) = self.pair(group, lane, 2 * half + tile, 2 * part);
            let (c, d) = self.pair(group, lane, 2 * half + tile, 2 * part + 1);
            word.copy_from_slice(&(a | c << 8 | b << 16 | d << 24).to_le_bytes());
        }
    }

    fn write_nibbles(&self, group: usize, out: &mut [u8]) {
        for (at, word) in out.chunks_exact_mut(4).enumerate() {
            let bits = (0..4).fold(0, |bits, register| {
                let (a, b) = self.pair(group, at / 4, at % 4, register);
                bits | (a & 15) << (4 * register) | (b & 15) << (16 + 4 * register)
            });
            word.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// What is above the lower four bits: one bit in one word a lane, or two in two.
    fn write_high(&self, group: usize, out: &mut [u8]) {
        let words = out.len() / (4 * LANES);
        for (at, word) in out.chunks_exact_mut(4).enumerate() {
            let (lane, tiles) = (at / words, 4 / words);
            let bits = (0..4 * tiles).fold(0, |bits, i| {
                let (a, b) = self.pair(group, lane, at % words * tiles + i / 4, i % 4);
                bits | (a >> 4) << (words * i) | (b >> 4) << (16 + words * i)
            });
            word.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// The block of a row that a number of the span is in.
    fn block(&self, row: usize, col: usize) -> Option<&[u8]> {
        let bytes = self.format.block_bytes();
        self.rows[row].get(col / self.format.block_len() * bytes..)?.get(..bytes)
    }

    fn write_scales(&self, group: usize, out: &mut [u8]) {
        for at in 0..LANES {
            let (g, half, r) = (at / 4, at / 2 % 2, at % 2);
            let col = GROUP_INPUTS * group + 32 * half;
            let Some(block) = self.block(g + 8 * r, col) else { continue };
            match self.format {
                Format::Q4_1 | Format::Q5_1 => out[4 * at..][..4].copy_from_slice(&block[..4]),
                Format::Q4_K | Format::Q5_K => {
                    let (scale, minimum) = six_bit_scales(&block[4..16], col / 32);
                    out[2 * at..][..2].copy_from_slice(&[scale, minimum]);
                }
                Format::Q6_K => {
                    for part in 0..2 {
                        out[8 * g + 4 * half + 2 * part + r] = block[192 + col / 16 + part];
                    }
                }
                _ => out[2 * at..][..2].copy_from_slice(&block[..2]),
            }
        }
    }

    fn write_head(&self, out: &mut [u8]) {
        let each = out.len() / GROUP_OUTPUTS;
        for at in 0..GROUP_OUTPUTS {
            let Some(block) = self.block(at / 2 + 8 * (at % 2), 0) else { continue };
            let from = if self.format == Format::Q6_K { 208 } else { 0 };
            out[each * at..][..each].copy_from_slice(&block[from..from + each]);
        }
    }
}
