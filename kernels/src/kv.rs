//! Keys and values of a few tokens of a sequence, all layers together: the unit in which a cache
//! shares, copies and frees them.

use half::f16;

use crate::cuda::DevicePage;

/// Tokens in a page. A multiple of 16, so that a position's SIMD lane is its own whatever comes before.
pub const PAGE_TOKENS: usize = 16;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// As computed.
    F32,
    /// Rounded to half precision.
    F16,
    /// Rounded to 8 bits, with one scale in f16 for each key and each value of a head: a number moves by at
    /// most half of 1/127 of the row's greatest, and by what rounding the scale costs, 2^-11 of itself. Pages on a
    /// device are never in this format.
    Q8,
}

impl KvFormat {
    /// Bytes of a key, or a value, of `numbers` numbers.
    pub const fn row_bytes(self, numbers: usize) -> usize {
        match self {
            Self::F32 => 4 * numbers,
            Self::F16 => 2 * numbers,
            Self::Q8 => numbers + size_of::<f16>(),
        }
    }

    /// Bytes of an element of a page.
    const fn element(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8 => 1,
        }
    }
}

/// Where things stand in a page: for each layer the keys `[kv_heads, PAGE_TOKENS, head_dim]`, then
/// the values alike; in 8 bits then the keys' scales `[kv_heads, PAGE_TOKENS]`, and the values'. Indices count
/// numbers, where a page is in 8 bits bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvLayout {
    format: KvFormat,
    layers: Vec<KvLayer>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KvLayer {
    offset: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl KvLayout {
    /// A layout for layers given as `(kv_heads, head_dim)`.
    pub fn new(format: KvFormat, layers: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut len = 0;
        let layers = layers
            .into_iter()
            .map(|(kv_heads, head_dim)| {
                let layer = KvLayer { offset: len, kv_heads, head_dim };
                len += 2 * kv_heads * PAGE_TOKENS * format.row_bytes(head_dim) / format.element();
                layer
            })
            .collect();
        Self { format, layers, len }
    }

    /// How numbers are stored.
    pub fn format(&self) -> KvFormat {
        self.format
    }
    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.len * self.format.element()
    }
    /// Key and value heads of a layer.
    pub fn kv_heads(&self, layer: usize) -> usize {
        self.layers[layer].kv_heads
    }
    /// Width of a head of a layer.
    pub fn head_dim(&self, layer: usize) -> usize {
        self.layers[layer].head_dim
    }
    /// Index in the page of the first key of a head.
    pub fn key(&self, layer: usize, head: usize) -> usize {
        let l = &self.layers[layer];
        l.offset + head * PAGE_TOKENS * l.head_dim
    }
    /// Index in the page of the first value of a head.
    pub fn value(&self, layer: usize, head: usize) -> usize {
        self.key(layer, self.layers[layer].kv_heads + head)
    }
    /// Index in a page of 8 bits of the scale of a head's first key; the other keys' follow it.
    pub fn key_scale(&self, layer: usize, head: usize) -> usize {
        let l = &self.layers[layer];
        self.key(layer, 2 * l.kv_heads) + head * PAGE_TOKENS * size_of::<f16>()
    }
    /// Index in a page of 8 bits of the scale of a head's first value; the other values' follow it.
    pub fn value_scale(&self, layer: usize, head: usize) -> usize {
        self.key_scale(layer, self.layers[layer].kv_heads + head)
    }
}

/// Keys and values of [`PAGE_TOKENS`] tokens.
#[derive(Debug, Clone)]
pub enum KvPage {
    /// In f32.
    F32(Box<[f32]>),
    /// In f16.
    F16(Box<[f16]>),
    /// In 8 bits with scales.
    Q8(Box<[u8]>),
    /// On a device; only its kernels read and write it.
    Device(DevicePage),
}

impl KvPage {
    /// A page of zeros.
    pub fn new(layout: &KvLayout) -> Self {
        match layout.format {
            KvFormat::F32 => Self::F32(vec![0.0; layout.len].into_boxed_slice()),
            KvFormat::F16 => Self::F16(vec![f16::ZERO; layout.len].into_boxed_slice()),
            KvFormat::Q8 => Self::Q8(vec![0; layout.len].into_boxed_slice()),
        }
    }

    /// Stores one token's keys and values `[kv_heads * head_dim]` of a layer at `slot < PAGE_TOKENS`.
    pub fn store(&mut self, layout: &KvLayout, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let dim = layout.head_dim(layer);
        for head in 0..layout.kv_heads(layer) {
            let part = head * dim..(head + 1) * dim;
            let (key, value) = (layout.key(layer, head), layout.value(layer, head));
            let scales = [layout.key_scale(layer, head), layout.value_scale(layer, head)];
            self.put(key + slot * dim, scales[0] + slot * size_of::<f16>(), &keys[part.clone()]);
            self.put(value + slot * dim, scales[1] + slot * size_of::<f16>(), &values[part]);
        }
    }

    /// Stores a row at an index, its scale, if it has one, at another.
    fn put(&mut self, at: usize, scale_at: usize, numbers: &[f32]) {
        use half::slice::HalfFloatSliceExt;
        match self {
            Self::F32(page) => page[at..at + numbers.len()].copy_from_slice(numbers),
            Self::F16(page) => page[at..at + numbers.len()].convert_from_f32_slice(numbers),
            Self::Q8(page) => {
                let scale = quantize(numbers, &mut page[at..at + numbers.len()]);
                page[scale_at..scale_at + size_of::<f16>()].copy_from_slice(&scale.to_le_bytes());
            }
            Self::Device(_) => unreachable!("a device's page is written by its kernels"),
        }
    }

    /// Number `i` of a layer's key of a head at `slot`.
    pub fn key(&self, layout: &KvLayout, layer: usize, head: usize, slot: usize, i: usize) -> f32 {
        let at = layout.key(layer, head) + slot * layout.head_dim(layer) + i;
        self.number(at, layout.key_scale(layer, head), slot)
    }

    /// Number `i` of a layer's value of a head at `slot`.
    pub fn value(&self, layout: &KvLayout, layer: usize, head: usize, slot: usize, i: usize) -> f32 {
        let at = layout.value(layer, head) + slot * layout.head_dim(layer) + i;
        self.number(at, layout.value_scale(layer, head), slot)
    }

    fn number(&self, at: usize, scales: usize, slot: usize) -> f32 {
        match self {
            Self::F32(page) => page[at],
            Self::F16(page) => page[at].to_f32(),
            Self::Q8(page) => f32::from(page[at] as i8) * self.scale(scales, slot),
            Self::Device(_) => unreachable!("a device's page is read by its kernels"),
        }
    }

    /// The scale of a slot of a page in 8 bits, the head's scales being at `scales`; 1 where there are none.
    pub(crate) fn scale(&self, scales: usize, slot: usize) -> f32 {
        match self {
            Self::Q8(page) => {
                let at = scales + slot * size_of::<f16>();
                f16::from_le_bytes([page[at], page[at + 1]]).to_f32()
            }
            Self::F32(_) | Self::F16(_) | Self::Device(_) => 1.0,
        }
    }
}

/// Rounds a row to 8 bits; what they are to be multiplied with.
fn quantize(numbers: &[f32], to: &mut [u8]) -> f16 {
    let greatest = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // A scale that is rounded down makes the greatest numbers end at 127 all the same.
    let scale = f16::from_f32(greatest / 127.0);
    let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
    for (to, x) in to.iter_mut().zip(numbers) {
        *to = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
    }
    scale
}
