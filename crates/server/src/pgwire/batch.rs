//! Whole messages at the front of what has arrived.

use wire::pg::frontend::kind;
use wire::{PgError, sqlstate};

/// The type byte and the length.
const HEADER_BYTES: usize = 5;

/// What the front of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// A message of so many bytes.
    Message { kind: u8, bytes: usize },
    /// Less than a message. So many bytes are missing at least.
    Partial { missing: usize },
    /// The client says goodbye.
    Terminate,
}

/// Looks at the next message without taking it, so that messages that follow each other stay one
/// piece of memory. Errors are fatal: nobody knows where the next message begins.
pub(super) fn front(buffer: &[u8], message_bytes_max: usize) -> Result<Front, PgError> {
    let Some(&kind) = buffer.first() else {
        return Ok(Front::Partial {
            missing: HEADER_BYTES,
        });
    };
    if !is_frontend_kind(kind) {
        return Err(violation(format!("invalid frontend message type {kind}")));
    }
    let Some(&[_, length @ ..]) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(Front::Partial {
            missing: HEADER_BYTES - buffer.len(),
        });
    };
    let bytes = match usize::try_from(i32::from_be_bytes(length)) {
        Ok(length) if length >= 4 => length + 1,
        _ => return Err(violation("invalid message length".to_owned())),
    };
    if bytes > message_bytes_max {
        return Err(too_large(bytes, message_bytes_max));
    }
    if buffer.len() < bytes {
        return Ok(Front::Partial {
            missing: bytes - buffer.len(),
        });
    }
    if kind == kind::TERMINATE {
        return Ok(Front::Terminate);
    }
    Ok(Front::Message { kind, bytes })
}

/// What may come after the startup. An answer to an authentication request may not: none was made.
fn is_frontend_kind(kind: u8) -> bool {
    matches!(
        kind,
        kind::BIND
            | kind::CLOSE
            | kind::COPY_DATA
            | kind::COPY_DONE
            | kind::COPY_FAIL
            | kind::DESCRIBE
            | kind::EXECUTE
            | kind::FLUSH
            | kind::FUNCTION_CALL
            | kind::PARSE
            | kind::QUERY
            | kind::SYNC
            | kind::TERMINATE
    )
}

fn violation(message: String) -> PgError {
    PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message)
}

fn too_large(bytes: usize, max: usize) -> PgError {
    PgError::fatal(
        sqlstate::PROGRAM_LIMIT_EXCEEDED,
        format!("a message of {bytes} bytes exceeds pgwire.message_bytes_max, {max}"),
    )
    .hint("Send less at once, or raise pgwire.message_bytes_max in Dormouse's configuration.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts() {
        let sync = b"S\0\0\0\x04";
        let message = |kind, bytes| Front::Message { kind, bytes };
        assert_eq!(front(sync, 64), Ok(message(b'S', 5)));
        assert_eq!(front(b"Q\0\0\0\x06x\0Q", 64), Ok(message(b'Q', 7)));
        assert_eq!(front(b"", 64), Ok(Front::Partial { missing: 5 }));
        assert_eq!(front(b"Q\0", 64), Ok(Front::Partial { missing: 3 }));
        assert_eq!(
            front(b"Q\0\0\0\x06x", 64),
            Ok(Front::Partial { missing: 1 })
        );
        assert_eq!(front(b"X\0\0\0\x04", 64), Ok(Front::Terminate));
    }

    #[test]
    fn garbage_is_refused_from_its_first_byte() {
        for bytes in [&b"\0"[..], b"\xff", b"p", b"Q\0\0\0\x03", b"Q\xff\0\0\0"] {
            let error = front(bytes, 64).unwrap_err();
            assert_eq!(error.code(), "08P01", "{bytes:?}");
        }
    }

    #[test]
    fn a_large_message_is_refused_by_its_header() {
        let error = front(b"Q\0\0\x01\0", 64).unwrap_err();
        assert_eq!(error.code(), "54000");
        assert!(error.message().contains("pgwire.message_bytes_max"));
    }
}
