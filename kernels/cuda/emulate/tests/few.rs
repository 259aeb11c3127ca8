//! Products of few rows of activations with a matrix, held against the oracle.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

mod numbers;

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::few::{Input, Output, Stream, Update, few};
use gemma_kernels::cuda::rows::add_norm;
use gemma_kernels::cuda::{Arrangement, Device, DeviceMatrix, Part, Strided};
use gemma_kernels::reference::gelu_tanh;
use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Activation, Format, Ops, Projection, Reference};
use numbers::{activations, error, read_activations, rounded};

const MEMORY: u64 = 16 << 20;

/// Parts of a matrix as a file has them.
struct Weights {
    parts: Vec<(Format, usize, Vec<u8>)>,
    cols: usize,
}

impl Weights {
    fn random(seed: u64, parts: &[(Format, usize)], cols: usize) -> Self {
        let mut random = Random::new(seed);
        let parts = parts.iter().map(|&(format, rows)| (format, rows, random.matrix(format, rows, cols)));
        Self { parts: parts.collect(), cols }
    }

    fn on(&self, device: &Device, arrangement: Arrangement, exact: bool) -> DeviceMatrix {
        let parts: Vec<Part<'_>> = self
            .parts
            .iter()
            .map(|(format, rows, bytes)| Part { format: *format, rows: *rows, bytes })
            .collect();
        DeviceMatrix::new(device, &parts, self.cols, arrangement, exact).unwrap()
    }

    /// The products as the oracle has them, `[n, rows]`.
    fn products(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let n = x.len() / self.cols;
        let rows: usize = self.parts.iter().map(|(_, rows, _)| rows).sum();
        let mut out = vec![0.0; n * rows];
        let mut before = 0;
        for (format, rows_here, bytes) in &self.parts {
            let matrix = Reference.matrix(*format, *rows_here, self.cols, bytes).unwrap();
            let mut part = vec![0.0; n * rows_here];
            let bias = bias.map(|bias| &bias[before..before + rows_here]);
            let projection = Projection { bias, ..Projection::new(&matrix, &mut part) };
            Reference.project(x, n, Activation::F32, &mut [projection]);
            for row in 0..n {
                let to = row * rows + before;
                out[to..to + rows_here].copy_from_slice(&part[row * rows_here..][..*rows_here]);
            }
            before += rows_here;
        }
        out
    }
}

#[test]
fn every_format_multiplies_as_the_oracle_does() {
    for (seed, format) in FORMATS.into_iter().enumerate() {
        // Groups for some of the warps once and for some twice, the last one half empty where a format allows it.
        let cols = if format.block_len() == 256 { 768 } else { 608 };
        let weights = Weights::random(seed as u64, &[(format, 40)], cols);
        let x = rounded(&Random::new(99).numbers(3 * cols));
        let want = weights.products(&x, None);
        for (name, device) in devices(MEMORY).into_iter().skip(seed % 5).step_by(5) {
            for exact in [false, true] {
                let matrix = weights.on(&device, Arrangement::Stacked, exact);
                let out = device.buffer(4 * 3 * 40).unwrap();
                few(&matrix, 3, Input::Plain(&activations(&device, &x, exact)), None, Output::Numbers(&out))
                    .unwrap();
                let error = error(&out.read_numbers(0, 3 * 40).unwrap(), &want);
                let most = match format {
                    // Rounded to bf16 where it is not exact.
                    Format::F32 | Format::F16 if !exact => 2e-3,
                    _ => 1e-5,
                };
                assert!(error < most, "{format:?} on {name}, exact {exact}: {error}");
            }
        }
    }
    covers(&["few_eight", "few_exact"]);
}

/// A stream of `first + n` rows, and what the oracle makes of its rows from `first` on: the stream and its norm.
struct Streaming {
    residual: Vec<f32>,
    y: Option<Vec<f32>>,
    post_norm: Option<Vec<f32>>,
    norm: Vec<f32>,
}

const EPS: f32 = 1e-6;

impl Streaming {
    fn random(rows: usize, cols: usize, updated: bool, post_norm: bool) -> Self {
        let mut random = Random::new(7);
        Self {
            residual: random.numbers(rows * cols).iter().map(|x| 20.0 * x).collect(),
            y: updated.then(|| random.numbers(rows * cols)),
            post_norm: post_norm.then(|| random.numbers(cols)),
            norm: random.numbers(cols),
        }
    }

