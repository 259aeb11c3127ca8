//! Attention on a device: over pages for few rows, for many, and exactly; without a mask for pictures.
//!
//! What the arguments have in common is in [`Attend`]. The kernels know neither windows nor masks: each row has one
//! range of keys in [`Place`].

mod dense;
mod room;

pub use dense::{Dense, attend_dense, dense_scratch_bytes};
pub use room::scratch_bytes;

use room::Room;

use super::{Address, Arg, Buffer, CudaError, Device, Launch, Place};
use crate::kv::{KvFormat, KvLayout, PAGE_TOKENS};

/// The most rows that [`attend_few`] takes.
pub const FEW_ROWS: usize = 16;

/// What is done to queries and keys before they meet.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// f32 `[head_dim]`: the weight of the queries' RMSNorm, if the model has one.
    pub q_norm: Option<&'a Buffer>,
    /// The same for the keys.
    pub k_norm: Option<&'a Buffer>,
    /// What the norms add to the mean square.
    pub eps: f32,
    /// f32 `[rotated / 2]`: the rotation's angle is position times frequency; the first `rotated` numbers of a head
    /// are rotated, their first half against their second.
    pub frequencies: &'a Buffer,
}

/// Arguments of [`attend_few`], [`attend_many`] and [`attend_exact`].
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// f32 `[n, (heads + 2 kv_heads) * head_dim]`: queries, keys and values as their product gives them.
    pub qkv: &'a Buffer,
    /// Where the rows stand, what they see, and the pages.
    pub place: &'a Place,
    /// Which of the place's sights this layer has.
    pub sight: usize,
    /// Where the layer's keys and values stand in a page.
    pub layout: &'a KvLayout,
    /// The layer in the layout.
    pub layer: usize,
    /// Query heads; query head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// What `q . k` is multiplied with.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Norms and rotation.
    pub turn: Turn<'a>,
    /// As long as [`scratch_bytes`] says, filled with zeros once; all layers may share it.
    pub scratch: &'a Buffer,
    /// `[n, heads * head_dim]`, overwritten: bf16, from [`attend_exact`] f32.
    pub out: &'a Buffer,
}

/// Whether [`attend_few`] and [`attend_many`] know heads of this width: even up to 32, multiples of 8 up to 256.
pub fn supports(head_dim: usize) -> bool {
    match head_dim {
        0..=32 => head_dim > 0 && head_dim.is_multiple_of(2),
        _ => head_dim <= 256 && head_dim.is_multiple_of(8),
    }
}

/// The heads of a layer, as kernels for f16 see them.
#[derive(Debug, Clone, Copy)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

impl Heads {
    /// Query heads of a key head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }
}

