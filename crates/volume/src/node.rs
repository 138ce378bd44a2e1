//! One node of a volume's tree: a directory, a file or a symbolic link.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::contents::Contents;
use crate::error::{Result, VolumeError};

/// Number of a node within one volume; a fork keeps its parent's numbers. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(u32);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// The node of this number; whether there is one is found out by asking the volume.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number: the engine shows it as `st_ino`.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Time of a node's last change, since 1970-01-01. Comes from the caller: there is no clock here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Names of other nodes.
    Directory,
    /// Bytes in pages.
    File,
    /// A path.
    Symlink,
}

/// What `stat` wants to know of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits as they were given; the type is in `kind`.
    pub mode: u32,
    /// Bytes of a file, bytes of a symlink's target, entries of a directory.
    pub len: u64,
    /// Names that lead here: 0 when unlinked but open, 2 for directories, else 1.
    pub nlink: u32,
    /// As it was last given. A directory's changes only through `Volume::set_mtime`.
    pub mtime: Mtime,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, without slashes.
    pub name: Arc<str>,
    /// The node it leads to.
    pub ino: Ino,
    /// What that node is.
    pub kind: NodeKind,
}

/// The names in a directory. `Arc<str>`, for the first change to a template's directory copies it.
pub(crate) type Entries = BTreeMap<Arc<str>, Ino>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) mtime: Mtime,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Directory(Entries),
    File(Contents),
    Symlink(Box<str>),
}

impl Node {
    pub(crate) fn directory(mode: u32, mtime: Mtime) -> Self {
        Self {
            mode,
            mtime,
            content: Content::Directory(Entries::new()),
        }
    }

    pub(crate) fn file(mode: u32, mtime: Mtime) -> Self {
        Self {
            mode,
            mtime,
            content: Content::File(Contents::default()),
        }
    }

    pub(crate) fn kind(&self) -> NodeKind {
        match self.content {
            Content::Directory(_) => NodeKind::Directory,
            Content::File(_) => NodeKind::File,
            Content::Symlink(_) => NodeKind::Symlink,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match &self.content {
            Content::Directory(entries) => entries.len() as u64,
            Content::File(contents) => contents.len(),
            Content::Symlink(target) => target.len() as u64,
        }
    }

    pub(crate) fn entries(&self) -> Result<&Entries> {
        match &self.content {
            Content::Directory(entries) => Ok(entries),
            _ => Err(VolumeError::NotDirectory),
        }
    }

    pub(crate) fn contents(&self) -> Result<&Contents> {
        match &self.content {
            Content::File(contents) => Ok(contents),
            Content::Directory(_) => Err(VolumeError::IsDirectory),
            Content::Symlink(_) => Err(VolumeError::Invalid("a symbolic link has no contents")),
        }
    }
}
