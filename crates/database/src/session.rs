//! A session: one client in one database.
//!
//! It has a process of the database while it runs something, and for as long as a transaction is open.

mod begin;
mod between;
mod cancel;
mod currency;
mod exchange;
mod fetches;
mod host;
mod leaving;
pub(crate) mod measure;
mod newcomer;
mod options;
mod ours;
mod patience;
mod plan;
mod providing;
mod pulse;
mod running;
mod seating;

pub use cancel::Canceller;
pub use host::{HostResult, HostStatement};
pub use options::SessionOptions;
pub(crate) use options::host_settings;
pub use pulse::Pulse;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine::{IdleLimits, Interrupter, SessionIdentity};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use wire::pg::{Frame, TransactionStatus, frontend};
use wire::{DatabaseName, PgError};

use crate::authority::Authority;
use crate::database::{Database, Present};
use crate::further::Shelf;
use crate::node::{Node, blocking};
use crate::prepared::Absent;
use crate::seat::Seat;
use crate::session::cancel::Line;
use crate::session::measure::{Carried, Seating};
use crate::slot::Slot;
use crate::statements::Statements;
use crate::witness::Doer;

/// The backend ended under a session, which ends with it.
#[derive(Debug, Clone)]
pub struct SessionEnded {
    /// What Postgres answered before.
    pub output: Bytes,
    /// The reason, FATAL. If Postgres gave it itself, it is in the output too.
    pub error: PgError,
    /// Whether the output ends with that error.
    pub told: bool,
}

/// One client in one database.
pub struct Session {
    node: Arc<Node>,
    database: Arc<Database>,
    /// The process, while it has one, and its turn at it.
    slot: Option<OwnedMutexGuard<Slot>>,
    permit: Option<OwnedSemaphorePermit>,
    /// The slot that it had last.
    home: Option<Shelf>,
    seat: Arc<Seat>,
    identity: SessionIdentity,
    authority: Authority,
    /// Who changes databases by its statements.
    pub(crate) doer: Arc<Doer>,
    /// Its prepared statements that its process has not.
    absent: Absent,
    parameters: Vec<(String, String)>,
    process_id: u32,
    status: TransactionStatus,
    /// The backend has told that it waits for a new query.
    at_rest: bool,
    /// When its last exchange ended, and when its last transaction block began.
    quiet_since: Instant,
    transaction_since: Instant,
    /// Which transaction that was.
    transaction_number: u32,
    idle_limits: IdleLimits,
    statements: Statements,
    /// An error of ours in an extended query: messages are dropped up to the next `Sync`.
    skipping: bool,
    /// Its transactions are read-only, because the disk is all but full.
    read_only: bool,
    runs: watch::Sender<u64>,
    line: Arc<Line>,
    /// Its number among the sessions of the node.
    present: u64,
    has_left: bool,
    /// The role that it began as, and what it is called, for logs.
    came_as: String,
    label: String,
    /// What it took to get its process this time, and what is not counted yet.
    seating: Seating,
    carried: Carried,
    /// What it does now is recorded.
    is_traced: bool,
    /// What is run now nobody has asked for: it is in no figures, no trace and no log.
    is_unasked: bool,
    /// The name of its role, until that is found.
    role: Option<String>,
    /// Of the process that it has let go of, and may still have things in.
    parked: Option<Interrupter>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("database", &self.database.name())
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The parameters to report to the client, by name.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The number by which Postgres knows it, for `BackendKeyData`; unlikely to be another session's.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// A handle that cancels this session's statement.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            line: Arc::clone(&self.line),
            runs: self.runs.subscribe(),
        }
    }

    /// As the last `ReadyForQuery` said.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// Which transaction is open, of those of this session; 0 for none, and for one that has failed as a whole. One
    /// that was chained to another (`COMMIT AND CHAIN`) has another number.
    pub fn transaction_number(&self) -> u32 {
        self.transaction_number
    }

    /// What the session may do beyond its own database.
    pub(crate) fn authority(&self) -> Authority {
        self.authority
    }

    /// What logs call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The database that the session is in.
    pub fn database(&self) -> DatabaseName {
        self.database.name()
    }

    fn ended(&self, error: PgError) -> SessionEnded {
        SessionEnded {
            output: Bytes::new(),
            error,
            told: false,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if runtime.is_err()
            && let Some(slot) = self.slot.as_mut()
        {
            // Nothing can run the backend any more.
            slot.lose(&self.database);
        }
        if let (Some(leaving), Ok(runtime)) = (self.leaving(), runtime) {
            self.node.leaving.spawn_on(leaving, &runtime);
        }
    }
}

/// Lets go of a volume that can flush no more, once nobody writes in it; the next use opens its last durable
/// state.
pub(crate) async fn abandon_volume(database: &Arc<Database>) {
    let abandoned = Arc::clone(database);
    let abandoning = blocking(move || {
        abandoned.abandon_volume();
        Ok(())
    });
    if let Err(error) = abandoning.await {
        tracing::error!(database = %database.name(), %error, "a volume could not be given up");
    }
}

/// A number for a session.
fn node_number(node: &Node) -> u64 {
    node.sessions.fetch_add(1, Ordering::Relaxed)
}

/// The text of a query, or of a statement to be prepared.
fn sql(frame: &Frame) -> Option<&[u8]> {
    match frame.kind() {
        frontend::kind::QUERY => frontend::decode_query(frame.body()).ok(),
        frontend::kind::PARSE => frontend::Parse::decode(frame.body())
            .ok()
            .map(|parse| parse.sql),
        _ => None,
    }
}

/// An error that ends a statement rather than a connection.
fn as_error(error: PgError) -> PgError {
    error
        .with(wire::pg::ErrorField::Severity, "ERROR")
        .with(wire::pg::ErrorField::SeverityNonlocalized, "ERROR")
}

/// Sets a parameter in a list of them.
pub(crate) fn set_parameter(parameters: &mut Vec<(String, String)>, name: &[u8], value: &[u8]) {
    let name = String::from_utf8_lossy(name).into_owned();
    let value = String::from_utf8_lossy(value).into_owned();
    match parameters.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => parameters.push((name, value)),
    }
}
