//! One of the two servers, and what it answers to a program.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::pg::backend::kind;

use super::answer;
use super::op::{Op, Until};
use super::program::Program;
use crate::protocol::client::{Client, Incoming};
use crate::protocol::opening::Opening;

/// A server.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Where it speaks PostgreSQL's protocol.
    pub address: SocketAddr,
    /// The longest silence before an answer.
    pub patience: Duration,
    /// How long a pause is.
    pub pause: Duration,
}

/// The answers to each op, and the notifications of each session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Of the ops.
    pub ops: Vec<Vec<String>>,
    /// Of the sessions.
    pub notifications: Vec<Vec<String>>,
}

struct Actor {
    client: Client,
    notifications: Vec<String>,
    /// An error has been told, and no `Sync` was sent since.
    is_skipping: bool,
}

impl Side {
    /// Waits until it lets somebody in.
    ///
    /// # Errors
    /// Why it does not, for so long.
    pub async fn ready(&self, time: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match self.open(&Opening::plain("postgres")).await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > time => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Runs a program in a database of its own.
    ///
    /// # Errors
    /// If it cannot be begun or ended.
    pub async fn play(&self, program: &Program) -> Result<Answers, String> {
        let database = format!("p{}", program.seed);
        let mut clerk = self.open(&Opening::plain("postgres")).await?;
        let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        clerk.must(&drop, self.patience).await?;
        clerk
            .must(&format!("CREATE DATABASE {database}"), self.patience)
            .await?;
        let mut own = self.open(&Opening::plain(&database)).await?;
        for sql in set_up(program.sessions) {
            own.must(&sql, self.patience).await?;
        }
        std::mem::drop(own);
        let answers = self.act(program, &database).await?;
        clerk.must(&drop, self.patience).await?;
        Ok(answers)
    }

    async fn act(&self, program: &Program, database: &str) -> Result<Answers, String> {
        let mut actors = Vec::new();
        for number in 0..program.sessions {
            let word = format!("w{number}");
            let mut settings = vec![
                ("application_name", word.as_str()),
                ("search_path", word.as_str()),
                ("TimeZone", "UTC"),
                ("DateStyle", "ISO, MDY"),
            ];
            if number % 2 == 1 {
                settings.push(("my.b", "from the start"));
            }
            actors.push(self.open(&Opening::with(database, &settings)).await?);
        }
        let mut ops = Vec::new();
        for (session, op) in &program.ops {
            if op.until == Until::Pause {
                tokio::time::sleep(self.pause).await;
            }
            ops.push(actors[*session].ask(op, self.patience).await);
        }
        let mut notifications = Vec::new();
        for actor in &mut actors {
            notifications.push(actor.all_notifications(self.patience).await);
        }
        Ok(Answers { ops, notifications })
    }

    async fn open(&self, opening: &Opening) -> Result<Actor, String> {
        let client = Client::open(self.address, opening, self.patience).await;
        let mut actor = Actor {
            client: client.map_err(|error| format!("{error:?}"))?,
            notifications: Vec::new(),
            is_skipping: false,
        };
        let greeting = actor.until(Until::Ready, self.patience).await;
        match greeting.last() {
            Some(last) if last == "Z I" => Ok(actor),
            _ => Err(format!("no session: {greeting:?}")),
        }
    }
}

impl Actor {
    async fn ask(&mut self, op: &Op, patience: Duration) -> Vec<String> {
        for message in &op.messages {
            if !self.client.send(&message.bytes, &[]).await {
                return vec!["the connection takes no more".to_owned()];
            }
        }
        match op.until {
            Until::Pause => Vec::new(),
            Until::Kind(_) if self.is_skipping => Vec::new(),
            until => self.until(until, patience).await,
        }
    }

    async fn must(&mut self, sql: &str, patience: Duration) -> Result<(), String> {
        let answer = self
            .ask(&Op::query(sql, super::op::Hold::Nothing), patience)
            .await;
        match answer.iter().find(|line| line.starts_with('E')) {
            Some(error) => Err(format!("{sql}: {error}")),
            None if answer.last().is_some_and(|last| last == "Z I") => Ok(()),
            None => Err(format!("{sql}: {answer:?}")),
        }
    }

    async fn until(&mut self, until: Until, patience: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let frame = match self.client.next(patience).await {
                Some(Incoming::Frame(frame)) => frame,
                Some(end) => {
                    lines.push(format!("{end:?}"));
                    return lines;
                }
                None => {
                    lines.push("silence".to_owned());
                    return lines;
                }
            };
            if let Some(notification) = answer::notification(&frame) {
                self.notifications.push(notification);
                continue;
            }
            lines.push(answer::text(&frame));
            match (frame.kind(), until) {
                (kind::READY_FOR_QUERY, _) => {
                    self.is_skipping = false;
                    return lines;
                }
                (kind::ERROR_RESPONSE, Until::Kind(_)) => {
                    self.is_skipping = true;
                    return lines;
                }
                (kind, Until::Kind(kinds)) if kinds.contains(&kind) => return lines,
                _ => {}
            }
        }
    }

    /// All that came, to the last one: there is none behind one's own.
    async fn all_notifications(&mut self, patience: Duration) -> Vec<String> {
        const LAST: &str = "fin\\x00\\x00";
        for sql in ["LISTEN fin", "NOTIFY fin", "UNLISTEN *", "SELECT 1"] {
            let query = Op::query(sql, super::op::Hold::Nothing);
            self.ask(&query, patience).await;
        }
        let place = self.notifications.iter().position(|told| told == LAST);
        let mut told = std::mem::take(&mut self.notifications);
        match place {
            Some(place) => told.truncate(place),
            None => told.push("the last one is missing".to_owned()),
        }
        told
    }
}

/// What the program finds.
fn set_up(sessions: usize) -> Vec<String> {
    let role = |name: &str| {
        format!(
            "DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name}; END IF; END $$"
        )
    };
    let mut all = vec![
        role("fuzz_one"),
        role("fuzz_two"),
        "CREATE TABLE public.common AS SELECT n, repeat('x', n) AS s FROM generate_series(1, 20) AS n".to_owned(),
        "GRANT SELECT ON public.common TO fuzz_one".to_owned(),
    ];
    for number in 0..sessions {
        all.push(format!(
            "CREATE SCHEMA w{number}; CREATE SCHEMA w{number}_b"
        ));
        all.push(format!("GRANT ALL ON SCHEMA w{number} TO fuzz_one"));
    }
    all
}

/// The first op that was answered differently, or the first session that was notified differently.
pub fn difference(program: &Program, left: &Answers, right: &Answers) -> Option<String> {
    let pairs = left.ops.iter().zip(&right.ops).enumerate();
    let mut pairs = pairs.filter(|(_, (left, right))| left != right);
    if let Some((number, (left, right))) = pairs.next() {
        let op = program.ops.get(number);
        let op = op.map_or_else(String::new, |(session, op)| format!("w{session}: {op}"));
        return Some(format!(
            "op {number} {op}\n  dormouse: {}\n  native:   {}",
            left.join("\n            "),
            right.join("\n            ")
        ));
    }
    let told = left
        .notifications
        .iter()
        .zip(&right.notifications)
        .enumerate();
    let mut told = told.filter(|(_, (left, right))| left != right);
    let (session, (left, right)) = told.next()?;
    Some(format!(
        "notifications of w{session}\n  dormouse: {left:?}\n  native:   {right:?}"
    ))
}
