//! Our own format: a volume a database, all of its pages in one file of the volume.

use super::{PageStore, Result};
use crate::page::{Batch, PAGE_BYTES, Page};
use std::{collections::HashMap, path::Path, sync::Arc};
use volume::{Base, DatabaseId, Ino, Mtime, Template, Volume, VolumeError, Volumes};

/// The one file of each volume.
const FILE: &str = "pages";

pub(super) struct Own {
    volumes: Arc<Volumes>,
    open: HashMap<u64, (Volume, Ino)>,
}

impl Own {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            volumes: Volumes::plain(directory),
            open: HashMap::new(),
        }
    }

    fn volume(&mut self, database: u64) -> Result<&(Volume, Ino)> {
        if !self.open.contains_key(&database) {
            let opened = match Volume::open(&self.volumes, id(database)?) {
                Ok(volume) => {
                    let ino = volume.lookup(Ino::ROOT, FILE)?;
                    (volume, ino)
                }
                Err(VolumeError::NotFound) => {
                    let volume = Volume::create(
                        &self.volumes,
                        id(database)?,
                        &Base::template(Template::empty()),
                    )?;
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
        // No fork outlives its parent in this comparison: its layers may go.
        Ok(Volume::remove(&self.volumes, id(database)?, &|_| false)?)
    }

    fn fork(&mut self, from: u64, to: u64) -> Result<bool> {
        let volumes = Arc::clone(&self.volumes);
        let (parent, ino) = self.volume(from)?;
        let base = volumes.base(parent.share()?)?;
        let fork = (Volume::create(&volumes, id(to)?, &base)?, *ino);
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
