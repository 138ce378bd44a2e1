//! Connections to one origin, and who may have them when.

mod durations;
mod ending;
mod giving;
mod learning;
mod lease;
mod lore;
mod making;
mod queue;
mod standing;
mod state;
mod texts;

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wire::{PgError, sqlstate};

use crate::binding::Caching;
use crate::cache::{Cache, CacheFigures, CacheOptions, CacheSpace};
use crate::cancel::Cancels;
use crate::facts::Facts;
use crate::options::PoolOptions;
use crate::origin::{Origin, Target};
use crate::replication::{Replication, Source};
use crate::server::Parameters;
use crate::statements::Registry;

pub use durations::Durations;
pub(crate) use lease::Lease;
pub use standing::{Counts, Standing};

pub(crate) use texts::{Change, Judged};

use state::State;
use texts::Texts;

/// A pool of connections to one origin.
#[derive(Debug)]
pub struct Pool {
    options: RwLock<Arc<PoolOptions>>,
    /// What its binding is called, for people.
    name: RwLock<Arc<str>>,
    /// They are others now.
    adjusted: Arc<Notify>,
    pub(crate) statements: Registry,
    pub(crate) cache: Arc<Cache>,
    pub(crate) replication: Replication,
    texts: Texts,
    cancels: Arc<Cancels>,
    home: OnceLock<Handle>,
    /// What the servers tell of themselves.
    parameters: RwLock<Option<Parameters>>,
    state: Mutex<State>,
    me: Weak<Self>,
}

impl Pool {
    /// Of an origin, of which nothing is cached. No connection is made before somebody wants one.
    pub fn new(origin: Origin, options: PoolOptions) -> Arc<Self> {
        let space = CacheSpace::new(CacheOptions::default());
        Self::with_cache(origin, options, Caching::disabled(), space)
    }

    /// Of an origin whose answers are cached, in memory that pools of a node share.
    pub fn with_cache(
        origin: Origin,
        options: PoolOptions,
        caching: Caching,
        space: Arc<CacheSpace>,
    ) -> Arc<Self> {
        let cancels = Arc::new(Cancels::new(&options));
        Arc::new_cyclic(|me| Self {
            options: RwLock::new(Arc::new(options)),
            name: RwLock::new(Arc::from("")),
            adjusted: Arc::default(),
            cancels,
            statements: Registry::new(),
            cache: Arc::new(Cache::new(space, caching, Weak::clone(me))),
            replication: Replication::new(),
            texts: Texts::new(),
            home: OnceLock::new(),
            parameters: RwLock::new(None),
            state: Mutex::new(State::new(origin)),
            me: Weak::clone(me),
        })
    }

    /// Its binding is called so from now on: by that the log tells of it.
    pub fn set_name(&self, name: &str) {
        *self.name.write() = Arc::from(name);
    }

