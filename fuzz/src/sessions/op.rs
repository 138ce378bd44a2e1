//! What one session does between two messages of others.

use std::fmt;

use crate::protocol::message::Message;

/// Where its answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With `ReadyForQuery`.
    Ready,
    /// With the second one.
    SecondReady,
    /// With a message of one of these kinds, or an error: a `Flush` asked for it.
    Kind(&'static [u8]),
    /// There is no answer: time passes, so that databases go to sleep.
    Pause,
}

/// What it does to the session's hold on its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    Nothing,
    /// It begins a transaction, or an extended query that is not at its end.
    Begin,
    /// It ends that.
    End,
    /// It leaves something that only its process has.
    Bind,
}

/// Messages of one session, and where their answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// What is sent.
    pub messages: Vec<Message>,
    /// Where the answer ends.
    pub until: Until,
    /// What it means for the process.
    pub hold: Hold,
}

impl Op {
    /// A simple query.
    pub fn query(sql: &str, hold: Hold) -> Self {
        Self {
            messages: vec![Message::query(sql)],
            until: Until::Ready,
            hold,
        }
    }

    /// Time that passes.
    pub fn pause() -> Self {
        Self {
            messages: Vec::new(),
            until: Until::Pause,
            hold: Hold::Nothing,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.until == Until::Pause {
            return out.write_str("time passes");
        }
        let labels: Vec<_> = self
            .messages
            .iter()
            .map(|message| message.label.as_str())
            .collect();
        out.write_str(&labels.join(" | "))
    }
}
