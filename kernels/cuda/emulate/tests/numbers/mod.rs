//! Activation numbers on a device, and how far two lists of numbers stand apart.

#![allow(clippy::unwrap_used, reason = "a test may stop where its device fails")]

use gemma_kernels::cuda::{Buffer, Device};
use half::bf16;

/// The nearest numbers in bf16.
pub fn rounded(numbers: &[f32]) -> Vec<f32> {
    numbers.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Activation numbers on a device: f32 where it is exact, else bf16.
pub fn activations(device: &Device, numbers: &[f32], exact: bool) -> Buffer {
    if exact {
        return device.numbers(numbers).unwrap();
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    device.buffer_of(&bytes).unwrap()
}

/// All numbers of a buffer of activation numbers.
pub fn read_activations(buffer: &Buffer, exact: bool) -> Vec<f32> {
    if exact {
        return buffer.read_numbers(0, buffer.bytes() / 4).unwrap();
    }
    let mut bytes = vec![0; buffer.bytes()];
    buffer.download(0, &mut bytes).unwrap();
    bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// The greatest difference, as a part of the greatest number.
pub fn error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    worst.fold(0.0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x) }) / size
}