    fn oracle(&self) -> (Vec<f32>, Vec<f32>) {
        let mut out = self.residual.clone();
        if let Some(mut y) = self.y.clone() {
            if let Some(norm) = &self.post_norm {
                Reference.rms_norm_in_place(&mut y, norm, EPS);
            }
            Reference.add(&mut out, &y);
        }
        let mut x = vec![0.0; out.len()];
        Reference.rms_norm(&out, &self.norm, EPS, &mut x);
        (out, x)
    }

    /// The product with its norm, and the stream behind it; rows from `first` on, `n` of them.
    fn multiply(&self, matrix: &DeviceMatrix, first: usize, n: usize) -> (Vec<f32>, Vec<f32>) {
        let device = matrix.device();
        let put = |numbers: &Vec<f32>| device.numbers(numbers).unwrap();
        let (residual, norm, stream_out) = (put(&self.residual), put(&self.norm), put(&self.residual));
        let (y, post_norm) = (self.y.as_ref().map(put), self.post_norm.as_ref().map(put));
        let update = y.as_ref().map(|y| Update { y, norm: post_norm.as_ref() });
        let stream = Stream { residual: &residual, update, out: &stream_out, norm: &norm, eps: EPS, first };
        let out = device.buffer(4 * n * matrix.rows()).unwrap();
        few(matrix, n, Input::Normed(stream), None, Output::Numbers(&out)).unwrap();
        let numbers = out.read_numbers(0, n * matrix.rows()).unwrap();
        (numbers, stream_out.read_numbers(0, self.residual.len()).unwrap())
    }
}

impl Streaming {
    /// The same by two launches.
    fn norm_and_multiply(&self, matrix: &DeviceMatrix, n: usize) -> (Vec<f32>, Vec<f32>) {
        let device = matrix.device();
        let put = |numbers: &Vec<f32>| device.numbers(numbers).unwrap();
        let (residual, norm, stream_out) = (put(&self.residual), put(&self.norm), put(&self.residual));
        let (y, post_norm) = (self.y.as_ref().map(put), self.post_norm.as_ref().map(put));
        let update = y.as_ref().map(|y| Update { y, norm: post_norm.as_ref() });
        let stream =
            Stream { residual: &residual, update, out: &stream_out, norm: &norm, eps: EPS, first: 0 };
        let x = device.buffer(if matrix.exact() { 4 } else { 2 } * n * matrix.cols()).unwrap();
        add_norm(&stream, n, &x, matrix.exact()).unwrap();
        let out = device.buffer(4 * n * matrix.rows()).unwrap();
        few(matrix, n, Input::Plain(&x), None, Output::Numbers(&out)).unwrap();
        let numbers = out.read_numbers(0, n * matrix.rows()).unwrap();
        (numbers, stream_out.read_numbers(0, self.residual.len()).unwrap())
    }
}

#[test]
fn the_stream_is_brought_up_to_date_and_its_norm_multiplied() {
    let (first, n, cols, rows) = (2, 3, 600, 48);
    let weights = Weights::random(1, &[(Format::BF16, rows)], cols);
    for (name, device) in devices(MEMORY) {
        for (updated, post_norm) in [(false, false), (true, false), (true, true)] {
            let streaming = Streaming::random(first + n, cols, updated, post_norm);
            let (want_stream, x) = streaming.oracle();
            let want = weights.products(&x[first * cols..], None);
            for (exact, most) in [(true, 1e-5), (false, 5e-3)] {
                let matrix = weights.on(&device, Arrangement::Stacked, exact);
                let (got, stream) = streaming.multiply(&matrix, first, n);
                let what = format!("{name}, exact {exact}, updated {updated}, norm {post_norm}");
                assert!(error(&got, &want) < most, "{what}: {}", error(&got, &want));
                assert_eq!(
                    stream[..first * cols],
                    streaming.residual[..first * cols],
                    "{what}: rows in front"
                );
                let error = error(&stream[first * cols..], &want_stream[first * cols..]);
                assert!(error < 1e-6, "{what}: {error} in the stream");
            }
        }
    }
    covers(&["few_eight", "few_exact"]);
}

