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
        Format::F32 | Format::F16 | Format::BF16 => plain_row(from, to, rows, cols, out),
        quantised => quantised_row(quantised, rows, cols, out),
    }
}

/// Where a pair of numbers of a group goes. Numbers of a row are taken eight at a time, which are one lane's; the
/// index of the pair among these is `k`.
#[derive(Debug, Clone, Copy)]
struct Place {
    half: usize,
    lane: usize,
    /// Tile of the half.
    tile: usize,
    register: usize,
}

impl Place {
    fn new(row: usize, eight: usize, k: usize) -> Self {
        let lane = 4 * (row % 8) + eight % 4;
        Self { half: eight / 4, lane, tile: k / 2, register: 2 * (k % 2) + row / 8 }
    }
}

fn plain_row(from: Format, to: Format, rows: &[&[u8]], cols: usize, out: &mut [u8]) {
    let (from_bytes, to_bytes) = (from.block_bytes(), to.block_bytes());
    let mut numbers = [0; 4 * GROUP_INPUTS];
    for (group, out) in out.chunks_exact_mut(group_bytes(to)).enumerate() {
        let first = GROUP_INPUTS * group;
        let len = GROUP_INPUTS.min(cols - first);
        numbers[len * to_bytes..].fill(0);
        for (r, row) in rows.iter().enumerate() {
            convert(from, to, &row[first * from_bytes..][..len * from_bytes], &mut numbers);
            let pairs = numbers[..GROUP_INPUTS * to_bytes].chunks_exact(2 * to_bytes);
            for (i, pair) in pairs.enumerate() {
                let place = Place::new(r, i / 4, i % 4);
                let tile = 2 * place.half + place.tile;
                let at = if to == Format::F32 {
                    // An output's four numbers of a tile, then the other's.
                    16 * (LANES * (2 * tile + r / 8) + place.lane) + 8 * (i % 2)
                } else {
                    16 * (LANES * tile + place.lane) + 4 * place.register
                };
                out[at..at + 2 * to_bytes].copy_from_slice(pair);
            }
        }
    }
}

/// Numbers as they are stored on the device.
fn convert(from: Format, to: Format, bytes: &[u8], out: &mut [u8]) {
    let halves = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
    match (from, to) {
        (Format::F16, Format::F32) => {
            halves.zip(out.chunks_exact_mut(4)).for_each(|(x, out)| out.copy_from_slice(&x.to_le_bytes()));
        }
        (Format::F16, _) => {
            let rounded = halves.map(|x| bf16::from_f32(x).to_le_bytes());
            rounded.zip(out.chunks_exact_mut(2)).for_each(|(x, out)| out.copy_from_slice(&x));
        }
        (Format::F32, Format::BF16) => {
            let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let rounded = numbers.map(|x| bf16::from_f32(x).to_le_bytes());
            rounded.zip(out.chunks_exact_mut(2)).for_each(|(x, out)| out.copy_from_slice(&x));
        }
        _ => out[..bytes.len()].copy_from_slice(bytes),
    }
}

/// Quantised numbers of 16 rows and 256 inputs, and the blocks that they come from.
struct Span<'a> {
    format: Format,
    /// From 0 up, but Q8_0's in two's complement.
    numbers: Box<[[u8; 256]; GROUP_OUTPUTS]>,
    /// The blocks of each row.
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
            let (numbers, scales) = out.split_at_mut(numbers + high);
            span.write_numbers(group, numbers);
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
            let blocks = row.chunks_exact(self.format.block_bytes());
            numbers[blocks.len() * self.format.block_len()..].fill(0);
            for (numbers, bytes) in numbers.chunks_exact_mut(self.format.block_len()).zip(blocks) {
                quants(self.format, bytes, &mut block);
                for (to, &q) in numbers.iter_mut().zip(&block) {
                    *to = (q + centre).cast_unsigned();
                }
            }
        }
    }

    /// The numbers of a group, and what of them stands apart above the lower four bits.
    fn write_numbers(&self, group: usize, out: &mut [u8]) {
        let (numbers, high, _) = sections(self.format);
        let mut words = [0u32; (1024 + 256) / 4];
        let (low, above) = words.split_at_mut(numbers / 4);
        for (r, row) in self.numbers.iter().enumerate() {
            let pairs = row[GROUP_INPUTS * group..][..GROUP_INPUTS].chunks_exact(2);
            for (i, pair) in pairs.enumerate() {
                let Place { half, lane, tile, register } = Place::new(r, i / 4, i % 4);
                let both = u32::from(pair[0]) | u32::from(pair[1]) << 16;
                if self.format == Format::Q8_0 {
                    let word = 4 * (LANES * half + lane) + 2 * tile + register / 2;
                    low[word] |= both << (8 * (register % 2));
                    continue;
                }
                low[4 * lane + 2 * half + tile] |= (both & 0x000f_000f) << (4 * register);
                let both_high = both >> 4 & 0x000f_000f;
                match high {
                    128 => above[lane] |= both_high << (8 * half + 4 * tile + register),
                    256 => above[2 * lane + half] |= both_high << (8 * tile + 2 * register),
                    _ => {}
                }
            }
        }
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
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
