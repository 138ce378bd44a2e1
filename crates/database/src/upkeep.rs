//! Upkeep of one database: checkpoints by WAL, VACUUM and ANALYZE by churn, freezing by age. What
//! PostgreSQL's own processes do elsewhere; here the host decides when, and gives way to sessions.

use std::time::{Duration, Instant};

use engine::Backend;
use serde::{Deserialize, Serialize};
use volume::Volume;
use wire::{PgError, sqlstate};

use crate::catalog;
use crate::database::Database;
use crate::node::Node;
use crate::slot::{Slot, no_backend, start_error};

/// Freezing is not tried again for so long: what keeps it from helping may last.
const FREEZE_PAUSE: Duration = Duration::from_secs(60);
/// WAL that makes another look at the tables worth while, in bytes.
const LOOK_WAL_BYTES: u64 = 1 << 20;

/// How far a database has been kept in order, as places in its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Upkeep {
    /// The last look at what the tables need; 0 for none.
    looked_at: u64,
}

/// How upkeep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There is nothing more to do.
    Done,
    /// A session wants the database.
    Preempted,
}

/// Makes the process tell what it has counted at the end of this statement.
pub(crate) const TELL_COUNTS: &str = "SELECT pg_catalog.pg_stat_force_next_flush()";

/// Tables that want VACUUM or ANALYZE by the rules of autovacuum, with its settings and those of each
/// table: the name, whether to vacuum, whether to analyze.
const DUE: &str = "\
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
  s.n_dead_tup > o.vt + o.vs * g.tuples OR (o.it >= 0 AND s.n_ins_since_vacuum > o.it + o.i * g.tuples),
  s.n_mod_since_analyze > o.at + o.a * g.tuples
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
CROSS JOIN LATERAL (SELECT greatest(c.reltuples, 0)::float8 AS tuples) g
CROSS JOIN LATERAL (SELECT
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold'), current_setting('autovacuum_vacuum_threshold'))::float8 AS vt,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor'), current_setting('autovacuum_vacuum_scale_factor'))::float8 AS vs,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_insert_threshold'), current_setting('autovacuum_vacuum_insert_threshold'))::float8 AS it,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_insert_scale_factor'), current_setting('autovacuum_vacuum_insert_scale_factor'))::float8 AS i,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_analyze_threshold'), current_setting('autovacuum_analyze_threshold'))::float8 AS at,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_analyze_scale_factor'), current_setting('autovacuum_analyze_scale_factor'))::float8 AS a,
  coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled'), 'true')::bool AS enabled
  FROM pg_catalog.pg_options_to_table(c.reloptions)) o
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND o.enabled
ORDER BY 1";

/// A table that wants something, as [`DUE`] tells it.
struct Due {
    table: String,
    vacuum: bool,
    analyze: bool,
}

impl Due {
    fn of(row: &[Option<String>]) -> Option<Self> {
        let [Some(table), vacuum, analyze] = row else {
            return None;
        };
        let (vacuum, analyze) = (
            vacuum.as_deref() == Some("t"),
            analyze.as_deref() == Some("t"),
        );
        (vacuum || analyze).then(|| Self {
            table: table.clone(),
            vacuum,
            analyze,
        })
    }

    fn sql(&self) -> String {
        let table = &self.table;
        match (self.vacuum, self.analyze) {
            (true, true) => format!("VACUUM (ANALYZE, SKIP_LOCKED) {table}"),
            (true, false) => format!("VACUUM (SKIP_LOCKED) {table}"),
            (false, _) => format!("ANALYZE (SKIP_LOCKED) {table}"),
        }
    }
}

impl Upkeep {
    /// A backend was started; `kept` is what its image knows.
    pub(crate) fn begin(&mut self, volume: &Volume, kept: Option<Self>) {
        *self = kept.unwrap_or_else(|| Self {
            looked_at: volume.wal_end(),
        });
    }

    fn has_churn(&self, volume: &Volume) -> bool {
        volume.wal_end().saturating_sub(self.looked_at) >= LOOK_WAL_BYTES
    }
}

