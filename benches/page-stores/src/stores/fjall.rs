//! fjall: one keyspace whose keys are (database, page), or a keyspace a database. One journal for all.

use super::{PageStore, Result, SHARED_CACHE_BYTES};
use crate::page::{Batch, Page};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{collections::HashMap, path::Path};

pub(super) struct One {
    database: Database,
    pages: Keyspace,
}

impl One {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let database = open(directory)?;
        let pages = database.keyspace("pages", options)?;
        Ok(Self { database, pages })
    }
}

impl PageStore for One {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        write(&self.database, &self.pages, batch, |page| {
            key(database, page)
        })
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        read(&self.pages, &key(database, page), into)
    }

    fn sleep(&mut self, _database: u64) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        let mut removal = self.database.batch().durability(Some(PersistMode::SyncAll));
        for page in self.pages.prefix(database.to_be_bytes()) {
            removal.remove(&self.pages, page.key()?);
        }
        Ok(removal.commit()?)
    }

    fn tidy(&mut self) -> Result<()> {
        self.pages.rotate_memtable_and_wait()?;
        Ok(self.pages.major_compact()?)
    }
}

pub(super) struct Each {
    database: Database,
    open: HashMap<u64, Keyspace>,
}

impl Each {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            database: open(directory)?,
            open: HashMap::new(),
        })
    }

    fn keyspace(&mut self, database: u64) -> Result<&Keyspace> {
        if !self.open.contains_key(&database) {
            let opened = self.database.keyspace(&database.to_string(), options)?;
            self.open.insert(database, opened);
        }
        Ok(&self.open[&database])
    }
}

impl PageStore for Each {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        let pages = self.keyspace(database)?.clone();
        write(&self.database, &pages, batch, u32::to_be_bytes)
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        if !self.open.contains_key(&database)
            && !self.database.keyspace_exists(&database.to_string())
        {
            return Ok(false);
        }
        read(self.keyspace(database)?, &page.to_be_bytes(), into)
    }

    fn sleep(&mut self, database: u64) -> Result<()> {
        self.open.remove(&database);
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        let keyspace = self.keyspace(database)?.clone();
        self.open.remove(&database);
        self.database.delete_keyspace(keyspace)?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn tidy(&mut self) -> Result<()> {
        for name in self.database.list_keyspace_names() {
            let keyspace = self.database.keyspace(&name, options)?;
            keyspace.rotate_memtable_and_wait()?;
            keyspace.major_compact()?;
        }
        Ok(())
    }
}

fn open(directory: &Path) -> Result<Database> {
    Ok(Database::builder(directory)
        .cache_size(SHARED_CACHE_BYTES as u64)
        .open()?)
}

/// Values in the tree. Kept apart from it (`with_kv_separation`), as fjall advises for large ones, pages
/// were read at 0.7 of the speed and took up to twice the disk while they were overwritten.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
}

fn key(database: u64, page: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&database.to_be_bytes());
    key[8..].copy_from_slice(&page.to_be_bytes());
    key
}

fn write<K: AsRef<[u8]>>(
    database: &Database,
    pages: &Keyspace,
    batch: &Batch,
    key: impl Fn(u32) -> K,
) -> Result<()> {
    let mut writes = database.batch().durability(Some(PersistMode::SyncData));
    for (number, page) in batch.iter() {
        writes.insert(pages, key(number).as_ref(), page);
    }
    Ok(writes.commit()?)
}

fn read(pages: &Keyspace, key: &[u8], into: &mut Page) -> Result<bool> {
    let Some(found) = pages.get(key)? else {
        return Ok(false);
    };
    if found.len() != into.len() {
        return Err("a page of another length".into());
    }
    into.copy_from_slice(&found);
    Ok(true)
}
