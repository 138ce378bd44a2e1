//! Opening files by their names.

use volume::{Mtime, NodeKind};

use super::{FileTable, Object, OpenFlags};
use crate::errno::Errno;
use crate::files::namespace::absolute;
use crate::files::scratch::ScratchNode;
use crate::files::{Namespace, Place};

impl FileTable {
    pub(crate) fn open_at(
        &mut self,
        at: i32,
        path: &str,
        flags: OpenFlags,
        mode: u32,
        now: Mtime,
    ) -> Result<i32, Errno> {
        let base = if path.starts_with('/') || at == -100 {
            self.directory.clone()
        } else {
            self.open(at)?.path.clone()
        };
        let absolute = absolute(&base, path)?;
        let object = match Namespace::place("/", &absolute)? {
            Place::Volume(inside) => self.open_volume(&inside, flags, mode, now)?,
            Place::Scratch(inside) => self.open_scratch(inside, flags)?,
            Place::Device(device) => Object::Device(device),
            Place::Distribution(inside) => self.open_distribution(inside, flags)?,
        };
        self.install(object, absolute, flags)
    }

    pub(super) fn open_volume(
        &self,
        path: &str,
        flags: OpenFlags,
        mode: u32,
        now: Mtime,
    ) -> Result<Object, Errno> {
        let volume = &self.namespace.volume();
        let follow = !flags.has(OpenFlags::NOFOLLOW);
        let ino = match self.namespace.volume_ino(path, follow) {
            Ok(_) if flags.has(OpenFlags::CREATE) && flags.has(OpenFlags::EXCLUSIVE) => {
                return Err(Errno::EXIST);
            }
            Ok(ino) => ino,
            Err(Errno::NOENT) if flags.has(OpenFlags::CREATE) => {
                let (parent, name) = self.namespace.volume_parent(path)?;
                volume.create_file(parent, name, mode & 0o777, now)?
            }
            Err(errno) => return Err(errno),
        };
        match volume.node(ino)?.kind {
            NodeKind::Directory if flags.writes() => return Err(Errno::ISDIR),
            NodeKind::Directory => return Ok(Object::VolumeDirectory(ino)),
            NodeKind::Symlink => return Err(Errno::LOOP),
            NodeKind::File if flags.has(OpenFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            NodeKind::File => {}
        }
        if flags.has(OpenFlags::TRUNCATE) && flags.writes() {
            volume.set_len(ino, 0, now)?;
        }
        volume.open_ref(ino)?;
        Ok(Object::Volume(ino))
    }

    pub(super) fn open_scratch(&self, path: String, flags: OpenFlags) -> Result<Object, Errno> {
        let scratch = &self.namespace.scratch;
        match scratch.get(&path) {
            Some(ScratchNode::Directory) if flags.writes() => return Err(Errno::ISDIR),
            Some(ScratchNode::Directory) => return Ok(Object::ScratchDirectory(path)),
            Some(_) if flags.has(OpenFlags::CREATE) && flags.has(OpenFlags::EXCLUSIVE) => {
                return Err(Errno::EXIST);
            }
            _ => {}
        }
        let file = scratch.open(&path, flags.has(OpenFlags::CREATE))?;
        if flags.has(OpenFlags::TRUNCATE) && flags.writes() {
            file.lock().clear();
        }
        Ok(Object::Scratch(file))
    }

    pub(super) fn open_distribution(
        &self,
        path: String,
        flags: OpenFlags,
    ) -> Result<Object, Errno> {
        let missing = if flags.has(OpenFlags::CREATE) {
            Errno::ROFS
        } else {
            Errno::NOENT
        };
        let node = self.namespace.distribution.node(&path).ok_or(missing)?;
        if flags.writes() {
            return Err(Errno::ROFS);
        }
        match node {
            crate::distribution::Node::Directory { .. } => Ok(Object::DistributionDirectory(path)),
            crate::distribution::Node::File { id, .. } => {
                let contents = self.namespace.distribution.read(id).ok_or(Errno::IO)?;
                Ok(Object::Distribution {
                    contents,
                    id: u64::from(id.get()),
                })
            }
        }
    }
}
