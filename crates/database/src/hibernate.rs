//! Hibernating: a quiet database gives up its backend and all its memory.

use std::sync::Arc;
use std::time::Instant;

use engine::Backend;
use volume::Volume;
use wire::PgError;

use crate::database::Database;
use crate::gate;
use crate::images::Particulars;
use crate::info::State;
use crate::node::{Node, blocking};
use crate::slot::{Slot, no_backend, start_error};
use crate::upkeep::Upkeep;
use crate::versions::Tracker;
use crate::wake::settings_hash;

/// An image that is to be kept once its volume's version is durable.
struct Saved {
    bytes: Vec<u8>,
    wal_position: u64,
    name: String,
    upkeep: Upkeep,
    settings_hash: u64,
    parameters: Vec<(String, String)>,
}

/// A database that is asleep when this ends, however it ends.
struct Hibernating<'a>(&'a Database);

impl<'a> Hibernating<'a> {
    fn begin(database: &'a Database) -> Self {
        database.set_state(State::Hibernating);
        Self(database)
    }
}

impl Drop for Hibernating<'_> {
    fn drop(&mut self) {
        self.0.set_state(State::Asleep);
    }
}

/// Who reads the log along, and ends unless the backend does in good order.
struct Resting(Option<Arc<Tracker>>);

impl Resting {
    /// It knows of all that was `told`, and holds until the database wakes.
    fn rest(mut self, told: Option<u64>) {
        if let Some(tracker) = &self.0
            && told.is_some_and(|told| told <= tracker.read_to())
        {
            tracker.rest();
            self.0 = None;
        }
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        if let Some(tracker) = &self.0 {
            tracker.end();
        }
    }
}

/// Puts a database to sleep whose slot nobody else has. After an error it is as after a crash, from
/// which the next wake recovers; what could not be flushed is tried again.
pub(crate) async fn hibernate(
    node: &Arc<Node>,
    database: &Database,
    slot: &mut Slot,
) -> Result<(), PgError> {
    let started = Instant::now();
    let hibernating = Hibernating::begin(database);
    let told = database.running.told();
    let tracker = Resting(database.running.unwatch());
    let saved = match slot.be_new(database).await {
        Ok(()) => save(node, database, slot).await,
        Err(error) => Err(error),
    };
    slot.lose(database);
    database.set_state(State::Hibernating);
    let in_order = saved.is_ok();
    let saved = saved.unwrap_or_else(|error| {
        tracing::warn!(database = %database.name(), %error, "fell asleep as in a crash");
        None
    });
    let Some(volume) = database.open_volume() else {
        return Ok(());
    };
    database.figures.slept(volume.wal_end());
    tracing::trace!(database = %database.name(), image = saved.is_some(), "given up");
    if !database.is_dropped() {
        keep(node, &volume, saved).await?;
    }
    if in_order {
        tracker.rest(told);
    }
    let more = gate::give_back(&volume).await?;
    drop(volume);
    // What takes longer is done by maintenance, between which the database can wake.
    if !more {
        database.close_volume();
    }
    drop(hibernating);
    node.counters.hibernations.took(started.elapsed());
    tracing::debug!(
        database = %database.name(),
        elapsed_us = started.elapsed().as_micros() as u64,
        "asleep"
    );
    Ok(())
}

/// Brings everything of the backend into the volume, and takes its image if one is wanted.
async fn save(
    node: &Arc<Node>,
    database: &Database,
    slot: &mut Slot,
) -> Result<Option<Saved>, PgError> {
    let Some(backend) = slot.backend.as_mut() else {
        return Ok(None);
    };
    let volume = backend.volume();
    if backend.is_broken() || volume.is_pristine() {
        return Ok(None);
    }
    let position = wal_position(backend).await?;
    if let Some(resumed) = &slot.resumed
        && resumed.wal_position == position
        && volume.is_exactly(resumed.version)
    {
        // The image that it came from is still its image.
        return Ok(None);
    }
    let current = &node.current;
    // Settings that were changed by ALTER SYSTEM hold from the next start on: that must be a boot.
    let settled = settings_hash(&volume) == slot.settings_hash;
    if !settled || !node.images.are_kept() || volume.template().id() != current.template.id() {
        slot.shut_down(database).await;
        return Ok(None);
    }
    slot.run("CHECKPOINT").await?;
    database.checkpointed(&volume);
    let (upkeep, settings_hash) = (slot.upkeep, slot.settings_hash);
    let parameters = slot.parameters.clone();
    let backend = slot.backend.as_mut().ok_or_else(no_backend)?;
    backend
        .trim(&current.image)
        .await
        .map_err(|error| start_error(&error))?;
    let wal_position = wal_position(backend).await?;
    match node.engine.save(backend, &current.image) {
        Ok(bytes) => Ok(Some(Saved {
            bytes,
            wal_position,
            name: database.name().as_str().to_owned(),
            upkeep,
            settings_hash,
            parameters,
        })),
        Err(error) => {
            tracing::debug!(database = %database.name(), %error, "no image can be kept");
            slot.shut_down(database).await;
            Ok(None)
        }
    }
}

async fn wal_position(backend: &mut Backend) -> Result<u64, PgError> {
    let position = backend.wal_position().await;
    position.map_err(|error| start_error(&error))
}

/// Writes the volume's last version before sleep, and the image of exactly that.
async fn keep(node: &Arc<Node>, volume: &Arc<Volume>, saved: Option<Saved>) -> Result<(), PgError> {
    if volume.is_pristine() {
        return Ok(());
    }
    // A flush that is under way is waited for, too.
    gate::flush(volume).await?;
    let Some(saved) = saved else { return Ok(()) };
    let (node, volume) = (Arc::clone(node), Arc::clone(volume));
    blocking(move || {
        let version = volume.version();
        if !volume.is_exactly(version) {
            return Ok(());
        }
        let particulars = Particulars {
            fingerprint: node.engine.fingerprint(),
            version: version.get(),
            wal_position: saved.wal_position,
            name: saved.name,
            upkeep: saved.upkeep,
            settings_hash: saved.settings_hash,
            parameters: saved.parameters,
        };
        // Without an image the next wake boots.
        if let Err(error) = node.images.keep(volume.id(), &particulars, &saved.bytes) {
            tracing::warn!(%error, "a hibernation image could not be kept");
        }
        Ok(())
    })
    .await
}
