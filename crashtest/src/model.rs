//! What is known of one database: every transaction has a number, and its content after any of them
//! that it may still show can be told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::op::Op;
use crate::state::State;
use crate::window::{Durability, Seen, Window};

/// Most transactions that a message about missing ones spells out.
const SPELLED_MAX: usize = 5;
/// Transactions that are remembered for such a message although they can be missing no more.
const RECENT_MAX: usize = 500;

/// A model that the database's client, and whoever forks the database, have at hand.
pub type SharedModel = Arc<Mutex<Model>>;

/// The model of one database.
#[derive(Debug, Clone)]
pub struct Model {
    /// The content after transaction `base_number`.
    base: State,
    base_number: u64,
    /// What the transactions after it do.
    later: VecDeque<Arc<Sent>>,
    /// Up to this number transactions are the parent's.
    inherited: u64,
    /// What the last transactions up to it did.
    recent: VecDeque<Arc<Sent>>,
    /// The content after all that was sent.
    head: State,
    transactions: Window,
    /// Values given to the setting, 1, 2, ...; 0 is its default.
    settings: Window,
    /// Forks that are under way: they may have what is sent meanwhile.
    followers: Vec<SharedModel>,
    durability: Durability,
}

/// A transaction, in the models of the database that it was sent to and of that database's forks.
#[derive(Debug, Default)]
struct Sent {
    ops: Vec<Op>,
    /// A kill took it from the database that it was sent to.
    lost: AtomicBool,
    /// A fork has shown it.
    forked: AtomicBool,
}

impl Model {
    /// Of an empty database.
    pub fn new(durability: Durability) -> Self {
        Self {
            base: State::default(),
            base_number: 0,
            later: VecDeque::new(),
            inherited: 0,
            recent: VecDeque::new(),
            head: State::default(),
            transactions: Window::new(durability),
            settings: Window::new(durability),
            followers: Vec::new(),
            durability,
        }
    }

    /// The content after all that was sent: what the next transaction meets.
    pub fn head(&self) -> &State {
        &self.head
    }

    /// How many transactions were sent.
    pub fn sent(&self) -> u64 {
        self.transactions.sent()
    }

