//! The journal: one log for all databases of a node, so that one sync serves everybody.
//!
//! Entries are bytes with an owner. [`Journal::append`] only remembers them; the writer takes what has
//! gathered, writes it as one group and syncs once. `JOURNAL.md` draws the bytes and says what a crash
//! may do to them.
//!
//! Invariants
//! 1. Of two entries the one with the lower position is durable first.
//! 2. What [`Journal::is_durable`] says of a position stays so, through crash and reopening, until the
//!    entry is released.
//! 3. A position is given once: also what a crash lost keeps its own.
//! 4. A segment is recycled only after a durable group says that it is not needed.
//! 5. Damage of anything durable is an error, unless it is the last group's and no mark follows.

mod error;
mod format;
mod index;
mod recovery;
mod scan;
mod segments;
mod shared;
mod state;
mod thread;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;

pub use error::JournalError;
pub use format::Entry;
pub use thread::JournalWriter;

use format::{
    BLOCK_BYTES, ENTRY_HEADER_BYTES, entry_bytes, entry_header, entry_parts, group_bytes,
};
use index::Place;
use recovery::{Recovered, recover};
use segments::{Segment, Segments};
use shared::Shared;
use state::State;
use writer::{Found, Writer};

/// Longest payload of an entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 256 << 20;

/// Shortest and longest segment, in bytes.
const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A reopened journal leaves out so many positions: more than can have been given and then lost, since
/// that many entries do not fit in any memory.
const POSITIONS_LEFT_OUT: u64 = 1 << 32;

/// How a journal behaves.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Length of a segment in bytes, `journal.segment_bytes`: 16 KiB to 1 GiB, rounded up to
    /// 4 KiB.
    /// Longer: fewer files. Shorter: disk space comes back sooner.
    pub segment_bytes: u64,
    /// So many entries that nobody waits for are synced without waiting for the interval.
    pub unsynced_entries_max: u64,
    /// How long an entry that nobody waits for may wait for its sync.
    pub sync_interval: Duration,
    /// Bytes of entries that may wait to be written, `journal.buffer_bytes`. An entry is always taken
    /// when nothing waits.
    pub buffer_bytes_max: usize,
    /// Segments kept allocated beside those in use, so that a full disk is known before it stops us.
    pub reserve_segments: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            unsynced_entries_max: 1000,
            sync_interval: Duration::from_secs(1),
            buffer_bytes_max: 64 << 20,
            reserve_segments: 1,
        }
    }
}