    /// What its binding is called.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.read())
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        let [cancels, cancels_failed, cancels_refused, cancels_unsent] = self.cancels.counts();
        Standing {
            connections: state.total,
            idle: state.idle.len(),
            pinned: state.pinned,
            waiting: state.queue.len(),
            counts: Counts {
                cancels,
                cancels_failed,
                cancels_refused,
                cancels_unsent,
                ..state.counts
            },
        }
    }

    /// Goes to another origin, or to the same with another password: connections that there are go when they are free.
    pub fn turn_to(&self, origin: Origin) {
        let idle = {
            let mut state = self.state.lock();
            state.origin = Arc::new(origin);
            state.epoch += 1;
            self.texts.forget_lore();
            *self.parameters.write() = None;
            state.failed = None;
            self.cache.purge();
            self.connect_if_wanted(&mut state);
            Self::take_idle(&mut state)
        };
        self.replication.look_again();
        self.close_all(idle);
    }

    /// What it may use now.
    pub(crate) fn options(&self) -> Arc<PoolOptions> {
        Arc::clone(&self.options.read())
    }

    /// May use something else from now on. Connections of before go when they are free, and count as long as they are there.
    pub fn adjust(&self, options: PoolOptions) {
        *self.options.write() = Arc::new(options);
        self.adjusted.notify_waiters();
        self.restart();
    }

    /// Forgets all answers that the cache has.
    pub fn purge(&self) {
        self.cache.purge();
    }

    /// Caches otherwise from now on; what there is is forgotten.
    pub fn set_caching(&self, caching: Caching) {
        self.cache.set_caching(caching);
        self.replication.look_again();
    }

    /// What the cache has counted.
    pub fn cache_figures(&self) -> CacheFigures {
        self.cache.figures()
    }

    /// Closes all connections; those in use when they are free. The next who wants one gets a new one.
    pub fn restart(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.epoch += 1;
            state.failed = None;
            self.connect_if_wanted(&mut state);
            Self::take_idle(&mut state)
        };
        self.replication.look_again();
        self.close_all(idle);
    }

    /// Gives nothing to anybody any more.
    pub fn close(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.epoch += 1;
            state.queue.clear();
            Self::take_idle(&mut state)
        };
        self.replication.look_again();
        self.close_all(idle);
    }

    /// What a client has asked was cancelled before a server had heard of it: what it is told.
    pub(crate) fn cancelled_unsent(&self) -> PgError {
        self.cancels.cancelled_unsent();
        crate::client::cancelled()
    }

    /// A number for a client.
    pub(crate) fn new_client(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_client += 1;
        state.next_client
    }

    /// What a text does to its session.
    pub(crate) fn facts(&self, sql: &[u8]) -> Arc<Facts> {
        self.texts.facts(sql)
    }

    /// What a text may leave in its session that is not known.
    pub(crate) fn judge(&self, facts: &Facts) -> Judged {
        self.texts.judge(facts)
    }

    /// The catalog is about to be changed: what is known of it counts no longer.
    pub(crate) fn changes_catalog(&self) -> Change {
        self.texts.changes()
    }

    /// Where its connections are: where the first of its clients was served.
    pub(crate) fn home(&self) -> &Handle {
        self.home.get_or_init(Handle::current)
    }

    /// What servers tell of themselves, if one has been there.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        self.parameters.read().clone()
    }

    /// A server has refused to write, though its client has not wished for that: whether it matters. Then each server is asked
    /// whether it takes writes before anybody gets it, from before the client hears of the refusal.
    pub(crate) fn doubt(&self) -> bool {
        let mut state = self.state.lock();
        let wants_writes = state.origin.target == Target::ReadWrite;
        state.doubts += u64::from(wants_writes);
        wants_writes
    }

    /// Asks a server whether it takes writes, if that is in doubt: whether it can be used. Of one that takes none all
    /// connections go, and the hosts are tried again.
    pub(crate) async fn ask_for_writes(&self, lease: &mut Lease) -> bool {
        let doubts = self.state.lock().doubts;
        if lease.doubts == doubts {
            return true;
        }
        match lease.takes_writes().await {
            Ok(true) => {
                lease.doubts = doubts;
                true
            }
            Ok(false) => {
                if self.is_current(lease.epoch) {
                    tracing::warn!(
                        binding = &*self.name(),
                        "the origin takes no writes any more: the pool connects anew"
                    );
                    self.restart();
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Whether connections of this version of the origin are still right.
    pub(crate) fn is_current(&self, epoch: u64) -> bool {
        self.state.lock().epoch == epoch
    }

    /// From where a stream of its commits is to come; nothing if the pool is closed.
    pub(crate) fn source(&self) -> Option<Source> {
        let state = self.state.lock();
        (!state.is_closed).then(|| Source {
            origin: Arc::clone(&state.origin),
            dialing: self.options().dialing.clone(),
            epoch: state.epoch,
        })
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.me)
    }

    /// Whether a server that was lost has ended; where there are several hosts nobody knows.
    pub(crate) async fn is_process_gone(&self, pid: u32) -> bool {
        if self.state.lock().origin.hosts.len() > 1 {
            return false;
        }
        let Ok(mut lease) = self.lease(&Arc::from("the cache")).await else {
            return false;
        };
        let sql = format!(
            "SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) {pid}::pg_catalog.int4"
        );
        let Ok(rows) = lease.ask(&sql).await else {
            return false;
        };
        lease.give_back();
        rows.is_empty()
    }
}

fn closed() -> PgError {
    PgError::fatal(sqlstate::ADMIN_SHUTDOWN, "the pool is closed")
}
