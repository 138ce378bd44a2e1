//! What the engine's system calls ask of a volume: names, nodes, and the contents of files.

use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;

use super::{State, Volume};
use crate::contents::Contents;
use crate::error::{Result, VolumeError};
use crate::node::{Content, DirectoryEntry, Ino, Mtime, Node, NodeInfo, NodeKind};
use crate::page::PAGE_BYTES;
use crate::tree::check_target;

// Names and nodes.
impl Volume {
    /// The node of this name in a directory.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`].
    pub fn lookup(&self, directory: Ino, name: &str) -> Result<Ino> {
        self.state.read().tree.lookup(directory, name)
    }

    /// The node at an absolute path of the volume. Symbolic links on the way are followed, at most
    /// [`SYMLINKS_FOLLOWED_MAX`](crate::SYMLINKS_FOLLOWED_MAX); an absolute target starts at the
    /// volume's root. A link at the end is not followed. `..` is refused.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`], [`VolumeError::Invalid`].
    pub fn resolve(&self, path: &str) -> Result<Ino> {
        self.state.read().tree.resolve(path, false)
    }

    /// As [`Volume::resolve`], but a symbolic link at the end is followed too.
    ///
    /// # Errors
    /// As [`Volume::resolve`].
    pub fn resolve_following(&self, path: &str) -> Result<Ino> {
        self.state.read().tree.resolve(path, true)
    }

