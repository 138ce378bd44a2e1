//! What is counted, for whoever watches the node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::errors::Errors;
use crate::figures::{Durations, Histogram};
use crate::machine;
use crate::node::Node;

/// One thing that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times that something was done, and how long that took in all.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    count: Counter,
    micros: Counter,
}

impl Timer {
    pub(crate) fn took(&self, elapsed: Duration) {
        self.count.one();
        self.micros.add(elapsed.as_micros() as u64);
    }

    fn get(&self) -> Timed {
        Timed {
            count: self.count.get(),
            time: Duration::from_micros(self.micros.get()),
        }
    }
}

/// Counted since the data directory was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) wakes_forked: Timer,
    pub(crate) wakes_resumed: Timer,
    pub(crate) wakes_booted: Timer,
    pub(crate) hibernations: Timer,
    pub(crate) hibernations_early: Counter,
    pub(crate) versions: Timer,
    pub(crate) checkpoints: Timer,
    pub(crate) vacuums: Timer,
    pub(crate) freezes: Timer,
    pub(crate) preemptions: Counter,
    pub(crate) compactions: Timer,
    pub(crate) wal_flushes: Counter,
    /// From the template, an image, by booting.
    pub(crate) wake_durations: [Histogram; 3],
    pub(crate) wake_waits: Histogram,
    /// Waits for the disk before an answer left.
    pub(crate) gate_waits: Histogram,
    pub(crate) errors: Errors,
}

/// Times that something was done, and how long that took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timed {
    /// How often.
    pub count: u64,
    /// For how long, all together.
    pub time: Duration,
}

/// What has been counted since the data directory was opened, and what is so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Databases in the directory.
    pub databases: u64,
    /// Databases that are not asleep.
    pub awake: u64,
    /// Private bytes of the process.
    pub private_bytes: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Wakes from the template's image.
    pub wakes_forked: Timed,
    /// Wakes from a hibernation image.
    pub wakes_resumed: Timed,
    /// Wakes by booting.
    pub wakes_booted: Timed,
    /// Databases that fell asleep.
    pub hibernations: Timed,
    /// Of these, before their idle time was over, because others needed the room.
    pub hibernations_early: u64,
    /// Versions that the host wrote.
    pub versions: Timed,
    /// Checkpoints that the host made.
    pub checkpoints: Timed,
    /// Tables that the host vacuumed and analyzed.
    pub vacuums: Timed,
    /// Databases that the host froze.
    pub freezes: Timed,
    /// Maintenance that gave way to a session.
    pub preemptions: u64,
    /// Steps of compaction that did something.
    pub compactions: Timed,
    /// Writes of WAL that its commits did not wait for, in silent sessions.
    pub wal_flushes: u64,
    /// Sessions that there are now.
    pub sessions: u64,
    /// Sessions that there were.
    pub sessions_begun: u64,
    /// How long wakes took: from the template's image, from a hibernation image, by booting.
    pub wake_durations: [Durations; 3],
    /// How long databases waited for their turn to wake.
    pub wake_waits: Durations,
    /// How long answers waited for the disk.
    pub gate_waits: Durations,
}

impl Metrics {
    pub(crate) fn of(node: &Node) -> Self {
        let counters = &node.counters;
        Self {
            databases: node.directory.count().unwrap_or_default(),
            awake: node.live.awake(),
            private_bytes: machine::private_bytes().unwrap_or_default(),
            journal_bytes: node.volumes.journal().map_or(0, |journal| journal.bytes()),
            wakes_forked: counters.wakes_forked.get(),
            wakes_resumed: counters.wakes_resumed.get(),
            wakes_booted: counters.wakes_booted.get(),
            hibernations: counters.hibernations.get(),
            hibernations_early: counters.hibernations_early.get(),
            versions: counters.versions.get(),
            checkpoints: counters.checkpoints.get(),
            vacuums: counters.vacuums.get(),
            freezes: counters.freezes.get(),
            preemptions: counters.preemptions.get(),
            compactions: counters.compactions.get(),
            wal_flushes: counters.wal_flushes.get(),
            sessions: node.live.sessions(),
            sessions_begun: node.sessions.load(Ordering::Relaxed),
            wake_durations: counters.wake_durations.each_ref().map(Histogram::get),
            wake_waits: counters.wake_waits.get(),
            gate_waits: counters.gate_waits.get(),
        }
    }
}
