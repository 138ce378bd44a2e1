//! Who waits, first come first served.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::failure::Failure;

/// A turn, once it has come: something, or why there is nothing. An end without either says that there will be nothing.
pub(super) type Turn<T> = oneshot::Receiver<Result<T, Failure>>;

/// Those who wait for something. Who drops the turn has left.
#[derive(Debug)]
pub(super) struct Queue<T>(VecDeque<Waiting<T>>);

/// One who waits.
#[derive(Debug)]
struct Waiting<T> {
    turn: oneshot::Sender<Result<T, Failure>>,
    label: Arc<str>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// How many wait; who has left does not count.
    pub(super) fn len(&self) -> usize {
        let waiting = self.0.iter();
        waiting.filter(|one| !one.turn.is_closed()).count()
    }

    /// Forgets who has left: how many wait.
    pub(super) fn without_left(&mut self) -> usize {
        self.0.retain(|one| !one.turn.is_closed());
        self.0.len()
    }

    /// Stands behind all others; nothing if that would be more than `max`.
    pub(super) fn join(&mut self, label: &Arc<str>, max: usize) -> Option<Turn<T>> {
        if self.0.len() >= max && self.without_left() >= max {
            return None;
        }
        let (turn, receiver) = oneshot::channel();
        self.0.push_back(Waiting {
            turn,
            label: Arc::clone(label),
        });
        Some(receiver)
    }

    /// Gives something to the first: who that is. If nobody waits it comes back.
    pub(super) fn give(&mut self, mut thing: T) -> Result<Arc<str>, T> {
        while let Some(first) = self.0.pop_front() {
            match first.turn.send(Ok(thing)) {
                Ok(()) => return Ok(first.label),
                Err(Ok(back)) => thing = back,
                Err(Err(_)) => unreachable!("BUG: what was sent comes back as something else"),
            }
        }
        Err(thing)
    }

    /// Tells everybody why there is nothing; who has left does not hear it.
    pub(super) fn refuse_all(&mut self, failure: &Failure) {
        for one in self.0.drain(..) {
            let _ = one.turn.send(Err(failure.clone()));
        }
    }

    /// Tells everybody that there will be nothing.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    fn join(queue: &mut Queue<u32>, label: &str) -> Turn<u32> {
        queue.join(&Arc::from(label), 3).unwrap()
    }

    #[test]
    fn first_come_first_served() {
        let mut queue = Queue::new();
        let (mut ann, mut joe) = (join(&mut queue, "ann"), join(&mut queue, "joe"));
        assert_eq!(&*queue.give(1).unwrap(), "ann");
        assert_eq!(&*queue.give(2).unwrap(), "joe");
        assert_eq!(queue.give(3), Err(3));
        assert_eq!(ann.try_recv().unwrap().unwrap(), 1);
        assert_eq!(joe.try_recv().unwrap().unwrap(), 2);
    }

    #[test]
    fn who_has_left_is_passed_over() {
        let mut queue = Queue::new();
        let (ann, mut joe) = (join(&mut queue, "ann"), join(&mut queue, "joe"));
        drop(ann);
        assert_eq!(queue.len(), 1);
        assert_eq!(&*queue.give(1).unwrap(), "joe");
        assert_eq!(joe.try_recv().unwrap().unwrap(), 1);
        drop(join(&mut queue, "eve"));
        assert_eq!(queue.give(2), Err(2));
    }

    #[test]
    fn no_more_than_may_wait_who_has_left_aside() {
        let mut queue = Queue::new();
        let turns = ["ann", "joe", "eve"].map(|label| join(&mut queue, label));
        assert!(queue.join(&Arc::from("bob"), 3).is_none());
        assert_eq!(queue.without_left(), 3);
        drop(turns);
        assert!(queue.join(&Arc::from("bob"), 3).is_some());
    }

    #[test]
    fn everybody_is_told() {
        let mut queue = Queue::new();
        let mut turns = ["ann", "joe"].map(|label| join(&mut queue, label));
        let failure = Failure::new(FailureKind::Dns, "no such host");
        queue.refuse_all(&failure);
        for turn in &mut turns {
            assert_eq!(turn.try_recv().unwrap(), Err(failure.clone()));
        }
        let mut turn = join(&mut queue, "eve");
        queue.clear();
        assert!(turn.try_recv().is_err());
        assert_eq!(queue.len(), 0);
    }
}
