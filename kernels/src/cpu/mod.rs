//! The CPU backend: packed weights, SIMD chosen at run time, a thread pool of its own.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(test)]
mod attention_tests;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod dense;
mod formats;
mod level;
mod low_rank;
#[cfg(test)]
mod low_rank_tests;
mod matmul;
mod measure;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_products;
mod pack;
mod pack_fast;
mod pool;
mod recurrent;
mod rows;
mod scratch;
mod screened;
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

/// Up to so many rows a pass, a row's bits do not depend on how many there are, at any level. More rows are multiplied in
/// bf16 where there are matrix units: weights and activations are rounded by at most 2^-8 of themselves, sums are f32.
pub const FEW_ROWS: usize = 16;

use crate::ops::{
    Activation, Attention, BlockProjection, CausalConv, DenseAttention, Matrix, Ops, Projection, RgLru, Rope,
    ShapeError, Store,
};
use crate::quant::Format;

pub use level::{LEVEL_VARIABLE, Level};
pub use pack::PackedMatrix;
use pool::Pool;
use rows::Elementwise;
pub(crate) use screened::Screened;

/// A pointer that threads of the pool may share; what they write through it does not overlap.
#[derive(Clone, Copy)]
pub(crate) struct SendPtr<T>(pub(crate) *mut T);

// SAFETY: every user writes disjoint parts, stated where it does.
unsafe impl<T> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// The CPU backend.
#[derive(Debug)]
pub struct Cpu {
    pool: Pool,
    level: Level,
}

