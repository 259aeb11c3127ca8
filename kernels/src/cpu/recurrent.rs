//! The recurrent block's operations: the depthwise causal convolution and the RG-LRU scan, both
//! vectorised over channels; a channel's numbers depend on that channel alone.

use std::ops::Range;

use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::ops::{CausalConv, RgLru};

/// Numbers of a strip at most: what a thread reads and writes of a row lies in one piece, long enough for the
/// processor to fetch ahead, and a strip's state stays in the nearest cache from row to row.
const WIDEST: usize = 64 * LANES;

/// Numbers below which one thread is faster than waking others.
const SERIAL: usize = 4 * 1024;

/// Splits `width` channels of `rows` rows into strips of whole vectors and calls `body` with each.
fn in_strips(pool: &Pool, rows: usize, width: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
    let strips = if rows * width < SERIAL { 1 } else { pool.threads() };
    let strip = width.div_ceil(strips).min(WIDEST).next_multiple_of(LANES).max(LANES);
    pool.run(width.div_ceil(strip), &|i| body(i * strip..((i + 1) * strip).min(width)));
}

/// See [`crate::Ops::causal_conv`].
pub(crate) fn causal_conv(pool: &Pool, level: Level, args: CausalConv<'_>) {
    let width = args.bias.len();
    assert_eq!(args.x.len(), args.out.len(), "a convolution writes what it reads");
    assert_eq!(args.weight.len(), args.carried.len() + width, "one tap more than inputs carried");
    let out = SendPtr(args.out.as_mut_ptr());
    let args = &args;
    in_strips(pool, args.x.len() / width.max(1), width, &|channels| {
        // SAFETY: the level was detected; strips are different columns of `out`.
        unsafe { level.run(Conv { args, out, channels }) };
    });
}

/// See [`crate::Ops::rg_lru`].
pub(crate) fn rg_lru(pool: &Pool, level: Level, args: RgLru<'_>) {
    let width = args.decay.len();
    for rows in [args.input_gate, args.recurrence_gate, &*args.out] {
        assert_eq!(rows.len(), args.x.len(), "all rows are as many and as wide");
    }
    for channels in [args.input_bias, args.recurrence_bias, &*args.state] {
        assert_eq!(channels.len(), width, "one number a channel");
    }
    let (out, state) = (SendPtr(args.out.as_mut_ptr()), SendPtr(args.state.as_mut_ptr()));
    let args = &args;
    in_strips(pool, args.x.len() / width.max(1), width, &|channels| {
        // SAFETY: the level was detected; strips are different columns of `out` and of `state`.
        unsafe { level.run(Scan { args, out, state, channels }) };
    });
}

/// The first `lanes` numbers at `p`, the other lanes zero.
#[inline(always)]
unsafe fn load<S: Simd>(p: *const f32, lanes: usize) -> S::F {
    // SAFETY: the caller's pointer is valid for `lanes` numbers.
    unsafe {
        if lanes == LANES {
            return S::load(p);
        }
        let mut part = [0.0; LANES];
        std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), lanes);
        S::load(part.as_ptr())
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(p: *mut f32, x: S::F, lanes: usize) {
    // SAFETY: the caller's pointer is valid for `lanes` numbers.
    unsafe {
        if lanes == LANES {
            return S::store(p, x);
        }
        let mut part = [0.0; LANES];
        S::store(part.as_mut_ptr(), x);
        std::ptr::copy_nonoverlapping(part.as_ptr(), p, lanes);
    }
}

struct Conv<'a> {
    args: &'a CausalConv<'a>,
    out: SendPtr<f32>,
    channels: Range<usize>,
}

impl Kernel for Conv<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { args, out, channels } = self;
        let width = args.bias.len();
        let (before, rows) = (args.carried.len() / width, args.x.len() / width);
        for t in 0..rows {
            for first in channels.clone().step_by(LANES) {
                let lanes = LANES.min(channels.end - first);
                // SAFETY: `first + lanes` is inside each row.
                unsafe {
                    let mut sum = load::<S>(args.bias.as_ptr().add(first), lanes);
                    for tap in 0..=before {
                        // Tap `before` meets row `t`; earlier taps reach into what was carried.
                        let x = if t + tap >= before {
                            args.x.as_ptr().add((t + tap - before) * width + first)
                        } else {
                            args.carried.as_ptr().add((t + tap) * width + first)
                        };
                        let weight = load::<S>(args.weight.as_ptr().add(tap * width + first), lanes);
                        sum = S::fma(weight, load::<S>(x, lanes), sum);
                    }
                    store::<S>(out.get().add(t * width + first), sum, lanes);
                }
            }
        }
    }
}

struct Scan<'a> {
    args: &'a RgLru<'a>,
    out: SendPtr<f32>,
    state: SendPtr<f32>,
    channels: Range<usize>,
}

impl Kernel for Scan<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { args, out, state, channels } = self;
        let width = args.decay.len();
        for t in 0..args.x.len() / width {
            // A row at a time: channels do not wait for each other, as a channel's rows do.
            for first in channels.clone().step_by(LANES) {
                let lanes = LANES.min(channels.end - first);
                // SAFETY: `first + lanes` is inside each row.
                unsafe {
                    let at = t * width + first;
                    let x = load::<S>(args.x.as_ptr().add(at), lanes);
                    let input = load::<S>(args.input_gate.as_ptr().add(at), lanes);
                    let input = S::add(input, load::<S>(args.input_bias.as_ptr().add(first), lanes));
                    let mut h = S::mul(x, sigmoid::<S>(input));
                    if args.start + t > 0 {
                        let gate = load::<S>(args.recurrence_gate.as_ptr().add(at), lanes);
                        let gate = S::add(gate, load::<S>(args.recurrence_bias.as_ptr().add(first), lanes));
                        let decay = load::<S>(args.decay.as_ptr().add(first), lanes);
                        let log_a = S::mul(decay, sigmoid::<S>(gate));
                        let a = S::exp(log_a);
                        let rest = one_minus_square::<S>(log_a, a);
                        let before = load::<S>(state.get().add(first), lanes);
                        h = S::fma(a, before, S::mul(S::sqrt(rest), h));
                    }
                    store::<S>(out.get().add(at), h, lanes);
                    store::<S>(state.get().add(first), h, lanes);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        let e = S::exp(S::sub(S::splat(0.0), x));
        S::div(S::splat(1.0), S::add(S::splat(1.0), e))
    }
}

/// `1 - a^2` for `ln a <= 0`, to the last few bits also where `a` is close to 1: the slow channels, whose memory is
/// the longest, live there.
#[inline(always)]
unsafe fn one_minus_square<S: Simd>(log_a: S::F, a: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        // With y = 2 ln a held above -0.5: 1 - a^2 = (1 - e^y) + (e^y - a^2), the second part 0 where nothing was held.
        let y = S::max(S::add(log_a, log_a), S::splat(-0.5));
        // (e^y - 1) / y by its series, the terms beyond the ninth below one part in 2^31.
        let mut p = S::splat(1.0 / 362_880.0);
        for c in [40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0] {
            p = S::fma(p, y, S::splat(1.0 / c));
        }
        let far = S::max(S::sub(S::splat(E_TO_MINUS_HALF), S::mul(a, a)), S::splat(0.0));
        S::sub(far, S::mul(p, y))
    }
}

const E_TO_MINUS_HALF: f32 = 0.606_530_66;
