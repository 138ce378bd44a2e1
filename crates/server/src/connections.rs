//! Counting connections against a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are, and may be.
#[derive(Debug)]
pub(crate) struct Connections {
    count: AtomicUsize,
    max: usize,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Place(Arc<Connections>);

impl Connections {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            max,
        })
    }

    /// Takes a place, if one is left.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        (before < self.max).then_some(place)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let connections = Connections::new(1);
        let first = connections.enter().unwrap();
        assert!(connections.enter().is_none());
        assert_eq!(connections.count(), 1);
        drop(first);
        assert!(connections.enter().is_some());
    }
}
