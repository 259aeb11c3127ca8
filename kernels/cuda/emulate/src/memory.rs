//! The emulated device's memory: each allocation in pages of its own, with pages around them that nobody may
//! access.
//!
//! An allocation ends where its pages end, so a read behind it is seen as well as a write. What its alignment
//! leaves (15 bytes at most behind it, less than a page in front) is filled with NaN, and looked at now and
//! then. Addresses are never used twice: one of memory that was freed stays an error.

use std::collections::BTreeMap;
use std::ops::Range;

use gemma_kernels::cuda::Address;

/// What an allocation is aligned to: no load of a kernel is wider.
const ALIGNMENT: usize = 16;
/// Pages are taken to be of this size, a multiple of what they are.
const PAGE: usize = 64 << 10;
/// Between two allocations at least.
const GAP: usize = 1 << 20;
/// Addresses that are reserved at once.
const AREA: usize = 16 << 30;
/// Bytes in front of an allocation that are looked at.
const FRONT: usize = 64;
/// NaN in every format of floats.
const POISON: u8 = 0xff;
/// What stands next to an allocation: NaN too, whether of 16 bits or 32, but not the poison that kernels may
/// copy.
const CANARY: [u8; 2] = [0xa5, 0xff];

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    areas: Vec<Area>,
    /// By their addresses.
    live: BTreeMap<Address, Allocation>,
    freed: BTreeMap<Address, Allocation>,
    used: u64,
}

/// Its bytes, and the pages that are open for it.
#[derive(Debug, Clone, Copy)]
struct Allocation {
    bytes: usize,
    first: usize,
    pages: usize,
}

/// Addresses that are reserved; those before `next` were used.
#[derive(Debug)]
struct Area {
    start: usize,
    len: usize,
    next: usize,
}

impl Memory {
    /// Bytes that are allocated.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Addresses of which all allocations have some.
    pub fn span(&self) -> Range<u64> {
        let start = self.areas.iter().map(|area| area.start).min().unwrap_or(0);
        let end = self.areas.iter().map(|area| area.start + area.len).max().unwrap_or(0);
        start as u64..end as u64
    }

    /// Memory full of NaN; none where this machine has too little.
    pub fn allocate(&mut self, bytes: usize) -> Option<Address> {
        let pages = (bytes + FRONT).next_multiple_of(PAGE);
        let first = self.reserve(pages + GAP)?;
        // SAFETY: the pages are reserved for this allocation, and nothing is in them.
        let opened = unsafe { libc::mprotect(first as *mut _, pages, libc::PROT_READ | libc::PROT_WRITE) };
        if opened != 0 {
            return None;
        }
        let start = first + pages - bytes.next_multiple_of(ALIGNMENT);
        // SAFETY: the pages can be written now, and all of this lies within them.
        unsafe {
            std::ptr::write_bytes(start as *mut u8, POISON, bytes);
            for at in (start - FRONT..start).chain(start + bytes..first + pages) {
                (at as *mut u8).write(CANARY[at % 2]);
            }
        }
        self.live.insert(start as Address, Allocation { bytes, first, pages });
        self.used += bytes as u64;
        Some(start as Address)
    }

    /// So many addresses with a gap in front of them.
    fn reserve(&mut self, len: usize) -> Option<usize> {
        if self.areas.last().is_none_or(|area| area.next + len > area.len) {
            let wanted = AREA.max(GAP + len);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping, of which nothing is known to anybody.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), wanted, libc::PROT_NONE, flags, -1, 0) };
            if start == libc::MAP_FAILED {
                return None;
            }
            let start = start.addr();
            // Pages may be smaller than `PAGE`, and areas begin at one of them.
            self.areas.push(Area { start, len: wanted, next: GAP });
        }
        let area = self.areas.last_mut()?;
        let first = area.start + area.next;
        area.next += len;
        Some(first)
    }

    /// Frees what begins there, and says whether something was written next to it; none where nothing begins
    /// there.
    pub fn free(&mut self, address: Address) -> Option<Result<(), String>> {
        let gone = self.live.remove(&address)?;
        let whole = gone.check_whole(address);
        // SAFETY: these pages were opened for this allocation alone, which is gone.
        unsafe {
            libc::madvise(gone.first as *mut _, gone.pages, libc::MADV_DONTNEED);
            libc::mprotect(gone.first as *mut _, gone.pages, libc::PROT_NONE);
        }
        self.freed.insert(address, gone);
        self.used -= gone.bytes as u64;
        Some(whole)
    }

    /// Whether so many bytes from there on are inside one allocation; says what they are if not.
    pub fn check(&self, address: Address, bytes: usize) -> Result<(), String> {
        match self.live.range(..=address).next_back() {
            Some((&start, a)) if address + bytes as u64 <= start + a.bytes as u64 => Ok(()),
            _ => Err(self.describe(address)),
        }
    }

    /// Whether nothing was written next to the allocation that an address is in, if it is in one.
    pub fn check_whole(&self, address: Address) -> Result<(), String> {
        let found = self.live.range(..=address).next_back();
        found.map_or(Ok(()), |(&start, allocation)| allocation.check_whole(start))
    }

    /// Whether nothing was written next to any allocation.
    pub fn check_all(&self) -> Result<(), String> {
        self.live.iter().try_for_each(|(&start, allocation)| allocation.check_whole(start))
    }

    /// What an address is, in words.
    pub fn describe(&self, address: Address) -> String {
        let nearest = |all: &BTreeMap<Address, Allocation>, what: &str| {
            let before = all.range(..=address).next_back().map(|(&start, &Allocation { bytes: len, .. })| {
                let end = start + len as u64;
                match address.checked_sub(end) {
                    None => (0, format!("in {what} of {len} bytes")),
                    Some(apart) => (apart, format!("{apart} bytes behind the end of {what} of {len} bytes")),
                }
            });
            let behind = all.range(address + 1..).next().map(|(&start, &Allocation { bytes: len, .. })| {
                (start - address, format!("{} bytes in front of {what} of {len} bytes", start - address))
            });
            before.into_iter().chain(behind).min()
        };
        let found = [nearest(&self.live, "a buffer"), nearest(&self.freed, "a buffer that was freed")];
        match found.into_iter().flatten().min() {
            Some((apart, text)) if apart < 1 << 32 => text,
            _ => format!("{address:#x}, where no buffer is"),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for area in &self.areas {
            // SAFETY: mapped by `reserve`, and what used it is gone with the device.
            unsafe { libc::munmap(area.start as *mut _, area.len) };
        }
    }
}

impl Allocation {
    /// Whether the canaries next to it stand.
    fn check_whole(&self, start: Address) -> Result<(), String> {
        let start = start as usize;
        let end = start + self.bytes;
        let stands = |at: usize| {
            // SAFETY: in the pages of the allocation, which are still open.
            unsafe { (at as *const u8).read() == CANARY[at % 2] }
        };
        if (start - FRONT..start).chain(end..end.next_multiple_of(ALIGNMENT)).all(stands) {
            Ok(())
        } else {
            Err(format!("something was written next to a buffer of {} bytes", self.bytes))
        }
    }
}
