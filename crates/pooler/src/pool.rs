//! Connections to one origin, and who may have them when.

mod durations;
mod lease;
mod lore;
mod standing;
mod texts;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::RecvError};
use tokio::time::{Duration, Instant, error::Elapsed, timeout, timeout_at};
use wire::{PgError, sqlstate};

use crate::binding::Caching;
use crate::cache::{Cache, CacheFigures, CacheOptions, CacheSpace};
use crate::cancel::Cancels;
use crate::connect;
use crate::facts::Facts;
use crate::failure::Failure;
use crate::options::PoolOptions;
use crate::origin::{Origin, Target};
use crate::replication::{Replication, Source};
use crate::server::{Parameters, Server};
use crate::statements::Registry;

pub use durations::Durations;
pub(crate) use lease::Lease;
pub use standing::{Counts, Standing};

use lease::Handed;
pub(crate) use texts::{Change, Judged};

use lore::{Lore, Teller};
use texts::Texts;

/// After a failure nobody tries again for this long, unless a connection has come about meanwhile.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Statements that are known to a pool.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A pool of connections to one origin.
#[derive(Debug)]
pub struct Pool {
    options: RwLock<Arc<PoolOptions>>,
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

#[derive(Debug)]
struct State {
    origin: Arc<Origin>,
    /// Which version of the origin it is; servers of another go when they are free.
    epoch: u64,
    /// How often a server has refused to write.
    doubts: u64,
    /// The last that was used comes first.
    idle: Vec<(Instant, Box<Server>)>,
    /// Connections that there are or that are being made.
    total: usize,
    connecting: usize,
    pinned: usize,
    waiting: VecDeque<Waiting>,
    failed: Option<(Instant, Failure)>,
    /// Who has which connection, by the connection's number; free numbers have nobody.
    holders: Vec<Option<Holder>>,
    free_numbers: Vec<usize>,
    next_client: u64,
    counts: Counts,
    is_closed: bool,
    /// Somebody closes what is idle for long.
    is_reaped: bool,
}

/// Who has a connection.
#[derive(Debug, Clone)]
struct Holder {
    since: Instant,
    label: Arc<str>,
    is_pinned: bool,
}

impl Holder {
    fn new(label: &Arc<str>) -> Self {
        Self {
            since: Instant::now(),
            label: Arc::clone(label),
            is_pinned: false,
        }
    }
}

/// Who waits for a connection.
#[derive(Debug)]
struct Waiting {
    turn: oneshot::Sender<Result<Handed, Failure>>,
    label: Arc<str>,
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
            cancels,
            statements: Registry::new(STATEMENTS_MAX),
            cache: Arc::new(Cache::new(space, caching, Weak::clone(me))),
            replication: Replication::new(),
            texts: Texts::new(),
            home: OnceLock::new(),
            parameters: RwLock::new(None),
            state: Mutex::new(State {
                origin: Arc::new(origin),
                epoch: 0,
                doubts: 0,
                idle: Vec::new(),
                total: 0,
                connecting: 0,
                pinned: 0,
                waiting: VecDeque::new(),
                failed: None,
                holders: Vec::new(),
                free_numbers: Vec::new(),
                next_client: 1,
                counts: Counts::default(),
                is_closed: false,
                is_reaped: false,
            }),
            me: Weak::clone(me),
        })
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        let [cancels, cancels_failed, cancels_refused] = self.cancels.counts();
        Standing {
            connections: state.total,
            idle: state.idle.len(),
            pinned: state.pinned,
            waiting: state
                .waiting
                .iter()
                .filter(|waiting| !waiting.turn.is_closed())
                .count(),
            counts: Counts {
                cancels,
                cancels_failed,
                cancels_refused,
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
            self.take_idle(&mut state)
        };
        self.replication.look_again();
        close_all(idle);
    }

    /// What it may use now.
    pub(crate) fn options(&self) -> Arc<PoolOptions> {
        Arc::clone(&self.options.read())
    }

    /// May use something else from now on. Connections of before go when they are free, and count as long as they are there.
    pub fn adjust(&self, options: PoolOptions) {
        *self.options.write() = Arc::new(options);
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
            self.take_idle(&mut state)
        };
        self.replication.look_again();
        close_all(idle);
    }

    /// Gives nothing to anybody any more.
    pub fn close(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.epoch += 1;
            state.waiting.clear();
            self.take_idle(&mut state)
        };
        self.replication.look_again();
        close_all(idle);
    }

    /// Takes those that nobody has out of the account, to be closed.
    fn take_idle(&self, state: &mut State) -> impl Iterator<Item = Box<Server>> + use<> {
        let idle = std::mem::take(&mut state.idle);
        for (_, server) in &idle {
            state.is_gone(server.number);
            self.connect_if_wanted(state);
        }
        idle.into_iter().map(|(_, server)| server)
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

    /// Asks the catalog anew, on a connection that is idle, if nobody does.
    pub(crate) async fn learn_again(&self, server: &mut Server) {
        let Some(version) = self.texts.version() else {
            return;
        };
        let Ok(_alone) = self.texts.reading.try_lock() else {
            return;
        };
        match Lore::read(version, Teller::Server(server)).await {
            Ok(lore) if self.is_current(server.epoch) => self.texts.set_lore(lore),
            Ok(_) => {}
            Err(failure) => tracing::warn!(%failure, "the catalog could not be read"),
        }
    }

    /// Waits for a connection, behind those who wait already.
    ///
    /// # Errors
    ///
    /// 53300 after `wait_ms_max` or for more than `waiting_max`; the origin's failure if there is no connection to it.
    pub(crate) async fn lease(&self, label: &Arc<str>) -> Result<Lease, PgError> {
        self.replicate();
        let mut until = None;
        loop {
            let taken = self.take(label)?;
            let server = match taken {
                Taken::Server(server) => server,
                Taken::Turn(turn) => match self.wait(turn, &mut until).await {
                    Ok(Ok(Ok(handed))) => match handed.take() {
                        Some(server) => server,
                        None => return Err(closed()),
                    },
                    Ok(Ok(Err(failure))) => return Err(self.refused(failure.to_error())),
                    Ok(Err(_)) => return Err(self.refused(closed())),
                    Err(_) => return Err(self.refused(self.waited_too_long())),
                },
            };
            let mut lease = self.leased(server)?;
            let idle_for = lease.since.elapsed();
            if lease.is_gone().await {
                drop(lease);
                continue;
            }
            if idle_for > self.options().check_after && lease.ask(";").await.is_err() {
                drop(lease);
                continue;
            }
            if !self.ask_for_writes(&mut lease).await {
                lease.give_back();
                continue;
            }
            return Ok(lease);
        }
    }

    /// Waits for a turn, until a time that the first wait of a client sets.
    async fn wait(
        &self,
        turn: oneshot::Receiver<Result<Handed, Failure>>,
        until: &mut Option<Instant>,
    ) -> Result<Result<Result<Handed, Failure>, RecvError>, Elapsed> {
        let begun = Instant::now();
        let until = *until.get_or_insert_with(|| begun + self.options().wait_max);
        let waited = timeout_at(until, turn).await;
        let elapsed = begun.elapsed();
        self.state.lock().counts.waits.took(elapsed);
        waited
    }

    fn take(&self, label: &Arc<str>) -> Result<Taken, PgError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed());
        }
        if let Some((_, server)) = state.idle.pop() {
            state.counts.given += 1;
            state.has(server.number, label);
            return Ok(Taken::Server(server));
        }
        if let Some((at, failure)) = &state.failed
            && state.total == 0
            && at.elapsed() < BACK_OFF
        {
            let error = failure.to_error();
            state.counts.refused += 1;
            return Err(error);
        }
        let waiting_max = self.options().waiting_max;
        if state.waiting.len() >= waiting_max {
            // Who has left does not count.
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
        }
        if state.waiting.len() >= waiting_max {
            state.counts.refused += 1;
            return Err(PgError::fatal(
                sqlstate::TOO_MANY_CONNECTIONS,
                "Failed to acquire a connection from the pool.",
            )
            .detail(format!(
                "{} clients wait for a connection already, as many as waiting_max allows.",
                state.waiting.len()
            )));
        }
        let (turn, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting {
            turn,
            label: Arc::clone(label),
        });
        state.counts.waited += u64::from(state.total >= self.options().connections_max);
        self.connect_if_wanted(&mut state);
        Ok(Taken::Turn(receiver))
    }

    /// Begins a connection if somebody waits whom none that is being made will serve.
    fn connect_if_wanted(&self, state: &mut State) {
        if state.total >= self.options().connections_max || state.is_closed {
            return;
        }
        state.waiting.retain(|waiting| !waiting.turn.is_closed());
        if state.connecting >= state.waiting.len() {
            return;
        }
        let Some(me) = self.me.upgrade() else {
            return;
        };
        state.total += 1;
        state.connecting += 1;
        let origin = Arc::clone(&state.origin);
        let (epoch, doubts) = (state.epoch, state.doubts);
        // In a task of its own: who waits may leave, and the connection is the next one's.
        self.home().spawn(async move {
            let options = me.options();
            let (within, settings) = (options.connect_timeout, options.settings());
            let begun = Instant::now();
            let connecting = connect::connect(&origin, &options.dialing, within, &settings);
            let mut connected = connecting.await;
            if let Ok(link) = &mut connected
                && let Err(failure) = me.learn(link, epoch).await
            {
                connected = Err(failure);
            }
            me.connected(connected.map(|link| (link, begun.elapsed())), epoch, doubts);
        });
    }

    /// Where its connections are: where the first of its clients was served.
    pub(crate) fn home(&self) -> &Handle {
        self.home.get_or_init(Handle::current)
    }

    /// Learns of the first server what holds for all.
    async fn learn(&self, link: &mut connect::Link, epoch: u64) -> Result<(), Failure> {
        let lore = match (self.texts.has_lore(), self.texts.version()) {
            (true, _) | (_, None) => None,
            (false, Some(version)) => {
                let within = self.options().connect_timeout;
                let asking = Lore::read(version, Teller::Link(link));
                let asked = timeout(within, asking).await;
                Some(asked.unwrap_or_else(|_| Err(Failure::silent(within)))?)
            }
        };
        // Of an origin that is another by now nothing is learned.
        let state = self.state.lock();
        if state.epoch != epoch {
            return Ok(());
        }
        if let Some(lore) = lore {
            self.texts.set_lore(lore);
        }
        let mut parameters = self.parameters.write();
        parameters.get_or_insert_with(|| Arc::new(link.parameters.clone()));
        Ok(())
    }

    /// What servers tell of themselves, if one has been there.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        self.parameters.read().clone()
    }

    /// A connection was made, in this time, or was not.
    fn connected(
        &self,
        connected: Result<(connect::Link, Duration), Failure>,
        epoch: u64,
        doubts: u64,
    ) {
        let mut state = self.state.lock();
        state.connecting -= 1;
        match connected {
            Ok((mut link, took)) => {
                link.key.cancels = Some(Arc::clone(&self.cancels));
                state.counts.connected += 1;
                state.counts.connects.took(took);
                state.failed = None;
                let number = state.free_numbers.pop().unwrap_or(state.holders.len());
                if number == state.holders.len() {
                    state.holders.push(None);
                }
                drop(state);
                let mut server = Box::new(Server::new(link, &self.options(), epoch));
                server.number = number;
                server.doubts = doubts;
                if let Some(known) = self.parameters()
                    && known == server.parameters
                {
                    server.parameters = known;
                }
                self.give(server);
            }
            Err(failure) => {
                tracing::warn!(kind = failure.kind.name(), %failure, "the origin did not let the pool in");
                state.counts.failed += 1;
                state.total -= 1;
                if state.epoch != epoch {
                    // It says nothing of where the origin is now.
                    self.connect_if_wanted(&mut state);
                    return;
                }
                state.failed = Some((Instant::now(), failure.clone()));
                // While others have connections, one of these may become free; without any, waiting is in vain.
                let waiting = match state.total - state.connecting {
                    0 => std::mem::take(&mut state.waiting),
                    _ => VecDeque::new(),
                };
                drop(state);
                for waiting in waiting {
                    // Who has left does not hear it.
                    let _ = waiting.turn.send(Err(failure.clone()));
                }
            }
        }
    }

    /// Gives a connection to who waits for the longest, or keeps it.
    fn give(&self, mut server: Box<Server>) {
        let mut state = self.state.lock();
        if server.epoch != state.epoch || server.is_broken {
            state.is_gone(server.number);
            self.connect_if_wanted(&mut state);
            drop(state);
            close_all([server]);
            return;
        }
        let now = Instant::now();
        server.since = now;
        state.had(server.number, now);
        while let Some(waiting) = state.waiting.pop_front() {
            let number = server.number;
            let handed = Handed::new(server, Weak::clone(&self.me));
            match waiting.turn.send(Ok(handed)) {
                Ok(()) => {
                    state.counts.given += 1;
                    state.has(number, &waiting.label);
                    return;
                }
                Err(Ok(back)) => match back.take() {
                    Some(back) => server = back,
                    None => return,
                },
                Err(Err(_)) => return,
            }
        }
        state.idle.push((server.since, server));
        let was_reaped = std::mem::replace(&mut state.is_reaped, true);
        drop(state);
        if !was_reaped {
            self.reap_later();
        }
    }

    /// Closes what nobody has used for long, as long as there is something to close.
    fn reap_later(&self) {
        let me = Weak::clone(&self.me);
        let idle = self.options().idle;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(idle).await;
                let Some(me) = me.upgrade() else {
                    return;
                };
                let (old, is_done) = {
                    let mut state = me.state.lock();
                    let all = std::mem::take(&mut state.idle);
                    let (old, young): (Vec<_>, Vec<_>) = all
                        .into_iter()
                        .partition(|(since, _)| since.elapsed() >= idle);
                    state.idle = young;
                    old.iter()
                        .for_each(|(_, server)| state.is_gone(server.number));
                    // Whoever gives the next one back begins anew.
                    state.is_reaped = !state.idle.is_empty();
                    (old, state.idle.is_empty())
                };
                close_all(old.into_iter().map(|(_, server)| server));
                if is_done {
                    return;
                }
            }
        });
    }

    fn leased(&self, server: Box<Server>) -> Result<Lease, PgError> {
        let Some(pool) = self.me.upgrade() else {
            return Err(closed());
        };
        Ok(Lease::new(server, pool))
    }

    fn refused(&self, error: PgError) -> PgError {
        self.state.lock().counts.refused += 1;
        error
    }

    fn waited_too_long(&self) -> PgError {
        let state = self.state.lock();
        let holders = || state.holders.iter().flatten();
        let longest = holders().min_by_key(|holder| holder.since);
        let hint = match longest {
            Some(holder) => format!(
                "The longest of the {} in use is with {} for {:.1} s{}. Raise connections_max or wait_ms_max, or \
                 shorten transactions.",
                holders().count(),
                holder.label,
                holder.since.elapsed().as_secs_f64(),
                if holder.is_pinned {
                    ", which keeps it for its session"
                } else {
                    ""
                },
            ),
            None => "Connections to the origin are being made, and it does not answer.".to_owned(),
        };
        PgError::fatal(
            sqlstate::TOO_MANY_CONNECTIONS,
            "Failed to acquire a connection from the pool.",
        )
        .detail(format!(
            "No connection became free, and none could be added, within {} ms, which is wait_ms_max.",
            self.options().wait_max.as_millis()
        ))
        .hint(hint)
    }

    /// A connection that nobody has and nobody waits for.
    pub(crate) async fn spare_lease(&self) -> Option<Lease> {
        let server = {
            let mut state = self.state.lock();
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
            if !state.waiting.is_empty() || state.is_closed {
                return None;
            }
            let (_, server) = state.idle.pop()?;
            state.counts.given += 1;
            state.has(server.number, &Arc::from("the cache"));
            server
        };
        let mut lease = self.leased(server).ok()?;
        (!lease.is_gone().await).then_some(lease)
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
                    tracing::warn!("the origin takes no writes any more: the pool connects anew");
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

    /// A connection is no more, and nobody meant it to end.
    fn lost(&self, number: usize) {
        // What the origin has acknowledged it may have lost with it.
        self.cache.drop_all();
        let mut state = self.state.lock();
        state.is_gone(number);
        self.connect_if_wanted(&mut state);
    }
}

impl State {
    /// A connection is somebody's.
    fn has(&mut self, number: usize, label: &Arc<str>) {
        if let Some(holder) = self.holders.get_mut(number) {
            *holder = Some(Holder::new(label));
        }
    }

    /// A connection is nobody's any more.
    fn had(&mut self, number: usize, now: Instant) {
        if let Some(holder) = self.holders.get_mut(number).and_then(Option::take) {
            let held = now.saturating_duration_since(holder.since);
            self.counts.held.took(held);
        }
    }

    /// A connection is no more.
    fn is_gone(&mut self, number: usize) {
        self.total -= 1;
        self.had(number, Instant::now());
        if number < self.holders.len() {
            self.free_numbers.push(number);
        }
    }
}

enum Taken {
    Server(Box<Server>),
    Turn(oneshot::Receiver<Result<Handed, Failure>>),
}

fn close_all(servers: impl IntoIterator<Item = Box<Server>>) {
    for server in servers {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(server.close())),
            // Without a runtime the socket just closes, and the server sees its end.
            Err(_) => drop(server),
        }
    }
}

fn closed() -> PgError {
    PgError::fatal(sqlstate::ADMIN_SHUTDOWN, "the pool is closed")
}
