//! Kernels that work row by row, held against the oracle.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::few::{Stream, Update};
use gemma_kernels::cuda::rows;
use gemma_kernels::cuda::{Buffer, Device};
use gemma_kernels::testing::Random;
use gemma_kernels::{Ops, Reference};
use half::bf16;

const EPS: f32 = 1e-6;
/// Narrow, one block's threads not filled, and more numbers than a block takes at once.
const WIDTHS: [usize; 3] = [4, 96, 1152];

/// Activation numbers as f32.
fn activations(buffer: &Buffer, len: usize, exact: bool) -> Vec<f32> {
    if exact {
        return buffer.read_numbers(0, len).expect("the device works");
    }
    let mut bytes = vec![0; 2 * len];
    buffer.download(0, &mut bytes).expect("the device works");
    bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// Room for activation numbers.
fn room(device: &Device, len: usize, exact: bool) -> Buffer {
    device.buffer(if exact { 4 * len } else { 2 * len }).expect("the device works")
}

/// Equal but for rounding: of f32 sums, or to bf16.
fn assert_close(found: &[f32], expected: &[f32], exact: bool, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let relative = if exact { 4e-6 } else { 1.0 / 256.0 };
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= relative * e.abs() + 2e-6, "{what}, number {i}: {f} for {e}");
    }
}

/// Runs a test on every device, in both precisions.
fn everywhere(test: impl Fn(&Device, bool, &str)) {
    for (name, device) in devices(1 << 24) {
        for exact in [true, false] {
            test(&device, exact, &format!("{name}, exact: {exact}"));
        }
    }
}

#[test]
fn a_stream_is_summed_and_normed() {
    everywhere(|device, exact, name| {
        let mut random = Random::new(1);
        for (width, n, first) in [(4, 1, 0), (96, 3, 2), (1152, 2, 0)] {
            for (update, post) in [(false, false), (true, false), (true, true)] {
                let what = format!("{name}, width {width}, update: {update}, post-norm: {post}");
                let len = (first + n) * width;
                let residual = random.numbers(len);
                let y: Vec<f32> = random.numbers(len).iter().map(|v| 3.0 * v).collect();
                let (norm, post_norm) = (random.numbers(width), random.numbers(width));
                let mut sum = residual.clone();
                let mut added = y.clone();
                if post {
                    Reference.rms_norm_in_place(&mut added, &post_norm, EPS);
                }
                if update {
                    Reference.add(&mut sum, &added);
                }
                let mut x = vec![0.0; n * width];
                Reference.rms_norm(&sum[first * width..], &norm, EPS, &mut x);

                let [residual, y, norm, post_norm] =
                    [&residual, &y, &norm, &post_norm].map(|numbers| device.numbers(numbers).unwrap());
                let out = device.numbers(&vec![7.0; len]).unwrap();
                let found = room(device, n * width, exact);
                let stream = Stream {
                    residual: &residual,
                    update: update.then_some(Update { y: &y, norm: post.then_some(&post_norm) }),
                    out: &out,
                    norm: &norm,
                    eps: EPS,
                    first,
                };
                rows::add_norm(&stream, n, &found, exact).unwrap();
                assert_close(&activations(&found, n * width, exact), &x, exact, &what);
                let out = out.read_numbers(0, len).unwrap();
                assert_close(&out[first * width..], &sum[first * width..], true, &what);
                assert_eq!(out[..first * width], vec![7.0; first * width], "{what}: rows that are not meant");
            }
        }
    });
    covers(&["add_norm"]);
}

#[test]
fn rows_are_normed_in_place() {
    for (name, device) in devices(1 << 24) {
        let mut random = Random::new(2);
        for width in WIDTHS {
            let (mut x, norm) = (random.numbers(3 * width), random.numbers(width));
            let on_device = device.numbers(&x).unwrap();
            rows::norm_in_place(&on_device, &device.numbers(&norm).unwrap(), EPS, 3).unwrap();
            Reference.rms_norm_in_place(&mut x, &norm, EPS);
            assert_close(&on_device.read_numbers(0, x.len()).unwrap(), &x, true, &format!("{name}, {width}"));
        }
    }
    covers(&["norm_in_place"]);
}