/// Whether a quiet, awake database wants anything.
pub(crate) fn is_due(node: &Node, database: &Database, slot: &Slot) -> bool {
    let Some(backend) = slot.backend.as_ref().filter(|backend| !backend.is_broken()) else {
        return false;
    };
    let volume = backend.volume();
    let tried = slot.frozen_at.is_some_and(|at| at.elapsed() < FREEZE_PAUSE);
    let old = !tried && is_old(node, backend);
    let checkpoint =
        database.wal_since_checkpoint(&volume) > node.adjustable.checkpoint_wal_bytes.get();
    checkpoint || (database.is_maintained(node) && (old || slot.upkeep.has_churn(&volume)))
}

fn is_old(node: &Node, backend: &Backend) -> bool {
    backend.transaction_age() > node.adjustable.freeze_age.get()
}

/// Does what is due, until a session wants the database.
///
/// # Errors
/// What Postgres said of a statement, other than that it was cancelled.
pub(crate) async fn run(
    node: &Node,
    database: &Database,
    slot: &mut Slot,
) -> Result<Ended, PgError> {
    slot.be_ours(database).await?;
    let backend = slot.backend.as_ref().ok_or_else(no_backend)?;
    database.set_upkeep(Some(backend.interrupter()));
    let outcome = limited(node, database, slot).await;
    database.set_upkeep(None);
    if let Some(backend) = slot.backend.as_mut() {
        // A cancel that came too late is not the next statement's.
        backend.clear_cancel();
    }
    if let Err(error) = &outcome
        && !(error.code() == sqlstate::QUERY_CANCELED && database.is_wanted())
        && let Some(volume) = database.open_volume()
    {
        // Not again until there is something new.
        slot.upkeep.looked_at = volume.wal_end();
    }
    match outcome.map_err(|error| with_limit(node, error)) {
        Err(error) if error.code() == sqlstate::QUERY_CANCELED && database.is_wanted() => {
            node.counters.preemptions.one();
            Ok(Ended::Preempted)
        }
        Ok(Ended::Preempted) => {
            node.counters.preemptions.one();
            Ok(Ended::Preempted)
        }
        outcome => outcome,
    }
}

/// An error of a statement of ours, with the name of the limit if that has ended it.
fn with_limit(node: &Node, error: PgError) -> PgError {
    if error.code() != sqlstate::QUERY_CANCELED {
        return error;
    }
    let limit = node.adjustable.upkeep_statement_max.get().as_millis();
    PgError::error(
        sqlstate::QUERY_CANCELED,
        "canceling a statement of upkeep, which takes too long",
    )
    .detail(format!("limit maintenance.statement_ms_max = {limit}"))
}

/// Does the work under a limit of ours on each statement.
async fn limited(node: &Node, database: &Database, slot: &mut Slot) -> Result<Ended, PgError> {
    let limit = node.adjustable.upkeep_statement_max.get().as_millis();
    slot.run(&format!("SET statement_timeout = {limit}"))
        .await?;
    let outcome = work(node, database, slot).await;
    if let Some(backend) = slot.backend.as_mut() {
        // A cancel that came too late is not for this.
        backend.clear_cancel();
        slot.run("RESET statement_timeout").await?;
    }
    outcome
}

async fn work(node: &Node, database: &Database, slot: &mut Slot) -> Result<Ended, PgError> {
    if database.is_wanted() {
        return Ok(Ended::Preempted);
    }
    let backend = slot.backend.as_ref().ok_or_else(no_backend)?;
    let volume = backend.volume();
    if database.is_maintained(node) {
        let tried = slot.frozen_at.is_some_and(|at| at.elapsed() < FREEZE_PAUSE);
        if !tried && is_old(node, backend) {
            freeze(node, database, slot).await?;
        }
        if slot.upkeep.has_churn(&volume) && tend(node, database, slot).await? == Ended::Preempted {
            return Ok(Ended::Preempted);
        }
        // What tending wrote itself is no churn.
        slot.upkeep.looked_at = volume.wal_end();
    }
    if database.wal_since_checkpoint(&volume) > node.adjustable.checkpoint_wal_bytes.get() {
        checkpoint(node, database, slot).await?;
    }
    Ok(Ended::Done)
}

