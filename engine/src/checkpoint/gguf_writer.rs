//! The head of a GGUF file: metadata, and where the bytes of which tensor go. The bytes themselves are the caller's to
//! write, in any order, so that a file need not stand in memory.

use gemma_kernels::Format;

use super::gguf;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;

/// Numbers of the container's value types.
mod kind {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

/// The head of a file in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Header {
    /// Keys in the order of the file, each with its type and value as bytes.
    metadata: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    /// Row-major, slowest first.
    shape: Vec<usize>,
    /// The container's number of its type.
    number: u32,
    bytes: u64,
}

/// Where things stand in a file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// What the file begins with.
    pub(crate) head: Vec<u8>,
    /// Where each tensor begins, counted from the file's beginning.
    pub(crate) starts: Vec<u64>,
    /// The whole file's length.
    pub(crate) len: u64,
}

/// A string of the container: length and bytes.
fn string(text: &[u8]) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text].concat()
}

impl Header {
    /// Sets a key to a value of the container's type `kind`. A key that is there is replaced, in its place.
    fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.raw(key, &[kind.to_le_bytes().as_slice(), value].concat());
    }

    /// Sets a key to the bytes of a type and a value, as another file holds them.
    pub(crate) fn raw(&mut self, key: &str, typed: &[u8]) {
        match self.metadata.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) => *value = typed.to_vec(),
            None => self.metadata.push((key.to_owned(), typed.to_vec())),
        }
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.set(key, kind::U32, &value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.set(key, kind::F32, &value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) {
        self.set(key, kind::BOOL, &[u8::from(value)]);
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        self.set(key, kind::STRING, &string(value.as_bytes()));
    }

    pub(crate) fn strings<'a>(&mut self, key: &str, items: impl ExactSizeIterator<Item = &'a str>) {
        self.array(key, kind::STRING, items.map(|text| string(text.as_bytes())));
    }

    pub(crate) fn f32s(&mut self, key: &str, items: impl ExactSizeIterator<Item = f32>) {
        self.array(key, kind::F32, items.map(f32::to_le_bytes));
    }

    pub(crate) fn i32s(&mut self, key: &str, items: impl ExactSizeIterator<Item = i32>) {
        self.array(key, kind::I32, items.map(i32::to_le_bytes));
    }

    pub(crate) fn u32s(&mut self, key: &str, items: impl ExactSizeIterator<Item = u32>) {
        self.array(key, kind::U32, items.map(u32::to_le_bytes));
    }

    fn array<B: AsRef<[u8]>>(&mut self, key: &str, kind: u32, items: impl ExactSizeIterator<Item = B>) {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((items.len() as u64).to_le_bytes());
        items.for_each(|item| value.extend(item.as_ref()));
        self.set(key, kind::ARRAY, &value);
    }

    /// Adds a tensor of `bytes` bytes, whose type has this number in the container.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], number: u32, bytes: u64) {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), number, bytes });
    }

    /// Where everything goes, in a file of this version of the container (2 and 3 differ in nothing else).
    pub(crate) fn places(&self, version: u32) -> Places {
        let mut head = b"GGUF".to_vec();
        head.extend(version.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            head.extend(string(key.as_bytes()));
            head.extend(value);
        }
        let (mut offsets, mut end) = (Vec::with_capacity(self.tensors.len()), 0);
        for tensor in &self.tensors {
            let offset = u64::next_multiple_of(end, ALIGNMENT);
            end = offset + tensor.bytes;
            offsets.push(offset);
            head.extend(string(tensor.name.as_bytes()));
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&dim| head.extend((dim as u64).to_le_bytes()));
            head.extend(tensor.number.to_le_bytes());
            head.extend(offset.to_le_bytes());
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        let data = head.len() as u64;
        offsets.iter_mut().for_each(|offset| *offset += data);
        Places { head, starts: offsets, len: data + end.next_multiple_of(ALIGNMENT) }
    }
}

/// The container's number of a format.
pub(crate) fn number(format: Format) -> u32 {
    gguf::NUMBERS.iter().find(|(known, _)| *known == format).map_or(u32::MAX, |(_, number)| *number)
}
