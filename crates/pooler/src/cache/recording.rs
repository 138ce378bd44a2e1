//! An answer that is taken down while it goes to its client.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;
use wire::pg::TransactionStatus;
use wire::pg::backend::kind;

use super::flight::Flight;
use super::ledger::{Oid, Stamp};
use super::space::Entry;
use super::status::CacheStatus;
use super::{Cache, Question};

/// Room is taken in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// An answer that comes in.
#[derive(Debug)]
pub(crate) struct Recording {
    cache: Arc<Cache>,
    question: Question,
    tables: Arc<[Oid]>,
    stamp: Stamp,
    asked: Instant,
    answer: BytesMut,
    /// Bytes of the room that it has.
    taken: usize,
    /// The message that comes in belongs to it.
    is_part: bool,
    is_complete: bool,
    is_oversized: bool,
    /// It is not what the next who asks would get.
    is_spoiled: bool,
    is_counted: bool,
    _flight: Option<Flight>,
}

impl Recording {
    /// Of a query that is sent now.
    pub(crate) fn new(
        cache: Arc<Cache>,
        question: Question,
        tables: Arc<[Oid]>,
        stamp: Stamp,
        flight: Option<Flight>,
    ) -> Self {
        Self {
            cache,
            question,
            tables,
            stamp,
            asked: Instant::now(),
            answer: BytesMut::new(),
            taken: 0,
            is_part: false,
            is_complete: false,
            is_oversized: false,
            is_spoiled: false,
            is_counted: false,
            _flight: flight,
        }
    }

    /// A message for the client begins.
    pub(crate) fn message(&mut self, message: u8) {
        self.is_part = match message {
            kind::ROW_DESCRIPTION | kind::DATA_ROW => true,
            kind::COMMAND_COMPLETE => {
                self.is_complete = true;
                true
            }
            kind::PARSE_COMPLETE | kind::BIND_COMPLETE | kind::READY_FOR_QUERY => false,
            _ => {
                self.is_spoiled = true;
                false
            }
        };
    }

    /// Bytes of that message.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if !self.is_part || self.is_oversized || self.is_spoiled {
            return;
        }
        let length = self.answer.len() + bytes.len();
        if length > self.cache.space.options.result_bytes_max {
            return self.give_up();
        }
        if length > self.taken {
            let more = (length - self.taken).next_multiple_of(PIECE_BYTES);
            if !self.cache.space.take(more) {
                return self.give_up();
            }
            self.taken += more;
        }
        self.answer.extend_from_slice(bytes);
    }

    fn give_up(&mut self) {
        self.is_oversized = true;
        self.answer = BytesMut::new();
        self.give_back();
    }

    fn give_back(&mut self) {
        self.cache.space.give_back(std::mem::take(&mut self.taken));
    }

    /// It has come to its end: what became of the query.
    pub(crate) fn finish(mut self, status: TransactionStatus) -> CacheStatus {
        self.give_back();
        let is_whole = self.is_complete && !self.is_spoiled && status == TransactionStatus::Idle;
        if is_whole && self.cache.is_right(&self.tables, self.stamp) {
            // Not the buffer itself, which has room for more.
            let answer = || bytes::Bytes::copy_from_slice(&self.answer);
            let entry = Entry {
                answer: (!self.is_oversized).then(answer),
                tables: Arc::clone(&self.tables),
                stamp: self.stamp,
                asked: self.asked,
            };
            self.cache.space.put(self.question.key().clone(), entry);
        }
        let became = match self.is_oversized {
            true => CacheStatus::OversizedResult,
            false => CacheStatus::Miss,
        };
        self.count(became);
        became
    }

    /// The pool itself asks, for nobody who would count it.
    pub(crate) fn uncounted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    fn count(&mut self, status: CacheStatus) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.cache.counters.count(status);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.give_back();
        self.count(CacheStatus::Miss);
    }
}
