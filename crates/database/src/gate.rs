//! The output gate: no byte that may reveal a commit leaves before that commit is durable.
//!
//! The backend never waits for the disk. What its syncs asked for is owed by its volume; whoever lets
//! bytes of it out waits here until that is on the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use engine::{ClientIo, ClientIoError};
use parking_lot::Mutex;
use volume::{Owed, Volume};
use wire::pg::{Tally, frames, frontend};
use wire::{PgError, sqlstate};

use crate::database::volume_error;
use crate::node::blocking;
use crate::session::measure::Measure;

/// Waits until everything is durable that the volume's syncs have asked for so far.
///
/// # Errors
/// What made it fail: no byte may leave then, and the backend must be given up, for it shows what
/// is not durable.
pub(crate) async fn settle(volume: &Arc<Volume>) -> Result<(), PgError> {
    let Owed { entry, version } = volume.owed();
    if let Some(entry) = entry
        && let Some(journal) = volume.journal()
    {
        journal.durable(entry).await.map_err(|error| {
            PgError::fatal(sqlstate::IO_ERROR, format!("the journal: {error}")).detail(
                "What was not acknowledged may or may not be there when the database starts again.",
            )
        })?;
    }
    if version {
        flush(volume).await?;
    }
    Ok(())
}

/// Makes everything durable that the volume's syncs have asked for so far, whatever the durability.
///
/// # Errors
/// What made it fail.
pub(crate) async fn settle_all(volume: &Arc<Volume>) -> Result<(), PgError> {
    if let Some(entry) = volume.last_entry()
        && let Some(journal) = volume.journal()
    {
        journal.request(entry);
        journal
            .durable(entry)
            .await
            .map_err(|error| PgError::error(sqlstate::IO_ERROR, format!("the journal: {error}")))?;
    }
    settle(volume).await
}

/// Makes the volume's state of this moment durable as a version.
pub(crate) async fn flush(volume: &Arc<Volume>) -> Result<(), PgError> {
    let volume = Arc::clone(volume);
    let flushing = move || volume.flush().map_err(|error| volume_error(&error));
    blocking(flushing).await.map(drop)
}

/// Gives some room back to the file system: whether there is more to give.
pub(crate) async fn give_back(volume: &Arc<Volume>) -> Result<bool, PgError> {
    let volume = Arc::clone(volume);
    let giving = move || volume.give_back().map_err(|error| volume_error(&error));
    blocking(giving).await
}

/// Messages that the session has, and has not come to yet.
pub(crate) type Ahead = Arc<Mutex<BytesMut>>;

/// Takes messages up to the one that ends a `COPY`: what comes after it is for whoever looks at statements.
fn take_copy(messages: &mut BytesMut) -> BytesMut {
    let mut taken = 0;
    for (kind, body) in frames(messages) {
        taken += 5 + body.len();
        if matches!(kind, frontend::kind::COPY_DONE | frontend::kind::COPY_FAIL) {
            break;
        }
    }
    messages.split_to(taken)
}

/// A connection that both sides of the gate can reach.
type Connection = Arc<Mutex<Behind>>;

/// What is behind the gate.
#[derive(Default)]
struct Behind {
    io: Option<Box<dyn ClientIo>>,
    /// What came and went in the middle of a statement.
    bytes_in: u64,
    tally: Tally,
    /// Bytes at the front of the output that are in the tally.
    counted: usize,
}

/// A wait for what is owed.
type Settling = Pin<Box<dyn Future<Output = Result<(), PgError>> + Send>>;

/// A client's connection behind the gate, for what leaves in the middle of a statement.
pub(crate) struct Gated {
    io: Connection,
    ahead: Ahead,
    volume: Arc<Volume>,
    waiting: Option<Settling>,
    has_told: Arc<AtomicBool>,
}

/// Gets the connection back from behind the gate.
pub(crate) struct Ungate(Connection);

impl Gated {
    /// Sets `has_told` before something leaves.
    pub(crate) fn new(
        io: Box<dyn ClientIo>,
        ahead: &Ahead,
        volume: Arc<Volume>,
        has_told: Arc<AtomicBool>,
    ) -> (Self, Ungate) {
        let io = Arc::new(Mutex::new(Behind {
            io: Some(io),
            ..Behind::default()
        }));
        let ungate = Ungate(Arc::clone(&io));
        let gated = Self {
            io,
            ahead: Arc::clone(ahead),
            volume,
            waiting: None,
            has_told,
        };
        (gated, ungate)
    }
}

impl Ungate {
    /// The connection; what was counted behind the gate goes to `measure`.
    pub(crate) fn take(self, measure: &mut Measure) -> Option<Box<dyn ClientIo>> {
        let mut behind = self.0.lock();
        measure.bytes_in += behind.bytes_in;
        if behind.tally.bytes > 0 {
            measure.tally = std::mem::take(&mut behind.tally);
            measure.counted = behind.counted;
        }
        behind.io.take()
    }
}

impl ClientIo for Gated {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        let ahead = take_copy(&mut self.ahead.lock());
        if !ahead.is_empty() {
            input.unsplit(ahead);
            return Poll::Ready(Ok(()));
        }
        let behind = &mut *self.io.lock();
        let Some(io) = &mut behind.io else {
            return Poll::Ready(Err(ClientIoError));
        };
        let before = input.len();
        let filled = io.poll_fill(context, input);
        behind.bytes_in += input.len().saturating_sub(before) as u64;
        filled
    }

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        if self.waiting.is_none() && self.volume.owed() != Owed::default() {
            let volume = Arc::clone(&self.volume);
            self.waiting = Some(Box::pin(async move { settle(&volume).await }));
        }
        if let Some(waiting) = &mut self.waiting {
            let settled = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
            if let Err(error) = settled {
                tracing::error!(%error, "output is held back: its commit is not durable");
                return Poll::Ready(Err(ClientIoError));
            }
        }
        self.has_told.store(true, Ordering::Release);
        let behind = &mut *self.io.lock();
        let Some(io) = &mut behind.io else {
            return Poll::Ready(Err(ClientIoError));
        };
        behind
            .tally
            .add(output.get(behind.counted..).unwrap_or_default());
        let drained = io.poll_drain(context, output);
        behind.counted = output.len();
        drained
    }
}
