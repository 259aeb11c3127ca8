//! The K formats: 256 numbers whose scales are themselves quantised.

// A closure would be compiled without the instructions of the function that it is in.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::{error, half_within, nearest, products, quants, raised, symmetric, total};

/// Scales and minimums are stored in 6 bits.
const MOST_SCALE: f32 = 63.0;

/// A super-block of eight runs of 32 as `d scale q - m minimum`.
struct Affine {
    d: f16,
    m: f16,
    scales: [f32; 8],
    minimums: [f32; 8],
    q: [[f32; 32]; 8],
    error: f32,
}

#[inline(always)]
pub(super) fn q4_k(x: &[f32; 256], out: &mut [u8; 144]) {
    let block = affine(x, 15.0);
    head(&block, out);
    let q = block.q.map(|q| raised(&q, 0.0));
    for pair in 0..4 {
        for i in 0..32 {
            out[16 + 32 * pair + i] = q[2 * pair][i] | q[2 * pair + 1][i] << 4;
        }
    }
}

#[inline(always)]
pub(super) fn q5_k(x: &[f32; 256], out: &mut [u8; 176]) {
    let block = affine(x, 31.0);
    head(&block, out);
    let q = block.q.map(|q| raised(&q, 0.0));
    for run in 0..8 {
        for i in 0..32 {
            out[16 + i] |= (q[run][i] >> 4) << run;
        }
    }
    for pair in 0..4 {
        for i in 0..32 {
            out[48 + 32 * pair + i] = q[2 * pair][i] & 15 | (q[2 * pair + 1][i] & 15) << 4;
        }
    }
}

/// The two f16 and the eight scales and minimums in 6 bits each.
#[inline(always)]
fn head(block: &Affine, out: &mut [u8]) {
    out[0..2].copy_from_slice(&block.d.to_le_bytes());
    out[2..4].copy_from_slice(&block.m.to_le_bytes());
    let (s, m) = (raised(&block.scales, 0.0), raised(&block.minimums, 0.0));
    for j in 0..4 {
        out[4 + j] = s[j] | s[j + 4] >> 4 << 6;
        out[8 + j] = m[j] | m[j + 4] >> 4 << 6;
        out[12 + j] = s[j + 4] & 15 | m[j + 4] << 4;
    }
}

#[inline(always)]
fn affine(x: &[f32; 256], most: f32) -> Affine {
    let (runs, _) = x.as_chunks::<32>();
    let (mut scales, mut minimums) = ([0.0_f32; 8], [0.0_f32; 8]);
    for run in 0..8 {
        (scales[run], minimums[run]) = scale_and_minimum(&runs[run], most);
    }
    let largest = |v: &[f32; 8]| v.iter().fold(0.0_f32, |a, &b| a.max(b)) / MOST_SCALE;
    let (d, m) = (half_within(largest(&scales)), half_within(largest(&minimums)));
    let first = with_factors(runs, most, d, m, &steps(&scales, d), &steps(&minimums, m));
    let (d, m) = factors(runs, &first);
    let second = with_factors(runs, most, d, m, &first.scales, &first.minimums);
    if second.error < first.error { second } else { first }
}

/// Numbers as steps of a factor, in 6 bits.
#[inline(always)]
fn steps(numbers: &[f32; 8], factor: f16) -> [f32; 8] {
    quants(numbers, factor.to_f32(), 0.0, MOST_SCALE)
}

/// Scale and minimum, neither below 0, of least squared error of `scale q - minimum`.
#[inline(always)]
fn scale_and_minimum(x: &[f32; 32], most: f32) -> (f32, f32) {
    const TRIES: i32 = 20;
    let (mut low, mut high, mut sums) = (0.0_f32, x[0], [0.0; 8]);
    for i in 0..4 {
        for lane in 0..8 {
            let x = x[8 * i + lane];
            low = low.min(x);
            high = high.max(x);
            sums[lane] += x;
        }
    }
    let sum_x = total(sums);
    if high <= low {
        return (0.0, -low);
    }
    let (mut best, mut result) = (f32::INFINITY, ((high - low) / most, -low));
    for i in 0..=TRIES {
        let inverse = (most - 1.0 + 0.1 * i as f32) / (high - low);
        let mut q = [0.0; 32];
        for i in 0..32 {
            q[i] = nearest((inverse * (x[i] - low)).min(most));
        }
        let (sum_xq, sum_qq) = products(x, &q);
        let (sum_q, _) = products(&q, &[1.0; 32]);
        let mut scale = 0.0;
        let mut minimum = -1.0;
        let determinant = 32.0 * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            scale = (32.0 * sum_xq - sum_x * sum_q) / determinant;
            minimum = (sum_q * sum_xq - sum_qq * sum_x) / determinant;
        }
        if minimum < 0.0 {
            minimum = 0.0;
            scale = if sum_qq > 0.0 { sum_xq / sum_qq } else { 0.0 };
        }
        if scale < 0.0 {
            continue;
        }
        let off = run_error(x, &q, scale, minimum);
        if off < best {
            (best, result) = (off, (scale, minimum));
        }
    }
    result
}

/// `sum((x - (scale q - minimum))^2)`.
#[inline(always)]
fn run_error(x: &[f32; 32], q: &[f32; 32], scale: f32, minimum: f32) -> f32 {
    let mut sums = [0.0; 8];
    for i in 0..4 {
        for lane in 0..8 {
            let off = x[8 * i + lane] + minimum - scale * q[8 * i + lane];
            sums[lane] += off * off;
        }
    }
    total(sums)
}

