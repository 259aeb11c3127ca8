//! Products of many rows of bf16 activations with a matrix, on tensor cores: prompts, pictures.

use super::low_rank::DeviceLowRank;
use super::matrix::{GROUP_INPUTS, GROUP_OUTPUTS, MOST_PARTS, Placed};
use super::repack::{group_bytes, head_bytes};
use super::{Address, Arg, Arrangement, Buffer, CudaError, DeviceMatrix, Launch, Properties, Strided};

/// Bytes of scratch memory with which inputs can be split over blocks wherever that pays; one buffer serves a device.
pub const SCRATCH_BYTES: usize = 32 << 20;

/// Outputs of a block.
const BLOCK_OUTPUTS: usize = 128;
/// As in `many.cu`.
const GROUP_ROWS: usize = 2048;
/// Shared memory that the hardware takes for itself from each block.
const RESERVED_SHARED: usize = 1 << 10;
/// Stages of a block's pipeline.
const MOST_STAGES: usize = 4;
/// Threads of a block that sums up.
const SUM_THREADS: u32 = 256;

/// What becomes of the products.
#[derive(Debug, Clone, Copy)]
pub enum ManyOutput<'a> {
    /// f32 `[n, rows]`.
    Numbers(Strided<'a>),
    /// bf16 `[n, rows]`.
    Rounded(Strided<'a>),
    /// bf16 `[n, rows / 2]` of an [`Arrangement::GateUp`]: `gelu_tanh(gate) * up`.
    Gated(Strided<'a>),
    /// bf16 `[n, rows]`: `gelu_tanh(product)`.
    Gelu(Strided<'a>),
    /// Added to f32 `[n, rows]`.
    Added(Strided<'a>),
}

impl<'a> ManyOutput<'a> {
    /// Where its rows are.
    fn at(self) -> Strided<'a> {
        match self {
            Self::Numbers(at) | Self::Rounded(at) | Self::Gated(at) | Self::Gelu(at) | Self::Added(at) => at,
        }
    }

    /// The same somewhere else.
    fn moved(self, at: Strided<'a>) -> Self {
        match self {
            Self::Numbers(_) => Self::Numbers(at),
            Self::Rounded(_) => Self::Rounded(at),
            Self::Gated(_) => Self::Gated(at),
            Self::Gelu(_) => Self::Gelu(at),
            Self::Added(_) => Self::Added(at),
        }
    }

    /// Its number in `OutputKind`, and the bytes of a number.
    fn kind(self) -> (i32, usize) {
        match self {
            Self::Numbers(_) => (NUMBERS, 4),
            Self::Rounded(_) => (1, 2),
            Self::Gelu(_) => (2, 2),
            Self::Added(_) => (3, 4),
            Self::Gated(_) => (4, 2),
        }
    }
}

/// As in `OutputKind`.
const NUMBERS: i32 = 0;

/// A product: `x * matrix^T + between * up^T + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Many<'a> {
    /// `[rows, cols]`, not exact; `cols` is a multiple of 8.
    pub matrix: &'a DeviceMatrix,
    /// How many blocks stand on the diagonal, 1 for an ordinary matrix. Block `b` of several is the `b`-th part of the
    /// matrix's rows, a multiple of 128 of them, and meets the `b`-th `cols` columns of x.
    pub diagonal: usize,
    /// Rows of x.
    pub n: usize,
    /// bf16 `[n, diagonal * cols]`; `first` and `stride` are multiples of 8.
    pub x: Strided<'a>,
    /// f32 `[rows]`, of a gated matrix gate's and then up's.
    pub bias: Option<&'a Buffer>,
    /// What comes to it from beside an ordinary matrix.
    pub low_rank: Option<Beside<'a>>,
    /// Where to.
    pub output: ManyOutput<'a>,
    /// Of any size; see [`SCRATCH_BYTES`]. A gated product whose two parts differ in format needs `4 * rows` bytes for
    /// each row of x that it takes at once.
    pub scratch: &'a Buffer,
}

/// The second half of a low-rank product.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// For a matrix with the parts of the large one.
    pub low_rank: &'a DeviceLowRank,
    /// bf16 `[n, rank]`: what [`DeviceLowRank::many`] gave for the same rows of x; `first` and `stride` are multiples of 8.
    pub between: Strided<'a>,
}

/// How a product is divided among blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Rows of x that a block takes: 32, 64, 128 or 256.
    pub rows: usize,
    /// Parts into which the inputs are split, whose sums are added up in a launch of their own.
    pub splits: usize,
}

