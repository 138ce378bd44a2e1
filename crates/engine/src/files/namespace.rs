//! Paths of the guest, and the place that each leads to.

use std::sync::Arc;

use volume::{Ino, NodeKind, Volume};

use super::scratch::ScratchNode;
use super::{DATA_DIRECTORY, FileKind, Scratch, Status};
use crate::distribution::{Distribution, Node};
use crate::errno::Errno;

/// Longest path that is looked at, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// Device numbers that `stat` reports, one for each place.
const DEVICE_DISTRIBUTION: u32 = 1;
const DEVICE_VOLUME: u32 = 2;
const DEVICE_SCRATCH: u32 = 3;
const DEVICE_DEVICES: u32 = 4;

/// A device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Null,
    Random,
}

/// Where a path leads. The string is what the place itself calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path inside the volume, beginning with `/`.
    Volume(String),
    /// An absolute path of the scratch space.
    Scratch(String),
    Device(Device),
    /// An absolute path of the distribution.
    Distribution(String),
}

/// What a guest's paths mean.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    /// A spare backend has none yet, and runs nothing.
    pub(crate) volume: Option<Arc<Volume>>,
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) distribution: Distribution,
}

impl Namespace {
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        self.volume
            .as_ref()
            .expect("BUG: a backend runs only once it has its volume")
    }

    /// The place of `path`, which is taken from `directory` when it is relative.
    pub(crate) fn place(directory: &str, path: &str) -> Result<Place, Errno> {
        let path = absolute(directory, path)?;
        if let Some(inside) = path.strip_prefix(DATA_DIRECTORY)
            && (inside.is_empty() || inside.starts_with('/'))
        {
            let inside = if inside.is_empty() { "/" } else { inside };
            return Ok(Place::Volume(inside.to_owned()));
        }
        let under = |root: &str| path == root || path.starts_with(&format!("{root}/"));
        if under("/tmp") || under("/dev/shm") {
            return Ok(Place::Scratch(path));
        }
        Ok(match path.as_str() {
            "/dev/null" => Place::Device(Device::Null),
            "/dev/random" | "/dev/urandom" => Place::Device(Device::Random),
            _ => Place::Distribution(path),
        })
    }

    /// `stat` of a place; a symlink at the end is followed if `follow`.
    pub(crate) fn status(&self, place: &Place, follow: bool) -> Result<Status, Errno> {
        match place {
            Place::Volume(path) => self.volume_status(self.volume_ino(path, follow)?),
            Place::Scratch(path) => match self.scratch.get(path).ok_or(Errno::NOENT)? {
                ScratchNode::Directory => Ok(scratch_status(FileKind::Directory, 0)),
                ScratchNode::File(file) => {
                    Ok(scratch_status(FileKind::Regular, file.lock().len() as u64))
                }
            },
            Place::Device(_) => Ok(device_status()),
            Place::Distribution(path) => match self.distribution.node(path) {
                Some(Node::Directory { .. }) => Ok(distribution_status(FileKind::Directory, 0, 0)),
                Some(Node::File { len, id, .. }) => Ok(distribution_status(
                    FileKind::Regular,
                    len,
                    u64::from(id.get()),
                )),
                None => Err(Errno::NOENT),
            },
        }
    }

    /// The volume's inode at `path`.
    pub(crate) fn volume_ino(&self, path: &str, follow: bool) -> Result<Ino, Errno> {
        Ok(if follow {
            self.volume().resolve_following(path)?
        } else {
            self.volume().resolve(path)?
        })
    }

    /// The inode of the directory that holds `path`, and the name in it; the name is empty for
    /// the root itself.
    pub(crate) fn volume_parent<'a>(&self, path: &'a str) -> Result<(Ino, &'a str), Errno> {
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.volume().resolve_following(parent)?, name))
    }

    pub(crate) fn volume_status(&self, ino: Ino) -> Result<Status, Errno> {
        let node = self.volume().node(ino)?;
        Ok(Status {
            kind: match node.kind {
                NodeKind::File => FileKind::Regular,
                NodeKind::Directory => FileKind::Directory,
                NodeKind::Symlink => FileKind::Symlink,
            },
            ino: u64::from(ino.get()),
            mode: node.mode,
            bytes: node.len,
            mtime: (node.mtime.seconds, node.mtime.nanos),
            device: DEVICE_VOLUME,
        })
    }
}

/// `path` made absolute and free of `.`, `..`, doubled and trailing slashes.
pub(crate) fn absolute(directory: &str, path: &str) -> Result<String, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let base = if path.starts_with('/') { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut absolute = String::with_capacity(base.len() + path.len() + 1);
    for part in &parts {
        absolute.push('/');
        absolute.push_str(part);
    }
    if absolute.is_empty() {
        absolute.push('/');
    }
    Ok(absolute)
}

pub(crate) fn scratch_status(kind: FileKind, bytes: u64) -> Status {
    let mode = if kind == FileKind::Directory {
        0o777
    } else {
        0o666
    };
    Status {
        kind,
        ino: 0,
        mode,
        bytes,
        mtime: (0, 0),
        device: DEVICE_SCRATCH,
    }
}

pub(crate) fn device_status() -> Status {
    let kind = FileKind::Device;
    Status {
        kind,
        ino: 0,
        mode: 0o666,
        bytes: 0,
        mtime: (0, 0),
        device: DEVICE_DEVICES,
    }
}

pub(crate) fn distribution_status(kind: FileKind, bytes: u64, ino: u64) -> Status {
    Status {
        kind,
        ino,
        mode: 0o755,
        bytes,
        mtime: (0, 0),
        device: DEVICE_DISTRIBUTION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_places() {
        let cases = [
            (
                "/pglite/data",
                "base/5/1259",
                Place::Volume("/base/5/1259".into()),
            ),
            ("/pglite/data", ".", Place::Volume("/".into())),
            (
                "/pglite/data",
                "../share//x/",
                Place::Distribution("/pglite/share/x".into()),
            ),
            (
                "/",
                "/pglite/database",
                Place::Distribution("/pglite/database".into()),
            ),
            (
                "/",
                "/tmp/../../etc/passwd",
                Place::Distribution("/etc/passwd".into()),
            ),
            (
                "/",
                "/dev/shm/PostgreSQL.1",
                Place::Scratch("/dev/shm/PostgreSQL.1".into()),
            ),
            ("/", "/dev/null", Place::Device(Device::Null)),
        ];
        for (directory, path, expected) in cases {
            assert_eq!(
                Namespace::place(directory, path),
                Ok(expected),
                "{directory} {path}"
            );
        }
        assert_eq!(Namespace::place("/", ""), Err(Errno::NOENT));
        assert_eq!(
            Namespace::place("/", &"a".repeat(5000)),
            Err(Errno::NAMETOOLONG)
        );
    }
}
