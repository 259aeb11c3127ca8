//! What a low-rank adapter adds to a product (LoRA, Hu et al. 2021): `(x down^T) up^T`.
//!
//! The first factor is a product like any other, over the same rounded activations. The second is added by
//! the thread that wrote the outputs, while they lie in its first cache, or by matrix units as columns behind the base's.
//! Up to 16 rows a pass it is f32 throughout, its terms in order: a row's bits do not depend on the rows beside it.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx::TILE_ROWS;
#[cfg(target_arch = "x86_64")]
use super::amx::tiles::{Columns, Parts, Tiles};
use super::formats::{Plain, PlainBF16, PlainF32};
use super::matmul::{Input, Job, Way, packed, run};
use super::pack::PackedMatrix;
use super::pool::Pool;
use super::scratch::Scratch;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::ops::{LowRank, Matrix};
use crate::quant::Format;

/// `x down^T`, row-major: what all second factors of a call read.
pub(super) struct Between {
    numbers: Scratch,
    pub(super) rows: usize,
    pub(super) ranks: usize,
}

impl Between {
    /// Room for `rows` rows of `ranks` numbers.
    pub(super) fn new(rows: usize, ranks: usize) -> Self {
        Self { numbers: Scratch::new(rows * ranks * size_of::<f32>()), rows, ranks }
    }

    /// The first number of the first row.
    pub(super) fn as_mut_ptr(&self) -> *mut f32 {
        self.numbers.as_ptr().cast()
    }

    /// All of them.
    ///
    /// # Safety
    /// They were written.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn numbers(&self) -> &[f32] {
        // SAFETY: the memory has this many numbers, written as the caller says.
        unsafe { std::slice::from_raw_parts(self.as_mut_ptr(), self.rows * self.ranks) }
    }
}

/// The second factor of one product.
pub(super) struct Addend<'a> {
    pub(super) up: &'a PackedMatrix,
    pub(super) between: &'a Between,
    /// The ranks it reads.
    pub(super) ranks: Range<usize>,
    /// The same rounded for matrix units, where these add it.
    #[cfg(target_arch = "x86_64")]
    pub(super) tiles: Option<Tiles>,
}

impl Addend<'_> {
    /// Whether matrix units add it.
    pub(super) fn is_in_tiles(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.tiles.is_some();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// The product with an adapter's first factors.
pub(super) fn between(pool: &Pool, level: Level, input: Input<'_>, n: usize, down: &Matrix) -> Between {
    let matrix = packed(down);
    let between = Between::new(n, matrix.rows);
    let job = |input, first: usize, n, chunk| Job {
        matrix,
        bias: None,
        added: None,
        level,
        input,
        n,
        out: SendPtr(between.as_mut_ptr().wrapping_add(first * matrix.rows)),
        first_output: 0,
        out_stride: matrix.rows,
        panels: 0..matrix.panels(),
        chunk,
    };
    #[cfg(target_arch = "x86_64")]
    if let Input::Bf16(x) = input {
        // There are few panels, and reading the activations is what takes the time: threads share the rows.
        let group = x.row_tiles().div_ceil(2 * pool.threads()).next_multiple_of(2);
        let rows = group * TILE_ROWS;
        let jobs = x.by_rows(group).map(|(first, x)| {
            let n = rows.min(n - first);
            job(Input::Bf16(x), first, n, matrix.panels().max(1))
        });
        run(pool, level, &jobs.collect::<Vec<_>>());
        return between;
    }
    run(pool, level, &[job(input, 0, n, 1)]);
    between
}

/// The second factor of a product that meets its activations in this way.
pub(super) fn addend<'a>(
    pool: &Pool,
    way: Way,
    low_rank: &LowRank<'a>,
    between: &'a Between,
    base: &PackedMatrix,
) -> Addend<'a> {
    let up = packed(low_rank.up);
    let ranks = low_rank.first..low_rank.first + up.cols;
    assert!(matches!(up.format, Format::F32 | Format::BF16), "a second factor is of plain numbers");
    assert!(up.rows == base.rows && ranks.end <= between.ranks, "the factors belong to the product");
    #[cfg(target_arch = "x86_64")]
    let tiles = (way == Way::Bf16(Parts::Rounded) && up.format == Format::BF16).then(|| {
        // SAFETY: the product with the first factors has run.
        let numbers = unsafe { between.numbers() };
        let columns = Columns { x: numbers, stride: between.ranks, range: ranks.clone(), blocks: 1 };
        Tiles::new(pool, columns, between.rows, Parts::Rounded)
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (pool, way);
    Addend {
        up,
        between,
        ranks,
        #[cfg(target_arch = "x86_64")]
        tiles,
    }
}

/// Adds a job's second factor to the outputs of a few panels, which were written.
pub(super) struct Add<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) panels: Range<usize>,
}

impl Kernel for Add<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Some(added) = &self.job.added else { return };
        // SAFETY: the caller's contract.
        unsafe {
            match added.up.format {
                Format::BF16 => self.add::<S, PlainBF16>(added),
                _ => self.add::<S, PlainF32>(added),
            }
        }
    }
}

impl Add<'_> {
    #[inline(always)]
    unsafe fn add<S: Simd, P: Plain>(&self, added: &Addend<'_>) {
        debug_assert_eq!(self.job.n, added.between.rows, "every row has met the first factors");
        for panel in self.panels.clone() {
            let up = added.up.panel(panel);
            let lanes = LANES.min(added.up.rows - panel * LANES);
            for t in 0..self.job.n {
                // SAFETY: the panel is the matrix's, the row one of the product with the first factors, which was
                // written; the outputs are the panel's, `lanes` of them.
                unsafe {
                    let x = added.between.as_mut_ptr().add(t * added.between.ranks + added.ranks.start);
                    let sum = dot::<S, P>(up, x, added.ranks.len());
                    let to = self.job.outputs(panel, t);
                    if lanes == LANES {
                        S::store(to, S::add(S::load(to), sum));
                    } else {
                        let mut last = [0.0f32; LANES];
                        S::store(last.as_mut_ptr(), sum);
                        for i in 0..lanes {
                            *to.add(i) += last[i];
                        }
                    }
                }
            }
        }
    }
}

/// A row of `ranks` numbers times a panel.
///
/// # Safety
/// As [`Simd`]; `up` leads to a panel of `ranks` columns, `x` to as many numbers.
#[inline(always)]
unsafe fn dot<S: Simd, P: Plain>(up: *const u8, x: *const f32, ranks: usize) -> S::F {
    // SAFETY: the caller's contract.
    unsafe {
        let (mut even, mut odd) = (S::splat(0.0), S::splat(0.0));
        for pair in 0..ranks / 2 {
            let (first, second) = P::pair::<S>(up.add(pair * P::PAIR), false);
            even = S::fma(first, S::splat(*x.add(2 * pair)), even);
            odd = S::fma(second, S::splat(*x.add(2 * pair + 1)), odd);
        }
        if !ranks.is_multiple_of(2) {
            let (first, _) = P::pair::<S>(up.add(ranks / 2 * P::PAIR), true);
            even = S::fma(first, S::splat(*x.add(ranks - 1)), even);
        }
        S::add(even, odd)
    }
}
