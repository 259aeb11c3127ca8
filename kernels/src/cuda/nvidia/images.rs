//! The compiled kernels that the program carries, and which of them a device runs.
//!
//! `kernels/cuda/build.py` makes them from the sources, and packs them: a fifth of their size.

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// A source's kernels, compiled for every target.
pub(super) struct Source {
    /// The source's name without its ending.
    pub(super) name: &'static str,
    /// The kernels in it.
    pub(super) kernels: &'static [&'static str],
    sm_80: &'static [u8],
    sm_90a: &'static [u8],
    sm_120: &'static [u8],
    compute_80: &'static [u8],
}

/// Everything that was compiled.
pub(super) const SOURCES: &[Source] = &include!("../../../prebuilt/images.rs");

/// What a source is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Machine code for capability 8.0, which 8.6 and 8.9 run too.
    Sm80,
    /// Machine code for capability 9.0 and no other.
    Sm90a,
    /// Machine code for capabilities 12.0 and 12.1.
    Sm120,
    /// Code that the driver itself compiles for what is newer than 8.0.
    Compute80,
}

/// What a device of this capability runs; nothing if it is too old.
pub(super) fn target((major, minor): (u32, u32)) -> Option<Target> {
    match (major, minor) {
        // The others of 8 are in systems on a chip, which run no machine code of graphics cards.
        (8, 0 | 6 | 9) => Some(Target::Sm80),
        (9, 0) => Some(Target::Sm90a),
        (12, _) => Some(Target::Sm120),
        (8.., _) => Some(Target::Compute80),
        _ => None,
    }
}

impl Target {
    /// Whether its kernels wait by themselves for the launch before (`wait_for_launch_before`), as they do from
    /// capability 9.0 on.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Sm90a | Self::Sm120)
    }
}

impl Source {
    /// The image for a target, as the driver takes it; nothing if it is broken.
    pub(super) fn image(&self, target: Target) -> Option<Vec<u8>> {
        let packed = match target {
            Target::Sm80 => self.sm_80,
            Target::Sm90a => self.sm_90a,
            Target::Sm120 => self.sm_120,
            Target::Compute80 => self.compute_80,
        };
        let mut image = decompress_to_vec_zlib(packed).ok()?;
        // PTX is a text, which ends with a zero; machine code says itself where it ends.
        image.push(0);
        Some(image)
    }
}
