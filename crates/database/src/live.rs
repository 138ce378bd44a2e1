//! The databases that something in this process has to do with: awake ones, and those just asked for.
//! All others are in the directory alone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wire::{DatabaseName, PgError};

use crate::database::Database;
use crate::directory::Directory;
use crate::info::State;

/// Databases by name, each at most once.
#[derive(Default)]
pub(crate) struct Live {
    databases: Mutex<HashMap<DatabaseName, Arc<Database>>>,
}

impl Live {
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
        let database = Arc::new(Database::new(name.clone(), record)?);
        databases.insert(name.clone(), Arc::clone(&database));
        Ok(Some(database))
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
        self.databases.lock().remove(name);
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
        databases.retain(|_, database| Arc::strong_count(database) > 1 || database.has_something());
        // Room for as many as a burst had is not kept for ever.
        let room = databases.len().max(64) * 2;
        if databases.capacity() > room * 2 {
            databases.shrink_to(room);
        }
    }
}
