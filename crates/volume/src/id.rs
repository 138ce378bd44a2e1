//! The numbers that name databases, templates and versions.

use std::fmt;
use std::num::NonZeroU64;

/// Names one database for ever: never reused, though the database may change its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId(NonZeroU64);

impl DatabaseId {
    /// The id of scratch volumes, which belong to no database; see `Volume::scratch`.
    pub const SCRATCH: Self = Self(NonZeroU64::MAX);

    /// The database of this number; `None` for zero, which means "no database" in files.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, never zero.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl From<NonZeroU64> for DatabaseId {
    fn from(number: NonZeroU64) -> Self {
        Self(number)
    }
}

/// 16 hex digits; the volume's files are named so.
impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one template: for example a hash of what it was made from. Two templates never share an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId([u8; 16]);

impl TemplateId {
    /// The id of the empty template, the one that needs no files.
    pub const EMPTY: Self = Self([0; 16]);

    /// The template named by these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that name it.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// 32 hex digits.
impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Number of a volume's flush: dense, from 1. Zero is a volume that was never flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number; zero before the first flush.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version of the next flush.
    pub(crate) fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("BUG: a volume outlived 2^64 flushes"),
        )
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
