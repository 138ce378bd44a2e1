//! The messages of an authentication: of SASL, in which the mechanisms of [`scram`](super::scram) speak, and of a
//! password as it is.

use bytes::{BufMut, BytesMut};

use super::backend::kind;
use super::reader::{Reader, violation};
use super::writer::{message, put_cstr};
use super::{PgError, sqlstate};

/// PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`: the longest message of a client, its length included.
pub const MESSAGE_BYTES_MAX: usize = 1024;

const CLEARTEXT_PASSWORD: i32 = 3;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// `SASLInitialResponse`: the mechanism that a client chose, and its first words in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialResponse<'a> {
    /// The mechanism's name.
    pub mechanism: &'a str,
    /// The first words; some mechanisms have none.
    pub data: Option<&'a [u8]>,
}

/// Writes `AuthenticationSASL`: the mechanisms to choose from.
pub fn request(out: &mut BytesMut, mechanisms: &[&str]) {
    message(out, kind::AUTHENTICATION, |out| {
        out.put_i32(SASL);
        for mechanism in mechanisms {
            put_cstr(out, mechanism.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Writes `AuthenticationSASLContinue`.
pub fn challenge(out: &mut BytesMut, data: &[u8]) {
    message(out, kind::AUTHENTICATION, |out| {
        out.put_i32(SASL_CONTINUE);
        out.extend_from_slice(data);
    });
}

/// Writes `AuthenticationSASLFinal`.
pub fn outcome(out: &mut BytesMut, data: &[u8]) {
    message(out, kind::AUTHENTICATION, |out| {
        out.put_i32(SASL_FINAL);
        out.extend_from_slice(data);
    });
}

/// Writes `AuthenticationCleartextPassword`.
pub fn request_password(out: &mut BytesMut) {
    message(out, kind::AUTHENTICATION, |out| {
        out.put_i32(CLEARTEXT_PASSWORD);
    });
}

/// Reads the body of `PasswordMessage`.
pub fn decode_password(body: &[u8]) -> Result<&str, PgError> {
    let mut reader = Reader::new(body);
    let password = reader.cstr()?;
    reader
        .finish()
        .map_err(|_| violation("invalid password packet size"))?;
    std::str::from_utf8(password).map_err(|_| {
        PgError::error(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            "the password is not text in UTF-8",
        )
    })
}

impl<'a> InitialResponse<'a> {
    /// Reads the body of `SASLInitialResponse`.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let mechanism = std::str::from_utf8(reader.cstr()?).map_err(|_| {
            PgError::error(
                sqlstate::PROTOCOL_VIOLATION,
                "client selected an invalid SASL authentication mechanism",
            )
        })?;
        let data = reader.value()?;
        reader
            .finish()
            .map_err(|_| violation("invalid message format"))?;
        Ok(Self { mechanism, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages() {
        let mut out = BytesMut::new();
        request(&mut out, &["A", "B"]);
        assert_eq!(&out[..], b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0");
        out.clear();
        challenge(&mut out, b"x");
        assert_eq!(&out[..], b"R\0\0\0\x09\0\0\0\x0bx");
        out.clear();
        outcome(&mut out, b"x");
        assert_eq!(&out[..], b"R\0\0\0\x09\0\0\0\x0cx");
        out.clear();
        request_password(&mut out);
        assert_eq!(&out[..], b"R\0\0\0\x08\0\0\0\x03");
    }

    #[test]
    fn passwords() {
        assert_eq!(decode_password(b"a b\0"), Ok("a b"));
        for bytes in [&b"a"[..], b"a\0b", b""] {
            assert_eq!(
                decode_password(bytes).unwrap_err().code(),
                "08P01",
                "{bytes:?}"
            );
        }
        assert_eq!(decode_password(b"\xff\0").unwrap_err().code(), "22021");
    }

    #[test]
    fn initial_responses() {
        let decode = InitialResponse::decode;
        let response = |mechanism, data| InitialResponse { mechanism, data };
        assert_eq!(
            decode(b"A\0\0\0\0\x01x"),
            Ok(response("A", Some(&b"x"[..])))
        );
        assert_eq!(decode(b"A\0\xff\xff\xff\xff"), Ok(response("A", None)));
        for bytes in [&b"A"[..], b"A\0", b"\xff\0\0\0\0\0", b"A\0\0\0\0\0x"] {
            assert_eq!(decode(bytes).unwrap_err().code(), "08P01", "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = InitialResponse::decode(&bytes);
            let _ = decode_password(&bytes);
        }
    }
}