/// Makes a checkpoint in a database that no session has. Nobody waits for its version.
pub(crate) async fn checkpoint(
    node: &Node,
    database: &Database,
    slot: &mut Slot,
) -> Result<(), PgError> {
    let started = Instant::now();
    slot.run("CHECKPOINT").await?;
    if let Some(volume) = database.open_volume() {
        database.checkpointed(&volume);
        volume.waive_version();
    }
    node.counters.checkpoints.took(started.elapsed());
    Ok(())
}

/// Vacuums and analyzes what the statistics name.
async fn tend(node: &Node, database: &Database, slot: &mut Slot) -> Result<Ended, PgError> {
    slot.run(TELL_COUNTS).await?;
    if let Err(error) = database.further.tell_counts(database).await {
        tracing::warn!(database = %database.name(), %error, "what a process has counted is not known");
    }
    let rows = slot.rows(DUE).await?;
    for due in rows.iter().filter_map(|row| Due::of(row)) {
        if database.is_wanted() {
            return Ok(Ended::Preempted);
        }
        let started = Instant::now();
        match slot.run(&due.sql()).await {
            Ok(()) => node.counters.vacuums.took(started.elapsed()),
            Err(error)
                if slot.backend.is_none()
                    || error.code() == sqlstate::QUERY_CANCELED && database.is_wanted() =>
            {
                return Err(error);
            }
            // An index on a function that fails, or does not come to an end, for one: the other tables are not to suffer.
            Err(error) => {
                let error = with_limit(node, error);
                tracing::warn!(
                    database = %database.name(), table = due.table, error = %error.for_log(),
                    "a table could not be vacuumed or analyzed"
                );
            }
        }
        tracing::debug!(
            database = %database.name(), statement = due.sql(),
            elapsed_us = started.elapsed().as_micros() as u64,
            "maintained"
        );
    }
    Ok(Ended::Done)
}

/// Freezes all tables, so that transaction ids do not run out.
async fn freeze(node: &Node, database: &Database, slot: &mut Slot) -> Result<(), PgError> {
    let started = Instant::now();
    slot.frozen_at = Some(started);
    // The rows of other databases would keep the oldest transaction where it is.
    slot.run(&catalog::refresh(std::iter::empty())).await?;
    slot.catalog_generation = None;
    slot.run("VACUUM (FREEZE, SKIP_LOCKED)").await?;
    let backend = slot.backend.as_ref().ok_or_else(no_backend)?;
    let age = backend.transaction_age();
    node.counters.freezes.took(started.elapsed());
    tracing::info!(database = %database.name(), age, "frozen");
    if is_old(node, backend) {
        tracing::warn!(
            database = %database.name(), age,
            "freezing did not help: a prepared transaction or a replication slot holds old rows"
        );
    }
    Ok(())
}

impl Slot {
    /// Makes a checkpoint between two statements of a session, if one is due: as the superuser, and
    /// without a trace in the session.
    ///
    /// # Errors
    /// If the backend ended; it is given up then.
    pub(crate) async fn checkpoint_if_due(
        &mut self,
        node: &Node,
        database: &Database,
    ) -> Result<(), PgError> {
        let Some(backend) = self.backend.as_mut() else {
            return Ok(());
        };
        let volume = backend.volume();
        if database.wal_since_checkpoint(&volume) <= node.adjustable.checkpoint_wal_bytes.get() {
            return Ok(());
        }
        let started = Instant::now();
        let failed = |error| start_error(&error);
        let user = backend.become_superuser().await.map_err(failed)?;
        // By the extended protocol: a simple query would end the session's unnamed statement.
        let outcome = self.run_named("CHECKPOINT").await;
        let backend = self.backend.as_mut().ok_or_else(no_backend)?;
        backend.set_user(user).await.map_err(failed)?;
        // Whether it succeeded or not (a statement_timeout of the session's may be short): the next
        // one comes after as much WAL again.
        database.checkpointed(&volume);
        volume.waive_version();
        match outcome {
            Ok(()) => node.counters.checkpoints.took(started.elapsed()),
            Err(error) => {
                tracing::warn!(database = %database.name(), %error, "a checkpoint failed");
            }
        }
        Ok(())
    }
}
