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

/// Names one layer: the pages and the tree that a database had when it was shared with a fork. It is
/// never changed, and outlives the database for as long as something is based on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId {
    /// The database whose state it was.
    pub origin: DatabaseId,
    /// Which of that database's pages files, counted from 0.
    pub epoch: u32,
}

/// `ORIGIN.EPOCH`, both hexadecimal, as its files are named.
impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.origin, self.epoch)
    }
}

/// What a volume starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseId {
    /// A template.
    Template(TemplateId),
    /// What another volume was at one instant.
    Layer(LayerId),
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(id) => write!(f, "template {id}"),
            Self::Layer(id) => write!(f, "layer {id}"),
        }
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
