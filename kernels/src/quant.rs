//! How weights are stored: plain numbers and GGUF's quantised blocks.

/// A storage format of weights. Quantised ones store rows as blocks of [`Format::block_len`] numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Format {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits, scale f16, blocks of 32.
    Q8_0,
    /// 4 bits, scale f16, blocks of 32.
    Q4_0,
    /// 4 bits, scale and minimum f16, blocks of 32.
    Q4_1,
    /// 5 bits, scale f16, blocks of 32.
    Q5_0,
    /// 5 bits, scale and minimum f16, blocks of 32.
    Q5_1,
    /// 4 bits, 6-bit scales and minimums per 32, blocks of 256.
    Q4_K,
    /// 5 bits, 6-bit scales and minimums per 32, blocks of 256.
    Q5_K,
    /// 6 bits, 8-bit scales per 16, blocks of 256.
    Q6_K,
}

impl Format {
    /// Numbers in a block; a row's length is a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `len` numbers, or `None` if `len` is no multiple of the block's length or the
    /// product overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}
