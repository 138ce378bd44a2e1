//! How the process begins and ends, and how it opens and closes volumes.

use std::path::Path;
use std::sync::Arc;

use store::{Disk, Journal, JournalError, Position};
use volume::{Base, BaseId, LayerId, Template, Volume, VolumeError, Volumes};

use super::database::Database;
use super::{JOURNAL, TEMPLATE, VOLUMES, VolumeWorkload, template};
use crate::disk::{DiskCounts, Faults};
use crate::history::Notes;
use crate::workload::Broken;

/// Failed starts in a row after which the disk fails no more, so that a history goes on.
const STARTS_FAILED_MAX: u32 = 20;
const JOURNAL_ID: u64 = 77;

/// What there is once a process.
pub(super) struct Process {
    pub(super) journal: Journal,
    pub(super) volumes: Arc<Volumes>,
}

/// Why a process did not start.
enum NotStarted {
    Journal(JournalError),
    Template(VolumeError),
}

impl VolumeWorkload {
    /// One try to start.
    pub(super) fn start(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        self.generation += 1;
        let before = self.disk.counts();
        let result = self.try_start();
        match result {
            Ok(process) => {
                notes.done("starts", format_args!("generation {}", self.generation));
                self.process = Some(process);
                self.starts_failed = 0;
                self.unswept = true;
                self.disk.set_faults(self.faults.clone());
                Ok(())
            }
            Err(error) => self.not_started(&error, before, notes),
        }
    }

    fn try_start(&mut self) -> Result<Process, NotStarted> {
        let disk: Arc<dyn Disk> = Arc::<crate::disk::FaultyDisk>::clone(&self.disk);
        let path = Path::new(JOURNAL);
        let (generation, options) = (self.generation, self.options.clone());
        let journal = Journal::open(disk.clone(), path, JOURNAL_ID, generation, options)
            .map_err(NotStarted::Journal)?;
        // What was found is durable once a group was written, which a full disk was in the way of.
        if journal.is_full() {
            self.disk.set_capacity(None);
            journal.write_group().map_err(NotStarted::Journal)?;
        }
        let template =
            Template::open_on(&disk, Path::new(TEMPLATE)).map_err(NotStarted::Template)?;
        let volumes = Volumes::new(
            disk,
            Path::new(VOLUMES),
            Some(journal.clone()),
            self.generation,
            Box::new(move |_| Ok(Arc::clone(&template))),
        );
        Ok(Process { journal, volumes })
    }

    fn not_started(
        &mut self,
        error: &NotStarted,
        before: DiskCounts,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        self.starts_failed += 1;
        if self.starts_failed == STARTS_FAILED_MAX {
            self.disk.set_faults(Faults {
                names_survive: self.faults.names_survive,
                reserves_room: self.faults.reserves_room,
                ..Faults::default()
            });
        }
        let error: &dyn std::error::Error = match error {
            NotStarted::Journal(error) => error,
            NotStarted::Template(error) => error,
        };
        notes.done("failed starts", format_args!("{error}"));
        self.expect_cause(before, error)
    }

    /// The process ends, and perhaps the power.
    pub(super) fn boot(&mut self, crash: bool, notes: &mut Notes) -> Result<(), Broken> {
        notes.done(if crash { "crashes" } else { "kills" }, format_args!(""));
        self.disk = match crash {
            true => self.disk.crash(),
            false => self.disk.kill(),
        };
        for database in self.databases.values_mut() {
            database.end();
        }
        self.process = None;
        self.check_gone()
    }

    /// Opens a database's volume and checks all it shows. It stays closed if the disk is in the way.
    pub(super) fn open(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let Some(volumes) = self.volumes() else {
            return Ok(());
        };
        let before = self.disk.counts();
        let volume = match load(&volumes, database) {
            Ok(volume) => volume,
            Err(error) => {
                notes.done("failed openings", format_args!("{}: {error}", database.id));
                return self.refused(database, before, &error);
            }
        };
        self.opened(database, volume, notes)?;
        self.check_all(database, None)
    }

    /// A volume was opened, and is to be one of the states that are possible.
    pub(super) fn opened(
        &mut self,
        database: &mut Database,
        volume: Volume,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let id = database.id;
        let version = volume.version().get();
        let last = volume.last_entry().map_or(0, Position::get);
        notes.done(
            "openings",
            format_args!("of {id}: version {version}, entry {last}"),
        );
        let opened = database.model.opened(version, last);
        opened.map_err(|Broken(what)| Broken(format!("database {id}: {what}")))?;
        database.was_opened = true;
        database.open = Some(volume);
        self.settle(database);
        Ok(())
    }

    /// It is flushed, or not, and closed.
    pub(super) fn close(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        if self.random.one_in(2) {
            self.flush(database, notes)?;
        }
        notes.done("closings", format_args!("of database {}", database.id));
        database.drop_volume();
        Ok(())
    }

    /// Writes into the directory what a volume is over.
    pub(super) fn settle(&mut self, database: &mut Database) {
        let chain = layers(&database.volume().base());
        let before = std::mem::replace(&mut database.chain, chain);
        self.let_go(&before, Some(database));
    }

    /// Nobody but those in the directory and `database` is over these layers any more.
    pub(super) fn let_go(&mut self, layers: &[LayerId], database: Option<&Database>) {
        let all = self.databases.values().chain(database);
        let used: Vec<LayerId> = all.flat_map(|one| one.chain.iter().copied()).collect();
        let unused = layers.iter().filter(|layer| !used.contains(layer));
        self.unused.extend(unused);
    }

    /// An older generation does not open what a newer one has written.
    pub(super) fn open_fenced(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        self.with_open(notes, |this, database, notes| {
            let Some(older) = database.model.generation().checked_sub(1) else {
                return Ok(());
            };
            let disk: Arc<dyn Disk> = Arc::<crate::disk::FaultyDisk>::clone(&this.disk);
            let none = Box::new(|_| Err(VolumeError::NotFound));
            let volumes = Volumes::new(disk, Path::new(VOLUMES), None, older, none);
            let before = this.disk.counts();
            match Volume::open(&volumes, database.database_id()) {
                Err(VolumeError::Fenced { .. }) => {
                    notes.done("fenced openings", format_args!("generation {older}"));
                    Ok(())
                }
                Err(error) => this.refused(database, before, &error),
                Ok(_) => Err(Broken(format!("generation {older} was not fenced off"))),
            }
        })
    }

    pub(super) fn volumes(&self) -> Option<Arc<Volumes>> {
        Some(Arc::clone(&self.process.as_ref()?.volumes))
    }
}

/// The volume of a database: its last version, or what it was made from.
pub(super) fn load(volumes: &Arc<Volumes>, database: &Database) -> volume::Result<Volume> {
    let id = database.database_id();
    if Volume::exists(volumes, id)? {
        return Volume::open(volumes, id);
    }
    let base = match database.chain.first() {
        Some(layer) => BaseId::Layer(*layer),
        None => BaseId::Template(template::ID),
    };
    Volume::create(volumes, id, &volumes.base(base)?)
}

/// The layers of a base, the topmost first.
pub(super) fn layers(base: &Arc<Base>) -> Vec<LayerId> {
    let all = std::iter::successors(Some(base), |base| base.below());
    all.filter_map(|base| match base.id() {
        BaseId::Layer(layer) => Some(layer),
        BaseId::Template(_) => None,
    })
    .collect()
}