/// A shape of a block's tile.
#[derive(Debug)]
struct Tile {
    kernel: &'static str,
    rows: usize,
    threads: u32,
    /// Blocks on a multiprocessor, as far as registers allow.
    resident: usize,
    /// Products and sums of two numbers that a multiprocessor does in a clock, full of such blocks.
    speed: f64,
}

/// Their speeds are estimates: see `kernels/README.md`.
const TILES: [Tile; 4] = [
    Tile { kernel: "many_32", rows: 32, threads: 128, resident: 4, speed: 600.0 },
    Tile { kernel: "many_64", rows: 64, threads: 128, resident: 2, speed: 850.0 },
    Tile { kernel: "many_128", rows: 128, threads: 128, resident: 2, speed: 1000.0 },
    Tile { kernel: "many_256", rows: 256, threads: 256, resident: 1, speed: 1100.0 },
];

/// Computes a product as is fastest.
///
/// Panics where a buffer is too small, a number is no multiple of what it has to be, or output and matrix do not belong
/// together.
pub fn many(product: &Many<'_>) -> Result<(), CudaError> {
    many_as(product, Plan::new(product))
}

/// As [`many`], divided as is wanted: for tests and measurements.
pub fn many_as(product: &Many<'_>, plan: Plan) -> Result<(), CudaError> {
    check(product);
    if !product.summed_up(plan) {
        return multiply(product, plan, &Target::of(product));
    }
    // As many rows at a time as there is room for.
    let row_bytes = 4 * plan.splits * product.width();
    let at_a_time = (product.scratch.bytes() / row_bytes).min(product.n);
    assert!(at_a_time > 0, "scratch memory for a row: {row_bytes} bytes");
    (0..product.n).step_by(at_a_time).try_for_each(|first| {
        let part = product.rows(first, at_a_time.min(product.n - first));
        multiply(&part, plan, &Target::sums(&part))?;
        sum_up(&part, plan)
    })
}

/// Where outputs go: the parameters from `to` to `bias`.
struct Target {
    to: Address,
    stride: usize,
    kind: i32,
    columns: usize,
    vectors: bool,
    bias: Address,
}

impl Target {
    /// The product's output.
    fn of(product: &Many<'_>) -> Self {
        let (at, (kind, bytes)) = (product.output.at(), product.output.kind());
        let gated = matches!(product.output, ManyOutput::Gated(_));
        let columns = product.matrix.rows() / if gated { 2 } else { 1 };
        let end = at.first + (product.n - 1) * at.stride + columns;
        assert!(
            columns <= at.stride && bytes * end <= at.buffer.bytes(),
            "the output's rows fit their buffer"
        );
        let fours = [at.first, at.stride].iter().all(|number| number.is_multiple_of(4));
        Self {
            to: at.buffer.address() + (bytes * at.first) as u64,
            stride: at.stride,
            kind,
            columns,
            vectors: fours && product.parts_are_fours(),
            bias: product.bias.map_or(0, Buffer::address),
        }
    }

    /// The scratch memory.
    fn sums(product: &Many<'_>) -> Self {
        Self {
            to: product.scratch.address(),
            stride: product.width(),
            kind: NUMBERS,
            columns: product.matrix.rows(),
            vectors: product.parts_are_fours(),
            bias: 0,
        }
    }

