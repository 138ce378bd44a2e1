//! Watches the free bytes of the disk, so that writes are refused before what was committed cannot be
//! kept any more.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use store::{Disk, RealDisk};
use volume::Volumes;
use wire::{PgError, sqlstate};

/// Times the reserve: with fewer free bytes the disk is looked at often.
const NEAR: u64 = 8;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Enough.
    Enough = 0,
    /// Less than the reserve: databases may not grow.
    Short = 1,
    /// Less than half of it: transactions are read-only.
    Critical = 2,
}

impl Room {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Enough,
            1 => Self::Short,
            _ => Self::Critical,
        }
    }

    /// The room with `free` bytes. To have more room again takes an eighth of the reserve beyond what
    /// had to be lost, so that it does not flutter.
    fn of(free: u64, reserve: u64, before: Self) -> Self {
        let than = |bytes: u64, room: Self| {
            let slack = if before >= room { reserve / 8 } else { 0 };
            free < bytes + slack
        };
        if than(reserve / 2, Self::Critical) {
            Self::Critical
        } else if than(reserve, Self::Short) {
            Self::Short
        } else {
            Self::Enough
        }
    }
}

/// What was last seen of the disk.
pub(crate) struct DiskWatch {
    reserve: u64,
    room: AtomicU8,
}

impl DiskWatch {
    pub(crate) fn new(reserve: u64) -> Self {
        Self {
            reserve,
            room: AtomicU8::new(Room::Enough as u8),
        }
    }

    /// The limit `disk.reserve_bytes`.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    pub(crate) fn room(&self) -> Room {
        Room::from_number(self.room.load(Ordering::Acquire))
    }

    /// Looks at the disk that `directory` is on, and tells the volumes: whether it may soon be short.
    pub(crate) fn look(&self, directory: &Path, volumes: &Volumes) -> bool {
        let free = match RealDisk.free_bytes(directory) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the disk's free bytes cannot be asked for");
                return false;
            }
        };
        let near = free < self.reserve.saturating_mul(NEAR);
        let before = self.room();
        let now = Room::of(free, self.reserve, before);
        // Writes look too, and may have found it short before.
        volumes.set_refusing_growth((now > Room::Enough).then_some(self.reserve));
        if now == before {
            return near;
        }
        self.room.store(now as u8, Ordering::Release);
        let reserve = self.reserve;
        match now {
            Room::Enough => tracing::info!(free, reserve, "the disk has room again"),
            Room::Short => tracing::error!(
                free,
                reserve,
                "the disk is short: databases may not grow (limit disk.reserve_bytes)"
            ),
            Room::Critical => tracing::error!(
                free,
                reserve,
                "the disk is all but full: transactions are read-only (limit disk.reserve_bytes)"
            ),
        }
        near
    }

    /// Refuses what makes new databases while the disk is short.
    ///
    /// # Errors
    /// 53100, naming the limit.
    pub(crate) fn check(&self) -> Result<(), PgError> {
        if self.room() == Room::Enough {
            return Ok(());
        }
        let error = PgError::error(
            sqlstate::DISK_FULL,
            "the disk is too full for another database",
        );
        Err(error
            .detail(format!(
                "Fewer bytes are free than the limit disk.reserve_bytes, {}.",
                self.reserve
            ))
            .hint("Make room on the host's disk."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_lost_at_the_limits_and_won_a_little_above() {
        let mut room = Room::Enough;
        let mut see = |free| {
            room = Room::of(free, 800, room);
            room
        };
        assert_eq!(see(800), Room::Enough);
        assert_eq!(see(799), Room::Short);
        assert_eq!(see(899), Room::Short);
        assert_eq!(see(400), Room::Short);
        assert_eq!(see(399), Room::Critical);
        assert_eq!(see(499), Room::Critical);
        assert_eq!(see(500), Room::Short);
        assert_eq!(see(900), Room::Enough);
        assert_eq!(see(0), Room::Critical);
        assert_eq!(Room::of(0, 0, Room::Enough), Room::Enough);
    }
}
