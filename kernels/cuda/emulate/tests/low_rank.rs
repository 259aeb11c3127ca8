//! What low-rank factors add to a product, held against the oracle.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

mod numbers;

use gemma_emulation::{covers, devices};
use gemma_kernels::cuda::few::{Input, Output, Stream, few};
use gemma_kernels::cuda::low_rank::{DeviceLowRank, Factors, LowRankPart};
use gemma_kernels::cuda::many::{Beside, Many, ManyOutput, Plan, many_as};
use gemma_kernels::cuda::{Arrangement, Device, DeviceMatrix, Part, Strided};
use gemma_kernels::testing::Random;
use gemma_kernels::{Activation, Format, Ops, Projection, Reference};
use numbers::{activations, error, read_activations, rounded};

const MEMORY: u64 = 16 << 20;
const EPS: f32 = 1e-6;

/// Outputs of a matrix, and the factors of what comes to them.
struct Outputs {
    format: Format,
    rows: usize,
    bytes: Vec<u8>,
    rank: usize,
    down: Vec<f32>,
    up: Vec<f32>,
}

/// A matrix of parts with their factors, and a bias.
struct Case {
    parts: Vec<Outputs>,
    arrangement: Arrangement,
    cols: usize,
    bias: Vec<f32>,
}

impl Case {
    /// Of format, rows and rank of each part; rank 0 is no factors.
    fn new(parts: &[(Format, usize, usize)], cols: usize, arrangement: Arrangement) -> Self {
        let mut random = Random::new((cols + parts.len()) as u64);
        let outputs = |&(format, rows, rank): &(Format, usize, usize)| Outputs {
            format,
            rows,
            bytes: random.matrix(format, rows, cols),
            rank,
            // Of the size of the products beside them.
            down: rounded(&random.numbers(rank * cols)),
            up: rounded(&random.numbers(rows * rank)),
        };
        let parts: Vec<_> = parts.iter().map(outputs).collect();
        let rows = parts.iter().map(|part| part.rows).sum();
        Self { parts, arrangement, cols, bias: random.numbers(rows) }
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    fn on(&self, device: &Device, exact: bool) -> (DeviceMatrix, DeviceLowRank) {
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| Part { format: part.format, rows: part.rows, bytes: &part.bytes })
            .collect();
        let thin: Vec<_> = self
            .parts
            .iter()
            .map(|part| LowRankPart {
                rows: part.rows,
                factors: (part.rank > 0).then_some(Factors { down: &part.down, up: &part.up }),
            })
            .collect();
        let matrix = DeviceMatrix::new(device, &parts, self.cols, self.arrangement, exact).unwrap();
        (matrix, DeviceLowRank::new(device, &thin, self.cols, exact).unwrap())
    }

    /// The products with all that comes to them as the oracle has them, `[n, rows]`; those of a gated matrix behind
    /// their activation. What stands between the factors is rounded to bf16 where it is not exact.
    fn oracle(&self, x: &[f32], exact: bool) -> Vec<f32> {
        let n = x.len() / self.cols;
        let mut out = vec![0.0; n * self.rows()];
        let mut before = 0;
        for part in &self.parts {
            let bias = &self.bias[before..before + part.rows];
            let mut sums = project(part.format, &part.bytes, x, self.cols, n, Some(bias));
            if part.rank > 0 {
                let between = project(Format::F32, &bytes(&part.down), x, self.cols, n, None);
                let between = if exact { between } else { rounded(&between) };
                let added = project(Format::F32, &bytes(&part.up), &between, part.rank, n, None);
                Reference.add(&mut sums, &added);
            }
            for (to, from) in out.chunks_exact_mut(self.rows()).zip(sums.chunks_exact(part.rows)) {
                to[before..before + part.rows].copy_from_slice(from);
            }
            before += part.rows;
        }
        if self.arrangement == Arrangement::Stacked {
            return out;
        }
        let gated = |row: &[f32]| {
            let (gate, up) = row.split_at(row.len() / 2);
            let mut gate = gate.to_vec();
            Reference.geglu(&mut gate, up);
            gate
        };
        out.chunks_exact(self.rows()).flat_map(gated).collect()
    }
}

