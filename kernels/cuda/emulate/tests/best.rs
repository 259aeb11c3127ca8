//! The best tokens of a vocabulary, held against a sort of all of it.
#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::Device;
use gemma_kernels::cuda::best::{BEST, Best, best, out_bytes, read, scratch_bytes};
use gemma_kernels::testing::Random;
use gemma_kernels::{Ops, Reference};

fn found(device: &Device, logits: &[f32], n: usize) -> Vec<Best> {
    let vocab = logits.len() / n;
    let scratch = device.buffer(scratch_bytes(n, vocab)).unwrap();
    let out = device.buffer(out_bytes(n)).unwrap();
    best(&device.numbers(logits).unwrap(), n, vocab, &scratch, &out).unwrap();
    read(&out, n).unwrap()
}

fn sorted(row: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(BEST);
    all
}

#[track_caller]
fn check(logits: &[f32], n: usize) {
    for (name, device) in devices(1 << 20) {
        for (row, best) in found(&device, logits, n).iter().enumerate() {
            let logits = &logits[row * logits.len() / n..(row + 1) * logits.len() / n];
            assert_eq!(best.tokens, sorted(logits), "{name}, row {row}");
            let want = Reference.log_sum_exp(logits);
            let error = (best.log_sum_exp - want).abs();
            assert!(
                error < 1e-5 * (1.0 + want.abs()),
                "{name}, row {row}: {} is not {want}",
                best.log_sum_exp
            );
        }
    }
}

#[test]
fn the_best_of_several_slices_come_in_order() {
    let vocab = 17_000;
    let logits = Random::new(1).numbers(2 * vocab);
    check(&logits.iter().map(|x| 30.0 * x).collect::<Vec<_>>(), 2);
    covers(&["best_of_slices", "best_of_rows"]);
}

#[test]
fn of_equal_ones_the_lowest_ids_are_the_best() {
    // Few different numbers, so that ties go through every place where some are picked.
    let mut random = Random::new(2);
    let logits: Vec<f32> = (0..10_000).map(|_| random.below(100) as f32 - 50.0).collect();
    check(&logits, 1);
    check(&vec![-3.5; 9000], 1);
    covers(&["best_of_slices", "best_of_rows"]);
}

#[test]
fn a_small_vocabulary_is_sorted_whole() {
    check(&[1.0, -2.0, 3.0, -0.5, 3.0], 1);
    check(&Random::new(3).numbers(3 * BEST), 3);
    covers(&["best_of_slices", "best_of_rows"]);
}

#[test]
fn what_is_no_number_is_the_worst() {
    let (_, device) = devices(1 << 20).remove(0);
    let best = &found(&device, &[f32::NAN, f32::NEG_INFINITY, 1.0], 1)[0];
    let ids: Vec<u32> = best.tokens.iter().map(|token| token.0).collect();
    assert_eq!(ids, [2, 1, 0]);
    covers(&["best_of_slices", "best_of_rows"]);
}
