//! How a data directory is opened, and the limits in it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::{Progress, Silent};
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::witness::Witness;

/// How a data directory is opened.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made if it is not there.
    pub data_directory: PathBuf,
    /// Folder for what can be made anew: compiled code, and the template that new data
    /// directories begin with. Processes may share it.
    pub cache_directory: PathBuf,
    /// Whether a database that is asked for and not there is made (`databases.auto_create`).
    pub auto_create: bool,
    /// What an acknowledged commit has reached (`durability.level`), where a database does not say
    /// otherwise.
    pub durability: Durability,
    /// Whether databases are vacuumed, analyzed and frozen (`maintenance.enabled`), where one does not
    /// say otherwise.
    pub maintenance: bool,
    /// Limits, each with its name in the configuration.
    pub limits: Limits,
    /// What is told of statements.
    pub observe: Observe,
    /// Keeps a record of who changes the list of databases.
    pub witness: Option<Arc<dyn Witness>>,
    /// Told about work that takes seconds, which happens once a machine.
    pub progress: Arc<dyn Progress>,
}

impl Options {
    /// Defaults: databases are made on first use, and progress is not shown.
    pub fn new(data_directory: impl Into<PathBuf>, cache_directory: impl Into<PathBuf>) -> Self {
        Self {
            data_directory: data_directory.into(),
            cache_directory: cache_directory.into(),
            auto_create: true,
            durability: Durability::default(),
            maintenance: true,
            limits: Limits::default(),
            observe: Observe::default(),
            witness: None,
            progress: Arc::new(Silent),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("data_directory", &self.data_directory)
            .field("cache_directory", &self.cache_directory)
            .field("auto_create", &self.auto_create)
            .field("durability", &self.durability)
            .field("maintenance", &self.maintenance)
            .field("limits", &self.limits)
            .field("observe", &self.observe)
            .finish_non_exhaustive()
    }
}

/// What logs and traces tell of statements. Never their parameters, nor the values in their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observe {
    /// `log.slow_query_ms`: messages that take as long are logged. Default: none.
    pub slow_query: Option<Duration>,
    /// `log.slow_query_plan`: with the plan of the statement, if it can be asked for.
    pub slow_query_plan: bool,
    /// `log.query_bytes_max`: bytes of a statement's text in logs and traces. Default 1,024.
    pub query_bytes_max: usize,
    /// `telemetry.query_text`: spans of statements have their text, without values.
    pub query_text: bool,
}

impl Default for Observe {
    fn default() -> Self {
        Self {
            slow_query: None,
            slow_query_plan: false,
            query_bytes_max: 1_024,
            query_text: false,
        }
    }
}

/// What an acknowledged commit has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// This process: a crash may take the commits of the last `durability.flush_interval_ms`, or the
    /// last `durability.flush_entries_max` of the node, whichever is less; never one without those
    /// after it.
    Relaxed,
    /// This node's disk: a commit is acknowledged once its WAL is synced.
    #[default]
    Local,
}

/// Most processes that a database can have: `max_connections` of the template.
pub const PROCESSES_MAX: usize = 100;

