//! A whole message after the startup phase: a type byte, a length, a body.

use bytes::{Bytes, BytesMut};

use super::{PgError, sqlstate};

/// The type byte and the length.
const HEADER_BYTES: usize = 5;

/// One message, sharing the bytes it arrived in.
///
/// ```text
/// +------+----------------+----------------------+
/// | kind | length: i32    | body: length-4 bytes |
/// +------+----------------+----------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
}

/// The whole messages in `bytes`, each its kind and its body, without copying. What follows the
/// last whole message, or is none, is left out.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (kind, tail) = rest.split_first()?;
        let length = u32::from_be_bytes(*tail.first_chunk::<4>()?) as usize;
        let (message, tail) = tail.split_at_checked(length)?;
        rest = tail;
        Some((*kind, message.get(4..)?))
    })
}

impl Frame {
    /// Takes the next message off the front of what has arrived, or nothing while it is incomplete.
    ///
    /// A message is larger than `message_bytes_max` when its type byte, length and body together
    /// are; it is refused as soon as its length is known. Errors are fatal: after them nobody knows
    /// where the next message begins.
    pub fn split(buffer: &mut BytesMut, message_bytes_max: usize) -> Result<Option<Self>, PgError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [_, length @ ..] = *header;
        let length = i32::from_be_bytes(length);
        let total = match usize::try_from(length) {
            Ok(length) if length >= 4 => length + 1,
            _ => {
                return Err(PgError::fatal(
                    sqlstate::PROTOCOL_VIOLATION,
                    "invalid message length",
                ));
            }
        };
        if total > message_bytes_max {
            return Err(PgError::fatal(
                sqlstate::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "a message of {total} bytes exceeds message_bytes_max, {message_bytes_max}"
                ),
            )
            .hint("Send less at once, or raise message_bytes_max in Dormouse's configuration."));
        }
        if buffer.len() < total {
            return Ok(None);
        }
        Ok(Some(Self {
            bytes: buffer.split_to(total).freeze(),
        }))
    }

    /// The message's type, one of `frontend::kind` or `backend::kind`.
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// What the parsers take.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The whole message, to be passed on as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole message, to be passed on as it came.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn split() {
        type Case = (&'static [u8], Result<Option<&'static [u8]>, &'static str>);
        let table: [Case; 8] = [
            (b"", Ok(None)),
            (b"Q\0\0\0", Ok(None)),
            (b"S\0\0\0\x04", Ok(Some(b"S\0\0\0\x04"))),
            (b"Q\0\0\0\x06a\0S", Ok(Some(b"Q\0\0\0\x06a\0"))),
            (b"Q\0\0\0\x06a", Ok(None)),
            (b"Q\0\0\0\x03", Err("08P01")),
            (b"Q\xff\xff\xff\xff", Err("08P01")),
            (b"Q\0\0\0\x10", Err("54000")),
        ];
        for (input, expected) in table {
            let mut buffer = BytesMut::from(input);
            let got = Frame::split(&mut buffer, 16);
            let got = got
                .as_ref()
                .map(|frame| frame.as_ref().map(|f| &f.bytes()[..]));
            assert_eq!(got.map_err(PgError::code), expected, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            bodies in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            chunk in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for (kind, body) in &bodies {
                stream.push(*kind);
                stream.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
                stream.extend_from_slice(body);
            }
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for piece in stream.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::split(&mut buffer, 100).unwrap() {
                    frames.push((frame.kind(), frame.body().to_vec()));
                }
            }
            prop_assert_eq!(frames, bodies);
        }

        #[test]
        fn split_is_total(input in proptest::collection::vec(any::<u8>(), 0..64), max in 0usize..64) {
            let mut buffer = BytesMut::from(&input[..]);
            while let Ok(Some(_)) = Frame::split(&mut buffer, max) {}
        }
    }
}
