//! The error that a PostgreSQL client is told, with every field of the protocol.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};

use super::reader::Reader;
use super::{backend, writer};
use crate::http::json;

/// An error or a notice of PostgreSQL.
///
/// Kept as the list of fields that the protocol is made of: fields of a later PostgreSQL survive a
/// way through this crate, in their order, and an error is one small vector.
#[derive(Clone, PartialEq, Eq)]
pub struct PgError {
    fields: Vec<(u8, Box<str>)>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session is over.
    Fatal,
    /// The whole backend is over.
    Panic,
    /// Something to look at.
    Warning,
    /// Something to know.
    Notice,
    /// Something that was asked for.
    Info,
    /// Something for the log.
    Log,
    /// Something for developers.
    Debug,
}

/// The fields that PostgreSQL 18 sends, by their byte in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is named as in the protocol's documentation"
)]
pub enum ErrorField {
    Severity = b'S',
    SeverityNonlocalized = b'V',
    Code = b'C',
    Message = b'M',
    Detail = b'D',
    Hint = b'H',
    Position = b'P',
    InternalPosition = b'p',
    InternalQuery = b'q',
    Where = b'W',
    Schema = b's',
    Table = b't',
    Column = b'c',
    DataType = b'd',
    Constraint = b'n',
    File = b'F',
    Line = b'L',
    Routine = b'R',
}

/// The most of a field in a JSON form, in bytes of its text: `http.error_field_bytes_max`. Postgres puts whole values
/// into messages, which are results by another way.
const JSON_FIELD_BYTES_MAX: usize = 16 << 10;

/// The members of the JSON form, in their order. `severity` is the one that is never translated.
const JSON_MEMBERS: [(ErrorField, &str, bool); 17] = [
    (ErrorField::Code, "code", false),
    (ErrorField::Message, "message", false),
    (ErrorField::SeverityNonlocalized, "severity", false),
    (ErrorField::Detail, "detail", false),
    (ErrorField::Hint, "hint", false),
    (ErrorField::Position, "position", true),
    (ErrorField::InternalPosition, "internalPosition", true),
    (ErrorField::InternalQuery, "internalQuery", false),
    (ErrorField::Where, "where", false),
    (ErrorField::Schema, "schema", false),
    (ErrorField::Table, "table", false),
    (ErrorField::Column, "column", false),
    (ErrorField::DataType, "dataType", false),
    (ErrorField::Constraint, "constraint", false),
    (ErrorField::File, "file", false),
    (ErrorField::Line, "line", true),
    (ErrorField::Routine, "routine", false),
];

impl PgError {
    /// An error with the four fields that every error has.
    pub fn new(severity: Severity, code: &str, message: impl Into<String>) -> Self {
        let fields = vec![
            (b'S', severity.as_str().into()),
            (b'V', severity.as_str().into()),
            (b'C', code.into()),
            (b'M', message.into().into_boxed_str()),
        ];
        Self { fields }
    }

    /// A statement's failure.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A failure that ends the session.
    pub fn fatal(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// Adds what happened, in more words.
    #[must_use]
    pub fn detail(self, text: impl Into<String>) -> Self {
        self.with(ErrorField::Detail, text)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, text: impl Into<String>) -> Self {
        self.with(ErrorField::Hint, text)
    }

    /// Adds where in the statement it is: the number of a character, counted from 1.
    #[must_use]
    pub fn position(self, character: usize) -> Self {
        self.with(ErrorField::Position, character.to_string())
    }

    /// Sets a field, in place of what it was.
    #[must_use]
    pub fn with(mut self, field: ErrorField, text: impl Into<String>) -> Self {
        let text = text.into().into_boxed_str();
        match self
            .fields
            .iter_mut()
            .find(|(kind, _)| *kind == field as u8)
        {
            Some(present) => present.1 = text,
            None => self.fields.push((field as u8, text)),
        }
        self
    }

    /// A field's text.
    pub fn get(&self, field: ErrorField) -> Option<&str> {
        self.fields
            .iter()
            .find(|(kind, _)| *kind == field as u8)
            .map(|(_, text)| &**text)
    }

    /// A field's text as every JSON form has it: no longer than a limit, and if it was cut it ends in words that say so.
    pub fn get_for_json(&self, field: ErrorField) -> Option<Cow<'_, str>> {
        self.get(field).map(cut)
    }

