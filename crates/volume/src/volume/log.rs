//! The WAL of a volume: which files it is in, what a sync hands to the journal, and replay.

use std::sync::Weak;

use store::{Journal, JournalError, Position};

use super::{State, Volume};
use crate::error::{Result, VolumeError};
use crate::id::{DatabaseId, Version};
use crate::node::{Ino, Mtime, Node};
use crate::volumes::Volumes;
use crate::wal::{self, CHUNK_BYTES_HIGH, LogReader, WAL_DIRECTORY};

/// Mode of a segment that replay makes.
const SEGMENT_MODE: u32 = 0o600;

/// What must become durable before a reply that may reveal a commit leaves; see [`Volume::owed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// This entry of the journal, and all before it.
    pub entry: Option<Position>,
    /// A version that begins after now: a file other than the log was synced.
    pub version: bool,
}

/// Writes what the journal holds of a database anew at its end, so that the journal can shrink past it
/// though the database cannot be opened. No [`Volume`] of it may be open. Returns the bytes that moved.
///
/// # Errors
/// [`VolumeError::NoSpace`] if it is more than `bytes_max`, [`VolumeError::Journal`] if the journal cannot
/// be read or written. Nothing is lost: what is there twice is replayed twice, in its order, to the same
/// end.
pub fn carry_log(volumes: &Volumes, id: DatabaseId, bytes_max: u64) -> Result<u64> {
    let Some(journal) = volumes.journal() else {
        return Ok(0);
    };
    let entries = journal
        .entries(id.get())
        .map_err(VolumeError::from_journal)?;
    let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
    if bytes > bytes_max {
        return Err(VolumeError::NoSpace {
            limit: "journal.bytes_max",
            max: bytes_max,
        });
    }
    let mut moved = None;
    for entry in &entries {
        let position = append(journal, id, &entry.payload, true)?;
        moved = Some((moved.map_or(position, |(first, _)| first), position));
    }
    if let Some((first, last)) = moved {
        journal
            .wait_durable(last)
            .map_err(VolumeError::from_journal)?;
        journal.release(id.get(), first);
    }
    Ok(bytes)
}

/// Appends an entry; while the journal's buffer is full, waits for what all have written.
fn append(journal: &Journal, id: DatabaseId, entry: &[u8], urgent: bool) -> Result<Position> {
    loop {
        match journal.append(id.get(), entry, urgent) {
            Err(JournalError::BufferFull { .. }) => {
                let last = journal.next().get().saturating_sub(1);
                journal
                    .wait_durable(Position::from_number(last))
                    .map_err(VolumeError::from_journal)?;
            }
            appended => return appended.map_err(VolumeError::from_journal),
        }
    }
}

impl Volume {
    /// What `fsync` asks for. Of a file of the WAL: what was written goes to the journal. Of another
    /// file or directory: the next version. It does not wait; [`Volume::owed`] tells what for.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`]; [`VolumeError::NoSpace`] if the journal has no room left,
    /// [`VolumeError::Journal`] if it is broken.
    pub fn sync(&self, ino: Ino) -> Result<()> {
        let mut state = self.state.write();
        state.check_kept()?;
        let in_log = state.is_of_log(ino);
        if in_log && self.volumes.journal().is_some() {
            let urgent = !state.relaxed;
            let handed_over = self.hand_over(&mut state, urgent);
            return state.noted(handed_over);
        }
        if !in_log || self.volumes.journal().is_none() {
            state.tree.get(ino)?;
            state.syncs_asked += 1;
        }
        Ok(())
    }

    /// What must become durable before a reply may leave that reveals what was done until now. The
    /// log's entry is left out with durability `relaxed`.
    pub fn owed(&self) -> Owed {
        let state = self.state.read();
        let entry = (state.applied > 0 && !state.relaxed)
            .then(|| Position::from_number(state.applied))
            .filter(|entry| {
                let journal = self.volumes.journal();
                journal.is_some_and(|journal| !journal.is_durable(*entry))
            });
        Owed {
            entry,
            version: state.syncs_asked > state.syncs_met.max(state.syncs_waived),
        }
    }

    /// Nobody waits for what syncs have asked for so far but the log's: Postgres only tidied up, and what
    /// it would need after a crash is in the log. A version is still due.
    pub fn waive_version(&self) {
        let mut state = self.state.write();
        state.syncs_waived = state.syncs_asked;
    }

    /// Whether a sync of a file other than the log has asked for a version that is not durable yet.
    pub fn version_is_due(&self) -> bool {
        let state = self.state.read();
        state.syncs_asked > state.syncs_met
    }

    /// The journal that its WAL goes to, if it has one.
    pub fn journal(&self) -> Option<&store::Journal> {
        self.volumes.journal()
    }

    /// The last entry that this volume gave to the journal, to wait for whatever its durability.
    pub fn last_entry(&self) -> Option<Position> {
        let applied = self.state.read().applied;
        (applied > 0).then(|| Position::from_number(applied))
    }

    /// Durability `relaxed`: replies do not wait, the journal is synced within its interval.
    pub fn set_relaxed(&self, relaxed: bool) {
        self.state.write().relaxed = relaxed;
    }

