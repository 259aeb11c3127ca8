//! Which state of the recurrent layers a pass goes on from and which it leaves behind, on the device: so that a
//! recorded step can be replayed from one buffer to another.

use std::sync::Arc;

use super::recurrent::FEW;
use super::{Address, Buffer, CudaError, Device};

/// The state behind the tokens so far, and those that a pass leaves behind some of its rows.
///
/// A state is a buffer of f32 numbers. In it each recurrent layer has, from an offset of its own on, the recurrence's
/// `[width]` and then the convolution's last inputs `[taps - 1, width]`, oldest first.
#[derive(Debug)]
pub struct States {
    buffer: Buffer,
    /// Numbers of a state.
    len: usize,
    most: usize,
    /// The row behind which the last state is left, and one more; 0 where none is.
    rows: usize,
    is_set: bool,
}

impl States {
    /// For states of `len` numbers, of which a pass leaves at most `most`.
    pub fn new(device: &Device, len: usize, most: usize) -> Result<Self, CudaError> {
        // A pass of few rows reads as many entries before it knows how many are set.
        let most = most.max(FEW);
        let buffer = device.buffer(8 * (1 + most) + 4 * (1 + most))?;
        Ok(Self { buffer, len, most, rows: 0, is_set: false })
    }

    /// Whether a pass may leave so many.
    pub fn holds(&self, kept: usize) -> bool {
        kept <= self.most
    }

    /// Sets what the next passes go on from, and the states to leave, each with the row that it stands behind, in
    /// ascending order. Where a sequence begins nothing is read of `from`. Panics if rows are not in order, if
    /// buffers have another size, or if one of them is `from` itself.
    pub fn set(&mut self, from: &Arc<Buffer>, kept: &[(usize, Arc<Buffer>)]) -> Result<(), CudaError> {
        assert!(self.holds(kept.len()), "room for {} states", kept.len());
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0), "rows in order");
        let to = kept.iter().map(|(_, buffer)| buffer);
        assert!(to.clone().all(|to| to.address() != from.address()), "a state is read while others are left");
        let held: Vec<_> = std::iter::once(from).chain(to).cloned().collect();
        assert!(held.iter().all(|state| state.bytes() == 4 * self.len), "states of {} numbers", self.len);
        let mut image: Vec<u8> = held.iter().flat_map(|state| state.address().to_le_bytes()).collect();
        image.resize(8 * (1 + self.most), 0);
        let ints = std::iter::once(kept.len()).chain(kept.iter().map(|(row, _)| *row));
        image.extend(ints.flat_map(|int| (int as i32).to_le_bytes()));
        self.buffer.upload(0, &image)?;
        self.buffer.hold(held.into_iter().map(|state| state as Arc<_>).collect());
        self.is_set = true;
        self.rows = kept.last().map_or(0, |(row, _)| row + 1);
        Ok(())
    }

    /// Numbers of a state.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no state: no layer is recurrent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows that a pass needs to have for all of the states that it leaves; 0 before any are set.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it was ever set.
    pub(super) fn is_set(&self) -> bool {
        self.is_set
    }

    /// `unsigned long long[]`: the address of what is gone on from, then of what is left.
    pub(super) fn addresses(&self) -> Address {
        self.buffer.address()
    }

    /// `int[]`: how many are left, then the rows that they stand behind.
    pub(super) fn kept(&self) -> Address {
        self.addresses() + 8 * (1 + self.most) as u64
    }
}
