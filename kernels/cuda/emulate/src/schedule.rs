//! Orders in which threads and blocks take their turns.

/// In which order the blocks of a launch, and the threads of each, take their turns. A warp runs as far as it
/// goes before another does, which is the greatest skew that a device may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// One block after the other, warp by warp, lane by lane.
    Forward,
    /// The last block, warp and lane first.
    Reverse,
    /// So many blocks at once: where one waits or does something atomic it is the next one's turn.
    Turns(u16),
    /// Blocks, warps and lanes drawn from a seed; a few blocks at once.
    Random(u16),
}

/// Schedules that a kernel's test goes through.
pub const SCHEDULES: [Schedule; 5] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Turns(3), Schedule::Random(1), Schedule::Random(2)];

/// Blocks that are there at once where all is drawn.
const RANDOM_BLOCKS: u32 = 4;

impl Schedule {
    /// As the runtime has it: order, blocks at once, seed.
    pub(crate) fn parts(self) -> (u32, u32, u64) {
        match self {
            Self::Forward => (0, 1, 0),
            Self::Reverse => (1, 1, 0),
            Self::Turns(blocks) => (0, u32::from(blocks), 0),
            Self::Random(seed) => (2, RANDOM_BLOCKS, u64::from(seed)),
        }
    }
}
