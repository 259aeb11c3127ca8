//! Memory of this process, as far as the system tells.

/// Bytes in memory now, and at the most so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: Option<u64>,
    /// At the most, since the process began.
    pub peak: Option<u64>,
}

/// Asks the system; nothing is known where it does not tell in `/proc`.
pub fn resident() -> Resident {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse(&status)
}

fn parse(status: &str) -> Resident {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Resident { now: bytes("VmRSS"), peak: bytes("VmHWM") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_report_is_read() {
        let status = "Name:\tgemma-ls\nVmHWM:\t  312 kB\nVmRSS:\t    7 kB\n";
        assert_eq!(parse(status), Resident { now: Some(7 << 10), peak: Some(312 << 10) });
        assert_eq!(parse("VmRSS: lots\n"), Resident::default());
    }
}
