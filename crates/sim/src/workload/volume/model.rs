//! What one database may show after it is opened again: a version, and over it a prefix of the log
//! that was synced since.

use super::tree::{LogEnd, LogWrite, Tree};
use crate::workload::Broken;

/// One durable state, or one that may be.
#[derive(Debug, Clone)]
struct Version {
    /// 0 is what it was made from.
    number: u64,
    tree: Tree,
    /// The last entry of the journal that is in it; 0 for none.
    applied: u64,
    /// That of the process that wrote it; 0 for none.
    generation: u64,
}

/// What one sync of the log gave to the journal.
#[derive(Debug, Clone)]
struct Entry {
    position: u64,
    writes: Vec<LogWrite>,
    log_end: LogEnd,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    /// What the open volume shows.
    pub(super) now: Tree,
    /// The last acknowledged version.
    kept: Version,
    /// A later one, whose flush did not come to its end.
    maybe: Option<Version>,
    /// Entries that are not in `kept`, ascending.
    log: Vec<Entry>,
    /// Writes to the log that were not handed to the journal.
    unsynced: Vec<LogWrite>,
    /// What was acknowledged: this entry and all before.
    acknowledged: u64,
    /// The entry that the next opening finds at least.
    at_least: u64,
}

impl Model {
    /// A database that starts as `tree`.
    pub(super) fn new(tree: Tree) -> Self {
        Self {
            kept: Version {
                number: 0,
                tree: tree.clone(),
                applied: 0,
                generation: 0,
            },
            now: tree,
            maybe: None,
            log: Vec::new(),
            unsynced: Vec::new(),
            acknowledged: 0,
            at_least: 0,
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.kept.number
    }

    /// Of the process that wrote the version; 0 if none was written.
    pub(super) fn generation(&self) -> u64 {
        self.kept.generation
    }

    /// Bytes were written to the log.
    pub(super) fn wrote_log(&mut self, write: LogWrite) {
        self.unsynced.push(write);
    }

    /// The last entry that the volume names now is `position`: if it is a new one, all that was written
    /// to the log is in it.
    pub(super) fn last_entry_is(&mut self, position: u64) {
        let last = self.log.last().map_or(0, |entry| entry.position);
        if position > last.max(self.kept.applied) {
            self.log.push(Entry {
                position,
                writes: std::mem::take(&mut self.unsynced),
                log_end: self.now.log_end,
            });
        }
    }

    /// Entries that were handed over and not acknowledged, ascending.
    pub(super) fn unacknowledged(&self) -> impl DoubleEndedIterator<Item = u64> {
        let positions = self.log.iter().map(|entry| entry.position);
        positions.filter(|position| *position > self.acknowledged)
    }

    pub(super) fn acknowledge(&mut self, position: u64) {
        self.acknowledged = self.acknowledged.max(position);
    }

    /// What is shown now is the durable version `number`.
    pub(super) fn flushed(&mut self, number: u64, applied: u64, generation: u64) {
        self.kept = Version {
            number,
            tree: self.now.clone(),
            applied,
            generation,
        };
        self.maybe = None;
        self.log.retain(|entry| entry.position > applied);
    }

    /// What is shown now may be a durable version, and the last one may be it still.
    pub(super) fn may_be_flushed(&mut self, applied: u64, generation: u64) {
        self.maybe = Some(Version {
            number: 0,
            tree: self.now.clone(),
            applied,
            generation,
        });
    }

    /// The volume was dropped; the process, and with it the journal, goes on.
    pub(super) fn dropped(&mut self) {
        self.unsynced.clear();
        self.at_least = self.log.last().map_or(0, |entry| entry.position);
    }

    /// The process has ended.
    pub(super) fn ended(&mut self) {
        self.unsynced.clear();
        self.at_least = self.acknowledged;
    }

    /// It was opened, and is this version, and over it the log to this entry (0 for none).
    ///
    /// # Errors
    /// If that is not one of the states that are possible.
    pub(super) fn opened(&mut self, number: u64, last: u64) -> Result<(), Broken> {
        let kept = self.kept.number;
        let version = match self.maybe.take() {
            _ if number == kept => self.kept.clone(),
            Some(maybe) if number > kept => Version { number, ..maybe },
            maybe => {
                let or = maybe.map_or("", |_| ", or the one that was being flushed");
                return Err(Broken(format!(
                    "version {number} was opened, {kept} is the last one{or}"
                )));
            }
        };
        let positions = || self.log.iter().map(|entry| entry.position);
        let least = positions().filter(|position| *position <= self.at_least);
        let least = least.max().unwrap_or(0);
        let is_known = last == version.applied || positions().any(|position| position == last);
        if !is_known || last < version.applied || (last < least && version.applied < least) {
            let known: Vec<u64> = positions().collect();
            return Err(Broken(format!(
                "version {number}, which has the log to entry {}, was opened with the log to {last}; \
                 known are {known:?}, and to {least} they must be there",
                version.applied
            )));
        }
        self.log
            .retain(|entry| entry.position > version.applied && entry.position <= last);
        self.now = version.tree.clone();
        for entry in &self.log {
            entry.writes.iter().for_each(|write| self.now.replay(write));
            self.now.log_end = entry.log_end;
        }
        self.kept = version;
        Ok(())
    }
}
