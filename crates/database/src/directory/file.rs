//! The directory's file, opened again after an error of the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redb::Database as Redb;

use super::{COUNTERS, GARBAGE, LAYERS, NAMES, RECORDS};

/// After one write that failed, redb refuses everything until the file is opened again: so it is.
pub(super) struct File {
    path: PathBuf,
    cache_bytes: usize,
    open: RwLock<Option<Arc<Redb>>>,
}

impl File {
    /// Opens the file, or makes it with its tables.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<(Self, Arc<Redb>), redb::Error> {
        let file = Self {
            path: path.to_owned(),
            cache_bytes,
            open: RwLock::new(None),
        };
        let open = file.get()?;
        Ok((file, open))
    }

    /// Does something with the open file; once more if it had to be opened again.
    pub(super) fn with<T>(
        &self,
        mut work: impl FnMut(&Arc<Redb>) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match self.get().and_then(|file| work(&file)) {
            Err(redb::Error::PreviousIo) if self.close() => self.get().and_then(|file| work(&file)),
            outcome => outcome,
        }
    }

    fn get(&self) -> Result<Arc<Redb>, redb::Error> {
        if let Some(file) = &*self.open.read() {
            return Ok(Arc::clone(file));
        }
        let mut open = self.open.write();
        if let Some(file) = &*open {
            return Ok(Arc::clone(file));
        }
        let file = Redb::builder()
            .set_cache_size(self.cache_bytes)
            .create(&self.path)?;
        let transaction = file.begin_write()?;
        transaction.open_table(NAMES)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(LAYERS)?;
        transaction.open_table(GARBAGE)?;
        transaction.open_table(COUNTERS)?;
        transaction.commit()?;
        Ok(Arc::clone(open.insert(Arc::new(file))))
    }

    /// Closes the file, unless somebody is using it: whether it is closed.
    fn close(&self) -> bool {
        let mut open = self.open.write();
        if open
            .as_ref()
            .is_some_and(|file| Arc::strong_count(file) > 1)
        {
            return false;
        }
        *open = None;
        true
    }
}
