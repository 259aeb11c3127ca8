//! Products of bf16 weights on AMX: tiles of 16 outputs by 32 columns, which is what a panel of bf16 is
//! made of anyway.
//!
//! An activation enters as the sum of two bf16 (its rounding, and the rounding of what that left), so
//! that 16 bits of it count and not 8: twice the products, on a unit that is an order of magnitude faster
//! than vectors. Every output adds up its columns in order, whatever is computed beside it: a row has the
//! same bits alone and among 512.
//!
//! The instructions are inline assembly, since the compiler's own names for them are not stable yet.

use std::ops::Range;
use std::sync::OnceLock;

use super::matmul::Job;
use super::pack::{Aligned, TILE_COLS};
use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a tile of activations: the rounded numbers, then what they left.
const TILE_BYTES: usize = 2 * TILE_ROWS * TILE_COLS * 2;
/// Columns worked on before the next: so many of 32 panels stay in the second-level cache.
const DEPTH: usize = 1024;

/// Whether this machine and its system let this process use AMX on bf16. Asks the system, once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && system_permits())
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    // Every processor with the tiles has it, a virtual machine may hide it.
    leaf.edx & (BF16 | TILE) == BF16 | TILE && is_x86_feature_detected!("avx512bf16")
}

/// The tiles' 8 KiB are saved at every switch of threads only for processes that asked for them.
#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

/// Activations as sums of two bf16, in tiles `[row tile, column tile]`; rows and columns past the
/// last are zero.
pub(crate) struct Split {
    tiles: Aligned,
    /// Tiles of a row tile.
    columns: usize,
}

impl Split {
    /// Splits `x [n, cols]`.
    pub(crate) fn new(pool: &Pool, level: Level, x: &[f32], n: usize) -> Self {
        let cols = x.len() / n.max(1);
        let row_tiles = n.div_ceil(TILE_ROWS);
        let columns = cols.div_ceil(TILE_COLS);
        let row_bytes = columns * TILE_BYTES;
        let mut tiles = Aligned::zeroed(row_tiles * row_bytes);
        let base = SendPtr(tiles.as_mut_ptr());
        pool.run(row_tiles, &|tile| {
            let rows = &x[tile * TILE_ROWS * cols..((tile + 1) * TILE_ROWS).min(n) * cols];
            // SAFETY: the level was detected; row tiles are disjoint parts of the memory.
            unsafe { level.run(SplitRows { rows, cols, to: base.get().add(tile * row_bytes).cast() }) };
        });
        Self { tiles, columns }
    }

    /// The tiles of a row tile, from a column tile on.
    fn at(&self, row_tile: usize, column_tile: usize) -> *const u8 {
        let tile = row_tile * self.columns + column_tile;
        self.tiles.as_ptr().wrapping_add(tile * TILE_BYTES)
    }
}

struct SplitRows<'a> {
    rows: &'a [f32],
    cols: usize,
    to: *mut u16,
}

impl Kernel for SplitRows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        const TILE: usize = TILE_ROWS * TILE_COLS;
        for (r, row) in self.rows.chunks_exact(self.cols).enumerate() {
            for (tile, numbers) in row.chunks(TILE_COLS).enumerate() {
                // SAFETY: the row tile has room for two tiles of numbers for each tile of columns.
                let to = unsafe { self.to.add(tile * 2 * TILE + r * TILE_COLS) };
                for (i, &x) in numbers.iter().enumerate() {
                    let high = round(x);
                    let low = round(x - f32::from_bits(u32::from(high) << 16));
                    // SAFETY: as above.
                    unsafe {
                        *to.add(i) = high;
                        *to.add(TILE + i) = low;
                    }
                }
            }
        }
    }
}

