//! Weights on a device, in the order in which the lanes of a warp read them; `kernels/cuda/format.cuh` states it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use thiserror::Error;

use super::repack::{group_bytes, head_bytes, repack_row};
use super::{Address, Buffer, CudaError, Device};
use crate::ops::ShapeError;
use crate::quant::{Format, check};

/// Outputs of a row of groups.
pub(crate) const GROUP_OUTPUTS: usize = 16;
/// Inputs of a group.
pub(crate) const GROUP_INPUTS: usize = 64;
/// Most parts of a matrix.
pub(crate) const MOST_PARTS: usize = 3;
/// About so many bytes are repacked and uploaded at a time.
const PIECE_BYTES: usize = 8 << 20;
/// Where a part begins: a multiple of what a memory transaction takes.
const ALIGNMENT: usize = 256;

/// Outputs of a matrix that share a format.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// How the bytes are stored.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Row by row, as in a file.
    pub bytes: &'a [u8],
}

/// What the parts of a matrix are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Their outputs follow each other.
    Stacked,
    /// The gate and the up projection of a gated feed-forward layer: two parts with as many outputs each, of which
    /// output i of one and output i of the other are computed side by side.
    GateUp,
}

/// Why there is no matrix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// The bytes do not fit the shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The device did not take it.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// A weight matrix on a device.
#[derive(Debug)]
pub struct DeviceMatrix {
    buffer: Buffer,
    cols: usize,
    arrangement: Arrangement,
    exact: bool,
    parts: Vec<Placed>,
}

/// A part on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    /// How it is stored there; F16 never.
    pub format: Format,
    /// Outputs.
    pub rows: usize,
    /// Bytes from the matrix's beginning.
    offset: usize,
    row_bytes: usize,
}

impl Placed {
    /// Rows of groups.
    pub fn group_rows(&self) -> usize {
        self.rows.div_ceil(GROUP_OUTPUTS)
    }

    /// The format's number in `WeightFormat`.
    pub fn code(&self) -> i32 {
        match self.format {
            Format::F32 => 0,
            Format::F16 | Format::BF16 => 1,
            Format::Q8_0 => 2,
            Format::Q4_0 => 3,
            Format::Q4_1 => 4,
            Format::Q5_0 => 5,
            Format::Q5_1 => 6,
            Format::Q4_K => 7,
            Format::Q5_K => 8,
            Format::Q6_K => 9,
        }
    }
}

impl DeviceMatrix {
    /// Brings a matrix `[sum of the parts' rows, cols]` to a device, repacked on all of this machine's processors.
    ///
    /// An exact matrix holds every weight as it is, for products in f32. Otherwise plain numbers are rounded to bf16,
    /// which activations are, too; quantised ones are kept in both cases.
    ///
    /// Panics with more than three parts, or with [`Arrangement::GateUp`] and not two of as many rows.
    pub fn new(
        device: &Device,
        parts: &[Part<'_>],
        cols: usize,
        arrangement: Arrangement,
        exact: bool,
    ) -> Result<Self, MatrixError> {
        assert!((1..=MOST_PARTS).contains(&parts.len()), "one to three parts");
        if arrangement == Arrangement::GateUp {
            assert!(parts.len() == 2 && parts[0].rows == parts[1].rows, "gate and up");
        }
        let mut placed = Vec::with_capacity(parts.len());
        let mut bytes = 0usize;
        for part in parts {
            check(part.format, part.rows, cols, part.bytes)?;
            let format = stored(part.format, exact);
            let row_bytes = row_bytes(format, cols);
            let one = Placed { format, rows: part.rows, offset: bytes, row_bytes };
            bytes = (bytes + one.group_rows() * row_bytes).next_multiple_of(ALIGNMENT);
            placed.push(one);
        }
        let mut buffer = device.buffer(bytes)?;
        for (part, placed) in parts.iter().zip(&placed) {
            bring(&mut buffer, part, placed, cols)?;
        }
        Ok(Self { buffer, cols, arrangement, exact, parts: placed })
    }

    /// Outputs of all parts together.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }
    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }
    /// Whether products with it are computed in f32.
    pub fn exact(&self) -> bool {
        self.exact
    }
    /// What its parts are to each other.
    pub fn arrangement(&self) -> Arrangement {
        self.arrangement
    }
    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }
    /// Its parts.
    pub(crate) fn parts(&self) -> &[Placed] {
        &self.parts
    }
    /// Where a part begins.
    pub(crate) fn address(&self, part: &Placed) -> Address {
        self.buffer.address() + part.offset as u64
    }
    /// Groups along the inputs.
    pub(crate) fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP_INPUTS)
    }
}

/// How a format is stored on the device.
fn stored(format: Format, exact: bool) -> Format {
    match format {
        Format::F32 | Format::F16 if exact => Format::F32,
        Format::F32 | Format::F16 => Format::BF16,
        other => other,
    }
}

/// Bytes of a row of groups. Where there are heads, the inputs are a multiple of 256, which [`check`] saw to.
fn row_bytes(format: Format, cols: usize) -> usize {
    let groups = cols.div_ceil(GROUP_INPUTS);
    groups * group_bytes(format) + groups / 4 * head_bytes(format)
}

/// Repacks a part on several threads and uploads it piece by piece, so that neither waits for the other and little
/// memory is used for it.
fn bring(buffer: &mut Buffer, part: &Part<'_>, placed: &Placed, cols: usize) -> Result<(), CudaError> {
    let rows = placed.group_rows();
    let at_a_time = (PIECE_BYTES / placed.row_bytes.max(1)).max(1);
    let pieces = rows.div_ceil(at_a_time);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(pieces);
    if threads <= 1 {
        return buffer.upload(placed.offset, &repacked(part, placed, cols, 0..rows));
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(threads);
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    let range = piece * at_a_time..rows.min((piece + 1) * at_a_time);
                    // A receiver that is gone has met an error.
                    if piece >= pieces || sender.send((piece, repacked(part, placed, cols, range))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        upload_pieces(buffer, placed.offset, at_a_time * placed.row_bytes, receiver)
    })
}

/// Uploads pieces as they come. Takes the receiver, so that after an error the threads that repack end too.
fn upload_pieces(
    buffer: &mut Buffer,
    offset: usize,
    piece_bytes: usize,
    receiver: Receiver<(usize, Vec<u8>)>,
) -> Result<(), CudaError> {
    receiver.into_iter().try_for_each(|(piece, bytes)| buffer.upload(offset + piece * piece_bytes, &bytes))
}

/// Some rows of groups.
fn repacked(part: &Part<'_>, placed: &Placed, cols: usize, group_rows: Range<usize>) -> Vec<u8> {
    let source_row = part.bytes.len() / part.rows.max(1);
    let mut out = vec![0; group_rows.len() * placed.row_bytes];
    for (group_row, out) in group_rows.zip(out.chunks_exact_mut(placed.row_bytes)) {
        let first = group_row * GROUP_OUTPUTS;
        let rows: Vec<&[u8]> = (first..part.rows.min(first + GROUP_OUTPUTS))
            .map(|row| &part.bytes[row * source_row..(row + 1) * source_row])
            .collect();
        repack_row(part.format, placed.format, &rows, cols, out);
    }
    out
}
