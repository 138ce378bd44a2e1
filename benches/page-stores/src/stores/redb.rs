//! redb: keys are (database, page) in one file for all, or page in a file a database.

use super::{EACH_CACHE_BYTES, PageStore, Result, SHARED_CACHE_BYTES, sync_directory};
use crate::page::{Batch, Page};
use redb::{Database, Key, ReadableDatabase as _, TableDefinition, TableError};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

const ALL: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("pages");
const OF_ONE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("pages");

pub(super) struct One(Database);

impl One {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("all.redb");
        let new = !path.try_exists()?;
        let database = Database::builder()
            .set_cache_size(SHARED_CACHE_BYTES)
            .create(path)?;
        if new {
            sync_directory(directory)?;
        }
        Ok(Self(database))
    }
}

impl PageStore for One {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        write(&self.0, ALL, batch, |number| (database, number))
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        read(&self.0, ALL, (database, page), into)
    }

    fn sleep(&mut self, _database: u64) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        let transaction = self.0.begin_write()?;
        transaction
            .open_table(ALL)?
            .retain_in((database, 0)..=(database, u32::MAX), |_, _| false)?;
        Ok(transaction.commit()?)
    }

    fn tidy(&mut self) -> Result<()> {
        self.0.compact()?;
        Ok(())
    }
}

pub(super) struct Each {
    directory: PathBuf,
    open: HashMap<u64, Database>,
}

impl Each {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            open: HashMap::new(),
        }
    }

    fn path(&self, database: u64) -> PathBuf {
        self.directory.join(format!("{database}.redb"))
    }

    fn database(&mut self, database: u64) -> Result<&mut Database> {
        if !self.open.contains_key(&database) {
            let path = self.path(database);
            let new = !path.try_exists()?;
            let opened = Database::builder()
                .set_cache_size(EACH_CACHE_BYTES)
                .create(path)?;
            if new {
                sync_directory(&self.directory)?;
            }
            self.open.insert(database, opened);
        }
        let open = self.open.get_mut(&database);
        open.ok_or_else(|| "it was just opened".into())
    }
}

impl PageStore for Each {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        write(self.database(database)?, OF_ONE, batch, |number| number)
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        read(self.database(database)?, OF_ONE, page, into)
    }

    fn sleep(&mut self, database: u64) -> Result<()> {
        self.open.remove(&database);
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        fs::remove_file(self.path(database))?;
        sync_directory(&self.directory)
    }

    fn tidy(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".redb"));
            let number = number.and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| io::Error::other("a foreign file"))?;
            self.database(number)?.compact()?;
            self.sleep(number)?;
        }
        Ok(())
    }
}

fn write<T, K: for<'k> Key<SelfType<'k> = T> + 'static>(
    database: &Database,
    table: TableDefinition<'_, K, &'static [u8]>,
    batch: &Batch,
    key: impl Fn(u32) -> T,
) -> Result<()> {
    // Durable at commit: the default.
    let transaction = database.begin_write()?;
    let mut pages = transaction.open_table(table)?;
    for (number, page) in batch.iter() {
        pages.insert(key(number), page)?;
    }
    drop(pages);
    Ok(transaction.commit()?)
}

fn read<K: Key + 'static>(
    database: &Database,
    table: TableDefinition<'_, K, &'static [u8]>,
    key: K::SelfType<'_>,
    into: &mut Page,
) -> Result<bool> {
    let pages = match database.begin_read()?.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(false),
        opened => opened?,
    };
    let Some(found) = redb::ReadableTable::get(&pages, key)? else {
        return Ok(false);
    };
    into.copy_from_slice(found.value());
    Ok(true)
}
