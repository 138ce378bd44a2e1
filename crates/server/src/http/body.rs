//! The JSON body of a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use tokio::time::timeout;
use wire::{PgError, SizeLimit, sqlstate};

use super::bodies::Counted;
use super::error::ApiError;
use super::router::App;
use super::sizes::{LESS, body_of_node};
use super::statements::expect_count;
use crate::pgwire::shutting_down;

/// Reads a request's body as JSON.
pub(super) async fn read<T: DeserializeOwned>(
    request: Request,
    body_bytes_max: usize,
) -> Result<T, ApiError> {
    read_with_bytes(request, body_bytes_max)
        .await
        .map(|(body, _)| body)
}

/// Reads a request's body as JSON, whatever it is said to be. A page of another site must have been kept out before: a
/// browser sends text to a foreign address without asking.
pub(super) async fn read_of_any_type<T: DeserializeOwned>(
    request: Request,
    body_bytes_max: usize,
) -> Result<T, ApiError> {
    parse(&here(request, body_bytes_max).await?)
}

/// Reads a request's body as JSON, and as it is.
pub(super) async fn read_with_bytes<T: DeserializeOwned>(
    request: Request,
    body_bytes_max: usize,
) -> Result<(T, Bytes), ApiError> {
    expect_json(request.headers())?;
    let bytes = here(request, body_bytes_max).await?;
    Ok((parse(&bytes)?, bytes))
}

/// The same for one that has statements.
pub(super) async fn read_statements<T: DeserializeOwned>(
    request: Request,
    app: &App,
) -> Result<(T, Bytes), ApiError> {
    expect_json(request.headers())?;
    let bytes = here(request, app.options.body_bytes_max).await?;
    Ok((parse_statements(&bytes, app.options.statements_max)?, bytes))
}

/// A body that was collected, and counted, before.
async fn here(request: Request, body_bytes_max: usize) -> Result<Bytes, ApiError> {
    whole(
        request.into_body(),
        body_of_node(body_bytes_max),
        |_| Ok(()),
    )
    .await
}

/// Reads JSON that has statements, unless there are more than `max`. They are counted before they are read: each takes
/// several times its bytes then.
///
/// # Errors
/// 413 if there are more, 400 if it is not what is expected.
pub(super) fn parse_statements<T: DeserializeOwned>(
    bytes: &[u8],
    max: usize,
) -> Result<T, ApiError> {
    if !is_array(bytes) {
        let lists = serde_json::from_slice::<Lists>(bytes);
        let lists = lists.map_err(|error| malformed(bytes, &error))?;
        for Count(count) in [lists.statements, lists.queries].into_iter().flatten() {
            expect_count(count, max)?;
        }
    }
    parse(bytes)
}

/// The lists of statements of a body.
#[derive(serde::Deserialize)]
struct Lists {
    statements: Option<Count>,
    queries: Option<Count>,
}

/// How many elements a list has.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Counting).map(Self)
    }
}

struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// Would be taken for the members of an object in their order.
fn is_array(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"[")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if is_array(bytes) {
        let parsed = serde_json::from_slice::<IgnoredAny>(bytes);
        return Err(parsed.map_or_else(|error| malformed(bytes, &error), |_| not_an_object()));
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(bytes, &error))
}

/// The media type must be JSON's. This also keeps other sites' pages out, beside
/// [`origin`](super::origin): a browser asks before it sends JSON to a foreign address.
fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or("?"));
    let media_type = value.and_then(|value| value.split(';').next());
    if media_type
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
    {
        return Ok(());
    }
    let message = match value {
        Some(value) => format!("the body's content type is {value}, not application/json"),
        None => "the body has no content type".to_owned(),
    };
    Err(
        ApiError::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
            .hint("Send the header Content-Type: application/json."),
    )
}

/// The whole body of a request, unless it is too large or takes too long. What has come of it counts as it comes.
pub(super) async fn collect(
    app: &App,
    body: Body,
    max: SizeLimit,
) -> Result<(Bytes, Arc<Counted>), ApiError> {
    let limit = app.options.body_timeout;
    let all_max = app.options.bodies_bytes_max;
    let mut counted = app.bodies.begin();
    let reading = whole(body, max, |bytes| counted.add(bytes, all_max));
    let read = tokio::select! {
        biased;
        read = timeout(limit, reading) => read.unwrap_or_else(|_| Err(too_slow(limit))),
        () = app.stopping.cancelling() => Err(ApiError::from(shutting_down()).closes()),
    };
    Ok((read?, Arc::new(counted)))
}

/// The whole body, unless it is too large: then no more of it is read than was needed to know. `admit` is told how much
/// has come, and may refuse it.
async fn whole(
    body: Body,
    max: SizeLimit,
    mut admit: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower();
    if announced > max.bytes as u64 {
        return Err(too_large(max));
    }
    let mut body = Limited::new(body, max.bytes);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large(max)),
            Err(error) => {
                return Err(ApiError::request(
                    StatusCode::BAD_REQUEST,
                    format!("the body cannot be read: {error}"),
                ));
            }
        };
        // What is no data is a trailer, which nobody asked for.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        admit(data.len())?;
        if first.is_empty() && all.is_empty() {
            // Most bodies come in one piece.
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(match all.is_empty() {
        true => first,
        false => all.freeze(),
    })
}

fn too_slow(limit: Duration) -> ApiError {
    let message = format!(
        "the body has not come whole within http.body_timeout_ms, {}",
        limit.as_millis()
    );
    // The rest of it is in the way of another request.
    ApiError::request(StatusCode::REQUEST_TIMEOUT, message)
        .hint("Send less at once, or raise http.body_timeout_ms in Dormouse's configuration.")
        .closes()
}

fn too_large(max: SizeLimit) -> ApiError {
    let error = max.exceeded("the body", LESS);
    // The rest of the body is in the way of another request.
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error).closes()
}

/// Says what is wrong with a body, and at which of its characters.
fn malformed(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let what = if error.is_data() {
        "the body is not what is expected here"
    } else {
        "the body is not JSON"
    };
    let position = if error.is_eof() {
        String::from_utf8_lossy(bytes).chars().count() + 1
    } else {
        character(bytes, error.line(), error.column())
    };
    ApiError::from(
        PgError::error(
            sqlstate::INVALID_TEXT_REPRESENTATION,
            format!("{what}: {error}"),
        )
        .position(position),
    )
}

fn not_an_object() -> ApiError {
    ApiError::from(PgError::error(
        sqlstate::INVALID_TEXT_REPRESENTATION,
        "the body is not what is expected here: it is an array, not an object",
    ))
}

/// The number, from 1, of the character at a line and a byte of that line, as serde counts them.
fn character(bytes: &[u8], line: usize, column: usize) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let end = (before + column.saturating_sub(1)).min(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let body = "{\n \"ä\": x}".as_bytes();
        let error = serde_json::from_slice::<serde_json::Value>(body).unwrap_err();
        assert_eq!(character(body, error.line(), error.column()), 9);
        assert_eq!(character(b"", 1, 0), 1);
    }

    #[test]
    fn content_types() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            expect_json(&headers).is_ok()
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        assert!(!check("text/plain"));
        assert!(!check("application/jsonp"));
        assert!(expect_json(&HeaderMap::new()).is_err());
    }
}
