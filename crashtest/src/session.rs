//! A client's session in one database.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use crate::trouble::Trouble;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// SQLSTATEs that say that the server, or the backend, ends.
const ENDING: [&str; 3] = ["57P01", "57P02", "57P03"];

/// A row of text; `None` is null.
pub type Row = Vec<Option<String>>;

/// What a text of statements answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// Rows of all statements, in order.
    pub rows: Vec<Row>,
    /// How many rows each statement touched or returned.
    pub counts: Vec<u64>,
}

/// A session as `postgres`.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<Result<(), Error>>,
}

impl Session {
    /// Begins a session.
    ///
    /// # Errors
    /// [`Trouble`]: `3D000` if the database is not there.
    pub async fn open(server: SocketAddr, database: &str) -> Result<Self, Trouble> {
        let mut config = Config::new();
        config
            .host(server.ip().to_string())
            .port(server.port())
            .user("postgres")
            .dbname(database)
            .application_name("crashtest");
        let (client, connection) = patiently(database, config.connect(NoTls)).await?;
        let driver = tokio::spawn(connection);
        Ok(Self { client, driver })
    }

    /// Runs a text of statements in one message.
    ///
    /// # Errors
    /// [`Trouble`]: Postgres' first refusal.
    pub async fn run(&self, sql: &str) -> Result<Answer, Trouble> {
        let messages = patiently(sql, self.client.simple_query(sql)).await?;
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let value = |column| row.get(column).map(str::to_owned);
                    answer.rows.push((0..row.len()).map(value).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => answer.counts.push(count),
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Runs one statement by the extended protocol: the rows that it touched.
    ///
    /// # Errors
    /// [`Trouble`]: Postgres' refusal.
    pub async fn execute(&self, sql: &str) -> Result<u64, Trouble> {
        patiently(sql, self.client.execute(sql, &[])).await
    }

    /// Ends the session, and waits until the socket is closed.
    ///
    /// # Errors
    /// [`Trouble::Gone`] if it had ended otherwise.
    pub async fn close(self) -> Result<(), Trouble> {
        let Self { client, driver } = self;
        drop(client);
        match timeout(PATIENCE, driver).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(trouble("the end of a session", &error)),
            Ok(Err(error)) => Err(Trouble::Gone(error.to_string())),
            Err(_) => Err(too_long("the end of a session")),
        }
    }
}

async fn patiently<T>(
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(trouble(what, &error)),
        Err(_) => Err(too_long(what)),
    }
}

fn too_long(what: &str) -> Trouble {
    Trouble::Broken(format!(
        "no answer within {} s: {}",
        PATIENCE.as_secs(),
        brief(what)
    ))
}

fn trouble(what: &str, error: &Error) -> Trouble {
    let Some(refusal) = error.as_db_error() else {
        return Trouble::Gone(with_causes(error));
    };
    let code = refusal.code().code();
    let mut message = refusal.message().to_owned();
    if let Some(detail) = refusal.detail() {
        message.push_str(&format!(" ({detail})"));
    }
    if ENDING.contains(&code) {
        return Trouble::Gone(format!("{code}: {message}"));
    }
    Trouble::Refused {
        code: code.to_owned(),
        message: format!("{message}: {}", brief(what)),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The beginning of a statement.
fn brief(sql: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let mut text: String = sql.chars().take(CHARACTERS_MAX).collect();
    if text.len() < sql.len() {
        text.push_str("...");
    }
    text
}
