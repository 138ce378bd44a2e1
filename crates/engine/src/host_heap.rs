//! The heap of this process.

/// Gives the system back what the C library keeps of memory that was freed: after a crowd of backends was
/// awake that is hundreds of megabytes. It takes milliseconds, in which others may wait for memory.
pub fn trim_host_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