/// The nearest bf16, ties to even. Finite numbers only: infinities of a network gone wrong stay infinite or
/// become NaN.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Computes a few panels of a job against all rows. AMX is available.
pub(crate) fn project(job: &Job<'_>, x: &Split, panels: Range<usize>) {
    let row_tiles = job.n.div_ceil(TILE_ROWS);
    // A tile for each row tile and panel, summed over the depth.
    let mut sums = vec![0.0f32; row_tiles * panels.len() * TILE_ROWS * LANES];
    let tiles = x.columns;
    let base = sums.as_mut_ptr();
    configure();
    for first in (0..tiles).step_by(DEPTH / TILE_COLS) {
        let depth = (DEPTH / TILE_COLS).min(tiles - first);
        for row_tile in (0..row_tiles).step_by(2) {
            for panel in panels.clone().step_by(2) {
                let rows = (row_tiles - row_tile).min(2);
                let columns = (panels.end - panel).min(2);
                let place = |r: usize, c: usize| {
                    ((row_tile + r.min(rows - 1)) * panels.len() + panel - panels.start + c.min(columns - 1))
                        * TILE_ROWS
                        * LANES
                };
                let weights = |c: usize| {
                    let bytes = job.matrix.panel(panel + c.min(columns - 1));
                    bytes.wrapping_add(first * TILE_COLS * LANES * 2)
                };
                let activations = |r: usize| x.at(row_tile + r.min(rows - 1), first);
                let sum = |r, c| base.wrapping_add(place(r, c));
                // SAFETY: the tiles are configured; all pointers lead to `depth` whole tiles of the
                // activations and the panels, and to whole tiles of sums of this thread.
                unsafe {
                    match (rows, columns) {
                        (2, 2) => four(
                            [activations(0), activations(1)],
                            [weights(0), weights(1)],
                            [sum(0, 0), sum(0, 1), sum(1, 0), sum(1, 1)],
                            depth,
                        ),
                        _ => {
                            for (r, c) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                                if r < rows && c < columns {
                                    one(activations(r), weights(c), sum(r, c), depth);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    release();
    write(job, panels, &sums);
}

/// Copies sums to their rows, with the bias.
fn write(job: &Job<'_>, panels: Range<usize>, sums: &[f32]) {
    let rows = job.matrix.rows;
    for (i, tile) in sums.chunks_exact(TILE_ROWS * LANES).enumerate() {
        let (row_tile, panel) = (i / panels.len(), panels.start + i % panels.len());
        let (first, t) = (panel * LANES, row_tile * TILE_ROWS);
        let lanes = LANES.min(rows - first);
        let bias = job.bias.map(|bias| &bias[first..first + lanes]);
        for (r, sums) in tile.chunks_exact(LANES).take(job.n - t).enumerate() {
            // SAFETY: the row and its columns are inside the output; other panels write other columns.
            let out = unsafe {
                let at = (t + r) * job.out_stride + first - job.first_output;
                std::slice::from_raw_parts_mut(job.out.get().add(at), lanes)
            };
            out.copy_from_slice(&sums[..lanes]);
            for (out, bias) in out.iter_mut().zip(bias.into_iter().flatten()) {
                *out += bias;
            }
        }
    }
}

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, by tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight tiles of 16 rows of 64 bytes, on this thread.
pub(super) fn configure() {
    let mut all =
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    all.row_bytes[..8].fill(64);
    all.rows[..8].fill(TILE_ROWS as u8);
    // SAFETY: AMX is available, and the memory is a configuration of the first palette.
    unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const all, options(nostack, readonly)) };
}

/// Gives the tiles back, so that switching threads need not save them.
pub(super) fn release() {
    // SAFETY: AMX is available.
    unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
}

/// Multiplies small tiles in the first cache over and over; the floating-point operations that were done.
pub(super) fn busy(steps: usize) -> f64 {
    const DEPTH: usize = 4;
    let (x, w) = (vec![0u8; 2 * DEPTH * 2048], vec![0u8; 2 * DEPTH * 1024]);
    let mut sums = vec![0.0f32; 4 * 256];
    let to = sums.as_mut_ptr();
    configure();
    for _ in 0..steps / DEPTH {
        let sum = |i: usize| to.wrapping_add(256 * i);
        let tile = |from: &[u8], i: usize| from.as_ptr().wrapping_add(i * from.len() / 2);
        // SAFETY: tiles are configured, and all pointers lead to as many tiles as are read or written.
        unsafe { four([tile(&x, 0), tile(&x, 1)], [tile(&w, 0), tile(&w, 1)], [0, 1, 2, 3].map(sum), DEPTH) };
    }
    release();
    std::hint::black_box(&mut sums);
    // Eight products of 16 x 16 x 32 a step, a multiplication and an addition each.
    (steps / DEPTH * DEPTH * 8 * 16 * 16 * 32 * 2) as f64
}

/// Adds `depth` tiles of two row tiles against two panels to four tiles of sums.
///
/// # Safety
/// Tiles are configured; pointers lead to `depth` tiles (activations, panels) and to a tile each (sums).
unsafe fn four(x: [*const u8; 2], w: [*const u8; 2], sums: [*mut f32; 4], depth: usize) {
    // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
    unsafe {
        std::arch::asm!(
            "tileloadd tmm0, [{c0} + {row}]",
            "tileloadd tmm1, [{c1} + {row}]",
            "tileloadd tmm2, [{c2} + {row}]",
            "tileloadd tmm3, [{c3} + {row}]",
            "2:",
            "tileloadd tmm6, [{w0} + {row}]",
            "tileloadd tmm4, [{x0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{x0} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x0}, 2048",
            "add {x1}, 2048",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c0} + {row}], tmm0",
            "tilestored [{c1} + {row}], tmm1",
            "tilestored [{c2} + {row}], tmm2",
            "tilestored [{c3} + {row}], tmm3",
            row = in(reg) 64usize,
            x0 = inout(reg) x[0] => _, x1 = inout(reg) x[1] => _,
            w0 = inout(reg) w[0] => _, w1 = inout(reg) w[1] => _,
            c0 = in(reg) sums[0], c1 = in(reg) sums[1], c2 = in(reg) sums[2], c3 = in(reg) sums[3],
            depth = inout(reg) depth => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Adds `depth` tiles of one row tile against one panel to a tile of sums, in the same order as [`four`].
///
/// # Safety
/// As [`four`].
unsafe fn one(x: *const u8, w: *const u8, sums: *mut f32, depth: usize) {
    // SAFETY: as in `four`.
    unsafe {
        std::arch::asm!(
            "tileloadd tmm0, [{c} + {row}]",
            "2:",
            "tileloadd tmm6, [{w} + {row}]",
            "tileloadd tmm4, [{x} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{x} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "add {x}, 2048",
            "add {w}, 1024",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c} + {row}], tmm0",
            row = in(reg) 64usize,
            x = inout(reg) x => _, w = inout(reg) w => _, c = in(reg) sums,
            depth = inout(reg) depth => _,
            out("tmm0") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack),
        );
    }
}
