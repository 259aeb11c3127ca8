//! Attention without a mask or a cache, for the tower that reads pictures: every query sees every key.
//!
//! A first launch brings heads into the layout of pages, so that the kernels are those of attention over pages.

use super::room::{Many, Room};
use super::{Exact, Flash, Heads, Numbers, int};
use crate::cuda::{Arg, Buffer, CudaError, Device, Launch, Strided};
use crate::kv::PAGE_TOKENS;

/// Arguments of [`attend_dense`].
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    /// f32 rows of `heads * head_dim` numbers, as many as there are queries.
    pub q: Strided<'a>,
    /// The same for keys.
    pub k: Strided<'a>,
    /// The same for values, as many as keys.
    pub v: Strided<'a>,
    /// How many queries.
    pub queries: usize,
    /// How many keys.
    pub keys: usize,
    /// Heads of all three.
    pub heads: usize,
    /// Width of a head: at most 256, or any for `exact`.
    pub head_dim: usize,
    /// What `q . k` is multiplied with.
    pub scale: f32,
    /// f32 throughout, and an f32 result; otherwise products of f16 and a result in bf16.
    pub exact: bool,
    /// As long as [`dense_scratch_bytes`] says, filled with zeros once.
    pub scratch: &'a Buffer,
    /// `[queries, heads * head_dim]`, overwritten.
    pub out: &'a Buffer,
}

/// Where things stand in the scratch, behind its counters.
struct Plan {
    many: Many,
    /// Numbers of a head.
    padded: usize,
    head: usize,
    ranges: usize,
    table: usize,
    q: usize,
    pages: usize,
    found: usize,
    end: usize,
}

impl Plan {
    fn new(device: &Device, queries: usize, keys: usize, heads: Heads, exact: bool) -> Self {
        let many = Many::new(device, heads, queries);
        let (padded, number) = if exact { (heads.dim, 4) } else { (many.width, 2) };
        let row = heads.heads * padded * number;
        let pages = keys.div_ceil(PAGE_TOKENS);
        let mut end = 0;
        let mut place = |bytes: usize| {
            let at = end;
            end += bytes.next_multiple_of(256);
            at
        };
        let (head, ranges, table) = (place(16), place(8 * queries), place(8 * pages));
        let (q, pages) = (place(queries * row), place(pages * PAGE_TOKENS * 2 * row));
        let found = place(if exact { 0 } else { many.found_bytes() });
        Self { many, padded, head, ranges, table, q, pages, found, end }
    }
}

/// Bytes of scratch that [`attend_dense`] needs.
pub fn dense_scratch_bytes(
    device: &Device,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
    exact: bool,
) -> usize {
    let heads = Heads { heads, kv_heads: heads, dim: head_dim };
    Room::bytes(Plan::new(device, queries, keys, heads, exact).end)
}

impl Dense<'_> {
    /// Panics where a buffer is too short.
    fn check(&self) {
        let width = self.heads * self.head_dim;
        assert!(self.queries > 0 && self.keys > 0 && width > 0, "there is something to attend to");
        assert!(self.exact || self.head_dim <= 256 && self.head_dim.is_multiple_of(2), "a supported width");
        for (rows, count) in [(self.q, self.queries), (self.k, self.keys), (self.v, self.keys)] {
            let end = rows.first + (count - 1) * rows.stride + width;
            assert!(
                rows.stride >= width && 4 * end <= rows.buffer.bytes(),
                "{count} rows of {width} are there"
            );
        }
        let number = if self.exact { 4 } else { 2 };
        assert!(self.out.bytes() >= self.queries * width * number, "room for the result");
        let device = self.out.device();
        let needed =
            dense_scratch_bytes(device, self.queries, self.keys, self.heads, self.head_dim, self.exact);
        assert!(self.scratch.bytes() >= needed, "scratch of {needed} bytes");
    }

    /// Brings heads into pages, and says where they are.
    fn pack(&self, plan: &Plan) -> Result<(), CudaError> {
        let room = Room::new(self.scratch);
        let rows = [self.q, self.k, self.v];
        let mut args: Vec<Arg> =
            rows.iter().map(|rows| Arg::Address(rows.buffer.address() + 4 * rows.first as u64)).collect();
        args.extend(rows.iter().map(|rows| int(rows.stride)));
        args.extend(
            [plan.q, plan.pages, plan.table, plan.head, plan.ranges].map(|at| Arg::Address(room.behind(at))),
        );
        args.extend([self.queries, self.keys, self.heads, self.head_dim, plan.padded].map(int));
        let launch = Launch {
            kernel: if self.exact { "attend_pack_exact" } else { "attend_pack" },
            grid: [self.queries.max(self.keys).max(4) as u32, self.heads.div_ceil(4) as u32, 3],
            block: 128,
            shared: 0,
            overlaps: true,
            args: &args,
        };
        // SAFETY: the arguments are the kernel's; `check` measured rows and scratch.
        unsafe { self.out.device().launch(&launch) }
    }
}

/// Softmax attention of every query to every key, in two launches.
pub fn attend_dense(args: &Dense<'_>) -> Result<(), CudaError> {
    args.check();
    let device = args.out.device();
    let heads = Heads { heads: args.heads, kv_heads: args.heads, dim: args.head_dim };
    let plan = Plan::new(device, args.queries, args.keys, heads, args.exact);
    args.pack(&plan)?;
    let room = Room::new(args.scratch);
    let [table, head, ranges] = [plan.table, plan.head, plan.ranges].map(|at| Arg::Address(room.behind(at)));
    let (q, found, out) = (room.behind(plan.q), room.behind(plan.found), args.out.address());
    let (key, value) = (int(0), int(args.heads * PAGE_TOKENS * plan.padded));
    if args.exact {
        let exact = Exact { q, standing: [table, head, ranges], out, n: args.queries, heads };
        // SAFETY: `check` measured the result; the rest is in the scratch as planned.
        return unsafe { exact.launch(device, key, value, args.scale, None) };
    }
    let flash = Flash { q, table, head, ranges, counters: room.counters(), found, out };
    let numbers = Numbers { dim: plan.padded, written: args.head_dim, key, value };
    // SAFETY: as above.
    unsafe { flash.launch(device, &plan.many, numbers, args.scale, None) }
}
