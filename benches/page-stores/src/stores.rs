//! What is compared, behind one trait.

mod fjall;
mod own;
mod plain;
mod redb;
mod sqlite;

use crate::page::{Batch, Page};
use std::{error::Error, path::Path};

/// The result of whatever can fail here; the text is for a person.
pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Memory that a store of all databases may use as its own cache, in bytes.
const SHARED_CACHE_BYTES: usize = 64 << 20;

/// Memory that the store of one database may use as its own cache, in bytes.
const EACH_CACHE_BYTES: usize = 1 << 20;

/// Keeps the pages of many databases, numbered from 1. A database exists from its first write on.
pub(crate) trait PageStore {
    /// Writes the pages of one database as one version: when it returns they are durable, and after
    /// a crash all of them are there or none.
    fn write(&mut self, database: u64, batch: &Batch) -> Result<()>;

    /// Reads a page as of the last version; false, or true and zeros, if it was never written.
    fn read(&mut self, database: u64, page: u32, into: &mut Page) -> Result<bool>;

    /// Gives up what is held in memory, and the descriptors, for one database only.
    fn sleep(&mut self, database: u64) -> Result<()>;

    /// Removes a database that sleeps, durably.
    fn remove(&mut self, database: u64) -> Result<()>;

    /// Makes the new database `to` from what `from` is now, durably; false if the store cannot.
    fn fork(&mut self, _from: u64, _to: u64) -> Result<bool> {
        Ok(false)
    }

    /// Whatever the engine has for giving unused space back, if that does not happen by itself.
    fn tidy(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One of the stores that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Candidate {
    /// No store at all: pages written in place, then `fdatasync`. The unit, and what must fail the
    /// crash test.
    Plain,
    /// Our own format: `crates/volume`.
    Own,
    /// redb, one file for all databases.
    RedbOne,
    /// redb, one file a database.
    RedbEach,
    /// fjall, one keyspace for all databases.
    FjallOne,
    /// fjall, one keyspace a database.
    FjallEach,
    /// SQLite, one file for all databases.
    SqliteOne,
    /// SQLite, one file a database.
    SqliteEach,
}

impl Candidate {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Own,
        Self::RedbOne,
        Self::RedbEach,
        Self::FjallOne,
        Self::FjallEach,
        Self::SqliteOne,
        Self::SqliteEach,
    ];

    /// Its name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Own => "own",
            Self::RedbOne => "redb-one",
            Self::RedbEach => "redb-each",
            Self::FjallOne => "fjall-one",
            Self::FjallEach => "fjall-each",
            Self::SqliteOne => "sqlite-one",
            Self::SqliteEach => "sqlite-each",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| format!("no store is called {name}").into())
    }

    /// Opens what is in `directory`, which exists and may be empty.
    pub(crate) fn open(self, directory: &Path) -> Result<Box<dyn PageStore>> {
        Ok(match self {
            Self::Plain => Box::new(plain::Plain::open(directory)),
            Self::Own => Box::new(own::Own::open(directory)),
            Self::RedbOne => Box::new(redb::One::open(directory)?),
            Self::RedbEach => Box::new(redb::Each::open(directory)),
            Self::FjallOne => Box::new(fjall::One::open(directory)?),
            Self::FjallEach => Box::new(fjall::Each::open(directory)?),
            Self::SqliteOne => Box::new(sqlite::One::open(directory)?),
            Self::SqliteEach => Box::new(sqlite::Each::open(directory)),
        })
    }
}

/// Makes a name that was made or removed in `directory` durable.
fn sync_directory(directory: &Path) -> Result<()> {
    Ok(std::fs::File::open(directory)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{folder::Folder, page::PAGE_BYTES, page::sequence_of};

    /// What every store must do, or the comparison compares different things.
    #[test]
    fn every_store_keeps_removes_and_forgets() {
        for candidate in Candidate::ALL {
            let folder = Folder::new(&std::env::temp_dir(), candidate.name()).unwrap();
            let mut page = [0; PAGE_BYTES];
            let mut store = candidate.open(folder.path()).unwrap();
            store.write(1, &Batch::filled(1, vec![0, 5], 1)).unwrap();
            store.write(2, &Batch::filled(2, vec![0], 2)).unwrap();
            store.write(1, &Batch::filled(1, vec![5], 3)).unwrap();
            store.sleep(1).unwrap();
            drop(store);

            let mut store = candidate.open(folder.path()).unwrap();
            let mut sequence = |store: &mut dyn PageStore, database, number| {
                page.fill(0);
                store.read(database, number, &mut page).unwrap();
                sequence_of(database, number, &page).unwrap()
            };
            let name = candidate.name();
            assert_eq!(sequence(&mut *store, 1, 0), Some(1), "{name}");
            assert_eq!(sequence(&mut *store, 1, 5), Some(3), "{name}");
            assert_eq!(sequence(&mut *store, 1, 4), None, "{name}");
            assert_eq!(sequence(&mut *store, 2, 0), Some(2), "{name}");
            store.sleep(1).unwrap();
            store.remove(1).unwrap();
            store.tidy().unwrap();
            drop(store);

            let mut store = candidate.open(folder.path()).unwrap();
            assert_eq!(sequence(&mut *store, 1, 5), None, "{name}");
            assert_eq!(sequence(&mut *store, 2, 0), Some(2), "{name}");
        }
    }

    #[test]
    fn a_fork_goes_its_own_way() {
        let folder = Folder::new(&std::env::temp_dir(), "fork").unwrap();
        let mut store = Candidate::Own.open(folder.path()).unwrap();
        store.write(1, &Batch::filled(1, vec![0, 1], 1)).unwrap();
        assert!(store.fork(1, 2).unwrap());
        store.write(1, &Batch::filled(1, vec![0], 2)).unwrap();
        store.sleep(2).unwrap();
        let mut page = [0; PAGE_BYTES];
        assert!(store.read(2, 0, &mut page).unwrap());
        assert_eq!(sequence_of(1, 0, &page), Ok(Some(1)));
    }
}
