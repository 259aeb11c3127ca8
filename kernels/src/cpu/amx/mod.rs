//! Matrix units (AMX): tiles of 16 outputs, which is what a panel is made of anyway.
//!
//! Quantised weights meet few rows in whole numbers ([`int8`]), with the bits that vectors give; many rows in
//! bf16 ([`bf16`]), twice as fast, where sums round otherwise.
//!
//! The instructions are inline assembly, since the compiler's own names for them are not stable yet.

pub(super) mod bf16;
pub(super) mod int8;
pub(super) mod tile_products;
pub(super) mod tiles;
mod widen;

use std::sync::OnceLock;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Whether this machine and its system let this process use AMX. Asks the system, once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && system_permits())
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    // Every processor with the tiles has the vectors for bf16, a virtual machine may hide them.
    leaf.edx & (BF16 | TILE | INT8) == BF16 | TILE | INT8 && is_x86_feature_detected!("avx512bf16")
}

/// The tiles' 8 KiB are saved at every switch of threads only for processes that asked for them.
#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, by tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All tiles have 16 rows of 64 bytes.
pub(crate) const WHOLE: [(u8, u16); 8] = [(16, 64); 8];

/// Eight tiles of so many rows and bytes a row, on this thread, until [`release`].
pub(crate) fn configure(tiles: [(u8, u16); 8]) {
    let mut all =
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    for (i, (rows, bytes)) in tiles.into_iter().enumerate() {
        (all.rows[i], all.row_bytes[i]) = (rows, bytes);
    }
    // SAFETY: AMX is available, and the memory is a configuration of the first palette.
    unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const all, options(nostack, readonly)) };
}

/// Gives the tiles back, so that switching threads need not save them.
pub(crate) fn release() {
    // SAFETY: AMX is available.
    unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
}