#[test]
fn parts_of_different_formats_and_odd_sizes_stand_side_by_side() {
    let parts = [(Format::Q4_K, 200), (Format::Q6_K, 24), (Format::BF16, 7)];
    let (cols, n, rows) = (512, 11, 231);
    let weights = Weights::random(3, &parts, cols);
    let mut random = Random::new(4);
    let (x, bias) = (rounded(&random.numbers(n * cols)), random.numbers(rows));
    let want: Vec<f32> = weights.products(&x, Some(&bias)).iter().map(|x| 5.0 * (x / 5.0).tanh()).collect();
    for (name, device) in devices(MEMORY) {
        for exact in [false, true] {
            let matrix = weights.on(&device, Arrangement::Stacked, exact);
            assert_eq!((matrix.rows(), matrix.cols()), (rows, cols));
            let (out, bias) = (device.buffer(4 * n * rows).unwrap(), device.numbers(&bias).unwrap());
            let x = activations(&device, &x, exact);
            let logits = Output::Logits { out: &out, soft_cap: Some(5.0) };
            few(&matrix, n, Input::Plain(&x), Some(Strided::repeated(&bias)), logits).unwrap();
            let error = error(&out.read_numbers(0, n * rows).unwrap(), &want);
            assert!(error < 1e-5, "{name}, exact {exact}: {error}");
        }
    }
    covers(&["few_sixteen", "few_exact"]);
}

#[test]
fn gate_and_up_meet_in_the_gated_activation() {
    // More rows of groups than the device has blocks, and the last one not whole.
    let (half, cols, n) = (150, 192, 2);
    let weights = Weights::random(5, &[(Format::Q5_0, half), (Format::Q8_0, half)], cols);
    let mut random = Random::new(6);
    let (x, bias) = (rounded(&random.numbers(n * cols)), random.numbers(2 * half));
    let products = weights.products(&x, Some(&bias));
    let gated = |row: &[f32]| -> Vec<f32> { (0..half).map(|i| gelu_tanh(row[i]) * row[half + i]).collect() };
    let want: Vec<f32> = products.chunks_exact(2 * half).flat_map(gated).collect();
    for (name, device) in devices(MEMORY) {
        for (exact, most) in [(true, 1e-5), (false, 4e-3)] {
            let matrix = weights.on(&device, Arrangement::GateUp, exact);
            let out = device.buffer(if exact { 4 } else { 2 } * n * half).unwrap();
            let (x, bias) = (activations(&device, &x, exact), device.numbers(&bias).unwrap());
            few(&matrix, n, Input::Plain(&x), Some(Strided::repeated(&bias)), Output::Gated(&out)).unwrap();
            let error = error(&read_activations(&out, exact), &want);
            assert!(error < most, "{name}, exact {exact}: {error}");
        }
    }
    covers(&["few_eight", "few_exact"]);
}

#[test]
fn a_product_can_end_in_gelu() {
    let weights = Weights::random(8, &[(Format::F32, 33)], 72);
    let x = rounded(&Random::new(9).numbers(72));
    let want: Vec<f32> = weights.products(&x, None).into_iter().map(gelu_tanh).collect();
    for (name, device) in devices(MEMORY) {
        for (exact, most) in [(true, 1e-5), (false, 8e-3)] {
            let matrix = weights.on(&device, Arrangement::Stacked, exact);
            let out = device.buffer(if exact { 4 } else { 2 } * 33).unwrap();
            few(&matrix, 1, Input::Plain(&activations(&device, &x, exact)), None, Output::Gelu(&out))
                .unwrap();
            let error = error(&read_activations(&out, exact), &want);
            assert!(error < most, "{name}, exact {exact}: {error}");
        }
    }
    covers(&["few_eight", "few_exact"]);
}

