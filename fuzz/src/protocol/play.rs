//! Plays a story, and looks at every answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wire::PgError;
use wire::pg::{Frame, TransactionStatus, backend};
use wire::{Severity, sqlstate};

use super::canary::{Canaries, Canary};
use super::client::{Client, Incoming, NotOpened};
use super::judge::{Seen, judge};
use super::message::Message;
use super::opening;
use super::story::{End, Settling, Step, Story};

/// How a server says that a message in the midst of a `COPY` was none of a `COPY`.
const OUT_OF_STEP: &str = "terminating connection because protocol synchronization was lost";
/// What PostgreSQL 18 itself says to the next query, if an extended query that was executed, a simple one and a
/// `Sync` came before.
const UNEXPECTED: &str = "StartTransactionCommand: unexpected state STARTED";
/// How long a query that was hindered may be silent before it is asked again.
const AGAIN: Duration = Duration::from_millis(300);
const TRIES: usize = 100;
/// How long bytes that may be the beginning of something are waited for.
const GLANCE: Duration = Duration::from_millis(50);

/// Where stories are played.
#[derive(Debug)]
pub struct Stage {
    /// The server.
    pub address: SocketAddr,
    /// Everybody's canaries.
    pub canaries: Canaries,
    /// The longest silence before an answer.
    pub patience: Duration,
}

/// How a story went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To its end.
    Played,
    /// The server let nobody in, as the opening deserved, or as it was full.
    NotIn,
    /// The session was ended before.
    Ended,
}

/// Why a story does not go on.
enum Stop {
    Ended,
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

struct Actor<'a> {
    client: Client,
    stage: &'a Stage,
    canary: &'a Canary,
    key: Option<(u32, Vec<u8>)>,
    /// The error that should be the last.
    fatal: Option<PgError>,
    marks: usize,
}

