//! How much memory a process has.

/// Resident bytes; `None` where that cannot be known.
#[cfg(target_os = "linux")]
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}

/// Resident bytes; `None` where that cannot be known.
#[cfg(not(target_os = "linux"))]
pub(super) fn resident_bytes(_pid: u32) -> Option<u64> {
    None
}
