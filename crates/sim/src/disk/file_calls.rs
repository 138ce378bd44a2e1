//! What the calls about an open file do to a disk.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::disk::content::BLOCK_BYTES;
use crate::disk::faults::Fault;
use crate::disk::inode::Inode;
use crate::disk::names::NodeId;
use crate::disk::state::State;

impl State {
    pub(crate) fn len(&mut self, node: NodeId) -> io::Result<u64> {
        Ok(self.file(node)?.len())
    }

    pub(crate) fn read(
        &mut self,
        node: NodeId,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        if self.fails(Fault::Read) {
            return Err(Errno::IO.into());
        }
        Ok(self.file(node)?.read(buffer, offset))
    }

    /// Writes; `stops` if the machine stops somewhere in it.
    pub(crate) fn write(
        &mut self,
        node: NodeId,
        data: &[u8],
        offset: u64,
        stops: bool,
    ) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let failed = self.fails(Fault::Write);
        let mut len = data.len() as u64;
        if failed || stops {
            len = self.random.below(len);
        }
        let free = self.free() / BLOCK_BYTES;
        let file = self.file(node)?;
        let fits = fitting(file, offset, len, free);
        file.write(&data[..fits as usize], offset);
        match (fits < len, failed) {
            (true, _) => Err(self.full()),
            (false, true) => Err(Errno::IO.into()),
            (false, false) => Ok(()),
        }
    }

    pub(crate) fn set_len(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        if self.fails(Fault::Write) {
            return Err(Errno::IO.into());
        }
        self.file(node)?.set_len(len);
        Ok(())
    }

    pub(crate) fn allocate(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        if !self.faults.reserves_room || len == 0 {
            return Ok(());
        }
        if self.fails(Fault::Write) {
            return Err(Errno::IO.into());
        }
        let free = self.free() / BLOCK_BYTES;
        let file = self.file(node)?;
        if file.blocks_missing(0, len) > free {
            return Err(self.full());
        }
        file.allocate(len);
        Ok(())
    }

    pub(crate) fn punch(&mut self, node: NodeId, offset: u64, len: u64) -> io::Result<()> {
        if self.faults.reserves_room {
            self.file(node)?.punch(offset, len);
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self, node: NodeId) -> io::Result<()> {
        if self.fails(Fault::Sync) {
            let (file, random) = self.file_and_random(node)?;
            file.fail_sync(random);
            return Err(Errno::IO.into());
        }
        self.file(node)?.sync();
        Ok(())
    }

    /// Flips a bit of a file on the medium. False if the file ends before.
    pub(crate) fn flip(&mut self, path: &Path, offset: u64, bit: u8) -> io::Result<bool> {
        let node = self.existing_file(path)?;
        let flipped = self.file(node)?.flip(offset, bit);
        self.counts.bits_flipped += u64::from(flipped);
        Ok(flipped)
    }

    /// Length of a file as a process sees it.
    pub(crate) fn len_of(&mut self, path: &Path) -> io::Result<u64> {
        let node = self.existing_file(path)?;
        self.len(node)
    }

    /// Bytes of the medium that a file takes.
    pub(crate) fn room_of(&mut self, path: &Path) -> io::Result<u64> {
        let node = self.existing_file(path)?;
        Ok(self.file(node)?.blocks() * BLOCK_BYTES)
    }

    /// What a process reads of a file, if nothing fails.
    pub(crate) fn peek(
        &mut self,
        path: &Path,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        let node = self.existing_file(path)?;
        Ok(self.file(node)?.read(buffer, offset))
    }

    pub(crate) fn names_in(&self, directory: &Path) -> io::Result<Vec<String>> {
        Ok(self.names.list(self.directory(directory)?))
    }
}

/// How many of `len` bytes can be written at `offset` with so many free blocks.
fn fitting(file: &Inode, offset: u64, len: u64, free: u64) -> u64 {
    if len == 0 || file.blocks_missing(offset, len) <= free {
        return len;
    }
    // The longest beginning that ends with a block and needs no more than is free.
    let mut fits = 0;
    let mut end = (offset / BLOCK_BYTES + 1) * BLOCK_BYTES;
    while end < offset + len && file.blocks_missing(offset, end - offset) <= free {
        fits = end - offset;
        end += BLOCK_BYTES;
    }
    fits
}
