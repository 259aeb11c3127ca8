//! The instructions of products in bf16: tiles of activations times tiles of weights, added to tiles of sums.
//!
//! Every output adds up its columns in the order of the tiles, whichever of these functions computes it.

use super::super::pack::Aligned;
use super::{WHOLE, configure, release};

/// Bytes of a tile.
pub(super) const TILE_BYTES: usize = 1024;

/// Multiplies tiles in the first cache over and over, as [`square`] does; the floating-point operations that were done.
pub(crate) fn busy(steps: usize) -> f64 {
    let (x, w) = (Aligned::zeroed(2 * TILE_BYTES), Aligned::zeroed(2 * TILE_BYTES));
    let mut sums = Aligned::zeroed(4 * TILE_BYTES);
    let to = sums.as_mut_ptr().cast::<f32>();
    configure(WHOLE);
    // SAFETY: tiles are configured; with a step of 0 all pointers stay at tiles that are there.
    unsafe {
        std::arch::asm!(
            "2:",
            "tileloadd tmm4, [{x} + {row}]",
            "tileloadd tmm5, [{x} + {row} + 1024]",
            "tileloadd tmm6, [{w} + {row}]",
            "tileloadd tmm7, [{w} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{to} + {row}], tmm0",
            row = in(reg) 64usize, x = in(reg) x.as_ptr(), w = in(reg) w.as_ptr(), to = in(reg) to,
            steps = inout(reg) steps.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    release();
    std::hint::black_box(&mut sums);
    // Four products of 16 x 16 x 32 a step, a multiplication and an addition each.
    (steps.max(1) * 4 * 16 * 16 * 32 * 2) as f64
}

/// Tiles of a few columns: pointers to activations and to weights, from where `depth` tiles lie one after the other.
#[repr(C)]
pub(super) struct Stretch<const X: usize, const W: usize> {
    pub(super) x: [*const u8; X],
    pub(super) w: [*const u8; W],
    pub(super) depth: usize,
}

/// Where tiles of sums are loaded from, and where they are stored: whole tiles, or rows that lie apart.
#[repr(C)]
pub(super) struct Sums<const N: usize> {
    pub(super) from: [*const f32; N],
    pub(super) to: [*mut f32; N],
    /// Bytes from a row to the next, where they are stored.
    pub(super) stride: usize,
}

/// Writes a function that adds up stretches of columns in four tiles of sums, tmm0 to tmm3, which begin at zero if `fresh`.
macro_rules! four_sums {
    (
        $(#[$doc:meta])*
        $name:ident, $x:literal, $w:literal, [$($read:literal,)*], [$($line:expr,)*], { $($operands:tt)* }
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Tiles are configured; there is a stretch and none is empty; pointers lead to so many tiles (activations, panels)
        /// and to a tile each (sums).
        pub(super) unsafe fn $name(stretches: &[Stretch<$x, $w>], sums: &Sums<4>, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {depth}, {depth}",
                    "jnz 2f",
                    "mov {sum}, [{sums}]",
                    "tileloadd tmm0, [{sum} + {row}]",
                    "mov {sum}, [{sums} + 8]",
                    "tileloadd tmm1, [{sum} + {row}]",
                    "mov {sum}, [{sums} + 16]",
                    "tileloadd tmm2, [{sum} + {row}]",
                    "mov {sum}, [{sums} + 24]",
                    "tileloadd tmm3, [{sum} + {row}]",
                    "2:",
                    $($read,)*
                    "3:",
                    $($line,)*
                    "dec {depth}",
                    "jnz 3b",
                    "dec {count}",
                    "jnz 2b",
                    "mov {row}, [{sums} + 64]",
                    "mov {sum}, [{sums} + 32]",
                    "tilestored [{sum} + {row}], tmm0",
                    "mov {sum}, [{sums} + 40]",
                    "tilestored [{sum} + {row}], tmm1",
                    "mov {sum}, [{sums} + 48]",
                    "tilestored [{sum} + {row}], tmm2",
                    "mov {sum}, [{sums} + 56]",
                    "tilestored [{sum} + {row}], tmm3",
                    $($operands)*
                    from = inout(reg) stretches.as_ptr() => _, count = inout(reg) stretches.len() => _,
                    row = inout(reg) 64usize => _, sums = in(reg) sums, sum = out(reg) _,
                    // First whether sums begin at zero.
                    depth = inout(reg) usize::from(fresh) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

four_sums!(
    /// Two row tiles against two panels.
    square, 2, 2,
    [
        "mov {x0}, [{from}]",
        "mov {x1}, [{from} + 8]",
        "mov {w0}, [{from} + 16]",
        "mov {w1}, [{from} + 24]",
        "mov {depth}, [{from} + 32]",
        "add {from}, 40",
    ],
    [
        "tileloadd tmm6, [{w0} + {row}]",
        "tileloadd tmm4, [{x0} + {row}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{w1} + {row}]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{x1} + {row}]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "add {x0}, 1024",
        "add {x1}, 1024",
        "add {w0}, 1024",
        "add {w1}, 1024",
    ],
    { x0 = out(reg) _, x1 = out(reg) _, w0 = out(reg) _, w1 = out(reg) _, }
);

four_sums!(
    /// Four row tiles against one panel.
    column, 4, 1,
    [
        "mov {x0}, [{from}]",
        "mov {x1}, [{from} + 8]",
        "mov {x2}, [{from} + 16]",
        "mov {x3}, [{from} + 24]",
        "mov {w}, [{from} + 32]",
        "mov {depth}, [{from} + 40]",
        "add {from}, 48",
    ],
    [
        "tileloadd tmm7, [{w} + {row}]",
        "tileloadd tmm4, [{x0} + {row}]",
        "tdpbf16ps tmm0, tmm4, tmm7",
        "tileloadd tmm5, [{x1} + {row}]",
        "tdpbf16ps tmm1, tmm5, tmm7",
        "tileloadd tmm6, [{x2} + {row}]",
        "tdpbf16ps tmm2, tmm6, tmm7",
        "tileloadd tmm4, [{x3} + {row}]",
        "tdpbf16ps tmm3, tmm4, tmm7",
        "add {x0}, 1024",
        "add {x1}, 1024",
        "add {x2}, 1024",
        "add {x3}, 1024",
        "add {w}, 1024",
    ],
    { x0 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, x3 = out(reg) _, w = out(reg) _, }
);

/// Writes a function of one row tile against four panels.
macro_rules! line {
    ($(#[$doc:meta])* $name:ident, $x_step:literal, [$($second:literal,)*]) => {
        four_sums!(
            $(#[$doc])*
            $name, 1, 4,
            [
                "mov {x}, [{from}]",
                "mov {w0}, [{from} + 8]",
                "mov {w1}, [{from} + 16]",
                "mov {w2}, [{from} + 24]",
                "mov {w3}, [{from} + 32]",
                "mov {depth}, [{from} + 40]",
                "add {from}, 48",
            ],
            [
                "tileloadd tmm4, [{x} + {row}]",
                "tileloadd tmm5, [{w0} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{w1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{w2} + {row}]",
                "tdpbf16ps tmm2, tmm4, tmm7",
                $($second,)*
                concat!("add {x}, ", $x_step),
                "add {w0}, 1024",
                "add {w1}, 1024",
                "add {w2}, 1024",
                "add {w3}, 1024",
            ],
            { x = out(reg) _, w0 = out(reg) _, w1 = out(reg) _, w2 = out(reg) _, w3 = out(reg) _, }
        );
    };
}

line!(
    /// One row tile against four panels.
    line,
    "1024",
    ["tileloadd tmm5, [{w3} + {row}]", "tdpbf16ps tmm3, tmm4, tmm5",]
);
// The weights of the first panel are loaded twice: there is one tile too few.
line!(
    /// One row tile in two parts, one behind the other, against four panels.
    line_split,
    "2048",
    [
        "tileloadd tmm5, [{x} + {row} + 1024]",
        "tdpbf16ps tmm1, tmm5, tmm6",
        "tdpbf16ps tmm2, tmm5, tmm7",
        "tileloadd tmm6, [{w3} + {row}]",
        "tdpbf16ps tmm3, tmm4, tmm6",
        "tileloadd tmm7, [{w0} + {row}]",
        "tdpbf16ps tmm3, tmm5, tmm6",
        "tdpbf16ps tmm0, tmm5, tmm7",
    ]
);

/// Writes a function of one row tile against one panel, in the order of [`square`].
macro_rules! one {
    ($name:ident, $x_step:literal, [$($second:literal,)*]) => {
        /// Adds up stretches of columns of one row tile against one panel in a tile of sums, which begins at zero if `fresh`.
        ///
        /// # Safety
        /// As [`square`].
        pub(super) unsafe fn $name(stretches: &[Stretch<1, 1>], sums: &Sums<1>, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "test {depth}, {depth}",
                    "jnz 2f",
                    "mov {sum}, [{sums}]",
                    "tileloadd tmm0, [{sum} + {row}]",
                    "2:",
                    "mov {x}, [{from}]",
                    "mov {w}, [{from} + 8]",
                    "mov {depth}, [{from} + 16]",
                    "add {from}, 24",
                    "3:",
                    "tileloadd tmm6, [{w} + {row}]",
                    "tileloadd tmm4, [{x} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    $($second,)*
                    concat!("add {x}, ", $x_step),
                    "add {w}, 1024",
                    "dec {depth}",
                    "jnz 3b",
                    "dec {count}",
                    "jnz 2b",
                    "mov {sum}, [{sums} + 8]",
                    "mov {row}, [{sums} + 16]",
                    "tilestored [{sum} + {row}], tmm0",
                    from = inout(reg) stretches.as_ptr() => _, count = inout(reg) stretches.len() => _,
                    x = out(reg) _, w = out(reg) _, row = inout(reg) 64usize => _, sums = in(reg) sums, sum = out(reg) _,
                    // First whether sums begin at zero.
                    depth = inout(reg) usize::from(fresh) => _,
                    out("tmm0") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    };
}

one!(one, "1024", []);
one!(one_split, "2048", ["tileloadd tmm5, [{x} + {row} + 1024]", "tdpbf16ps tmm0, tmm5, tmm6",]);
