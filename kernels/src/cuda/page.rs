//! Pages of keys and values that belong on a device: made when first needed, copied when first written, and put away
//! into the machine's memory where there is no room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Buffer, CudaError, Device};

/// Where pages are made on a device, up to so many bytes in all. Clones are the same.
#[derive(Debug, Clone)]
pub struct PageMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Device,
    limit: u64,
    used: AtomicU64,
}

impl PartialEq for PageMemory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for PageMemory {}

impl PageMemory {
    /// Room for at most `limit` bytes of pages.
    pub fn new(device: &Device, limit: u64) -> Self {
        Self { shared: Arc::new(Shared { device: device.clone(), limit, used: AtomicU64::new(0) }) }
    }

    /// Bytes of the pages that are on the device right now.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Most bytes of pages on the device.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    fn buffer(&self, bytes: usize) -> Result<PageBuffer, CudaError> {
        if self.used() + bytes as u64 > self.shared.limit {
            return Err(CudaError::OutOfMemory { bytes });
        }
        let buffer = self.shared.device.buffer(bytes)?;
        self.shared.used.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(PageBuffer { buffer, memory: self.clone() })
    }
}

/// A page's memory on the device.
#[derive(Debug)]
pub struct PageBuffer {
    buffer: Buffer,
    memory: PageMemory,
}

impl PageBuffer {
    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        self.memory.shared.used.fetch_sub(self.buffer.bytes() as u64, Ordering::Relaxed);
    }
}

/// A page that belongs on a device. A clone shares its memory until one of the two is written.
#[derive(Debug)]
pub struct DevicePage {
    memory: PageMemory,
    bytes: usize,
    lies: Mutex<Lies>,
}

#[derive(Debug, Clone)]
enum Lies {
    /// Nothing was ever written.
    Nowhere,
    /// On the device, this page's own.
    Here(Arc<PageBuffer>),
    /// On the device, another page's; only to be read.
    Shared(Arc<PageBuffer>),
    /// Put away.
    Away(Box<[u8]>),
}

impl Clone for DevicePage {
    fn clone(&self) -> Self {
        let lies = match &*self.lies() {
            Lies::Here(buffer) => Lies::Shared(buffer.clone()),
            other => other.clone(),
        };
        Self { memory: self.memory.clone(), bytes: self.bytes, lies: Mutex::new(lies) }
    }
}

impl DevicePage {
    /// A page of zeros, which takes no memory yet.
    pub fn new(memory: &PageMemory, bytes: usize) -> Self {
        Self { memory: memory.clone(), bytes, lies: Mutex::new(Lies::Nowhere) }
    }

    /// A page of these bytes, put away.
    pub fn of(memory: &PageMemory, bytes: Box<[u8]>) -> Self {
        Self { memory: memory.clone(), bytes: bytes.len(), lies: Mutex::new(Lies::Away(bytes)) }
    }

    /// Its memory on the device, to be read.
    pub fn to_read(&self) -> Result<Arc<PageBuffer>, CudaError> {
        self.bring(false)
    }

    /// Its memory on the device, this page's own, to be written.
    pub fn to_write(&self) -> Result<Arc<PageBuffer>, CudaError> {
        self.bring(true)
    }

    fn bring(&self, own: bool) -> Result<Arc<PageBuffer>, CudaError> {
        let mut lies = self.lies();
        let buffer = match &*lies {
            Lies::Here(buffer) => return Ok(buffer.clone()),
            Lies::Shared(buffer) if !own => return Ok(buffer.clone()),
            Lies::Shared(buffer) => {
                let mut copy = self.memory.buffer(self.bytes)?;
                copy.buffer.copy_from(&buffer.buffer)?;
                copy
            }
            Lies::Nowhere => {
                // What no token stands in is read as well, and has to be a number.
                let mut empty = self.memory.buffer(self.bytes)?;
                empty.buffer.fill(0)?;
                empty
            }
            Lies::Away(bytes) => {
                let mut back = self.memory.buffer(self.bytes)?;
                back.buffer.upload(0, bytes)?;
                back
            }
        };
        let buffer = Arc::new(buffer);
        *lies = Lies::Here(buffer.clone());
        Ok(buffer)
    }

    /// What stands in it.
    pub fn contents(&self) -> Result<Box<[u8]>, CudaError> {
        let mut bytes = vec![0; self.bytes].into_boxed_slice();
        match &*self.lies() {
            Lies::Nowhere => {}
            Lies::Here(buffer) | Lies::Shared(buffer) => buffer.buffer.download(0, &mut bytes)?,
            Lies::Away(away) => bytes.copy_from_slice(away),
        }
        Ok(bytes)
    }

    /// Puts it away, unless its memory is in use elsewhere. Returns the bytes that this frees on the device.
    pub fn put_away(&self) -> Result<usize, CudaError> {
        let mut lies = self.lies();
        let (Lies::Here(buffer) | Lies::Shared(buffer)) = &*lies else { return Ok(0) };
        if Arc::strong_count(buffer) > 1 {
            return Ok(0);
        }
        let mut bytes = vec![0; self.bytes].into_boxed_slice();
        buffer.buffer.download(0, &mut bytes)?;
        *lies = Lies::Away(bytes);
        Ok(self.bytes)
    }

    fn lies(&self) -> MutexGuard<'_, Lies> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