    fn args(&self) -> [Arg; 6] {
        [
            Arg::Address(self.to),
            int(self.stride),
            Arg::Int(self.kind),
            int(self.columns),
            Arg::Int(i32::from(self.vectors)),
            Arg::Address(self.bias),
        ]
    }
}

impl<'a> Many<'a> {
    /// Whether sums go through the scratch memory.
    fn summed_up(&self, plan: Plan) -> bool {
        plan.splits > 1 || self.is_mixed()
    }

    /// Whether gate and up differ in format, so that no block can have both.
    fn is_mixed(&self) -> bool {
        let parts = self.matrix.parts();
        self.matrix.arrangement() == Arrangement::GateUp && parts[0].format != parts[1].format
    }

    /// Numbers of a row of sums in the scratch memory.
    fn width(&self) -> usize {
        self.matrix.rows().next_multiple_of(4)
    }

    fn parts_are_fours(&self) -> bool {
        self.matrix.parts().iter().all(|part| part.rows.is_multiple_of(4))
    }

    /// The same product of some rows of x.
    fn rows(&self, first: usize, n: usize) -> Self {
        let below = |at: Strided<'_>| at.first + first * at.stride;
        let moved = |at: Strided<'a>| Strided { first: below(at), ..at };
        let beside = |beside: Beside<'a>| Beside { between: moved(beside.between), ..beside };
        let output = self.output.moved(moved(self.output.at()));
        Self { n, x: moved(self.x), low_rank: self.low_rank.map(beside), output, ..*self }
    }

    /// Tiles of outputs. Gate and up take turns where one block has both.
    fn output_blocks(&self, plan: Plan) -> usize {
        let groups = BLOCK_OUTPUTS / GROUP_OUTPUTS;
        let parts = self.matrix.parts();
        if self.matrix.arrangement() == Arrangement::GateUp && !self.summed_up(plan) {
            return (2 * parts[0].group_rows()).div_ceil(groups);
        }
        parts.iter().map(|part| part.group_rows().div_ceil(groups)).sum()
    }
}

/// The asserts that [`many`] promises, but for the output's.
fn check(product: &Many<'_>) {
    let Many { matrix, diagonal, n, x, bias, low_rank, .. } = *product;
    let (rows, cols) = (matrix.rows(), matrix.cols());
    assert!(!matrix.exact() && n > 0 && diagonal > 0, "a product in bf16");
    assert!([cols, x.first, x.stride].iter().all(|number| number.is_multiple_of(8)), "x in whole 16 bytes");
    assert!(diagonal * cols <= x.stride, "x has all columns");
    assert!(fits(x, n, diagonal * cols), "x has all rows");
    if let Some(Beside { low_rank, between }) = low_rank {
        let rows = |matrix: &DeviceMatrix| matrix.parts().iter().map(|part| part.rows).collect::<Vec<_>>();
        assert!(rows(low_rank.up()) == rows(matrix) && !low_rank.up().exact(), "the parts of the matrix");
        let eights = [between.first, between.stride].iter().all(|number| number.is_multiple_of(8));
        assert!(eights && low_rank.rank() <= between.stride, "numbers between in whole 16 bytes");
        assert!(fits(between, n, low_rank.rank()) && diagonal == 1, "numbers between for all rows");
    }
    assert!(bias.is_none_or(|bias| 4 * rows <= bias.bytes()), "a bias for each output");
    let gated = matches!(product.output, ManyOutput::Gated(_));
    assert_eq!(gated, matrix.arrangement() == Arrangement::GateUp, "gate and up are for a gated activation");
    if diagonal > 1 {
        let whole = |rows: usize| {
            rows.is_multiple_of(rows / diagonal) && (rows / diagonal).is_multiple_of(BLOCK_OUTPUTS)
        };
        assert!(
            matrix.parts().len() == 1 && rows.is_multiple_of(diagonal) && whole(rows),
            "blocks of whole tiles"
        );
    }
}

