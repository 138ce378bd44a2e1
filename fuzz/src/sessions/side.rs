//! One of the two servers, and what it answers to a program.

use std::collections::BTreeMap;
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

/// The sessions of a program on one side.
#[derive(Debug)]
pub struct Cast {
    side: Side,
    database: String,
    clerk: Actor,
    actors: Vec<Actor>,
}

#[derive(Debug)]
struct Actor {
    client: Client,
    notifications: Vec<String>,
    /// What it was told of its settings: being told the same again makes no difference.
    parameters: BTreeMap<String, String>,
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

    /// Begins the sessions of a program, in a database of its own.
    ///
    /// # Errors
    /// Why they cannot begin.
    pub async fn begin(&self, program: &Program) -> Result<Cast, String> {
        let database = format!("p{}", program.seed);
        let mut clerk = self.open(&Opening::plain("postgres")).await?;
        clerk.must(&drop(&database), self.patience).await?;
        clerk
            .must(&format!("CREATE DATABASE {database}"), self.patience)
            .await?;
        let mut own = self.open(&Opening::plain(&database)).await?;
        for sql in set_up(program.sessions) {
            own.must(&sql, self.patience).await?;
        }
        let mut actors = Vec::new();
        for number in 0..program.sessions {
            let word = format!("w{number}");
            let settings = [
                ("application_name", word.as_str()),
                ("search_path", word.as_str()),
                ("TimeZone", "UTC"),
                ("DateStyle", "ISO, MDY"),
                ("my.a", "from the start"),
                ("my.b", word.as_str()),
            ];
            actors.push(self.open(&Opening::with(&database, &settings)).await?);
        }
        Ok(Cast {
            side: *self,
            database,
            clerk,
            actors,
        })
    }

    async fn open(&self, opening: &Opening) -> Result<Actor, String> {
        let client = Client::open(self.address, opening, self.patience).await;
        let mut actor = Actor {
            client: client.map_err(|error| format!("{error:?}"))?,
            notifications: Vec::new(),
            parameters: BTreeMap::new(),
            is_skipping: false,
        };
        let greeting = actor.until(Until::Ready, self.patience).await;
        match greeting.last() {
            Some(last) if last == "Z I" => Ok(actor),
            _ => Err(format!("no session: {greeting:?}")),
        }
    }
}

impl Cast {
    /// The answer to an op.
    pub async fn ask(&mut self, session: usize, op: &Op) -> Vec<String> {
        if op.until == Until::Pause {
            tokio::time::sleep(self.side.pause).await;
        }
        match self.actors.get_mut(session) {
            Some(actor) => actor.ask(op, self.side.patience).await,
            None => Vec::new(),
        }
    }

    /// The notifications of each session.
    pub async fn notifications(&mut self) -> Vec<Vec<String>> {
        let mut told = Vec::new();
        for actor in &mut self.actors {
            told.push(actor.all_notifications(self.side.patience).await);
        }
        told
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// If the database cannot be dropped.
    pub async fn end(mut self) -> Result<(), String> {
        self.clerk
            .must(&drop(&self.database), self.side.patience)
            .await
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

    async fn until(&mut self, mut until: Until, patience: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let before = self.parameters.clone();
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
            if let Some((name, value)) = answer::parameter(&frame) {
                self.parameters.insert(name, value);
                continue;
            }
            if frame.kind() == kind::READY_FOR_QUERY {
                let now = self.parameters.iter();
                let new = now.filter(|(name, value)| before.get(*name) != Some(value));
                lines.extend(new.map(|(name, value)| format!("{name} is {value}")));
            }
            lines.push(answer::text(&frame));
            match (frame.kind(), until) {
                (kind::READY_FOR_QUERY, Until::SecondReady) => until = Until::Ready,
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

fn drop(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")
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
