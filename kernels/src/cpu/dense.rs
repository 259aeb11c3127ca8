//! Attention without a mask or a cache, for the tower that reads pictures: every query sees every key.
//!
//! Keys are brought into panels of 16, one a lane, so that no score needs a sum across lanes; values into
//! rows of whole vectors. A tile of queries shares every key and value it reads. A row's sums run in the
//! order of dimensions and keys alone, so its bits depend neither on the rows beside it nor on the threads.
//!
//! Where rounding is allowed, matrix units do the same, see `attention::matrix`.
//!
//! Loops over vectors count by index, see `matmul`.
#![allow(clippy::needless_range_loop)]

use super::attention::softmax;
use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
#[cfg(target_arch = "x86_64")]
use crate::ops::Activation;
use crate::ops::DenseAttention;

/// Query rows of a tile.
const ROWS: usize = 8;

/// See [`crate::Ops::dense_attention`].
pub(crate) fn dense_attention(pool: &Pool, level: Level, args: DenseAttention<'_>) {
    let DenseAttention { q, k, v, heads, head_dim: dim, scale, activation, out } = args;
    let width = heads * dim;
    assert!(width > 0 && q.len().is_multiple_of(width) && k.len().is_multiple_of(width), "rows are whole");
    assert_eq!(out.len(), q.len(), "attention writes what it reads");
    assert_eq!(k.len(), v.len(), "every key has a value");
    let (m, n) = (q.len() / width, k.len() / width);
    #[cfg(target_arch = "x86_64")]
    if level == Level::Amx && activation == Activation::Rounded {
        use super::attention::matrix::{Job, Row, attend};
        let stored = |head: usize, t: usize| {
            [k, v].map(|rows| Row::F32(rows[t * width + head * dim..][..dim].as_ptr()))
        };
        let job = Job {
            dim,
            kv_heads: heads,
            rows: m,
            place: &|head, row| row * width + head * dim,
            visible: &|_| 0..n,
            stored: &stored,
            scale,
            soft_cap: None,
            q,
            out: SendPtr(out.as_mut_ptr()),
        };
        return attend(pool, &job);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = activation;
    let packed = Packed::new(pool, k, v, heads, dim);
    let tiles = m.div_ceil(ROWS);
    let out = SendPtr(out.as_mut_ptr());
    // A head's tiles follow each other, so that threads share its keys in the processor's cache.
    pool.run(heads * tiles, &|item| {
        let (head, tile) = (item / tiles, item % tiles);
        let rows = tile * ROWS..((tile + 1) * ROWS).min(m);
        let tile = Tile { packed: &packed, q, out, width, head, rows, n, dim, scale };
        // SAFETY: the level was detected; tiles write different rows or heads of `out`.
        unsafe { level.run(tile) };
    });
}

/// Keys and values in the order in which tiles read them.
struct Packed {
    /// `[heads, panels, head_dim, LANES]`, the last panel filled up with zeros.
    keys: Vec<f32>,
    /// `[heads, n, padded]`, rows filled up with zeros.
    values: Vec<f32>,
    panels: usize,
    /// Width of a head, filled up to whole vectors.
    padded: usize,
}

impl Packed {
    fn new(pool: &Pool, k: &[f32], v: &[f32], heads: usize, dim: usize) -> Self {
        let width = heads * dim;
        let n = k.len() / width;
        let (panels, padded) = (n.div_ceil(LANES), dim.next_multiple_of(LANES));
        let mut keys = vec![0.0f32; heads * panels * dim * LANES];
        let mut values = vec![0.0f32; heads * n * padded];
        let (to_keys, to_values) = (SendPtr(keys.as_mut_ptr()), SendPtr(values.as_mut_ptr()));
        pool.run(panels, &|panel| {
            for t in panel * LANES..((panel + 1) * LANES).min(n) {
                for head in 0..heads {
                    let from = t * width + head * dim;
                    let row = (head * n + t) * padded;
                    let lane = (head * panels + panel) * dim * LANES + t % LANES;
                    // SAFETY: a panel's tokens are its own, and both vectors outlive the loop.
                    unsafe {
                        std::ptr::copy_nonoverlapping(v[from..].as_ptr(), to_values.get().add(row), dim);
                        for (i, &number) in k[from..from + dim].iter().enumerate() {
                            *to_keys.get().add(lane + i * LANES) = number;
                        }
                    }
                }
            }
        });
        Self { keys, values, panels, padded }
    }
}

struct Tile<'a> {
    packed: &'a Packed,
    q: &'a [f32],
    out: SendPtr<f32>,
    /// Numbers of a row of `q` and `out`.
    width: usize,
    head: usize,
    rows: std::ops::Range<usize>,
    /// Keys.
    n: usize,
    dim: usize,
    scale: f32,
}

