//! How weights are stored: plain numbers and GGUF's quantised blocks.

use half::f16;

use crate::ops::ShapeError;

/// A storage format of weights. Quantised ones store rows as blocks of [`Format::block_len`] numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Format {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits, scale f16, blocks of 32.
    Q8_0,
    /// 4 bits, scale f16, blocks of 32.
    Q4_0,
    /// 4 bits, scale and minimum f16, blocks of 32.
    Q4_1,
    /// 5 bits, scale f16, blocks of 32.
    Q5_0,
    /// 5 bits, scale and minimum f16, blocks of 32.
    Q5_1,
    /// 4 bits, 6-bit scales and minimums per 32, blocks of 256.
    Q4_K,
    /// 5 bits, 6-bit scales and minimums per 32, blocks of 256.
    Q5_K,
    /// 6 bits, 8-bit scales per 16, blocks of 256.
    Q6_K,
}

impl Format {
    /// Numbers in a block; a row's length is a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `len` numbers, or `None` if `len` is no multiple of the block's length or the
    /// product overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

/// Numbers of one block of 32 or 256 as GGUF defines them: `value = scale * q - minimum`.
fn block(format: Format, b: &[u8], out: &mut [f32]) {
    let half = |i: usize| f16::from_le_bytes([b[i], b[i + 1]]).to_f32();
    match format {
        Format::F32 => out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Format::F16 => out[0] = half(0),
        Format::BF16 => out[0] = half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        _ => {
            let mut q = [0i8; 256];
            quants(format, b, &mut q);
            for (i, o) in out.iter_mut().enumerate() {
                let (scale, minimum) = scales(format, b, i);
                *o = scale * f32::from(q[i]) - minimum;
            }
        }
    }
}

/// Signed quants of a block, centred where the format has no minimum: `0..16` for Q4_1 and Q4_K,
/// `-8..8` for Q4_0, and so on. Fills the first [`Format::block_len`] of `q`.
pub fn quants(format: Format, b: &[u8], q: &mut [i8; 256]) {
    let nibbles = |q: &mut [i8; 256], bytes: &[u8], at: usize| {
        for (i, &byte) in bytes.iter().enumerate() {
            q[at + i] = (byte & 15) as i8;
            q[at + bytes.len() + i] = (byte >> 4) as i8;
        }
    };
    let fifth_bits = |q: &mut [i8; 256], at: usize| {
        let bits = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        for (i, q) in q[..32].iter_mut().enumerate() {
            *q |= ((bits >> i & 1) << 4) as i8;
        }
    };
    let centre = |q: &mut [i8; 256], by: i8| q.iter_mut().for_each(|q| *q -= by);
    match format {
        Format::F32 | Format::F16 | Format::BF16 => {}
        Format::Q8_0 => q.iter_mut().zip(&b[2..34]).for_each(|(q, &b)| *q = b as i8),
        Format::Q4_0 => {
            nibbles(q, &b[2..18], 0);
            centre(q, 8);
        }
        Format::Q4_1 => nibbles(q, &b[4..20], 0),
        Format::Q5_0 => {
            nibbles(q, &b[6..22], 0);
            fifth_bits(q, 2);
            centre(q, 16);
        }
        Format::Q5_1 => {
            nibbles(q, &b[8..24], 0);
            fifth_bits(q, 4);
        }
        Format::Q4_K => (0..4).for_each(|i| nibbles(q, &b[16 + 32 * i..48 + 32 * i], 64 * i)),
        Format::Q5_K => {
            (0..4).for_each(|i| nibbles(q, &b[48 + 32 * i..80 + 32 * i], 64 * i));
            for (i, q) in q.iter_mut().enumerate() {
                *q |= ((b[16 + i % 32] >> (i / 32) & 1) << 4) as i8;
            }
        }
        Format::Q6_K => {
            for (i, q) in q.iter_mut().enumerate() {
                let (half, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
                let low = b[64 * half + 32 * (quarter % 2) + lane] >> (4 * (quarter / 2)) & 15;
                let high = b[128 + 32 * half + lane] >> (2 * quarter) & 3;
                *q = (low | high << 4) as i8 - 32;
            }
        }
    }
}

/// Scale and minimum of number `i` of a quantised block.
pub fn scales(format: Format, b: &[u8], i: usize) -> (f32, f32) {
    let half = |i: usize| f16::from_le_bytes([b[i], b[i + 1]]).to_f32();
    match format {
        Format::F32 | Format::F16 | Format::BF16 => (1.0, 0.0),
        Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => (half(0), 0.0),
        // These two store the minimum with the opposite sign of the K formats.
        Format::Q4_1 | Format::Q5_1 => (half(0), -half(2)),
        Format::Q4_K | Format::Q5_K => {
            let (scale, minimum) = six_bit_scales(&b[4..16], i / 32);
            (half(0) * f32::from(scale), half(2) * f32::from(minimum))
        }
        Format::Q6_K => (half(208) * f32::from(b[192 + i / 16] as i8), 0.0),
    }
}

/// Scale and minimum `j < 8` of the twelve bytes that hold eight of each in 6 bits.
pub fn six_bit_scales(b: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (b[j] & 63, b[j + 4] & 63)
    } else {
        (b[j + 4] & 15 | (b[j - 4] >> 6) << 4, b[j + 4] >> 4 | (b[j] >> 6) << 4)
    }
}

/// All numbers of a matrix, row by row.
pub fn dequantize(format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Vec<f32>, ShapeError> {
    check(format, rows, cols, bytes)?;
    let mut out = vec![0.0; rows * cols];
    let blocks = bytes.chunks_exact(format.block_bytes());
    for (numbers, bytes) in out.chunks_exact_mut(format.block_len()).zip(blocks) {
        block(format, bytes, numbers);
    }
    Ok(out)
}

/// Checks that `bytes` are exactly a `rows x cols` matrix.
pub fn check(format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<(), ShapeError> {
    let expected = format.row_bytes(cols).and_then(|row| row.checked_mul(rows));
    if expected == Some(bytes.len()) {
        Ok(())
    } else {
        Err(ShapeError { format, rows, cols, bytes: bytes.len() })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::testing::Random;

    #[test]
    fn every_quantised_format_reads_as_an_independent_reader_reads_it() {
        let formats = [
            (Format::Q8_0, GgmlDType::Q8_0),
            (Format::Q4_0, GgmlDType::Q4_0),
            (Format::Q4_1, GgmlDType::Q4_1),
            (Format::Q5_0, GgmlDType::Q5_0),
            (Format::Q5_1, GgmlDType::Q5_1),
            (Format::Q4_K, GgmlDType::Q4K),
            (Format::Q5_K, GgmlDType::Q5K),
            (Format::Q6_K, GgmlDType::Q6K),
        ];
        let numbers = Random::new(5).numbers(3 * 512);
        let tensor = Tensor::from_vec(numbers, (3, 512), &Device::Cpu).unwrap();
        for (format, theirs) in formats {
            let quantized = QTensor::quantize(&tensor, theirs).unwrap();
            let want = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let got = dequantize(format, 3, 512, &quantized.data().unwrap()).unwrap();
            for (got, want) in got.iter().zip(want.to_vec1::<f32>().unwrap()) {
                assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{format:?}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn sizes_are_checked_without_overflow() {
        assert_eq!(Format::Q4_K.row_bytes(512), Some(288));
        assert_eq!(Format::Q4_K.row_bytes(100), None);
        assert!(check(Format::F32, usize::MAX, usize::MAX, &[]).is_err());
    }
}