impl Cpu {
    /// A backend of `threads` compute threads (at least one) at `level`, or at the best level below it
    /// that this machine has.
    pub fn new(threads: usize, level: Level) -> Self {
        let level = Level::available().into_iter().rfind(|&l| l <= level).unwrap_or(Level::Portable);
        Self { pool: Pool::new(threads.max(1)), level }
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Has at most so many of the compute threads work from now on. No result depends on how many do.
    pub fn use_threads(&self, count: usize) {
        self.pool.use_threads(count);
    }

    /// The instructions in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Physical cores of this machine, as far as it tells.
    pub fn physical_cores() -> usize {
        let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
        physical_cores_of_linux().map_or(logical, |physical| physical.min(logical))
    }
}

/// Distinct (package, core) pairs of `/proc/cpuinfo`; `None` elsewhere or where it does not say.
fn physical_cores_of_linux() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let mut package = None;
    let mut cores = std::collections::HashSet::new();
    for line in info.lines() {
        if line.starts_with("physical id") {
            package = value(line);
        } else if line.starts_with("core id") {
            cores.insert((package.clone(), value(line)));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// A screened table's inputs are rounded always.
fn activation_of(parts: &[Projection<'_>], wanted: Activation) -> Activation {
    let screened = parts.iter().any(|part| part.matrix.upper().is_some());
    if screened { Activation::Rounded } else { wanted }
}

fn screened(table: &Matrix) -> &Screened {
    match &table.store {
        Store::Screened(table) => table,
        _ => unreachable!("only tables with an upper part are asked so"),
    }
}

impl Ops for Cpu {
    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Matrix, ShapeError> {
        let packed = PackedMatrix::new(&self.pool, format, rows, cols, bytes)?;
        Ok(Matrix { rows, cols, store: Store::Packed(packed) })
    }

    fn table(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Matrix, ShapeError> {
        match Screened::new(&self.pool, self.level, format, rows, cols, bytes)? {
            Some(table) => Ok(Matrix { rows, cols, store: Store::Screened(Box::new(table)) }),
            None => self.matrix(format, rows, cols, bytes),
        }
    }

    fn best(
        &self,
        x: &[f32],
        table: &Matrix,
        first: &[f32],
        count: usize,
        among: Option<&[u32]>,
    ) -> Vec<(u32, f32)> {
        screened(table).best(&self.pool, self.level, x, first, (count, among))
    }

    fn finish(&self, x: &[f32], table: &Matrix, products: &mut [f32]) {
        screened(table).finish(&self.pool, self.level, x, 1, 0..table.rows, products);
    }

    fn project(&self, x: &[f32], n: usize, activation: Activation, parts: &mut [Projection<'_>]) {
        let activation = activation_of(parts, activation);
        matmul::project(&self.pool, self.level, x, n, activation, parts);
        for part in parts {
            if let Store::Screened(table) = &part.matrix.store {
                table.finish(&self.pool, self.level, x, n, 0..part.matrix.rows, part.out);
            }
        }
    }

    fn project_part(&self, x: &[f32], activation: Activation, part: Projection<'_>, outputs: Range<usize>) {
        let Projection { matrix, bias, low_rank, out } = part;
        let first = Projection { matrix, bias, low_rank, out: &mut *out };
        let activation = activation_of(std::slice::from_ref(&first), activation);
        matmul::project_part(&self.pool, self.level, x, activation, first, outputs.clone());
        if let Store::Screened(table) = &matrix.store {
            table.finish(&self.pool, self.level, x, 1, outputs, out);
        }
    }

    fn project_blocks(&self, x: &[f32], n: usize, activation: Activation, parts: &mut [BlockProjection<'_>]) {
        matmul::project_blocks(&self.pool, self.level, x, n, activation, parts);
    }

    fn causal_conv(&self, args: CausalConv<'_>) {
        recurrent::causal_conv(&self.pool, self.level, args);
    }

    fn rg_lru(&self, args: RgLru<'_>) {
        recurrent::rg_lru(&self.pool, self.level, args);
    }

    fn embed(&self, table: &Matrix, ids: &[u32], scale: f32, out: &mut [f32]) {
        for (row, &id) in out.chunks_exact_mut(table.cols).zip(ids) {
            match &table.store {
                Store::Screened(table) => table.row(id as usize, row),
                _ => matmul::packed(table).row(id as usize, row),
            }
            row.iter_mut().for_each(|v| *v *= scale);
        }
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "a norm writes what it reads");
        rows::rms_norm(&self.pool, self.level, x.as_ptr(), out, weight, eps);
    }

    fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        rows::rms_norm(&self.pool, self.level, x.as_ptr(), x, weight, eps);
    }

    fn rope(&self, x: &mut [f32], heads: usize, head_dim: usize, start: usize, rope: &Rope) {
        rows::rope(&self.pool, x, heads, head_dim, start, rope);
    }

    fn attention(&self, args: Attention<'_>) {
        attention::attention(&self.pool, self.level, args);
    }

    fn dense_attention(&self, args: DenseAttention<'_>) {
        dense::dense_attention(&self.pool, self.level, args);
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        rows::layer_norm(&self.pool, self.level, x, out, rows::Affine { weight, bias, eps });
    }

    fn gelu(&self, x: &mut [f32]) {
        rows::elementwise(&self.pool, self.level, Elementwise::Gelu, x, &[]);
    }

    fn average_pool(&self, x: &[f32], side: usize, kernel: usize, out: &mut [f32]) {
        rows::average_pool(&self.pool, x, side, kernel, out);
    }

    fn geglu(&self, gate: &mut [f32], up: &[f32]) {
        rows::elementwise(&self.pool, self.level, Elementwise::Geglu, gate, up);
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        rows::elementwise(&self.pool, self.level, Elementwise::Add, x, y);
    }

    fn soft_cap(&self, x: &mut [f32], cap: f32) {
        rows::elementwise(&self.pool, self.level, Elementwise::SoftCap(cap), x, &[]);
    }

    fn greatest(&self, x: &[f32]) -> usize {
        rows::greatest(&self.pool, self.level, x)
    }

    fn log_sum_exp(&self, x: &[f32]) -> f32 {
        rows::log_sum_exp(&self.pool, self.level, x)
    }
}
