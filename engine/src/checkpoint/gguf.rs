//! The GGUF container, versions 2 and 3: metadata and the places of tensors, read from mapped bytes.
//!
//! **Invariant:** nothing is allocated for what a length field promises before the bytes are seen to be
//! there, and strings and arrays stay where they are in the file: a hostile header costs nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use gemma_kernels::Format;

use crate::error::{Error, ErrorKind, Result};

/// Arrays of arrays deeper than this are refused; no writer makes any.
const MAX_NESTING: usize = 4;

/// Tensors have at most this many dimensions.
const MAX_DIMS: usize = 4;

/// A metadata value; strings and arrays are places in the file.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(Range<usize>),
    Array(Array),
}

/// An array in the metadata: `len` items of `item` in `range` of the file, seen to be all there.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    item: ItemType,
    len: usize,
    range: Range<usize>,
}

/// The types of metadata values, by their number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// Where a tensor stands and what it is.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// llama.cpp's name.
    pub(crate) name: String,
    /// Row-major, slowest first: ggml's dimensions reversed.
    pub(crate) shape: Vec<usize>,
    /// The storage type by its number in the file, if this engine knows it.
    pub(crate) format: Result<Format, u32>,
    /// Bytes of the file, seen to be there; empty if the type is unknown.
    pub(crate) range: Range<usize>,
}

/// The parsed header of a GGUF file.
#[derive(Debug)]
pub(crate) struct Gguf {
    metadata: HashMap<String, Value>,
    entries: Vec<(String, Range<usize>)>,
    tensors: Vec<GgufTensor>,
}

impl Gguf {
    /// Reads the header in `bytes`, the whole file. `path` is for messages.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let mut cursor = Cursor { bytes, at: 0, path };
        let (tensor_count, metadata_count) = read_preamble(&mut cursor)?;
        let (metadata, entries) = read_metadata(&mut cursor, metadata_count)?;
        let mut tensors = read_tensor_infos(&mut cursor, tensor_count)?;
        let alignment = alignment_of(&metadata, path)?;
        let data = cursor
            .at
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| cursor.broken("general.alignment", "is too large for this file"))?;
        for tensor in &mut tensors {
            place_tensor(tensor, data, alignment, bytes.len(), path)?;
        }
        Ok(Self { metadata, entries, tensors })
    }

    /// All tensors, in the order of the file.
    pub(crate) fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The metadata in the order of the file: keys, and where each one's type and value stand.
    pub(crate) fn entries(&self) -> &[(String, Range<usize>)] {
        &self.entries
    }

    /// A metadata value.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A metadata string; `None` too if it is not UTF-8 or not a string.
    pub(crate) fn str<'a>(&self, bytes: &'a [u8], key: &str) -> Option<&'a str> {
        match self.get(key)? {
            Value::String(range) => std::str::from_utf8(bytes.get(range.clone())?).ok(),
            _ => None,
        }
    }

    /// Whether the file adds to a model and is none itself.
    pub(crate) fn is_adapter(&self, bytes: &[u8]) -> bool {
        self.str(bytes, "general.type") == Some("adapter")
    }

    /// A metadata array.
    pub(crate) fn array(&self, key: &str) -> Option<&Array> {
        match self.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl Value {
    /// The value as a non-negative integer, whatever width the writer chose.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The value as a token id.
    pub(crate) fn as_u32(&self) -> Option<u32> {
        self.as_u64().and_then(|value| u32::try_from(value).ok())
    }

    /// The value as a float.
    pub(crate) fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::Float(value) => Some(value as f32),
            Self::Unsigned(value) => Some(value as f32),
            Self::Signed(value) => Some(value as f32),
            _ => None,
        }
    }
}

