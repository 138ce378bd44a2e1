//! A database that a keeper has: how it is opened, and what it shows then.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::checker;
use crate::counters::Counters;
use crate::model::{Model, SharedModel};
use crate::session::Session;
use crate::shared::{Event, Leaving, Shared};
use crate::stage::{Audience, Up};
use crate::trouble::Trouble;
use crate::window::Seen;
use crate::workload::CLIENTS;

/// SQLSTATE of a database that is not there.
pub const NO_DATABASE: &str = "3D000";

/// The default of the setting that the workload alters, in milliseconds.
const SETTING_DEFAULT: &str = "1000";

/// One database.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub model: SharedModel,
    /// The clients whose rows it gets; no other database has the same.
    pub clients: [u32; CLIENTS],
    /// The start of the server in which it was last heard of.
    pub epoch: u64,
    /// Its name is about to go.
    pub leaving: Leaving,
}

impl Member {
    /// An empty database.
    pub fn new(name: String, clients: [u32; CLIENTS], shared: &Shared, epoch: u64) -> Self {
        let model = Arc::new(Mutex::new(Model::new(shared.durability)));
        Self::fork(name, clients, model, epoch)
    }

    /// A database of which this is known.
    pub fn fork(name: String, clients: [u32; CLIENTS], model: SharedModel, epoch: u64) -> Self {
        Self {
            name,
            model,
            clients,
            epoch,
            leaving: Leaving::default(),
        }
    }

    /// Begins a session in it, and checks how much it shows.
    ///
    /// # Errors
    /// [`Trouble::Broken`] if it is not there, or shows too little or too much.
    pub async fn open(
        &mut self,
        up: Up,
        shared: &Shared,
        audience: &Audience,
    ) -> Result<Session, Trouble> {
        let session = match Session::open(up.pg, &self.name).await {
            Err(error) if error.is(NO_DATABASE) => {
                return Err(Trouble::broken("it was acknowledged, and is not there"));
            }
            session => session?,
        };
        let restarted = self.epoch != up.epoch;
        let seen = if restarted {
            audience.end_of(self.epoch)
        } else {
            Seen::Live
        };
        let number = checker::number(&session).await?;
        shared.tell(Event::Answered {
            epoch: up.epoch,
            at: std::time::Instant::now(),
        });
        let setting = checker::setting(&session).await?;
        if restarted {
            setting_is_read(&session, setting).await?;
        }
        let mut model = self.model.lock();
        count(&shared.counters, &model, number, restarted);
        model.show(number, seen).map_err(Trouble::Broken)?;
        model.show_setting(setting, seen).map_err(Trouble::Broken)?;
        drop(model);
        self.epoch = up.epoch;
        Ok(session)
    }

    /// Checks the whole database.
    ///
    /// # Errors
    /// [`Trouble::Broken`]: the first difference.
    pub async fn check(&self, session: &Session, shared: &Shared) -> Result<(), Trouble> {
        let state = self.model.lock().head().clone();
        checker::check(session, &self.name, &state, shared.seed).await?;
        shared.counters.checks.add();
        Ok(())
    }
}

fn count(counters: &Counters, model: &Model, number: u64, restarted: bool) {
    if restarted {
        counters.counted.add();
    }
    if model.sent() > model.acknowledged() {
        counters.in_doubt.add();
        if number > model.acknowledged() {
            counters.in_doubt_done.add();
        }
    }
}

/// A backend that was started after the setting was altered has read it.
async fn setting_is_read(session: &Session, setting: u64) -> Result<(), Trouble> {
    let sql = "SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'";
    let rows = session.run(sql).await?.rows;
    let expected = if setting == 0 {
        SETTING_DEFAULT.to_owned()
    } else {
        (checker::SETTING_BASE + setting).to_string()
    };
    if rows == [[Some(expected.clone())]] {
        return Ok(());
    }
    Err(Trouble::Broken(format!(
        "ALTER SYSTEM: the file says {expected}, but the backend started with {rows:?}"
    )))
}
