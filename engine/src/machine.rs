//! What this machine is, in words for people: computing depends on none of it.

use gemma_kernels::cuda::{self, Properties};
use gemma_kernels::{Cpu, Level};
use serde::Serialize;

/// The machine, as far as the system tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: Option<String>,
    /// The instructions that the kernels use on it.
    pub simd: &'static str,
    /// Physical cores: as many threads compute unless told otherwise.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that are free for new programs.
    pub available_bytes: Option<u64>,
    /// Graphics cards that models can run on.
    pub gpus: Vec<GpuInfo>,
    /// Why there is none.
    pub no_gpu: Option<String>,
}

/// A graphics card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuInfo {
    /// Its name, as its maker gives it.
    pub name: String,
    /// What it can do, such as `9.0`.
    pub capability: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// The version of CUDA that its driver has.
    pub driver: String,
}

impl Machine {
    /// Looks at this machine. Where there is a driver for GPUs, it takes that a moment to start.
    pub fn look() -> Self {
        let simd = match Level::detect() {
            Level::Portable => "portable",
            Level::Neon => "NEON",
            Level::Dotprod => "NEON, dot products",
            Level::I8mm => "NEON, dot products, i8mm",
            Level::Avx2 => "AVX2",
            Level::AvxVnni => "AVX2, VNNI",
            Level::Avx512 => "AVX-512 VNNI",
            Level::Amx => "AMX, AVX-512 VNNI",
        };
        let (gpus, no_gpu) = match cuda::probe() {
            Ok(found) => (found.into_iter().map(GpuInfo::from).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self { simd, cores: Cpu::physical_cores(), gpus, no_gpu, ..system() }
    }
}

/// Bytes of memory of this machine.
pub fn memory_bytes() -> Option<u64> {
    system().memory_bytes
}

impl From<Properties> for GpuInfo {
    fn from(properties: Properties) -> Self {
        let Properties { name, capability: (major, minor), memory_bytes, driver, .. } = properties;
        Self { name, capability: format!("{major}.{minor}"), memory_bytes, driver }
    }
}

#[cfg(target_os = "linux")]
fn system() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (memory_bytes, available_bytes) = memory(&read("/proc/meminfo"));
    Machine {
        processor: processor(&read("/proc/cpuinfo")),
        memory_bytes,
        available_bytes,
        ..Machine::default()
    }
}

#[cfg(target_os = "macos")]
fn system() -> Machine {
    let sysctl = |name: &str| {
        let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    Machine {
        processor: sysctl("machdep.cpu.brand_string"),
        memory_bytes: sysctl("hw.memsize").and_then(|n| n.parse().ok()),
        ..Machine::default()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn system() -> Machine {
    Machine { processor: std::env::var("PROCESSOR_IDENTIFIER").ok(), ..Machine::default() }
}

/// The processor's name in `/proc/cpuinfo`; ARM systems give none.
#[cfg(target_os = "linux")]
fn processor(cpuinfo: &str) -> Option<String> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == "model name")
        .map(|(_, name)| name.to_owned())
}

/// All memory of `/proc/meminfo` and what is available of it, in bytes.
#[cfg(target_os = "linux")]
fn memory(meminfo: &str) -> (Option<u64>, Option<u64>) {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    (field("MemTotal"), field("MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_something_to_compute_with() {
        let machine = Machine::look();
        assert!(machine.cores >= 1);
        assert!(!machine.simd.is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_processor_has_the_name_that_it_gives_itself() {
        let text = "processor\t: 0\nmodel name\t: Some CPU: fast\n\nmodel name\t: Other\n";
        assert_eq!(processor(text), Some("Some CPU: fast".to_owned()));
        assert_eq!(processor("processor : 0\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(memory(text), (Some(2 << 20), Some(1 << 20)));
        assert_eq!(memory("MemTotal: lots\n"), (None, None));
    }
}
