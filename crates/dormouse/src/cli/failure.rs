//! How a command fails: what is said, and the exit code.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Deserialize;
use wire::PgError;

/// A longer line of SQL is shown in part.
const LINE_CHARS_MAX: usize = 100;

/// How a command fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request failed: exit code 1.
    Request {
        /// The JSON document of the error.
        document: Vec<u8>,
        /// The statement it is about.
        sql: Option<String>,
        /// Whether the document itself is wanted.
        json: bool,
    },
    /// The command line or the configuration is wrong: exit code 2.
    Usage(String),
    /// The server, the data or an address cannot be had: exit code 3.
    Unavailable(String),
}

/// An error's document.
#[derive(Debug, Deserialize)]
struct Document {
    error: Fields,
}

/// The same about deployments.
#[derive(Debug, Deserialize)]
struct Envelope {
    error: String,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    lines: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    severity: Option<String>,
    message: String,
    position: Option<usize>,
    detail: Option<String>,
    hint: Option<String>,
    internal_query: Option<String>,
    r#where: Option<String>,
}

impl Failure {
    pub(crate) fn request(document: Vec<u8>) -> Self {
        Self::Request {
            document,
            sql: None,
            json: false,
        }
    }

    /// What is said of it, in one line.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Usage(message) | Self::Unavailable(message) => message.clone(),
            Self::Request { document, .. } => match serde_json::from_slice::<Document>(document) {
                Ok(document) => document.error.message,
                Err(_) => match envelope(document) {
                    Some(said) => said.error,
                    None => String::from_utf8_lossy(document).into_owned(),
                },
            },
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(message.into())
    }

    /// Adds the statement, for the line with the error in it.
    pub(crate) fn of(mut self, statement: &str) -> Self {
        if let Self::Request { sql, .. } = &mut self {
            *sql = Some(statement.to_owned());
        }
        self
    }

    /// Whether an error of the request shall be printed as JSON.
    pub(crate) fn in_json(mut self, wanted: bool) -> Self {
        if let Self::Request { json, .. } = &mut self {
            *json = wanted;
        }
        self
    }

    /// Prints it to standard error.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Request {
                document,
                sql,
                json,
            } => {
                eprint!("{}", request(&document, sql.as_deref(), json));
                ExitCode::from(1)
            }
            Self::Usage(message) => {
                eprintln!("dormouse: {message}");
                ExitCode::from(2)
            }
            Self::Unavailable(message) => {
                eprintln!("dormouse: {message}");
                ExitCode::from(3)
            }
        }
    }
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        Self::request(error.to_json())
    }
}

fn request(document: &[u8], sql: Option<&str>, json: bool) -> String {
    let text = String::from_utf8_lossy(document);
    if json {
        return format!("{text}\n");
    }
    match serde_json::from_slice::<Document>(document) {
        Ok(Document { error }) => like_psql(&error, sql),
        Err(_) => match envelope(document) {
            Some(Envelope { error, details }) => {
                let details = details.lines.iter().filter(|line| !error.contains(*line));
                let details = details.map(|line| format!("DETAIL:  {line}\n"));
                format!("ERROR:  {error}\n{}", details.collect::<String>())
            }
            // Some other server.
            None => format!("dormouse: the server answered: {text}\n"),
        },
    }
}

fn envelope(document: &[u8]) -> Option<Envelope> {
    serde_json::from_slice(document).ok()
}

/// As psql prints an error.
fn like_psql(error: &Fields, sql: Option<&str>) -> String {
    let severity = error.severity.as_deref().unwrap_or("ERROR");
    let mut out = format!("{severity}:  {}\n", error.message);
    if let Some(line) = error.position.and_then(|position| line(sql?, position)) {
        out.push_str(&line);
    }
    let more = [
        ("DETAIL", &error.detail),
        ("HINT", &error.hint),
        ("QUERY", &error.internal_query),
        ("CONTEXT", &error.r#where),
    ];
    for (name, text) in more {
        if let Some(text) = text {
            let _ = writeln!(out, "{name}:  {text}");
        }
    }
    out
}

/// The line with the error, and a mark under its character. Positions count characters from 1.
fn line(sql: &str, position: usize) -> Option<String> {
    let at = sql
        .char_indices()
        .nth(position.checked_sub(1)?)
        .map_or(sql.len(), |(at, _)| at);
    let start = sql[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = sql[at..]
        .find('\n')
        .map_or(sql.len(), |newline| at + newline);
    let number = sql[..start].matches('\n').count() + 1;
    // One column for each character, so that the mark stays under it.
    let line: Vec<char> = sql[start..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut column = sql[start..at].chars().count();
    let first = (column + LINE_CHARS_MAX / 3).saturating_sub(LINE_CHARS_MAX);
    let mut shown: String = line.iter().skip(first).take(LINE_CHARS_MAX).collect();
    column -= first;
    if first > 0 {
        shown.insert_str(0, "...");
        column += 3;
    }
    if line.len() > first + LINE_CHARS_MAX {
        shown.push_str("...");
    }
    let prefix = format!("LINE {number}: ");
    let before: String = shown.chars().take(column).collect();
    let indent = prefix.len() + unicode_width::UnicodeWidthStr::width(&*before);
    Some(format!("{prefix}{shown}\n{:indent$}^\n", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(error: PgError, sql: &str) -> String {
        request(&error.to_json(), Some(sql), false)
    }

    #[test]
    fn errors_look_like_psqls() {
        let error = PgError::error("42703", "column \"x\" does not exist")
            .position(10)
            .detail("d")
            .hint("h");
        assert_eq!(
            shown(error, "select 1\n, x"),
            "ERROR:  column \"x\" does not exist\nLINE 2: , x\n        ^\nDETAIL:  d\nHINT:  h\n"
        );
    }

    #[test]
    fn the_mark_stands_under_wide_characters_and_in_long_lines() {
        let error = || PgError::error("42601", "e");
        assert_eq!(
            shown(error().position(11), "select '日本' x"),
            "ERROR:  e\nLINE 1: select '日本' x\n                    ^\n"
        );
        let long = format!("{}!{}", "a".repeat(300), "b".repeat(300));
        let text = shown(error().position(301), &long);
        let lines: Vec<&str> = text.lines().collect();
        let mark = lines[2].find('^').unwrap();
        assert_eq!(lines[1].chars().nth(mark), Some('!'));
        assert!(lines[1].len() < 130);
    }

    #[test]
    fn a_position_past_the_end_is_at_the_end() {
        let text = shown(PgError::error("42601", "e").position(99), "select");
        assert!(text.contains("LINE 1: select\n              ^"), "{text}");
    }
}
