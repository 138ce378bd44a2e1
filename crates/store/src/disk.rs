//! The disk: what this program asks of a file system, so that a simulated one can stand in for it.
//!
//! What an implementation promises, and no more
//! 1. What [`DiskFile::sync_data`] returned Ok for is on the medium: content and length.
//! 2. A name made, moved or removed is on the medium once [`Disk::sync_directory`] of its directory
//!    returned Ok. A rename is atomic: at every instant the name leads to the old file or the new.
//! 3. Anything else may be lost, torn or reordered by a power failure.
//! 4. After a failed sync nothing is known of what it was to sync; trying again proves nothing.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenHow {
    /// To be read; it must exist.
    Read,
    /// To be read and written; it must exist.
    Write,
    /// To be read and written; made if it is not there, emptied if it is.
    Create,
}

/// A file system's names.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says: [`io::ErrorKind::NotFound`] and the like.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a directory and those above it; there already is fine.
    ///
    /// # Errors
    /// What the system says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Whether something of this name is there.
    ///
    /// # Errors
    /// What the system says, other than that it is not there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The names in a directory, in any order. A name that is not UTF-8 is left out: none of ours is.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Moves a file's name, replacing a file that has it.
    ///
    /// # Errors
    /// What the system says; nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// What the system says: [`io::ErrorKind::AlreadyExists`] and the like.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away.
    ///
    /// # Errors
    /// What the system says: [`io::ErrorKind::NotFound`] and the like.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bytes that this program may still write to the file system that a directory is in. A disk that
    /// knows no bound has [`u64::MAX`].
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says; the names may or may not survive a power failure then.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length in bytes that may fail; nobody asks whether it is 0"
)]
pub trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Reads at an offset: how many bytes, 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `data` at an offset. After an error the range may hold anything.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::StorageFull`] on a full disk.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or lets it grow by zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sees to it that writing the first `len` bytes will not find the disk full. A file system that
    /// cannot promise it does nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Gives the room of a range back; it reads as zeros or as before. Only tidiness: a file system
    /// that cannot does nothing.
    ///
    /// # Errors
    /// What the system says.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// What the system says; nothing is known of the content then.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before, and what the system says.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The operating system's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let writes = how != OpenHow::Read;
        let creates = how == OpenHow::Create;
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .create(creates)
            .truncate(creates)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(directory)?;
        // What is kept for the superuser is not for this program.
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        supported(rustix::fs::fallocate(
            &self.0,
            FallocateFlags::empty(),
            0,
            len,
        ))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        supported(rustix::fs::fallocate(&self.0, flags, offset, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A file system without the call does nothing.
fn supported(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_bytes_are_those_of_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let free = RealDisk.free_bytes(dir.path()).unwrap();
        let system = rustix::fs::statvfs(dir.path()).unwrap();
        assert!(free <= system.f_blocks * system.f_frsize);
        let missing = RealDisk.free_bytes(&dir.path().join("missing"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_made_written_read_and_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(
            RealDisk.open(&a, OpenHow::Read).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let file = RealDisk.open(&a, OpenHow::Create).unwrap();
        file.allocate(100).unwrap();
        file.write_all_at(b"hello", 200).unwrap();
        file.sync_data().unwrap();
        let mut read = [9; 5];
        file.read_exact_at(&mut read, 200).unwrap();
        assert_eq!(&read, b"hello");
        assert_eq!(file.len().unwrap(), 205);
        let past = file.read_exact_at(&mut read, 203).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        file.punch(0, 4096).unwrap();
        RealDisk.rename(&a, &b).unwrap();
        RealDisk.link(&b, &a).unwrap();
        RealDisk.sync_directory(dir.path()).unwrap();
        assert!(RealDisk.exists(&a).unwrap());
        RealDisk.remove(&a).unwrap();
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["b"]);
    }
}
