//! The entries of open directories.

use volume::NodeKind;

use super::{FileTable, Object};
use crate::errno::Errno;
use crate::files::FileKind;

impl FileTable {
    /// The next entries of a directory that `take` accepts; it returns false when full.
    pub(crate) fn list(
        &mut self,
        descriptor: i32,
        mut take: impl FnMut(&str, FileKind, u64) -> bool,
    ) -> Result<(), Errno> {
        let open = self.open(descriptor)?;
        if open.listing.is_none() {
            let listing = self.listing(&open.object)?;
            self.open_mut(descriptor)?.listing = Some(listing);
        }
        let open = self.open_mut(descriptor)?;
        let listing = open.listing.as_deref().unwrap_or_default();
        let mut position = open.offset as usize;
        while let Some((name, kind)) = listing.get(position) {
            if !take(name, *kind, position as u64 + 1) {
                break;
            }
            position += 1;
        }
        open.offset = position as u64;
        Ok(())
    }

    fn listing(&self, object: &Object) -> Result<Vec<(String, FileKind)>, Errno> {
        let mut entries = vec![
            (".".to_owned(), FileKind::Directory),
            ("..".to_owned(), FileKind::Directory),
        ];
        match object {
            Object::VolumeDirectory(ino) => {
                for entry in self.namespace.volume().list(*ino)? {
                    let kind = match entry.kind {
                        NodeKind::File => FileKind::Regular,
                        NodeKind::Directory => FileKind::Directory,
                        NodeKind::Symlink => FileKind::Symlink,
                    };
                    entries.push((entry.name.to_string(), kind));
                }
            }
            Object::ScratchDirectory(path) => {
                for (name, directory) in self.namespace.scratch.list(path) {
                    let kind = if directory {
                        FileKind::Directory
                    } else {
                        FileKind::Regular
                    };
                    entries.push((name, kind));
                }
            }
            Object::DistributionDirectory(path) => {
                for (name, node) in self.namespace.distribution.list(path).into_iter().flatten() {
                    let kind = match node {
                        crate::distribution::Node::Directory { .. } => FileKind::Directory,
                        crate::distribution::Node::File { .. } => FileKind::Regular,
                    };
                    entries.push((name.to_owned(), kind));
                }
            }
            _ => return Err(Errno::NOTDIR),
        }
        Ok(entries)
    }
}
