//! How many of all clients of bindings one application has, or one user.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

type Counts = HashMap<Arc<str>, usize>;

/// How many each has.
#[derive(Debug, Default)]
pub(crate) struct Shares(Arc<Mutex<Counts>>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Share {
    owner: Arc<str>,
    counts: Arc<Mutex<Counts>>,
}

impl Shares {
    /// Takes one for its owner, if it has fewer than `max`; 0 is as many as it likes.
    pub(crate) fn enter(&self, owner: &Arc<str>, max: usize) -> Option<Share> {
        let mut counts = self.0.lock();
        let count = counts.entry(Arc::clone(owner)).or_default();
        if max > 0 && *count >= max {
            return None;
        }
        *count += 1;
        Some(Share {
            owner: Arc::clone(owner),
            counts: Arc::clone(&self.0),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_as_many_as_it_may() {
        let shares = Shares::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let held = [
            shares.enter(&one, 2).unwrap(),
            shares.enter(&one, 2).unwrap(),
        ];
        assert!(shares.enter(&one, 2).is_none() && shares.enter(&one, 0).is_some());
        assert!(shares.enter(&other, 2).is_some());
        drop(held);
        assert!(shares.enter(&one, 1).is_some());
        assert!(shares.0.lock().is_empty());
    }
}
