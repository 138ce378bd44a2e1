//! What the handles of one journal and its writer share, and the one step that writes.
//!
//! Locks: `writer` for the length of a step, `state` inside it and never across I/O. Appending takes
//! only `state`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::error::{Ended, Trouble};
use super::format::group_bytes;
use super::state::{Batch, Cursor, Shortage, State};
use super::writer::Writer;
use super::{JournalError, JournalOptions};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) directory: PathBuf,
    pub(super) options: JournalOptions,
    pub(super) state: Mutex<State>,
    /// The writer thread waits here, with `state`.
    pub(super) work: Condvar,
    pub(super) writer: Mutex<Writer>,
    /// Everything up to this position is durable.
    durable: AtomicU64,
    /// Threads that wait for `durable` or the end wait here.
    settling: Mutex<()>,
    settled: Condvar,
    /// The same for tasks: a change of `durable`, or the end.
    progress: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(
        id: u64,
        directory: PathBuf,
        options: JournalOptions,
        state: State,
        writer: Writer,
    ) -> Self {
        let durable = AtomicU64::new(state.written() - 1);
        Self {
            id,
            directory,
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            writer: Mutex::new(writer),
            durable,
            settling: Mutex::new(()),
            settled: Condvar::new(),
            progress: watch::Sender::new(()),
        }
    }

    pub(super) fn is_durable(&self, position: u64) -> bool {
        position <= self.durable.load(Ordering::Acquire)
    }

    pub(super) fn full(&self, cause: Arc<io::Error>, bytes: u64) -> JournalError {
        JournalError::Full {
            directory: self.directory.clone(),
            cause,
            bytes,
        }
    }

    /// Writes one group: what is appended, or a mark if something is to be recorded or `marks` and the
    /// last group is none. Then recycles what nobody needs. False if nothing was to be written.
    ///
    /// `tries`: if spares are known to be missing, whether to try again to get some; while a disk is
    /// full that takes, for a moment, what others could use.
    pub(super) fn step(&self, marks: bool, tries: bool) -> Result<bool, JournalError> {
        let mut writer = self.writer.lock();
        let (batch, cursor, mark) = {
            let mut state = self.state.lock();
            state.alive()?;
            state.take_pending();
            state.is_released = false;
            let oldest = state
                .index
                .oldest_needed()
                .or_else(|| writer.current_number());
            let is_due = writer.is_new()
                || oldest.is_some_and(|oldest| oldest > writer.recorded_oldest())
                || (marks && state.is_unmarked && writer.room() > 0 && state.shortage.is_none());
            // A mark for which there is no room is given up: it is only for a better diagnosis.
            state.is_unmarked &= !marks;
            (state.writing.clone(), state.cursor, is_due)
        };
        let is_wanted = batch.is_some() || mark;
        let written = match batch {
            Some(batch) => self.write_entries(&mut writer, batch, cursor),
            None if mark => self.write_mark(&mut writer),
            None => Ok(()),
        };
        match written {
            Ok(()) => {
                self.tidy(&mut writer, tries);
                Ok(is_wanted)
            }
            Err(Trouble::Full(cause)) => {
                let mut state = self.state.lock();
                let shortage = Shortage {
                    room: 0,
                    cause: Arc::clone(&cause),
                };
                state.shortage = Some(shortage);
                let bytes = state.index.bytes();
                Err(self.full(cause, bytes))
            }
            Err(Trouble::Broken(failure)) => {
                let ended = Ended::Broken(failure);
                self.end(ended.clone());
                Err(ended.into())
            }
        }
    }

    fn write_entries(
        &self,
        writer: &mut Writer,
        batch: Arc<Batch>,
        cursor: Cursor,
    ) -> Result<(), Trouble> {
        let (cut, needs_segment) = writer.choose(&batch, cursor);
        let entries = &batch.bytes[cursor.bytes..cut.bytes];
        if needs_segment {
            self.begin_segment(writer, group_bytes(entries.len()))?;
        }
        let oldest = self.state.lock().index.oldest_needed();
        let first = (batch.first + cursor.entries, batch.generation);
        let count = cut.entries - cursor.entries;
        let written = writer.write(first, count, entries, oldest)?;
        let durable = {
            let mut state = self.state.lock();
            state.settle(batch, cut, written.segment, written.offset);
            state.is_unmarked = true;
            // Before anyone who is told now can append again.
            if let Some(shortage) = &mut state.shortage {
                shortage.room = writer.room_in_all();
            }
            state.written() - 1
        };
        self.durable.store(durable, Ordering::Release);
        self.wake();
        Ok(())
    }

    fn write_mark(&self, writer: &mut Writer) -> Result<(), Trouble> {
        // A mark may use the block that a segment keeps for it.
        if !writer.has_room_for_mark() {
            self.begin_segment(writer, group_bytes(0))?;
        }
        let (oldest, position) = {
            let state = self.state.lock();
            (state.index.oldest_needed(), state.written())
        };
        writer.write((position, writer.generation()), 0, &[], oldest)?;
        self.state.lock().is_unmarked = false;
        Ok(())
    }

    fn begin_segment(&self, writer: &mut Writer, group_bytes: u64) -> Result<(), Trouble> {
        let segment = writer.begin_segment(group_bytes)?;
        let bytes = segment.header.bytes;
        self.state.lock().index.push_segment(segment, bytes);
        Ok(())
    }

    /// Recycles segments that the last group says are not needed, and sees to the spares.
    fn tidy(&self, writer: &mut Writer, tries: bool) {
        writer.tidy_found();
        let oldest = writer.recorded_oldest();
        let idle = self.state.lock().index.take_before(oldest);
        for segment in idle {
            writer.segments.recycle(segment);
        }
        let known = self.state.lock().shortage.clone();
        let cause = match known {
            Some(known) if !tries && !writer.segments.has_spares() => Some(known.cause),
            _ => writer.segments.make_spares().err().map(Arc::new),
        };
        self.state.lock().shortage = cause.map(|cause| Shortage {
            room: writer.room_in_all(),
            cause,
        });
    }

    /// Ends the journal: nothing is taken any more, and whoever waits is told.
    pub(super) fn end(&self, ended: Ended) {
        self.state.lock().ended.get_or_insert(ended);
        self.wake();
    }

    fn wake(&self) {
        // Taken for a moment, so that nobody is between looking and waiting.
        drop(self.settling.lock());
        self.settled.notify_all();
        self.progress.send_replace(());
    }

    /// Sees to it that the writer does not let entries up to `position` wait.
    pub(super) fn request(&self, position: u64) {
        if self.is_durable(position) {
            return;
        }
        let mut state = self.state.lock();
        if position >= state.pending.first && state.pending.count > 0 && !state.is_urgent {
            state.is_urgent = true;
            self.work.notify_one();
        }
    }

    pub(super) async fn durable(&self, position: u64) -> Result<(), JournalError> {
        let mut progress = self.progress.subscribe();
        self.request(position);
        loop {
            if self.is_durable(position) {
                return Ok(());
            }
            self.state.lock().alive()?;
            if progress.changed().await.is_err() {
                return Err(JournalError::Closed);
            }
        }
    }

    pub(super) fn wait_durable(&self, position: u64) -> Result<(), JournalError> {
        self.request(position);
        let mut settling = self.settling.lock();
        loop {
            if self.is_durable(position) {
                return Ok(());
            }
            self.state.lock().alive()?;
            self.settled.wait(&mut settling);
        }
    }
}