impl Array {
    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The strings of a string array as raw bytes; `None` if its items are something else.
    pub(crate) fn strings<'a>(&self, bytes: &'a [u8]) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        (self.item == ItemType::String).then_some(())?;
        let mut rest = bytes.get(self.range.clone())?;
        let len = self.len;
        Some((0..len).map_while(move |_| {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            let (string, tail) = tail.split_at_checked(usize::try_from(u64::from_le_bytes(*head)).ok()?)?;
            rest = tail;
            Some(string)
        }))
    }

    /// The numbers of a float or integer array; `None` if its items are something else.
    pub(crate) fn numbers<'a>(&self, bytes: &'a [u8]) -> Option<impl Iterator<Item = f64> + use<'a>> {
        let item = self.item;
        let size = item.size()?;
        let data = bytes.get(self.range.clone())?;
        Some(data.chunks_exact(size).map(move |chunk| {
            let mut cursor = Cursor { bytes: chunk, at: 0, path: Path::new("") };
            match cursor.scalar(item) {
                Ok(Value::Unsigned(value)) => value as f64,
                Ok(Value::Signed(value)) => value as f64,
                Ok(Value::Float(value)) => value,
                Ok(Value::Bool(value)) => f64::from(u8::from(value)),
                _ => f64::NAN,
            }
        }))
    }
}

