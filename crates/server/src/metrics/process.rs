//! What the system tells of this process, under the names that every client of Prometheus gives them.

use std::fs;

use super::{Family, Kind};

/// Bytes of a page of memory, as `/proc/self/statm` counts.
const PAGE_BYTES: u64 = 4096;

/// What can be told; what cannot is left out.
pub(super) fn families() -> Vec<Family> {
    let resident = fs::read_to_string("/proc/self/statm").ok();
    let resident = resident.as_deref().and_then(resident_pages);
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let limits = fs::read_to_string("/proc/self/limits").ok();
    let most = limits.as_deref().and_then(open_files_max);
    let gauge = |name, help, value: Option<u64>| {
        value.map(|value| Family::one(Kind::Gauge, name, help, value))
    };
    let families = [
        gauge(
            "process_resident_memory_bytes",
            "Memory that is resident, what is shared with other processes included.",
            resident.map(|pages| pages * PAGE_BYTES),
        ),
        gauge(
            "process_open_fds",
            "File descriptors that are open.",
            // Looking took one.
            open.map(|count| count.saturating_sub(1) as u64),
        ),
        gauge(
            "process_max_fds",
            "File descriptors that may be open.",
            most,
        ),
    ];
    families.into_iter().flatten().collect()
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read() {
        assert_eq!(resident_pages("100 20 3 4 0 5 0\n"), Some(20));
        let limits =
            "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   4096   files\n";
        assert_eq!(open_files_max(limits), Some(1024));
        assert_eq!(
            open_files_max("Max open files  unlimited  unlimited  files"),
            None
        );
        assert!(!families().is_empty());
    }
}
