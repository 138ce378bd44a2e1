//! Which connections there are, and who has them.

use std::sync::Arc;

use tokio::time::Instant;

use super::Counts;
use super::lease::Handed;
use super::queue::Queue;
use crate::facts::Pin;
use crate::failure::Failure;
use crate::origin::Origin;
use crate::server::Server;

/// The account of a pool.
#[derive(Debug)]
pub(super) struct State {
    pub(super) origin: Arc<Origin>,
    /// Which version of the origin it is; servers of another go when they are free.
    pub(super) epoch: u64,
    /// How often a server has refused to write.
    pub(super) doubts: u64,
    /// The last that was used comes first.
    pub(super) idle: Vec<(Instant, Box<Server>)>,
    /// Connections that there are at the origin, those included that are being made or closed.
    pub(super) total: usize,
    pub(super) connecting: usize,
    pub(super) closing: usize,
    pub(super) pinned: usize,
    pub(super) queue: Queue<Handed>,
    pub(super) failed: Option<(Instant, Failure)>,
    /// Who has which connection, by the connection's number; free numbers have nobody.
    pub(super) holders: Vec<Option<Holder>>,
    pub(super) free_numbers: Vec<usize>,
    pub(super) next_client: u64,
    pub(super) counts: Counts,
    pub(super) is_closed: bool,
    /// Somebody tries again soon, after a failure.
    pub(super) is_retried: bool,
    /// Somebody closes what is idle for long.
    pub(super) is_reaped: bool,
}

impl State {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin: Arc::new(origin),
            epoch: 0,
            doubts: 0,
            idle: Vec::new(),
            total: 0,
            connecting: 0,
            closing: 0,
            pinned: 0,
            queue: Queue::new(),
            failed: None,
            holders: Vec::new(),
            free_numbers: Vec::new(),
            next_client: 1,
            counts: Counts::default(),
            is_closed: false,
            is_retried: false,
            is_reaped: false,
        }
    }

    /// A connection is somebody's.
    pub(super) fn has(&mut self, number: usize, label: &Arc<str>) {
        if let Some(holder) = self.holders.get_mut(number) {
            *holder = Some(Holder::new(label));
        }
    }

    /// A connection is nobody's any more.
    pub(super) fn had(&mut self, number: usize, now: Instant) {
        if let Some(holder) = self.holders.get_mut(number).and_then(Option::take) {
            let held = now.saturating_duration_since(holder.since);
            self.counts.held.took(held);
        }
    }

    /// Whether waiting is not in vain where none can be made: some are with others, who do not keep them for their sessions.
    pub(super) fn may_come_free(&self) -> bool {
        self.total - self.connecting - self.closing > self.pinned
    }

    /// A connection is nobody's any more, and about to be closed.
    pub(super) fn closes(&mut self, number: usize) {
        self.closing += 1;
        self.had(number, Instant::now());
        if number < self.holders.len() {
            self.free_numbers.push(number);
        }
    }

    /// One of those that were to be closed is.
    pub(super) fn has_closed(&mut self) {
        self.closing -= 1;
        self.total -= 1;
    }
}

/// Who has a connection.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) since: Instant,
    pub(super) label: Arc<str>,
    /// By what its session keeps it.
    pub(super) pin: Option<Pin>,
}

impl Holder {
    fn new(label: &Arc<str>) -> Self {
        Self {
            since: Instant::now(),
            label: Arc::clone(label),
            pin: None,
        }
    }
}
