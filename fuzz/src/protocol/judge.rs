//! Whether an answer can be one of this session.

use wire::pg::backend::{self, CopyResponse, DataRow, kind};
use wire::pg::{Frame, TransactionStatus};
use wire::{PgError, sqlstate};

use super::canary::{Canaries, Canary};

/// What is to be known of a message.
#[derive(Debug)]
pub enum Seen {
    /// `ReadyForQuery`.
    Ready(TransactionStatus),
    /// `ErrorResponse`.
    Error(PgError),
    /// `BackendKeyData`.
    Key(u32, Vec<u8>),
    /// Anything else.
    Other,
}

/// Looks at a message.
///
/// # Errors
/// What is wrong with it.
pub fn judge(frame: &Frame, own: &Canary, canaries: &Canaries) -> Result<Seen, String> {
    let body = frame.body();
    let seen = read(frame).map_err(|error| {
        format!(
            "{:?} of {} bytes is none: {error}",
            char::from(frame.kind()),
            body.len()
        )
    })?;
    // Whoever has to wait is told for whom, by the name that this one has given itself.
    let names_another =
        matches!(&seen, Seen::Error(error) if error.code() == sqlstate::TOO_MANY_CONNECTIONS);
    match canaries.foreign(body, own) {
        Some(foreign) if !names_another => Err(format!(
            "{foreign}, another session's, in {:?} {:?}",
            char::from(frame.kind()),
            String::from_utf8_lossy(body)
        )),
        _ => Ok(seen),
    }
}

fn read(frame: &Frame) -> Result<Seen, PgError> {
    let body = frame.body();
    match frame.kind() {
        kind::READY_FOR_QUERY => return backend::decode_ready_for_query(body).map(Seen::Ready),
        kind::ERROR_RESPONSE => return PgError::decode(body).map(Seen::Error),
        kind::BACKEND_KEY_DATA => {
            let (id, key) = backend::decode_backend_key_data(body)?;
            return Ok(Seen::Key(id, key.to_vec()));
        }
        kind::NOTICE_RESPONSE => drop(PgError::decode(body)?),
        kind::ROW_DESCRIPTION => drop(backend::decode_row_description(body)?),
        kind::DATA_ROW => {
            DataRow::decode(body)?;
        }
        kind::PARAMETER_DESCRIPTION => drop(backend::decode_parameter_description(body)?),
        kind::PARAMETER_STATUS => {
            backend::decode_parameter_status(body)?;
        }
        kind::COPY_IN_RESPONSE | kind::COPY_OUT_RESPONSE => drop(CopyResponse::decode(body)?),
        kind::COMMAND_COMPLETE if body.ends_with(b"\0") => {}
        kind::AUTHENTICATION if body == [0; 4] => {}
        kind::FUNCTION_CALL_RESPONSE if body.len() >= 4 => {}
        kind::NOTIFICATION_RESPONSE if body.len() > 5 && body.ends_with(b"\0") => {}
        kind::NEGOTIATE_PROTOCOL_VERSION if body.len() >= 8 => {}
        kind::COPY_DATA => {}
        kind::BIND_COMPLETE
        | kind::CLOSE_COMPLETE
        | kind::COPY_DONE
        | kind::EMPTY_QUERY_RESPONSE
        | kind::NO_DATA
        | kind::PARSE_COMPLETE
        | kind::PORTAL_SUSPENDED
            if body.is_empty() => {}
        _ => {
            return Err(PgError::error(
                wire::sqlstate::PROTOCOL_VIOLATION,
                "no backend message",
            ));
        }
    }
    Ok(Seen::Other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use sim::Random;

    fn judged(own: &Canary, canaries: &Canaries, bytes: &[u8]) -> Result<Seen, String> {
        let mut bytes = BytesMut::from(bytes);
        let frame = Frame::split(&mut bytes, usize::MAX).unwrap().unwrap();
        judge(&frame, own, canaries)
    }

    #[test]
    fn what_is_another_sessions_or_no_message_is_told() {
        let mut random = Random::new(9);
        let (own, other) = (Canary::draw(&mut random), Canary::draw(&mut random));
        let canaries = Canaries::default();
        canaries.add(&own);
        canaries.add(&other);
        let row = |canary: &Canary| {
            let mut bytes = BytesMut::new();
            backend::data_row(&mut bytes, &[Some(canary.as_str().as_bytes())]);
            bytes
        };
        assert!(matches!(
            judged(&own, &canaries, &row(&own)),
            Ok(Seen::Other)
        ));
        assert!(judged(&own, &canaries, &row(&other)).is_err());
        assert!(judged(&own, &canaries, b"Z\0\0\0\x05X").is_err());
        assert!(judged(&own, &canaries, b"Q\0\0\0\x05X").is_err());
        let ready = judged(&own, &canaries, b"Z\0\0\0\x05T").unwrap();
        assert!(matches!(
            ready,
            Seen::Ready(TransactionStatus::InTransaction)
        ));
    }
}
