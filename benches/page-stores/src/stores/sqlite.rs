//! SQLite in WAL mode with `synchronous=FULL`: one file for all databases, or a file a database.

use super::{EACH_CACHE_BYTES, PageStore, Result, SHARED_CACHE_BYTES, sync_directory};
use crate::page::{Batch, Page};
use rusqlite::{Connection, OptionalExtension as _};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

pub(super) struct One(Connection);

impl One {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("all.sqlite");
        Ok(Self(connect(directory, &path, SHARED_CACHE_BYTES)?))
    }
}

impl PageStore for One {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        write(&mut self.0, key(database, 0), batch)
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        read(&self.0, key(database, page), into)
    }

    fn sleep(&mut self, _database: u64) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        self.0.execute(
            "DELETE FROM pages WHERE id >= ?1 AND id < ?2",
            [key(database, 0), key(database + 1, 0)],
        )?;
        Ok(())
    }

    fn tidy(&mut self) -> Result<()> {
        Ok(self.0.execute_batch("VACUUM")?)
    }
}

pub(super) struct Each {
    directory: PathBuf,
    open: HashMap<u64, Connection>,
}

impl Each {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            open: HashMap::new(),
        }
    }

    fn path(&self, database: u64) -> PathBuf {
        self.directory.join(format!("{database}.sqlite"))
    }

    fn connection(&mut self, database: u64) -> Result<&mut Connection> {
        if !self.open.contains_key(&database) {
            let connection = connect(&self.directory, &self.path(database), EACH_CACHE_BYTES)?;
            self.open.insert(database, connection);
        }
        let open = self.open.get_mut(&database);
        open.ok_or_else(|| "it was just opened".into())
    }
}

impl PageStore for Each {
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()> {
        write(self.connection(database)?, 0, batch)
    }

    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool> {
        read(self.connection(database)?, i64::from(page), into)
    }

    fn sleep(&mut self, database: u64) -> Result<()> {
        match self.open.remove(&database) {
            Some(connection) => Ok(connection.close().map_err(|(_, error)| error)?),
            None => Ok(()),
        }
    }

    fn remove(&mut self, database: u64) -> Result<()> {
        // Closed, it is one file: the last connection has removed its log.
        fs::remove_file(self.path(database))?;
        sync_directory(&self.directory)
    }
}

fn connect(directory: &Path, path: &Path, cache_bytes: usize) -> Result<Connection> {
    let new = !path.try_exists()?;
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-{};
         CREATE TABLE IF NOT EXISTS pages (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
        cache_bytes >> 10
    ))?;
    if new {
        sync_directory(directory)?;
    }
    Ok(connection)
}

/// The row of a page: the database above the 32 bits of the page.
fn key(database: u64, page: u32) -> i64 {
    (database << 32 | u64::from(page)).cast_signed()
}

fn write(connection: &mut Connection, base: i64, batch: &Batch) -> Result<()> {
    let transaction = connection.transaction()?;
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO pages (id, bytes) VALUES (?1, ?2)")?;
    for (number, page) in batch.iter() {
        insert.execute((base + i64::from(number), page))?;
    }
    drop(insert);
    Ok(transaction.commit()?)
}

fn read(connection: &Connection, id: i64, into: &mut Page) -> Result<bool> {
    let mut select = connection.prepare_cached("SELECT bytes FROM pages WHERE id = ?1")?;
    let found = select
        .query_row([id], |row| {
            let bytes = row.get_ref(0)?.as_blob()?;
            Ok(bytes.len() == into.len() && {
                into.copy_from_slice(bytes);
                true
            })
        })
        .optional()?;
    match found {
        Some(true) => Ok(true),
        Some(false) => Err("a page of another length".into()),
        None => Ok(false),
    }
}
