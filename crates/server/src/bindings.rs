//! Managed bindings: what `env.DB` of a deployed backend, or a connection string of ours, leads to: an external Postgres
//! through its pool, or one of our databases.
//!
//! 1. Who comes by a credential has what its binding leads to, and nothing else.
//! 2. A credential of an application is in memory alone, is taken on the local socket alone, and ends with the
//!    process that it was given to.
//! 3. An origin's password leaves this process in a login at that origin, and in no other way.

mod applications;
mod for_workers;
mod guest;
mod lent;
mod own_database;
mod shares;
mod socket;
mod threads;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use database::{DatabaseName, Databases};
use pooler::{
    BindingTarget, Bindings, BindingsError, CacheOptions, CacheSpace, Credential, Dialing,
    Keepalive, PoolOptions,
};
use tokio::runtime::Handle;

use crate::connections::Connections;

use applications::Applications;
pub(crate) use guest::{Guest, LeadsTo, Proof, Way};
pub use lent::LendError;
use own_database::OwnDatabases;
use shares::Shares;
pub(crate) use socket::LocalListener;
pub use socket::SocketError;
use threads::Threads;

/// What bindings are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingsOptions {
    /// The file that they are kept in, sealed.
    pub file: PathBuf,
    /// `bindings.socket_directory`: the folder of the socket that deployed backends use.
    pub socket_directory: PathBuf,
    /// `bindings.clients_max`: clients of bindings at once.
    pub clients_max: usize,
    /// `bindings.app_clients_max`: of these, clients of one application, or of one user of a binding; 0 for as many.
    pub app_clients_max: usize,
    /// `bindings.threads`: threads that pools run on.
    pub threads: usize,
    /// `bindings.metrics_max`: bindings with samples of their own at `/metrics`.
    pub metrics_max: usize,
    /// `bindings.cache_…`: what the caches of all bindings may keep.
    pub cache: CacheOptions,
    /// `bindings.cancels_max`: connections to one origin that cancel, at once.
    pub cancels_max: usize,
    /// `bindings.cancel_ms_max`: how long one may take, its wait included.
    pub cancel_max: Duration,
    /// `bindings.keepalive…`: how connections to origins are looked after.
    pub keepalive: Keepalive,
}

/// Why bindings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenBindingsError {
    /// They cannot be read.
    #[error(transparent)]
    File(#[from] BindingsError),
    /// There are no threads for them.
    #[error("cannot start the threads of bindings: {0}")]
    Threads(#[from] std::io::Error),
}

/// All bindings of a node, with what is behind them.
pub struct ManagedBindings {
    pub(crate) bindings: Bindings,
    databases: Databases,
    options: BindingsOptions,
    applications: Applications,
    own_databases: OwnDatabases,
    /// Where PostgreSQL's protocol is spoken.
    port: OnceLock<u16>,
    pub(crate) clients: Arc<Connections>,
    /// Of these, how many each application and user has.
    pub(crate) shares: Shares,
    threads: Threads,
}

impl std::fmt::Debug for ManagedBindings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ManagedBindings")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ManagedBindings {
    /// Reads what is configured. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be read with this key, or there are no threads.
    pub fn open(
        options: BindingsOptions,
        key: &[u8; 32],
        databases: Databases,
    ) -> Result<Self, OpenBindingsError> {
        let of_pools = PoolOptions {
            cancels_max: options.cancels_max,
            cancel_max: options.cancel_max,
            dialing: Dialing {
                keepalive: options.keepalive,
                ..Dialing::default()
            },
            ..PoolOptions::default()
        };
        Ok(Self {
            bindings: Bindings::open(options.file.clone(), key)?
                .with_cache_space(CacheSpace::new(options.cache))
                .with_pool_options(of_pools),
            threads: Threads::start(options.threads)?,
            databases,
            options,
            applications: Applications::default(),
            own_databases: OwnDatabases::default(),
            shares: Shares::default(),
            port: OnceLock::new(),
            clients: Connections::new(),
        })
    }

    /// What was told.
    pub(crate) fn options(&self) -> &BindingsOptions {
        &self.options
    }

    /// The port at which clients come over the network, once that is known.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port.get().copied()
    }

    /// Says at which port clients come; whoever says it first is right.
    pub(crate) fn set_port(&self, port: u16) {
        self.port.get_or_init(|| port);
    }

    /// Where clients of a binding are served.
    pub(crate) fn thread_of(&self, binding: &str) -> &Handle {
        self.threads.of(binding)
    }

    /// Where a client of this name is served, if it is a binding's and leads to no database of ours. One that is not there is
    /// asked for its password there, too.
    pub(crate) fn thread_of_user(&self, user: &str) -> Option<&Handle> {
        let id = Credential::binding_of(user)?;
        let leads_to_us = self
            .bindings
            .get(id)
            .is_ok_and(|binding| !matches!(binding.target, BindingTarget::Origin(_)));
        (!leads_to_us).then(|| self.thread_of(id))
    }

    /// Whether a database of ours is there.
    pub(crate) fn has_database(&self, name: &DatabaseName) -> bool {
        self.databases.expect(name).is_ok()
    }
}
