//! Weights in the order the products read them: panels of 16 rows, interleaved so that a vector's
//! lane is a row.
//!
//! A product then needs no sum across lanes, decoding reads memory straight through, and the bits of
//! an output do not depend on what is computed beside it. The numbers stay in the file's format, at
//! the file's size (K formats: 3% more, their 6-bit scales spread to bytes).
//!
//! A quantised panel is groups of 256 columns, each in one place, so that a panel is one stream: the head (f16 scales and
//! minimums of the K formats, then the scales of eight blocks of 32 columns, rounded up to 64 bytes) and the blocks' quants.
//! The last group has as many blocks as there are, behind a whole head. Number `k` of a block is number `k % 4` of its word
//! `k / 4`, which is in byte `4 * row + k % 4` of some vectors of 64 bytes:
//! - 4 bits: four vectors; low halves hold words 0 to 3, high ones 4 to 7;
//! - 5 bits: five vectors; their low bits hold words 0 to 4. What is left holds word 5 (three bits in the first vector,
//!   two in the second), word 6 (the same of the next two) and word 7 (three in the last, one in the second, one in the fourth);
//! - 6 bits: twice three vectors; their low bits hold three words, what is left (two bits each) the fourth;
//! - 8 bits: eight vectors, signed.

use std::ops::Range;

use super::formats::{Block, by_format};
use super::pack_fast::pack_panel;
use super::pool::Pool;
use super::simd::LANES;
use crate::ops::ShapeError;
use crate::quant::{self, Format};

/// Columns that matrix units take at a time.
pub(crate) const TILE_COLS: usize = 32;

