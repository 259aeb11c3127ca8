//! What this machine is, in words for people: `gemma-ls doctor` shows it, nothing depends on it.

use serde::Serialize;

/// The machine, as far as the system tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: Option<String>,
    /// Processor extensions that matter for matrix products, best last.
    pub simd: Vec<&'static str>,
    /// Physical cores.
    pub cores: Option<usize>,
    /// Hardware threads that this process may use.
    pub hardware_threads: usize,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that are free for new programs.
    pub available_bytes: Option<u64>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let mut machine = system();
        machine.simd = simd();
        machine.hardware_threads = std::thread::available_parallelism().map_or(1, usize::from);
        machine
    }
}

#[cfg(target_os = "linux")]
fn system() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (processor, cores) = parse_cpuinfo(&read("/proc/cpuinfo"));
    let (memory_bytes, available_bytes) = parse_meminfo(&read("/proc/meminfo"));
    Machine { processor, cores, memory_bytes, available_bytes, ..Machine::default() }
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
        cores: sysctl("hw.physicalcpu").and_then(|n| n.parse().ok()),
        memory_bytes: sysctl("hw.memsize").and_then(|n| n.parse().ok()),
        ..Machine::default()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn system() -> Machine {
    Machine { processor: std::env::var("PROCESSOR_IDENTIFIER").ok(), ..Machine::default() }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    let found = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-VNNI", is_x86_feature_detected!("avxvnni")),
        ("AVX-512", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
    ];
    found.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

#[cfg(target_arch = "aarch64")]
fn simd() -> Vec<&'static str> {
    let found = [
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
        ("DOTPROD", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("I8MM", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("BF16", std::arch::is_aarch64_feature_detected!("bf16")),
    ];
    found.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn simd() -> Vec<&'static str> {
    Vec::new()
}

/// The processor's name and its physical cores: pairs of socket and core, each counted once.
#[cfg(target_os = "linux")]
fn parse_cpuinfo(text: &str) -> (Option<String>, Option<usize>) {
    let fields = || text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim()));
    let name = fields().find(|(key, _)| *key == "model name").map(|(_, name)| name.to_owned());
    let mut cores = std::collections::HashSet::new();
    let mut socket = "0";
    for (key, value) in fields() {
        match key {
            "physical id" => socket = value,
            "core id" => {
                cores.insert((socket, value));
            }
            _ => {}
        }
    }
    (name, (!cores.is_empty()).then_some(cores.len()))
}

/// All memory and what is available of it, in bytes.
#[cfg(target_os = "linux")]
fn parse_meminfo(text: &str) -> (Option<u64>, Option<u64>) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    (field("MemTotal"), field("MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_thread_is_always_there() {
        assert!(Machine::look().hardware_threads >= 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn cores_are_counted_once_for_all_their_threads() {
        let thread = |socket: u32, core: u32| {
            format!("model name\t: Some CPU: fast\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let text: String = [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 0)].map(|(s, c)| thread(s, c)).concat();
        assert_eq!(parse_cpuinfo(&text), (Some("Some CPU: fast".to_owned()), Some(3)));
        assert_eq!(parse_cpuinfo("processor : 0\n"), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(parse_meminfo(text), (Some(2 << 20), Some(1 << 20)));
        assert_eq!(parse_meminfo("MemTotal: lots\n"), (None, None));
    }
}
