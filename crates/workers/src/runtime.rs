//! workerd as a supervised child: one process for each deployment, with no access but to its sockets.

mod door;
mod found;
mod keeper;
mod launch;
mod log;
mod memory;
mod process;
mod running;
mod spawner;
mod supervisor;

pub use door::Lease;
pub use found::{NoWorkerd, find_workerd};
pub use launch::launch;
pub use log::{Level, Log, LogEntry, LogOptions};
pub use running::{Running, Standing};
pub use supervisor::Supervisor;

use crate::{App, BindingAddress, NetworkRules, Values, modules::Backend};
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// How backends are run. Each setting's name is that of its field, with `_ms` for durations.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// The program `workerd`.
    pub workerd: PathBuf,
    /// What starts it, before its path: a program that calls [`launch`] with what follows. Without one, a backend
    /// outlives a server that is killed.
    pub launcher: Vec<OsString>,
    /// The folder of the sockets; made, for its owner only, if it is not there.
    pub sockets: PathBuf,
    /// What of the network backends reach: of what is allowed, not this machine.
    pub network: NetworkRules,
    /// How long a backend may take until it listens.
    pub start_max: Duration,
    /// How long an old version may take to finish its requests.
    pub drain_max: Duration,
    /// The pause before the first restart after a crash; it doubles with each crash that follows.
    pub restart_min: Duration,
    /// The longest such pause. A backend that lived longer begins anew with the shortest.
    pub restart_max: Duration,
    /// The most of V8's heap, in MiB; past it the process ends, and is restarted.
    pub heap_mib_max: u64,
    /// Bytes of memory that a process may have resident; past it, it is killed and restarted.
    pub memory_bytes_max: u64,
    /// How often that is looked at.
    pub memory_check: Duration,
    /// What is kept of the output of each deployment.
    pub log: LogOptions,
}

impl RuntimeOptions {
    /// The defaults, for a program and a folder of sockets.
    #[must_use]
    pub fn new(workerd: PathBuf, sockets: PathBuf) -> Self {
        Self {
            workerd,
            launcher: Vec::new(),
            sockets,
            network: NetworkRules::public(),
            start_max: Duration::from_secs(5),
            drain_max: Duration::from_secs(30),
            restart_min: Duration::from_millis(100),
            restart_max: Duration::from_secs(30),
            heap_mib_max: 128,
            memory_bytes_max: 512 << 20,
            memory_check: Duration::from_secs(1),
            log: LogOptions::default(),
        }
    }
}

/// What is run: a version of an app's backend, and its surroundings.
#[derive(Debug, Clone)]
pub struct Program {
    /// Whose it is.
    pub app: App,
    /// The number of the version.
    pub version: u64,
    /// The backend.
    pub backend: Backend,
    /// Variables and secrets.
    pub values: Values,
    /// Names in `env`, and what is behind them.
    pub databases: Vec<(String, BindingAddress)>,
}
