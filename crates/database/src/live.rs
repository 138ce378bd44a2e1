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
use crate::record::Record;

/// Databases by name, each at most once.
pub(crate) struct Live {
    known: Mutex<Known>,
    /// Figures of those that are not here. Locked while `known` is, so that each is in one of the two.
    ledger: Ledger,
    pub(crate) since: Since,
}

#[derive(Default)]
struct Known {
    databases: HashMap<DatabaseName, Arc<Database>>,
    /// How many times one was taken out, or got another name.
    removals: u64,
}

impl Live {
    /// Keeps the figures of so many databases that are not here.
    pub(crate) fn new(figures_max: usize) -> Self {
        Self {
            known: Mutex::default(),
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
        self.find_or(name, || directory.find(name))
    }

    /// The same, looked up by `look`, which may wait for the disk: nobody waits for that but who asks.
    fn find_or(
        &self,
        name: &DatabaseName,
        look: impl Fn() -> Result<Option<Record>, PgError>,
    ) -> Result<Option<Arc<Database>>, PgError> {
        loop {
            let removals = {
                let known = self.known.lock();
                if let Some(database) = known.databases.get(name) {
                    return Ok(Some(Arc::clone(database)));
                }
                known.removals
            };
            let Some(record) = look()? else {
                return Ok(None);
            };
            let mut known = self.known.lock();
            if let Some(database) = known.databases.get(name) {
                return Ok(Some(Arc::clone(database)));
            }
            // Whoever deletes or renames changes the directory first and this map after, and who changes a record has
            // its database here: unless one was taken out meanwhile, what was looked up is as it was.
            if known.removals != removals {
                continue;
            }
            let mut database = Database::new(name.clone(), record)?;
            database.figures = self.ledger.take(database.id);
            let database = Arc::new(database);
            known.databases.insert(name.clone(), Arc::clone(&database));
            return Ok(Some(database));
        }
    }

    /// One of them, if it is here.
    pub(crate) fn get(&self, name: &DatabaseName) -> Option<Arc<Database>> {
        self.known.lock().databases.get(name).cloned()
    }

    /// The same, unless somebody changes which are here: who asks waits for nobody, as a name may be changed on the disk meanwhile.
    pub(crate) fn try_get(&self, name: &DatabaseName) -> Option<Arc<Database>> {
        self.known.try_lock()?.databases.get(name).cloned()
    }

    /// What was counted of each database, with when it was used, and the sum of those that are not told of, with
    /// how many times one was added to it for want of room.
    pub(crate) fn figures(&self, mut each: impl FnMut(DatabaseId, &Counts, u32)) -> (Counts, u64) {
        let known = self.known.lock();
        for database in known.databases.values() {
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
        let known = self.known.lock();
        let sessions = |database: &Arc<Database>| database.sessions.lock().len() as u64;
        known.databases.values().map(sessions).sum()
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Database>> {
        self.known.lock().databases.values().cloned().collect()
    }

    /// How many of them are not asleep.
    pub(crate) fn awake(&self) -> u64 {
        let known = self.known.lock();
        let awake = |database: &&Arc<Database>| database.state() != State::Asleep;
        known.databases.values().filter(awake).count() as u64
    }

    pub(crate) fn remove(&self, name: &DatabaseName) {
        let mut known = self.known.lock();
        known.removals += 1;
        if let Some(database) = known.databases.remove(name) {
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
        let mut known = self.known.lock();
        // Also where it fails: nobody says how far it came.
        known.removals += 1;
        change()?;
        if let Some(database) = known.databases.remove(from) {
            known.databases.insert(to.clone(), database);
        }
        Ok(())
    }

    /// Forgets those that nobody has and that have nothing in memory.
    pub(crate) fn retire(&self) {
        let mut known = self.known.lock();
        let Known {
            databases,
            removals,
        } = &mut *known;
        databases.retain(|_, database| {
            let stays = Arc::strong_count(database) > 1 || database.has_something();
            if !stays {
                *removals += 1;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::record::Settings;

    fn name(text: &str) -> DatabaseName {
        DatabaseName::parse(text).unwrap()
    }

    fn record(bytes_max: Option<u64>) -> Record {
        Record {
            id: 1,
            name: "shop".to_owned(),
            template: "0".repeat(32),
            layer: None,
            created_ms: 0,
            parent: None,
            former_names: Vec::new(),
            settings: Settings {
                bytes_max,
                ..Settings::default()
            },
        }
    }

    #[test]
    fn nobody_waits_while_another_looks() {
        let live = Live::new(1);
        let look = || {
            assert!(live.known.try_lock().is_some());
            Ok(Some(record(None)))
        };
        let found = live.find_or(&name("shop"), look).unwrap().unwrap();
        let known = live.find_or(&name("shop"), || panic!("it is known"));
        assert!(Arc::ptr_eq(&found, &known.unwrap().unwrap()));
    }

    #[test]
    fn who_may_not_wait_is_told_nothing_amid_a_change() {
        let live = Live::new(1);
        let shop = name("shop");
        live.find_or(&shop, || Ok(Some(record(None)))).unwrap();
        let change = || {
            assert!(live.try_get(&shop).is_none());
            Ok(())
        };
        assert!(live.try_get(&shop).is_some());
        live.rename(&shop, &name("other"), change).unwrap();
        assert!(live.try_get(&name("other")).is_some());
    }

    #[test]
    fn who_looks_at_once_finds_the_same() {
        let live = Live::new(1);
        let other = Cell::new(None);
        let look = || {
            other.set(live.find_or(&name("shop"), || Ok(Some(record(None))))?);
            Ok(Some(record(None)))
        };
        let found = live.find_or(&name("shop"), look).unwrap().unwrap();
        assert!(Arc::ptr_eq(&found, &other.take().unwrap()));
    }

    #[test]
    fn what_changes_amid_a_look_is_looked_at_again() {
        let shop = name("shop");
        let goes = |live: &Live| live.remove(&shop);
        let is_renamed = |live: &Live| live.rename(&shop, &name("other"), || Ok(())).unwrap();
        let is_changed_and_retires = |live: &Live| {
            let found = live.find_or(&shop, || Ok(Some(record(None)))).unwrap();
            drop(found);
            live.retire();
        };
        let all: [&dyn Fn(&Live); 3] = [&goes, &is_renamed, &is_changed_and_retires];
        for change in all {
            let live = Live::new(1);
            let looks = Cell::new(0_u32);
            let look = || {
                looks.set(looks.get() + 1);
                match looks.get() {
                    1 => {
                        change(&live);
                        Ok(Some(record(None)))
                    }
                    _ => Ok(Some(record(Some(7)))),
                }
            };
            let found = live.find_or(&shop, look).unwrap().unwrap();
            assert_eq!(found.settings().bytes_max, Some(7));
            assert_eq!(looks.get(), 2);
        }
    }
}
