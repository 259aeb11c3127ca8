//! Random weights and activations for tests of kernels; not for use elsewhere.

use crate::quant::Format;
use half::{bf16, f16};

/// All formats.
pub const FORMATS: [Format; 11] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
];

/// A small generator (xorshift64*), the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }

    /// Uniform in -1..1.
    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }

    /// Bytes of a matrix: any quants, scales of a sensible size.
    pub fn matrix(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let blocks = rows * cols / format.block_len();
        let mut bytes = Vec::with_capacity(blocks * format.block_bytes());
        for _ in 0..blocks {
            let start = bytes.len();
            bytes.extend((0..format.block_bytes()).map(|_| self.bits() as u8));
            let number = self.number();
            let scale = f16::from_f32(0.001 + 0.01 * number.abs()).to_le_bytes();
            let block = &mut bytes[start..];
            match format {
                Format::F32 => block.copy_from_slice(&number.to_le_bytes()),
                Format::F16 => block.copy_from_slice(&f16::from_f32(number).to_le_bytes()),
                Format::BF16 => block.copy_from_slice(&bf16::from_f32(number).to_le_bytes()),
                Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => block[0..2].copy_from_slice(&scale),
                Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => {
                    block[0..2].copy_from_slice(&scale);
                    block[2..4].copy_from_slice(&scale);
                }
                Format::Q6_K => block[208..210].copy_from_slice(&scale),
            }
        }
        bytes
    }
}
