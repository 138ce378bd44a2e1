//! What has been appended: entries that wait, entries that are being written, the index of the others.

use std::io;
use std::sync::Arc;

use super::error::Ended;
use super::format::{ENTRY_HEADER_BYTES, encoded_entries, entry_bytes};
use super::index::{Index, Place, WrittenEntry};
use super::{Entry, JournalError, Position};

/// A buffer that has grown past this is not kept for the next batch, in bytes.
const BATCH_BYTES_KEPT: usize = 8 << 20;

/// Encoded entries of dense positions.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Position of the first one.
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) generation: u64,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    /// The position after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    fn push(&mut self, header: &[u8; ENTRY_HEADER_BYTES], payload: &[u8]) {
        let end = self.bytes.len() + entry_bytes(payload.len());
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end, 0);
        self.count += 1;
    }
}

/// How much of the batch that is being written is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) entries: u64,
    pub(super) bytes: usize,
}

/// That the spares could not be had.
#[derive(Debug, Clone)]
pub(super) struct Shortage {
    /// What may still be appended is what fits in so many bytes of groups.
    pub(super) room: u64,
    pub(super) cause: Arc<io::Error>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) pending: Batch,
    /// Of the writer; what it has not written yet is neither lost nor indexed.
    pub(super) writing: Option<Arc<Batch>>,
    pub(super) cursor: Cursor,
    /// An emptied buffer for the next batch.
    emptied: Vec<u8>,
    pub(super) index: Index,
    /// Someone waits for what is pending.
    pub(super) is_urgent: bool,
    /// The last group has entries, and no mark after it proves that it was durable.
    pub(super) is_unmarked: bool,
    /// Something was released since the writer last looked.
    pub(super) is_released: bool,
    pub(super) is_stopping: bool,
    pub(super) shortage: Option<Shortage>,
    pub(super) ended: Option<Ended>,
}

impl State {
    /// `writing` was found at the journal's end and must be written anew; `next` is the position that
    /// the next entry gets.
    pub(super) fn new(index: Index, writing: Option<Batch>, next: u64, generation: u64) -> Self {
        Self {
            pending: Batch {
                first: next,
                generation,
                ..Batch::default()
            },
            writing: writing.map(Arc::new),
            cursor: Cursor::default(),
            emptied: Vec::new(),
            index,
            is_urgent: false,
            is_unmarked: false,
            is_released: false,
            is_stopping: false,
            shortage: None,
            ended: None,
        }
    }

    pub(super) fn alive(&self) -> Result<(), JournalError> {
        match &self.ended {
            Some(ended) => Err(ended.clone().into()),
            None => Ok(()),
        }
    }

    /// Bytes of entries that are not written.
    pub(super) fn unwritten_bytes(&self) -> usize {
        let writing = self.writing.as_ref();
        self.pending.bytes.len() + writing.map_or(0, |batch| batch.bytes.len() - self.cursor.bytes)
    }

    /// The position of the first entry that is not written.
    pub(super) fn written(&self) -> u64 {
        match &self.writing {
            Some(batch) => batch.first + self.cursor.entries,
            None => self.pending.first,
        }
    }

    pub(super) fn push(&mut self, header: &[u8; ENTRY_HEADER_BYTES], payload: &[u8]) -> u64 {
        let position = self.pending.end();
        self.pending.push(header, payload);
        position
    }

    /// Gives the writer what is pending, unless it still has something.
    pub(super) fn take_pending(&mut self) {
        if self.writing.is_some() || self.pending.count == 0 {
            return;
        }
        let next = Batch {
            first: self.pending.end(),
            count: 0,
            generation: self.pending.generation,
            bytes: std::mem::take(&mut self.emptied),
        };
        self.writing = Some(Arc::new(std::mem::replace(&mut self.pending, next)));
        self.cursor = Cursor::default();
        self.is_urgent = false;
    }

    /// The writer wrote the entries of its batch up to `cursor`, the first of them at `offset` of
    /// `segment`, durably.
    pub(super) fn settle(&mut self, batch: Arc<Batch>, cursor: Cursor, segment: u64, offset: u64) {
        let written = &batch.bytes[self.cursor.bytes..cursor.bytes];
        let first = batch.first + self.cursor.entries;
        if !written.is_empty() {
            self.index.set_generation(first, batch.generation);
        }
        for (position, entry) in (first..).zip(encoded_entries(written)) {
            let place = Place::new(position, segment, offset + entry.offset as u64);
            self.index.add(entry.owner, place);
        }
        self.cursor = cursor;
        if cursor.bytes == batch.bytes.len() {
            self.writing = None;
            self.cursor = Cursor::default();
            // Whoever still reads it keeps it, and the next batch gets a new buffer.
            if let Some(Batch { mut bytes, .. }) = Arc::into_inner(batch)
                && bytes.capacity() <= BATCH_BYTES_KEPT
            {
                bytes.clear();
                self.emptied = bytes;
            }
        }
        self.index.settle(self.written());
    }

    /// The owner's entries that are not written and not released.
    fn unwritten(&self, owner: u64) -> impl Iterator<Item = Entry> {
        self.unwritten_entries()
            .filter(move |(found, ..)| *found == owner)
            .map(|(_, position, generation, payload)| Entry {
                position: Position(position),
                generation,
                payload: payload.to_vec(),
            })
    }

    fn unwritten_entries(&self) -> impl Iterator<Item = (u64, u64, u64, &[u8])> {
        let writing = self.writing.as_deref();
        let writing = writing.map(|batch| (batch, self.cursor));
        let batches = writing
            .into_iter()
            .chain([(&self.pending, Cursor::default())]);
        let entries = batches.flat_map(|(batch, cursor)| {
            (batch.first + cursor.entries..)
                .zip(encoded_entries(&batch.bytes[cursor.bytes..]))
                .map(|(position, entry)| (entry.owner, position, batch.generation, entry.payload))
        });
        entries.filter(|(owner, position, ..)| !self.index.is_released_ahead(*owner, *position))
    }

    /// The owner's entries: where the written ones are, and the others.
    pub(super) fn entries(&self, owner: u64) -> (Vec<WrittenEntry>, Vec<Entry>) {
        (self.index.entries(owner), self.unwritten(owner).collect())
    }

    /// Who has entries that are not released, ascending.
    pub(super) fn owners(&self) -> Vec<u64> {
        let mut owners: Vec<u64> = self.index.owners().collect();
        owners.extend(self.unwritten_entries().map(|(owner, ..)| owner));
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    pub(super) fn release(&mut self, owner: u64, before: u64) {
        let before = before.min(self.pending.end());
        let written = self.written();
        self.index.release(owner, before, written);
        self.is_released |= self.index.has_idle_segment();
    }
}
