//! Every operation at every level this machine has, against the oracle, over random shapes.

mod bits;
mod lanes;

use super::*;
use crate::reference::Reference;
use crate::testing::{FORMATS, Random};

pub(super) fn backends() -> Vec<Cpu> {
    Level::available().into_iter().flat_map(|level| [Cpu::new(1, level), Cpu::new(3, level)]).collect()
}

fn project(ops: &dyn Ops, m: &Matrix, x: &[f32], n: usize, activation: Activation) -> Vec<f32> {
    let mut out = vec![f32::NAN; n * m.rows()];
    ops.project(x, n, activation, &mut [Projection::new(m, &mut out)]);
    out
}

/// Whether a product of rounded activations with so many rows is one of bf16.
fn bf16_tiles(cpu: &Cpu, n: usize) -> bool {
    cpu.level() == Level::Amx && n > FEW_ROWS
}

pub(super) fn assert_close(got: &[f32], want: &[f32], bound: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound * (1.0 + w.abs()), "{what}: number {i} is {g}, not {w}");
    }
}

#[test]
fn products_agree_with_the_oracle() {
    let mut random = Random::new(7);
    let cpus = backends();
    for format in FORMATS {
        for (rows, n) in [(1, 1), (16, 3), (33, 9), (100, 17)] {
            let cols =
                if format.block_len() == 1 { 1 + random.below(300) } else { 256 * (1 + random.below(3)) };
            let bytes = random.matrix(format, rows, cols);
            let x = random.numbers(n * cols);
            let oracle = Reference.matrix(format, rows, cols, &bytes).unwrap();
            let want = project(&Reference, &oracle, &x, n, Activation::F32);
            for cpu in &cpus {
                let what = format!("{format:?} {rows}x{cols}, {n} rows, {:?}", cpu.level());
                let m = cpu.matrix(format, rows, cols, &bytes).unwrap();
                // The longest row bounds what a sum's terms can add up to, and so its rounding.
                let norm: f32 = (0..rows)
                    .map(|r| {
                        let mut row = vec![0.0; cols];
                        matmul::packed(&m).row(r, &mut row);
                        row.iter().map(|w| w * w).sum::<f32>().sqrt()
                    })
                    .fold(0.0, f32::max);
                let exact = 3e-6 * (1.0 + norm);
                assert_close(&project(cpu, &m, &x, n, Activation::F32), &want, exact, &what);
                // Rounding to 8 bits moves a number by at most 1/254 of its block's greatest, splitting it
                // into two bf16 by 2^-16 of itself, rounding it to one by 2^-8. Many rows have quantised weights
                // rounded so as well.
                let share = match format {
                    Format::F32 | Format::F16 => 0.0,
                    Format::BF16 if bf16_tiles(cpu, n) => 1.0 / 512.0,
                    Format::BF16 => 1.0 / 131_072.0,
                    _ if bf16_tiles(cpu, n) => 1.0 / 256.0,
                    _ => 1.0 / 254.0,
                };
                let bound = exact + norm * share * 4.0;
                assert_close(&project(cpu, &m, &x, n, Activation::Rounded), &want, bound, &what);
            }
        }
    }
}