    /// All fields in their order, unknown ones included.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &str)> {
        self.fields.iter().map(|(kind, text)| (*kind, &**text))
    }

    /// The SQLSTATE; `XX000` if the message had none.
    pub fn code(&self) -> &str {
        self.get(ErrorField::Code)
            .unwrap_or(sqlstate::INTERNAL_ERROR)
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        self.get(ErrorField::Message).unwrap_or("")
    }

    /// The severity; `Error` if the message had none that is known.
    pub fn severity(&self) -> Severity {
        self.get(ErrorField::SeverityNonlocalized)
            .or_else(|| self.get(ErrorField::Severity))
            .and_then(Severity::parse)
            .unwrap_or(Severity::Error)
    }

    /// Whether Postgres itself has said it: it says where in its source, and nobody else does.
    pub fn is_of_postgres(&self) -> bool {
        self.get(ErrorField::Routine).is_some()
    }

    /// The error as a log may have it. What Postgres says may have values of statements in it, as what `RAISE` says
    /// does: of that there is only the severity and the SQLSTATE.
    pub fn for_log(&self) -> impl fmt::Display + '_ {
        struct ForLog<'a>(&'a PgError);
        impl fmt::Display for ForLog<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(error) = self;
                match error.is_of_postgres() {
                    true => write!(f, "{} {}", error.severity().as_str(), error.code()),
                    false => error.fmt(f),
                }
            }
        }
        ForLog(self)
    }

    /// The HTTP status that [`http_status`] gives to the code.
    pub fn http_status(&self) -> u16 {
        http_status(self.code())
    }

    /// Reads the body of an `ErrorResponse` or `NoticeResponse`. Text that is not UTF-8 gets
    /// replacement characters: an error about an error would tell less.
    pub fn decode(body: &[u8]) -> Result<Self, Self> {
        let mut reader = Reader::new(body);
        let mut fields = Vec::new();
        loop {
            match reader.byte()? {
                0 => break,
                kind => fields.push((kind, String::from_utf8_lossy(reader.cstr()?).into())),
            }
        }
        reader.finish()?;
        Ok(Self { fields })
    }

    /// Writes an `ErrorResponse`.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_as(out, backend::kind::ERROR_RESPONSE);
    }

    /// Writes a `NoticeResponse`.
    pub fn encode_notice(&self, out: &mut BytesMut) {
        self.encode_as(out, backend::kind::NOTICE_RESPONSE);
    }

    /// The JSON form, `{"error":{"code":...,"message":...}}`, with only the fields that are present, each no longer than
    /// [`get_for_json`](Self::get_for_json) gives it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"error\":{".to_vec();
        let mut first = true;
        for (field, name, is_number) in JSON_MEMBERS {
            let mut text = self.get_for_json(field);
            if field == ErrorField::SeverityNonlocalized {
                text = text.or_else(|| self.get_for_json(ErrorField::Severity));
            }
            let Some(text) = text else { continue };
            if !first {
                out.push(b',');
            }
            first = false;
            json::write_str(&mut out, name);
            out.push(b':');
            match text.parse::<u32>() {
                Ok(number) if is_number => out.extend_from_slice(number.to_string().as_bytes()),
                _ => json::write_str(&mut out, &text),
            }
        }
        out.extend_from_slice(b"}}");
        out
    }

    fn encode_as(&self, out: &mut BytesMut, kind: u8) {
        writer::message(out, kind, |body| {
            for (kind, text) in self.fields() {
                body.put_u8(kind);
                writer::put_cstr(body, text.as_bytes());
            }
            body.put_u8(0);
        });
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= JSON_FIELD_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let said = format!("… (cut at http.error_field_bytes_max, {JSON_FIELD_BYTES_MAX} bytes)");
    let mut end = JSON_FIELD_BYTES_MAX - said.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{said}", &text[..end]))
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.severity().as_str(),
            self.code(),
            self.message()
        )?;
        if let Some(detail) = self.get(ErrorField::Detail) {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.fields().map(|(kind, text)| (char::from(kind), text)))
            .finish()
    }
}

