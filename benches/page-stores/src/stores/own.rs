//! Our own format: a volume a database, all of its pages in one file of the volume.

use super::{PageStore, Result};
use crate::page::{Batch, PAGE_BYTES, Page};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use volume::{DatabaseId, Ino, Mtime, Template, Volume, VolumeError};

/// The one file of each volume.
const FILE: &str = "pages";

pub(super) struct Own {
    directory: PathBuf,
    open: HashMap<u64, (Volume, Ino)>,
}

impl Own {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            open: HashMap::new(),
        }
    }

    fn volume(&mut self, database: u64) -> Result<&(Volume, Ino)> {
        if !self.open.contains_key(&database) {
            let no_template = |_| Err(VolumeError::NotFound);
            let opened = match Volume::open(&self.directory, id(database)?, &no_template) {
                Ok(volume) => {
                    let ino = volume.lookup(Ino::ROOT, FILE)?;
                    (volume, ino)
                }
                Err(VolumeError::NotFound) => {
                    let volume = Volume::create(&self.directory, id(database)?, Template::empty())?;
                    let ino = volume.create_file(Ino::ROOT, FILE, 0o600, Mtime::default())?;
                    (volume, ino)
                }
                Err(error) => return Err(error.into()),
            };
            self.open.insert(database, opened);
        }
        Ok(&self.open[&database])
    }
}

impl PageStore for Own {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        let (volume, ino) = self.volume(database)?;
        for (number, page) in batch.iter() {
            let written = volume.write(*ino, offset(number), page, Mtime::default())?;
            if written != PAGE_BYTES {
                return Err("a page was written in part".into());
            }
        }
        volume.flush()?;
        Ok(())
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        let (volume, ino) = self.volume(database)?;
        Ok(volume.read(*ino, offset(page), into)? == PAGE_BYTES)
    }

    fn sleep(&mut self, database: u64) -> Result<()> {
        self.open.remove(&database);
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        Ok(Volume::remove(&self.directory, id(database)?)?)
    }

    fn fork(&mut self, from: u64, to: u64) -> Result<bool> {
        let directory = self.directory.clone();
        let (parent, ino) = self.volume(from)?;
        let fork = (parent.fork(&directory, id(to)?)?, *ino);
        fork.0.flush()?;
        self.open.insert(to, fork);
        Ok(true)
    }
}

fn id(database: u64) -> Result<DatabaseId> {
    DatabaseId::new(database).ok_or_else(|| "databases are numbered from 1".into())
}

fn offset(page: u32) -> u64 {
    u64::from(page) * PAGE_BYTES as u64
}
