//! Places in `PGPROC`, the entry that each process has in the shared memory, and in the latch in it.

/// Of `owner_pid` in a `Latch`.
pub(super) const LATCH_OWNER: u32 = 12;

pub(super) const PROC_LATCH_OWNER: u32 = 20 + LATCH_OWNER;
pub(super) const PROC_PID: u32 = 44;
/// `vxid.lxid`: zero outside of transactions.
pub(super) const PROC_TRANSACTION: u32 = 56;
pub(super) const PROC_DATABASE: u32 = 60;
pub(super) const PROC_TEMP_NAMESPACE: u32 = 68;
/// 16 lists of the locks that it holds, of two words each.
pub(super) const PROC_LOCKS: u32 = 148;
