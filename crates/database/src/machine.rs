//! What the machine has and this process uses, as Linux tells it.

use std::fs;

/// Taken as the machine's memory where it cannot be asked.
const MEMORY_BYTES_FALLBACK: u64 = 4 << 30;

/// Bytes of memory that this process may count on: the machine's, or what its control group grants.
pub fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kilobytes(&text, "MemTotal:"));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (machine, group) => machine.or(group).unwrap_or(MEMORY_BYTES_FALLBACK),
    }
}

/// Bytes of memory that only this process has; pages of templates and images that backends share do
/// not count. `None` where the system does not tell.
pub(crate) fn private_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kilobytes(&status, "RssAnon:")
}

/// The value in bytes of a line such as `MemTotal:  1024 kB`.
fn kilobytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let text = "MemTotal:       24653000 kB\nMemFree:        1 kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(24_653_000 * 1024));
        assert_eq!(kilobytes(text, "SwapTotal:"), None);
    }

    #[test]
    fn there_is_memory_and_some_of_it_is_ours() {
        assert!(memory_bytes() > 1 << 20);
        if let Some(private) = private_bytes() {
            assert!(private > 0 && private < memory_bytes());
        }
    }
}
