//! The inner loop of products with 8-bit activations, in assembly: the compiler adds up in an order of its own, which takes
//! more registers than there are.

use std::arch::asm;
use std::arch::x86_64::{__m256i, _mm256_set1_epi16, _mm256_setzero_si256};

/// Rows that share a vector of weights.
pub(super) const ROWS: usize = 4;

/// The halves of a vector, of each row.
pub(super) type Halves<T> = [[T; 2]; ROWS];

/// The text of a vector of weights, whose number is `$j`: it is loaded, `$before` runs, then `$row` for each row.
#[rustfmt::skip]
macro_rules! vector {
    ($j:literal, $before:literal, $row:ident) => {
        concat!(
            "vmovdqa {w0}, [{w} + 64*", $j, "]\n",
            "vmovdqa {w1}, [{w} + 64*", $j, " + 32]\n",
            $before,
            $row!($j, "{x}", "{a0}", "{a1}"),
            $row!($j, "{x} + {stride}", "{b0}", "{b1}"),
            $row!($j, "{x} + 2*{stride}", "{c0}", "{c1}"),
            $row!($j, "{x3}", "{d0}", "{d1}"),
        )
    };
}

/// Products of unsigned weights begin the sums of two products each, in 16 bits.
#[rustfmt::skip]
macro_rules! begin {
    ($j:literal, $x:literal, $first:literal, $second:literal) => {
        concat!(
            "vpbroadcastd {q}, dword ptr [", $x, " + 4*", $j, "]\n",
            "vpmaddubsw ", $first, ", {w0}, {q}\n",
            "vpmaddubsw ", $second, ", {w1}, {q}\n",
        )
    };
}

/// Products of unsigned weights are added to the sums of two products each.
#[rustfmt::skip]
macro_rules! go_on {
    ($j:literal, $x:literal, $first:literal, $second:literal) => {
        concat!(
            "vpbroadcastd {q}, dword ptr [", $x, " + 4*", $j, "]\n",
            "vpmaddubsw {product}, {w0}, {q}\n",
            "vpaddw ", $first, ", ", $first, ", {product}\n",
            "vpmaddubsw {q}, {w1}, {q}\n",
            "vpaddw ", $second, ", ", $second, ", {q}\n",
        )
    };
}

/// Products of signed weights, of which two fit in 16 bits and no more: sizes of weights meet bytes that have the products' signs.
#[rustfmt::skip]
macro_rules! signed {
    ($j:literal, $x:literal, $first:literal, $second:literal) => {
        concat!(
            "vpbroadcastd {q}, dword ptr [", $x, " + 4*", $j, "]\n",
            "vpsignb {product}, {q}, {w0}\n",
            "vpmaddubsw {product}, {size0}, {product}\n",
            "vpmaddwd {product}, {product}, {ones}\n",
            "vpaddd ", $first, ", ", $first, ", {product}\n",
            "vpsignb {q}, {q}, {w1}\n",
            "vpmaddubsw {q}, {size1}, {q}\n",
            "vpmaddwd {q}, {q}, {ones}\n",
            "vpaddd ", $second, ", ", $second, ", {q}\n",
        )
    };
}

/// Products of unsigned weights with VNNI, four at a time.
#[rustfmt::skip]
macro_rules! vnni {
    ($j:literal, $x:literal, $first:literal, $second:literal) => {
        concat!(
            "vpbroadcastd {q}, dword ptr [", $x, " + 4*", $j, "]\n",
            "{{vex}} vpdpbusd ", $first, ", {w0}, {q}\n",
            "{{vex}} vpdpbusd ", $second, ", {w1}, {q}\n",
        )
    };
}

/// Makes a function of the text of its vectors (see `vector`) and of the registers that these take besides: sums of the products
/// of weights at `w`, on a cache line, with the bytes at `x` and, `stride` bytes further each, of three more rows.
macro_rules! sums {
    ($name:ident, $before:literal, $($row:ident: $($j:literal)*),*; $($more:tt)*) => {
        /// # Safety
        /// The level has the instructions; there are as many weights and bytes as the name says vectors of four columns.
        #[inline]
        #[target_feature(enable = "avx2")]
        pub(super) unsafe fn $name(w: *const u8, x: *const i8, stride: usize) -> Halves<__m256i> {
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = &mut sums;
            // SAFETY: the caller's pointers; nothing is written.
            unsafe {
                asm!(
                    $($(vector!($j, $before, $row),)*)*
                    w = in(reg) w,
                    x = in(reg) x,
                    stride = in(reg) stride,
                    x3 = in(reg) x.add(3 * stride),
                    a0 = inout(ymm_reg) *a0, a1 = inout(ymm_reg) *a1,
                    b0 = inout(ymm_reg) *b0, b1 = inout(ymm_reg) *b1,
                    c0 = inout(ymm_reg) *c0, c1 = inout(ymm_reg) *c1,
                    d0 = inout(ymm_reg) *d0, d1 = inout(ymm_reg) *d1,
                    w0 = out(ymm_reg) _, w1 = out(ymm_reg) _, q = out(ymm_reg) _,
                    $($more)*
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            sums
        }
    };
}

sums!(two, "", begin: 0, go_on: 1; product = out(ymm_reg) _,);
sums!(four, "", begin: 0, go_on: 1 2 3; product = out(ymm_reg) _,);
sums!(eight, "", begin: 0, go_on: 1 2 3 4 5 6 7; product = out(ymm_reg) _,);
sums!(
    signed_eight, "vpabsb {size0}, {w0}\nvpabsb {size1}, {w1}\n", signed: 0 1 2 3 4 5 6 7;
    ones = in(ymm_reg) _mm256_set1_epi16(1),
    size0 = out(ymm_reg) _, size1 = out(ymm_reg) _, product = out(ymm_reg) _,
);
sums!(vnni_four, "", vnni: 0 1 2 3;);
sums!(vnni_eight, "", vnni: 0 1 2 3 4 5 6 7;);
