//! What two thin matrices add to the products of a large one (Hu et al. 2021, "LoRA"): `(x * down^T) * up^T`, computed
//! beside it, so that the large one keeps its bits and its format.
//!
//! Few rows: [`DeviceLowRank::few`] gives what is added, bias and all, and [`few`](super::few::few) takes that for its bias.
//! Many rows: [`DeviceLowRank::many`] gives `x * down^T`, and [`many`](super::many::many()) multiplies with `up` on the way.

use super::few::{Input, Output, few};
use super::many::{Many, ManyOutput, many};
use super::{Arrangement, Buffer, CudaError, Device, DeviceMatrix, MatrixError, Part, Strided};
use crate::quant::Format;

/// What comes to a part of the large matrix's outputs.
#[derive(Debug, Clone, Copy)]
pub struct LowRankPart<'a> {
    /// Outputs.
    pub rows: usize,
    /// `None` where nothing is added.
    pub factors: Option<Factors<'a>>,
}

/// A product of low rank; of any rank from 1 on.
#[derive(Debug, Clone, Copy)]
pub struct Factors<'a> {
    /// `[rank, cols]`.
    pub down: &'a [f32],
    /// `[rows, rank]`.
    pub up: &'a [f32],
}

/// Low-rank products of all parts of a matrix.
#[derive(Debug)]
pub struct DeviceLowRank {
    /// The parts' below each other, zeros behind them: `[rank, cols]`.
    down: DeviceMatrix,
    /// The parts' on a diagonal, zeros beside them: `[rows, rank]`.
    up: DeviceMatrix,
}

impl DeviceLowRank {
    /// Brings factors to a device, for a matrix with these parts in this order, `cols` inputs, and the same `exact`.
    ///
    /// Panics with more than three parts, without factors in any, or with factors whose lengths do not fit.
    pub fn new(
        device: &Device,
        parts: &[LowRankPart<'_>],
        cols: usize,
        exact: bool,
    ) -> Result<Self, MatrixError> {
        let rank = |part: &LowRankPart<'_>| part.factors.map_or(0, |factors| factors.down.len() / cols);
        // Activations are read in whole 16 bytes.
        let sum = parts.iter().map(rank).sum::<usize>().next_multiple_of(8);
        assert!(sum > 0, "a part has factors");
        let (mut down, mut up) = (Vec::with_capacity(sum * cols), Vec::with_capacity(parts.len()));
        let mut before = 0;
        for part in parts {
            let mut wide = vec![0.0; part.rows * sum];
            if let Some(factors) = part.factors {
                let rank = rank(part);
                let fit = factors.down.len() == rank * cols && factors.up.len() == part.rows * rank;
                assert!(fit && rank > 0, "factors of {} x {cols} by a rank", part.rows);
                down.extend_from_slice(factors.down);
                for (to, from) in wide.chunks_exact_mut(sum).zip(factors.up.chunks_exact(rank)) {
                    to[before..before + rank].copy_from_slice(from);
                }
                before += rank;
            }
            up.push(bytes(&wide));
        }
        down.resize(sum * cols, 0.0);
        let down = bytes(&down);
        let down = [Part { format: Format::F32, rows: sum, bytes: &down }];
        let up: Vec<_> = parts
            .iter()
            .zip(&up)
            .map(|(part, bytes)| Part { format: Format::F32, rows: part.rows, bytes })
            .collect();
        let matrix = |parts, cols| DeviceMatrix::new(device, parts, cols, Arrangement::Stacked, exact);
        Ok(Self { down: matrix(&down, cols)?, up: matrix(&up, sum)? })
    }

    /// Numbers of a row between the two products: the ranks of all parts together, and zeros up to a multiple of 8.
    pub fn rank(&self) -> usize {
        self.down.rows()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.down.bytes() + self.up.bytes()
    }

    /// `[rows, rank]`.
    pub(crate) fn up(&self) -> &DeviceMatrix {
        &self.up
    }

    /// `out = (input * down^T) * up^T + bias`, f32 `[n, rows]`, of as many rows as [`few`] takes. `between` gets the
    /// activation numbers `[n, rank]`, `bias` is f32 `[rows]`.
    pub fn few(
        &self,
        n: usize,
        input: Input<'_>,
        bias: Option<&Buffer>,
        between: &Buffer,
        out: &Buffer,
    ) -> Result<(), CudaError> {
        few(&self.down, n, input, None, Output::Rounded(between))?;
        few(&self.up, n, Input::Plain(between), bias.map(Strided::repeated), Output::Numbers(out))
    }

    /// `between = x * down^T`, bf16 `[n, rank]`, for [`Many::low_rank`]; `x` and `scratch` as there.
    pub fn many(
        &self,
        n: usize,
        x: Strided<'_>,
        between: &Buffer,
        scratch: &Buffer,
    ) -> Result<(), CudaError> {
        let output = ManyOutput::Rounded(Strided::whole(between, self.rank()));
        many(&Many { matrix: &self.down, diagonal: 1, n, x, bias: None, low_rank: None, output, scratch })
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
