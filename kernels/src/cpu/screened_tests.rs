//! What is found without reading a table is what reading it finds.

use half::f16;

use super::super::Cpu;
use super::*;
use crate::Reference;
use crate::ops::Ops;
use crate::quant::dequantize;
use crate::testing::Random;

/// A block of Q8_0.
const BLOCK_BYTES: usize = 34;

fn backends() -> Vec<Cpu> {
    Level::available().into_iter().flat_map(|level| [1, 3].map(|threads| Cpu::new(threads, level))).collect()
}

/// All products of a row, in full.
fn products(ops: &dyn Ops, matrix: &Matrix, x: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * matrix.rows()];
    ops.project(x, n, Activation::Rounded, &mut [Projection::new(matrix, &mut out)]);
    out
}

fn first_products(ops: &dyn Ops, table: &Matrix, x: &[f32]) -> Vec<f32> {
    products(ops, table.upper().expect("it is screened"), x, 1)
}

fn bits(tokens: &[(u32, f32)]) -> Vec<(u32, u32)> {
    tokens.iter().map(|&(id, output)| (id, output.to_bits())).collect()
}

/// The greatest by looking at all of them.
fn sorted(outputs: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut tokens: Vec<_> =
        (0..).zip(outputs.iter().copied()).filter(|(_, output)| !output.is_nan()).collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
    tokens.truncate(count);
    tokens
}

