//! What a client has sent and nobody has taken yet.
//!
//! 1. Only whole messages are taken.
//! 2. Only the connection's task reads the socket; `COPY`, which may run in another task, takes
//!    what was read. Each wakes the other.
//! 3. Once the end has come, nothing is read any more.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use wire::PgError;
use wire::pg::frontend::kind;
use wire::pg::{Frame, sasl};

use super::batch::{Front, front};
use super::stream::ReadHalf;

/// The buffer of a connection that sends small messages.
const BUFFER_BYTES: usize = 8 * 1024;

/// A read is offered this much room at least.
const ROOM_BYTES_MIN: usize = 1024;

/// Whole messages are read ahead of the statement that runs, up to this many bytes. Beyond, the
/// client has to wait, and its leaving is noticed only when the statement ends.
const AHEAD_BYTES_MAX: usize = 1024 * 1024;

/// Why nothing more will come.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The client said so.
    Terminate,
    /// The connection is closed or broken.
    Gone,
    /// The connection ends by this error: the client does not speak the protocol, or we stop.
    Error(PgError),
}

/// What a client has sent and nobody has taken yet.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: BytesMut,
    /// So many bytes at the front are whole messages.
    whole: usize,
    /// What the message after them is known to need.
    missing: usize,
    /// What comes after the whole messages.
    end: Option<End>,
    message_bytes_max: usize,
    /// The first message may be a password that nobody asked for: it is dropped.
    password_may_come: bool,
    /// Waits for messages.
    taker: Option<Waker>,
    /// Waits for room.
    reader: Option<Waker>,
}

impl Inbox {
    /// `buffer` is what came right after the startup packet.
    pub(super) fn new(buffer: BytesMut, message_bytes_max: usize) -> Self {
        Self::begin(buffer, message_bytes_max, false)
    }

    /// The same, of a client that may send a password before it is asked for one, where nobody is.
    pub(super) fn with_password(buffer: BytesMut, message_bytes_max: usize) -> Self {
        Self::begin(buffer, message_bytes_max, true)
    }

    fn begin(buffer: BytesMut, message_bytes_max: usize, password_may_come: bool) -> Self {
        let mut inbox = Self {
            buffer,
            whole: 0,
            missing: 0,
            end: None,
            message_bytes_max,
            password_may_come,
            taker: None,
            reader: None,
        };
        inbox.scan();
        inbox
    }

    /// All whole messages; or why there is none and will be none; or nothing yet.
    pub(super) fn take(&mut self) -> Option<Result<Bytes, End>> {
        if self.whole == 0 {
            return self.end.clone().map(Err);
        }
        Some(Ok(self.split(self.whole)))
    }

    /// Takes whole messages up to the one that ends a `COPY`: what comes after it is for whoever
    /// looks at statements.
    pub(super) fn poll_take_copy(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if self.whole == 0 {
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone()));
            }
            self.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = 0;
        while taken < self.whole {
            let next = front(&self.buffer[taken..self.whole], self.message_bytes_max);
            let Ok(Front::Message { kind, bytes }) = next else {
                break;
            };
            taken += bytes;
            if matches!(kind, kind::COPY_DONE | kind::COPY_FAIL) {
                break;
            }
        }
        let batch = self.split(taken);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(batch))
    }

    /// Gives back the room that it keeps for what comes, if nothing has.
    pub(super) fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Forgets what has come, and ends the connection by this error.
    pub(super) fn close(&mut self, error: PgError) {
        self.buffer.clear();
        self.whole = 0;
        self.end = Some(End::Error(error));
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    fn split(&mut self, bytes: usize) -> Bytes {
        self.whole -= bytes;
        self.buffer.split_to(bytes).freeze()
    }

    /// Finds the whole messages among new bytes.
    fn scan(&mut self) {
        if self.password_may_come {
            self.drop_password();
        }
        while self.end.is_none() && !self.password_may_come {
            match front(&self.buffer[self.whole..], self.message_bytes_max) {
                Ok(Front::Message { bytes, .. }) => self.whole += bytes,
                Ok(Front::Partial { missing }) => {
                    self.missing = missing;
                    return;
                }
                Ok(Front::Terminate) => self.end = Some(End::Terminate),
                Err(error) => self.end = Some(End::Error(error)),
            }
        }
    }

    /// Drops a password at the front, once it is there as a whole.
    fn drop_password(&mut self) {
        match self.buffer.first() {
            None => {}
            Some(&kind::PASSWORD) => {
                match Frame::split(&mut self.buffer, sasl::MESSAGE_BYTES_MAX) {
                    Ok(dropped) => self.password_may_come = dropped.is_none(),
                    Err(error) => self.end = Some(End::Error(error)),
                }
            }
            Some(_) => self.password_may_come = false,
        }
    }

    /// Makes room for a read: for the rest of a message, but never more than has come already.
    fn make_room(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < ROOM_BYTES_MIN {
            let wanted = self.missing.min(self.buffer.len());
            self.buffer.reserve(wanted.max(BUFFER_BYTES));
        }
    }
}