/// Whether a buffer has `n` such rows of `width` bf16 numbers.
fn fits(at: Strided<'_>, n: usize, width: usize) -> bool {
    2 * (at.first + (n - 1) * at.stride + width) <= at.buffer.bytes()
}

/// Launches the product itself.
fn multiply(product: &Many<'_>, plan: Plan, target: &Target) -> Result<(), CudaError> {
    let Many { matrix, diagonal, n, x, low_rank, .. } = *product;
    let tile = plan.tile();
    let (_, stages) = tile.pipeline(matrix);
    let mut shared = stages * tile.stage_bytes(matrix);
    let output_blocks = product.output_blocks(plan);
    let parts = matrix.parts();
    let mut args = Vec::with_capacity(32);
    for i in 0..MOST_PARTS {
        let part = parts.get(i);
        args.push(Arg::Address(part.map_or(0, |part| matrix.address(part))));
        args.push(Arg::Int(part.map_or(0, Placed::code)));
        args.push(int(part.map_or(0, |part| part.rows)));
    }
    args.push(int(matrix.cols()));
    args.push(int(if diagonal > 1 { matrix.rows() / diagonal } else { 0 }));
    args.extend([bf16_at(x), int(x.stride), int(n)]);
    args.extend(target.args());
    args.extend([int(plan.splits), int(output_blocks), int(stages)]);
    if let Some(Beside { low_rank, between }) = low_rank {
        let (up, stage) = (low_rank.up(), tile.stage_bytes(low_rank.up()));
        shared = shared.max(2 * stage);
        let address = |i: usize| up.parts().get(i).map_or(0, |part| up.address(part));
        args.extend((0..MOST_PARTS).map(|i| Arg::Address(address(i))));
        args.extend([int(up.cols()), bf16_at(between), int(between.stride)]);
        args.push(int(MOST_STAGES.min(shared / stage)));
    } else {
        args.extend([Arg::Address(0); MOST_PARTS]);
        args.extend([int(0), Arg::Address(0), int(0), int(0)]);
    }
    let launch = Launch {
        kernel: tile.kernel,
        grid: [(output_blocks * n.div_ceil(tile.rows)) as u32, plan.splits as u32, 1],
        block: tile.threads,
        shared: shared as u32,
        overlaps: true,
        args: &args,
    };
    // SAFETY: the arguments are the kernel's in their order, and `check` and the target saw to the sizes.
    unsafe { matrix.device().launch(&launch) }
}

/// Launches the sum over the splits.
fn sum_up(product: &Many<'_>, plan: Plan) -> Result<(), CudaError> {
    let target = Target::of(product);
    let pieces = product.n * target.columns / if target.vectors { 4 } else { 1 };
    let mut args = vec![Arg::Address(product.scratch.address())];
    args.extend([plan.splits, product.width(), product.n].map(int));
    args.extend(target.args());
    let launch = Launch {
        kernel: "many_sum",
        grid: [(pieces as u32).div_ceil(SUM_THREADS), 1, 1],
        block: SUM_THREADS,
        shared: 0,
        overlaps: true,
        args: &args,
    };
    // SAFETY: the arguments are the kernel's in their order, the scratch memory has the sums of all splits, and the
    // target saw to the output's size.
    unsafe { product.matrix.device().launch(&launch) }
}

/// Where rows of bf16 begin.
fn bf16_at(at: Strided<'_>) -> Arg {
    Arg::Address(at.buffer.address() + 2 * at.first as u64)
}

fn int(number: usize) -> Arg {
    Arg::Int(i32::try_from(number).expect("sizes of a product are ints"))
}

