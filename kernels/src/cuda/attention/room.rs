//! How attention's launches are cut into blocks, and the scratch memory that they need.

use super::{FEW_ROWS, Heads};
use crate::cuda::{Address, Buffer, Device};
use crate::kv::KvFormat;

/// Bytes of counters in front of the scratch: zeros whenever no kernel runs.
const COUNTER_BYTES: usize = 4096;
/// Queries of a warp, and of a block of few rows.
const TILE: usize = 16;
/// Queries of a block of many rows.
const MANY_TILE: usize = 64;
/// Keys in shared memory of a block of many rows.
const MANY_KEYS: usize = 64;
/// Most blocks that share the keys of few rows; more would wait longer for the one that joins them.
const MOST_SPLITS: usize = 64;
/// The same for many rows.
const MOST_MANY_SPLITS: usize = 16;

/// Bytes of scratch that attention of up to `rows` rows needs, of layers of this shape.
pub fn scratch_bytes(
    device: &Device,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rows: usize,
    format: KvFormat,
) -> usize {
    let heads = Heads { heads, kv_heads, dim: head_dim };
    let needed = match format {
        KvFormat::F32 => 4 * rows * heads.heads * head_dim,
        // A device's pages are in no other format.
        KvFormat::F16 | KvFormat::Q8 => {
            let few = Few::new(device, heads, rows.min(FEW_ROWS)).found_bytes();
            few.max(Many::most_bytes(device, heads, rows))
        }
    };
    Room::bytes(needed)
}

/// The scratch: counters, then what a launch needs.
pub struct Room<'a>(&'a Buffer);

impl<'a> Room<'a> {
    pub fn new(scratch: &'a Buffer) -> Self {
        Self(scratch)
    }

    /// Bytes of scratch with so many behind the counters.
    pub fn bytes(needed: usize) -> usize {
        COUNTER_BYTES + needed
    }

    pub fn counters(&self) -> Address {
        self.0.address()
    }

    /// The address behind the counters and so many bytes.
    pub fn behind(&self, bytes: usize) -> Address {
        self.0.address() + (COUNTER_BYTES + bytes) as u64
    }
}

/// Bytes that a split leaves for each query: maximum and total in f32, the mean in f16.
fn found_bytes(width: usize) -> usize {
    8 + 2 * width
}

/// Bytes of rows of heads in shared memory: in f16, each with 16 bytes behind it.
fn shared_bytes(rows: usize, width: usize) -> usize {
    2 * rows * (width + 8)
}

/// How few rows are cut.
pub struct Few {
    pub kernel: &'static str,
    /// Blocks among which the keys are dealt.
    pub splits: usize,
    /// Tiles of 16 queries.
    pub tiles: usize,
    pub warps: usize,
    /// The keys are dealt by `2^chunk` pages.
    pub chunk: usize,
    kv_heads: usize,
    width: usize,
}

impl Few {
    pub fn new(device: &Device, heads: Heads, rows: usize) -> Self {
        let (kernel, width) = match heads.dim {
            0..=32 => ("attend_few_32", 32),
            33..=128 => ("attend_few_128", 128),
            _ => ("attend_few_256", 256),
        };
        let properties = device.properties();
        let splits = (properties.multiprocessors as usize / heads.kv_heads).clamp(1, MOST_SPLITS);
        let mut few = Self {
            kernel,
            splits,
            tiles: (rows * heads.group()).div_ceil(TILE),
            warps: 8,
            chunk: 0,
            kv_heads: heads.kv_heads,
            width,
        };
        if few.shared() > properties.shared_bytes as usize {
            few.warps = 4;
        }
        assert!(4 * few.tiles * heads.kv_heads <= COUNTER_BYTES, "a counter for every tile");
        // Every split leaves a mean for each query of a group: the larger it is, the fewer blocks shall share a short
        // context.
        few.chunk = few.warps.min(heads.group()).ilog2() as usize;
        few
    }

    /// Queries, new keys, new values, and a page of keys and values for each warp.
    pub fn shared(&self) -> usize {
        shared_bytes((3 + 2 * self.warps) * TILE, self.width)
    }

    fn found_bytes(&self) -> usize {
        self.kv_heads * self.tiles * self.splits * TILE * found_bytes(self.width)
    }
}

/// How many rows are cut.
pub struct Many {
    pub kernel: &'static str,
    /// Blocks among which the keys of a tile are dealt, where there are too few tiles to fill the device.
    pub splits: usize,
    /// Tiles of 64 queries.
    pub tiles: usize,
    /// Whether all blocks run at once, so that a long one and a short one shall share a multiprocessor.
    pub paired: bool,
    /// Numbers of a head in the kernel.
    pub width: usize,
    pub rows: usize,
    pub heads: Heads,
}

impl Many {
    pub fn new(device: &Device, heads: Heads, rows: usize) -> Self {
        let (kernel, width) = match heads.dim {
            0..=32 => ("attend_many_32", 32),
            33..=80 => ("attend_many_80", 80),
            81..=128 => ("attend_many_128", 128),
            _ => ("attend_many_256", 256),
        };
        let tiles = (rows * heads.group()).div_ceil(MANY_TILE);
        // Two blocks fit on a multiprocessor.
        let (blocks, units) = (2 * device.properties().multiprocessors as usize, tiles * heads.kv_heads);
        let splits = (blocks / units).clamp(1, MOST_MANY_SPLITS);
        assert!(splits == 1 || 4 * units <= COUNTER_BYTES, "a counter for every tile");
        Self { kernel, splits, tiles, paired: units <= blocks, width, rows, heads }
    }

    /// The tile's queries, and two steps of keys and values.
    pub fn shared(&self) -> usize {
        shared_bytes(MANY_TILE + 2 * MANY_KEYS, self.width)
    }

    /// Bytes of the turned queries.
    pub fn query_bytes(&self) -> usize {
        (2 * self.rows * self.heads.heads * self.width).next_multiple_of(256)
    }

    /// Bytes of what the splits find.
    pub fn found_bytes(&self) -> usize {
        match self.splits {
            1 => 0,
            splits => splits * self.tiles * self.heads.kv_heads * MANY_TILE * found_bytes(self.width),
        }
    }

    /// What any number of rows up to `rows` needs: fewer rows can have more splits.
    fn most_bytes(device: &Device, heads: Heads, rows: usize) -> usize {
        let many = Self::new(device, heads, rows);
        let blocks = 2 * device.properties().multiprocessors as usize;
        let found = blocks.max(heads.kv_heads) * MANY_TILE * found_bytes(many.width);
        many.query_bytes() + found
    }
}
