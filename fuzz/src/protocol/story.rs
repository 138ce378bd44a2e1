//! What one connection does, from its beginning to its end.

use std::fmt;

use sim::Random;
use wire::pg::frontend::kind;

use super::canary::Canary;
use super::message::Message;
use super::opening::Opening;
use super::{damage, pipeline, sql};

/// All of it follows from a seed.
#[derive(Debug, Clone)]
pub struct Story {
    /// Its seed.
    pub seed: u64,
    /// Its own token.
    pub canary: Canary,
    /// Where it happens.
    pub database: String,
    /// How it begins.
    pub opening: Opening,
    /// What happens then.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

/// By these PostgreSQL 18 itself ends a session, amid an extended query.
const SAVEPOINTS: [&str; 3] = ["SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"];

/// What all stories of a run have in common.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Where they may happen.
    pub databases: Vec<String>,
    /// A simple query may come amid an extended one.
    pub mixed_queries: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Messages are sent, in pieces of so many bytes.
    Send(Vec<Message>, Vec<usize>),
    /// The answer to everything before it must come.
    Settle(Settling),
    /// The session's statement is cancelled by its key, or by a wrong one.
    Cancel {
        /// The key is right.
        is_right: bool,
    },
}

/// How a story makes sure that it has every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// By the end of its transaction, and a query that must work.
    Query,
    /// By an error.
    Error,
}

/// How a connection ends.
#[derive(Debug, Clone)]
pub enum End {
    /// As it should.
    Terminate,
    /// It is closed.
    Close,
    /// Our direction is closed first.
    HalfClose,
    /// By messages whose answers nobody waits for.
    Amid(Vec<Message>),
    /// By bytes that are no message; the server must say so, unless it may wait for more.
    Ruin(Message, bool),
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64, plot: &Plot) -> Self {
        let mut random = Random::new(seed);
        let canary = Canary::draw(&mut random);
        let database = random.pick(&plot.databases).clone();
        let opening = Opening::draw(&mut random, &database, &canary);
        let mut steps = Vec::new();
        for _ in 0..random.within(1..=8) {
            let messages = messages(&mut random, &canary, plot);
            let pieces = pieces(&mut random, &messages);
            steps.push(Step::Send(messages, pieces));
            if random.one_in(10) {
                let is_right = !random.one_in(3);
                steps.push(Step::Cancel { is_right });
            }
            if !random.one_in(4) {
                steps.push(Step::Settle(match random.one_in(2) {
                    true => Settling::Query,
                    false => Settling::Error,
                }));
            }
        }
        let end = end(&mut random, &canary, plot);
        if matches!(end, End::Terminate | End::Ruin(_, true)) {
            steps.push(Step::Settle(Settling::Query));
        }
        Self {
            seed,
            canary,
            database,
            opening,
            steps,
            end,
        }
    }
}

fn messages(random: &mut Random, canary: &Canary, plot: &Plot) -> Vec<Message> {
    let mut messages = Vec::new();
    for _ in 0..random.within(1..=8) {
        match random.below(10) {
            0..4 => messages.push(Message::query(&sql::text(random, canary))),
            4..7 => messages.extend(pipeline::usual(random, canary)),
            7 => messages.extend(pipeline::copy_in(random, canary)),
            _ => messages.push(pipeline::message(random, canary)),
        }
    }
    if random.one_in(4) && !messages.is_empty() {
        let place = random.index(messages.len());
        messages[place] = damage::body(&messages[place], random);
    }
    if !plot.mixed_queries {
        let is_query = |message: &Message| message.bytes.first() == Some(&kind::QUERY);
        let apart = |message: Message| {
            let sync = is_query(&message).then(Message::sync);
            sync.into_iter().chain([message])
        };
        messages.retain(|message| {
            let label = &message.label;
            !(label.starts_with("Parse") && SAVEPOINTS.iter().any(|word| label.contains(word)))
        });
        messages = messages.into_iter().flat_map(apart).collect();
    }
    messages
}

/// Sizes of pieces; what is left over comes in one.
fn pieces(random: &mut Random, messages: &[Message]) -> Vec<usize> {
    let bytes: usize = messages.iter().map(|message| message.bytes.len()).sum();
    let count = if random.one_in(3) { random.below(6) } else { 0 };
    (0..count)
        .map(|_| random.within(1..=bytes.max(1) as u64) as usize)
        .collect()
}

fn end(random: &mut Random, canary: &Canary, plot: &Plot) -> End {
    match random.below(10) {
        0..4 => End::Terminate,
        4 => End::Close,
        5 => End::HalfClose,
        6..8 => End::Amid(messages(random, canary, plot)),
        _ => {
            let message = pipeline::message(random, canary);
            let (message, must_end) = damage::ruin(&message, random);
            End::Ruin(message, must_end)
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "story {} in {} with {}",
            self.seed,
            self.database,
            self.canary.as_str()
        )?;
        for wish in &self.opening.wishes {
            writeln!(out, "  wish {wish}")?;
        }
        writeln!(out, "  {}", self.opening.packet.label)?;
        for step in &self.steps {
            match step {
                Step::Send(messages, pieces) => {
                    writeln!(out, "  send, first in pieces of {pieces:?}")?;
                    for message in messages {
                        writeln!(out, "    {}", message.label)?;
                    }
                }
                step => writeln!(out, "  {step:?}")?,
            }
        }
        match &self.end {
            End::Amid(messages) => {
                writeln!(out, "  end amid")?;
                for message in messages {
                    writeln!(out, "    {}", message.label)?;
                }
                Ok(())
            }
            End::Ruin(message, must_end) => writeln!(out, "  end by {}, {must_end}", message.label),
            end => writeln!(out, "  end: {end:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_of_it() {
        let plot = Plot {
            databases: vec!["a".to_owned(), "b".to_owned()],
            mixed_queries: true,
        };
        for seed in 0..200 {
            let story = Story::of(seed, &plot);
            assert_eq!(story.to_string(), Story::of(seed, &plot).to_string());
        }
        let [one, other] = [1, 2].map(|seed| Story::of(seed, &plot).to_string());
        assert_ne!(one, other);
    }
}
