//! The directory: every database's name and record, on disk. Nothing of it stays in memory but a
//! bounded cache of its pages.
//!
//! One `redb` file. Tables: `names`: name -> id. `records`: id -> [`Record`] as JSON. `layers`: (origin,
//! epoch) -> how many databases and layers are directly over that layer. `garbage`: (id, epoch) whose
//! files are to be removed; epoch [`WHOLE`] stands for all of a database that was deleted. `counters`:
//! `next_id` -> the lowest id never reserved (ids are not reused, because they name files), `generation`
//! -> how often the data directory was opened to be written, `journal` -> the id of its journal.
//! `secrets`: `mock` -> what mock authentications are made of.

mod file;
mod group;
mod secret;

use std::ops::Range;
use std::path::Path;

use parking_lot::Mutex;
use redb::{
    Database as Redb, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableHandle,
};
use volume::{DatabaseId, LayerId};
use wire::{DatabaseName, PgError, sqlstate};

use crate::record::Record;
use file::File;
use group::Group;

const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const LAYERS: TableDefinition<'_, (u64, u32), u64> = TableDefinition::new("layers");
const GARBAGE: TableDefinition<'_, (u64, u32), ()> = TableDefinition::new("garbage");
/// The table of the development versions before this one.
const FORMER: &str = "databases";
const NEXT_ID: &str = "next_id";
const GENERATION: &str = "generation";
const JOURNAL: &str = "journal";
/// How many ids are reserved at once.
const IDS_RESERVED: u64 = 1024;
/// In `garbage`: everything of the database.
const WHOLE: u32 = u32::MAX;

/// A change of what a database's volume is over.
pub(crate) struct Rebase {
    /// The layers it was over, the topmost first.
    pub(crate) before: Vec<LayerId>,
    /// The layers it is over, the topmost first.
    pub(crate) after: Vec<LayerId>,
}

/// Files that are to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// Of a database that was deleted: all but its layers that others are over.
    Database(DatabaseId),
    /// Of a layer that nothing is over any more.
    Layer(LayerId),
}

impl Garbage {
    fn key(self) -> (u64, u32) {
        match self {
            Self::Database(id) => (id.get(), WHOLE),
            Self::Layer(layer) => key(layer),
        }
    }

    fn of_key((id, epoch): (u64, u32)) -> Option<Self> {
        let origin = DatabaseId::new(id)?;
        Some(match epoch {
            WHOLE => Self::Database(origin),
            _ => Self::Layer(LayerId { origin, epoch }),
        })
    }
}

/// A layer as a key of the table.
pub(crate) fn key(layer: LayerId) -> (u64, u32) {
    (layer.origin.get(), layer.epoch)
}

