//! What a client is told when its request fails.

use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use wire::pg::ErrorField;
use wire::{PgError, sqlstate};

/// The media type of a problem document.
const PROBLEM: &str = "application/problem+json";

/// An error of PostgreSQL's form with a status. The status follows from the SQLSTATE, except for
/// errors about HTTP itself, which all have the code of a protocol violation.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: PgError,
    /// Whether the connection cannot be used for another request.
    closes: bool,
    /// More headers of the answer.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// More members of the problem document.
    members: Vec<(&'static str, Value)>,
}

impl ApiError {
    /// The request is wrong in HTTP's sense.
    pub(crate) fn request(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(
            status,
            PgError::error(sqlstate::PROTOCOL_VIOLATION, message),
        )
    }

    /// An error whose SQLSTATE does not say all.
    pub(crate) fn new(status: StatusCode, error: PgError) -> Self {
        Self {
            status,
            error,
            closes: false,
            headers: Vec::new(),
            members: Vec::new(),
        }
    }

    /// The status that it has.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Its SQLSTATE.
    pub(crate) fn code(&self) -> &str {
        self.error.code()
    }

    /// The error in PostgreSQL's form.
    pub(crate) fn error(&self) -> &PgError {
        &self.error
    }

    /// The error without its status.
    pub(crate) fn into_error(self) -> PgError {
        self.error
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.error = self.error.hint(hint);
        self
    }

    /// Adds a header to the answer; one that HTTP does not allow is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Adds a member to the problem document, for programs.
    pub(crate) fn member(mut self, name: &'static str, value: Value) -> Self {
        self.members.push((name, value));
        self
    }

    /// A member that was added.
    pub(crate) fn member_of(&self, name: &str) -> Option<&Value> {
        let mut members = self.members.iter();
        members
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value)
    }

    /// Ends the connection after the answer.
    pub(crate) fn closes(mut self) -> Self {
        self.closes = true;
        self
    }
}

impl From<PgError> for ApiError {
    fn from(error: PgError) -> Self {
        let status = StatusCode::from_u16(error.http_status())
            .expect("BUG: wire::pg::http_status gives statuses of HTTP");
        Self::new(status, error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = (CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        let document = problem(self.status, &self.error, &self.members);
        let mut response = (self.status, [kind], document).into_response();
        let tells_when = self.headers.iter().any(|(name, _)| name == RETRY_AFTER);
        if self.status == StatusCode::SERVICE_UNAVAILABLE && !tells_when {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, soon);
        }
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        if self.closes {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        // For the log.
        response.extensions_mut().insert(self.error);
        response
    }
}

/// A problem document of RFC 9457. The member `error` has PostgreSQL's fields.
fn problem(status: StatusCode, error: &PgError, members: &[(&'static str, Value)]) -> Vec<u8> {
    let title = status.canonical_reason().unwrap_or_default();
    let detail = error.get_for_json(ErrorField::Message);
    let detail = Value::from(detail.unwrap_or_default());
    let head = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":{detail},",
        status.as_u16()
    );
    let mut document = head.into_bytes();
    for (name, value) in members {
        document.extend_from_slice(format!("\"{name}\":{value},").as_bytes());
    }
    // The rest is an object with one member.
    document.extend_from_slice(error.to_json().get(1..).unwrap_or(b"}"));
    document
}

/// The answer to a connection that is one too many, as bytes: no request of it is read.
pub(crate) fn too_many_connections(max: usize) -> Vec<u8> {
    let error = PgError::error(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("too many connections: http.connections_max is {max}"),
    )
    .hint(
        "Try again, reuse connections, or raise http.connections_max in Dormouse's configuration.",
    );
    let body = problem(StatusCode::SERVICE_UNAVAILABLE, &error, &[]);
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
