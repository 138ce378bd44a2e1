//! Queries from within the program: for HTTP, and for those who embed a database.

mod answer;
mod document;

pub use answer::Answer;

use bytes::{Bytes, BytesMut};
use engine::ClientIo;
use serde_json::value::RawValue;
use wire::http::{ResultWriter, RowMode, encode_param, no_more_arrays};
use wire::pg::backend::{self, CommandTag, DataRow};
use wire::pg::frontend::{self, Bind, Execute, Param, Parse};
use wire::pg::{Target, frames};
use wire::{PgError, SizeLimit, sqlstate};

use crate::session::Session;

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's oid in `pg_type`.
    pub type_oid: u32,
}

/// The result of one statement, values in Postgres' text format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryResult {
    /// The command, as in its tag: `SELECT`, `INSERT`, `CREATE TABLE`.
    pub command: String,
    /// Rows returned or changed, where the command counts them.
    pub row_count: Option<u64>,
    /// The columns; empty if the statement returns no rows.
    pub columns: Vec<Column>,
    /// The rows, each with one value a column; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Session {
    /// Runs one statement with parameters in Postgres' text format; their types are as Postgres
    /// infers them.
    ///
    /// # Errors
    ///
    /// What Postgres says, and 57P02 if the backend ended.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[Option<String>],
    ) -> Result<QueryResult, PgError> {
        let params: Vec<Option<&[u8]>> = params
            .iter()
            .map(|param| param.as_deref().map(str::as_bytes))
            .collect();
        let mut messages = BytesMut::new();
        parse(&mut messages, sql)?;
        execute(&mut messages, &params)?;
        let answer = self.ask(messages).await?;
        let mut result = QueryResult::default();
        for (kind, body) in frames(&answer) {
            match kind {
                backend::kind::ROW_DESCRIPTION => {
                    result.columns = backend::decode_row_description(body)?
                        .into_iter()
                        .map(|field| Column {
                            name: field.name,
                            type_oid: field.type_oid,
                        })
                        .collect();
                }
                backend::kind::DATA_ROW => {
                    let row = DataRow::decode(body)?;
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    result.rows.push(row.map(|value| value.map(text)).collect());
                }
                backend::kind::COMMAND_COMPLETE => {
                    let tag = CommandTag::decode(body)?;
                    result.command = tag.command.to_owned();
                    result.row_count = tag.row_count;
                }
                _ => {}
            }
        }
        Ok(result)
    }

    /// Runs one statement with JSON parameters: the result document, see `wire`'s `VALUES.md`.
    ///
    /// # Errors
    ///
    /// What Postgres says; 22023 for a parameter that does not fit; 54000 for a result larger
    /// than the limit, and the statement is cancelled then; 57P02 if the backend ended.
    pub async fn query_json(
        &mut self,
        sql: &str,
        params: &[&RawValue],
        mode: RowMode,
        limit: SizeLimit,
    ) -> Result<Vec<u8>, PgError> {
        let messages = self.with_params(sql, params).await?;
        let writer = ResultWriter::new(mode, limit);
        self.document(messages, writer).await
    }

    /// Runs one statement with JSON parameters, its answer going to `io` as PostgreSQL's messages: all that `io`
    /// has not taken when it ends is returned.
    ///
    /// # Errors
    ///
    /// What Postgres says of the parameters, and 57P02 if the backend ended; what it says of the statement is in
    /// the answer.
    pub async fn query_stream(
        &mut self,
        sql: &str,
        params: &[&RawValue],
        io: Box<dyn ClientIo>,
    ) -> Result<Bytes, PgError> {
        let messages = self.with_params(sql, params).await?;
        let done = self.exchange(messages.freeze(), Some(io)).await;
        done.map(|(rest, _)| rest).map_err(|ended| ended.error)
    }

    /// The messages that run one statement with these parameters.
    async fn with_params(&mut self, sql: &str, params: &[&RawValue]) -> Result<BytesMut, PgError> {
        let mut messages = BytesMut::new();
        parse(&mut messages, sql)?;
        let encoded = if params.is_empty() {
            Vec::new()
        } else {
            let types = self.describe(messages.split()).await?;
            if types.len() != params.len() {
                return Err(wrong_count(types.len(), params.len()));
            }
            let mut encoded = Vec::with_capacity(params.len());
            for (number, (param, oid)) in (1..).zip(params.iter().zip(types)) {
                encoded.push(encode_param(number, param, oid, &no_more_arrays)?);
            }
            encoded
        };
        let values: Vec<Option<&[u8]>> = encoded.iter().map(Option::as_deref).collect();
        execute(&mut messages, &values)?;
        Ok(messages)
    }

    /// The parameter types of the statement that `messages` prepare.
    async fn describe(&mut self, mut messages: BytesMut) -> Result<Vec<u32>, PgError> {
        frontend::describe(&mut messages, Target::Statement, b"")?;
        frontend::sync(&mut messages);
        let answer = self.ask(messages).await?;
        for (kind, body) in frames(&answer) {
            if kind == backend::kind::PARAMETER_DESCRIPTION {
                return backend::decode_parameter_description(body);
            }
        }
        Err(PgError::error(
            sqlstate::PROTOCOL_VIOLATION,
            "the statement was not described",
        ))
    }

    /// Runs messages that end in `Sync`: the answers, if none is an error.
    async fn ask(&mut self, messages: BytesMut) -> Result<Bytes, PgError> {
        let answer = match self.exchange(messages.freeze(), None).await {
            Ok((answer, _)) => answer,
            Err(ended) => return Err(ended.error),
        };
        for (kind, body) in frames(&answer) {
            match kind {
                backend::kind::ERROR_RESPONSE => return Err(PgError::decode(body)?),
                backend::kind::COPY_IN_RESPONSE
                | backend::kind::COPY_OUT_RESPONSE
                | backend::kind::COPY_BOTH_RESPONSE => return Err(no_copy()),
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn parse(messages: &mut BytesMut, sql: &str) -> Result<(), PgError> {
    Parse {
        statement: b"",
        sql: sql.as_bytes(),
        param_oids: Vec::new(),
    }
    .encode(messages)
}

/// Binds, describes and executes the unnamed statement.
fn execute(messages: &mut BytesMut, params: &[Option<&[u8]>]) -> Result<(), PgError> {
    Bind {
        portal: b"",
        statement: b"",
        params: params.iter().map(|value| Param::text(*value)).collect(),
        result_formats: Vec::new(),
    }
    .encode(messages)?;
    frontend::describe(messages, Target::Portal, b"")?;
    Execute {
        portal: b"",
        rows_max: 0,
    }
    .encode(messages)?;
    frontend::sync(messages);
    Ok(())
}

fn no_copy() -> PgError {
    PgError::error(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "COPY to or from the client needs the PostgreSQL protocol",
    )
    .hint("Connect with psql or a driver, or use INSERT.")
}

fn wrong_count(expected: usize, found: usize) -> PgError {
    PgError::error(
        sqlstate::PROTOCOL_VIOLATION,
        format!("the statement has {expected} parameters, but {found} were given"),
    )
    .hint("Give one value in \"params\" for each of $1, $2, ... of the statement.")
}
