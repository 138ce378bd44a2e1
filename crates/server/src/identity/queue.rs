//! Who waits for a turn: so many and no more.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many wait.
#[derive(Debug, Default)]
pub(super) struct Queue(AtomicUsize);

/// One who waits, as long as it lives.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Queue {
    /// A place, if fewer than `max` wait.
    pub(super) fn enter(&self, max: usize) -> Option<Place<'_>> {
        let place = Place(&self.0);
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
