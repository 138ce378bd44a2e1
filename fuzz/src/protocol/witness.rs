//! A client that behaves well, beside those that do not.

use std::sync::Arc;

use wire::PgError;
use wire::pg::backend::{DataRow, kind};
use wire::pg::frontend::{self, Bind, Execute, Param, Parse};
use wire::{Severity, sqlstate};

use super::canary::Canary;
use super::client::{Client, Incoming};
use super::judge::{Seen, judge};
use super::message::Message;
use super::opening::Opening;
use super::play::Stage;

/// What stories find in a database.
const SET_UP: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS known AS SELECT n, repeat(chr(64 + n), n) AS s FROM generate_series(1, 20) AS n",
    "CREATE TABLE IF NOT EXISTS scratch (n int, s text)",
    "CREATE SEQUENCE IF NOT EXISTS shared",
    "DO $$ BEGIN IF to_regrole('other') IS NULL THEN CREATE ROLE other LOGIN; END IF; END $$",
    "GRANT ALL ON known, scratch, shared TO other",
    "TRUNCATE scratch",
];

/// A session that keeps what it has over all stories.
#[derive(Debug)]
pub struct Witness {
    client: Client,
    stage: Arc<Stage>,
    canary: Canary,
    process_id: u32,
    last_value: String,
}

/// Why it has no answer.
#[derive(Debug)]
pub enum Trouble {
    /// Others have all processes.
    Busy,
    /// It is not right.
    Wrong(String),
}

type Rows = Vec<Vec<Option<String>>>;