/// Number of an entry: from 1, ascending; dense from one opening to the next. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The position with this number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's journal. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal in `directory`, or makes one with this `id`, which is to be random and known
    /// to nobody outside; an existing journal keeps its own. `generation` is not less than at any
    /// opening before. One process at a time: the caller holds the data directory's lock.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`], `MissingSegment`, `WrongJournal`, `WrongVersion`: what is there is not
    /// what was written; nothing was changed. `Fenced`: someone has a greater generation. `Broken`,
    /// `Io`: the disk failed; opening again may help. A full disk is no error: see [`Self::is_full`].
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        id: u64,
        generation: u64,
        options: JournalOptions,
    ) -> Result<Self, JournalError> {
        make_directory(&*disk, directory)?;
        let Recovered {
            id: found,
            index,
            last,
            link,
            position,
            next_number,
            idle_segments,
            ends,
            spares,
        } = recover(&*disk, directory, generation)?;
        let next = match found {
            None => position,
            Some(_) => position.saturating_add(POSITIONS_LEFT_OUT),
        };
        let id = found.unwrap_or(id);
        let segment_bytes = options
            .segment_bytes
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let segment_bytes = segment_bytes.next_multiple_of(BLOCK_BYTES);
        let mut segments = Segments::new(
            disk,
            directory,
            (id, generation, next),
            (segment_bytes, options.reserve_segments),
            next_number,
        );
        for path in spares {
            segments.adopt(path);
        }
        let state = State::new(index, last, next, generation);
        let writer = Writer::new(
            segments,
            link,
            generation,
            Found {
                idle_segments,
                ends,
            },
        );
        let journal = Self {
            shared: Arc::new(Shared::new(
                id,
                directory.to_owned(),
                options,
                state,
                writer,
            )),
        };
        // The last group once more, or a mark: from here on everything that was found is durable.
        match journal.shared.step(false, true) {
            Ok(_) | Err(JournalError::Full { .. }) => Ok(journal),
            Err(error) => Err(error),
        }
    }

    /// The journal's id.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The position that the next entry will get. To compare with in this process; what is to be kept
    /// beyond it is a position that [`Self::append`] gave.
    pub fn next(&self) -> Position {
        Position(self.shared.state.lock().pending.end())
    }

    /// Appends an entry in memory, without I/O and without waiting. `urgent`: it is synced as soon as
    /// possible (durability `local`); else within the sync interval (`relaxed`).
    ///
    /// # Errors
    /// [`JournalError::EntryTooLarge`]. `BufferFull`: wait for an earlier position, then try again.
    /// `Full`: the disk is. `Broken`, `Closed`: for good. Nothing was appended.
    pub fn append(
        &self,
        owner: u64,
        payload: &[u8],
        urgent: bool,
    ) -> Result<Position, JournalError> {
        let shared = &*self.shared;
        if payload.len() > ENTRY_BYTES_MAX {
            return Err(JournalError::EntryTooLarge {
                bytes: payload.len(),
                limit: ENTRY_BYTES_MAX,
            });
        }
        let header = entry_header(owner, payload);
        let mut state = shared.state.lock();
        state.alive()?;
        let waiting = state.unwritten_bytes();
        let bytes = waiting + entry_bytes(payload.len());
        // What is being written and what waits are two groups.
        let edge = if state.writing.is_some() {
            BLOCK_BYTES
        } else {
            0
        };
        if let Some(shortage) = &state.shortage
            && group_bytes(bytes) + edge > shortage.room
        {
            let cause = Arc::clone(&shortage.cause);
            return Err(shared.full(cause, state.index.bytes()));
        }
        let limit = shared.options.buffer_bytes_max;
        if waiting > 0 && bytes > limit {
            return Err(JournalError::BufferFull {
                bytes: waiting,
                limit,
            });
        }
        let position = state.push(&header, payload);
        let is_first = state.pending.count == 1;
        let is_due = state.pending.count == shared.options.unsynced_entries_max
            || state.pending.bytes.len() >= thread::WRITTEN_AT_BYTES;
        if is_first || is_due || (urgent && !state.is_urgent) {
            shared.work.notify_one();
        }
        state.is_urgent |= urgent;
        Ok(Position(position))
    }

    /// Asks that everything up to `position` be synced as soon as possible.
    pub fn request(&self, position: Position) {
        self.shared.request(position.0);
    }

    /// Whether everything up to `position` is durable.
    pub fn is_durable(&self, position: Position) -> bool {
        self.shared.is_durable(position.0)
    }

    /// Asks for `position` and waits until everything up to it is durable. May be dropped at any time.
    ///
    /// # Errors
    /// [`JournalError::Broken`], `Closed`: it may be durable or not, and the journal will not tell.
    pub async fn durable(&self, position: Position) -> Result<(), JournalError> {
        self.shared.durable(position.0).await
    }

    /// [`Self::durable`] for a thread, which it blocks.
    ///
    /// # Errors
    /// Those of [`Self::durable`].
    pub fn wait_durable(&self, position: Position) -> Result<(), JournalError> {
        self.shared.wait_durable(position.0)
    }

    /// The owner's entries that are not released, oldest first, the not yet durable ones included. Not
    /// to be called while the same owner releases.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`]: an entry is not what was written. `Io`: it cannot be read.
    pub fn entries(&self, owner: u64) -> Result<Vec<Entry>, JournalError> {
        let (written, unwritten) = self.shared.state.lock().entries(owner);
        let mut entries = Vec::with_capacity(written.len() + unwritten.len());
        for entry in written {
            entries.push(Entry {
                position: Position(entry.place.position),
                generation: entry.generation,
                payload: read_entry(&entry.segment, entry.place, owner)?,
            });
        }
        entries.extend(unwritten);
        Ok(entries)
    }

    /// Who has entries that are not released, ascending.
    pub fn owners(&self) -> Vec<u64> {
        self.shared.state.lock().owners()
    }

    /// `owner` needs none of its entries before `before` any more: they are in something durable.
    /// Segments that nobody needs are recycled at one of the writer's next steps. That is all that is
    /// recorded: of a segment that somebody needs, released entries are there again after reopening,
    /// and their owner, who knows what it has, releases them again.
    pub fn release(&self, owner: u64, before: Position) {
        let mut state = self.shared.state.lock();
        state.release(owner, before.0);
        if state.is_released {
            self.shared.work.notify_one();
        }
    }

    /// `owner` needs none of its entries any more: it is dropped.
    pub fn forget(&self, owner: u64) {
        self.release(owner, self.next());
    }

    /// Bytes of disk that the segments in use take; spares are not counted.
    pub fn bytes(&self) -> u64 {
        self.shared.state.lock().index.bytes()
    }

    /// Who must release for the journal to become shorter: the owner of the oldest entry, unless that
    /// is in the segment that is being written.
    pub fn oldest_owner(&self) -> Option<u64> {
        self.shared.state.lock().index.oldest_owner()
    }

    /// Whether the disk is full, or nearly: a spare segment could not be had. Appending goes on while
    /// there is room in the allocated ones.
    pub fn is_full(&self) -> bool {
        self.shared.state.lock().shortage.is_some()
    }

    /// One step of the writer: writes and syncs one group of what has been appended, and records and
    /// recycles what has been released. False if nothing was to be done. For who does not [`Self::start`].
    ///
    /// # Errors
    /// [`JournalError::Full`]: nothing is lost, call again. `Broken`, `Closed`: for good.
    pub fn write_group(&self) -> Result<bool, JournalError> {
        self.shared.step(false, true)
    }

    /// Writes a mark behind the last group, if that has entries: from then on its damage cannot pass
    /// for a torn write. The writer thread does so when it goes idle.
    ///
    /// # Errors
    /// Those of [`Self::write_group`].
    pub fn write_mark(&self) -> Result<bool, JournalError> {
        self.shared.step(true, true)
    }

    /// Starts the writer thread. Once: dropping what is returned closes the journal.
    ///
    /// # Errors
    /// [`JournalError::Io`]: the system gives no thread.
    pub fn start(&self) -> Result<JournalWriter, JournalError> {
        JournalWriter::start(Arc::clone(&self.shared))
    }
}

