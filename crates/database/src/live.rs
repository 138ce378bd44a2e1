//! The databases that something in this process has to do with: awake ones, and those just asked for.
//! All others are in the directory alone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use volume::DatabaseId;
use wire::{DatabaseName, PgError};

use crate::database::Database;
use crate::directory::Directory;
use crate::figures::{Counts, Ledger, Since};
use crate::info::State;

/// Databases by name, each at most once.
pub(crate) struct Live {
    databases: Mutex<HashMap<DatabaseName, Arc<Database>>>,
    /// Figures of those that are not here. Locked while `databases` is, so that each is in one of the two.
    ledger: Ledger,
    pub(crate) since: Since,
}

impl Live {
    /// Keeps the figures of so many databases that are not here.
    pub(crate) fn new(figures_max: usize) -> Self {
        Self {
            databases: Mutex::default(),
            ledger: Ledger::new(figures_max),
            since: Since::default(),
        }
    }

    /// A database, looked up in the directory if nobody has it yet; `None` if there is none.
    ///
    /// # Errors
    /// What [`Directory::find`] gives.
    pub(crate) fn find(
        &self,
        directory: &Directory,
        name: &DatabaseName,
    ) -> Result<Option<Arc<Database>>, PgError> {
        // Held over the look-up: whoever deletes or renames changes the directory first and this map
        // after, so nothing is put in here that is gone there.
        let mut databases = self.databases.lock();
        if let Some(database) = databases.get(name) {
            return Ok(Some(Arc::clone(database)));
        }
        let Some(record) = directory.find(name)? else {
            return Ok(None);
        };
        let mut database = Database::new(name.clone(), record)?;
        database.figures = self.ledger.take(database.id);
        let database = Arc::new(database);
        databases.insert(name.clone(), Arc::clone(&database));
        Ok(Some(database))
    }

    /// One of them, if it is here.
    pub(crate) fn get(&self, name: &DatabaseName) -> Option<Arc<Database>> {
        self.databases.lock().get(name).cloned()
    }

    /// What was counted of each database, with when it was used, and the sum of those that are not told of, with
    /// how many times one was added to it for want of room.
    pub(crate) fn figures(&self, mut each: impl FnMut(DatabaseId, &Counts, u32)) -> (Counts, u64) {
        let databases = self.databases.lock();
        for database in databases.values() {
            each(
                database.id,
                &database.figures.get(),
                database.figures.used_at(),
            );
        }
        self.ledger.look(each)
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> u64 {
        let databases = self.databases.lock();
        let sessions = |database: &Arc<Database>| database.sessions.lock().len() as u64;
        databases.values().map(sessions).sum()
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Database>> {
        self.databases.lock().values().cloned().collect()
    }

    /// How many of them are not asleep.
    pub(crate) fn awake(&self) -> u64 {
        let databases = self.databases.lock();
        let awake = |database: &&Arc<Database>| database.state() != State::Asleep;
        databases.values().filter(awake).count() as u64
    }

    pub(crate) fn remove(&self, name: &DatabaseName) {
        let mut databases = self.databases.lock();
        if let Some(database) = databases.remove(name) {
            self.ledger.bury(&database.figures);
        }
    }

    /// Changes the directory and the name here in one step, as seen by [`find`](Self::find).
    pub(crate) fn rename(
        &self,
        from: &DatabaseName,
        to: &DatabaseName,
        change: impl FnOnce() -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let mut databases = self.databases.lock();
        change()?;
        if let Some(database) = databases.remove(from) {
            databases.insert(to.clone(), database);
        }
        Ok(())
    }

    /// Forgets those that nobody has and that have nothing in memory.
    pub(crate) fn retire(&self) {
        let mut databases = self.databases.lock();
        databases.retain(|_, database| {
            let stays = Arc::strong_count(database) > 1 || database.has_something();
            if !stays {
                self.ledger.keep(database.id, &database.figures);
            }
            stays
        });
        // Room for as many as a burst had is not kept for ever.
        let room = databases.len().max(64) * 2;
        if databases.capacity() > room * 2 {
            databases.shrink_to(room);
        }
    }
}