/// Sums of products in 16 bits hold what the greatest weights make of the greatest activations.
#[test]
fn the_greatest_numbers_overflow_nothing() {
    // Where a block's 16-bit scales stand, and the byte that all others are.
    let blocks = [
        (Format::Q8_0, &[0][..], 0x80),
        (Format::Q4_0, &[0], 0xff),
        (Format::Q4_1, &[0, 2], 0xff),
        (Format::Q5_0, &[0], 0xff),
        (Format::Q5_1, &[0, 2], 0xff),
        (Format::Q4_K, &[0, 2], 0xff),
        (Format::Q5_K, &[0, 2], 0xff),
        (Format::Q6_K, &[208], 0xff),
    ];
    // More columns than are unpacked at a time at any level, and rows in tiles of every size.
    let (rows, cols, n) = (17, 2304, 7);
    for (format, scales, byte) in blocks {
        let mut bytes = vec![byte; rows * format.row_bytes(cols).unwrap()];
        for block in bytes.chunks_exact_mut(format.row_bytes(format.block_len()).unwrap()) {
            for &at in scales {
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
            }
        }
        let x: Vec<f32> = (0..n * cols).map(|i| if i / cols % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let oracle = Reference.matrix(format, rows, cols, &bytes).unwrap();
        let want = project(&Reference, &oracle, &x, n, Activation::F32);
        for cpu in backends() {
            let m = cpu.matrix(format, rows, cols, &bytes).unwrap();
            for n in [1, 4, n] {
                let got = project(&cpu, &m, &x[..n * cols], n, Activation::Rounded);
                assert_close(
                    &got,
                    &want[..n * rows],
                    1e-4,
                    &format!("{format:?}, {n} rows, {:?}", cpu.level()),
                );
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch_and_at_any_fused_level() {
    let mut random = Random::new(8);
    for format in FORMATS {
        // Rows in tiles of every size: 8, 4, 2 and 1; and halves of a matrix unit's tile.
        let (rows, cols, n) = (48, 512, [5, 8, 9, 15, 16][random.below(5)]);
        let bytes = random.matrix(format, rows, cols);
        let x = random.numbers(n * cols);
        for activation in [Activation::F32, Activation::Rounded] {
            let mut fused: Option<Vec<f32>> = None;
            for cpu in backends() {
                let m = cpu.matrix(format, rows, cols, &bytes).unwrap();
                let all = project(&cpu, &m, &x, n, activation);
                for t in 0..n {
                    let alone = project(&cpu, &m, &x[t * cols..(t + 1) * cols], 1, activation);
                    assert_eq!(alone, all[t * rows..(t + 1) * rows], "{format:?} {:?} row {t}", cpu.level());
                }
                // Matrix units add up in an order of their own.
                let tiles =
                    (format, activation, cpu.level()) == (Format::BF16, Activation::Rounded, Level::Amx);
                if cpu.level() > Level::Portable && !tiles {
                    assert_eq!(*fused.get_or_insert_with(|| all.clone()), all, "{format:?}");
                }
            }
        }
    }
}

#[test]
fn a_row_that_meets_several_panels_at_a_time_has_the_bits_of_two_rows_that_do_not() {
    let mut random = Random::new(47);
    // A thread takes ten panels at a time of these: four streams of two, and two more; the last one is not full.
    let rows = 645;
    for format in FORMATS {
        let cols = if format.block_len() == 1 { 77 } else { 256 };
        let bytes = random.matrix(format, rows, cols);
        let x = random.numbers(2 * cols);
        let oracle = Reference.matrix(format, rows, cols, &bytes).unwrap();
        let want = project(&Reference, &oracle, &x, 2, Activation::F32);
        for cpu in backends() {
            let what = format!("{format:?}, {:?}", cpu.level());
            let m = cpu.matrix(format, rows, cols, &bytes).unwrap();
            for activation in [Activation::F32, Activation::Rounded] {
                let two = project(&cpu, &m, &x, 2, activation);
                let one = project(&cpu, &m, &x[..cols], 1, activation);
                assert_eq!(one, two[..rows], "{what}, {activation:?}");
                if activation == Activation::F32 {
                    assert_close(&two, &want, 1e-4, &what);
                }
            }
        }
    }
}

#[test]
fn many_rows_do_not_depend_on_each_other_nor_on_their_number() {
    let mut random = Random::new(81);
    for format in FORMATS {
        // More columns than are worked on at once, a last group that is narrower, and panels that pair with none.
        let (rows, cols, n) = (16 * 5 + 3, 256 * 3, 75);
        let bytes = random.matrix(format, rows, cols);
        let x = random.numbers(n * cols);
        for cpu in backends() {
            let m = cpu.matrix(format, rows, cols, &bytes).unwrap();
            let all = project(&cpu, &m, &x, n, Activation::Rounded);
            for (from, to) in [(0, FEW_ROWS + 1), (3, 35), (16, 64), (31, 75)] {
                let some = project(&cpu, &m, &x[from * cols..to * cols], to - from, Activation::Rounded);
                assert_eq!(some, all[from * rows..to * rows], "{format:?} {:?}, {from} to {to}", cpu.level());
            }
        }
    }
}

#[test]
fn a_part_of_a_product_has_the_bits_of_the_whole() {
    let mut random = Random::new(31);
    for format in FORMATS {
        let (rows, cols) = (75, 256);
        let bytes = random.matrix(format, rows, cols);
        let (x, bias) = (random.numbers(cols), random.numbers(rows));
        for cpu in backends() {
            let matrix = cpu.matrix(format, rows, cols, &bytes).unwrap();
            for activation in [Activation::F32, Activation::Rounded] {
                let mut whole = vec![f32::NAN; rows];
                let part = Projection { bias: Some(&bias), ..Projection::new(&matrix, &mut whole) };
                cpu.project(&x, 1, activation, &mut [part]);
                for outputs in [0..75, 0..16, 16..64, 64..75, 48..48] {
                    let mut out = vec![f32::NAN; outputs.len()];
                    let part = Projection { bias: Some(&bias), ..Projection::new(&matrix, &mut out) };
                    cpu.project_part(&x, activation, part, outputs.clone());
                    assert_eq!(out, whole[outputs.clone()], "{format:?} {:?} {outputs:?}", cpu.level());
                }
            }
        }
    }
}

#[test]
fn bf16_products_of_few_rows_keep_sixteen_bits_of_activations_whatever_the_shape() {
    let mut random = Random::new(20);
    for (rows, cols, n) in [
        (1, 32, 1),
        (16, 64, 16),
        (33, 96, 17),
        (300, 2560, 3),
        (40, 2080, 50),
        (17, 4128, 33),
        (48, 33, 20),
        (9, 1071, 5),
    ] {
        let bytes = random.matrix(Format::BF16, rows, cols);
        let (x, bias) = (random.numbers(n * cols), random.numbers(rows));
        let product = |ops: &dyn Ops, x: &[f32], n: usize| {
            let matrix = ops.matrix(Format::BF16, rows, cols, &bytes).unwrap();
            let mut out = vec![f32::NAN; n * rows];
            let mut parts = [Projection { bias: Some(&bias), ..Projection::new(&matrix, &mut out) }];
            ops.project(x, n, Activation::Rounded, &mut parts);
            out
        };
        let want = product(&Reference, &x, n);
        for cpu in backends() {
            let what = format!("{rows}x{cols}, {n} rows, {:?}", cpu.level());
            let got = product(&cpu, &x, n);
            // An activation's own error is 2^-16 of it, of many rows 2^-8; weights and activations are below 1.
            let own = if bf16_tiles(&cpu, n) { 1.0 / 512.0 } else { 1.0 / 131_072.0 };
            let bound = 1e-6 * cols as f32 + (cols as f32).sqrt() * own;
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() <= bound, "{what}: {g} is not {w}");
            }
            for t in [0, n / 2, n - 1].into_iter().filter(|_| !bf16_tiles(&cpu, n)) {
                let alone = product(&cpu, &x[t * cols..(t + 1) * cols], 1);
                assert_eq!(alone, got[t * rows..(t + 1) * rows], "{what}, row {t}");
            }
        }
    }
}

#[test]
fn several_products_share_one_input() {
    let mut random = Random::new(9);
    let cols = 256;
    let x = random.numbers(2 * cols);
    let shapes = [(Format::Q4_K, 40), (Format::F32, 16), (Format::Q6_K, 7)];
    let bytes: Vec<_> = shapes.iter().map(|&(f, rows)| random.matrix(f, rows, cols)).collect();
    for cpu in backends() {
        let matrices: Vec<_> = shapes
            .iter()
            .zip(&bytes)
            .map(|(&(f, rows), bytes)| cpu.matrix(f, rows, cols, bytes).unwrap())
            .collect();
        let mut outs: Vec<Vec<f32>> = shapes.iter().map(|&(_, rows)| vec![0.0; 2 * rows]).collect();
        let mut parts: Vec<_> =
            matrices.iter().zip(&mut outs).map(|(matrix, out)| Projection::new(matrix, out)).collect();
        cpu.project(&x, 2, Activation::Rounded, &mut parts);
        for (m, out) in matrices.iter().zip(&outs) {
            assert_eq!(*out, project(&cpu, m, &x, 2, Activation::Rounded));
        }
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let mut random = Random::new(16);
    for (format, rows) in [(Format::Q8_0, 16), (Format::F32, 37), (Format::BF16, 5), (Format::Q4_K, 20)] {
        let (cols, n) = (256, 9);
        let bytes = random.matrix(format, rows, cols);
        let (x, bias) = (random.numbers(n * cols), random.numbers(rows));
        let oracle = Reference.matrix(format, rows, cols, &bytes).unwrap();
        for (ops, m) in std::iter::once((&Reference as &dyn Ops, oracle)).chain(
            backends().iter().map(|cpu| (cpu as &dyn Ops, cpu.matrix(format, rows, cols, &bytes).unwrap())),
        ) {
            let want = project(ops, &m, &x, n, Activation::F32);
            let want: Vec<f32> = want.iter().zip(bias.iter().cycle()).map(|(v, b)| v + b).collect();
            let mut got = vec![f32::NAN; want.len()];
            let mut parts = [Projection { bias: Some(&bias), ..Projection::new(&m, &mut got) }];
            ops.project(&x, n, Activation::F32, &mut parts);
            assert_close(&got, &want, 1e-6, &format!("{format:?} {rows}"));
        }
    }
}

#[test]
fn embedding_rows_are_the_tables() {
    let mut random = Random::new(10);
    let bytes = random.matrix(Format::Q5_K, 20, 256);
    let oracle = Reference.matrix(Format::Q5_K, 20, 256, &bytes).unwrap();
    let ids = [19, 0, 7];
    let (mut want, mut got) = (vec![0.0; 3 * 256], vec![0.0; 3 * 256]);
    Reference.embed(&oracle, &ids, 3.5, &mut want);
    for cpu in backends() {
        let table = cpu.matrix(Format::Q5_K, 20, 256, &bytes).unwrap();
        cpu.embed(&table, &ids, 3.5, &mut got);
        assert_eq!(got, want);
    }
}

#[test]
fn rows_agree_with_the_oracle() {
    let mut random = Random::new(11);
    for (n, width) in [(1, 5), (3, 40), (50, 640)] {
        let x: Vec<f32> = random.numbers(n * width).iter().map(|v| v * 6.0).collect();
        let (y, weight) = (random.numbers(n * width), random.numbers(width));
        for cpu in backends() {
            let what = format!("{n}x{width} {:?}", cpu.level());
            let (mut want, mut got) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            Reference.rms_norm(&x, &weight, 1e-6, &mut want);
            cpu.rms_norm(&x, &weight, 1e-6, &mut got);
            assert_close(&got, &want, 1e-6, &what);
            let bias = &y[..width];
            let mut layer = vec![0.0; x.len()];
            Reference.layer_norm(&x, &weight, bias, 1e-6, &mut want);
            cpu.layer_norm(&x, &weight, bias, 1e-6, &mut layer);
            assert_close(&layer, &want, 2e-6, &what);
            let mut in_place = x.clone();
            cpu.rms_norm_in_place(&mut in_place, &weight, 1e-6);
            assert_eq!(in_place, got, "{what}");
            let both = |f: &dyn Fn(&dyn Ops, &mut [f32])| {
                let (mut want, mut got) = (x.clone(), x.clone());
                f(&Reference, &mut want);
                f(&cpu, &mut got);
                assert_close(&got, &want, 1e-6, &what);
            };
            both(&|ops, x| ops.geglu(x, &y));
            both(&|ops, x| ops.gelu(x));
            both(&|ops, x| ops.add(x, &y));
            both(&|ops, x| ops.soft_cap(x, 3.0));
        }
    }
}

#[test]
fn a_number_has_the_same_bits_wherever_it_stands() {
    let mut random = Random::new(12);
    let (x, y) = (random.numbers(203), random.numbers(203));
    for cpu in backends() {
        let mut all = x.clone();
        cpu.geglu(&mut all, &y);
        for i in 0..x.len() {
            let mut alone = [x[i]];
            cpu.geglu(&mut alone, &y[i..=i]);
            assert_eq!(alone[0], all[i]);
        }
    }
}

#[test]
fn pooling_agrees_with_the_oracle() {
    let mut random = Random::new(18);
    for (side, kernel, width) in [(1, 1, 3), (4, 2, 36), (6, 3, 7), (64, 4, 20)] {
        let x = random.numbers(side * side * width);
        let small = side / kernel;
        let mut want = vec![f32::NAN; small * small * width];
        Reference.average_pool(&x, side, kernel, &mut want);
        let corner: f32 = (0..kernel * kernel).map(|j| x[(j / kernel * side + j % kernel) * width]).sum();
        assert!((want[0] - corner / (kernel * kernel) as f32).abs() < 1e-6, "the first square");
        for cpu in backends() {
            let mut got = vec![f32::NAN; want.len()];
            cpu.average_pool(&x, side, kernel, &mut got);
            assert_close(&got, &want, 1e-6, &format!("{side} by {kernel}, {width} wide"));
        }
    }
}

#[test]
fn rope_rotates_by_position() {
    let mut random = Random::new(14);
    let mut rope = Rope::new(16, 10_000.0, 1.0);
    rope.cover(31, 5);
    // Two heads of 20 of which 16 numbers are rotated.
    let x = random.numbers(5 * 40);
    let mut want = x.clone();
    Reference.rope(&mut want, 2, 20, 31, &rope);
    for cpu in backends() {
        let mut got = x.clone();
        cpu.rope(&mut got, 2, 20, 31, &rope);
        assert_eq!(got, want);
    }
    assert_eq!(want[16..20], x[16..20], "the rest of a head stays");
    let angle = 31.0f32;
    let first = x[0] * angle.cos() - x[8] * angle.sin();
    assert!((want[0] - first).abs() < 1e-6);
}

#[test]
fn log_sum_exp_agrees_with_the_oracle() {
    let mut random = Random::new(15);
    for len in [1, 7, 16, 100, 70_000] {
        let x: Vec<f32> = random.numbers(len).iter().map(|v| v * 20.0).collect();
        let want = Reference.log_sum_exp(&x);
        let got: Vec<f32> = backends().iter().map(|cpu| cpu.log_sum_exp(&x)).collect();
        assert_close(&got, &vec![want; got.len()], 2e-6, &format!("{len} numbers"));
    }
}

#[test]
fn the_greatest_is_the_first_of_the_greatest_numbers() {
    let mut random = Random::new(17);
    for cpu in backends() {
        for len in [0, 1, 7, 16, 100, 16_384, 70_000] {
            let mut x = random.numbers(len);
            assert_eq!(cpu.greatest(&x), Reference.greatest(&x), "of {len}");
            for at in [0, len / 3, len / 2, len.saturating_sub(1)].into_iter().filter(|&at| at < len) {
                // What is greatest stands there again behind it, and neither NaN nor infinity below is greater.
                x[at..].iter_mut().step_by(1 + len / 5).for_each(|v| *v = 2.0);
                x[..at].iter_mut().for_each(|v| *v = -1.0);
                x[..at].iter_mut().step_by(3).for_each(|v| *v = f32::NAN);
                x[..at].iter_mut().step_by(5).for_each(|v| *v = f32::NEG_INFINITY);
                assert_eq!(cpu.greatest(&x), at, "of {len}");
            }
        }
        assert_eq!(cpu.greatest(&[f32::NAN; 40]), 0);
        assert_eq!(cpu.greatest(&[f32::NEG_INFINITY; 40]), 0);
    }
}

#[test]
fn block_diagonal_products_agree_with_the_oracle() {
    let mut random = Random::new(16);
    for (format, blocks, rows, cols) in [
        (Format::F32, 4, 12, 12),
        (Format::F32, 1, 5, 2),
        (Format::BF16, 3, 40, 33),
        (Format::BF16, 2, 16, 256),
        (Format::BF16, 5, 75, 300),
        (Format::Q8_0, 2, 7, 64),
        (Format::Q4_0, 3, 50, 96),
    ] {
        let bytes: Vec<_> = (0..2 * blocks).map(|_| random.matrix(format, rows, cols)).collect();
        // Few, the fewest that are many, and tiles of rows that pair and do not.
        for n in [1 + random.below(FEW_ROWS), FEW_ROWS, FEW_ROWS + 1, 33 + random.below(40)] {
            let x = random.numbers(n * blocks * cols);
            let both = |ops: &dyn Ops, x: &[f32], n: usize, activation: Activation| {
                let matrices: Vec<_> =
                    bytes.iter().map(|b| ops.matrix(format, rows, cols, b).unwrap()).collect();
                let mut outs = [vec![f32::NAN; n * blocks * rows], vec![f32::NAN; n * blocks * rows]];
                let [a, b] = &mut outs;
                let mut parts = [
                    BlockProjection { blocks: &matrices[..blocks], out: a },
                    BlockProjection { blocks: &matrices[blocks..], out: b },
                ];
                ops.project_blocks(x, n, activation, &mut parts);
                outs
            };
            let want = both(&Reference, &x, n, Activation::F32).concat();
            for cpu in backends() {
                let what =
                    format!("{blocks} blocks {rows}x{cols} of {format:?}, {n} rows, {:?}", cpu.level());
                let exact = both(&cpu, &x, n, Activation::F32);
                assert_close(&exact.concat(), &want, 1e-5, &what);
                let got = both(&cpu, &x, n, Activation::Rounded);
                if !bf16_tiles(&cpu, n) || format == Format::F32 {
                    assert_eq!(got, exact, "{what}: nothing is rounded");
                } else {
                    assert_ne!(got, exact, "{what}: matrix units are for this");
                    // An activation's own error is 2^-8 of it, a quantised weight's as well; all are below 1.
                    let share = if format == Format::BF16 { 1.0 / 256.0 } else { 1.0 / 128.0 };
                    let bound = 1e-5 + (cols as f32).sqrt() * share;
                    got.concat().iter().zip(&want).for_each(|(g, w)| {
                        assert!((g - w).abs() <= bound, "{what}: {g} is not {w}");
                    });
                }
                // The last row, with others beside it and with none, or as few as are many.
                let few = if bf16_tiles(&cpu, n) { FEW_ROWS + 1 } else { 1 };
                let last = both(&cpu, &x[(n - few) * blocks * cols..], few, Activation::Rounded);
                for (last, got) in last.iter().zip(&got) {
                    assert_eq!(last[(few - 1) * blocks * rows..], got[(n - 1) * blocks * rows..], "{what}");
                }
            }
        }
    }
}

/// Rows of a recurrent block and what came before them.
struct Recurrence {
    width: usize,
    x: Vec<f32>,
    gates: [Vec<f32>; 2],
    channels: [Vec<f32>; 3],
    state: Vec<f32>,
}

impl Recurrence {
    fn new(random: &mut Random, width: usize, n: usize) -> Self {
        let mut wide = |len| -> Vec<f32> { random.numbers(len).iter().map(|v| v * 3.0).collect() };
        let (x, gates) = (wide(n * width), [wide(n * width), wide(n * width)]);
        let (biases, state) = ([wide(width), wide(width)], wide(width));
        // From channels that hardly forget to channels that hardly remember.
        let decay =
            (0..width).map(|c| -(10.0f32.powf(random.number() * 4.0 - 2.0 + (c % 3) as f32))).collect();
        let [input, recurrence] = biases;
        Self { width, x, gates, channels: [input, recurrence, decay], state }
    }

    /// States behind the rows `rows`, and the last one.
    fn run(&self, ops: &dyn Ops, rows: std::ops::Range<usize>, start: usize, state: &mut [f32]) -> Vec<f32> {
        let numbers = rows.start * self.width..rows.end * self.width;
        let mut out = vec![f32::NAN; numbers.len()];
        ops.rg_lru(RgLru {
            x: &self.x[numbers.clone()],
            input_gate: &self.gates[0][numbers.clone()],
            recurrence_gate: &self.gates[1][numbers],
            input_bias: &self.channels[0],
            recurrence_bias: &self.channels[1],
            decay: &self.channels[2],
            start,
            state,
            out: &mut out,
        });
        out
    }
}

#[test]
fn the_scan_agrees_with_the_oracle_and_goes_on_from_any_row() {
    let mut random = Random::new(17);
    for (width, n, start) in [(1, 1, 0), (48, 7, 0), (60, 40, 3), (200, 129, 0), (16, 1, 9)] {
        let case = Recurrence::new(&mut random, width, n);
        let mut want_state = case.state.clone();
        let want = case.run(&Reference, 0..n, start, &mut want_state);
        for cpu in backends() {
            let what = format!("{n}x{width} from {start}, {:?}", cpu.level());
            let mut state = case.state.clone();
            let got = case.run(&cpu, 0..n, start, &mut state);
            assert_close(&got, &want, 3e-6, &what);
            assert_eq!(state, got[(n - 1) * width..], "{what}: the state is the last row");
            let cut = random.below(n);
            let mut state = case.state.clone();
            let mut parts = case.run(&cpu, 0..cut, start, &mut state);
            parts.extend(case.run(&cpu, cut..n, start + cut, &mut state));
            assert_eq!(parts, got, "{what}, cut at {cut}");
        }
    }
}

#[test]
fn slow_channels_keep_their_precision() {
    // a = 1 - 4e-5: in f32 `1 - a^2` computed as it stands would be off by a thousandth.
    let mut random = Random::new(18);
    let mut case = Recurrence::new(&mut random, 16, 1);
    case.channels[2] = vec![-8e-5; 16];
    case.state = vec![0.0; 16];
    let want = case.run(&Reference, 0..1, 5, &mut case.state.clone());
    for cpu in backends() {
        let got = case.run(&cpu, 0..1, 5, &mut case.state.clone());
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 3e-6 * w.abs(), "{g} is not {w} at {:?}", cpu.level());
        }
    }
}

#[test]
fn the_convolution_agrees_with_the_oracle_and_goes_on_from_any_row() {
    let mut random = Random::new(19);
    for (width, taps, n) in [(1, 4, 1), (48, 4, 9), (60, 2, 2), (200, 4, 50), (33, 1, 3)] {
        let (x, carried) = (random.numbers(n * width), random.numbers((taps - 1) * width));
        let (weight, bias) = (random.numbers(taps * width), random.numbers(width));
        let conv = |ops: &dyn Ops, x: &[f32], carried: &[f32]| {
            let mut out = vec![f32::NAN; x.len()];
            ops.causal_conv(CausalConv { x, carried, weight: &weight, bias: &bias, out: &mut out });
            out
        };
        let want = conv(&Reference, &x, &carried);
        for cpu in backends() {
            let what = format!("{n}x{width}, {taps} taps, {:?}", cpu.level());
            let got = conv(&cpu, &x, &carried);
            assert_close(&got, &want, 2e-6, &what);
            let cut = random.below(n) * width;
            let seen = [&carried[..], &x[..cut]].concat();
            let behind = conv(&cpu, &x[cut..], &seen[seen.len() - (taps - 1) * width..]);
            assert_eq!(behind, got[cut..], "{what}, cut at {cut}");
        }
    }
}