    /// How many transactions were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.transactions.acknowledged()
    }

    /// A transaction's commit is about to be sent: its number.
    pub fn send(&mut self, ops: &[Op]) -> u64 {
        let sent = Arc::new(Sent {
            ops: ops.to_vec(),
            ..Sent::default()
        });
        for follower in &self.followers {
            let mut follower = follower.lock();
            follower.inherited = follower.push(Arc::clone(&sent));
        }
        self.push(sent)
    }

    fn push(&mut self, sent: Arc<Sent>) -> u64 {
        for op in &sent.ops {
            self.head.apply(op);
        }
        self.later.push_back(sent);
        self.transactions.send()
    }

    /// A commit was answered.
    pub fn acknowledge(&mut self, number: u64, at: Instant) {
        self.transactions.acknowledge(number, at);
        while self.base_number < self.transactions.settled() {
            let Some(sent) = self.later.pop_front() else {
                break;
            };
            for op in &sent.ops {
                self.base.apply(op);
            }
            self.base_number += 1;
            self.recent.push_back(sent);
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
    }

    /// A value of the setting is about to be sent: the value.
    pub fn send_setting(&mut self) -> u64 {
        for follower in &self.followers {
            follower.lock().send_setting();
        }
        self.settings.send()
    }

    /// A value of the setting was answered.
    pub fn acknowledge_setting(&mut self, value: u64, at: Instant) {
        self.settings.acknowledge(value, at);
    }

    /// The database shows as many transactions as this: nothing acknowledged may be missing, and
    /// nothing may be there that was not sent.
    ///
    /// # Errors
    /// What is missing, or too much.
    pub fn show(&mut self, number: u64, seen: Seen) -> Result<(), String> {
        let floor = self.transactions.floor(seen);
        let sent = self.transactions.sent();
        if number < floor {
            let since = self.transactions.acknowledged_for(number, seen);
            let since = since.map_or_else(String::new, |time| {
                format!(", {} ms before the kill", time.as_millis())
            });
            return Err(format!(
                "acknowledged transactions are missing: the database is as after {number}, but \
                 {floor} was acknowledged{since} ({sent} sent); missing: {}",
                self.spell(number, floor)
            ));
        }
        if number > sent {
            return Err(format!(
                "the database is as after transaction {number}, but only {sent} were sent to it"
            ));
        }
        self.agree_with_forks(number)?;
        self.transactions.show(number, seen, Instant::now());
        if number < sent {
            let kept = number.saturating_sub(self.base_number) as usize;
            self.later.truncate(kept);
            self.inherited = self.inherited.min(number);
            self.head = self.base.clone();
            for op in self.later.iter().flat_map(|sent| &sent.ops) {
                self.head.apply(op);
            }
        }
        if matches!(seen, Seen::Killed(_)) {
            // A fork that was under way ended with the server.
            self.followers.clear();
        }
        self.acknowledge(number, Instant::now());
        Ok(())
    }

    /// A fork is its parent after a commit that lasts: what a fork shows, its parent must not lose.
    /// With relaxed durability it may.
    fn agree_with_forks(&self, number: u64) -> Result<(), String> {
        for (sent, at) in self.later.iter().zip(self.base_number + 1..) {
            let inherited = at <= self.inherited;
            if inherited && at <= number {
                sent.forked.store(true, Ordering::SeqCst);
            }
            if !inherited && at > number {
                sent.lost.store(true, Ordering::SeqCst);
            }
            let both = sent.forked.load(Ordering::SeqCst) && sent.lost.load(Ordering::SeqCst);
            if both && self.durability == Durability::Local {
                let (has, lacks) = if inherited {
                    ("it", "its parent")
                } else {
                    ("a fork", "it")
                };
                return Err(format!(
                    "{has} has transaction {at}, which a kill took from {lacks}: {:?}",
                    sent.ops
                ));
            }
        }
        Ok(())
    }

    /// The database shows this value of the setting.
    ///
    /// # Errors
    /// What is missing, or too much.
    pub fn show_setting(&mut self, value: u64, seen: Seen) -> Result<(), String> {
        let floor = self.settings.floor(seen);
        let sent = self.settings.sent();
        if !(floor..=sent).contains(&value) {
            return Err(format!(
                "ALTER SYSTEM: the setting has value {value}, but {floor} was acknowledged ({sent} \
                 sent)"
            ));
        }
        self.settings.show(value, seen, Instant::now());
        Ok(())
    }

    /// A model for a fork that is about to be asked for. It takes up what is sent to this database
    /// until [`unfollow`](Self::unfollow).
    pub fn follow(&mut self) -> SharedModel {
        let fork = Arc::new(Mutex::new(Self {
            followers: Vec::new(),
            inherited: self.sent(),
            ..self.clone()
        }));
        self.followers.push(Arc::clone(&fork));
        fork
    }

    /// The fork was answered, or will never be.
    pub fn unfollow(&mut self, fork: &SharedModel) {
        self.followers.retain(|other| !Arc::ptr_eq(other, fork));
    }

    /// What the transactions after `shown`, up to `floor`, did.
    fn spell(&self, shown: u64, floor: u64) -> String {
        let known = self.recent.iter().chain(&self.later);
        let mut words: Vec<String> = known
            .zip(self.base_number - self.recent.len() as u64 + 1..)
            .filter(|(_, number)| (shown + 1..=floor).contains(number))
            .map(|(sent, number)| format!("{number} {:?}", sent.ops))
            .take(SPELLED_MAX)
            .collect();
        if words.len() < (floor - shown) as usize {
            words.push("...".to_owned());
        }
        words.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(seq: u64) -> Vec<Op> {
        vec![Op::Append { client: 1, seq }]
    }

    fn last(model: &Model) -> u64 {
        model.head().log.get(&1).map_or(0, |span| span.last)
    }

    fn model(sent: u64, acknowledged: u64) -> Model {
        let mut model = Model::new(Durability::Local);
        for seq in 1..=sent {
            assert_eq!(model.send(&append(seq)), seq);
        }
        model.acknowledge(acknowledged, Instant::now());
        model
    }

    #[test]
    fn a_missing_commit_is_told_and_one_in_doubt_is_not() {
        let killed = Seen::Killed(Instant::now());
        let told = model(3, 2).show(1, killed).unwrap_err();
        assert!(told.contains("as after 1, but 2 was"), "{told}");
        assert!(model(3, 2).show(4, killed).is_err());
        for shown in [2, 3] {
            let mut model = model(3, 2);
            model.show(shown, killed).unwrap();
            assert_eq!(last(&model), shown);
            // The next one goes on from there.
            assert_eq!(model.send(&append(shown + 1)), shown + 1);
            assert_eq!(last(&model), shown + 1);
        }
    }

    #[test]
    fn a_relaxed_database_may_lose_the_last_moments_only() {
        let lag = std::time::Duration::from_secs(1);
        let start = Instant::now();
        let mut model = Model::new(Durability::Relaxed(lag));
        for seq in 1..=4 {
            model.send(&append(seq));
            model.acknowledge(seq, start + lag * u32::try_from(seq).unwrap());
        }
        let killed = Seen::Killed(start + lag * 4);
        let told = model.clone().show(2, killed).unwrap_err();
        assert!(told.contains("3 [Append { client: 1, seq: 3 }]"), "{told}");
        model.show(3, killed).unwrap();
        assert_eq!(last(&model), 3);
    }

    #[test]
    fn a_fork_has_what_was_acknowledged_before_and_maybe_what_was_sent_meanwhile() {
        let mut parent = model(2, 2);
        let fork = parent.follow();
        let number = parent.send(&append(3));
        parent.acknowledge(number, Instant::now());
        parent.unfollow(&fork);
        parent.send(&append(4));
        for (shown, right) in [(1, false), (2, true), (3, true), (4, false)] {
            let mut fork = fork.lock().clone();
            assert_eq!(fork.show(shown, Seen::Live).is_ok(), right, "{shown}");
        }
    }

    #[test]
    fn a_fork_must_not_have_what_its_parent_loses() {
        let killed = Seen::Killed(Instant::now());
        for (fork_shows, parent_shows, right) in
            [(2, 3, true), (3, 3, true), (2, 2, true), (3, 2, false)]
        {
            for parent_first in [false, true] {
                let mut parent = model(2, 2);
                let fork = parent.follow();
                parent.send(&append(3));
                parent.unfollow(&fork);
                let mut fork = fork.lock();
                let mut told = Vec::new();
                if parent_first {
                    told.push(parent.show(parent_shows, killed));
                }
                told.push(fork.show(fork_shows, killed));
                if !parent_first {
                    told.push(parent.show(parent_shows, killed));
                }
                let agreed = told.iter().all(Result::is_ok);
                assert_eq!(agreed, right, "{fork_shows} {parent_shows} {told:?}");
                // What the fork itself has sent is its own.
                if agreed {
                    fork.send(&append(9));
                    let grandchild = fork.follow();
                    assert!(fork.show(fork_shows, killed).is_ok());
                    assert!(grandchild.lock().show(fork_shows + 1, killed).is_err());
                }
            }
        }
    }

    #[test]
    fn settings_have_their_own_window() {
        let mut model = Model::new(Durability::Local);
        model.send_setting();
        model.acknowledge_setting(1, Instant::now());
        model.send_setting();
        assert!(model.show_setting(0, Seen::Live).is_err());
        assert!(model.clone().show_setting(1, Seen::Live).is_ok());
        assert!(model.show_setting(2, Seen::Live).is_ok());
    }
}
