//! Every operation on lanes at every level, against plain code: also those that no kernel uses at some level.

use super::*;
use crate::cpu::simd::{Kernel, LANES, Simd};

/// Inputs of all operations.
struct Inputs {
    bytes: Vec<u8>,
    /// At most 63, as [`Simd::dot`] wants them.
    small: Vec<u8>,
    x: [i8; 4],
    a: Vec<f32>,
    b: Vec<f32>,
    halves: Vec<half::f16>,
    pairs: Vec<u16>,
}

struct Operations<'a> {
    from: &'a Inputs,
    out: &'a mut Vec<(&'static str, Vec<f32>)>,
}

impl Kernel for Operations<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Inputs { bytes, small, x, a, b, halves, pairs } = self.from;
        let out = self.out;
        // A closure's body could be compiled without the level's instructions.
        macro_rules! put {
            ($what:literal, $vector:expr $(,)?) => {{
                let vector = $vector;
                let mut lanes = vec![0.0; LANES];
                S::store(lanes.as_mut_ptr(), vector);
                out.push(($what, lanes));
            }};
        }
        // SAFETY: every input has a vector's length, every output sixteen numbers, and the level was detected.
        unsafe {
            let (f, g) = (S::load(a.as_ptr()), S::load(b.as_ptr()));
            put!("add", S::add(f, g));
            put!("sub", S::sub(f, g));
            put!("mul", S::mul(f, g));
            put!("div", S::div(f, g));
            put!("sqrt", S::sqrt(S::mul(f, f)));
            put!("min", S::min(f, g));
            put!("max", S::max(f, g));
            put!("round", S::round(S::mul(f, S::splat(8.0))));
            put!("exp2i", S::exp2i(S::round(S::mul(f, S::splat(120.0)))));
            put!("greatest", S::splat(S::greatest(f)));
            put!("sum", S::splat(S::sum(f)));
            put!("f16", S::load_f16(halves.as_ptr()));
            let (first, second) = S::load_bf16_pairs(pairs.as_ptr());
            put!("bf16, first", first);
            put!("bf16, second", second);
            put!("u8", S::load_u8(bytes.as_ptr()));
            put!("i8", S::load_i8(bytes.as_ptr()));
            let mut rounded = [0i8; LANES];
            S::store_i8(rounded.as_mut_ptr(), S::max(S::load_i8(bytes.as_ptr()), S::splat(-127.0)));
            put!("stored i8", S::load_i8(rounded.as_ptr().cast()));

            let (q, w) = (S::load_b(bytes.as_ptr()), S::load_b(small.as_ptr()));
            put!("byte", S::add(S::byte::<0>(q), S::mul(S::byte::<3>(q), S::splat(256.0))));
            put!(
                "signed byte",
                S::add(S::byte_signed::<1>(q), S::mul(S::byte_signed::<2>(q), S::splat(256.0))),
            );
            let shifted = S::or_b(S::shift_right::<2>(q, 48), S::shift_right::<5>(q, 7));
            put!("shifts", S::add(S::byte::<1>(shifted), S::mul(S::byte::<2>(shifted), S::splat(256.0))));
            let dot = S::dot(S::zero_i(), w, x.as_ptr());
            put!("dot", S::to_f(S::add_i(S::dot(dot, w, x.as_ptr()), dot)));
            let raised = x.iter().map(|&x| S::SIGNED_OFFSET * i32::from(x)).sum::<i32>();
            let signed = S::to_f(S::dot_signed(S::zero_i(), q, x.as_ptr()));
            put!("signed dot", S::sub(signed, S::splat(raised as f32)));
        }
    }
}

#[test]
fn lanes_are_those_of_plain_code() {
    let mut random = Random::new(41);
    for extreme in [false, true] {
        let bytes = (0..64).map(|_| if extreme { 128 } else { random.bits() as u8 }).collect();
        let small = (0..64).map(|_| if extreme { 63 } else { random.below(64) as u8 }).collect();
        let x = [0; 4].map(|_| if extreme { -127 } else { random.bits() as i8 }.max(-127));
        let (a, b) = (random.numbers(16), random.numbers(16));
        // Any but infinities and what is no number; with the smallest, whose first bit is not set.
        let halves = (0..16).map(|_| half::f16::from_bits(random.bits() as u16 & 0xbbff)).collect();
        let pairs = (0..32).map(|_| half::bf16::from_f32(random.number()).to_bits()).collect();
        let from = Inputs { bytes, small, x, a, b, halves, pairs };
        let mut plain = Vec::new();
        for level in Level::available() {
            let mut out = Vec::new();
            // SAFETY: the level was detected; inputs and output are vectors.
            unsafe { level.run(Operations { from: &from, out: &mut out }) };
            if plain.is_empty() {
                plain.clone_from(&out);
            }
            for (got, want) in out.iter().zip(&plain) {
                assert_eq!(got, want, "{level:?}");
            }
            assert_eq!(out.len(), plain.len());
        }
    }
}
