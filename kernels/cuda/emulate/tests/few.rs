//! Products of few rows of activations with a matrix, held against the oracle.

use gemma_emulation::devices;
use gemma_kernels::cuda::few::{Input, Output, Stream, Update, few};
use gemma_kernels::cuda::{Arrangement, Buffer, Device, DeviceMatrix, Part};
use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Activation, Format, Ops, Projection, Reference};
use half::bf16;

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
            let projection = Projection { matrix: &matrix, bias, out: &mut part };
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

fn rounded(numbers: &[f32]) -> Vec<f32> {
    numbers.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Activation numbers on a device.
fn activations(device: &Device, numbers: &[f32], exact: bool) -> Buffer {
    if exact {
        return device.numbers(numbers).unwrap();
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    device.buffer_of(&bytes).unwrap()
}

fn read_activations(buffer: &Buffer, exact: bool) -> Vec<f32> {
    if exact {
        return buffer.read_numbers(0, buffer.bytes() / 4).unwrap();
    }
    let mut bytes = vec![0; buffer.bytes()];
    buffer.download(0, &mut bytes).unwrap();
    bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// The greatest difference, as a part of the greatest number.
fn error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    worst.fold(0.0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x) }) / size
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
}
