//! A device's memory: the driver's pool, in the order of the stream.
//!
//! The pool hands out what was freed without waiting for the device, and moves pages about where slabs of our own
//! would be in pieces. It keeps what is freed; what it keeps beyond [`SLACK`] goes back, so that a model that was let
//! go of leaves its room to others, in this process or not. Where a device has no pool (some virtual ones), memory
//! comes from the driver directly and freeing waits.

use std::ptr;

use cudarc::driver::sys::{
    self, CUdevice, CUdevice_attribute, CUmemPool_attribute, CUmemoryPool, CUresult, CUstream,
};

use super::call::{Failure, get, ok};
use crate::cuda::Address;

/// Bytes that stay in the pool for what is asked for next.
const SLACK: u64 = 256 << 20;

/// Where memory comes from.
#[derive(Debug)]
pub(super) struct Memory {
    pool: Option<CUmemoryPool>,
}

impl Memory {
    /// Of a device whose context is this thread's.
    pub(super) fn new(device: CUdevice) -> Result<Self, Failure> {
        let pools = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        // SAFETY: each fills what it is given; the attribute takes a 64-bit number.
        unsafe {
            if get(0, |out| sys::cuDeviceGetAttribute(out, pools, device))? == 0 {
                return Ok(Self { pool: None });
            }
            let pool = get(ptr::null_mut(), |out| sys::cuDeviceGetDefaultMemPool(out, device))?;
            // It shall keep what is freed until we trim it, and not let go of it at every wait.
            let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            let mut all = u64::MAX;
            ok(sys::cuMemPoolSetAttribute(pool, threshold, ptr::from_mut(&mut all).cast()))?;
            Ok(Self { pool: Some(pool) })
        }
    }

    /// Bytes that are free, those that the pool keeps among them.
    pub(super) fn free_bytes(&self) -> Result<u64, Failure> {
        let mut total = 0;
        // SAFETY: it fills two numbers.
        let free = unsafe { get(0, |out| sys::cuMemGetInfo_v2(out, &mut total))? };
        let kept = self.pool.map_or(Ok(0), kept)?;
        Ok(free as u64 + kept)
    }

    /// Memory for what is put on the stream from now on.
    ///
    /// # Safety
    /// The stream is there.
    pub(super) unsafe fn allocate(&self, stream: CUstream, bytes: usize) -> Result<Address, Failure> {
        let Some(pool) = self.pool else {
            // SAFETY: it fills an address.
            return unsafe { get(0, |out| sys::cuMemAlloc_v2(out, bytes)) };
        };
        // SAFETY: it fills an address, for use on this stream.
        let ask = || unsafe { get(0, |out| sys::cuMemAllocAsync(out, bytes, stream)) };
        match ask() {
            Err(failure) if failure.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                // What was freed may lie in pieces that are too small: whole again once they were given back.
                // SAFETY: the caller vouches for the stream; the pool is the device's own.
                unsafe { trim(pool, stream, 0)? };
                ask()
            }
            asked => asked,
        }
    }

    /// Gives memory back, once what is on the stream is done.
    ///
    /// # Safety
    /// The stream is there; the memory came from here and is not used again.
    pub(super) unsafe fn free(&self, stream: CUstream, address: Address) -> Result<(), Failure> {
        // SAFETY: the caller vouches for both.
        unsafe {
            let Some(pool) = self.pool else {
                ok(sys::cuStreamSynchronize(stream))?;
                return ok(sys::cuMemFree_v2(address));
            };
            ok(sys::cuMemFreeAsync(address, stream))?;
            // By twice as much, so that it is not done at every buffer.
            if kept(pool)? > 2 * SLACK {
                trim(pool, stream, used(pool)? + SLACK)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a pool that nobody uses.
fn kept(pool: CUmemoryPool) -> Result<u64, Failure> {
    let reserved = bytes(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    Ok(reserved.saturating_sub(used(pool)?))
}

/// Bytes of a pool that somebody uses.
fn used(pool: CUmemoryPool) -> Result<u64, Failure> {
    bytes(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
}

fn bytes(pool: CUmemoryPool, attribute: CUmemPool_attribute) -> Result<u64, Failure> {
    // SAFETY: both attributes are 64-bit numbers.
    unsafe { get(0u64, |out| sys::cuMemPoolGetAttribute(pool, attribute, ptr::from_mut(out).cast())) }
}

/// Gives what nobody uses back to the system, but for so many bytes of all that the pool has.
///
/// # Safety
/// The stream is there.
unsafe fn trim(pool: CUmemoryPool, stream: CUstream, keep: u64) -> Result<(), Failure> {
    // SAFETY: the caller vouches for the stream. What is freed on it counts as used until somebody waited.
    unsafe {
        ok(sys::cuStreamSynchronize(stream))?;
        ok(sys::cuMemPoolTrimTo(pool, keep as usize))
    }
}