/// Limits of each database and of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `backend.memory_bytes_max`: most memory of one backend. Past it a statement fails with
    /// 53200. Default 512 MiB, of which Postgres reserves 128 MiB without touching them.
    pub backend_memory_bytes_max: u64,
    /// `volume.bytes_max`: most bytes that one database stores beyond its template. Past it a
    /// statement fails with 53100. Default 10 GiB.
    pub volume_bytes_max: u64,
    /// `sessions.wait_ms_max`: longest wait for a database that another session uses. Past it
    /// the connection fails with 53300. Default 60 s.
    pub session_wait_max: Duration,
    /// `sessions.idle_holder_ms_max`: how long a session may keep a process while it does nothing, in a
    /// transaction or bound by what only the process has, and others wait for one. Past it it is ended with
    /// 25P03. Default 60 s.
    pub idle_holder: Duration,
    /// `durability.flush_interval_ms`: longest time between a commit and its flush to disk with
    /// durability `relaxed`. Default 1 s.
    pub flush_interval: Duration,
    /// `durability.flush_entries_max`: most syncs of WAL, of all databases together, that wait for
    /// their flush with durability `relaxed`. Default 1,000.
    pub flush_entries_max: u64,
    /// `volume.dirty_bytes_max`: bytes of pages of one database that are written and in no durable
    /// version; past it a version is written in the background. Default 32 MiB.
    pub dirty_bytes_max: u64,
    /// `journal.bytes_max`: bytes of the journal past which the database that holds its oldest
    /// entry is flushed, so that it can shrink. Default 256 MiB.
    pub journal_bytes_max: u64,
    /// `databases.idle_ms`: how long a database without a session stays awake. Default 10 s.
    pub idle: Duration,
    /// `databases.awake_max`: most databases awake at once. Past it the one that has been quiet for the
    /// longest time goes to sleep early; if none is quiet, a wake waits. Default 5,000.
    pub awake_max: usize,
    /// `databases.wakes_max`: most databases that wake at the same moment; others wait in the order they
    /// came. 0, the default: as many as there are processors.
    pub wakes_max: usize,
    /// `databases.processes_shared`: processes of one database that its sessions take turns at; each takes
    /// 3 to 8 MiB. More are made when none of them is given back for 10 ms. At least 1, at most
    /// `processes_max`. Default 8.
    pub processes_shared: usize,
    /// `databases.processes_max`: most processes of one database, and so most transactions that are open at
    /// once, at most [`PROCESSES_MAX`]. Past it sessions wait. Default 64.
    pub processes_max: usize,
    /// `databases.spares_max`: backends kept ready for databases that wake, some 3 MiB of memory each. Most
    /// of a wake's work is done in them. Default 4.
    pub spares_max: usize,
    /// `databases.wake_wait_ms_max`: longest wait for a turn to wake. Past it the connection fails with
    /// 53300 or, for memory, 53200. Default 30 s.
    pub wake_wait_max: Duration,
    /// `databases.wake_ms_max`: longest time that a database takes to start, crash recovery included. Past it
    /// the connection fails with 57P03. Default 5 minutes.
    pub wake_max: Duration,
    /// `maintenance.statement_ms_max`: longest time that one statement of the host's maintenance takes. Past it
    /// the table is left until something has changed again. Default 10 minutes.
    pub upkeep_statement_max: Duration,
    /// `node.memory_bytes_max`: most private memory of the process. Past it quiet databases go to sleep
    /// early, and wakes wait until there is room. 0, the default: three quarters of the machine's memory,
    /// or of what its control group grants.
    pub node_memory_bytes_max: u64,
    /// `images.bytes_max`: most bytes of hibernation images on disk; past it those of the databases that
    /// have slept for the longest time go, and these boot. 0: none are made. Default 4 GiB.
    pub images_bytes_max: u64,
    /// `maintenance.checkpoint_wal_bytes`: WAL written since the last checkpoint of a database, past which
    /// the host makes one as soon as no statement runs. Default 64 MiB.
    pub checkpoint_wal_bytes: u64,
    /// `volume.wal_bytes_max`: most WAL since the last checkpoint of a database. Past it the statement that
    /// writes, which is what keeps the host from making a checkpoint, fails with 53100. Default 4 GiB.
    pub wal_bytes_max: u64,
    /// `etags.databases_max`: most databases of which is known which commit has changed each table last, asleep or
    /// not, some 10 to 300 KiB each. Past it that of the one that was not asked for the longest is forgotten. 0: no
    /// query has an ETag. Default 1,000.
    pub etag_databases_max: usize,
    /// `etags.queries_max`: most statements, in all databases, of which is known what they depend on, some 300 bytes
    /// each. 0: none are kept, and none has an ETag. Default 10,000.
    pub etag_queries_max: usize,
    /// `telemetry.figures_databases_max`: databases whose figures are kept while they sleep, some 200 bytes each;
    /// past it those of the ones that were used before the others are only kept as a sum. Default 10,000.
    pub figures_max: usize,
    /// `directory.cache_bytes_max`: most memory that caches the directory of databases. Default 32 MiB.
    pub directory_cache_bytes_max: usize,
    /// `disk.reserve_bytes`: free bytes of the disk below which databases may not grow: statements that
    /// write fail with 53100, so that what was committed can still be kept. Default 256 MiB.
    pub disk_reserve_bytes: u64,
    /// `maintenance.freeze_age`: transactions since the oldest unfrozen one, past which a database is
    /// frozen. Default 150,000,000.
    pub freeze_age: u32,
}

impl Limits {
    /// The value of [`wakes_max`](Self::wakes_max), by this machine if it is 0.
    pub(crate) fn wakes(&self) -> usize {
        match self.wakes_max {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            wakes => wakes,
        }
    }

    /// The value of [`processes_max`](Self::processes_max), if a database can have as many.
    pub(crate) fn processes(&self) -> usize {
        self.processes_max.clamp(1, PROCESSES_MAX)
    }

    /// The value of [`processes_shared`](Self::processes_shared), if there may be as many.
    pub(crate) fn turns(&self) -> usize {
        self.processes_shared.clamp(1, self.processes())
    }

    /// The value of [`node_memory_bytes_max`](Self::node_memory_bytes_max), by this machine if it is 0.
    pub fn memory_bytes(&self) -> u64 {
        match self.node_memory_bytes_max {
            0 => machine::memory_bytes() / 4 * 3,
            bytes => bytes,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            backend_memory_bytes_max: 512 << 20,
            volume_bytes_max: volume::BYTES_MAX_DEFAULT,
            session_wait_max: Duration::from_secs(60),
            idle_holder: Duration::from_secs(60),
            flush_interval: Duration::from_secs(1),
            flush_entries_max: 1_000,
            dirty_bytes_max: 32 << 20,
            journal_bytes_max: 256 << 20,
            idle: Duration::from_secs(10),
            awake_max: 5_000,
            wakes_max: 0,
            processes_shared: 8,
            processes_max: 64,
            spares_max: 4,
            wake_wait_max: Duration::from_secs(30),
            wake_max: Duration::from_secs(300),
            upkeep_statement_max: Duration::from_secs(600),
            node_memory_bytes_max: 0,
            images_bytes_max: 4 << 30,
            checkpoint_wal_bytes: 64 << 20,
            wal_bytes_max: 4 << 30,
            etag_databases_max: 1_000,
            etag_queries_max: 10_000,
            figures_max: 10_000,
            directory_cache_bytes_max: 32 << 20,
            disk_reserve_bytes: 256 << 20,
            freeze_age: 150_000_000,
        }
    }
}