/// Memory that starts on a cache line.
#[derive(Debug)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Aligned {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        let len = bytes.div_ceil(64);
        let mut lines = Vec::with_capacity(len);
        ask_for_huge_pages(lines.spare_capacity_mut());
        lines.resize(len, Line([0; 64]));
        Self { lines }
    }

    /// Bytes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn len(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// Memory that `fill` writes, which has it from its address: nothing is written twice, and its pages are first
    /// touched, and so made, by the threads that fill them.
    ///
    /// # Safety
    /// `fill` must write all of `bytes`, which are whole lines.
    unsafe fn filled(bytes: usize, fill: impl FnOnce(*mut u8)) -> Self {
        debug_assert!(bytes.is_multiple_of(64));
        let mut lines: Vec<Line> = Vec::with_capacity(bytes / 64);
        ask_for_huge_pages(lines.spare_capacity_mut());
        fill(lines.as_mut_ptr().cast());
        // SAFETY: the capacity is this, and the caller vouches for the contents.
        unsafe { lines.set_len(bytes / 64) };
        Self { lines }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

/// Reading weights straight through is a fifth faster where a page is 2 MiB and not 4 KiB: fewer misses
/// of the TLB. Has to be asked for before the memory is first touched; the system may decline.
pub(super) fn ask_for_huge_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let start = memory.as_mut_ptr().addr();
        let inner = start.next_multiple_of(HUGE)..(start + size_of_val(memory)) / HUGE * HUGE;
        if !inner.is_empty() {
            // SAFETY: the range is inside memory that is ours, and the advice changes no contents.
            unsafe { libc::madvise(inner.start as *mut libc::c_void, inner.len(), libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// A matrix in panels.
#[derive(Debug)]
pub struct PackedMatrix {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) shape: PanelShape,
    pub(crate) data: Aligned,
}

/// How a panel is laid out, in bytes; of plain numbers it is all one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelShape {
    group: Group,
    panel: usize,
}

/// Blocks of 32 columns in a group.
pub(crate) const IN_GROUP: usize = 8;

/// How a group of 256 columns of a panel is laid out, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Scales of all columns.
    per_256: usize,
    /// Scales of a block.
    per_32: usize,
    /// Quants of a block.
    quants: usize,
}

impl Group {
    pub(crate) const fn new(per_256: usize, per_32: usize, quants: usize) -> Self {
        Self { per_256, per_32, quants }
    }

    /// That of a format, as its reader has it; plain numbers have no groups.
    fn of(format: Format) -> Self {
        by_format!(format, B => B::LAID_OUT, _ => Self::new(0, 0, 0))
    }

    /// What comes before the quants.
    const fn head(self) -> usize {
        (self.per_256 + IN_GROUP * self.per_32).next_multiple_of(64)
    }

    pub(crate) const fn bytes(self) -> usize {
        self.head() + IN_GROUP * self.quants
    }

    /// Where the scales of a block's 256 columns begin in the panel.
    #[inline(always)]
    pub(crate) const fn all_scales(self, block: usize) -> usize {
        block / IN_GROUP * self.bytes()
    }

    /// Where a block's scales begin in the panel.
    #[inline(always)]
    pub(crate) const fn scales(self, block: usize) -> usize {
        self.all_scales(block) + self.per_256 + block % IN_GROUP * self.per_32
    }

    /// Where a block's quants begin in the panel.
    #[inline(always)]
    pub(crate) const fn quants(self, block: usize) -> usize {
        self.all_scales(block) + self.head() + block % IN_GROUP * self.quants
    }
}

impl PanelShape {
    fn new(format: Format, cols: usize) -> Self {
        let group = Group::of(format);
        let panel = match format {
            Format::F32 => (cols * LANES * 4).next_multiple_of(64),
            Format::F16 => (cols * LANES * 2).next_multiple_of(64),
            // Filled up with zeros to whole tiles of matrix units.
            Format::BF16 => cols.next_multiple_of(TILE_COLS) / 2 * LANES * 4,
            _ if cols == 0 => 0,
            _ => group.quants(cols / 32 - 1) + group.quants,
        };
        Self { group, panel }
    }

    pub(crate) fn bytes(self) -> usize {
        self.panel
    }
}

impl PackedMatrix {
    /// Interleaves a `rows x cols` matrix, the panels spread over the pool's threads.
    pub(crate) fn new(
        pool: &Pool,
        format: Format,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Self, ShapeError> {
        quant::check(format, rows, cols, bytes)?;
        let row_bytes = bytes.len().checked_div(rows).unwrap_or(0);
        Ok(Self::by_panel(pool, format, rows, cols, |panel_rows, group, panel| {
            let rows = &bytes[panel_rows.start * row_bytes..panel_rows.end * row_bytes];
            pack_panel(format, group, rows, row_bytes, panel);
        }))
    }

    /// A `rows x cols` matrix whose panels, zeros at first, `pack` fills, spread over the pool's threads: it has the rows of
    /// a panel and how its bytes lie.
    pub(super) fn by_panel(
        pool: &Pool,
        format: Format,
        rows: usize,
        cols: usize,
        pack: impl Fn(Range<usize>, Group, &mut [u8]) + Sync,
    ) -> Self {
        let shape = PanelShape::new(format, cols);
        let panels = rows.div_ceil(LANES);
        let fill = |memory: *mut u8| {
            let base = super::SendPtr(memory);
            pool.run(panels, &|panel| {
                let first = panel * LANES;
                // SAFETY: panels do not overlap, each is written by one call, zeros first, and the memory outlives
                // the loop.
                let memory = unsafe {
                    let at = base.get().add(panel * shape.bytes());
                    at.write_bytes(0, shape.bytes());
                    std::slice::from_raw_parts_mut(at, shape.bytes())
                };
                pack(first..rows.min(first + LANES), shape.group, memory);
            });
        };
        // SAFETY: every panel is zeroed before it is packed, and together they are all of it.
        let data = unsafe { Aligned::filled(panels * shape.bytes(), fill) };
        Self { format, rows, cols, shape, data }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.data.lines.len() * 64
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    pub(crate) fn panel(&self, panel: usize) -> *const u8 {
        debug_assert!(panel < self.panels());
        // SAFETY: `data` holds `panels()` panels.
        unsafe { self.data.as_ptr().add(panel * self.shape.bytes()) }
    }

    /// The numbers of one row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        // SAFETY: the panel is this long, initialised, and never written again.
        let panel = unsafe { std::slice::from_raw_parts(self.panel(row / LANES), self.shape.bytes()) };
        let lane = row % LANES;
        let number = |at: usize| [panel[at], panel[at + 1], panel[at + 2], panel[at + 3]];
        match self.format {
            Format::F32 => {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = f32::from_le_bytes(number(4 * (k * LANES + lane)));
                }
            }
            Format::F16 => {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = half(panel, 2 * (k * LANES + lane));
                }
            }
            Format::BF16 => {
                for (k, o) in out.iter_mut().enumerate() {
                    let at = 4 * (k / 2 * LANES + lane) + 2 * (k % 2);
                    *o = half::bf16::from_le_bytes([panel[at], panel[at + 1]]).to_f32();
                }
            }
            format => {
                let group = self.shape.group;
                for (b, out) in out.chunks_exact_mut(32).enumerate() {
                    let block = &panel[group.quants(b)..][..group.quants];
                    let (all, scales) = (&panel[group.all_scales(b)..], &panel[group.scales(b)..]);
                    for (k, o) in out.iter_mut().enumerate() {
                        let (scale, minimum) = unpack_scales(format, all, scales, lane, k);
                        *o = scale * f32::from(unpack_quant(format, block, lane, k)) - minimum;
                    }
                }
            }
        }
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// What is subtracted from a stored quant to give the format's own.
pub(crate) const fn offset(format: Format) -> i32 {
    match format {
        Format::Q4_0 => 8,
        Format::Q5_0 => 16,
        Format::Q6_K => 32,
        _ => 0,
    }
}

fn unpack_quant(format: Format, block: &[u8], lane: usize, k: usize) -> i8 {
    let word = k / 4;
    let vector = |v: usize| block[64 * v + 4 * lane + k % 4];
    let quant = match format {
        Format::Q8_0 => return vector(word) as i8,
        Format::Q5_0 | Format::Q5_1 | Format::Q5_K => match word {
            5 => vector(0) >> 5 | vector(1) >> 6 << 3,
            6 => vector(2) >> 5 | vector(3) >> 6 << 3,
            7 => vector(4) >> 5 | (vector(1) >> 5 & 1) << 3 | (vector(3) >> 5 & 1) << 4,
            _ => vector(word) & 31,
        },
        Format::Q6_K => {
            let first = 3 * (word / 4);
            match word % 4 {
                3 => vector(first) >> 6 | vector(first + 1) >> 6 << 2 | vector(first + 2) >> 6 << 4,
                v => vector(first + v) & 63,
            }
        }
        _ => vector(word % 4) >> (4 * (word / 4)) & 15,
    };
    quant as i8 - offset(format) as i8
}

/// Scale and minimum of number `k` of a block, from where the scales of all its group's columns and its own begin.
fn unpack_scales(format: Format, all: &[u8], scales: &[u8], lane: usize, k: usize) -> (f32, f32) {
    match format {
        Format::Q4_K | Format::Q5_K => (
            half(all, 2 * lane) * f32::from(scales[lane]),
            half(all, 32 + 2 * lane) * f32::from(scales[16 + lane]),
        ),
        Format::Q6_K => {
            let scale = f32::from(scales[16 * (k / 16) + lane] as i8);
            (half(all, 2 * lane) * scale, 0.0)
        }
        Format::Q4_1 | Format::Q5_1 => (half(scales, 2 * lane), -half(scales, 32 + 2 * lane)),
        _ => (half(scales, 2 * lane), 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FORMATS, Random};

    #[test]
    fn a_packed_row_is_the_row() {
        let pool = Pool::new(2);
        let mut random = Random::new(1);
        for format in FORMATS {
            for (rows, cols) in [(1, 256), (16, 512), (37, 768)] {
                let bytes = random.matrix(format, rows, cols);
                let packed = PackedMatrix::new(&pool, format, rows, cols, &bytes).unwrap();
                let expected = quant::dequantize(format, rows, cols, &bytes).unwrap();
                let mut row = vec![0.0; cols];
                for r in 0..rows {
                    packed.row(r, &mut row);
                    assert_eq!(row, expected[r * cols..(r + 1) * cols], "{format:?} row {r} of {rows}");
                }
            }
        }
    }

    #[test]
    fn odd_widths_pack_too() {
        let pool = Pool::new(1);
        let mut random = Random::new(2);
        for format in [Format::F32, Format::F16, Format::BF16] {
            let bytes = random.matrix(format, 5, 7);
            let packed = PackedMatrix::new(&pool, format, 5, 7, &bytes).unwrap();
            let expected = quant::dequantize(format, 5, 7, &bytes).unwrap();
            let mut row = [0.0; 7];
            packed.row(4, &mut row);
            assert_eq!(row, expected[28..]);
        }
    }

    #[test]
    fn a_matrix_takes_about_its_bytes() {
        let pool = Pool::new(1);
        let mut random = Random::new(3);
        for format in FORMATS {
            let bytes = random.matrix(format, 64, 2048);
            let packed = PackedMatrix::new(&pool, format, 64, 2048, &bytes).unwrap();
            assert!(packed.bytes() as f64 <= 1.03 * bytes.len() as f64, "{format:?}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let pool = Pool::new(1);
        assert!(PackedMatrix::new(&pool, Format::Q4_0, 2, 33, &[0; 36]).is_err());
        assert!(PackedMatrix::new(&pool, Format::F32, usize::MAX, 8, &[0; 36]).is_err());
    }
}
