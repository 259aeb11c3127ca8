//! The quantisers against those of another implementation, and against what reads their blocks.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::quant::dequantize;
use crate::testing::Random;

const FORMATS: [(Format, GgmlDType); 6] = [
    (Format::Q8_0, GgmlDType::Q8_0),
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q4_K, GgmlDType::Q4K),
    (Format::Q5_K, GgmlDType::Q5K),
    (Format::Q6_K, GgmlDType::Q6K),
];

/// Near enough to a normal distribution: sums of twelve even ones.
fn gaussian(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| 0.02 * random.numbers(12).iter().sum::<f32>()).collect()
}

fn mean_squared_error(format: Format, numbers: &[f32], bytes: &[u8]) -> f64 {
    let back = dequantize(format, 1, numbers.len(), bytes).unwrap();
    let squares = back.iter().zip(numbers).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>() / numbers.len() as f64
}

/// Ours over theirs, on the same numbers.
fn against_candle(format: Format, theirs: GgmlDType, numbers: &[f32]) -> f64 {
    let tensor = Tensor::from_vec(numbers.to_vec(), (1, numbers.len()), &Device::Cpu).unwrap();
    let theirs = QTensor::quantize(&tensor, theirs).unwrap();
    let ours = quantize(format, numbers.len(), numbers).unwrap();
    mean_squared_error(format, numbers, &ours) / mean_squared_error(format, numbers, &theirs.data().unwrap())
}

#[test]
fn the_error_is_no_larger_than_another_implementations() {
    let mut random = Random::new(11);
    let normal = gaussian(&mut random, 64 * 256);
    // A few numbers far outside of the rest, as trained weights have them; and all on one side.
    let outliers: Vec<f32> =
        normal.iter().enumerate().map(|(i, x)| if i % 97 == 0 { 12.0 * x } else { *x }).collect();
    let one_side: Vec<f32> = normal.iter().map(|x| x.abs() + 0.01).collect();
    for (format, theirs) in FORMATS {
        for (what, numbers) in [("normal", &normal), ("outliers", &outliers), ("one side", &one_side)] {
            let ratio = against_candle(format, theirs, numbers);
            println!("{format:?} {what}: {ratio:.3} of the other's mean squared error");
            assert!(ratio <= 1.0, "{format:?} {what}: {ratio}");
        }
    }
}

#[test]
fn what_the_format_can_say_comes_back_as_it_was() {
    let mut random = Random::new(12);
    for (format, _) in FORMATS {
        let bytes = random.matrix(format, 3, 512);
        let numbers = dequantize(format, 3, 512, &bytes).unwrap();
        // A block may be said in several ways; and a whole block need not use the ends of its range.
        let once = dequantize(format, 3, 512, &quantize(format, 512, &numbers).unwrap()).unwrap();
        let largest = numbers.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let worst = once.iter().zip(&numbers).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{format:?}: {:e} of the largest", worst / largest);
        assert!(worst <= 0.02 * largest, "{format:?}: {worst} of {largest}");
    }
}

#[test]
fn plain_formats_round_to_the_nearest() {
    let numbers = [1.0, -2.5, 1e-3, 70_000.0, 0.1];
    let back = |format| dequantize(format, 1, 5, &quantize(format, 5, &numbers).unwrap()).unwrap();
    assert_eq!(back(Format::F32), numbers);
    assert_eq!(back(Format::F16)[3], f16::MAX.to_f32());
    assert_eq!(back(Format::BF16)[4], bf16::from_f32(0.1).to_f32());
}

#[test]
fn zeros_constants_and_extremes_are_blocks_too() {
    let tiny = f32::MIN_POSITIVE;
    for (format, _) in FORMATS {
        for value in [0.0, 1.0, -3.0, tiny, 1e-9, 60_000.0, -1e30, f32::MAX] {
            let back = dequantize(format, 1, 256, &quantize(format, 256, &[value; 256]).unwrap()).unwrap();
            for got in back {
                assert!(got.is_finite(), "{format:?}: {value} became {got}");
                let normal = (1e-3..1e5).contains(&value.abs()) || value == 0.0;
                assert!(
                    !normal || (got - value).abs() <= 0.01 * value.abs(),
                    "{format:?}: {value} became {got}"
                );
            }
        }
    }
}

#[test]
fn every_level_gives_the_same_bits() {
    let numbers = gaussian(&mut Random::new(13), 8 * 256);
    for (format, _) in FORMATS {
        let detected = quantize(format, 512, &numbers).unwrap();
        let mut plain = vec![0; detected.len()];
        blocks(format, &numbers, &mut plain);
        assert!(plain == detected, "{format:?}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    assert!(quantize(Format::Q4_0, 33, &[0.0; 33]).is_err());
    assert!(quantize(Format::Q4_0, 32, &[0.0; 40]).is_err());
    assert!(quantize(Format::Q4_1, 32, &[0.0; 32]).is_err());
    assert!(quantize(Format::Q8_0, 32, &[]).unwrap().is_empty());
}