impl<'a> Attend<'a> {
    fn device(&self) -> &'a Device {
        self.qkv.device()
    }

    fn shape(&self) -> Heads {
        let (kv_heads, dim) = (self.layout.kv_heads(self.layer), self.layout.head_dim(self.layer));
        Heads { heads: self.heads, kv_heads, dim }
    }

    /// Panics where a buffer is too short or a shape does not fit.
    fn check(&self, format: KvFormat) {
        let (n, Heads { heads, kv_heads, dim }) = (self.place.rows(), self.shape());
        let exact = format == KvFormat::F32;
        assert!(n > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads}");
        assert_eq!(self.layout.format(), format, "the kernel is for this format");
        assert_eq!(self.place.page_bytes(), self.layout.page_bytes(), "pages are of this layout");
        assert!(exact || supports(dim), "heads of {dim} are supported");
        assert!(self.qkv.bytes() >= 4 * n * (heads + 2 * kv_heads) * dim, "queries, keys and values");
        assert!(self.out.bytes() >= n * heads * dim * if exact { 4 } else { 2 }, "room for the result");
        let norms = [self.turn.q_norm, self.turn.k_norm].into_iter().flatten();
        norms.for_each(|norm| assert_eq!(norm.bytes(), 4 * dim, "a norm's weight is as wide as a head"));
        assert!(
            self.turn.frequencies.bytes().is_multiple_of(4) && self.rotated() <= dim,
            "rotated in the head"
        );
        let needed = scratch_bytes(self.device(), heads, kv_heads, dim, n, format);
        assert!(self.scratch.bytes() >= needed, "scratch of {needed} bytes");
    }

    /// Numbers of a head that are rotated.
    fn rotated(&self) -> usize {
        2 * (self.turn.frequencies.bytes() / 4)
    }

    fn key(&self) -> Arg {
        int(self.layout.key(self.layer, 0))
    }

    fn value(&self) -> Arg {
        int(self.layout.value(self.layer, 0))
    }

    /// Table, head and this sight's ranges.
    fn standing(&self) -> [Arg; 3] {
        let place = self.place;
        [place.pages(), place.head(), place.ranges(self.sight)].map(Arg::Address)
    }

    /// Weights of the norms and frequencies.
    fn turning(&self) -> [Arg; 3] {
        let norm = |norm: Option<&Buffer>| norm.map_or(0, Buffer::address);
        [norm(self.turn.q_norm), norm(self.turn.k_norm), self.turn.frequencies.address()].map(Arg::Address)
    }

    /// Turns queries to the scratch's room, heads of `padded` numbers, and stores keys and values.
    fn turn_rows(&self, kernel: &'static str, q: Address, padded: usize) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, dim } = self.shape();
        let mut args = vec![Arg::Address(self.qkv.address())];
        args.extend(self.standing().into_iter().take(2));
        args.extend(self.turning());
        args.push(Arg::Address(q));
        args.extend([self.rotated(), heads, kv_heads, dim, padded].map(int));
        args.extend([self.key(), self.value(), Arg::Float(self.turn.eps)]);
        let grid = [self.place.rows() as u32, (heads + 2 * kv_heads).div_ceil(4) as u32, 1];
        let launch = Launch { kernel, grid, block: 128, shared: 0, overlaps: true, args: &args };
        // SAFETY: the arguments are the kernel's; `check` measured what it reads, and the place's pages, which have room
        // for all rows, are of this layout.
        unsafe { self.device().launch(&launch) }
    }
}

/// An index or a size as a kernel takes it.
fn int(number: usize) -> Arg {
    Arg::Int(i32::try_from(number).expect("numbers of kernels stay below 2^31"))
}

/// At most [`FEW_ROWS`] rows over pages in f16, in one launch: norms, rotation, the store of the new keys and values,
/// attention. A row's bits do not depend on the rows beside it.
///
/// The launch's shape depends on the model and the number of rows alone.
///
/// It reads the place and the keys before the pass while the launch in front of it may still run: what wrote them must
/// be done before any launch of the pass begins. [`Place::set`] sees to that where each pass begins with it, since no
/// launch overtakes its copy.
pub fn attend_few(args: &Attend<'_>) -> Result<(), CudaError> {
    args.check(KvFormat::F16);
    let (n, device, heads) = (args.place.rows(), args.device(), args.shape());
    assert!(n <= FEW_ROWS, "{n} rows are few");
    let few = room::Few::new(device, heads, n);
    let room = Room::new(args.scratch);
    let cap = args.soft_cap.unwrap_or(0.0);
    let mut words = vec![Arg::Address(args.qkv.address())];
    words.extend(args.standing());
    words.extend(args.turning());
    words.extend([room.counters(), room.behind(0), args.out.address()].map(Arg::Address));
    words.extend([n, heads.heads, heads.kv_heads, heads.dim, args.rotated()].map(int));
    words.extend([args.key(), args.value(), int(few.chunk)]);
    words.extend([args.turn.eps, args.scale, cap].map(Arg::Float));
    let launch = Launch {
        kernel: few.kernel,
        grid: [few.splits as u32, few.tiles as u32, heads.kv_heads as u32],
        block: 32 * few.warps as u32,
        shared: few.shared() as u32,
        overlaps: true,
        args: &words,
    };
    // SAFETY: the arguments are the kernel's; `check` measured what it reads and writes.
    unsafe { device.launch(&launch) }
}