/// The layer of a key of the table.
pub(crate) fn layer_of((origin, epoch): (u64, u32)) -> Option<LayerId> {
    let origin = DatabaseId::new(origin)?;
    Some(LayerId { origin, epoch })
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
fn let_go(layers: &mut Layers<'_>, chain: &[LayerId]) -> Result<Vec<Garbage>, redb::Error> {
    let mut unused = Vec::new();
    for layer in chain {
        let count = layers.get(key(*layer))?.map_or(0, |count| count.value());
        if count > 1 {
            layers.insert(key(*layer), count - 1)?;
            break;
        }
        layers.remove(key(*layer))?;
        unused.push(Garbage::Layer(*layer));
    }
    Ok(unused)
}

/// The names and records on disk.
pub(crate) struct Directory {
    file: File,
    group: Group,
    /// Ids that are reserved on disk and not given out yet.
    reserved: Mutex<Range<u64>>,
}

/// Some databases of the directory, by name.
pub(crate) type Page = Vec<(DatabaseName, Record)>;

impl Directory {
    /// Opens the file, or makes it. `cache_bytes` is the most that is kept of it in memory.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, String> {
        let (file, open) = File::open(path, cache_bytes).map_err(|error| error.to_string())?;
        let tables = open.begin_read().map_err(|error| error.to_string())?;
        let mut tables = tables.list_tables().map_err(|error| error.to_string())?;
        if tables.any(|table| table.name() == FORMER) {
            return Err(
                "it was written by a development version that this one does not read: begin with \
                 a new data directory"
                    .to_owned(),
            );
        }
        Ok(Self {
            file,
            group: Group::default(),
            reserved: Mutex::default(),
        })
    }

    /// Looks something up.
    fn look<T>(&self, look: &dyn Fn(&Redb) -> Result<T, redb::Error>) -> Result<T, PgError> {
        self.file.with(|file| look(file)).map_err(unreadable)
    }

    /// One database by its name.
    ///
    /// # Errors
    /// XX001 if its record is damaged, 58030 if the file cannot be read.
    pub(crate) fn find(&self, name: &DatabaseName) -> Result<Option<Record>, PgError> {
        let look = |file: &Redb| -> Result<Option<Vec<u8>>, redb::Error> {
            let transaction = file.begin_read()?;
            let names = transaction.open_table(NAMES)?;
            let Some(id) = names.get(name.as_str())? else {
                return Ok(None);
            };
            let records = transaction.open_table(RECORDS)?;
            let record = records.get(id.value())?;
            // A name without a record is damage: an empty record says so.
            Ok(Some(
                record.map_or_else(Vec::new, |record| record.value().to_vec()),
            ))
        };
        let bytes = self.look(&look)?;
        bytes.map(|bytes| decode(name.as_str(), &bytes)).transpose()
    }

    /// The name of the database with this id.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn name_of(&self, id: u64) -> Result<Option<DatabaseName>, PgError> {
        let look = |file: &Redb| -> Result<Option<Vec<u8>>, redb::Error> {
            let transaction = file.begin_read()?;
            let record = transaction.open_table(RECORDS)?.get(id)?;
            Ok(record.map(|record| record.value().to_vec()))
        };
        let Some(bytes) = self.look(&look)? else {
            return Ok(None);
        };
        Ok(decode("", &bytes)?.name())
    }

    /// Databases by name, those after `after`, at most `count`.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn page(&self, after: Option<&str>, count: usize) -> Result<Page, PgError> {
        type Bytes = Vec<(String, Vec<u8>)>;
        let look = |file: &Redb| -> Result<Bytes, redb::Error> {
            use std::ops::Bound::{Excluded, Unbounded};
            let transaction = file.begin_read()?;
            let names = transaction.open_table(NAMES)?;
            let records = transaction.open_table(RECORDS)?;
            let from = after.map_or(Unbounded, Excluded);
            let mut page = Vec::new();
            for entry in names.range::<&str>((from, Unbounded))?.take(count) {
                let (name, id) = entry?;
                let record = records.get(id.value())?;
                let record = record.map_or_else(Vec::new, |record| record.value().to_vec());
                page.push((name.value().to_owned(), record));
            }
            Ok(page)
        };
        let page = self.look(&look)?;
        page.into_iter()
            .map(|(name, bytes)| {
                let record = decode(&name, &bytes)?;
                let name = record.name().ok_or_else(|| damaged(&name, "its name"))?;
                Ok((name, record))
            })
            .collect()
    }

    /// How many databases there are.
    ///
    /// # Errors
    /// 58030 if the file cannot be read.
    pub(crate) fn count(&self) -> Result<u64, PgError> {
        let look = |file: &Redb| -> Result<u64, redb::Error> {
            Ok(file.begin_read()?.open_table(NAMES)?.len()?)
        };
        self.look(&look)
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
                Ok(Ok(first..first + IDS_RESERVED))
            })?;
        }
        let id = reserved.next().and_then(DatabaseId::new);
        id.ok_or_else(|| internal("the directory has run out of ids"))
    }

    /// The generation of this opening, above all before it, and the id of the journal: `new_journal`
    /// if there was none yet.
    pub(crate) fn begin_generation(&self, new_journal: u64) -> Result<(u64, u64), PgError> {
        self.write(move |transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let generation = counters.get(GENERATION)?.map_or(0, |value| value.value()) + 1;
            counters.insert(GENERATION, generation)?;
            let journal = counters.get(JOURNAL)?.map(|value| value.value());
            counters.insert(JOURNAL, journal.unwrap_or(new_journal))?;
            Ok(Ok((generation, journal.unwrap_or(new_journal))))
        })
    }

    /// Adds a database, over the first of `chain` if there are any.
    ///
    /// # Errors
    /// 42P04 if the name is taken.
    pub(crate) fn insert(
        &self,
        name: &DatabaseName,
        record: &Record,
        chain: &[LayerId],
    ) -> Result<(), PgError> {
        let (id, bytes) = (record.id, encode(record)?);
        let (name, chain) = (name.clone(), chain.to_vec());
        self.write(move |transaction| {
            let mut names = transaction.open_table(NAMES)?;
            if names.get(name.as_str())?.is_some() {
                return Ok(Err(taken(&name)));
            }
            names.insert(name.as_str(), id)?;
            transaction
                .open_table(RECORDS)?
                .insert(id, bytes.as_slice())?;
            if !chain.is_empty() {
                hold(&mut transaction.open_table(LAYERS)?, &chain)?;
            }
            Ok(Ok(()))
        })
    }

    /// Replaces a database's record; its name and id stay.
    pub(crate) fn update(&self, record: &Record) -> Result<(), PgError> {
        let (id, bytes) = (record.id, encode(record)?);
        self.write(move |transaction| {
            transaction
                .open_table(RECORDS)?
                .insert(id, bytes.as_slice())?;
            Ok(Ok(()))
        })
    }

    /// Writes down that a database is over other layers now; the layers that nothing needs any more.
    pub(crate) fn rebase(&self, record: &Record, rebase: Rebase) -> Result<Vec<Garbage>, PgError> {
        let (id, bytes) = (record.id, encode(record)?);
        let before = rebase.before.first().copied().map(key);
        self.write(move |transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            // Deleted meanwhile, or changed by somebody else: what it held was let go with that.
            let known = match records.get(id)? {
                Some(bytes) => decode("", bytes.value()).ok(),
                None => None,
            };
            if known.is_none_or(|known| known.layer != before) {
                return Ok(Err(moved()));
            }
            let mut layers = transaction.open_table(LAYERS)?;
            hold(&mut layers, &rebase.after)?;
            let unused = let_go(&mut layers, &rebase.before)?;
            records.insert(id, bytes.as_slice())?;
            drop((records, layers));
            discard(transaction, &unused)?;
            Ok(Ok(unused))
        })
    }

    /// Removes a database that is over `chain`: what is to be removed of its files.
    pub(crate) fn remove(
        &self,
        name: &DatabaseName,
        id: DatabaseId,
        chain: &[LayerId],
    ) -> Result<Vec<Garbage>, PgError> {
        let (name, chain) = (name.clone(), chain.to_vec());
        self.write(move |transaction| {
            transaction.open_table(NAMES)?.remove(name.as_str())?;
            transaction.open_table(RECORDS)?.remove(id.get())?;
            let mut garbage = vec![Garbage::Database(id)];
            garbage.extend(let_go(&mut transaction.open_table(LAYERS)?, &chain)?);
            discard(transaction, &garbage)?;
            Ok(Ok(garbage))
        })
    }

    /// What was to be removed and perhaps is not yet.
    pub(crate) fn garbage(&self) -> Result<Vec<Garbage>, PgError> {
        let look = |file: &Redb| -> Result<Vec<(u64, u32)>, redb::Error> {
            let transaction = file.begin_read()?;
            let table = transaction.open_table(GARBAGE)?;
            let keys = table.iter()?.map(|entry| Ok(entry?.0.value()));
            keys.collect()
        };
        let keys = self.look(&look)?;
        Ok(keys.into_iter().filter_map(Garbage::of_key).collect())
    }

    /// Writes down that garbage has been removed.
    pub(crate) fn removed(&self, garbage: &[Garbage]) -> Result<(), PgError> {
        let keys: Vec<_> = garbage.iter().map(|garbage| garbage.key()).collect();
        self.write(move |transaction| {
            let mut table = transaction.open_table(GARBAGE)?;
            for key in &keys {
                table.remove(*key)?;
            }
            Ok(Ok(()))
        })
    }

    /// How many databases and layers are directly over a layer.
    pub(crate) fn referents(&self, layer: LayerId) -> Result<u64, PgError> {
        let look = |file: &Redb| -> Result<u64, redb::Error> {
            let transaction = file.begin_read()?;
            let count = transaction.open_table(LAYERS)?.get(key(layer))?;
            Ok(count.map_or(0, |count| count.value()))
        };
        self.look(&look)
    }

    /// Gives a database another name, the one in `record`.
    ///
    /// # Errors
    /// 42P04 if the name is taken.
    pub(crate) fn rename(
        &self,
        from: &DatabaseName,
        to: &DatabaseName,
        record: &Record,
    ) -> Result<(), PgError> {
        let (id, bytes) = (record.id, encode(record)?);
        let (from, to) = (from.clone(), to.clone());
        self.write(move |transaction| {
            let mut names = transaction.open_table(NAMES)?;
            if names.get(to.as_str())?.is_some() {
                return Ok(Err(taken(&to)));
            }
            names.remove(from.as_str())?;
            names.insert(to.as_str(), id)?;
            transaction
                .open_table(RECORDS)?
                .insert(id, bytes.as_slice())?;
            Ok(Ok(()))
        })
    }

    /// One change, durable when this returns. Blocks for the disk; changes that come meanwhile share
    /// the next wait.
    fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> group::Outcome<T> + Send + 'static,
    ) -> Result<T, PgError> {
        self.group.write(&self.file, change)
    }
}