impl ItemType {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of an item, if all items have the same size.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// A place in the file that moves forward and never past the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn broken(&self, field: &str, problem: &str) -> Error {
        broken(self.path, field, problem)
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, len: usize, field: &str) -> Result<&'a [u8]> {
        let taken = self
            .at
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| self.broken(field, "the file ends in the middle of it"))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A length or count; one that does not fit `usize` cannot be true of this file.
    fn len(&mut self, field: &str) -> Result<usize> {
        let value = self.u64(field)?;
        usize::try_from(value).map_err(|_| self.broken(field, "has an impossible length"))
    }

    fn string_range(&mut self, field: &str) -> Result<Range<usize>> {
        let len = self.len(field)?;
        let start = self.at;
        self.take(len, field)?;
        Ok(start..self.at)
    }

    fn name(&mut self, field: &str) -> Result<String> {
        let range = self.string_range(field)?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(self.broken(field, "has a name that is empty or not UTF-8")),
        }
    }

    fn item_type(&mut self, field: &str) -> Result<ItemType> {
        let number = self.u32(field)?;
        ItemType::from_number(number)
            .ok_or_else(|| self.broken(field, &format!("has the unknown value type {number}")))
    }

    fn scalar(&mut self, item: ItemType) -> Result<Value> {
        const FIELD: &str = "a metadata value";
        Ok(match item {
            ItemType::U8 => Value::Unsigned(u8::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::I8 => Value::Signed(i8::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::U16 => Value::Unsigned(u16::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::I16 => Value::Signed(i16::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::U32 => Value::Unsigned(self.u32(FIELD)?.into()),
            ItemType::I32 => Value::Signed(i32::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::U64 => Value::Unsigned(self.u64(FIELD)?),
            ItemType::I64 => Value::Signed(i64::from_le_bytes(self.array(FIELD)?)),
            ItemType::F32 => Value::Float(f32::from_le_bytes(self.array(FIELD)?).into()),
            ItemType::F64 => Value::Float(f64::from_le_bytes(self.array(FIELD)?)),
            ItemType::Bool => Value::Bool(self.array::<1>(FIELD)? != [0]),
            ItemType::String => Value::String(self.string_range(FIELD)?),
            ItemType::Array => return Err(self.broken(FIELD, "is an array out of place")),
        })
    }

    fn value(&mut self, item: ItemType, key: &str) -> Result<Value> {
        match item {
            ItemType::Array => Ok(Value::Array(self.array_value(key, 0)?)),
            ItemType::String => Ok(Value::String(self.string_range(key)?)),
            scalar => self.scalar(scalar).map_err(|_| self.broken(key, "the file ends in the middle of it")),
        }
    }

    /// Walks over an array, so that its place is known to be inside the file.
    fn array_value(&mut self, key: &str, depth: usize) -> Result<Array> {
        if depth >= MAX_NESTING {
            return Err(self.broken(key, "is nested too deeply"));
        }
        let item = self.item_type(key)?;
        let len = self.len(key)?;
        let start = self.at;
        if let Some(size) = item.size() {
            let total = len.checked_mul(size).ok_or_else(|| self.broken(key, "has an impossible length"))?;
            self.take(total, key)?;
        } else {
            for _ in 0..len {
                if item == ItemType::Array {
                    self.array_value(key, depth + 1)?;
                } else {
                    self.string_range(key)?;
                }
            }
        }
        Ok(Array { item, len, range: start..self.at })
    }
}

fn broken(path: &Path, field: &str, problem: &str) -> Error {
    Error::new(ErrorKind::BadFile, path.display(), format_args!("broken GGUF file: {field} {problem}"))
        .remedy("Compare its size and SHA-256 with the place it came from and download it again.")
}

fn unsupported(path: &Path, problem: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::Unsupported, path.display(), problem).remedy(remedy)
}

/// Magic, version, number of tensors, number of metadata entries.
fn read_preamble(cursor: &mut Cursor<'_>) -> Result<(usize, usize)> {
    if cursor.take(4, "the magic number")? != b"GGUF" {
        return Err(Error::new(
            ErrorKind::BadFile,
            cursor.path.display(),
            "does not begin with `GGUF`: no GGUF file",
        )
        .remedy("Give a .gguf file or a HuggingFace folder."));
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        1 => {
            return Err(unsupported(
                cursor.path,
                "GGUF version 1 is not supported",
                "Make the file again with a current llama.cpp converter, or download a newer one.",
            ));
        }
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err(unsupported(
                cursor.path,
                "this is a big-endian GGUF file",
                "Download the little-endian file of the same model.",
            ));
        }
        version => {
            return Err(unsupported(
                cursor.path,
                &format!("GGUF version {version} is not supported (2 and 3 are)"),
                "Look for a newer gemma-ls, or make the file again in version 3.",
            ));
        }
    }
    Ok((cursor.len("the number of tensors")?, cursor.len("the number of metadata entries")?))
}

type Metadata = (HashMap<String, Value>, Vec<(String, Range<usize>)>);

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata> {
    /// Bytes of the shortest entry: length of a one-letter key, the letter, its type, a one-byte value.
    const SHORTEST: usize = 8 + 1 + 4 + 1;
    if count > cursor.remaining() / SHORTEST {
        return Err(
            cursor.broken("the number of metadata entries", &format!("({count}) does not fit into the file"))
        );
    }
    let (mut metadata, mut entries) = (HashMap::new(), Vec::new());
    for index in 0..count {
        let key = cursor.name(&format!("metadata entry {index}"))?;
        let start = cursor.at;
        let item = cursor.item_type(&key)?;
        let value = cursor.value(item, &key)?;
        if metadata.contains_key(&key) {
            return Err(cursor.broken(&key, "stands twice in the metadata"));
        }
        entries.push((key.clone(), start..cursor.at));
        metadata.insert(key, value);
    }
    Ok((metadata, entries))
}

fn read_tensor_infos(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<GgufTensor>> {
    /// Bytes of the shortest entry: length of a one-letter name, the letter, no dimensions, type, offset.
    const SHORTEST: usize = 8 + 1 + 4 + 4 + 8;
    if count > cursor.remaining() / SHORTEST {
        return Err(cursor.broken("the number of tensors", &format!("({count}) does not fit into the file")));
    }
    let mut tensors = Vec::with_capacity(count);
    for index in 0..count {
        let name = cursor.name(&format!("tensor {index}"))?;
        let dims = cursor.u32(&name)? as usize;
        if dims > MAX_DIMS {
            return Err(cursor.broken(&name, &format!("has {dims} dimensions, the format allows {MAX_DIMS}")));
        }
        let mut shape = Vec::with_capacity(dims);
        for _ in 0..dims {
            shape.push(cursor.len(&name)?);
        }
        shape.reverse();
        let format = format_of(cursor.u32(&name)?);
        // The offset counts from the end of the header, which is not known yet: see `place_tensor`.
        let offset = cursor.len(&name)?;
        tensors.push(GgufTensor { name, shape, format, range: offset..offset });
    }
    Ok(tensors)
}

fn alignment_of(metadata: &HashMap<String, Value>, path: &Path) -> Result<usize> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(32) };
    match value.as_u64().and_then(|a| usize::try_from(a).ok()) {
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment),
        _ => Err(broken(path, "general.alignment", "is not a power of two")),
    }
}

