//! What a client sends: one JSON object a message.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::isolation::Isolation;
use crate::http::params::Params;
use crate::http::visit::Rows;

/// What a setting takes in memory at least, beside its text.
const SETTING_BYTES: usize = 96;

/// The number by which a client calls a request.
pub(super) type Id = u64;

/// What a client wants.
#[derive(Debug)]
pub(super) enum Request {
    /// Something that is answered in its turn.
    Do {
        id: Id,
        /// In this transaction, or in none.
        transaction: Option<Id>,
        job: Job,
    },
    Begin {
        id: Id,
        modes: Modes,
    },
    /// To have a request ended.
    Cancel(Id),
    /// It has so many answers.
    Received(u64),
    /// To have an answer to show that both are there.
    Ping(Box<RawValue>),
    Resume(Resume),
}

/// What is answered in its turn.
#[derive(Debug)]
pub(super) enum Job {
    Run(Statement),
    Prepare { name: String, sql: String },
    Forget(String),
    Set(Wishes),
    Commit,
    Rollback,
}

/// A statement to run.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) source: Source,
    pub(super) params: Params,
    pub(super) rows: Rows,
    pub(super) timeout_ms: Option<u64>,
}

/// The text of a statement.
#[derive(Debug)]
pub(super) enum Source {
    Sql(String),
    /// One that was prepared under this name.
    Prepared(String),
}

/// The modes of a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Modes {
    isolation: Option<Isolation>,
    read_only: bool,
    deferrable: bool,
}

/// What holds for the requests behind it; what is null is as at the beginning again.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    #[serde(default, deserialize_with = "present")]
    pub(super) role: Option<Option<String>>,
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Option<String>>,
}

/// Which conversation a client was cut off from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    pub(super) session: String,
    pub(super) secret: String,
    /// How many answers it has of it.
    pub(super) received: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Message {
    id: Option<Id>,
    transaction: Option<Id>,
    sql: Option<String>,
    execute: Option<String>,
    params: Option<Params>,
    row_mode: Option<Rows>,
    timeout_ms: Option<u64>,
    prepare: Option<String>,
    forget: Option<String>,
    set: Option<Wishes>,
    begin: Option<Modes>,
    commit: Option<bool>,
    rollback: Option<bool>,
    cancel: Option<Id>,
    received: Option<u64>,
    ping: Option<Box<RawValue>>,
    resume: Option<Resume>,
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            return Err("a message is a JSON object".to_owned());
        }
        let mut message: Message = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if let Some(cancelled) = message.cancel {
            return Ok(Self::Cancel(cancelled));
        }
        if let Some(count) = message.received {
            return Ok(Self::Received(count));
        }
        if let Some(content) = message.ping {
            return Ok(Self::Ping(content));
        }
        if let Some(resume) = message.resume {
            return Ok(Self::Resume(resume));
        }
        let id = message.id.ok_or("\"id\" is missing")?;
        if let Some(modes) = message.begin {
            return Ok(Self::Begin { id, modes });
        }
        let transaction = message.transaction;
        let job = message.job()?;
        Ok(Self::Do {
            id,
            transaction,
            job,
        })
    }
}

impl Request {
    /// What it takes in memory while it waits, beside the text of its message. Parameters are one text, however many.
    pub(super) fn bytes_beside(&self) -> usize {
        match self {
            Self::Do {
                job: Job::Set(wishes),
                ..
            } => wishes.settings.len() * SETTING_BYTES,
            _ => 0,
        }
    }
}

impl Message {
    fn job(&mut self) -> Result<Job, String> {
        let ends = [self.commit, self.rollback].contains(&Some(true));
        if ends && self.transaction.is_none() {
            return Err("\"transaction\" says which one to end".to_owned());
        }
        if let Some(name) = self.prepare.take() {
            let sql = self.sql.take().ok_or("\"prepare\" needs \"sql\"")?;
            return Ok(Job::Prepare { name, sql });
        }
        if let Some(name) = self.forget.take() {
            return Ok(Job::Forget(name));
        }
        if let Some(wishes) = self.set.take() {
            if self.transaction.is_some() {
                return Err("\"set\" is for requests outside transactions".to_owned());
            }
            return Ok(Job::Set(wishes));
        }
        if self.commit == Some(true) {
            return Ok(Job::Commit);
        }
        if self.rollback == Some(true) {
            return Ok(Job::Rollback);
        }
        let source = match (self.sql.take(), self.execute.take()) {
            (Some(sql), None) => Source::Sql(sql),
            (None, Some(name)) => Source::Prepared(name),
            _ => return Err("it asks for nothing: \"sql\" is missing".to_owned()),
        };
        Ok(Job::Run(Statement {
            source,
            params: self.params.take().unwrap_or_default(),
            rows: self.row_mode.unwrap_or_default(),
            timeout_ms: self.timeout_ms,
        }))
    }
}

impl Modes {
    /// The statement that begins such a transaction.
    pub(super) fn begin(&self) -> String {
        Isolation::begin(self.isolation, self.read_only, self.deferrable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let table = [
            (r#"{"id":1,"sql":"select $1","params":[1.50]}"#, "Run"),
            (r#"{"id":2,"prepare":"p","sql":"x"}"#, "Prepare"),
            (r#"{"id":2,"execute":"p","rowMode":"array"}"#, "Prepared"),
            (r#"{"id":2,"forget":"p"}"#, "Forget"),
            (
                r#"{"id":3,"set":{"role":null,"settings":{"a":"b","c":null}}}"#,
                "role: Some(None)",
            ),
            (r#"{"id":3,"set":{"settings":{}}}"#, "role: None"),
            (
                r#"{"id":4,"begin":{"isolation":"serializable"}}"#,
                "Serializable",
            ),
            (r#"{"id":5,"transaction":4,"commit":true}"#, "Commit"),
            (r#"{"id":5,"transaction":4,"rollback":true}"#, "Rollback"),
            (r#"{"cancel":5}"#, "Cancel(5)"),
            (r#"{"received":9}"#, "Received(9)"),
            (r#"{"ping":"x"}"#, "Ping"),
            (
                r#"{"resume":{"session":"a","secret":"b","received":0}}"#,
                "Resume",
            ),
        ];
        for (text, expected) in table {
            let request = format!("{:?}", Request::parse(text).unwrap());
            assert!(request.contains(expected), "{text}: {request}");
        }
    }

    #[test]
    fn many_settings_count_as_more_than_their_text() {
        let bytes = |text| Request::parse(text).unwrap().bytes_beside();
        let set = r#"{"id":1,"set":{"settings":{"a":null,"b":""}}}"#;
        assert_eq!(bytes(set), 2 * SETTING_BYTES);
        assert_eq!(bytes(r#"{"id":1,"sql":"x","params":[1,2]}"#), 0);
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "[]",
            "[1]",
            "{}",
            "x",
            "{\"id\":1}",
            r#"{"sql":"x"}"#,
            r#"{"id":-1,"sql":"x"}"#,
            r#"{"id":1,"sql":"x","more":1}"#,
            r#"{"id":1,"commit":true}"#,
            r#"{"id":1,"prepare":"p"}"#,
            r#"{"id":1,"begin":{"isolation":"; drop"}}"#,
            r#"{"id":1,"sql":"x","execute":"p"}"#,
        ] {
            assert!(Request::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes() {
        let modes: Modes = serde_json::from_str(
            r#"{"isolation":"repeatable read","readOnly":true,"deferrable":true}"#,
        )
        .unwrap();
        assert_eq!(
            modes.begin(),
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY DEFERRABLE"
        );
        assert_eq!(Modes::default().begin(), "BEGIN");
    }
}
