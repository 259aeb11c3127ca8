//! Memory for what products need on the way: kept by each thread from one product to the next, on pages of 2 MiB where
//! it is large, since taking new pages for every product costs more than small products do.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

use super::pack::ask_for_huge_pages;

/// Pieces that a thread keeps.
const KEPT: usize = 8;
/// From this many bytes on memory is asked for in pages of 2 MiB.
const LARGE: usize = 256 << 10;
const HUGE: usize = 2 << 20;

thread_local! {
    static FREE: RefCell<Vec<Piece>> = const { RefCell::new(Vec::new()) };
}

struct Piece {
    start: NonNull<u8>,
    layout: Layout,
}

impl Piece {
    fn new(bytes: usize) -> Self {
        let align = if bytes >= LARGE { HUGE } else { 64 };
        let layout = Layout::from_size_align(bytes.next_multiple_of(align).max(64), align)
            .expect("products are far smaller than the address space");
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the memory is ours and that long; nothing is read as long as nothing was written.
        ask_for_huge_pages(unsafe {
            std::slice::from_raw_parts_mut(start.as_ptr().cast::<std::mem::MaybeUninit<u8>>(), layout.size())
        });
        Self { start, layout }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given back once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Memory with whatever it held before, on a cache line; goes back to the thread that drops it.
pub(crate) struct Scratch {
    piece: Option<Piece>,
}

// SAFETY: the memory belongs to whoever holds it.
unsafe impl Send for Scratch {}
// SAFETY: shared, it gives a pointer and nothing else; who writes through it says why he may.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// At least `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let kept = FREE.with_borrow_mut(|free| {
            let fits = |piece: &Piece| (bytes..=4 * bytes.max(HUGE)).contains(&piece.layout.size());
            let best = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| free[i].layout.size());
            best.map(|i| free.swap_remove(i))
        });
        Self { piece: Some(kept.unwrap_or_else(|| Piece::new(bytes))) }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.piece.as_ref().map_or(std::ptr::null_mut(), |piece| piece.start.as_ptr())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A thread that ends has no list any more: the memory is freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() == KEPT {
                free.remove(0);
            }
            free.extend(self.piece.take());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_and_is_large_enough() {
        let first = Scratch::new(3 << 20);
        let at = first.as_ptr();
        assert!(at.addr().is_multiple_of(HUGE));
        let second = Scratch::new(3 << 20);
        assert_ne!(at, second.as_ptr(), "two pieces in use are two");
        drop(first);
        assert_eq!(Scratch::new(2 << 20).as_ptr(), at, "what fits is taken again");
        let larger = Scratch::new(40 << 20);
        assert!(larger.as_ptr() != at && larger.piece.as_ref().is_some_and(|p| p.layout.size() >= 40 << 20));
    }

    #[test]
    fn what_many_hold_is_not_kept_for_ever() {
        drop((0..3 * KEPT).map(|_| Scratch::new(1000)).collect::<Vec<_>>());
        assert_eq!(FREE.with_borrow(Vec::len), KEPT);
    }
}