    /// What `stat` wants to know.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub fn node(&self, ino: Ino) -> Result<NodeInfo> {
        let state = self.state.read();
        let node = state.tree.get(ino)?;
        let nlink = match node.kind() {
            _ if state.orphans.contains(&ino) => 0,
            NodeKind::Directory => 2,
            _ => 1,
        };
        let (kind, mode, len, mtime) = (node.kind(), node.mode, node.len(), node.mtime);
        Ok(NodeInfo {
            ino,
            kind,
            mode,
            len,
            nlink,
            mtime,
        })
    }

    /// The names in a directory, in the order of their bytes; without `.` and `..`.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`].
    pub fn list(&self, directory: Ino) -> Result<Vec<DirectoryEntry>> {
        self.state.read().tree.list(directory)
    }

    /// Makes an empty directory.
    ///
    /// # Errors
    /// [`VolumeError::Exists`], [`VolumeError::NotFound`], [`VolumeError::NotDirectory`],
    /// [`VolumeError::Invalid`] for a bad name, [`VolumeError::NoSpace`].
    pub fn mkdir(&self, directory: Ino, name: &str, mode: u32, mtime: Mtime) -> Result<Ino> {
        let mut state = self.state.write();
        let made = state.create(directory, name, Node::directory(mode, mtime));
        state.noted(made)
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// As [`Volume::mkdir`].
    pub fn create_file(&self, directory: Ino, name: &str, mode: u32, mtime: Mtime) -> Result<Ino> {
        let mut state = self.state.write();
        let made = state.create(directory, name, Node::file(mode, mtime));
        state.noted(made)
    }

    /// Makes a symbolic link to `target`, which need not exist.
    ///
    /// # Errors
    /// As [`Volume::mkdir`]; [`VolumeError::Invalid`] for a bad target too.
    pub fn symlink(&self, directory: Ino, name: &str, target: &str, mtime: Mtime) -> Result<Ino> {
        check_target(target)?;
        let node = Node {
            mode: 0o777,
            mtime,
            content: Content::Symlink(target.into()),
        };
        self.state.write().create(directory, name, node)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`]; [`VolumeError::Invalid`] if it is none.
    pub fn readlink(&self, ino: Ino) -> Result<String> {
        match &self.state.read().tree.get(ino)?.content {
            Content::Symlink(target) => Ok(target.to_string()),
            _ => Err(VolumeError::Invalid("not a symbolic link")),
        }
    }

    /// Takes the name of a file or symbolic link away. Open, it stays until it is closed.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`], [`VolumeError::IsDirectory`].
    pub fn unlink(&self, directory: Ino, name: &str) -> Result<()> {
        let mut state = self.state.write();
        let ino = state.tree.unlink(directory, name)?;
        state.wal.unnamed(ino);
        state.unnamed(ino);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`], [`VolumeError::NotEmpty`].
    pub fn rmdir(&self, directory: Ino, name: &str) -> Result<()> {
        let mut state = self.state.write();
        let ino = state.tree.unlink_directory(directory, name)?;
        state.unnamed(ino);
        Ok(())
    }

    /// Moves a name, replacing a file by a file or an empty directory by a directory.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NotDirectory`], [`VolumeError::IsDirectory`],
    /// [`VolumeError::NotEmpty`], [`VolumeError::Invalid`] for a bad name or a directory that would
    /// move into itself.
    pub fn rename(
        &self,
        from_directory: Ino,
        from_name: &str,
        to_directory: Ino,
        to_name: &str,
    ) -> Result<()> {
        let mut state = self.state.write();
        state.check_named(to_directory)?;
        let replaced = state
            .tree
            .rename((from_directory, from_name), (to_directory, to_name))?;
        state.changed = true;
        if let Some(replaced) = replaced {
            state.wal.unnamed(replaced);
            state.unnamed(replaced);
        }
        let moved = state.tree.lookup(to_directory, to_name)?;
        state.wal.unnamed(moved);
        state.named(to_directory, to_name, moved);
        Ok(())
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NoSpace`].
    pub fn set_mode(&self, ino: Ino, mode: u32) -> Result<()> {
        let mut state = self.state.write();
        state.tree.get_mut(ino)?.mode = mode;
        state.changed = true;
        Ok(())
    }

    /// Sets the time of last change.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::NoSpace`].
    pub fn set_mtime(&self, ino: Ino, mtime: Mtime) -> Result<()> {
        let mut state = self.state.write();
        state.tree.get_mut(ino)?.mtime = mtime;
        state.changed = true;
        Ok(())
    }

    /// Counts one more user of a node: it stays readable and writable after its name is gone, until
    /// [`Volume::close_ref`] was called as often. Does not survive the process.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub fn open_ref(&self, ino: Ino) -> Result<()> {
        let mut state = self.state.write();
        state.tree.get(ino)?;
        *state.open.entry(ino).or_default() += 1;
        Ok(())
    }

    /// Counts one user less; the last one of a node without a name frees its pages.
    ///
    /// # Errors
    /// [`VolumeError::Invalid`] if the node is not open.
    pub fn close_ref(&self, ino: Ino) -> Result<()> {
        let mut state = self.state.write();
        let count = state
            .open
            .get_mut(&ino)
            .ok_or(VolumeError::Invalid("the node is not open"))?;
        *count -= 1;
        if *count == 0 {
            state.open.remove(&ino);
            if state.orphans.remove(&ino) {
                state.free(ino);
            }
        }
        Ok(())
    }
}