/// A table whose rows are of very different sizes, as those of a vocabulary that was trained, some of them equal.
fn uneven(random: &mut Random, rows: usize, cols: usize) -> Vec<u8> {
    let mut bytes = random.matrix(Format::Q8_0, rows, cols);
    let row_bytes = bytes.len() / rows;
    for row in bytes.chunks_exact_mut(row_bytes) {
        let size = random.number().powi(4);
        for block in row.chunks_exact_mut(BLOCK_BYTES) {
            let scale = f16::from_f32(size * (0.02 + 0.01 * random.number()));
            block[..2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    for row in (7..rows).step_by(31) {
        bytes.copy_within((row - 7) * row_bytes..(row - 6) * row_bytes, row * row_bytes);
    }
    bytes
}

#[test]
fn the_greatest_are_those_of_the_whole_table_bit_for_bit() {
    let mut random = Random::new(31);
    for (rows, cols) in [(1, 32), (16, 64), (50, 640), (333, 96), (5000, 256)] {
        let bytes = uneven(&mut random, rows, cols);
        for cpu in backends() {
            let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
            for _ in 0..4 {
                let x = random.numbers(cols);
                let all = products(&cpu, &table, &x, 1);
                let first = first_products(&cpu, &table, &x);
                for count in [0, 1, 2, 64, rows, rows + 1] {
                    let found = cpu.best(&x, &table, &first, count, None);
                    let what = format!("{count} of {rows}x{cols} at {:?}", cpu.level());
                    assert_eq!(bits(&found), bits(&sorted(&all, count)), "{what}");
                }
                let among: Vec<u32> = (0..rows as u32).filter(|_| random.below(3) == 0).collect();
                let only: Vec<_> =
                    sorted(&all, rows).into_iter().filter(|(id, _)| among.contains(id)).collect();
                for count in [0, 1, 5, rows] {
                    let found = cpu.best(&x, &table, &first, count, Some(&among));
                    let what = format!("{count} of {} at {:?}", among.len(), cpu.level());
                    assert_eq!(bits(&found), bits(&only[..count.min(only.len())]), "{what}");
                }
                let mut finished = first.clone();
                cpu.finish(&x, &table, &mut finished);
                assert_eq!(finished, all, "finished");
            }
        }
    }
}

/// Rests that all point where the input does are the worst that the bound allows: the greatest by the upper bits is
/// then another row than the greatest.
#[test]
fn a_rest_that_decides_is_found() {
    let cols = 64;
    let mut random = Random::new(32);
    for cpu in backends() {
        for decisive in [0usize, 17, 99] {
            let x = random.numbers(cols);
            // Upper parts of 3 along the input, the rest of most rows against it; of one row along it, and one number of
            // its upper parts in a block is less.
            let mut bytes = Vec::new();
            for row in 0..100 {
                for block in x.chunks_exact(BLOCK) {
                    bytes.extend(f16::from_f32(0.01).to_le_bytes());
                    let along = |v: &f32| if *v < 0.0 { -1i8 } else { 1 };
                    let size = |i| match (row == decisive, i) {
                        (true, 0) => 19,
                        (true, _) => 27,
                        (false, _) => 21,
                    };
                    bytes.extend(block.iter().enumerate().map(|(i, v)| (along(v) * size(i)) as u8));
                }
            }
            let table = cpu.table(Format::Q8_0, 100, cols, &bytes).unwrap();
            let first = first_products(&cpu, &table, &x);
            let all = products(&cpu, &table, &x, 1);
            assert_eq!(sorted(&all, 1)[0].0, decisive as u32, "as it was made");
            let most = sorted(&first, 1)[0].1;
            assert!(first[decisive] < most, "the others are the best by what is computed first");
            let ids: Vec<u32> = (0..100).collect();
            for among in [None, Some(&ids[..])] {
                let found = cpu.best(&x, &table, &first, 1, among);
                assert_eq!(bits(&found), bits(&sorted(&all, 1)), "{:?}", cpu.level());
            }
        }
    }
}

/// The bound is one: no second product is beyond it, and some come near.
#[test]
fn no_rest_adds_more_than_its_bound() {
    let (rows, cols) = (400, 64);
    let mut random = Random::new(33);
    let bytes = uneven(&mut random, rows, cols);
    for cpu in backends() {
        let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
        let screened = super::super::screened(&table);
        let rests = dequantize(Format::Q8_0, rows, cols, &bytes).unwrap();
        let mut upper = vec![0.0; cols];
        let mut nearest = 0.0f32;
        for row in 0..rows {
            // Along the row's own rest.
            matmul::packed(&screened.upper).row(row, &mut upper);
            let x: Vec<f32> =
                rests[row * cols..][..cols].iter().zip(&upper).map(|(all, upper)| all - upper).collect();
            let first = first_products(&cpu, &table, &x);
            let all = products(&cpu, &table, &x, 1);
            let quantized = Quantized::of(&cpu.pool, cpu.level(), &x, 1);
            let bounds = screened.bounds(&cpu.pool, cpu.level(), &quantized, &first);
            for (panel, all) in all.chunks(LANES).enumerate() {
                assert!(all.iter().all(|&output| output <= bounds[panel].most), "row {row}, panel {panel}");
            }
            let length = screened.lengths[row];
            if length > 0.0 {
                nearest = nearest.max((all[row] - first[row]) / (length * length));
            }
        }
        assert!((0.99..1.01).contains(&nearest), "{nearest} of the bound is reached at {:?}", cpu.level());
    }
}

/// Where a few rows stand out, little else is read.
#[test]
fn most_of_a_table_is_left_unread_where_few_rows_stand_out() {
    let (rows, cols) = (20_000, 256);
    let mut random = Random::new(34);
    let mut bytes = random.matrix(Format::Q8_0, rows, cols);
    let x = random.numbers(cols);
    let row_bytes = bytes.len() / rows;
    for row in [3, 11_111, 19_999] {
        for (block, x) in
            bytes[row * row_bytes..][..row_bytes].chunks_exact_mut(BLOCK_BYTES).zip(x.chunks_exact(BLOCK))
        {
            block[2..].iter_mut().zip(x).for_each(|(q, x)| *q = (x * 120.0) as i8 as u8);
        }
    }
    let cpu = Cpu::new(2, Level::Amx);
    let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
    let first = first_products(&cpu, &table, &x);
    let found = super::super::screened(&table).find(&cpu.pool, cpu.level(), &x, &first, (1, None));
    assert!([3, 11_111, 19_999].contains(&found.tokens[0].0), "{:?}", found.tokens);
    assert!(found.panels < 100, "{} of {} panels", found.panels, rows.div_ceil(LANES));
}

#[test]
fn what_is_not_a_number_is_left_out() {
    let (rows, cols) = (40, 32);
    let mut random = Random::new(35);
    let bytes = random.matrix(Format::Q8_0, rows, cols);
    for cpu in backends() {
        let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
        let x = random.numbers(cols);
        let mut first = first_products(&cpu, &table, &x);
        let all = products(&cpu, &table, &x, 1);
        let best = sorted(&all, 1)[0].0 as usize;
        first[best] = f32::NAN;
        let found = cpu.best(&x, &table, &first, rows, None);
        assert_eq!(bits(&found), bits(&sorted(&all, rows)[1..]), "{:?}", cpu.level());
        assert_eq!(cpu.best(&[f32::NAN; 32], &table, &[f32::NAN; 40], 3, None), []);
    }
}

#[test]
fn rows_of_a_screened_table_are_the_file_s() {
    let (rows, cols) = (37, 96);
    let mut random = Random::new(36);
    let mut bytes = uneven(&mut random, rows, cols);
    // The ends of what a quant can be.
    bytes[2..34].copy_from_slice(&[128, 129, 127, 126, 124, 123, 120, 119].repeat(4));
    let cpu = Cpu::new(2, Level::Amx);
    let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
    let mut got = vec![0.0; rows * cols];
    let ids: Vec<u32> = (0..rows as u32).collect();
    cpu.embed(&table, &ids, 1.0, &mut got);
    assert_eq!(got, dequantize(Format::Q8_0, rows, cols, &bytes).unwrap());
}

#[test]
fn products_with_a_screened_table_agree_with_the_oracle_whatever_the_rows() {
    let (rows, cols) = (90, 320);
    let mut random = Random::new(37);
    let bytes = random.matrix(Format::Q8_0, rows, cols);
    let oracle = Reference.matrix(Format::Q8_0, rows, cols, &bytes).unwrap();
    let x = random.numbers(40 * cols);
    let want = products(&Reference, &oracle, &x, 40);
    let mut at_one_level: Option<Vec<f32>> = None;
    for cpu in backends() {
        let table = cpu.table(Format::Q8_0, rows, cols, &bytes).unwrap();
        let few = products(&cpu, &table, &x[..FEW_ROWS * cols], FEW_ROWS);
        for (t, row) in few.chunks_exact(rows).enumerate() {
            let x = &x[t * cols..(t + 1) * cols];
            assert_eq!(row, products(&cpu, &table, x, 1), "row {t} alone at {:?}", cpu.level());
            let mut part = vec![0.0; 58];
            cpu.project_part(x, Activation::Rounded, Projection::new(&table, &mut part), 32..90);
            assert_eq!(part, row[32..], "a part of row {t} at {:?}", cpu.level());
        }
        if cpu.level() != Level::Portable {
            let same = at_one_level.get_or_insert_with(|| few.clone());
            assert_eq!(*same, few, "at {:?}", cpu.level());
        }
        let many = products(&cpu, &table, &x, 40);
        let worst = many.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Rounded to 8 bits: of numbers up to 1, weights up to 1.4 and 320 columns; or to bf16.
        assert!(worst < 0.1 * (cols as f32).sqrt() * 1.4 / 20.0 + 0.2, "{worst} at {:?}", cpu.level());
    }
}

#[test]
fn tables_that_it_does_not_pay_for_are_matrices() {
    let cpu = Cpu::new(1, Level::Amx);
    let mut random = Random::new(38);
    for (format, cols) in [(Format::Q4_0, 64), (Format::BF16, 64), (Format::Q8_0, MOST_INPUTS + 32)] {
        let bytes = random.matrix(format, 20, cols);
        assert!(cpu.table(format, 20, cols, &bytes).unwrap().upper().is_none(), "{format:?} of {cols}");
    }
    // Eight times the greatest f16 is none.
    let mut bytes = random.matrix(Format::Q8_0, 20, 64);
    bytes[34..36].copy_from_slice(&f16::from_f32(9000.0).to_le_bytes());
    assert!(cpu.table(Format::Q8_0, 20, 64, &bytes).unwrap().upper().is_none(), "a great scale");
    assert!(cpu.table(Format::Q8_0, 20, 64, &bytes[1..]).is_err(), "too short");
}
