//! What a version is made of, read back.

use super::{
    Store, StoreError, context,
    record::{self, StoredFile, Version},
};
use crate::{Values, modules::Backend};
use sha2::{Digest as _, Sha256};
use std::{fs, io, ops::Range, os::unix::fs::FileExt as _, path::Path};

/// A file of a version that is being read.
#[derive(Debug)]
pub struct OpenFile {
    pack: fs::File,
    file: StoredFile,
}

/// Parts of a file, one after the other. Of a whole one the last part only comes if all of them are what was written.
#[derive(Debug)]
pub struct Parts {
    open: OpenFile,
    next: u64,
    end: u64,
    /// What was read so far, if it is the whole file.
    hash: Option<Sha256>,
}

impl OpenFile {
    /// The bytes of a range of it, by as many at a time as are asked for.
    #[must_use]
    pub fn parts(self, range: Range<u64>) -> Parts {
        let is_whole = range == (0..self.file.bytes);
        Parts {
            next: range.start.min(self.file.bytes),
            end: range.end.min(self.file.bytes),
            hash: is_whole.then(Sha256::new),
            open: self,
        }
    }
}

impl Parts {
    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// The next bytes, at most so many; none after the last. Reads the disk.
    ///
    /// # Errors
    /// If they cannot be read, or are not what was written.
    pub fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let count = self.left().min(most as u64);
        let mut bytes = vec![0; count as usize];
        let OpenFile { pack, file } = &self.open;
        pack.read_exact_at(&mut bytes, file.offset + self.next)?;
        self.next += count;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
            if self.next == self.end && !file.has_hash(std::mem::take(hash)) {
                return Err(io::Error::other("the file is not what was written"));
            }
        }
        Ok(bytes)
    }
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

impl Store {
    /// The backend of a version.
    ///
    /// # Errors
    /// If its bytes are not there, or not what they were.
    pub fn backend(&self, version: &Version) -> Result<Option<Backend>, StoreError> {
        let Some(stored) = &version.backend else {
            return Ok(None);
        };
        stored.load(|file| self.read(version, file)).map(Some)
    }

    /// The bytes of a file of a version.
    ///
    /// # Errors
    /// If they are not there, or not what they were.
    pub fn read(&self, version: &Version, file: &StoredFile) -> Result<Vec<u8>, StoreError> {
        let path = self.pack_path(&version.app, version.number);
        let pack = self.pack(&path, file)?;
        let mut bytes = vec![0; usize::try_from(file.bytes).unwrap_or_default()];
        let read = pack.read_exact_at(&mut bytes, file.offset);
        read.map_err(|source| StoreError::Disk {
            path: path.clone(),
            source,
        })?;
        if !file.is(&bytes) {
            return Err(damaged(&path, "a file in it is not what was written"));
        }
        Ok(bytes)
    }

    /// A file of a version, opened: it can be read from then on, also when the version is gone.
    ///
    /// # Errors
    /// If it is not there, or not whole.
    pub fn open_file(&self, version: &Version, file: &StoredFile) -> Result<OpenFile, StoreError> {
        let path = self.pack_path(&version.app, version.number);
        let pack = self.pack(&path, file)?;
        Ok(OpenFile {
            pack,
            file: file.clone(),
        })
    }

    /// A pack that is long enough for a file in it.
    fn pack(&self, path: &Path, file: &StoredFile) -> Result<fs::File, StoreError> {
        let failed = |source| StoreError::Disk {
            path: path.to_owned(),
            source,
        };
        let pack = fs::File::open(path).map_err(failed)?;
        // A length that is not true must not ask for memory.
        let length = pack.metadata().map_err(failed)?.len();
        let end = file.offset.checked_add(file.bytes);
        match end.is_some_and(|end| end <= length) {
            true => Ok(pack),
            false => Err(damaged(path, "it is shorter than its record says")),
        }
    }

    /// The variables and secrets of a version, in this order.
    ///
    /// # Errors
    /// If they do not open.
    pub fn values(&self, version: &Version) -> Result<(Values, Values), StoreError> {
        let path = self.record_path(&version.app, version.number);
        let context = context(&version.app, version.number);
        let open = |sealed: &str| {
            let damaged = |why: &str| damaged(&path, why);
            let sealed = record::unprinted(sealed).map_err(damaged)?;
            let opened = self.vault.open(&context, &sealed);
            let text = opened.map_err(|error| damaged(&error.to_string()))?;
            Values::from_json(&text).map_err(|_| damaged("its values are none"))
        };
        Ok((open(&version.vars)?, open(&version.secrets)?))
    }
}
