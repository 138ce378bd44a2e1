//! What the calls about names do to a disk.

use std::io;
use std::path::{Component, Path};

use rustix::io::Errno;
use store::OpenHow;

use crate::disk::content::BLOCK_BYTES;
use crate::disk::faults::Fault;
use crate::disk::inode::Inode;
use crate::disk::names::{NodeId, ROOT};
use crate::disk::state::State;

/// Syncs of directories between two searches for files that nothing leads to.
const SWEEP_INTERVAL: u64 = 64;

impl State {
    pub(crate) fn open(&mut self, path: &Path, how: OpenHow) -> io::Result<NodeId> {
        self.name_call()?;
        let node = match self.find(path)? {
            Some(node) if self.names.is_directory(node) => return Err(Errno::ISDIR.into()),
            Some(node) => {
                if how == OpenHow::Create {
                    self.file(node)?.set_len(0);
                }
                node
            }
            None if how == OpenHow::Create => {
                self.room_for_name()?;
                let (directory, name) = self.place(path)?;
                let node = self.next_node;
                self.next_node += 1;
                self.files.insert(node, Inode::default());
                self.change(vec![(directory, name, Some(node))]);
                node
            }
            None => return Err(Errno::NOENT.into()),
        };
        let (inode, random) = self.file_and_random(node)?;
        inode.evict(random);
        inode.opens += 1;
        Ok(node)
    }

    pub(crate) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.name_call()?;
        let mut directory = ROOT;
        for name in names_of(path)? {
            directory = match self.names.get(directory, name) {
                Some(node) if self.names.is_directory(node) => node,
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => {
                    self.room_for_name()?;
                    let node = self.next_node;
                    self.next_node += 1;
                    self.names.add_directory(node);
                    self.change(vec![(directory, name.to_owned(), Some(node))]);
                    node
                }
            };
        }
        Ok(())
    }

    pub(crate) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.name_call()?;
        match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => Ok(found?.is_some()),
        }
    }

    pub(crate) fn list(&mut self, directory: &Path) -> io::Result<Vec<String>> {
        self.name_call()?;
        let node = self.directory(directory)?;
        let mut names = self.names.list(node);
        // A file system lists in an order of its own.
        for at in (1..names.len()).rev() {
            names.swap(at, self.random.index(at + 1));
        }
        Ok(names)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.name_call()?;
        let (from_directory, from_name) = self.place(from)?;
        let (to_directory, to_name) = self.place(to)?;
        let node = self.existing_file(from)?;
        match self.find(to)? {
            Some(other) if other == node => return Ok(()),
            Some(other) if self.names.is_directory(other) => return Err(Errno::ISDIR.into()),
            Some(_) => {}
            None => self.room_for_name()?,
        }
        self.change(vec![
            (from_directory, from_name, None),
            (to_directory, to_name, Some(node)),
        ]);
        Ok(())
    }

    pub(crate) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.name_call()?;
        let node = self.existing_file(from)?;
        let (directory, name) = self.place(to)?;
        if self.find(to)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        self.room_for_name()?;
        self.change(vec![(directory, name, Some(node))]);
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.name_call()?;
        self.existing_file(path)?;
        let (directory, name) = self.place(path)?;
        self.change(vec![(directory, name, None)]);
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let node = self.directory(path)?;
        if self.fails(Fault::SyncDirectory) {
            let forgets = self.faults.directories_forget;
            self.names.fail_sync(node, forgets, &mut self.random);
            return Err(Errno::IO.into());
        }
        self.names.sync(node);
        self.directory_syncs += 1;
        if self.directory_syncs.is_multiple_of(SWEEP_INTERVAL) {
            self.sweep();
        }
        Ok(())
    }

    /// A new name needs room in its directory, which a full disk has by chance.
    fn room_for_name(&mut self) -> io::Result<()> {
        if self.capacity.is_some() && self.free() < BLOCK_BYTES && self.random.one_in(4) {
            return Err(self.full());
        }
        Ok(())
    }

    fn name_call(&mut self) -> io::Result<()> {
        match self.fails(Fault::Name) {
            true => Err(Errno::IO.into()),
            false => Ok(()),
        }
    }

    pub(crate) fn existing_file(&self, path: &Path) -> io::Result<NodeId> {
        match self.find(path)? {
            Some(node) if self.names.is_directory(node) => Err(Errno::ISDIR.into()),
            Some(node) => Ok(node),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(crate) fn directory(&self, path: &Path) -> io::Result<NodeId> {
        match self.find(path)? {
            Some(node) if self.names.is_directory(node) => Ok(node),
            Some(_) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// What a path leads to; none if only its last name is missing.
    fn find(&self, path: &Path) -> io::Result<Option<NodeId>> {
        let mut found = Some(ROOT);
        for name in names_of(path)? {
            let directory = found.ok_or(Errno::NOENT)?;
            if !self.names.is_directory(directory) {
                return Err(Errno::NOTDIR.into());
            }
            found = self.names.get(directory, name);
        }
        Ok(found)
    }

    /// The directory and the name in it of a path.
    fn place(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = names_of(path)?.pop().ok_or(Errno::ISDIR)?.to_owned();
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        Ok((self.directory(parent)?, name))
    }
}

/// The names of a path from the root on; the current directory is the root.
fn names_of(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(Errno::INVAL)?),
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
        }
    }
    Ok(names)
}
