//! Block-diagonal products: the gates of a recurrence.

#[cfg(target_arch = "x86_64")]
use super::amx::tiles::{Columns, Parts, Tiles};
#[cfg(target_arch = "x86_64")]
use super::{FEW_ROWS, Way};
use super::{Input, Job, packed, run};
use crate::cpu::pool::Pool;
use crate::cpu::{Level, SendPtr};
#[cfg(target_arch = "x86_64")]
use crate::ops::Matrix;
use crate::ops::{Activation, BlockProjection};

/// See [`crate::Ops::project_blocks`].
pub(crate) fn project_blocks(
    pool: &Pool,
    level: Level,
    x: &[f32],
    n: usize,
    activation: Activation,
    parts: &mut [BlockProjection<'_>],
) {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = activation;
    #[cfg(target_arch = "x86_64")]
    let rounds = |block: &Matrix| {
        n > FEW_ROWS && Way::of(packed(block), level, activation, n) == Way::Bf16(Parts::Rounded)
    };
    // Rows cut into so many blocks, rounded: the gates of a layer share them.
    #[cfg(target_arch = "x86_64")]
    let mut tiles: Vec<(usize, Tiles)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    for part in &*parts {
        let count = part.blocks.len();
        if part.blocks.iter().any(rounds) && tiles.iter().all(|(cut, _)| *cut != count) {
            let columns = Columns { blocks: count, ..Columns::all(x, n) };
            tiles.push((count, Tiles::new(pool, columns, n, Parts::Rounded)));
        }
    }
    let panels: usize = parts.iter().flat_map(|part| part.blocks).map(|block| packed(block).panels()).sum();
    let chunk = pool.chunk(panels, 8);
    let mut jobs = Vec::new();
    for part in parts {
        let Some(first) = part.blocks.first() else { continue };
        let (rows, cols, count) = (first.rows, first.cols, part.blocks.len());
        assert_eq!(x.len(), n * count * cols, "an input row is as wide as the blocks together");
        assert_eq!(part.out.len(), n * count * rows, "an output row has one number a row of the blocks");
        for (b, block) in part.blocks.iter().enumerate() {
            assert_eq!((block.rows, block.cols), (rows, cols), "blocks have one shape");
            let matrix = packed(block);
            let exact = Input::F32 { x: x.get(b * cols..).unwrap_or_default(), stride: count * cols };
            #[cfg(not(target_arch = "x86_64"))]
            let input = exact;
            #[cfg(target_arch = "x86_64")]
            let input = match tiles.iter().find(|(cut, _)| *cut == count) {
                Some((_, tiles)) if rounds(block) => Input::Bf16(tiles.block(b)),
                _ => exact,
            };
            // Without rows nothing is written, and the offset may lie outside.
            let out = SendPtr(part.out.as_mut_ptr().wrapping_add(b * rows));
            jobs.push(Job {
                matrix,
                bias: None,
                added: None,
                level,
                input,
                n,
                out,
                first_output: 0,
                out_stride: count * rows,
                panels: 0..matrix.panels(),
                chunk,
            });
        }
    }
    run(pool, level, &jobs);
}
