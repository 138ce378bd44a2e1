//! The unit: a file a database, pages in place, one `fdatasync`. Neither atomic nor checked.

use super::{PageStore, Result, sync_directory};
use crate::page::{Batch, PAGE_BYTES, Page};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

pub(super) struct Plain {
    directory: PathBuf,
    files: HashMap<u64, File>,
}

impl Plain {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            files: HashMap::new(),
        }
    }

    fn path(&self, database: u64) -> PathBuf {
        self.directory.join(format!("{database}.plain"))
    }

    fn file(&mut self, database: u64) -> Result<&File> {
        if !self.files.contains_key(&database) {
            let path = self.path(database);
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            let file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let made = options.create_new(true).open(&path)?;
                    sync_directory(&self.directory)?;
                    made
                }
                opened => opened?,
            };
            self.files.insert(database, file);
        }
        Ok(&self.files[&database])
    }
}

impl PageStore for Plain {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        let file = self.file(database)?;
        for (number, page) in batch.iter() {
            file.write_all_at(page, u64::from(number) * PAGE_BYTES as u64)?;
        }
        Ok(file.sync_data()?)
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        let read = self
            .file(database)?
            .read_exact_at(into, u64::from(page) * PAGE_BYTES as u64);
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                into.fill(0);
                Ok(false)
            }
            read => Ok(read.map(|()| true)?),
        }
    }

    fn sleep(&mut self, database: u64) -> Result<()> {
        self.files.remove(&database);
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        std::fs::remove_file(self.path(database))?;
        sync_directory(&self.directory)
    }

    /// A copy, as any store of one file a database could make while that sleeps.
    fn fork(&mut self, from: u64, to: u64) -> Result<bool> {
        let path = self.path(to);
        std::fs::copy(self.path(from), &path)?;
        File::open(path)?.sync_all()?;
        sync_directory(&self.directory)?;
        Ok(true)
    }
}
