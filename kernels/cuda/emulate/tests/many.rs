//! Products of many rows of activations with a matrix, held against the oracle.

use gemma_emulation::devices;
use gemma_kernels::cuda::many::{Many, ManyOutput, Plan, Strided, many, many_as};
use gemma_kernels::cuda::{Arrangement, Buffer, Device, DeviceMatrix, Part};
use gemma_kernels::testing::{FORMATS, Random};
use gemma_kernels::{Activation, Format, Ops, Projection, Reference};
use half::bf16;

const MEMORY: u64 = 16 << 20;
/// Rows of x in a block's tile.
const TILES: [usize; 4] = [32, 64, 128, 256];

/// A matrix of parts, some activations, and a bias.
struct Case {
    parts: Vec<(Format, usize, Vec<u8>)>,
    arrangement: Arrangement,
    cols: usize,
    n: usize,
    x: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn new(parts: &[(Format, usize)], cols: usize, n: usize) -> Self {
        let mut random = Random::new((cols * n + parts.len()) as u64);
        let x = random.numbers(n * cols).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        let parts = parts.iter().map(|&(format, rows)| (format, rows, random.matrix(format, rows, cols)));
        Self { parts: parts.collect(), arrangement: Arrangement::Stacked, cols, n, x, bias: None }
    }

    fn gate_up(self) -> Self {
        Self { arrangement: Arrangement::GateUp, ..self }
    }

    fn biased(self) -> Self {
        Self { bias: Some(Random::new(7).numbers(self.rows())), ..self }
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|(_, rows, _)| rows).sum()
    }

    fn matrix(&self, device: &Device) -> DeviceMatrix {
        let part = |(format, rows, bytes): &(Format, usize, Vec<u8>)| (*format, *rows, bytes.clone());
        let owned: Vec<_> = self.parts.iter().map(part).collect();
        let parts: Vec<Part<'_>> =
            owned.iter().map(|(format, rows, bytes)| Part { format: *format, rows: *rows, bytes }).collect();
        DeviceMatrix::new(device, &parts, self.cols, self.arrangement, false).unwrap()
    }

    /// The products as the oracle has them, `[n, rows]`.
    fn products(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.rows()];
        let mut before = 0;
        for (format, rows, bytes) in &self.parts {
            let matrix = Reference.matrix(*format, *rows, self.cols, bytes).unwrap();
            let mut part = vec![0.0; self.n * rows];
            let bias = self.bias.as_ref().map(|bias| &bias[before..before + rows]);
            let projection = Projection { matrix: &matrix, bias, out: &mut part };
            Reference.project(&self.x, self.n, Activation::F32, &mut [projection]);
            for (to, from) in out.chunks_exact_mut(self.rows()).zip(part.chunks_exact(*rows)) {
                to[before..before + rows].copy_from_slice(from);
            }
            before += rows;
        }
        out
    }

    /// `gelu_tanh(gate) * up` as the oracle has it, `[n, rows / 2]`.
    fn gated(&self) -> Vec<f32> {
        let products = self.products();
        let rows = products.chunks_exact(self.rows());
        rows.flat_map(|row| {
            let (gate, up) = row.split_at(row.len() / 2);
            let mut gate = gate.to_vec();
            Reference.geglu(&mut gate, up);
            gate
        })
        .collect()
    }
}

fn rounded(device: &Device, numbers: &[f32]) -> Buffer {
    let bytes: Vec<u8> = numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    device.buffer_of(&bytes).unwrap()
}

fn read_rounded(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.bytes()];
    buffer.download(0, &mut bytes).unwrap();
    bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

fn dense(buffer: &Buffer, stride: usize) -> Strided<'_> {
    Strided { buffer, first: 0, stride }
}

/// The greatest difference, as a part of the greatest number.
fn error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    worst.fold(0.0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x) }) / size
}

/// The case's f32 products on a device.
fn numbers(device: &Device, case: &Case, plan: Option<Plan>) -> Vec<f32> {
    let (matrix, x) = (case.matrix(device), rounded(device, &case.x));
    let out = device.buffer(4 * case.n * case.rows()).unwrap();
    let scratch = device.buffer(4 << 20).unwrap();
    let bias = case.bias.as_ref().map(|bias| device.numbers(bias).unwrap());
    let product = Many {
        matrix: &matrix,
        diagonal: 1,
        n: case.n,
        x: dense(&x, case.cols),
        bias: bias.as_ref(),
        output: ManyOutput::Numbers(dense(&out, case.rows())),
        scratch: &scratch,
    };
    plan.map_or_else(|| many(&product), |plan| many_as(&product, plan)).unwrap();
    out.read_numbers(0, case.n * case.rows()).unwrap()
}

#[test]
fn every_format_multiplies_as_the_oracle_does() {
    for (i, format) in FORMATS.into_iter().enumerate() {
        // The last group of inputs is half empty where a format allows it.
        let cols = if format.block_len() == 256 { 512 } else { 352 };
        let case = Case::new(&[(format, 72)], cols, 35);
        let want = case.products();
        for (j, rows) in TILES.into_iter().enumerate() {
            let (name, device) = devices(MEMORY).swap_remove((i + j) % 5);
            let error = error(&numbers(&device, &case, Some(Plan { rows, splits: 1 })), &want);
            let most = match format {
                Format::BF16 => 1e-5,
                // Weights are rounded to bf16, scales too.
                _ => 4e-3,
            };
            assert!(error < most, "{format:?} on {name}, tiles of {rows} rows: {error}");
        }
    }
}

#[test]
fn parts_and_rows_of_any_size_fill_tiles_of_any_shape() {
    let parts = [(Format::BF16, 132), (Format::Q8_0, 7), (Format::Q4_0, 21)];
    for (rows, n) in [(32, 33), (64, 130), (128, 150), (256, 17)] {
        let case = Case::new(&parts, 96, n).biased();
        let want = case.products();
        for (name, device) in devices(MEMORY) {
            let error = error(&numbers(&device, &case, Some(Plan { rows, splits: 1 })), &want);
            assert!(error < 4e-3, "{n} rows on {name}, tiles of {rows}: {error}");
        }
    }
}

#[test]
fn inputs_split_over_blocks_are_summed_up() {
    let case = Case::new(&[(Format::BF16, 48), (Format::BF16, 36)], 64 * 7, 40).biased();
    let want = case.products();
    for (name, device) in devices(MEMORY) {
        for splits in [2, 3] {
            let error = error(&numbers(&device, &case, Some(Plan { rows: 64, splits })), &want);
            assert!(error < 1e-5, "{splits} splits on {name}: {error}");
        }
        let error = error(&numbers(&device, &case, None), &want);
        assert!(error < 1e-5, "as it is fastest on {name}: {error}");
    }
}
