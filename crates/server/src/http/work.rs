//! Work that nobody may abandon in the midst.
//!
//! When a client goes, hyper drops the future that served it. A statement must then be cancelled
//! and come to rest, so that the database's next session finds it clean, and a database that is
//! half made must become a whole one. As long as the client stays, none of this costs a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use database::Canceller;
use parking_lot::Mutex;
use wire::{PgError, sqlstate};

use crate::insist::insist;

/// Where a request's canceller is put once it has one, and whether the request is given up.
#[derive(Clone, Default)]
pub(super) struct CancelSlot(Arc<Slot>);

#[derive(Default)]
struct Slot {
    canceller: Mutex<Option<Canceller>>,
    is_given_up: AtomicBool,
}

/// A future that goes on in the background when it is dropped unfinished.
pub(super) struct Work<F: Future + Send + 'static>
where
    F::Output: Send + 'static,
{
    future: Option<Pin<Box<F>>>,
    abandoned: Abandoned,
}

/// What happens to it then.
enum Abandoned {
    /// It goes on to its end.
    Finishes,
    /// It is given up, and cancelled before it goes on; it is dropped if it has nothing to cancel yet.
    Cancelled(CancelSlot),
}

impl CancelSlot {
    pub(super) fn set(&self, canceller: Canceller) {
        *self.0.canceller.lock() = Some(canceller);
    }

    /// From now on nothing more of the request is begun: what cancels it, if there is something. A cancellation alone
    /// would end one statement, and do nothing between two of them.
    pub(super) fn give_up(&self) -> Option<Canceller> {
        self.0.is_given_up.store(true, Ordering::Release);
        self.0.canceller.lock().clone()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.0.is_given_up.load(Ordering::Acquire)
    }

    /// # Errors
    /// 57014 if the request is given up.
    pub(super) fn expect_wanted(&self) -> Result<(), PgError> {
        match self.is_given_up() {
            true => Err(PgError::error(
                sqlstate::QUERY_CANCELED,
                "the request was given up before this was begun",
            )),
            false => Ok(()),
        }
    }
}

impl<F: Future + Send + 'static> Work<F>
where
    F::Output: Send + 'static,
{
    /// Work that is always done wholly.
    pub(super) fn to_its_end(future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            abandoned: Abandoned::Finishes,
        }
    }

    /// Work that is cancelled through the slot.
    pub(super) fn cancellable(slot: CancelSlot, future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            abandoned: Abandoned::Cancelled(slot),
        }
    }
}

impl<F: Future + Send + 'static> Future for Work<F>
where
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self
            .future
            .as_mut()
            .expect("BUG: finished work was polled again");
        let output = ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<F: Future + Send + 'static> Drop for Work<F>
where
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        let Some(future) = self.future.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        match &self.abandoned {
            Abandoned::Finishes => drop(runtime.spawn(future)),
            Abandoned::Cancelled(slot) => {
                if let Some(canceller) = slot.give_up() {
                    runtime.spawn(async move { insist(&canceller, future).await });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn abandoned_work_goes_on() {
        let (go, gone) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        let work = Work::to_its_end(async move {
            gone.await.unwrap();
            done.send(()).unwrap();
        });
        drop(work);
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn what_has_nothing_to_cancel_is_dropped() {
        let (go, gone) = oneshot::channel::<()>();
        let work = Work::cancellable(CancelSlot::default(), async move {
            let _ = gone.await;
        });
        drop(work);
        assert!(go.is_closed());
    }
    #[tokio::test]
    async fn abandoned_work_is_given_up() {
        let slot = CancelSlot::default();
        let work = Work::cancellable(slot.clone(), std::future::pending::<()>());
        assert!(slot.expect_wanted().is_ok());
        drop(work);
        assert_eq!(slot.expect_wanted().unwrap_err().code(), "57014");
    }
}