impl std::error::Error for PgError {}

impl Severity {
    const ALL: [Self; 8] = [
        Self::Error,
        Self::Fatal,
        Self::Panic,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Log,
        Self::Debug,
    ];

    /// As PostgreSQL writes it, untranslated.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
    }
}

/// The SQLSTATEs that Dormouse itself tells, by PostgreSQL's names for them.
#[expect(
    missing_docs,
    reason = "each is documented by PostgreSQL under its name"
)]
pub mod sqlstate {
    pub const CONNECTION_EXCEPTION: &str = "08000";
    pub const CONNECTION_DOES_NOT_EXIST: &str = "08003";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: &str = "25P03";
    pub const TRANSACTION_TIMEOUT: &str = "25P04";
    pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
    pub const INVALID_AUTHORIZATION_SPECIFICATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_TRANSACTION_TERMINATION: &str = "2D000";
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const DEADLOCK_DETECTED: &str = "40P01";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const INVALID_NAME: &str = "42602";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_OBJECT: &str = "42710";
    pub const DUPLICATE_DATABASE: &str = "42P04";
    pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
    pub const DISK_FULL: &str = "53100";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const OBJECT_IN_USE: &str = "55006";
    pub const SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION: &str = "08001";
    pub const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CRASH_SHUTDOWN: &str = "57P02";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const CONFIG_FILE_ERROR: &str = "F0000";
    pub const DATABASE_DROPPED: &str = "57P04";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const IO_ERROR: &str = "58030";
    pub const SYSTEM_ERROR: &str = "58000";
    pub const INTERNAL_ERROR: &str = "XX000";
    pub const DATA_CORRUPTED: &str = "XX001";
}