fn discard(transaction: &redb::WriteTransaction, garbage: &[Garbage]) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(GARBAGE)?;
    for garbage in garbage {
        table.insert(garbage.key(), ())?;
    }
    Ok(())
}

fn encode(record: &Record) -> Result<Vec<u8>, PgError> {
    serde_json::to_vec(record).map_err(|error| internal(&error.to_string()))
}

fn decode(name: &str, bytes: &[u8]) -> Result<Record, PgError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(name, &error.to_string()))
}

fn damaged(name: &str, reason: &str) -> PgError {
    PgError::fatal(
        sqlstate::DATA_CORRUPTED,
        format!("the directory of databases: the record of \"{name}\" is damaged: {reason}"),
    )
}

fn unreadable(error: redb::Error) -> PgError {
    PgError::fatal(
        sqlstate::IO_ERROR,
        format!("the directory of databases cannot be read: {error}"),
    )
}

/// Nobody waits for this but who knows what to do about it.
fn moved() -> PgError {
    PgError::error(
        sqlstate::OBJECT_IN_USE,
        "the database was deleted or moved meanwhile",
    )
}

pub(crate) fn taken(name: &DatabaseName) -> PgError {
    PgError::error(
        sqlstate::DUPLICATE_DATABASE,
        format!("database \"{name}\" already exists"),
    )
}

fn internal(message: &str) -> PgError {
    PgError::error(sqlstate::INTERNAL_ERROR, message)
}

#[cfg(test)]
mod tests;
