//! How a client hears that the program ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What tells a client that it has to end: first when it is at rest, and then at once.
pub struct Stop {
    draining: Option<Signal>,
    cancelling: Option<Signal>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stop")
            .field("is_draining", &self.draining.is_none())
            .field("is_cancelling", &self.cancelling.is_none())
            .finish()
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing new begins.
    Drain,
    /// What runs is cancelled.
    Cancel,
}

impl Stop {
    /// After `draining` a client ends with what it has begun; after `cancelling`, which comes no sooner, what its server does is
    /// cancelled.
    pub fn new(
        draining: impl Future<Output = ()> + Send + 'static,
        cancelling: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            draining: Some(Box::pin(draining)),
            cancelling: Some(Box::pin(cancelling)),
        }
    }

    /// Of a program that ends with its clients.
    pub fn never() -> Self {
        Self::new(std::future::pending(), std::future::pending())
    }

    /// Each is told once, in this order.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        // Clients ask for each message: the second is not looked at before the first has come.
        let (signal, told) = match self.draining {
            Some(_) => (&mut self.draining, Told::Drain),
            None => (&mut self.cancelling, Told::Cancel),
        };
        let Some(future) = signal else {
            return Poll::Pending;
        };
        ready!(future.as_mut().poll(cx));
        *signal = None;
        Poll::Ready(told)
    }
}
