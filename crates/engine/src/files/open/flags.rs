//! How a file is opened.

/// `O_*` of the guest's C library (musl's generic values).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFlags(pub(crate) i32);

impl OpenFlags {
    pub(super) const ACCESS: i32 = 0o3;
    pub(super) const CREATE: i32 = 0o100;
    pub(super) const EXCLUSIVE: i32 = 0o200;
    pub(super) const TRUNCATE: i32 = 0o1000;
    pub(super) const APPEND: i32 = 0o2000;
    /// Data is durable when a write ends; `O_SYNC` has this bit too.
    pub(super) const DATA_SYNC: i32 = 0o10_000;
    pub(super) const DIRECTORY: i32 = 0o200_000;
    pub(super) const NOFOLLOW: i32 = 0o400_000;

    pub(super) fn has(self, bit: i32) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn writes(self) -> bool {
        self.0 & Self::ACCESS != 0
    }

    pub(super) fn reads(self) -> bool {
        self.0 & Self::ACCESS != 1
    }
}
