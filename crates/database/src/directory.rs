//! The directory: every database's name and record, on disk and in memory.
//!
//! One `redb` file, two tables. `databases`: name -> record as JSON, so that later versions can add
//! fields. `counters`: `next_id` -> the lowest id never reserved; ids are not reused, because they
//! name files.

use std::ops::Range;
use std::path::Path;

use parking_lot::Mutex;
use redb::{Database as Redb, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use volume::{DatabaseId, TemplateId};
use wire::{DatabaseName, PgError, sqlstate};

const DATABASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("databases");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const NEXT_ID: &str = "next_id";
/// How many ids are reserved at once.
const IDS_RESERVED: u64 = 256;

/// What is kept of a database beside its volume. Serialized: fields may be added, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    /// 32 hexadecimal digits.
    pub(crate) template: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// The database that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// Names that its catalog may still have: its own before a rename, its parent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former_names: Vec<String>,
}

impl Record {
    pub(crate) fn id(&self) -> Option<DatabaseId> {
        DatabaseId::new(self.id)
    }

    pub(crate) fn template(&self) -> Option<TemplateId> {
        let number = u128::from_str_radix(&self.template, 16).ok()?;
        Some(TemplateId::from_bytes(number.to_be_bytes()))
    }
}

/// The names and records on disk.
pub(crate) struct Directory {
    file: Redb,
    /// Ids that are reserved on disk and not given out yet.
    reserved: Mutex<Range<u64>>,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, redb::Error> {
        let file = Redb::create(path)?;
        let transaction = file.begin_write()?;
        transaction.open_table(DATABASES)?;
        transaction.open_table(COUNTERS)?;
        transaction.commit()?;
        Ok(Self {
            file,
            reserved: Mutex::default(),
        })
    }

    /// Every database, by name.
    pub(crate) fn load(&self) -> Result<Vec<(DatabaseName, Record)>, String> {
        let fail = |error: &dyn std::fmt::Display| error.to_string();
        let transaction = self.file.begin_read().map_err(|e| fail(&e))?;
        let table = transaction.open_table(DATABASES).map_err(|e| fail(&e))?;
        let mut databases = Vec::new();
        for entry in table.iter().map_err(|e| fail(&e))? {
            let (name, record) = entry.map_err(|e| fail(&e))?;
            let name = name.value();
            let record: Record = serde_json::from_slice(record.value())
                .map_err(|error| format!("the record of {name:?} is damaged: {error}"))?;
            let name = DatabaseName::parse(name).map_err(|error| error.to_string())?;
            databases.push((name, record));
        }
        Ok(databases)
    }

    /// An id that no database has or had. They are reserved on disk many at a time, so that a
    /// creation costs one durable write; a restart skips what was left.
    pub(crate) fn next_id(&self) -> Result<DatabaseId, PgError> {
        let mut reserved = self.reserved.lock();
        if reserved.is_empty() {
            *reserved = self.write(|transaction| {
                let mut counters = transaction.open_table(COUNTERS)?;
                let first = counters.get(NEXT_ID)?.map_or(1, |value| value.value());
                counters.insert(NEXT_ID, first + IDS_RESERVED)?;
                Ok(first..first + IDS_RESERVED)
            })?;
        }
        let id = reserved.next().and_then(DatabaseId::new);
        id.ok_or_else(|| internal("the directory has run out of ids"))
    }

    pub(crate) fn insert(&self, name: &DatabaseName, record: &Record) -> Result<(), PgError> {
        let bytes = serde_json::to_vec(record).map_err(|error| internal(&error.to_string()))?;
        self.write(|transaction| {
            transaction
                .open_table(DATABASES)?
                .insert(name.as_str(), bytes.as_slice())?;
            Ok(())
        })
    }

    pub(crate) fn remove(&self, name: &DatabaseName) -> Result<(), PgError> {
        self.write(|transaction| {
            transaction.open_table(DATABASES)?.remove(name.as_str())?;
            Ok(())
        })
    }

    pub(crate) fn rename(
        &self,
        from: &DatabaseName,
        to: &DatabaseName,
        record: &Record,
    ) -> Result<(), PgError> {
        let bytes = serde_json::to_vec(record).map_err(|error| internal(&error.to_string()))?;
        self.write(|transaction| {
            let mut table = transaction.open_table(DATABASES)?;
            table.remove(from.as_str())?;
            table.insert(to.as_str(), bytes.as_slice())?;
            Ok(())
        })
    }

    /// One durable transaction.
    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, PgError> {
        let attempt = || -> Result<T, redb::Error> {
            let transaction = self.file.begin_write()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        attempt().map_err(|error| {
            PgError::error(
                sqlstate::IO_ERROR,
                format!("the directory of databases: {error}"),
            )
        })
    }
}

fn internal(message: &str) -> PgError {
    PgError::error(sqlstate::INTERNAL_ERROR, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_ids_are_not_reused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.redb");
        let name = |text: &str| DatabaseName::parse(text).unwrap();
        let record = Record {
            id: 7,
            template: format!("{:032x}", 5),
            created_ms: 9,
            parent: None,
            former_names: vec![],
        };
        let first = {
            let directory = Directory::open(&path).unwrap();
            directory.insert(&name("a"), &record).unwrap();
            directory.insert(&name("gone"), &record).unwrap();
            directory.remove(&name("gone")).unwrap();
            directory.rename(&name("a"), &name("b"), &record).unwrap();
            directory.next_id().unwrap()
        };
        let directory = Directory::open(&path).unwrap();
        assert_eq!(directory.load().unwrap(), [(name("b"), record)]);
        assert!(directory.next_id().unwrap().get() > first.get());
    }
}
