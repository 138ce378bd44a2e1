//! Durable pages of one database: a tree of files in 8 KiB pages over a shared template. Knows no SQL.
//!
//! A [`Volume`] is a POSIX-like file tree. What it has not changed it shares with its [`Template`];
//! what it has changed lives in pages of its own. [`Volume::flush`] makes the whole tree durable as
//! one [`Version`]; after a crash a volume is exactly as of its last version. `FORMAT.md` draws the
//! bytes.

#![forbid(unsafe_code)]

mod base;
mod contents;
mod error;
mod id;
mod manifest;
mod node;
mod page;
mod page_table;
mod pages;
mod pages_file;
mod slots;
mod template;
mod tree;
mod volume;
mod volumes;
mod wal;

pub use base::{Base, LAYERS_MAX};
pub use error::{Result, VolumeError};
pub use id::{BaseId, DatabaseId, LayerId, TemplateId, Version};
pub use node::{DirectoryEntry, Ino, Mtime, NodeInfo, NodeKind};
pub use page::{FILE_BYTES_MAX, PAGE_BYTES};
pub use template::Template;
pub use tree::{NAME_BYTES_MAX, NODES_MAX, SYMLINK_TARGET_BYTES_MAX, SYMLINKS_FOLLOWED_MAX};
pub use volume::{
    BYTES_MARGIN, BYTES_MAX_DEFAULT, BYTES_RESERVE, Compaction, LAYERS_SLACK_BYTES, LayerUse, Owed,
    Refusal, Volume, carry_log,
};
pub use volumes::{FindTemplate, Volumes};
pub use wal::LogReader;
