//! Which instructions this machine has, found out once at start.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::simd::{Kernel, Portable};

/// A set of instructions that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The target's baseline: SSE2 on x86, NEON on ARM, as far as the compiler vectorises.
    Portable,
    /// NEON: any ARM of 64 bits.
    Neon,
    /// NEON with dot products of bytes.
    Dotprod,
    /// NEON as above, and products of small matrices of bytes.
    I8mm,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 as above, and VNNI in 256 bits: what Alder Lake and later have without AVX-512.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX-512 as above, and AMX for products of bf16.
    Amx,
}

/// Environment variable that caps the level: `portable`; on x86 `avx2`, `avxvnni`, `avx512` or `amx`; on ARM `neon`, `dotprod` or
/// `i8mm`.
pub const LEVEL_VARIABLE: &str = "GEMMA_LS_CPU";

impl Level {
    /// The best level of this machine, capped by [`LEVEL_VARIABLE`].
    pub fn detect() -> Self {
        let cap = match std::env::var(LEVEL_VARIABLE).as_deref() {
            Ok("portable") => Self::Portable,
            Ok("neon") => Self::Neon,
            Ok("dotprod") => Self::Dotprod,
            Ok("i8mm") => Self::I8mm,
            Ok("avx2") => Self::Avx2,
            Ok("avxvnni") => Self::AvxVnni,
            Ok("avx512") => Self::Avx512,
            _ => Self::Amx,
        };
        Self::available().into_iter().rfind(|&level| level <= cap).unwrap_or(Self::Portable)
    }

    /// All levels of this machine, lowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other processors have no other level")]
        let mut levels = vec![Self::Portable];
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        {
            let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
            let i8mm = dotprod && std::arch::is_aarch64_feature_detected!("i8mm");
            levels.push(Self::Neon);
            levels.extend(dotprod.then_some(Self::Dotprod));
            levels.extend(i8mm.then_some(Self::I8mm));
        }
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            levels.extend(avx2.then_some(Self::Avx2));
            levels.extend((avx2 && is_x86_feature_detected!("avxvnni")).then_some(Self::AvxVnni));
            levels.extend(avx512.then_some(Self::Avx512));
            levels.extend((avx512 && super::amx::is_available()).then_some(Self::Amx));
        }
        levels
    }

    /// Runs a kernel with this level's instructions.
    ///
    /// # Safety
    /// The level must be one of [`Level::available`], and the kernel's pointers must be valid.
    pub(crate) unsafe fn run(self, kernel: impl Kernel) {
        // SAFETY: the caller vouches for the level and the pointers.
        unsafe {
            match self {
                Self::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 | Self::AvxVnni => avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 | Self::Amx => avx512(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => kernel.run::<neon::Neon<neon::Widening>>(),
                #[cfg(target_arch = "aarch64")]
                Self::Dotprod | Self::I8mm => dotprod(kernel),
                // Levels of other processors are never available.
                _ => kernel.run::<Portable>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(kernel: impl Kernel) {
    // SAFETY: as the caller's.
    unsafe { kernel.run::<super::x86::Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn avx512(kernel: impl Kernel) {
    // SAFETY: as the caller's.
    unsafe { kernel.run::<super::x86::Avx512>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "dotprod")]
unsafe fn dotprod(kernel: impl Kernel) {
    // SAFETY: as the caller's.
    unsafe { kernel.run::<neon::Neon<neon::DotProducts>>() }
}