fn make_directory(disk: &dyn Disk, directory: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::io("make", directory, source);
    if !disk.exists(directory).map_err(failed)? {
        disk.create_directory(directory).map_err(failed)?;
    }
    // Also if it was there: the process that made it may not have come so far.
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            let failed = |source| JournalError::io("sync", parent, source);
            disk.sync_directory(parent).map_err(failed)
        }
        _ => Ok(()),
    }
}

fn read_entry(segment: &Segment, place: Place, owner: u64) -> Result<Vec<u8>, JournalError> {
    let offset = place.offset();
    let failed = |source| JournalError::io("read", &segment.path, source);
    let damaged = |reason| JournalError::corrupt(&segment.path, offset, reason);
    let mut header = [0; ENTRY_HEADER_BYTES];
    segment
        .file
        .read_exact_at(&mut header, offset)
        .map_err(failed)?;
    let (found, payload_bytes) = entry_parts(&header);
    let past = offset + entry_bytes(payload_bytes) as u64 > segment.header.bytes;
    if found != owner || payload_bytes > ENTRY_BYTES_MAX || past {
        return Err(damaged("an entry's header is damaged"));
    }
    let mut payload = vec![0; payload_bytes];
    let start = offset + ENTRY_HEADER_BYTES as u64;
    segment
        .file
        .read_exact_at(&mut payload, start)
        .map_err(failed)?;
    if entry_header(owner, &payload) != header {
        return Err(damaged("an entry does not match its checksum"));
    }
    Ok(payload)
}
