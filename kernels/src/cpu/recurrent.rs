//! The recurrent block's operations: the depthwise causal convolution and the RG-LRU scan, both
//! vectorised over channels; a channel's numbers depend on that channel alone.

use super::pool::Pool;
use super::simd::{Kernel, LANES, Simd};
use super::{Level, SendPtr};
use crate::ops::{CausalConv, RgLru};

/// Channels that a thread takes at a time: whole cache lines, few enough to share out.
const STRIP: usize = 4 * LANES;

/// See [`crate::Ops::causal_conv`].
pub(crate) fn causal_conv(pool: &Pool, level: Level, args: CausalConv<'_>) {
    let width = args.bias.len();
    assert_eq!(args.x.len(), args.out.len(), "a convolution writes what it reads");
    assert_eq!(args.weight.len(), args.carried.len() + width, "one tap more than inputs carried");
    let out = SendPtr(args.out.as_mut_ptr());
    let args = &args;
    pool.run(width.div_ceil(STRIP), &|strip| {
        let end = ((strip + 1) * STRIP).min(width);
        for first in (strip * STRIP..end).step_by(LANES) {
            let lanes = LANES.min(end - first);
            // SAFETY: the level was detected; strips are different columns of `out`.
            unsafe { level.run(Conv { args, out, first, lanes }) };
        }
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
    pool.run(width.div_ceil(STRIP), &|strip| {
        let end = ((strip + 1) * STRIP).min(width);
        for first in (strip * STRIP..end).step_by(LANES) {
            let lanes = LANES.min(end - first);
            // SAFETY: the level was detected; strips are different columns of `out` and of `state`.
            unsafe { level.run(Scan { args, out, state, first, lanes }) };
        }
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
    first: usize,
    lanes: usize,
}

impl Kernel for Conv<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { args, out, first, lanes } = self;
        let width = args.bias.len();
        let (before, rows) = (args.carried.len() / width, args.x.len() / width);
        // SAFETY: `first + lanes` is inside each row.
        unsafe {
            let bias = load::<S>(args.bias.as_ptr().add(first), lanes);
            for t in 0..rows {
                let mut sum = bias;
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

struct Scan<'a> {
    args: &'a RgLru<'a>,
    out: SendPtr<f32>,
    state: SendPtr<f32>,
    first: usize,
    lanes: usize,
}

impl Kernel for Scan<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { args, out, state, first, lanes } = self;
        let width = args.decay.len();
        // SAFETY: `first + lanes` is inside each row.
        unsafe {
            let decay = load::<S>(args.decay.as_ptr().add(first), lanes);
            let input_bias = load::<S>(args.input_bias.as_ptr().add(first), lanes);
            let recurrence_bias = load::<S>(args.recurrence_bias.as_ptr().add(first), lanes);
            let mut h = load::<S>(state.get().add(first), lanes);
            for t in 0..args.x.len() / width {
                let at = t * width + first;
                let x = load::<S>(args.x.as_ptr().add(at), lanes);
                let input = load::<S>(args.input_gate.as_ptr().add(at), lanes);
                let gated = S::mul(x, sigmoid::<S>(S::add(input, input_bias)));
                if args.start + t == 0 {
                    h = gated;
                } else {
                    let recurrence = load::<S>(args.recurrence_gate.as_ptr().add(at), lanes);
                    let log_a = S::mul(decay, sigmoid::<S>(S::add(recurrence, recurrence_bias)));
                    let rest = one_minus_exp::<S>(S::add(log_a, log_a));
                    h = S::fma(S::exp(log_a), h, S::mul(S::sqrt(rest), gated));
                }
                store::<S>(out.get().add(at), h, lanes);
            }
            store::<S>(state.get().add(first), h, lanes);
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

/// `1 - e^y` for `y <= 0`, to the last few bits also where `e^y` is close to 1: the slow channels, whose
/// memory is the longest, live there.
#[inline(always)]
unsafe fn one_minus_exp<S: Simd>(y: S::F) -> S::F {
    // SAFETY: as the caller's.
    unsafe {
        // With y = near + far: 1 - e^y = (1 - e^far) + e^far (1 - e^near), and e^far is 1 if y is near 0.
        let near = S::max(y, S::splat(-0.5));
        let far = S::exp(S::sub(y, near));
        // e^near - 1 by its series, the terms beyond the ninth below one part in 2^31.
        let mut p = S::splat(1.0);
        for n in [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0] {
            p = S::fma(S::mul(p, near), S::splat(1.0 / n), S::splat(1.0));
        }
        let rest = S::sub(S::splat(0.0), S::mul(p, near));
        S::fma(far, rest, S::sub(S::splat(1.0), far))
    }
}
