//! How databases and layers go, and what they may leave.

use std::collections::BTreeSet;
use std::path::Path;

use volume::{DatabaseId, LayerId, Volume, VolumeError};

use super::{VOLUMES, VolumeWorkload};
use crate::disk::Faults;
use crate::history::Notes;
use crate::workload::Broken;

impl VolumeWorkload {
    /// Takes one database out of the directory; its files go as far as the disk lets them.
    pub(super) fn remove_one(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let ids: Vec<u64> = self.databases.keys().copied().collect();
        if ids.len() < 2 {
            return Ok(());
        }
        let id = *self.random.pick(&ids);
        self.remove(id, notes);
        self.tidy(notes)
    }

    fn remove(&mut self, id: u64, notes: &mut Notes) {
        notes.done("removals", format_args!("of database {id}"));
        if let Some(mut database) = self.databases.remove(&id) {
            database.open = None;
            self.let_go(&database.chain, None);
        }
        self.unswept = true;
    }

    /// All databases go, and nothing stays.
    pub(super) fn remove_all(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        if !self.random.one_in(3) {
            return Ok(());
        }
        for id in self.databases.keys().copied().collect::<Vec<u64>>() {
            self.remove(id, notes);
        }
        self.disk.set_faults(Faults {
            names_survive: self.faults.names_survive,
            reserves_room: self.faults.reserves_room,
            ..Faults::default()
        });
        self.tidy(notes)?;
        self.disk.set_faults(self.faults.clone());
        if self.disk.is_stopped() {
            return Ok(());
        }
        let names = self.names_of_volumes()?;
        self.expect(names.is_empty(), || {
            format!("all databases are removed, these files stay: {names:?}")
        })?;
        let owners = self.journal().map(|journal| journal.owners());
        self.expect(owners.is_none_or(|owners| owners.is_empty()), || {
            "all databases are removed, and the journal keeps entries".to_owned()
        })
    }

    /// Removes what nothing needs any more, as far as the disk lets it.
    pub(super) fn tidy(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let Some(volumes) = self.volumes() else {
            return Ok(());
        };
        let before = self.disk.counts();
        while let Some(layer) = self.unused.first().copied() {
            if let Err(error) = volumes.remove_layer(layer) {
                return self.not_removed(before, &error);
            }
            notes.done("layers removed", format_args!("{layer}"));
            self.unused.remove(&layer);
            self.expect_no_files(layer.origin, Some(layer.epoch))?;
        }
        if self.unswept {
            if let Err(error) = self.sweep(notes)? {
                return self.not_removed(before, &error);
            }
            self.unswept = false;
        }
        Ok(())
    }

    fn not_removed(
        &self,
        before: crate::disk::DiskCounts,
        error: &VolumeError,
    ) -> Result<(), Broken> {
        match error {
            VolumeError::Io { .. } | VolumeError::DiskFull { .. } => {
                self.expect_cause(before, error)
            }
            _ => Err(Broken(format!("a removal says: {error}"))),
        }
    }

    /// Files and log of databases that are not in the directory go.
    fn sweep(&mut self, notes: &mut Notes) -> Result<Result<(), VolumeError>, Broken> {
        let Some(volumes) = self.volumes() else {
            return Ok(Ok(()));
        };
        let layers = self.layers_in_use();
        let names = self.names_of_volumes()?;
        let files: BTreeSet<(u64, Option<u32>)> = names.iter().filter_map(|n| parse(n)).collect();
        let removable = files.iter().filter(|(id, epoch)| {
            let is_layer = epoch.is_some_and(|epoch| layers.contains(&layer(*id, epoch)));
            !is_layer && !self.databases.contains_key(id)
        });
        let unknown: BTreeSet<u64> = removable.map(|(id, _)| *id).collect();
        for id in unknown {
            let removed = Volume::remove(&volumes, database_id(id), &|epoch| {
                layers.contains(&layer(id, epoch))
            });
            if let Err(error) = removed {
                return Ok(Err(error));
            }
            notes.done("databases swept", format_args!("{id}"));
            if names.contains(&format!("{id:016x}.manifest")) {
                self.expect_no_files(database_id(id), None)?;
            }
            // Layers that were its own and were let go by a process that ended before they went.
            for (_, epoch) in files.range((id, None)..=(id, Some(u32::MAX))) {
                if let Some(epoch) = epoch
                    && !layers.contains(&layer(id, *epoch))
                    && let Err(error) = volumes.remove_layer(layer(id, *epoch))
                {
                    return Ok(Err(error));
                }
            }
            self.expect_no_files(database_id(id), None)?;
            self.gone.insert(id);
        }
        if let Some(journal) = volumes.journal() {
            let owners = journal.owners().into_iter();
            owners
                .filter(|owner| !self.databases.contains_key(owner))
                .for_each(|owner| journal.forget(owner));
        }
        Ok(Ok(()))
    }

    fn layers_in_use(&self) -> BTreeSet<LayerId> {
        let databases = self.databases.values();
        let chains = databases.flat_map(|database| database.chain.iter().copied());
        chains.chain(self.unused.iter().copied()).collect()
    }

    /// Nothing that was removed durably is back.
    pub(super) fn check_gone(&self) -> Result<(), Broken> {
        for id in &self.gone {
            self.expect_no_files(database_id(*id), None)?;
        }
        Ok(())
    }

    /// No files of a database, or of one epoch, but for those of layers that are needed.
    fn expect_no_files(&self, origin: DatabaseId, epoch: Option<u32>) -> Result<(), Broken> {
        let layers = self.layers_in_use();
        let names = self.names_of_volumes()?;
        let left = names.iter().find(|name| match parse(name) {
            Some((id, found)) => {
                id == origin.get()
                    && epoch.is_none_or(|epoch| found == Some(epoch))
                    && !found.is_some_and(|found| layers.contains(&layer(id, found)))
            }
            None => false,
        });
        self.expect(left.is_none(), || {
            format!("{left:?} should have gone with what was removed")
        })
    }

    /// The names of the files of all volumes.
    pub(super) fn names_of_volumes(&self) -> Result<Vec<String>, Broken> {
        let names = self.disk.names_in(Path::new(VOLUMES));
        names.map_err(|error| Broken(format!("{VOLUMES} is gone: {error}")))
    }
}

/// The database and the epoch that a file's name tells.
fn parse(name: &str) -> Option<(u64, Option<u32>)> {
    let mut parts = name.split('.');
    let id = u64::from_str_radix(parts.next()?, 16).ok()?;
    let epoch = u32::from_str_radix(parts.next()?, 16).ok();
    Some((id, epoch))
}

fn database_id(id: u64) -> DatabaseId {
    DatabaseId::new(id).expect("BUG: ids begin with 1")
}

fn layer(id: u64, epoch: u32) -> LayerId {
    LayerId {
        origin: database_id(id),
        epoch,
    }
}