/// Plays it.
///
/// # Errors
/// What should not have happened.
pub async fn play(story: &Story, stage: &Stage) -> Result<Outcome, String> {
    stage.canaries.add(&story.canary);
    let client = match Client::open(stage.address, &story.opening, stage.patience).await {
        Ok(client) => client,
        Err(NotOpened::Silent) => return Err("a wish for encryption has no answer".to_owned()),
        Err(NotOpened::Wrong(byte)) => return Err(format!("a wish for encryption: {byte:#x}")),
        Err(NotOpened::Broken(error)) => return Err(format!("no connection: {error}")),
    };
    let mut actor = Actor {
        client,
        stage,
        canary: &story.canary,
        key: None,
        fatal: None,
        marks: 0,
    };
    if !actor.greet(story.opening.is_usual).await? {
        return Ok(Outcome::NotIn);
    }
    match actor.act(story).await {
        Ok(()) => Ok(Outcome::Played),
        Err(Stop::Ended) => Ok(Outcome::Ended),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

impl Actor<'_> {
    /// Whether there is a session.
    async fn greet(&mut self, is_usual: bool) -> Result<bool, String> {
        let patience = if is_usual {
            self.stage.patience
        } else {
            4 * GLANCE
        };
        loop {
            match self.client.next(patience).await {
                None if is_usual => return Err("no answer to the startup packet".to_owned()),
                None => return Ok(false),
                Some(Incoming::Garbled(what)) => return Err(what),
                Some(Incoming::Closed) => {
                    let busy = |error: &PgError| error.code() == sqlstate::TOO_MANY_CONNECTIONS;
                    return match &self.fatal {
                        Some(error) if is_usual && !busy(error) => Err(format!("refused: {error}")),
                        None if is_usual => Err("closed without a word".to_owned()),
                        _ => Ok(false),
                    };
                }
                Some(Incoming::Frame(frame)) => match self.look(&frame)? {
                    Seen::Ready(TransactionStatus::Idle) => return Ok(is_usual),
                    Seen::Ready(status) => return Err(format!("it begins {status:?}")),
                    _ => {}
                },
            }
        }
    }

    async fn act(&mut self, story: &Story) -> Result<(), Stop> {
        for step in &story.steps {
            match step {
                Step::Send(messages, pieces) => self.send(messages, pieces).await?,
                Step::Settle(settling) => self.settle(*settling).await?,
                Step::Cancel { is_right } => self.cancel(*is_right).await,
            }
        }
        match &story.end {
            End::Terminate => {
                self.send(&[Message::terminate()], &[]).await?;
                self.until_closed(None).await
            }
            End::Close => Ok(()),
            End::HalfClose => {
                self.client.half_close().await;
                self.until_closed(None).await
            }
            End::Amid(messages) => self.send(messages, &[]).await,
            End::Ruin(message, must_end) => {
                self.send(std::slice::from_ref(message), &[]).await?;
                match must_end {
                    true => self.until_closed(Some(is_refusal)).await,
                    false => {
                        self.client.half_close().await;
                        self.until_closed(None).await
                    }
                }
            }
        }
    }

    async fn send(&mut self, messages: &[Message], pieces: &[usize]) -> Result<(), Stop> {
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.bytes.clone())
            .collect();
        match self.client.send(&bytes, pieces).await {
            true => Ok(()),
            false => self.ended().await,
        }
    }

    /// The connection takes no more: why.
    async fn ended(&mut self) -> Result<(), Stop> {
        self.until_closed(Some(is_deserved)).await?;
        Err(Stop::Ended)
    }

    async fn until_closed(&mut self, by: Option<fn(&PgError) -> bool>) -> Result<(), Stop> {
        loop {
            match self.client.next(self.stage.patience).await {
                None => {
                    return Err(Stop::Wrong(
                        "the server does not close the connection".to_owned(),
                    ));
                }
                Some(Incoming::Garbled(what)) => return Err(Stop::Wrong(what)),
                Some(Incoming::Frame(frame)) => drop(self.look(&frame)?),
                Some(Incoming::Closed) => {
                    let Some(by) = by else {
                        return Ok(());
                    };
                    return match &self.fatal {
                        Some(error) if by(error) => Ok(()),
                        Some(error) => Err(Stop::Wrong(format!("ended by {error}"))),
                        None => Err(Stop::Wrong("closed without a word".to_owned())),
                    };
                }
            }
        }
    }

    /// Waits for all answers. What the session was in before does not matter: a `COPY`, an error whose
    /// `Sync` is missing, a transaction.
    async fn settle(&mut self, settling: Settling) -> Result<(), Stop> {
        self.send(&[Message::copy_fail(), Message::sync()], &[])
            .await?;
        for _ in 0..TRIES {
            self.marks += 1;
            let mark = format!("mark{}of{}", self.marks, self.canary.as_str());
            match settling {
                Settling::Query => {
                    let query = Message::query(&format!("SELECT '{mark}'"));
                    self.send(&[Message::query("ROLLBACK"), query], &[]).await?;
                }
                Settling::Error => self.send(&[Message::query(&mark)], &[]).await?,
            }
            if self.until_marked(&mark, settling).await? {
                return Ok(());
            }
        }
        Err(Stop::Wrong(format!("{TRIES} times hindered")))
    }

    /// Whether the mark came, and the end of its query; not if something hindered it.
    async fn until_marked(&mut self, mark: &str, settling: Settling) -> Result<bool, Stop> {
        let mut is_marked = false;
        let mut hindered = false;
        loop {
            let patience = match hindered && !is_marked {
                true => AGAIN,
                false => self.stage.patience,
            };
            let frame = match self.client.next(patience).await {
                None if hindered && !is_marked => return Ok(false),
                None => return Err(Stop::Wrong(format!("no answer to {mark}"))),
                Some(Incoming::Garbled(what)) => return Err(Stop::Wrong(what)),
                Some(Incoming::Closed) => {
                    self.ended().await?;
                    continue;
                }
                Some(Incoming::Frame(frame)) => frame,
            };
            let has_mark = contains(frame.body(), mark.as_bytes());
            match self.look(&frame)? {
                Seen::Ready(TransactionStatus::Idle) if is_marked => return Ok(true),
                Seen::Ready(status) if is_marked => match settling {
                    Settling::Query => {
                        return Err(Stop::Wrong(format!("{status:?} after ROLLBACK")));
                    }
                    Settling::Error => return Ok(true),
                },
                Seen::Error(error) if is_hindrance(&error) => hindered = true,
                Seen::Error(_) => is_marked |= has_mark && settling == Settling::Error,
                _ => is_marked |= has_mark && frame.kind() == backend::kind::DATA_ROW,
            }
        }
    }

    fn look(&mut self, frame: &Frame) -> Result<Seen, String> {
        let seen = judge(frame, self.canary, &self.stage.canaries)?;
        match &seen {
            Seen::Key(id, key) => self.key = Some((*id, key.clone())),
            Seen::Error(error) if matches!(error.severity(), Severity::Fatal | Severity::Panic) => {
                self.fatal = Some(error.clone());
            }
            _ => {}
        }
        Ok(seen)
    }

    /// As `psql` does on Ctrl-C. What comes of it is seen on the session's own connection.
    async fn cancel(&self, is_right: bool) {
        let Some((id, key)) = &self.key else {
            return;
        };
        let mut key = key.clone();
        if !is_right && let Some(byte) = key.first_mut() {
            *byte ^= 1;
        }
        if let Ok(mut stream) = TcpStream::connect(self.stage.address).await {
            // Nothing is answered.
            let _ = stream.write_all(&opening::cancel(*id, &key)).await;
        }
    }
}

/// By these a session may be ended without a fault of the server: it was idle with a process of its own while
/// others waited, or sent something else amid a `COPY`.
fn is_deserved(error: &PgError) -> bool {
    error.code() == sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT || error.message() == OUT_OF_STEP
}

/// By these a query may fail that is right: all processes were taken, or a cancel came late.
fn is_hindrance(error: &PgError) -> bool {
    [sqlstate::TOO_MANY_CONNECTIONS, sqlstate::QUERY_CANCELED].contains(&error.code())
        || error.message() == UNEXPECTED
}

/// By these a session ends whose bytes are no message.
fn is_refusal(error: &PgError) -> bool {
    [
        sqlstate::PROTOCOL_VIOLATION,
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
    ]
    .contains(&error.code())
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