/// The HTTP status for a SQLSTATE.
///
/// The rule: 4xx when the same request would fail again for the same reason, 409 when it may
/// succeed against other data or at another moment, 503 when only the moment was wrong, 500 when
/// it is our fault. The first line that fits counts.
///
/// | SQLSTATE | status | why |
/// |---|---|---|
/// | `08P01` | 400 | also PostgreSQL's word for a wrong number of parameters |
/// | `08` | 503 | the connection to the backend is gone; a new request gets a new one |
/// | `0A` | 501 | not supported |
/// | `28` | 401 | who is asking is not known |
/// | `42501` | 403 | who is asking is known, and may not |
/// | `3D000`, `57P04` | 404 | the database is part of the address. An undefined table (`42P01`) is not: it is the statement's fault, 400 |
/// | `42P04` | 409 | a database of this name exists |
/// | `23` | 409 | the data forbids it: a constraint |
/// | `40`, `55` | 409 | others were in the way: serialization, deadlock, lock, object in use |
/// | `57014`, `25P03`, `25P04` | 504 | a time limit of ours. Not 408: that blames a slow request, and browsers and proxies repeat it unasked, which a write must never be |
/// | `53100`, `53200`, `53400` | 507 | a limit on bytes: waiting does not help, raising it does |
/// | `53` | 503 | too many connections: waiting helps |
/// | `54000` | 413 | a message or a result is larger than a limit |
/// | `57` | 503 | the backend stops or is not up yet |
/// | `58`, `F0`, `XX` | 500 | disk, configuration, a bug |
/// | others | 400 | the statement's fault; codes that a function raises on its own are among them |
pub fn http_status(sqlstate: &str) -> u16 {
    match sqlstate {
        sqlstate::PROTOCOL_VIOLATION => return 400,
        sqlstate::INSUFFICIENT_PRIVILEGE => return 403,
        sqlstate::INVALID_CATALOG_NAME | sqlstate::DATABASE_DROPPED => return 404,
        sqlstate::DUPLICATE_DATABASE => return 409,
        sqlstate::QUERY_CANCELED | sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT | "25P04" => {
            return 504;
        }
        sqlstate::DISK_FULL | sqlstate::OUT_OF_MEMORY | sqlstate::CONFIGURATION_LIMIT_EXCEEDED => {
            return 507;
        }
        sqlstate::PROGRAM_LIMIT_EXCEEDED => return 413,
        _ => {}
    }
    match sqlstate.get(..2) {
        Some("08" | "53" | "57") => 503,
        Some("0A") => 501,
        Some("28") => 401,
        Some("23" | "40" | "55") => 409,
        Some("58" | "F0" | "XX") | None => 500,
        Some(_) => 400,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statuses() {
        let table = [
            ("08006", 503),
            ("08P01", 400),
            ("0A000", 501),
            ("22P02", 400),
            ("23505", 409),
            ("25P02", 400),
            ("25P03", 504),
            ("28000", 401),
            ("28P01", 401),
            ("3D000", 404),
            ("40001", 409),
            ("40P01", 409),
            ("42501", 403),
            ("42601", 400),
            ("42P01", 400),
            ("42P04", 409),
            ("53100", 507),
            ("53200", 507),
            ("53300", 503),
            ("53400", 507),
            ("54000", 413),
            ("54001", 400),
            ("55006", 409),
            ("57014", 504),
            ("57P01", 503),
            ("57P03", 503),
            ("58030", 500),
            ("P0001", 400),
            ("MY001", 400),
            ("XX000", 500),
            ("", 500),
            ("é", 400),
        ];
        for (code, status) in table {
            assert_eq!(http_status(code), status, "{code}");
        }
    }

    #[test]
    fn json_has_the_present_members_only() {
        let error = PgError::error("42601", "bad \"x\"")
            .hint("fix it")
            .position(7)
            .with(ErrorField::Line, "12")
            .with(ErrorField::InternalPosition, "no number");
        assert_eq!(
            String::from_utf8(error.to_json()).unwrap(),
            r#"{"error":{"code":"42601","message":"bad \"x\"","severity":"ERROR","hint":"fix it","position":7,"internalPosition":"no number","line":12}}"#
        );
        assert_eq!(PgError::decode(&[0]).unwrap().to_json(), br#"{"error":{}}"#);
    }

    #[test]
    fn fields_of_json_are_cut() {
        let long = "é".repeat(JSON_FIELD_BYTES_MAX / 2);
        let longer = format!("x{long}");
        let of_all = |text: &str| {
            let error = PgError::error("22P02", text);
            let fields = JSON_MEMBERS.iter().map(|(field, ..)| *field);
            fields.fold(error, |error, field| error.with(field, text))
        };
        let told = |error: &PgError| -> serde_json::Value {
            serde_json::from_slice(&error.to_json()).unwrap()
        };
        for (_, name, _) in JSON_MEMBERS {
            assert_eq!(told(&of_all(&long))["error"][name], *long, "{name}");
            let told = told(&of_all(&longer));
            let text = told["error"][name].as_str().unwrap();
            assert!(text.len() <= JSON_FIELD_BYTES_MAX, "{name}");
            assert!(text.starts_with("xéé"), "{name}");
            let said = "é… (cut at http.error_field_bytes_max, 16384 bytes)";
            assert!(text.ends_with(said), "{name}: {text}");
        }
        // PostgreSQL's protocol has no such limit.
        let mut out = BytesMut::new();
        of_all(&longer).encode(&mut out);
        assert_eq!(PgError::decode(&out[5..]).unwrap().message(), longer);
    }

    #[test]
    fn unknown_fields_survive() {
        let body = b"SERREUR\0VERROR\0C42601\0Mm\0Zlater\0\0";
        let error = PgError::decode(body).unwrap();
        assert_eq!(error.severity(), Severity::Error);
        assert_eq!(error.fields().last(), Some((b'Z', "later")));
        let mut out = BytesMut::new();
        error.encode(&mut out);
        assert_eq!(&out[5..], body);
    }

    proptest! {
        #[test]
        fn decode_is_total(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = PgError::decode(&body);
        }

        #[test]
        fn round_trip(message in "[^\0]{0,20}", detail in "[^\0]{0,20}", code in "[0-9A-Z]{5}") {
            let error = PgError::fatal(&code, message).detail(detail);
            let mut out = BytesMut::new();
            error.encode(&mut out);
            prop_assert_eq!(PgError::decode(&out[5..]).unwrap(), error);
        }
    }
}
