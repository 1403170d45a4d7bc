//! The machine that a report is of.

use std::fs;

/// Processor, memory and kernel.
pub(crate) fn description() -> String {
    let of = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map_or_else(|| "unknown".to_owned(), |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let kib: u64 = of("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    format!(
        "{}, {} cores, {} GiB of memory, Linux {}",
        of("/proc/cpuinfo", "model name"),
        cores(),
        kib.div_ceil(1 << 20),
        of("/proc/sys/kernel/osrelease", "")
    )
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