// Contents of files.
impl Volume {
    /// Fills `buffer` from `offset` on, up to the end of the file; returns the bytes read, 0 beyond
    /// the end. Fastest for one whole page into a buffer of [`PAGE_BYTES`](crate::PAGE_BYTES).
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::IsDirectory`], [`VolumeError::Io`], and
    /// [`VolumeError::Corrupt`] for a page that is not what was written; the buffer is then worthless.
    pub fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let state = self.state.read();
        let contents = state.tree.get(ino)?.contents()?;
        let read = contents.read(&state.pages, offset, buffer)?;
        let pages = read.div_ceil(PAGE_BYTES) as u64;
        self.pages_read.fetch_add(pages, Ordering::Relaxed);
        Ok(read)
    }

    /// Pages that were read of its files since it was opened: what Postgres did not have in its own memory.
    pub fn pages_read(&self) -> u64 {
        self.pages_read.load(Ordering::Relaxed)
    }

    /// Writes `data` at `offset`, growing the file if need be; returns the bytes written, fewer than
    /// all when something failed after the first page. Growth past a limit is refused whole.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::IsDirectory`], [`VolumeError::NoSpace`],
    /// [`VolumeError::Io`], [`VolumeError::Corrupt`]; the file is then as before.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], mtime: Mtime) -> Result<usize> {
        self.volumes.wrote(data.len() as u64);
        let mut state = self.writable();
        state.check_kept()?;
        let disk = self.volumes.short_disk();
        let end = offset.saturating_add(data.len() as u64);
        let written = match state.check_growth(disk, ino, end) {
            Ok(()) => state.write(ino, offset, data, mtime),
            Err(error) => Err(error),
        };
        if let Some(error) = state.pages.cut_short.take() {
            state.note(&error);
        }
        let written = state.noted(written)?;
        if state.wal.contains(ino) {
            let logged = self.log_written(&mut state);
            state.noted(logged)?;
        }
        Ok(written)
    }

    /// The state to write in, once not too many pages are in no durable version: each page of one that is
    /// written again takes new room until the next version. Who writes faster than versions are written in
    /// the background waits for one here.
    fn writable(&self) -> RwLockWriteGuard<'_, State> {
        let state = self.state.write();
        let taken = state.pages.slots.taken() * PAGE_BYTES as u64;
        let max = match self.volumes.short_disk() {
            Some(disk) => state.dirty_bytes_max.min(disk.reserve_bytes / 16),
            None => state.dirty_bytes_max,
        };
        if taken <= max || state.broken.is_some() {
            return state;
        }
        drop(state);
        // The write itself finds out whether there is room, and whoever syncs whether versions can be
        // written: the next flush fails likewise.
        let _told_there = self.flush();
        self.state.write()
    }

    /// Cuts a file, or lets it grow by zeros that take no room.
    ///
    /// # Errors
    /// As [`Volume::write`].
    pub fn set_len(&self, ino: Ino, len: u64, mtime: Mtime) -> Result<()> {
        let mut state = self.state.write();
        let disk = self.volumes.short_disk();
        let set = match state.check_growth(disk, ino, len) {
            Ok(()) => state.set_len(ino, len, mtime),
            Err(error) => Err(error),
        };
        state.noted(set)
    }
}

impl State {
    pub(super) fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        mtime: Mtime,
    ) -> Result<usize> {
        // What is no file is not copied from the template for nothing.
        let file = self.tree.get(ino)?.contents()?;
        let in_log = self.wal.contains(ino);
        let holes = in_log.then(|| holes(file, offset, data.len()));
        let (written, len) = self.change_file(ino, |contents, pages| {
            let written = contents.write(pages, offset, data)?;
            Ok((written, contents.len()))
        })?;
        if let Some(holes) = holes {
            let first = offset / PAGE_BYTES as u64;
            let was_hole = |page: u64| holes[(page - first) as usize];
            let data = &data[..written];
            self.wal.wrote(ino, len, offset, data, &was_hole);
        }
        self.touch(ino, mtime)?;
        Ok(written)
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64, mtime: Mtime) -> Result<()> {
        self.tree.get(ino)?.contents()?;
        self.change_file(ino, |contents, pages| contents.set_len(pages, len))?;
        self.touch(ino, mtime)
    }

    fn touch(&mut self, ino: Ino, mtime: Mtime) -> Result<()> {
        self.tree.get_mut(ino)?.mtime = mtime;
        self.changed = true;
        Ok(())
    }
}

/// Which pages of a range are holes, the first page first.
fn holes(contents: &Contents, offset: u64, bytes: usize) -> Vec<bool> {
    let pages = offset / PAGE_BYTES as u64..(offset + bytes as u64).div_ceil(PAGE_BYTES as u64);
    pages.map(|page| contents.is_hole(page)).collect()
}

pub(super) fn not_a_file() -> VolumeError {
    VolumeError::Invalid("not a file")
}
