//! Changes of the directory, in groups: one wait for the disk for all that came during the last one.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use parking_lot::Mutex;
use redb::WriteTransaction;
use wire::{PgError, sqlstate};

use super::file::File;

/// What a change gives: the inner error refuses it alone, and it must have changed nothing then; the
/// outer one ends the whole transaction.
pub(super) type Outcome<T> = Result<Result<T, PgError>, redb::Error>;

/// Tells whoever waits how the commit went.
type Deliver = Box<dyn FnOnce(Result<(), PgError>) + Send>;
type Change = Box<dyn FnOnce(&WriteTransaction) -> Result<Deliver, redb::Error> + Send>;

#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Vec<Change>>,
    /// Held by who commits what all wait for.
    leading: Mutex<()>,
}

impl Group {
    /// Runs one change in a transaction of its own or with others', durable when this returns.
    pub(super) fn write<T: Send + 'static>(
        &self,
        file: &File,
        change: impl FnOnce(&WriteTransaction) -> Outcome<T> + Send + 'static,
    ) -> Result<T, PgError> {
        let (sender, receiver) = mpsc::channel();
        self.waiting.lock().push(Box::new(move |transaction| {
            run(transaction, change, sender)
        }));
        let leading = self.leading.lock();
        // Whoever led meanwhile may have done it.
        if let Ok(outcome) = receiver.try_recv() {
            return outcome;
        }
        let changes = mem::take(&mut *self.waiting.lock());
        commit(file, changes);
        drop(leading);
        receiver
            .recv()
            .unwrap_or_else(|_| Err(failed("another change in the same transaction failed")))
    }
}

fn run<T: Send + 'static>(
    transaction: &WriteTransaction,
    change: impl FnOnce(&WriteTransaction) -> Outcome<T>,
    sender: Sender<Result<T, PgError>>,
) -> Result<Deliver, redb::Error> {
    let outcome = match change(transaction) {
        Ok(outcome) => outcome,
        Err(error) => {
            // The receiver waits for as long as the sender is there.
            let _waits = sender.send(Err(unwritable(&error)));
            return Err(error);
        }
    };
    Ok(Box::new(move |committed| {
        let _waits = sender.send(committed.and(outcome));
    }))
}

fn commit(file: &File, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    let attempt = || -> Result<Vec<Deliver>, redb::Error> {
        // The file stays open for as long as the transaction.
        let (_open, transaction) = file.with(|open| Ok((Arc::clone(open), open.begin_write()?)))?;
        let delivers = changes
            .into_iter()
            .map(|change| change(&transaction))
            .collect::<Result<Vec<_>, _>>();
        // Dropped with an error, the transaction is rolled back, and who waits sees its sender go.
        let delivers = delivers?;
        match transaction.commit() {
            Ok(()) => Ok(delivers),
            Err(error) => {
                let error = redb::Error::from(error);
                let told = unwritable(&error);
                for deliver in delivers {
                    deliver(Err(told.clone()));
                }
                Err(error)
            }
        }
    };
    match attempt() {
        Ok(delivers) => delivers.into_iter().for_each(|deliver| deliver(Ok(()))),
        Err(error) => tracing::error!(%error, "the directory of databases could not be written"),
    }
}

fn unwritable(error: &redb::Error) -> PgError {
    let told = failed(&error.to_string());
    match error {
        redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
            PgError::error(sqlstate::DISK_FULL, told.message().to_owned())
        }
        _ => told,
    }
}

fn failed(reason: &str) -> PgError {
    PgError::error(
        sqlstate::IO_ERROR,
        format!("the directory of databases cannot be written: {reason}"),
    )
}
