//! Counting connections against a limit, which may change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are.
#[derive(Debug)]
pub(crate) struct Connections {
    count: AtomicUsize,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Place(Arc<Connections>);

impl Connections {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
        })
    }

    /// Takes a place, if one of so many is left.
    pub(crate) fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let place = Place(Arc::clone(self));
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(place)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
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
        let connections = Connections::new();
        let first = connections.enter(1).unwrap();
        assert!(connections.enter(1).is_none());
        assert_eq!(connections.count(), 1);
        drop(first);
        assert!(connections.enter(1).is_some());
    }
}
