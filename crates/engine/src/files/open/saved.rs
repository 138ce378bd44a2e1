//! Open files in an image.

use std::sync::Arc;

use volume::Ino;

use super::{DESCRIPTORS_MAX, FileTable, Object, Open, OpenFlags, Pipe};
use crate::errno::Errno;
use crate::files::namespace::Device;
use crate::files::{Namespace, Place};

/// A descriptor that survives in an image, with what is needed to open it again in a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedFile {
    pub(crate) descriptors: Vec<u32>,
    pub(crate) path: String,
    pub(crate) flags: i32,
    pub(crate) offset: u64,
    /// An end of the pipe that the backend has to itself; else a file of the volume, which is
    /// found again by its path: a template numbers its files anew.
    pub(crate) pipe: bool,
}

impl FileTable {
    /// What an image must remember: the volume's files and the pipes; and the directory.
    pub(crate) fn save(&self) -> Result<(String, Vec<SavedFile>), Errno> {
        let mut saved = Vec::new();
        for (index, open) in self.opens.iter().enumerate() {
            let Some(open) = open else { continue };
            let descriptors: Vec<u32> = (0u32..)
                .zip(&self.descriptors)
                .filter(|(_, slot)| **slot == Some(index))
                .map(|(descriptor, _)| descriptor)
                .collect();
            let pipe = match &open.object {
                Object::Volume(ino) if self.volume_file(&open.path) == Ok(*ino) => false,
                // The standard streams, which every backend begins with.
                Object::Log(_) | Object::Device(_) if matches!(descriptors[..], [0..=2]) => {
                    continue;
                }
                Object::PipeRead(_) | Object::PipeWrite(_) => true,
                // A booted backend keeps nothing else open; an image that would lose a file
                // must not be made.
                _ => return Err(Errno::BADF),
            };
            saved.push(SavedFile {
                descriptors,
                path: open.path.clone(),
                flags: open.flags.0,
                offset: open.offset,
                pipe,
            });
        }
        Ok((self.directory.clone(), saved))
    }

    /// The inode of an absolute path that leads into the volume.
    fn volume_file(&self, path: &str) -> Result<Ino, Errno> {
        match Namespace::place("/", path)? {
            Place::Volume(inside) => self.namespace.volume_ino(&inside, true),
            _ => Err(Errno::NOENT),
        }
    }

    /// Opens what [`save`](Self::save) told, at the same descriptors. A descriptor that is taken or
    /// out of range is an error; so is a file that is not there, unless `may_be_gone`: then nothing is in it,
    /// and the guest, which will find out that it is gone, can close it.
    pub(crate) fn restore(
        &mut self,
        directory: &str,
        saved: &[SavedFile],
        may_be_gone: bool,
    ) -> Result<(), Errno> {
        directory.clone_into(&mut self.directory);
        let pipe = Pipe::default();
        for file in saved {
            let taken = |descriptor: &u32| {
                *descriptor as usize >= DESCRIPTORS_MAX || self.index(*descriptor as i32).is_ok()
            };
            if file.descriptors.iter().any(taken) {
                return Err(Errno::BADF);
            }
            let flags = OpenFlags(file.flags);
            let object = if !file.pipe {
                let found = self.volume_file(&file.path).and_then(|ino| {
                    self.namespace.volume().open_ref(ino)?;
                    Ok(ino)
                });
                match found {
                    Ok(ino) => Object::Volume(ino),
                    Err(Errno::NOENT) if may_be_gone => Object::Device(Device::Null),
                    Err(errno) => return Err(errno),
                }
            } else if flags.writes() {
                Object::PipeWrite(Arc::clone(&pipe))
            } else {
                Object::PipeRead(Arc::clone(&pipe))
            };
            self.opens.push(Some(Open {
                object,
                path: file.path.clone(),
                flags,
                offset: file.offset,
                descriptors: file.descriptors.len() as u32,
                listing: None,
            }));
            for descriptor in &file.descriptors {
                let slot = *descriptor as usize;
                while self.descriptors.len() <= slot {
                    self.descriptors.push(None);
                }
                self.descriptors[slot] = Some(self.opens.len() - 1);
            }
        }
        Ok(())
    }
}