impl Kernel for Tile<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let panels = self.packed.panels;
        let span = panels * LANES;
        let mut scores = vec![0.0f32; ROWS * span];
        let mut inverse = [0.0; ROWS];
        let vectors = self.packed.padded / LANES;
        // SAFETY: panels and vectors stay below what was packed.
        unsafe {
            let mut panel = 0;
            while !S::FEW_REGISTERS && panel + 2 <= panels {
                self.scores::<S, ROWS, 2>(panel, span, &mut scores);
                panel += 2;
            }
            while panel < panels {
                if S::FEW_REGISTERS {
                    self.scores::<S, 4, 1>(panel, span, &mut scores);
                } else {
                    self.scores::<S, ROWS, 1>(panel, span, &mut scores);
                }
                panel += 1;
            }
            for r in 0..ROWS {
                let row = &mut scores[r * span..(r + 1) * span];
                let (_, total) = softmax::<S>(row, self.scale, None, 0..self.n);
                inverse[r] = 1.0 / total;
            }
            let mut vector = 0;
            while !S::FEW_REGISTERS && vector + 2 <= vectors {
                self.values::<S, ROWS, 2>(vector, span, &scores, inverse);
                vector += 2;
            }
            while vector < vectors {
                if S::FEW_REGISTERS {
                    self.values::<S, 4, 1>(vector, span, &scores, inverse);
                } else {
                    self.values::<S, ROWS, 1>(vector, span, &scores, inverse);
                }
                vector += 1;
            }
        }
    }
}

impl Tile<'_> {
    /// Index in `q` and `out` of a row's first number. A tile's missing rows repeat its last one.
    #[inline(always)]
    fn row(&self, r: usize) -> usize {
        (self.rows.start + r).min(self.rows.end - 1) * self.width + self.head * self.dim
    }

    /// Scores, unscaled, against the keys of `C` panels, `R` rows at a time.
    #[inline(always)]
    unsafe fn scores<S: Simd, const R: usize, const C: usize>(
        &self,
        panel: usize,
        span: usize,
        scores: &mut [f32],
    ) {
        let dim = self.dim;
        // SAFETY: panels are `dim` vectors, queries have `dim` numbers, and `scores` has rows of `span`.
        unsafe {
            let keys = self.packed.keys.as_ptr().add((self.head * self.packed.panels + panel) * dim * LANES);
            for from in (0..ROWS).step_by(R) {
                let mut q = [self.q.as_ptr(); R];
                for r in 0..R {
                    q[r] = q[r].add(self.row(from + r));
                }
                let mut acc = [[S::splat(0.0); C]; R];
                for i in 0..dim {
                    let mut k = [S::splat(0.0); C];
                    for c in 0..C {
                        k[c] = S::load(keys.add((c * dim + i) * LANES));
                    }
                    for r in 0..R {
                        let query = S::splat(*q[r].add(i));
                        for c in 0..C {
                            acc[r][c] = S::fma(query, k[c], acc[r][c]);
                        }
                    }
                }
                for r in 0..R {
                    for c in 0..C {
                        let at = (from + r) * span + (panel + c) * LANES;
                        S::store(scores.as_mut_ptr().add(at), acc[r][c]);
                    }
                }
            }
        }
    }

    /// `C` vectors of the sums of the values by their weights, `R` rows at a time.
    #[inline(always)]
    unsafe fn values<S: Simd, const R: usize, const C: usize>(
        &self,
        vector: usize,
        span: usize,
        weights: &[f32],
        inverse: [f32; ROWS],
    ) {
        let padded = self.packed.padded;
        // SAFETY: values are `n` rows of `padded` numbers, weights rows of `span`; what is written stays
        // below `dim` in the tile's own rows and head of `out`.
        unsafe {
            let values = self.packed.values.as_ptr().add(self.head * self.n * padded + vector * LANES);
            for from in (0..self.rows.len()).step_by(R) {
                let weights = weights.as_ptr().add(from * span);
                let mut acc = [[S::splat(0.0); C]; R];
                for t in 0..self.n {
                    let mut v = [S::splat(0.0); C];
                    for c in 0..C {
                        v[c] = S::load(values.add(t * padded + c * LANES));
                    }
                    for r in 0..R {
                        let weight = S::splat(*weights.add(r * span + t));
                        for c in 0..C {
                            acc[r][c] = S::fma(weight, v[c], acc[r][c]);
                        }
                    }
                }
                for r in 0..R.min(self.rows.len() - from) {
                    for c in 0..C {
                        let first = (vector + c) * LANES;
                        let mut lanes = [0.0f32; LANES];
                        S::store(lanes.as_mut_ptr(), S::mul(acc[r][c], S::splat(inverse[from + r])));
                        let to = self.out.get().add(self.row(from + r) + first);
                        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, LANES.min(self.dim - first));
                    }
                }
            }
        }
    }
}