/// Turns a tensor's offset into its range in the file and checks that it is there.
fn place_tensor(
    tensor: &mut GgufTensor,
    data: usize,
    alignment: usize,
    file_len: usize,
    path: &Path,
) -> Result<()> {
    let Ok(format) = tensor.format else {
        // Its size is unknown; whoever needs this tensor says that its type is not supported.
        tensor.range = 0..0;
        return Ok(());
    };
    let impossible = || broken(path, &tensor.name, &format!("has the impossible shape {:?}", tensor.shape));
    let row = tensor.shape.last().copied().unwrap_or(1);
    let rows = tensor
        .shape
        .iter()
        .rev()
        .skip(1)
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(impossible)?;
    let len = format.row_bytes(row).and_then(|bytes| bytes.checked_mul(rows)).ok_or_else(impossible)?;
    if !tensor.range.start.is_multiple_of(alignment) {
        let problem = format!("begins at {}, which is no multiple of {alignment}", tensor.range.start);
        return Err(broken(path, &tensor.name, &problem));
    }
    let start = data.checked_add(tensor.range.start);
    match start.and_then(|start| Some(start..start.checked_add(len)?)) {
        Some(range) if range.end <= file_len => {
            tensor.range = range;
            Ok(())
        }
        _ => Err(Error::new(
            ErrorKind::BadFile,
            path.display(),
            format_args!(
                "tensor {} stands behind the end of the file ({file_len} bytes): it is truncated",
                tensor.name
            ),
        )
        .remedy("The download was probably cut off: download the file again.")),
    }
}

/// The storage formats that this engine knows, and their numbers in the file.
pub(super) const NUMBERS: [(Format, u32); 11] = [
    (Format::F32, 0),
    (Format::F16, 1),
    (Format::Q4_0, 2),
    (Format::Q4_1, 3),
    (Format::Q5_0, 6),
    (Format::Q5_1, 7),
    (Format::Q8_0, 8),
    (Format::Q4_K, 12),
    (Format::Q5_K, 13),
    (Format::Q6_K, 14),
    (Format::BF16, 30),
];

/// The storage format behind a ggml type number.
fn format_of(number: u32) -> Result<Format, u32> {
    NUMBERS.iter().find(|(_, known)| *known == number).map(|(format, _)| *format).ok_or(number)
}

/// `general.architecture` as it stands in the first bytes of a file, which need not be all of it.
pub(crate) fn architecture_at_start(start: &[u8]) -> Option<String> {
    const KEY: &str = "general.architecture";
    let mut cursor = Cursor { bytes: start, at: 0, path: Path::new("") };
    let (_, count) = read_preamble(&mut cursor).ok()?;
    for _ in 0..count {
        let key = cursor.name(KEY).ok()?;
        let item = cursor.item_type(KEY).ok()?;
        let value = cursor.value(item, KEY).ok()?;
        if let (KEY, Value::String(range)) = (key.as_str(), value) {
            return Some(std::str::from_utf8(start.get(range)?).ok()?.to_owned());
        }
    }
    None
}

/// What ggml calls a type, for messages.
pub(crate) fn type_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("number {other}"),
    };
    name.to_owned()
}