/// Fills an inbox from a socket.
pub(super) struct Reader {
    half: ReadHalf,
    inbox: Arc<Mutex<Inbox>>,
}

impl Reader {
    pub(super) fn new(half: ReadHalf, inbox: Arc<Mutex<Inbox>>) -> Self {
        Self { half, inbox }
    }

    /// Reads once. Safe to drop in the midst.
    pub(super) async fn read(&mut self) {
        poll_fn(|context| self.poll_read(context)).await;
    }

    /// Reads until the end has come. Safe to drop in the midst.
    pub(super) async fn read_to_end(&mut self) -> End {
        loop {
            if let Some(end) = &self.inbox.lock().end {
                return end.clone();
            }
            self.read().await;
        }
    }

    /// Reads until the client has gone without a word. Safe to drop in the midst.
    pub(super) async fn read_until_gone(&mut self) {
        // Who says goodbye after a statement wants it to run.
        if !matches!(self.read_to_end().await, End::Gone) {
            pending::<()>().await;
        }
    }

    /// The socket, after the end.
    pub(super) fn into_half(self) -> ReadHalf {
        self.half
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut inbox = self.inbox.lock();
        if inbox.end.is_some() {
            return Poll::Ready(());
        }
        if inbox.whole >= AHEAD_BYTES_MAX {
            inbox.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Room is made once there is something: a connection that waits has none.
        ready!(self.half.poll_ready(context));
        inbox.make_room();
        let read = ready!(pin!(self.half.read_buf(&mut inbox.buffer)).poll(context));
        match read {
            Ok(1..) => inbox.scan(),
            Ok(0) | Err(_) => inbox.end = Some(End::Gone),
        }
        if let Some(taker) = inbox.taker.take() {
            taker.wake();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: &[u8] = b"S\0\0\0\x04";
    const DATA: &[u8] = b"d\0\0\0\x05x";
    const DONE: &[u8] = b"c\0\0\0\x04";
    const TERMINATE: &[u8] = b"X\0\0\0\x04";

    fn inbox(parts: &[&[u8]]) -> Inbox {
        Inbox::new(BytesMut::from(&parts.concat()[..]), 1024)
    }

    fn take_copy(inbox: &mut Inbox) -> Poll<Result<Bytes, End>> {
        inbox.poll_take_copy(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_whole_messages_are_taken() {
        let mut inbox = inbox(&[SYNC, SYNC, &SYNC[..3]]);
        let batch = inbox.take().unwrap().unwrap();
        assert_eq!(batch, [SYNC, SYNC].concat());
        assert!(inbox.take().is_none());
        inbox.buffer.extend_from_slice(&SYNC[3..]);
        inbox.scan();
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
    }

    #[test]
    fn the_end_comes_after_what_was_sent_before_it() {
        let mut inbox = inbox(&[SYNC, TERMINATE, SYNC]);
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
        assert!(matches!(inbox.take(), Some(Err(End::Terminate))));
        let mut inbox = self::inbox(&[SYNC, b"\0"]);
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
        assert!(matches!(inbox.take(), Some(Err(End::Error(_)))));
    }

    #[test]
    fn a_copy_takes_no_statement_behind_it() {
        let mut inbox = inbox(&[DATA, DATA, DONE, SYNC]);
        let Poll::Ready(Ok(batch)) = take_copy(&mut inbox) else {
            panic!("there are messages");
        };
        assert_eq!(batch, [DATA, DATA, DONE].concat());
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
        assert!(take_copy(&mut inbox).is_pending());
    }

    #[test]
    fn a_password_that_nobody_asked_for_is_dropped_once() {
        let password: &[u8] = b"p\0\0\0\x06x\0";
        let begin = |parts: &[&[u8]]| Inbox::with_password(BytesMut::from(&parts.concat()[..]), 64);
        let mut inbox = begin(&[&password[..4]]);
        assert!(inbox.take().is_none());
        inbox.buffer.extend_from_slice(&password[4..]);
        inbox.buffer.extend_from_slice(SYNC);
        inbox.scan();
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
        let mut inbox = begin(&[SYNC, password]);
        assert_eq!(inbox.take().unwrap().unwrap(), SYNC);
        assert!(matches!(inbox.take(), Some(Err(End::Error(_)))));
        let mut inbox = begin(&[password, password]);
        assert!(matches!(inbox.take(), Some(Err(End::Error(_)))));
        assert!(begin(&[]).take().is_none());
    }

    #[test]
    fn room_never_exceeds_what_has_come() {
        let mut inbox = Inbox::new(BytesMut::from(&b"Q\x03\0\0\0x"[..]), 64 << 20);
        inbox.make_room();
        assert!(inbox.buffer.capacity() < 3 * BUFFER_BYTES);
    }
}
