//! The compiled kernels that the program carries, and which of them a device runs.
//!
//! `kernels/cuda/build.py` makes them from the sources.

use std::borrow::Cow;

/// A source's kernels, compiled for every target.
pub(super) struct Source {
    /// The source's name without its ending.
    pub(super) name: &'static str,
    /// The kernels in it.
    pub(super) kernels: &'static [&'static str],
    sm_80: &'static Image,
    sm_90a: &'static Image,
    sm_120: &'static Image,
    compute_80: &'static Image,
}

/// Bytes at an address that any word in them may be read from.
#[repr(align(64))]
struct Image<T: ?Sized = [u8]>(T);

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
    /// The image for a target, as the driver takes it.
    pub(super) fn image(&self, target: Target) -> Cow<'static, [u8]> {
        match target {
            Target::Sm80 => Cow::Borrowed(&self.sm_80.0),
            Target::Sm90a => Cow::Borrowed(&self.sm_90a.0),
            Target::Sm120 => Cow::Borrowed(&self.sm_120.0),
            // A text, which has to end with a zero.
            Target::Compute80 => Cow::Owned([&self.compute_80.0, b"\0"].concat()),
        }
    }
}
