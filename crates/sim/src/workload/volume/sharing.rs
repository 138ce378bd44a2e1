//! Versions, forks and merges of databases.

use volume::{LAYERS_MAX, VolumeError};

use super::database::Database;
use super::model::Model;
use super::{DATABASES_MAX, VolumeWorkload, template};
use crate::disk::DiskCounts;
use crate::history::Notes;
use crate::workload::Broken;

impl VolumeWorkload {
    /// A new database, which is a record.
    pub(super) fn create(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        if self.databases.len() < DATABASES_MAX {
            let id = self.insert(Model::new(template::tree()), Vec::new());
            notes.done("databases made", format_args!("{id}"));
        }
        Ok(())
    }

    fn insert(&mut self, model: Model, chain: Vec<volume::LayerId>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.databases.insert(id, Database::new(id, model, chain));
        id
    }

    /// A fork of a database as it is now, which is a record too once the parent was shared.
    pub(super) fn fork(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let mut fork = None;
        self.with_open(notes, |this, database, notes| {
            let before = this.disk.counts();
            let is_deep = database.volume().base().layer_count() >= LAYERS_MAX;
            let result = database.volume().share();
            let (id, found) = (database.id, database.volume().base().id());
            if is_deep {
                notes.done("shares with a merge", format_args!("of database {id}"));
            }
            notes.done("shares", format_args!("of database {id}: {result:?}"));
            this.note_version(database, before, result.as_ref().err())?;
            let Ok(base) = result else {
                return Ok(());
            };
            this.settle(database);
            this.expect(base == found, || {
                format!("database {id} was shared as {base} and is over {found}")
            })?;
            fork = Some((
                Model::new(database.model.now.clone()),
                database.chain.clone(),
            ));
            Ok(())
        })?;
        // With too many the parent was shared for nothing, which is fine too.
        if let Some((model, chain)) = fork
            && self.databases.len() < DATABASES_MAX
        {
            let id = self.insert(model, chain);
            notes.done("forks", format_args!("{id}"));
        }
        Ok(())
    }

    pub(super) fn merge(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let before = self.disk.counts();
        let result = database.volume().merge_layers();
        notes.done("merges", format_args!("of {}: {result:?}", database.id));
        let layers = database.volume().base().layer_count();
        self.note_version(database, before, result.as_ref().err())?;
        if result.is_ok() {
            self.expect(layers == 0, || {
                format!(
                    "database {} was merged and has {layers} layers",
                    database.id
                )
            })?;
            self.settle(database);
        }
        Ok(())
    }

    pub(super) fn flush(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let (before, version) = (self.disk.counts(), database.model.version());
        let result = database.volume().flush();
        notes.done("flushes", format_args!("of {}: {result:?}", database.id));
        self.note_version(database, before, result.as_ref().err())?;
        if result.is_err() {
            return Ok(());
        }
        let (dirty, owed) = (database.volume().dirty(), database.volume().owed());
        self.expect(!dirty && !owed.version, || {
            format!("database {} was flushed, and is dirty", database.id)
        })?;
        // Room that could not be given back is given back by a later one.
        let now = self.disk.counts();
        let all_went_well = now.names_failed == before.names_failed
            && now.writes_failed == before.writes_failed
            && now.full == before.full;
        match all_went_well && database.model.version() > version {
            true => self.check_room(database),
            false => Ok(()),
        }
    }

    /// After whatever flushes: what is durable now, and what may be.
    fn note_version(
        &mut self,
        database: &mut Database,
        before: DiskCounts,
        error: Option<&VolumeError>,
    ) -> Result<(), Broken> {
        let (applied, was_broken) = (database.last_entry(), database.broken);
        let version = database.volume().version().get();
        if version > database.model.version() {
            database.model.flushed(version, applied, self.generation);
            database.synced = false;
        }
        match error {
            None if !database.volume().dirty() => database.synced = false,
            None => {}
            Some(error) => {
                self.refused(database, before, error)?;
                if !was_broken && (database.broken || self.disk.is_stopped()) {
                    database.model.may_be_flushed(applied, self.generation);
                }
            }
        }
        // A volume that can flush no more is opened anew, sooner or later.
        if error.is_some() && database.broken && self.random.one_in(2) {
            database.drop_volume();
        }
        Ok(())
    }
}