    /// LSN past the last byte of WAL that was written, 0 if none was since the volume was made.
    pub fn wal_end(&self) -> u64 {
        self.state.read().wal.end()
    }

    /// From now on `reader` is told of what is written into the log, for as long as it lives, and no other.
    pub fn read_log(&self, reader: Weak<dyn LogReader>) {
        self.state.write().wal.set_reader(reader);
    }

    /// Whether it is exactly the durable version `version`: nothing written or replayed since.
    pub fn is_exactly(&self, version: Version) -> bool {
        let state = self.state.read();
        version > Version::default() && state.version == version && !state.is_dirty()
    }

    /// Gives what was written to the log to the journal.
    fn hand_over(&self, state: &mut State, urgent: bool) -> Result<()> {
        let Some(journal) = self.volumes.journal() else {
            return Ok(());
        };
        if state.wal.entry().is_empty() {
            if urgent && state.applied > 0 {
                journal.request(Position::from_number(state.applied));
            }
            return Ok(());
        }
        let position = append(journal, self.id, state.wal.entry(), urgent)?;
        state.applied = position.get();
        state.wal.handed_over();
        Ok(())
    }

    /// After a write to the log: chunks do not gather without bound.
    pub(super) fn log_written(&self, state: &mut State) -> Result<()> {
        if state.wal.entry().len() >= CHUNK_BYTES_HIGH {
            self.hand_over(state, false)?;
        }
        Ok(())
    }

    /// Puts the WAL over the version that was opened: all entries of the journal after `applied`.
    pub(super) fn replay(&mut self, applied: u64) -> Result<()> {
        let Some(journal) = self.volumes.journal().cloned() else {
            return Ok(());
        };
        let entries = journal
            .entries(self.id.get())
            .map_err(VolumeError::from_journal)?;
        let state = self.state.get_mut();
        state.applied = applied;
        for entry in entries {
            let position = entry.position.get();
            if position <= applied {
                continue;
            }
            let (segment_bytes, chunks) = wal::decode(&entry.payload).ok_or_else(|| {
                let reason = format!("entry {position} of the journal is not WAL");
                VolumeError::corrupt(self.volumes.directory(), reason)
            })?;
            for chunk in chunks {
                state.replay_chunk(&chunk, u64::from(segment_bytes))?;
            }
            state.applied = position;
        }
        // The journal has it.
        state.wal.handed_over();
        Ok(())
    }
}

impl State {
    /// Whether what a sync of this node is for is all in the log's entries: of segments, of their directory,
    /// and of files that are filled with zeros before they become segments. Replay makes segments anew.
    fn is_of_log(&self, ino: Ino) -> bool {
        if self.wal.contains(ino) || self.wal.is_directory(ino) {
            return true;
        }
        let entries = self
            .wal
            .directory()
            .and_then(|log| self.tree.list(log).ok());
        let mut entries = entries.into_iter().flatten();
        entries.any(|entry| entry.ino == ino && entry.name.starts_with(wal::NEW_SEGMENT_PREFIX))
    }

    /// Looks up the log's directory and the segments in it.
    pub(super) fn find_wal(&mut self) {
        let Ok(directory) = self.tree.lookup(Ino::ROOT, WAL_DIRECTORY) else {
            return;
        };
        let Ok(entries) = self.tree.list(directory) else {
            return;
        };
        self.wal.set_directory(directory);
        for entry in entries {
            self.wal.named(&entry.name, entry.ino);
        }
    }

    /// `name` in `directory` leads to `ino` now.
    pub(super) fn named(&mut self, directory: Ino, name: &str, ino: Ino) {
        if directory == Ino::ROOT {
            self.wal.named_in_root();
        }
        if self.wal.is_directory(directory) {
            self.wal.named(name, ino);
        } else if directory == Ino::ROOT && name == WAL_DIRECTORY {
            self.find_wal();
            self.count_room();
        }
        self.entered(directory, ino);
    }

    fn replay_chunk(&mut self, chunk: &wal::Chunk<'_>, segment_bytes: u64) -> Result<()> {
        let directory = match self.tree.lookup(Ino::ROOT, WAL_DIRECTORY) {
            Ok(directory) => directory,
            Err(VolumeError::NotFound) => {
                let node = Node::directory(0o700, Mtime::default());
                self.create(Ino::ROOT, WAL_DIRECTORY, node)?
            }
            Err(error) => return Err(error),
        };
        let name = chunk.segment.name();
        let ino = match self.tree.lookup(directory, &name) {
            Ok(ino) => ino,
            Err(VolumeError::NotFound) => {
                let node = Node::file(SEGMENT_MODE, Mtime::default());
                self.create(directory, &name, node)?
            }
            Err(error) => return Err(error),
        };
        let len = self.tree.get(ino)?.contents()?.len();
        if len < segment_bytes {
            self.set_len(ino, segment_bytes, Mtime::default())?;
        }
        let mut done = 0;
        while done < chunk.bytes.len() {
            let at = u64::from(chunk.offset) + done as u64;
            done += self.write(ino, at, &chunk.bytes[done..], Mtime::default())?;
        }
        Ok(())
    }
}