impl Witness {
    /// Comes, and sets the database up.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn sit(stage: &Arc<Stage>, database: &str, canary: Canary) -> Result<Self, Trouble> {
        let mut witness = Self::come(stage, database, canary).await?;
        for sql in SET_UP {
            witness.query(sql).await?;
        }
        let own = witness.canary.as_str().to_owned();
        witness.query(&format!("SET my.canary = '{own}'")).await?;
        let prepare = format!("PREPARE own (int) AS SELECT '{own}' || $1 AS c");
        witness.query(&prepare).await?;
        let last = witness.query("SELECT nextval('shared')").await?;
        witness.last_value = last.concat().into_iter().flatten().collect();
        let parse = Message::built("", |out| {
            let sql = format!("SELECT $1::int + 1, '{own}'");
            let param_oids = Vec::new();
            Parse {
                statement: b"bound",
                sql: sql.as_bytes(),
                param_oids,
            }
            .encode(out)
        });
        witness.ask(&[parse, Message::sync()]).await?;
        Ok(witness)
    }

    /// A new one, that only looks.
    async fn come(stage: &Arc<Stage>, database: &str, canary: Canary) -> Result<Self, Trouble> {
        stage.canaries.add(&canary);
        let opening = Opening::plain(database);
        let client = Client::open(stage.address, &opening, stage.patience).await;
        let client = client.map_err(|error| Trouble::Wrong(format!("{error:?}")))?;
        let mut witness = Self {
            client,
            stage: Arc::clone(stage),
            canary,
            process_id: 0,
            last_value: String::new(),
        };
        witness.answer().await?;
        Ok(witness)
    }

    /// Comes, looks, and goes.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn visit(stage: &Arc<Stage>, database: &str, canary: Canary) -> Result<(), Trouble> {
        let mut witness = Self::come(stage, database, canary).await?;
        witness.see_known().await?;
        witness.client.send(&Message::terminate().bytes, &[]).await;
        Ok(())
    }

    /// Makes sure that everything is as it was.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn check(&mut self) -> Result<(), Trouble> {
        self.see_known().await?;
        let own = "SELECT current_setting('my.canary'), lastval(), pg_backend_pid(), \
                   current_setting('application_name'), session_user, current_user";
        let rows = self.query(own).await?;
        let mine = [
            self.canary.as_str(),
            &self.last_value,
            &self.process_id.to_string(),
            "",
            "postgres",
            "postgres",
        ];
        expect(own, &rows, &[&mine])?;
        let rows = self.query("EXECUTE own (7)").await?;
        expect(
            "EXECUTE own",
            &rows,
            &[&[&format!("{}7", self.canary.as_str())]],
        )?;
        let messages = Message::built("", |out| {
            Bind {
                portal: b"",
                statement: b"bound",
                params: vec![Param::text(Some(b"41"))],
                result_formats: Vec::new(),
            }
            .encode(out)?;
            let portal = b"";
            Execute {
                portal,
                rows_max: 0,
            }
            .encode(out)?;
            frontend::sync(out);
            Ok(())
        });
        let rows = self.ask(&[messages]).await?;
        expect("bound", &rows, &[&["42", self.canary.as_str()]])
    }

    async fn see_known(&mut self) -> Result<(), Trouble> {
        let rows = self.query("SELECT n, s FROM known ORDER BY n").await?;
        let known: Vec<_> = (1..=20_u8)
            .map(|n| {
                [
                    n.to_string(),
                    char::from(64 + n).to_string().repeat(n.into()),
                ]
            })
            .collect();
        let known: Vec<_> = known
            .iter()
            .map(|[n, s]| [n.as_str(), s.as_str()])
            .collect();
        let known: Vec<&[&str]> = known.iter().map(|row| &row[..]).collect();
        expect("known", &rows, &known)
    }

    async fn query(&mut self, sql: &str) -> Result<Rows, Trouble> {
        let outcome = self.ask(&[Message::query(sql)]).await;
        outcome.map_err(|trouble| match trouble {
            Trouble::Wrong(what) => Trouble::Wrong(format!("{sql}: {what}")),
            Trouble::Busy => Trouble::Busy,
        })
    }

    async fn ask(&mut self, messages: &[Message]) -> Result<Rows, Trouble> {
        for message in messages {
            self.client.send(&message.bytes, &[]).await;
        }
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Rows, Trouble> {
        let mut rows = Rows::new();
        let mut error: Option<PgError> = None;
        loop {
            let frame = match self.client.next(self.stage.patience).await {
                None => return Err(Trouble::Wrong("no answer".to_owned())),
                Some(Incoming::Frame(frame)) => frame,
                Some(end) => return Err(ended(error, &end)),
            };
            let seen = judge(&frame, &self.canary, &self.stage.canaries).map_err(Trouble::Wrong)?;
            match seen {
                Seen::Ready(_) => match error {
                    None => return Ok(rows),
                    Some(error) => return Err(told(&error)),
                },
                Seen::Error(told) => error = Some(told),
                Seen::Key(id, _) => self.process_id = id,
                Seen::Other if frame.kind() == kind::DATA_ROW => {
                    let row = DataRow::decode(frame.body()).map_err(|error| told(&error))?;
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    rows.push(row.map(|value| value.map(text)).collect());
                }
                Seen::Other => {}
            }
        }
    }
}

fn told(error: &PgError) -> Trouble {
    match error.code() {
        sqlstate::TOO_MANY_CONNECTIONS => Trouble::Busy,
        _ => Trouble::Wrong(error.to_string()),
    }
}

fn ended(error: Option<PgError>, end: &Incoming) -> Trouble {
    match error {
        Some(error) if error.severity() == Severity::Fatal => told(&error),
        _ => Trouble::Wrong(format!("{end:?}")),
    }
}

fn expect(what: &str, rows: &Rows, expected: &[&[&str]]) -> Result<(), Trouble> {
    let same = rows.len() == expected.len()
        && rows.iter().zip(expected).all(|(row, expected)| {
            row.iter()
                .map(Option::as_deref)
                .eq(expected.iter().copied().map(Some))
        });
    match same {
        true => Ok(()),
        false => Err(Trouble::Wrong(format!(
            "{what}: {rows:?}, not {expected:?}"
        ))),
    }
}
