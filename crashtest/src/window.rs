//! Numbered changes, one after another: which were sent, which acknowledged, and how many of them
//! a database may show.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How durable an acknowledged change is when the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is there, always.
    Local,
    /// It is there if it was acknowledged at least this long before.
    Relaxed(Duration),
}

/// When a database is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The server has run since the last acknowledgement, or was stopped in order.
    Live,
    /// The server was killed at this moment.
    Killed(Instant),
}

/// The changes `1..=sent`.
#[derive(Debug, Clone)]
pub struct Window {
    durability: Durability,
    /// Ascending. The first has been durable as long as it matters.
    acks: VecDeque<Ack>,
    sent: u64,
}

#[derive(Debug, Clone, Copy)]
struct Ack {
    number: u64,
    /// `None` for what a database has shown after a crash: that was durable.
    at: Option<Instant>,
}

impl Window {
    /// Nothing sent yet.
    pub fn new(durability: Durability) -> Self {
        let none = Ack {
            number: 0,
            at: None,
        };
        Self {
            durability,
            acks: VecDeque::from([none]),
            sent: 0,
        }
    }

    /// The last change that was sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The last change that was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acks.back().map_or(0, |ack| ack.number)
    }

    /// A number below which nothing can be lost any more.
    pub fn settled(&self) -> u64 {
        self.acks.front().map_or(0, |ack| ack.number)
    }

    /// One more is sent: its number.
    pub fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// This one, and all before it, were acknowledged.
    pub fn acknowledge(&mut self, number: u64, at: Instant) {
        if number > self.acknowledged() {
            self.acks.push_back(Ack {
                number,
                at: Some(at),
            });
        }
        let lag = match self.durability {
            Durability::Local => Duration::ZERO,
            Durability::Relaxed(lag) => lag,
        };
        while self
            .acks
            .get(1)
            .is_some_and(|next| next.is_durable(lag, at))
        {
            self.acks.pop_front();
        }
    }

    /// The lowest number that a database may show.
    pub fn floor(&self, seen: Seen) -> u64 {
        match (seen, self.durability) {
            (Seen::Live, _) | (_, Durability::Local) => self.acknowledged(),
            (Seen::Killed(at), Durability::Relaxed(lag)) => {
                let durable = self.acks.iter().rev().find(|ack| ack.is_durable(lag, at));
                durable.map_or_else(|| self.settled(), |ack| ack.number)
            }
        }
    }

    /// For how long, before the kill, what comes after this number had been acknowledged at least;
    /// `None` if nothing tells.
    pub fn acknowledged_for(&self, number: u64, seen: Seen) -> Option<Duration> {
        let Seen::Killed(killed) = seen else {
            return None;
        };
        let ack = self.acks.iter().find(|ack| ack.number > number)?;
        Some(killed.saturating_duration_since(ack.at?))
    }

    /// The database shows this number: later ones are not there and never will be.
    pub fn show(&mut self, number: u64, seen: Seen, now: Instant) {
        self.sent = number;
        match seen {
            Seen::Live => self.acknowledge(number, now),
            Seen::Killed(_) => self.acks = VecDeque::from([Ack { number, at: None }]),
        }
    }
}

impl Ack {
    fn is_durable(&self, lag: Duration, at: Instant) -> bool {
        self.at.is_none_or(|acknowledged| acknowledged + lag <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn local_forgives_nothing_acknowledged() {
        let start = Instant::now();
        let mut window = Window::new(Durability::Local);
        for _ in 0..3 {
            window.send();
        }
        window.acknowledge(2, start + SECOND);
        // The acknowledgement may have come while the kill was under way.
        assert_eq!(window.floor(Seen::Killed(start)), 2);
        assert_eq!((window.floor(Seen::Live), window.sent()), (2, 3));
        assert_eq!(window.settled(), 2);
        window.show(3, Seen::Killed(start), start);
        assert_eq!((window.acknowledged(), window.sent()), (3, 3));
    }

    #[test]
    fn relaxed_forgives_the_last_moments() {
        let start = Instant::now();
        let mut window = Window::new(Durability::Relaxed(SECOND));
        for number in 1..=5 {
            window.send();
            window.acknowledge(number, start + u32::try_from(number).unwrap() * SECOND);
        }
        assert_eq!(window.floor(Seen::Killed(start + 5 * SECOND)), 4);
        assert_eq!(window.floor(Seen::Killed(start + 6 * SECOND)), 5);
        let missing = window.acknowledged_for(3, Seen::Killed(start + 6 * SECOND));
        assert_eq!(missing, Some(2 * SECOND));
        assert_eq!(window.floor(Seen::Live), 5);
        assert_eq!(window.settled(), 4);
        // What was lost is sent again, and what was found is durable.
        window.show(4, Seen::Killed(start + 5 * SECOND), start + 5 * SECOND);
        assert_eq!(window.send(), 5);
        assert_eq!(window.floor(Seen::Killed(start)), 4);
    }
}
