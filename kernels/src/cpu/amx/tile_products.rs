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

/// Writes a function that adds `depth` tiles to four tiles of sums in tmm0 to tmm3, which begin at zero if `fresh`.
macro_rules! four_sums {
    (
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty),*), [$($line:expr,)*], { $($operands:tt)* }
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Tiles are configured; pointers lead to `depth` tiles (activations, panels) and to a tile each (sums).
        pub(super) unsafe fn $name($($argument: $type,)* sums: [*mut f32; 4], depth: usize, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {fresh}, {fresh}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c0} + {row}]",
                    "tileloadd tmm1, [{c1} + {row}]",
                    "tileloadd tmm2, [{c2} + {row}]",
                    "tileloadd tmm3, [{c3} + {row}]",
                    "2:",
                    $($line,)*
                    "dec {depth}",
                    "jnz 2b",
                    "tilestored [{c0} + {row}], tmm0",
                    "tilestored [{c1} + {row}], tmm1",
                    "tilestored [{c2} + {row}], tmm2",
                    "tilestored [{c3} + {row}], tmm3",
                    $($operands)*
                    row = in(reg) 64usize, fresh = in(reg) usize::from(fresh),
                    c0 = in(reg) sums[0], c1 = in(reg) sums[1], c2 = in(reg) sums[2], c3 = in(reg) sums[3],
                    depth = inout(reg) depth => _,
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
    square(x: [*const u8; 2], w: [*const u8; 2]),
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
    {
        x0 = inout(reg) x[0] => _, x1 = inout(reg) x[1] => _,
        w0 = inout(reg) w[0] => _, w1 = inout(reg) w[1] => _,
    }
);

/// Writes a function of one row tile against four panels.
macro_rules! line {
    ($(#[$doc:meta])* $name:ident, $x_step:literal, [$($second:literal,)*]) => {
        four_sums!(
            $(#[$doc])*
            $name(x: *const u8, w: [*const u8; 4]),
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
            {
                x = inout(reg) x => _,
                w0 = inout(reg) w[0] => _, w1 = inout(reg) w[1] => _,
                w2 = inout(reg) w[2] => _, w3 = inout(reg) w[3] => _,
            }
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

/// Writes a function that adds `depth` tiles of one row tile against one panel, in the order of [`square`].
macro_rules! one {
    ($name:ident, $x_step:literal, [$($second:literal,)*]) => {
        /// Adds `depth` tiles of one row tile against one panel to a tile of sums, which begins at zero if `fresh`.
        ///
        /// # Safety
        /// As [`square`].
        pub(super) unsafe fn $name(x: *const u8, w: *const u8, sums: *mut f32, depth: usize, fresh: bool) {
            // SAFETY: the caller's contract; nothing but tiles, flags and the sums is written.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm0",
                    "test {fresh}, {fresh}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c} + {row}]",
                    "2:",
                    "tileloadd tmm6, [{w} + {row}]",
                    "tileloadd tmm4, [{x} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    $($second,)*
                    concat!("add {x}, ", $x_step),
                    "add {w}, 1024",
                    "dec {depth}",
                    "jnz 2b",
                    "tilestored [{c} + {row}], tmm0",
                    row = in(reg) 64usize, fresh = in(reg) usize::from(fresh),
                    x = inout(reg) x => _, w = inout(reg) w => _, c = in(reg) sums,
                    depth = inout(reg) depth => _,
                    out("tmm0") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    };
}

one!(one, "1024", []);
one!(one_split, "2048", ["tileloadd tmm5, [{x} + {row} + 1024]", "tdpbf16ps tmm0, tmm5, tmm6",]);