/// Any number of rows over pages in f16: a launch that turns and stores, then flash attention.
pub fn attend_many(args: &Attend<'_>) -> Result<(), CudaError> {
    args.check(KvFormat::F16);
    let (n, device, heads) = (args.place.rows(), args.device(), args.shape());
    let many = room::Many::new(device, heads, n);
    let room = Room::new(args.scratch);
    let (q, found) = (room.behind(0), room.behind(many.query_bytes()));
    args.turn_rows("attend_turn", q, many.width)?;
    let [table, head, ranges] = args.standing();
    let flash = Flash { q, table, head, ranges, counters: room.counters(), found, out: args.out.address() };
    let numbers = Numbers { dim: heads.dim, written: heads.dim, key: args.key(), value: args.value() };
    // SAFETY: `check` measured what is read and written; queries and what splits find have room in the scratch.
    unsafe { flash.launch(device, &many, numbers, args.scale, args.soft_cap) }
}

/// Any number of rows over pages in f32, with f32 sums: what is held against golden data.
pub fn attend_exact(args: &Attend<'_>) -> Result<(), CudaError> {
    args.check(KvFormat::F32);
    let (n, heads) = (args.place.rows(), args.shape());
    let q = Room::new(args.scratch).behind(0);
    args.turn_rows("attend_turn_exact", q, heads.dim)?;
    let exact = Exact { q, standing: args.standing(), out: args.out.address(), n, heads };
    // SAFETY: `check` measured what is read and written; the queries have room in the scratch.
    unsafe { exact.launch(args.device(), args.key(), args.value(), args.scale, args.soft_cap) }
}

/// Addresses of a launch of flash attention.
struct Flash {
    q: Address,
    table: Arg,
    head: Arg,
    ranges: Arg,
    counters: Address,
    found: Address,
    out: Address,
}

/// Numbers of a key that are read and of a result that are written; where the layer's keys and values begin in a page.
struct Numbers {
    dim: usize,
    written: usize,
    key: Arg,
    value: Arg,
}

impl Flash {
    /// # Safety
    /// The addresses are those of memory as long as the kernel has it.
    unsafe fn launch(
        self,
        device: &Device,
        many: &room::Many,
        numbers: Numbers,
        scale: f32,
        cap: Option<f32>,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, .. } = many.heads;
        let mut args = vec![Arg::Address(self.q), self.table, self.head, self.ranges];
        args.extend([self.counters, self.found, self.out].map(Arg::Address));
        args.extend([many.rows, heads, kv_heads, numbers.dim, numbers.written].map(int));
        args.extend([numbers.key, numbers.value, int(many.paired.into())]);
        args.extend([scale, cap.unwrap_or(0.0)].map(Arg::Float));
        let launch = Launch {
            kernel: many.kernel,
            grid: [kv_heads as u32, many.tiles as u32, many.splits as u32],
            block: 128,
            shared: many.shared() as u32,
            overlaps: true,
            args: &args,
        };
        // SAFETY: the arguments are the kernel's, and the caller vouches for the memory.
        unsafe { device.launch(&launch) }
    }
}

/// A launch of exact attention.
struct Exact {
    q: Address,
    standing: [Arg; 3],
    out: Address,
    n: usize,
    heads: Heads,
}

impl Exact {
    /// # Safety
    /// The addresses are those of memory as long as the kernel has it.
    unsafe fn launch(
        self,
        device: &Device,
        key: Arg,
        value: Arg,
        scale: f32,
        cap: Option<f32>,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, dim } = self.heads;
        let mut args = vec![Arg::Address(self.q)];
        args.extend(self.standing);
        args.push(Arg::Address(self.out));
        args.extend([heads, kv_heads, dim].map(int));
        args.extend([key, value, Arg::Float(scale), Arg::Float(cap.unwrap_or(0.0))]);
        let launch = Launch {
            kernel: "attend_exact",
            grid: [self.n as u32, heads as u32, 1],
            block: 128,
            shared: 4 * (2 * dim as u32 + 256),
            overlaps: true,
            args: &args,
        };
        // SAFETY: the arguments are the kernel's, and the caller vouches for the memory.
        unsafe { device.launch(&launch) }
    }
}

const _: () = assert!(PAGE_TOKENS == 16, "the kernels' pages have 16 tokens");