/// The super-block with these factors: each run takes the best of its scale and minimum and their neighbours.
#[inline(always)]
fn with_factors(
    runs: &[[f32; 32]],
    most: f32,
    d: f16,
    m: f16,
    scales: &[f32; 8],
    minimums: &[f32; 8],
) -> Affine {
    let mut block = Affine { d, m, scales: *scales, minimums: *minimums, q: [[0.0; 32]; 8], error: 0.0 };
    for run in 0..8 {
        let mut best = f32::INFINITY;
        for near in 0..9 {
            let scale = scales[run] + (near / 3) as f32 - 1.0;
            let minimum = minimums[run] + (near % 3) as f32 - 1.0;
            let within = |v: f32| (0.0..=MOST_SCALE).contains(&v);
            if !within(scale) || !within(minimum) {
                continue;
            }
            let (step, below) = (d.to_f32() * scale, m.to_f32() * minimum);
            let mut raised = [0.0; 32];
            for i in 0..32 {
                raised[i] = runs[run][i] + below;
            }
            let q = quants(&raised, step, 0.0, most);
            let off = error(&raised, &q, step);
            if off < best {
                best = off;
                (block.scales[run], block.minimums[run], block.q[run]) = (scale, minimum, q);
            }
        }
        block.error += best;
    }
    block
}

/// The factors of least squared error for a super-block's scales, minimums and quants as they are.
#[inline(always)]
fn factors(runs: &[[f32; 32]], block: &Affine) -> (f16, f16) {
    let (mut ss, mut sm, mut mm, mut xs, mut xm) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for run in 0..8 {
        let (scale, minimum) = (block.scales[run], block.minimums[run]);
        let (xq, qq) = products(&runs[run], &block.q[run]);
        let (sum_q, _) = products(&block.q[run], &[1.0; 32]);
        let (sum_x, _) = products(&runs[run], &[1.0; 32]);
        ss += scale * scale * qq;
        sm += scale * minimum * sum_q;
        mm += 32.0 * minimum * minimum;
        xs += scale * xq;
        xm += minimum * sum_x;
    }
    let determinant = ss * mm - sm * sm;
    // With no minimum at all there is one factor to find.
    let (d, m) = match (determinant > 0.0, ss > 0.0) {
        (true, _) => ((xs * mm - xm * sm) / determinant, (xs * sm - xm * ss) / determinant),
        (false, true) => (xs / ss, 0.0),
        (false, false) => return (block.d, block.m),
    };
    (half_within(d.max(0.0)), half_within(m.max(0.0)))
}

#[inline(always)]
pub(super) fn q6_k(x: &[f32; 256], out: &mut [u8; 210]) {
    let (runs, _) = x.as_chunks::<16>();
    let mut scales = [0.0_f32; 16];
    for run in 0..16 {
        scales[run] = symmetric(&runs[run], -32.0, 31.0, 4, 0.25);
    }
    let first = half_within(super::peak(&scales) / -128.0);
    let (first_scales, first_q, first_error) = q6_runs(runs, first, &scales);
    let (mut xs, mut ss) = (0.0, 0.0);
    for run in 0..16 {
        let (xq, qq) = products(&runs[run], &first_q[run]);
        xs += first_scales[run] * xq;
        ss += first_scales[run] * first_scales[run] * qq;
    }
    let second = if ss > 0.0 { half_within(xs / ss) } else { first };
    let (second_scales, second_q, second_error) = q6_runs(runs, second, &scales);
    let (d, scales, q) = if second_error < first_error {
        (second, second_scales, second_q)
    } else {
        (first, first_scales, first_q)
    };
    out[208..].copy_from_slice(&d.to_le_bytes());
    for run in 0..16 {
        out[192 + run] = scales[run] as i8 as u8;
        let q = raised(&q[run], 32.0);
        let (half, quarter, lane) = (run / 8, run % 8 / 2, run % 2 * 16);
        for i in 0..16 {
            out[64 * half + 32 * (quarter % 2) + lane + i] |= (q[i] & 15) << (4 * (quarter / 2));
            out[128 + 32 * half + lane + i] |= (q[i] >> 4) << (2 * quarter);
        }
    }
}

/// Scales in 8 bits, quants and squared error of sixteen runs with the factor `d`: each run takes the best of its
/// scale and the two beside it.
#[inline(always)]
fn q6_runs(runs: &[[f32; 16]], d: f16, scales: &[f32; 16]) -> ([f32; 16], [[f32; 16]; 16], f32) {
    let d = d.to_f32();
    let middle = quants(scales, d, -128.0, 127.0);
    let (mut best_scales, mut best_q, mut sum) = ([0.0; 16], [[0.0; 16]; 16], 0.0);
    for run in 0..16 {
        let mut best = f32::INFINITY;
        for near in 0..3 {
            let scale = (middle[run] + near as f32 - 1.0).clamp(-128.0, 127.0);
            let q = quants(&runs[run], d * scale, -32.0, 31.0);
            let off = error(&runs[run], &q, d * scale);
            if off < best {
                best = off;
                (best_scales[run], best_q[run]) = (scale, q);
            }
        }
        sum += best;
    }
    (best_scales, best_q, sum)
}
