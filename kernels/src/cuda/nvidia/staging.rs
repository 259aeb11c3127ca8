//! Copies between the host and a device, through memory that the device reads and writes by itself.
//!
//! A copy from ordinary memory may wait for the device, and is made by the driver in pieces of its own; from memory
//! that cannot be paged out it is only put on the stream.

use std::ptr;
use std::sync::Mutex;

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUstream};

use super::call::{Failure, get, ok};
use super::gpu::{Queue, locked};
use crate::cuda::Address;

/// Bytes of a piece.
pub(super) const PIECE: usize = 4 << 20;
/// Uploads begin at multiples of this.
const ALIGNED: usize = 64;

/// Memory of the host in pieces, each with an event behind the last copy that used it.
#[derive(Debug)]
struct Pieces<const COUNT: usize> {
    memory: *mut u8,
    events: [CUevent; COUNT],
}

impl<const COUNT: usize> Pieces<COUNT> {
    fn new() -> Result<Self, Failure> {
        // SAFETY: it fills an address; the memory is given back below.
        let memory = unsafe { get(ptr::null_mut(), |out| sys::cuMemHostAlloc(out, COUNT * PIECE, 0))? };
        // What was made is given back if the rest fails.
        let mut pieces = Self { memory: memory.cast(), events: [ptr::null_mut(); COUNT] };
        for event in &mut pieces.events {
            let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: it fills a handle, which is given back below.
            *event = unsafe { get(ptr::null_mut(), |out| sys::cuEventCreate(out, flags))? };
        }
        Ok(pieces)
    }

    /// Where a byte of a piece lies.
    fn at(&self, piece: usize, byte: usize) -> *mut u8 {
        assert!(piece < COUNT && byte < PIECE, "within the pieces");
        // SAFETY: the memory has `COUNT` pieces.
        unsafe { self.memory.add(piece * PIECE + byte) }
    }

    /// Waits until the copies that used a piece are done, as of the last mark.
    fn wait(&self, piece: usize) -> Result<(), Failure> {
        // SAFETY: the event is there. One that was never put on a stream counts as reached.
        ok(unsafe { sys::cuEventSynchronize(self.events[piece]) })
    }

    /// Marks on the stream where the copies that use a piece end.
    ///
    /// # Safety
    /// The stream is there.
    unsafe fn mark(&self, piece: usize, stream: CUstream) -> Result<(), Failure> {
        // SAFETY: the event is there; the caller vouches for the stream.
        ok(unsafe { sys::cuEventRecord(self.events[piece], stream) })
    }
}

impl<const COUNT: usize> Drop for Pieces<COUNT> {
    fn drop(&mut self) {
        for event in self.events.iter().filter(|event| !event.is_null()) {
            // SAFETY: it was made above. An error has nobody to go to.
            let _ = unsafe { sys::cuEventDestroy_v2(*event) };
        }
        // SAFETY: likewise; the device was waited for before this is dropped.
        let _ = unsafe { sys::cuMemFreeHost(self.memory.cast()) };
    }
}

/// Copies to the device: bytes go into the next free place of a ring, so that nobody waits unless it is full.
#[derive(Debug)]
pub(super) struct Uploads {
    pieces: Pieces<4>,
    piece: usize,
    used: usize,
}

impl Uploads {
    /// Needs a context on this thread.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { pieces: Pieces::new()?, piece: 0, used: 0 })
    }

    /// Puts a copy on the stream; `from` may be changed on return.
    ///
    /// # Safety
    /// The stream is there; the destination is inside memory that is allocated.
    pub(super) unsafe fn put(&mut self, stream: CUstream, to: Address, from: &[u8]) -> Result<(), Failure> {
        let mut done = 0;
        while done < from.len() {
            if self.used >= PIECE {
                // SAFETY: the caller vouches for the stream.
                unsafe { self.pieces.mark(self.piece, stream)? };
                self.piece = (self.piece + 1) % self.pieces.events.len();
                self.used = 0;
                self.pieces.wait(self.piece)?;
            }
            let len = (from.len() - done).min(PIECE - self.used);
            let staged = self.pieces.at(self.piece, self.used);
            // SAFETY: the place is as long and no copy reads it any more; the caller vouches for the destination.
            unsafe {
                ptr::copy_nonoverlapping(from[done..].as_ptr(), staged, len);
                ok(sys::cuMemcpyHtoDAsync_v2(to + done as Address, staged.cast(), len, stream))?;
            }
            self.used = (self.used + len).next_multiple_of(ALIGNED);
            done += len;
        }
        Ok(())
    }
}

/// Copies from the device: while one piece is copied out, the next one arrives.
#[derive(Debug)]
pub(super) struct Downloads {
    pieces: Pieces<2>,
}

impl Downloads {
    /// Needs a context on this thread.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { pieces: Pieces::new()? })
    }

    /// Copies, and waits for that, while others may use the queue.
    ///
    /// # Safety
    /// The source is inside memory that is allocated.
    pub(super) unsafe fn take(
        &mut self,
        queue: &Mutex<Queue>,
        from: Address,
        to: &mut [u8],
    ) -> Result<(), Failure> {
        let mut before: Option<(usize, &mut [u8])> = None;
        for (number, to) in to.chunks_mut(PIECE).enumerate() {
            let (piece, from) = (number % 2, from + (number * PIECE) as Address);
            let queue = locked(queue);
            // SAFETY: the piece is as long and its last copy was waited for; the caller vouches for the source.
            unsafe {
                let staged = self.pieces.at(piece, 0).cast();
                ok(sys::cuMemcpyDtoHAsync_v2(staged, from, to.len(), queue.stream()))?;
                self.pieces.mark(piece, queue.stream())?;
            }
            drop(queue);
            if let Some((piece, to)) = before.replace((piece, to)) {
                self.arrived(piece, to)?;
            }
        }
        before.map_or(Ok(()), |(piece, to)| self.arrived(piece, to))
    }

    /// Waits for everything in the queue, while others may use it.
    pub(super) fn wait(&mut self, queue: &Mutex<Queue>) -> Result<(), Failure> {
        // SAFETY: the queue's stream is there.
        unsafe { self.pieces.mark(0, locked(queue).stream())? };
        self.pieces.wait(0)
    }

    /// Waits for a piece, and copies it out.
    fn arrived(&self, piece: usize, to: &mut [u8]) -> Result<(), Failure> {
        self.pieces.wait(piece)?;
        // SAFETY: the piece is as long, and what was to write it is done.
        unsafe { ptr::copy_nonoverlapping(self.pieces.at(piece, 0), to.as_mut_ptr(), to.len()) };
        Ok(())
    }
}
