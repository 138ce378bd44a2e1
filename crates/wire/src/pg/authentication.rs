//! What a server asks of a client before it lets it in.

use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use super::PgError;
use super::reader::{Reader, violation};
use super::{frontend, writer};

use bytes::{BufMut as _, BytesMut};

/// A message of kind `R`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// It is let in.
    Ok,
    /// The password as it is.
    Cleartext,
    /// The password's MD5 hash, hashed again with these bytes.
    Md5 {
        /// What to hash it with.
        salt: [u8; 4],
    },
    /// One of these mechanisms of SASL.
    Sasl {
        /// Their names, the server's favourite first.
        mechanisms: Vec<&'a str>,
    },
    /// The exchange goes on.
    SaslContinue(&'a [u8]),
    /// The exchange's last message.
    SaslFinal(&'a [u8]),
    /// A way that is not spoken here: GSSAPI, SSPI, ...
    Other(u32),
}

impl<'a> Request<'a> {
    /// Reads the body of the message.
    ///
    /// # Errors
    ///
    /// 08P01 for what is no such message.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        Ok(match reader.u32()? {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => {
                let salt = reader.bytes(4)?;
                let salt = salt.try_into();
                Self::Md5 {
                    salt: salt.map_err(|_| violation("invalid salt of a password"))?,
                }
            }
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = std::str::from_utf8(reader.cstr()?)
                        .map_err(|_| violation("invalid name of a SASL mechanism"))?;
                    match name {
                        "" => break,
                        _ => mechanisms.push(name),
                    }
                }
                Self::Sasl { mechanisms }
            }
            11 => Self::SaslContinue(reader.rest()),
            12 => Self::SaslFinal(reader.rest()),
            other => Self::Other(other),
        })
    }
}

/// Writes `PasswordMessage`.
///
/// # Errors
///
/// If there is a zero byte in it.
pub fn password(out: &mut BytesMut, password: &[u8]) -> Result<(), PgError> {
    writer::try_message(out, Some(frontend::kind::PASSWORD), |out| {
        writer::try_put_cstr(out, password)
    })
}

/// Writes `SASLInitialResponse`.
///
/// # Errors
///
/// If it is too long.
pub fn sasl_initial(out: &mut BytesMut, mechanism: &str, data: &[u8]) -> Result<(), PgError> {
    writer::try_message(out, Some(frontend::kind::PASSWORD), |out| {
        writer::try_put_cstr(out, mechanism.as_bytes())?;
        writer::try_put_value(out, Some(data))
    })
}

/// Writes `SASLResponse`.
///
/// # Errors
///
/// If it is too long.
pub fn sasl_response(out: &mut BytesMut, data: &[u8]) -> Result<(), PgError> {
    writer::try_message(out, Some(frontend::kind::PASSWORD), |out| {
        out.put_slice(data);
        Ok(())
    })
}

/// What is sent for an MD5 password: `md5` and the hash of the hash.
pub fn md5_response(user: &str, password: &str, salt: [u8; 4]) -> Zeroizing<String> {
    let inner = hex(&[password.as_bytes(), user.as_bytes()]);
    Zeroizing::new(format!("md5{}", *hex(&[inner.as_bytes(), &salt])))
}

fn hex(parts: &[&[u8]]) -> Zeroizing<String> {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    let digits = |byte: u8| [byte >> 4, byte & 15];
    let digits = hash.finalize().into_iter().flat_map(digits);
    Zeroizing::new(
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests() {
        let table: [(&[u8], Request<'_>); 7] = [
            (b"\0\0\0\0", Request::Ok),
            (b"\0\0\0\x03", Request::Cleartext),
            (b"\0\0\0\x05abcd", Request::Md5 { salt: *b"abcd" }),
            (
                b"\0\0\0\x0aA\0B\0\0",
                Request::Sasl {
                    mechanisms: vec!["A", "B"],
                },
            ),
            (b"\0\0\0\x0bx", Request::SaslContinue(b"x")),
            (b"\0\0\0\x0cx", Request::SaslFinal(b"x")),
            (b"\0\0\0\x07", Request::Other(7)),
        ];
        for (body, expected) in table {
            assert_eq!(Request::decode(body), Ok(expected));
        }
        for body in [&b""[..], b"\0\0\0\x05a", b"\0\0\0\x0aA"] {
            assert_eq!(Request::decode(body).unwrap_err().code(), "08P01");
        }
    }

    /// Role `ann`, password `secret`, salt 01020304; the hashes are those of coreutils.
    #[test]
    fn md5_is_that_of_postgres() {
        // md5(hex(md5("secretann")) and the salt).
        let expected = "md59009ce60b9ca97f1e752376843d1309e";
        let got = md5_response("ann", "secret", [1, 2, 3, 4]);
        assert_eq!(*got, expected);
    }

    #[test]
    fn answers() {
        let mut out = BytesMut::new();
        password(&mut out, b"x").unwrap();
        assert_eq!(&out[..], b"p\0\0\0\x06x\0");
        out.clear();
        sasl_initial(&mut out, "A", b"x").unwrap();
        assert_eq!(&out[..], b"p\0\0\0\x0bA\0\0\0\0\x01x");
        out.clear();
        sasl_response(&mut out, b"x").unwrap();
        assert_eq!(&out[..], b"p\0\0\0\x05x");
        assert!(password(&mut out, b"a\0").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Request::decode(&bytes);
        }
    }
}