#[test]
fn layer_norm_takes_the_mean_away() {
    everywhere(|device, exact, name| {
        let mut random = Random::new(3);
        for width in WIDTHS {
            // Far from zero: a variance by sums of squares would lose most of its digits.
            let x: Vec<f32> = random.numbers(2 * width).iter().map(|v| 20.0 + v).collect();
            let (weight, bias) = (random.numbers(width), random.numbers(width));
            let mut expected = vec![0.0; x.len()];
            Reference.layer_norm(&x, &weight, &bias, EPS, &mut expected);
            let [x, weight, bias] = [&x, &weight, &bias].map(|numbers| device.numbers(numbers).unwrap());
            let out = room(device, 2 * width, exact);
            rows::layer_norm(&x, (&weight, &bias), EPS, 2, &out, exact).unwrap();
            let found = activations(&out, 2 * width, exact);
            // The mean itself is rounded: a few parts in 2^24 of 20.
            let relative = if exact { 2e-5 } else { 1.0 / 256.0 };
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() <= relative * (1.0 + e.abs()), "{name}, {width}: {f} for {e}");
            }
        }
    });
    covers(&["layer_norm"]);
}

#[test]
fn rows_are_added() {
    for (name, device) in devices(1 << 20) {
        let mut random = Random::new(4);
        let (mut x, y) = (random.numbers(1000), random.numbers(1000));
        let on_device = device.numbers(&x).unwrap();
        rows::add(&on_device, &device.numbers(&y).unwrap(), 999).unwrap();
        Reference.add(&mut x[..999], &y[..999]);
        assert_eq!(on_device.read_numbers(0, 1000).unwrap(), x, "{name}");
    }
    covers(&["add_rows"]);
}

#[test]
fn numbers_are_rounded_to_the_nearest() {
    for (name, device) in devices(1 << 20) {
        let x = Random::new(5).numbers(700);
        let out = room(&device, 700, false);
        rows::round(&device.numbers(&x).unwrap(), 700, &out).unwrap();
        let expected: Vec<f32> = x.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
        assert_eq!(activations(&out, 700, false), expected, "{name}");
    }
    covers(&["round_rows"]);
}

#[test]
fn gelu_holds_from_end_to_end() {
    everywhere(|device, exact, name| {
        let ends = [0.0, -0.0, 1e-20, -1e-20, 12.0, -12.0, 200.0, -200.0, 1e15, -1e15];
        let mut x: Vec<f32> = Random::new(6).numbers(600).iter().map(|v| 6.0 * v).collect();
        x.extend(ends);
        let up = Random::new(7).numbers(x.len());
        let [on_device, up_there] = [&x, &up].map(|numbers| device.numbers(numbers).unwrap());
        let out = room(device, x.len(), exact);
        rows::gelu(&on_device, x.len(), &out, exact).unwrap();
        let mut expected = x.clone();
        Reference.gelu(&mut expected);
        assert_close(&activations(&out, x.len(), exact), &expected, exact, name);
        rows::geglu(&on_device, &up_there, x.len(), &out, exact).unwrap();
        let mut expected = x.clone();
        Reference.geglu(&mut expected, &up);
        assert_close(&activations(&out, x.len(), exact), &expected, exact, name);
    });
    covers(&["gelu_rows"]);
}

#[test]
fn squares_of_a_picture_are_averaged() {
    for (name, device) in devices(1 << 20) {
        let mut random = Random::new(8);
        for (side, kernel, width) in [(4, 2, 3), (6, 3, 300), (2, 1, 5)] {
            let x = random.numbers(side * side * width);
            let mut expected = vec![0.0; x.len() / (kernel * kernel)];
            Reference.average_pool(&x, side, kernel, &mut expected);
            let out = device.buffer(4 * expected.len()).unwrap();
            rows::average_pool(&device.numbers(&x).unwrap(), side, kernel, width, &out).unwrap();
            assert_close(&out.read_numbers(0, expected.len()).unwrap(), &expected, true, &name);
        }
    }
    covers(&["average_pool"]);
}
