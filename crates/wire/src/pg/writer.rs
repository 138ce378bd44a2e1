//! Writing messages: a type byte, a length that is known last, a body.

use bytes::{BufMut, BytesMut};

use super::{PgError, sqlstate};

/// Writes a message whose body cannot fail.
pub(crate) fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    try_message(out, Some(kind), |out| {
        body(out);
        Ok(())
    })
    .expect("BUG: messages built from our own words are shorter than 2 GiB");
}

/// Writes a message; on an error nothing of it is left in `out`. Startup packets have no kind.
pub(crate) fn try_message(
    out: &mut BytesMut,
    kind: Option<u8>,
    body: impl FnOnce(&mut BytesMut) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let start = out.len();
    if let Some(kind) = kind {
        out.put_u8(kind);
    }
    let length_at = out.len();
    out.put_i32(0);
    let written = body(out).and_then(|()| {
        i32::try_from(out.len() - length_at).map_err(|_| {
            PgError::error(
                sqlstate::PROGRAM_LIMIT_EXCEEDED,
                "a message of the PostgreSQL protocol cannot be longer than 2147483647 bytes",
            )
        })
    });
    match written {
        Ok(length) => {
            out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Writes a string up to its first zero byte, which would end it for the reader anyway.
pub(crate) fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.extend_from_slice(text.split(|byte| *byte == 0).next().unwrap_or_default());
    out.put_u8(0);
}

/// Writes a user's string; one with a zero byte is refused rather than cut, as half a statement
/// may be a statement too.
pub(crate) fn try_put_cstr(out: &mut BytesMut, text: &[u8]) -> Result<(), PgError> {
    if text.contains(&0) {
        return Err(zero_byte());
    }
    out.extend_from_slice(text);
    out.put_u8(0);
    Ok(())
}

/// Writes how many things follow.
pub(crate) fn try_put_count(out: &mut BytesMut, count: usize, what: &str) -> Result<(), PgError> {
    let count = u16::try_from(count).map_err(|_| {
        PgError::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("number of {what} must be between 0 and 65535"),
        )
    })?;
    out.put_u16(count);
    Ok(())
}

/// Writes a value after its length.
pub(crate) fn try_put_value(out: &mut BytesMut, value: Option<&[u8]>) -> Result<(), PgError> {
    let Some(value) = value else {
        out.put_i32(-1);
        return Ok(());
    };
    let length = i32::try_from(value.len()).map_err(|_| {
        PgError::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            "a value of the PostgreSQL protocol cannot be longer than 2147483647 bytes",
        )
    })?;
    out.put_i32(length);
    out.extend_from_slice(value);
    Ok(())
}

/// What PostgreSQL says of a zero byte in text.
pub(crate) fn zero_byte() -> PgError {
    PgError::error(
        sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
        "invalid byte sequence for encoding \"UTF8\": 0x00",
    )
}
