//! Products of bf16 tiles, step by step, so that vectors can work between the steps. Tile registers keep what they hold
//! from one function to the next: no compiler uses them.

use std::arch::asm;

/// Begins four tiles of sums, at zero where they are `fresh`, else with those at `sums`.
///
/// # Safety
/// Tiles are configured, and `sums` leads to four.
#[inline(always)]
pub(super) unsafe fn begin(sums: *const f32, fresh: bool) {
    // SAFETY: the caller's contract.
    unsafe {
        if fresh {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem, preserves_flags),
            );
        } else {
            asm!(
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm1, [{c} + {row} + 1024]",
                "tileloadd tmm2, [{c} + {row} + 2048]",
                "tileloadd tmm3, [{c} + {row} + 3072]",
                row = in(reg) 64usize, c = in(reg) sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
}

/// Adds the products of two tiles with a pair of tiles at `b` to the sums.
///
/// # Safety
/// As [`begin`], with as many tiles.
#[inline(always)]
pub(super) unsafe fn four(a0: *const u8, a1: *const u8, b: *const u8) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            row = in(reg) 64usize, a0 = in(reg) a0, a1 = in(reg) a1, b = in(reg) b,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// Writes the four tiles of sums.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
pub(super) unsafe fn end(sums: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            "tilestored [{c} + {row} + 2048], tmm2",
            "tilestored [{c} + {row} + 3072], tmm3",
            row = in(reg) 64usize, c = in(reg) sums,
            options(nostack, preserves_flags),
        );
    }
}

/// As [`begin`] with two tiles of sums.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
pub(super) unsafe fn begin_two(sums: *const f32, fresh: bool) {
    // SAFETY: the caller's contract.
    unsafe {
        if fresh {
            asm!(
                "tilezero tmm0", "tilezero tmm1",
                out("tmm0") _, out("tmm1") _,
                options(nostack, nomem, preserves_flags),
            );
        } else {
            asm!(
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm1, [{c} + {row} + 1024]",
                row = in(reg) 64usize, c = in(reg) sums,
                out("tmm0") _, out("tmm1") _,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
}

/// As [`four`] with one tile and the pair at `b`, in the same order.
///
/// # Safety
/// As [`four`].
#[inline(always)]
pub(super) unsafe fn two(a: *const u8, b: *const u8) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            row = in(reg) 64usize, a = in(reg) a, b = in(reg) b,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// As [`end`] with two tiles of sums.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
pub(super) unsafe fn end_two(sums: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            row = in(reg) 64usize, c = in(reg) sums,
            options(nostack, preserves_flags),
        );
    }
}
