//! Whether the processes that run statements react.
//!
//! A process that runs gives its thread back every few milliseconds, where it can be cancelled, and while it waits.
//! One that does not, because a call of the host does not return, is stuck, and its database with it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a session's process was given a thread, and gave it back: odd while it has one.
#[derive(Debug, Default)]
pub(super) struct Beats(AtomicU64);

impl Beats {
    /// Counts while work is done.
    pub(super) async fn count<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.0.fetch_add(1, Ordering::Relaxed);
            let done = work.as_mut().poll(context);
            self.0.fetch_add(1, Ordering::Relaxed);
            done
        })
        .await
    }

    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the sessions of a database were that ran statements at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse(Vec<(u64, u64)>);

impl Pulse {
    /// Of each session that runs a statement, its number and its beats.
    pub(crate) fn new(beats: Vec<(u64, u64)>) -> Self {
        Self(beats)
    }

    /// Whether statements run, and all their processes have reacted since an earlier moment, or wait.
    pub fn goes_on_since(&self, earlier: &Self) -> bool {
        let is_stuck = |now: &(u64, u64)| now.1 % 2 == 1 && earlier.0.contains(now);
        !self.0.is_empty() && !self.0.iter().any(is_stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_thread_and_does_not_give_it_back_is_stuck() {
        let pulse = |beats: &[(u64, u64)]| Pulse::new(beats.to_vec());
        let before = pulse(&[(1, 4), (2, 7)]);
        assert!(!pulse(&[]).goes_on_since(&before));
        assert!(pulse(&[(1, 4), (2, 9)]).goes_on_since(&before));
        assert!(pulse(&[(1, 4)]).goes_on_since(&before));
        assert!(!pulse(&[(1, 6), (2, 7)]).goes_on_since(&before));
        // One that has come since.
        assert!(pulse(&[(3, 7)]).goes_on_since(&before));
    }

    #[tokio::test]
    async fn beats_are_even_while_work_waits() {
        let beats = Beats::default();
        beats.count(tokio::task::yield_now()).await;
        assert_eq!(beats.now(), 4);
    }
}
