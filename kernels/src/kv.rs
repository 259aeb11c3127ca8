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
}

impl KvFormat {
    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Where things stand in a page: for each layer the keys `[kv_heads, PAGE_TOKENS, head_dim]`, then
/// the values alike.
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
                len += 2 * kv_heads * PAGE_TOKENS * head_dim;
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
        self.len * self.format.bytes()
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
        let l = &self.layers[layer];
        l.offset + (l.kv_heads + head) * PAGE_TOKENS * l.head_dim
    }
}

/// Keys and values of [`PAGE_TOKENS`] tokens.
#[derive(Debug, Clone)]
pub enum KvPage {
    /// In f32.
    F32(Box<[f32]>),
    /// In f16.
    F16(Box<[f16]>),
    /// On a device; only its kernels read and write it.
    Device(DevicePage),
}

impl KvPage {
    /// A page of zeros.
    pub fn new(layout: &KvLayout) -> Self {
        match layout.format {
            KvFormat::F32 => Self::F32(vec![0.0; layout.len].into_boxed_slice()),
            KvFormat::F16 => Self::F16(vec![f16::ZERO; layout.len].into_boxed_slice()),
        }
    }

    /// Stores one token's keys and values `[kv_heads * head_dim]` of a layer at `slot < PAGE_TOKENS`.
    pub fn store(&mut self, layout: &KvLayout, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let dim = layout.head_dim(layer);
        for head in 0..layout.kv_heads(layer) {
            let part = head * dim..(head + 1) * dim;
            self.put(layout.key(layer, head) + slot * dim, &keys[part.clone()]);
            self.put(layout.value(layer, head) + slot * dim, &values[part]);
        }
    }

    fn put(&mut self, at: usize, numbers: &[f32]) {
        use half::slice::HalfFloatSliceExt;
        match self {
            Self::F32(page) => page[at..at + numbers.len()].copy_from_slice(numbers),
            Self::F16(page) => page[at..at + numbers.len()].convert_from_f32_slice(numbers),
            Self::Device(_) => unreachable!("a device's page is written by its kernels"),
        }
    }

    /// Number at an index of the page.
    pub fn get(&self, at: usize) -> f32 {
        match self {
            Self::F32(page) => page[at],
            Self::F16(page) => page[at].to_f32(),
            Self::Device(_) => unreachable!("a device's page is read by its kernels"),
        }
    }
}
