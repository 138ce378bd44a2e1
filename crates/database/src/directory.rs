//! The directory: every database's name and record, on disk and in memory.
//!
//! One `redb` file, three tables. `databases`: name -> record as JSON, so that later versions can add
//! fields. `layers`: (origin, epoch) -> how many databases and layers are directly over that layer.
//! `counters`: `next_id` -> the lowest id never reserved (ids are not reused, because they name files),
//! `generation` -> how often the data directory was opened to be written, `journal` -> the id of its
//! journal.

use std::ops::Range;
use std::path::Path;

use parking_lot::Mutex;
use redb::{Database as Redb, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use volume::{BaseId, DatabaseId, LayerId, TemplateId};
use wire::{DatabaseName, PgError, sqlstate};

const DATABASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("databases");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const LAYERS: TableDefinition<'_, (u64, u32), u64> = TableDefinition::new("layers");
const NEXT_ID: &str = "next_id";
const GENERATION: &str = "generation";
const JOURNAL: &str = "journal";
/// How many ids are reserved at once.
const IDS_RESERVED: u64 = 256;

/// What is kept of a database beside its volume. Serialized: fields may be added, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    /// 32 hexadecimal digits.
    pub(crate) template: String,
    /// The layer that it is over, origin and epoch; none if it is over the template itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<(u64, u32)>,
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

impl Record {
    /// What its volume is over.
    pub(crate) fn base(&self) -> Option<BaseId> {
        match self.layer {
            Some((origin, epoch)) => {
                let origin = DatabaseId::new(origin)?;
                Some(BaseId::Layer(LayerId { origin, epoch }))
            }
            None => self.template().map(BaseId::Template),
        }
    }
}

/// A change of what a database's volume is over.
pub(crate) struct Rebase {
    /// The layers it was over, the topmost first.
    pub(crate) before: Vec<LayerId>,
    /// The layers it is over, the topmost first.
    pub(crate) after: Vec<LayerId>,
}

/// A layer as a key of the table.
pub(crate) fn key(layer: LayerId) -> (u64, u32) {
    (layer.origin.get(), layer.epoch)
}

type Layers<'a> = redb::Table<'a, (u64, u32), u64>;

/// One more is over the first of `chain`, which stands over the rest.
fn hold(layers: &mut Layers<'_>, chain: &[LayerId]) -> Result<(), redb::Error> {
    for layer in chain {
        let count = layers.get(key(*layer))?.map_or(0, |count| count.value());
        layers.insert(key(*layer), count + 1)?;
        // Known already: it holds what is below it.
        if count > 0 {
            break;
        }
    }
    Ok(())
}

/// One less is over the first of `chain`; the layers that nothing is over any more.
fn let_go(layers: &mut Layers<'_>, chain: &[LayerId]) -> Result<Vec<LayerId>, redb::Error> {
    let mut unused = Vec::new();
    for layer in chain {
        let count = layers.get(key(*layer))?.map_or(0, |count| count.value());
        if count > 1 {
            layers.insert(key(*layer), count - 1)?;
            break;
        }
        layers.remove(key(*layer))?;
        unused.push(*layer);
    }
    Ok(unused)
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
        transaction.open_table(LAYERS)?;
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

    /// The generation of this opening, above all before it, and the id of the journal: `new_journal`
    /// if there was none yet.
    pub(crate) fn begin_generation(&self, new_journal: u64) -> Result<(u64, u64), PgError> {
        self.write(|transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let generation = counters.get(GENERATION)?.map_or(0, |value| value.value()) + 1;
            counters.insert(GENERATION, generation)?;
            let journal = counters.get(JOURNAL)?.map(|value| value.value());
            counters.insert(JOURNAL, journal.unwrap_or(new_journal))?;
            Ok((generation, journal.unwrap_or(new_journal)))
        })
    }

    /// Adds a database, over the first of `chain` if there are any.
    pub(crate) fn insert(
        &self,
        name: &DatabaseName,
        record: &Record,
        chain: &[LayerId],
    ) -> Result<(), PgError> {
        let bytes = serde_json::to_vec(record).map_err(|error| internal(&error.to_string()))?;
        self.write(|transaction| {
            hold(&mut transaction.open_table(LAYERS)?, chain)?;
            transaction
                .open_table(DATABASES)?
                .insert(name.as_str(), bytes.as_slice())?;
            Ok(())
        })
    }

    /// Writes down that a database is over other layers now; the layers that nothing needs any more.
    pub(crate) fn rebase(
        &self,
        name: &DatabaseName,
        record: &Record,
        rebase: &Rebase,
    ) -> Result<Vec<LayerId>, PgError> {
        let bytes = serde_json::to_vec(record).map_err(|error| internal(&error.to_string()))?;
        self.write(|transaction| {
            let mut layers = transaction.open_table(LAYERS)?;
            hold(&mut layers, &rebase.after)?;
            let unused = let_go(&mut layers, &rebase.before)?;
            transaction
                .open_table(DATABASES)?
                .insert(name.as_str(), bytes.as_slice())?;
            Ok(unused)
        })
    }

    /// Removes a database that is over `chain`; the layers that nothing needs any more.
    pub(crate) fn remove(
        &self,
        name: &DatabaseName,
        chain: &[LayerId],
    ) -> Result<Vec<LayerId>, PgError> {
        self.write(|transaction| {
            transaction.open_table(DATABASES)?.remove(name.as_str())?;
            let_go(&mut transaction.open_table(LAYERS)?, chain)
        })
    }

    /// Whether something is over a layer.
    pub(crate) fn is_layer(&self, layer: LayerId) -> Result<bool, PgError> {
        let look = || -> Result<bool, redb::Error> {
            let transaction = self.file.begin_read()?;
            Ok(transaction.open_table(LAYERS)?.get(key(layer))?.is_some())
        };
        look().map_err(|error| {
            PgError::error(
                sqlstate::IO_ERROR,
                format!("the directory of databases: {error}"),
            )
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
            layer: None,
            created_ms: 9,
            parent: None,
            former_names: vec![],
        };
        let first = {
            let directory = Directory::open(&path).unwrap();
            directory.insert(&name("a"), &record, &[]).unwrap();
            directory.insert(&name("gone"), &record, &[]).unwrap();
            directory.remove(&name("gone"), &[]).unwrap();
            directory.rename(&name("a"), &name("b"), &record).unwrap();
            directory.next_id().unwrap()
        };
        let directory = Directory::open(&path).unwrap();
        assert_eq!(directory.load().unwrap(), [(name("b"), record)]);
        assert!(directory.next_id().unwrap().get() > first.get());
    }

    #[test]
    fn layers_go_with_the_last_that_is_over_them() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&folder.path().join("directory.redb")).unwrap();
        let name = |text: &str| DatabaseName::parse(text).unwrap();
        let record = Record {
            id: 7,
            template: format!("{:032x}", 5),
            layer: None,
            created_ms: 9,
            parent: None,
            former_names: vec![],
        };
        let layer = |epoch| LayerId {
            origin: DatabaseId::new(7).unwrap(),
            epoch,
        };
        let rebase = |before: &[LayerId], after: &[LayerId]| {
            let (before, after) = (before.to_vec(), after.to_vec());
            directory
                .rebase(&name("a"), &record, &Rebase { before, after })
                .unwrap()
        };
        directory.insert(&name("a"), &record, &[]).unwrap();
        assert_eq!(rebase(&[], &[layer(0)]), []);
        directory.insert(&name("b"), &record, &[layer(0)]).unwrap();
        // Shared again: the new layer is over the old one, and takes the parent's place there.
        assert_eq!(rebase(&[layer(0)], &[layer(1), layer(0)]), []);
        directory
            .insert(&name("c"), &record, &[layer(1), layer(0)])
            .unwrap();
        let remove = |text: &str, chain: &[LayerId]| directory.remove(&name(text), chain).unwrap();
        assert_eq!(remove("b", &[layer(0)]), []);
        assert_eq!(remove("a", &[layer(1), layer(0)]), []);
        assert!(directory.is_layer(layer(0)).unwrap());
        assert_eq!(remove("c", &[layer(1), layer(0)]), [layer(1), layer(0)]);
        assert!(!directory.is_layer(layer(0)).unwrap());
    }
}