impl Tile {
    /// Bytes of a stage: a group's weights and rows of x.
    fn stage_bytes(&self, matrix: &DeviceMatrix) -> usize {
        let weights =
            matrix.parts().iter().map(|part| group_bytes(part.format) + head_bytes(part.format)).max();
        BLOCK_OUTPUTS / GROUP_OUTPUTS * weights.unwrap_or(0) + 2 * GROUP_INPUTS * self.rows
    }

    /// Blocks on a multiprocessor, and stages of the pipeline of each: as many blocks as leave room for three stages, or
    /// two blocks for two.
    fn pipeline(&self, matrix: &DeviceMatrix) -> (usize, usize) {
        let (stage, properties) = (self.stage_bytes(matrix), matrix.device().properties());
        let stages = |resident| (share(properties, resident) / stage).min(MOST_STAGES);
        let enough = |resident: &usize| stages(*resident) >= if *resident > 2 { 3 } else { 2 };
        let resident = (1..=self.resident).rev().find(enough).expect("two stages fit any device");
        (resident, stages(resident))
    }
}

/// Shared memory for each of so many blocks on a multiprocessor.
fn share(properties: &Properties, blocks: usize) -> usize {
    (properties.shared_bytes as usize + RESERVED_SHARED) / blocks - RESERVED_SHARED
}

impl Plan {
    /// The fastest one, by the estimate of [`Plan::clocks`].
    pub fn new(product: &Many<'_>) -> Self {
        let room = |splits| 4 * splits * product.width() * product.n <= product.scratch.bytes();
        let splits = |splits: &usize| *splits == 1 || room(*splits) && product.matrix.groups() / *splits >= 4;
        let plans = [1, 2, 3, 4, 6, 8, 12, 16].into_iter().filter(splits);
        let plans = plans.flat_map(|splits| TILES.iter().map(move |tile| Self { rows: tile.rows, splits }));
        plans
            .min_by(|a, b| a.clocks(product).total_cmp(&b.clocks(product)))
            .expect("one split is always possible")
    }

    fn tile(self) -> &'static Tile {
        TILES.iter().find(|tile| tile.rows == self.rows).expect("a tile of 32, 64, 128 or 256 rows")
    }

    /// About how many clocks the product takes: what its busiest multiprocessor computes or reads, or what the device
    /// reads from its memory. The constants are an H100's, in bytes a clock and multiprocessor.
    fn clocks(self, product: &Many<'_>) -> f64 {
        const MEMORY: f64 = 13.0;
        const L2: f64 = 32.0;
        const BEGIN_AND_END: f64 = 3000.0;
        const LAUNCH: f64 = 3000.0;
        let (tile, matrix) = (self.tile(), product.matrix);
        let multiprocessors = f64::from(matrix.device().properties().multiprocessors);
        let blocks = product.output_blocks(self) * product.n.div_ceil(tile.rows) * self.splits;
        let busiest = (blocks as f64 / multiprocessors).ceil();
        let resident = tile.pipeline(matrix).0 as f64;
        let group = (BLOCK_OUTPUTS * tile.rows * GROUP_INPUTS) as f64 / tile.speed;
        // A multiprocessor that is not full waits for what no other block hides.
        let full = busiest.min(resident) / tile.resident as f64;
        let group = ((1.4 - 0.4 * full) * group).max(tile.stage_bytes(matrix) as f64 / L2);
        let beside = product.low_rank.map_or(0, |beside| beside.low_rank.up().groups());
        let groups = (matrix.groups().div_ceil(self.splits) + beside) as f64;
        let turns = (busiest / resident).ceil();
        let read = matrix.bytes() as f64 * product.n.div_ceil(GROUP_ROWS) as f64 / (MEMORY * multiprocessors);
        let sums = (8 * self.splits * product.n * product.width()) as f64 / (L2 * multiprocessors) + LAUNCH;
        let computed = busiest * groups * group + turns * BEGIN_AND_END;
        // One hides the other, but not wholly.
        let both = computed.max(read) + 0.2 * computed.min(read);
        both + if self.splits > 1 { sums } else { 0.0 }
    }
}