/// `x * matrix^T + bias` by the oracle.
fn project(format: Format, bytes: &[u8], x: &[f32], cols: usize, n: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let rows = bytes.len() / format.row_bytes(cols).unwrap();
    let matrix = Reference.matrix(format, rows, cols, bytes).unwrap();
    let mut out = vec![0.0; n * rows];
    let projection = Projection { bias, ..Projection::new(&matrix, &mut out) };
    Reference.project(x, n, Activation::F32, &mut [projection]);
    out
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The product of few rows as a decoder computes it: stacked in f32, or gated in activation numbers.
fn of_few(
    case: &Case,
    (matrix, low_rank): &(DeviceMatrix, DeviceLowRank),
    n: usize,
    input: Input<'_>,
) -> Vec<f32> {
    let (device, exact) = (matrix.device(), matrix.exact());
    let number = if exact { 4 } else { 2 };
    let between = device.buffer(number * n * low_rank.rank()).unwrap();
    let added = device.buffer(4 * n * case.rows()).unwrap();
    low_rank.few(n, input, Some(&device.numbers(&case.bias).unwrap()), &between, &added).unwrap();
    let bias = Some(Strided::whole(&added, case.rows()));
    if case.arrangement == Arrangement::GateUp {
        let out = device.buffer(number * n * case.rows() / 2).unwrap();
        few(matrix, n, input, bias, Output::Gated(&out)).unwrap();
        return read_activations(&out, exact);
    }
    let out = device.buffer(4 * n * case.rows()).unwrap();
    few(matrix, n, input, bias, Output::Numbers(&out)).unwrap();
    out.read_numbers(0, n * case.rows()).unwrap()
}

#[test]
fn factors_of_any_rank_come_to_their_own_outputs() {
    let stacked = [(Format::Q4_K, 72, 5), (Format::Q6_K, 24, 0), (Format::BF16, 7, 64)];
    let gated = [(Format::Q5_0, 150, 16), (Format::Q8_0, 150, 3)];
    for (parts, arrangement, cols, n) in [
        (&stacked[..], Arrangement::Stacked, 256, 11),
        (&stacked[..], Arrangement::Stacked, 512, 2),
        (&gated[..], Arrangement::GateUp, 192, 3),
        (&[(Format::Q4_0, 40, 4)][..], Arrangement::Stacked, 96, 1),
    ] {
        let case = Case::new(parts, cols, arrangement);
        let x = rounded(&Random::new(4).numbers(n * cols));
        for exact in [false, true] {
            let want = case.oracle(&x, exact);
            let most = match (exact, arrangement) {
                (true, _) => 1e-5,
                // A number between the factors on the edge of two bf16.
                (false, Arrangement::Stacked) => 2e-3,
                (false, Arrangement::GateUp) => 6e-3,
            };
            for (name, device) in devices(MEMORY) {
                let x = activations(&device, &x, exact);
                let got = of_few(&case, &case.on(&device, exact), n, Input::Plain(&x));
                let error = error(&got, &want);
                assert!(error < most, "{n} rows on {name}, exact {exact}: {error}");
            }
        }
    }
    covers(&["few_eight", "few_sixteen", "few_exact"]);
}

#[test]
fn a_row_of_few_has_the_same_bits_whatever_rows_are_beside_it() {
    let parts = [(Format::Q8_0, 40, 6), (Format::Q4_0, 24, 16)];
    let (cols, most) = (288, 16);
    let case = Case::new(&parts, cols, Arrangement::Stacked);
    let mut random = Random::new(5);
    let (residual, norm) = (random.numbers(most * cols), random.numbers(cols));
    for (name, device) in devices(MEMORY).into_iter().take(2) {
        for exact in [false, true] {
            let matrices = case.on(&device, exact);
            let streamed = |n: usize| {
                let put = |numbers: &[f32]| device.numbers(numbers).unwrap();
                let (residual, norm, out) = (put(&residual), put(&norm), put(&residual));
                let stream =
                    Stream { residual: &residual, update: None, out: &out, norm: &norm, eps: EPS, first: 0 };
                of_few(&case, &matrices, n, Input::Normed(stream))
            };
            let all = streamed(most);
            for n in [1, 2, 9] {
                assert_eq!(streamed(n), all[..n * case.rows()], "{n} rows on {name}, exact {exact}");
            }
        }
    }
}

/// The product of many rows.
fn of_many(
    case: &Case,
    (matrix, low_rank): &(DeviceMatrix, DeviceLowRank),
    x: &[f32],
    plan: Plan,
) -> Vec<f32> {
    let (device, n) = (matrix.device(), x.len() / case.cols);
    let gated = case.arrangement == Arrangement::GateUp;
    // For 20 rows at a time of what has to go through it.
    let scratch = device.buffer(4 * case.rows().next_multiple_of(4) * plan.splits * 20).unwrap();
    let x = activations(device, x, false);
    let x = Strided::whole(&x, case.cols);
    let between = device.buffer(2 * n * low_rank.rank()).unwrap();
    low_rank.many(n, x, &between, &scratch).unwrap();
    let beside = Beside { low_rank, between: Strided::whole(&between, low_rank.rank()) };
    let bias = device.numbers(&case.bias).unwrap();
    let columns = case.rows() / if gated { 2 } else { 1 };
    let out = device.buffer(if gated { 2 } else { 4 } * n * columns).unwrap();
    let at = Strided::whole(&out, columns);
    let output = if gated { ManyOutput::Gated(at) } else { ManyOutput::Numbers(at) };
    let product = Many {
        matrix,
        diagonal: 1,
        n,
        x,
        bias: Some(&bias),
        low_rank: Some(beside),
        output,
        scratch: &scratch,
    };
    many_as(&product, plan).unwrap();
    read_activations(&out, !gated)
}

#[test]
fn many_rows_meet_the_factors_in_tiles_of_any_shape() {
    let stacked = [(Format::Q4_0, 132, 5), (Format::Q8_0, 7, 0), (Format::BF16, 21, 64)];
    let gated = [(Format::Q8_0, 37, 16), (Format::Q8_0, 37, 3)];
    let mixed = [(Format::Q4_0, 40, 0), (Format::BF16, 40, 70)];
    let k = [(Format::Q4_K, 136, 16)];
    for (parts, arrangement, cols, n, rows, splits) in [
        (&stacked[..], Arrangement::Stacked, 96, 33, 32, 1),
        (&stacked[..], Arrangement::Stacked, 288, 70, 64, 2),
        (&k[..], Arrangement::Stacked, 256, 150, 128, 1),
        (&k[..], Arrangement::Stacked, 256, 40, 32, 1),
        (&k[..], Arrangement::Stacked, 256, 40, 256, 1),
        (&gated[..], Arrangement::GateUp, 96, 33, 128, 1),
        (&gated[..], Arrangement::GateUp, 160, 33, 32, 2),
        (&mixed[..], Arrangement::GateUp, 96, 33, 64, 1),
    ] {
        let case = Case::new(parts, cols, arrangement);
        let x = rounded(&Random::new(6).numbers(n * cols));
        let want = case.oracle(&x, false);
        for (name, device) in devices(MEMORY) {
            let got = of_many(&case, &case.on(&device, false), &x, Plan { rows, splits });
            let error = error(&got, &want);
            assert!(error < 6e-3, "{n} rows on {name}, tiles of {rows}, {splits} splits: {error}");
        }
    }
    covers(&["many_32", "many_64", "many_128", "many_256", "many_sum"]);
}

#[test]
fn factors_of_other_parts_are_refused() {
    let (_, device) = devices(MEMORY).remove(0);
    let part =
        |rows| LowRankPart { rows, factors: Some(Factors { down: &[1.0; 32], up: &[1.0; 8][..rows] }) };
    let low_rank = DeviceLowRank::new(&device, &[part(4), part(4)], 32, false).unwrap();
    let zeros = vec![0; 2 * 8 * 32];
    let matrix = Part { format: Format::BF16, rows: 8, bytes: &zeros };
    let matrix = DeviceMatrix::new(&device, &[matrix], 32, Arrangement::Stacked, false).unwrap();
    let buffer = device.buffer(4096).unwrap();
    let (x, output) = (Strided::whole(&buffer, 32), ManyOutput::Numbers(Strided::whole(&buffer, 8)));
    let beside = Beside { low_rank: &low_rank, between: Strided::whole(&buffer, 8) };
    let product = Many {
        matrix: &matrix,
        diagonal: 1,
        n: 1,
        x,
        bias: None,
        low_rank: Some(beside),
        output,
        scratch: &buffer,
    };
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        many_as(&product, Plan { rows: 32, splits: 1 })
    }));
    assert!(refused.is_err(), "one part of 8 outputs has no factors of two parts of 4");
}
