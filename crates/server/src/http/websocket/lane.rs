//! Requests that are done one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::answer::Given;
use super::request::{Id, Job};

/// What is left of a request while it runs.
pub(super) struct Ticket {
    pub(super) id: Id,
    /// Of its message.
    pub(super) bytes: usize,
    pub(super) given: Given,
}

/// A request in its turn.
pub(super) struct Task {
    pub(super) ticket: Ticket,
    pub(super) job: Job,
}

/// Requests that are done one after the other.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<Task>,
    /// Somebody does them.
    is_served: bool,
    /// The one that is being done.
    current: Option<(Id, Given)>,
    /// Wakes who serves a lane that is served also while nothing waits.
    changed: Option<Arc<Notify>>,
}

impl Ticket {
    pub(super) fn new(id: Id, bytes: usize) -> Self {
        Self {
            id,
            bytes,
            given: Given::default(),
        }
    }
}

impl Lane {
    /// A lane that is served until its transaction ends; it begins with this.
    pub(super) fn of_transaction(begin: &Ticket) -> Self {
        Self {
            is_served: true,
            current: Some((begin.id, begin.given.clone())),
            changed: Some(Arc::default()),
            ..Self::default()
        }
    }

    /// What tells who serves it that there is more.
    pub(super) fn changed(&self) -> Arc<Notify> {
        self.changed.clone().unwrap_or_default()
    }

    /// Adds a request: whether somebody must begin to serve.
    pub(super) fn put(&mut self, task: Task) -> bool {
        self.waiting.push_back(task);
        if let Some(changed) = &self.changed {
            changed.notify_one();
        }
        !std::mem::replace(&mut self.is_served, true)
    }

    /// The next request. If none waits, the lane is not served any more, unless it is a transaction's.
    pub(super) fn next(&mut self) -> Option<Task> {
        let task = self.waiting.pop_front();
        self.current = task
            .as_ref()
            .map(|task| (task.ticket.id, task.ticket.given.clone()));
        if task.is_none() {
            self.is_served = self.changed.is_some();
            // An idle client costs no queue.
            self.waiting = VecDeque::new();
        }
        task
    }

    /// What ends a request.
    pub(super) fn find(&self, id: Id) -> Option<Given> {
        let current = self.current.iter().filter(|(current, _)| *current == id);
        let current = current.map(|(_, given)| given);
        let waiting = self.waiting.iter().filter(|task| task.ticket.id == id);
        let waiting = waiting.map(|task| &task.ticket.given);
        current.chain(waiting).next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_served_by_one() {
        let mut lane = Lane::default();
        let task = |id| Task {
            ticket: Ticket::new(id, 1),
            job: Job::Commit,
        };
        assert!(lane.put(task(1)));
        assert!(!lane.put(task(2)));
        assert_eq!(lane.next().map(|task| task.ticket.id), Some(1));
        assert!(lane.find(1).is_some() && lane.find(2).is_some() && lane.find(3).is_none());
        assert!(!lane.put(task(3)));
        assert!(lane.next().is_some() && lane.next().is_some() && lane.next().is_none());
        assert!(lane.find(3).is_none());
        assert!(lane.put(task(4)));
    }

    #[test]
    fn a_transaction_is_served_also_while_nothing_waits() {
        let begin = Ticket::new(9, 1);
        let mut lane = Lane::of_transaction(&begin);
        assert!(lane.find(9).is_some());
        assert!(lane.next().is_none());
        let job = Job::Commit;
        let ticket = Ticket::new(1, 1);
        assert!(!lane.put(Task { ticket, job }));
    }
}