#[test]
fn a_row_has_the_same_bits_whatever_rows_are_beside_it() {
    let cols = 512;
    let weights = Weights::random(10, &[(Format::BF16, 20), (Format::Q4_K, 20), (Format::Q6_K, 20)], cols);
    let x = Random::new(11).numbers(16 * cols);
    let streaming = Streaming::random(16, cols, true, true);
    for (name, device) in devices(MEMORY).into_iter().take(1) {
        for exact in [false, true] {
            let matrix = weights.on(&device, Arrangement::Stacked, exact);
            let plain = |n: usize| {
                let out = device.buffer(4 * n * 60).unwrap();
                let x = activations(&device, &x[..n * cols], exact);
                few(&matrix, n, Input::Plain(&x), None, Output::Numbers(&out)).unwrap();
                out.read_numbers(0, n * 60).unwrap()
            };
            let (all, normed) = (plain(16), streaming.multiply(&matrix, 0, 16));
            for n in [1, 3, 8, 9] {
                assert_eq!(plain(n), all[..n * 60], "{name}, exact {exact}, {n} rows");
                let (numbers, stream) = streaming.multiply(&matrix, 0, n);
                assert_eq!(
                    streaming.norm_and_multiply(&matrix, n),
                    (numbers.clone(), stream.clone()),
                    "{name}"
                );
                assert_eq!(numbers, normed.0[..n * 60], "{name}, exact {exact}, {n} rows of a norm");
                assert_eq!(
                    stream[..n * cols],
                    normed.1[..n * cols],
                    "{name}, exact {exact}, {n} rows of a stream"
                );
            }
        }
    }
    covers(&["few_eight", "few_exact", "few_sixteen", "add_norm"]);
}

#[test]
fn an_exact_product_takes_any_number_of_rows() {
    let (cols, rows, n) = (64, 16, 37);
    let weights = Weights::random(12, &[(Format::BF16, rows)], cols);
    let streaming = Streaming::random(n, cols, true, false);
    let want = weights.products(&streaming.oracle().1, None);
    for (name, device) in devices(MEMORY) {
        let matrix = weights.on(&device, Arrangement::Stacked, true);
        let error = error(&streaming.multiply(&matrix, 0, n).0, &want);
        assert!(error < 1e-5, "{name}: {error}");
    }
    covers(&["few_exact"]);
}

#[test]
fn bytes_that_do_not_fit_the_shape_are_an_error() {
    let (_, device) = devices(MEMORY).remove(0);
    let part = Part { format: Format::Q4_0, rows: 2, bytes: &[0; 35] };
    let error = DeviceMatrix::new(&device, &[part], 32, Arrangement::Stacked, false).unwrap_err();
    assert_eq!(error.to_string(), "a 2 x 32 matrix of Q4_0 does not take 35 bytes");
    let too_large = Part { format: Format::F32, rows: 1 << 12, bytes: &vec![0; 4 << 24] };
    let error = DeviceMatrix::new(&device, &[too_large], 1 << 12, Arrangement::Stacked, true).unwrap_err();
    assert_eq!(error.to_string(), "the GPU has no room for another 67108864 bytes");
}

#[test]
fn rows_that_do_not_fit_a_block_are_divided_among_blocks() {
    // A stream as wide as that of the largest models: with little shared memory a block holds a few rows of it.
    let (cols, rows, n) = (5376, 16, 16);
    let weights = Weights::random(13, &[(Format::Q8_0, rows)], cols);
    let streaming = Streaming::random(n, cols, true, true);
    let (want_stream, x) = streaming.oracle();
    let want = weights.products(&x, None);
    for (name, device) in devices(MEMORY).into_iter().take(2) {
        for (exact, most) in [(true, 1e-5), (false, 5e-3)] {
            let matrix = weights.on(&device, Arrangement::Stacked, exact);
            let (got, stream) = streaming.multiply(&matrix, 0, n);
            assert!(error(&got, &want) < most, "{name}, exact {exact}: {}", error(&got, &want));
            assert!(error(&stream, &want_stream) < 1e-6, "{name}, exact {exact}");
        }
    }
    covers(&["few_exact"]);
}

#[test]
fn parts_whose_steps_have_different_lengths_leave_no_warp_behind() {
    // Eight groups: each warp has one of F32, and four of them two of Q8_0. Blocks come to F32 behind Q8_0.
    let (cols, n, rows) = (512, 2, 190);
    let weights = Weights::random(14, &[(Format::Q8_0, 150), (Format::F32, 40)], cols);
    let x = Random::new(15).numbers(n * cols);
    let want = weights.products(&x, None);
    for (name, device) in devices(MEMORY) {
        let matrix = weights.on(&device, Arrangement::Stacked, true);
        let out = device.buffer(4 * n * rows).unwrap();
        let x = activations(&device, &x, true);
        few(&matrix, n, Input::Plain(&x), None, Output::Numbers(&out)).unwrap();
        let error = error(&out.read_numbers(0, n * rows).unwrap(), &want);
        assert!(error < 1e-5, "{name}: {error}");
    }
    covers(&["few_exact"]);
}
