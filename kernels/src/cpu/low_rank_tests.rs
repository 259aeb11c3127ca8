//! Products with what an adapter adds, at every level, against the oracle.

use super::tests::{assert_close, backends};
use super::*;
use crate::ops::LowRank;
use crate::reference::Reference;
use crate::testing::Random;

/// Two adapted products and one without an adapter, over one input.
struct Site {
    format: Format,
    /// Of the first factors and of the second ones.
    factors: (Format, Format),
    cols: usize,
    rows: [usize; 3],
    ranks: [usize; 3],
    bases: [Vec<u8>; 3],
    down: Vec<u8>,
    ups: [Vec<u8>; 3],
    bias: Vec<f32>,
}

impl Site {
    fn new(random: &mut Random, format: Format, factors: (Format, Format), ranks: [usize; 3]) -> Self {
        let (cols, rows) = (256, [33, 16, 100]);
        let down = random.matrix(factors.0, ranks.iter().sum(), cols);
        let bases = rows.map(|rows| random.matrix(format, rows, cols));
        let ups = [0, 1, 2].map(|i| random.matrix(factors.1, rows[i], ranks[i]));
        Self { format, factors, cols, rows, ranks, bases, down, ups, bias: random.numbers(rows[0]) }
    }

    /// What the products give, one after the other.
    fn run(&self, ops: &dyn Ops, x: &[f32], activation: Activation, adapted: bool) -> [Vec<f32>; 3] {
        let n = x.len() / self.cols;
        let matrix = |format, rows, cols, bytes: &[u8]| ops.matrix(format, rows, cols, bytes).unwrap();
        let down = matrix(self.factors.0, self.ranks.iter().sum(), self.cols, &self.down);
        let bases = [0, 1, 2].map(|i| matrix(self.format, self.rows[i], self.cols, &self.bases[i]));
        let ups = [0, 1, 2].map(|i| matrix(self.factors.1, self.rows[i], self.ranks[i], &self.ups[i]));
        let mut outs = self.rows.map(|rows| vec![f32::NAN; n * rows]);
        let mut parts: Vec<Projection<'_>> = outs
            .iter_mut()
            .enumerate()
            .map(|(i, out)| {
                let first = self.ranks[..i].iter().sum();
                let low_rank = LowRank { down: &down, up: &ups[i], first };
                Projection {
                    bias: (i == 0).then_some(self.bias.as_slice()),
                    low_rank: (adapted && self.ranks[i] > 0).then_some(low_rank),
                    ..Projection::new(&bases[i], out)
                }
            })
            .collect();
        ops.project(x, n, activation, &mut parts);
        outs
    }
}

/// Formats of the base with those of both factors, as they meet in models.
const FORMATS: [(Format, (Format, Format)); 5] = [
    (Format::F32, (Format::F32, Format::F32)),
    (Format::BF16, (Format::BF16, Format::BF16)),
    (Format::Q4_K, (Format::Q8_0, Format::BF16)),
    (Format::Q8_0, (Format::F32, Format::F32)),
    (Format::F16, (Format::F16, Format::BF16)),
];

#[test]
fn an_adapters_share_agrees_with_the_oracle() {
    let mut random = Random::new(91);
    for (format, factors) in FORMATS {
        for (ranks, n) in
            [([16, 0, 16], 1), ([4, 0, 33], 3), ([7, 0, 64], 16), ([16, 0, 40], 17), ([1, 0, 6], 75)]
        {
            let site = Site::new(&mut random, format, factors, ranks);
            let x = random.numbers(n * site.cols);
            let want = site.run(&Reference, &x, Activation::F32, true);
            let base = site.run(&Reference, &x, Activation::F32, false);
            assert_ne!(want[0], base[0], "the adapter counts");
            for cpu in backends() {
                for (activation, share) in [(Activation::F32, 1e-5), (Activation::Rounded, 0.02)] {
                    let got = site.run(&cpu, &x, activation, true);
                    let plain = site.run(&cpu, &x, activation, false);
                    for i in 0..3 {
                        let what =
                            format!("{format:?} {ranks:?}, {n} rows, {:?} {activation:?}", cpu.level());
                        // Sums of many terms of either sign: an error is a share of what they could add up to.
                        let size = want[i].iter().chain(&base[i]).fold(1.0f32, |most, v| most.max(v.abs()));
                        assert_close(&got[i], &want[i], share * size, &what);
                        if site.ranks[i] == 0 {
                            assert_eq!(got[i], plain[i], "{what}: what is not adapted");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn an_adapted_row_has_the_same_bits_alone_and_in_a_batch() {
    let mut random = Random::new(92);
    for (format, factors) in FORMATS {
        let site = Site::new(&mut random, format, factors, [16, 8, 5]);
        let x = random.numbers(FEW_ROWS * site.cols);
        for cpu in backends() {
            let all = site.run(&cpu, &x, Activation::Rounded, true);
            for (t, row) in x.chunks_exact(site.cols).enumerate() {
                let alone = site.run(&cpu, row, Activation::Rounded, true);
                for i in 0..3 {
                    let rows = site.rows[i];
                    assert_eq!(alone[i], all[i][t * rows..][..rows], "{format:?} {:?} row {t}", cpu.level());
                }
            }
        }
    }
}

#[test]
fn many_adapted_rows_do_not_depend_on_their_number() {
    let mut random = Random::new(93);
    for (format, factors) in FORMATS {
        let site = Site::new(&mut random, format, factors, [16, 8, 5]);
        let x = random.numbers(75 * site.cols);
        for cpu in backends() {
            let all = site.run(&cpu, &x, Activation::Rounded, true);
            for (from, to) in [(0, FEW_ROWS + 1), (3, 35), (31, 75)] {
                let some = site.run(&cpu, &x[from * site.cols..to * site.cols], Activation::Rounded, true);
                for i in 0..3 {
                    let rows = site.rows[i];
                    assert_eq!(some[i], all[i][from * rows..to * rows], "{format:?} {:?}", cpu.level());
                }
            }
        }
    }
}
