//! The first packet of a connection, the only one without a type byte.

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::Reader;
use super::{PgError, sqlstate, writer};

/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, which does not count the length itself.
const STARTUP_BYTES_MAX: usize = 10_000;

/// The newest minor version of protocol 3 that PostgreSQL 18 speaks.
pub const MINOR_MAX: u16 = 2;

/// PostgreSQL's `NAMEDATALEN - 1`.
const NAME_BYTES_MAX: usize = 63;

/// The longest cancel key of protocol 3.2.
const CANCEL_KEY_BYTES_MAX: usize = 256;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;

/// The packet with which a client asks for TLS.
pub const SSL_REQUEST_PACKET: [u8; 8] = *b"\0\0\0\x08\x04\xd2\x16\x2f";

/// What a client may begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// A session is wanted.
    Startup(Startup),
    /// TLS is wanted: answer one byte, `S` or `N`, and expect another first packet.
    SslRequest,
    /// GSSAPI encryption is wanted: answer `N`, and expect another first packet.
    GssEncRequest,
    /// Another session's statement is to be canceled; nothing is answered.
    CancelRequest {
        /// The process id of that session's `BackendKeyData`.
        pid: u32,
        /// Its key: 4 bytes before protocol 3.2, up to 256 since.
        key: Bytes,
    },
}

/// A wish for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version of protocol 3 that the client asked for.
    pub minor: u16,
    /// The role, cut to 63 bytes as PostgreSQL does.
    pub user: String,
    /// The database, cut likewise; the user's name if the client named none.
    pub database: String,
    /// Whether replication commands are wanted.
    pub replication: Replication,
    /// Settings in the order in which PostgreSQL applies them: those of `options`, then the others.
    pub settings: Vec<(String, String)>,
    /// `_pq_.` options. None exists yet, so all are unknown.
    pub unknown_protocol_options: Vec<String>,
}

/// What `replication` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary session.
    No,
    /// Physical replication, which has no database.
    Physical,
    /// Logical replication of the database.
    Database,
}

impl FirstPacket {
    /// Takes the first packet off the front of what has arrived, or nothing while it is incomplete.
    ///
    /// Bytes that are no startup packet are refused from the first four on: another protocol's
    /// client should learn its mistake instead of waiting for the rest of a packet.
    pub fn split(buffer: &mut BytesMut) -> Result<Option<Self>, PgError> {
        let Some(head) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        if let Some(error) = other_protocol(*head) {
            return Err(error);
        }
        let total = match usize::try_from(i32::from_be_bytes(*head)) {
            Ok(total) if (8..=STARTUP_BYTES_MAX + 4).contains(&total) => total,
            _ => return Err(violation("invalid length of startup packet")),
        };
        if buffer.len() < total {
            return Ok(None);
        }
        let packet = buffer.split_to(total).freeze();
        Self::parse(&packet.slice(4..)).map(Some)
    }

    /// Reads a packet without its length.
    fn parse(packet: &Bytes) -> Result<Self, PgError> {
        let mut reader = Reader::new(packet);
        match reader.u32()? {
            SSL_REQUEST => Ok(Self::SslRequest),
            GSS_ENC_REQUEST => Ok(Self::GssEncRequest),
            CANCEL_REQUEST => {
                let invalid = |_| violation("invalid length of startup packet");
                let pid = reader.u32().map_err(invalid)?;
                let key = reader.rest();
                if key.is_empty() || key.len() > CANCEL_KEY_BYTES_MAX {
                    let message = "invalid length of cancel key in cancel request packet";
                    return Err(violation(message));
                }
                Ok(Self::CancelRequest {
                    pid,
                    key: packet.slice_ref(key),
                })
            }
            version => {
                let (major, minor) = ((version >> 16) as u16, version as u16);
                if major != 3 {
                    return Err(PgError::fatal(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        format!(
                            "unsupported frontend protocol {major}.{minor}: \
                             server supports 3.0 to 3.{MINOR_MAX}"
                        ),
                    ));
                }
                Startup::parse(minor, reader.rest()).map(Self::Startup)
            }
        }
    }
}

/// Writes the packet that cancels what the session with this `BackendKeyData` does.
pub fn cancel_request(out: &mut BytesMut, pid: u32, key: &[u8]) {
    let length = 12 + key.len().min(CANCEL_KEY_BYTES_MAX);
    out.put_u32(length as u32);
    out.put_u32(CANCEL_REQUEST);
    out.put_u32(pid);
    out.put_slice(&key[..length - 12]);
}

impl Startup {
    /// A wish for an ordinary session of protocol 3.0, without settings.
    pub fn new(user: &str, database: &str) -> Self {
        Self {
            minor: 0,
            user: user.to_owned(),
            database: database.to_owned(),
            replication: Replication::No,
            settings: Vec::new(),
            unknown_protocol_options: Vec::new(),
        }
    }

    /// The minor version that both sides speak.
    pub fn negotiated_minor(&self) -> u16 {
        self.minor.min(MINOR_MAX)
    }

    /// Whether the client must be told, with `backend::negotiate_protocol_version`, that it asked
    /// for more than there is. The session goes on.
    pub fn must_negotiate(&self) -> bool {
        self.minor > MINOR_MAX || !self.unknown_protocol_options.is_empty()
    }

    /// Writes the packet, as a client. An empty `settings` and `Replication::No` leave no trace.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), PgError> {
        let replication = match self.replication {
            Replication::No => None,
            Replication::Physical => Some(("replication", "true")),
            Replication::Database => Some(("replication", "database")),
        };
        let named = [("user", &*self.user), ("database", &*self.database)];
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let options = self
            .unknown_protocol_options
            .iter()
            .map(|name| (&**name, ""));
        writer::try_message(out, None, |out| {
            out.put_u16(3);
            out.put_u16(self.minor);
            let params = named
                .into_iter()
                .chain(replication)
                .chain(settings)
                .chain(options);
            for (name, value) in params {
                writer::try_put_cstr(out, name.as_bytes())?;
                writer::try_put_cstr(out, value.as_bytes())?;
            }
            out.put_u8(0);
            Ok(())
        })
    }

    fn parse(minor: u16, params: &[u8]) -> Result<Self, PgError> {
        let mut user = None;
        let mut database = None;
        let mut replication = Replication::No;
        let mut options = None;
        let mut settings = Vec::new();
        let mut unknown_protocol_options = Vec::new();

        let layout =
            |_| violation("invalid startup packet layout: expected terminator as last byte");
        let mut reader = Reader::new(params);
        loop {
            let name = utf8(reader.cstr().map_err(layout)?)?;
            if name.is_empty() {
                break;
            }
            let value = utf8(reader.cstr().map_err(layout)?)?;
            match name {
                "user" => user = Some(value),
                "database" => database = Some(value),
                "replication" => replication = Replication::parse(value)?,
                "options" => options = Some(value),
                _ if name.starts_with("_pq_.") => unknown_protocol_options.push(name.to_owned()),
                _ => settings.push((name.to_owned(), value.to_owned())),
            }
        }
        reader.finish().map_err(layout)?;

        let user = user.filter(|user| !user.is_empty()).ok_or_else(|| {
            PgError::fatal(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                "no PostgreSQL user name specified in startup packet",
            )
        })?;
        let database = database
            .filter(|database| !database.is_empty())
            .unwrap_or(user);
        let mut applied = options
            .map(settings_of_options)
            .transpose()?
            .unwrap_or_default();
        applied.append(&mut settings);
        Ok(Self {
            minor,
            user: cut(user).to_owned(),
            database: cut(database).to_owned(),
            replication,
            settings: applied,
            unknown_protocol_options,
        })
    }
}

impl Replication {
    /// Reads `database`, or a boolean as PostgreSQL's `parse_bool` does.
    fn parse(value: &str) -> Result<Self, PgError> {
        let lower = value.to_ascii_lowercase();
        let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&*lower);
        if value == "database" {
            Ok(Self::Database)
        } else if begins("true", 1) || begins("yes", 1) || lower == "on" || lower == "1" {
            Ok(Self::Physical)
        } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || lower == "0" {
            Ok(Self::No)
        } else {
            Err(PgError::fatal(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"replication\": \"{value}\""),
            )
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
        }
    }
}

/// Recognises clients of other protocols by their first four bytes. None of these is a possible
/// length: as numbers they are all beyond 300 million.
fn other_protocol(head: [u8; 4]) -> Option<PgError> {
    const METHODS: [&[u8; 4]; 10] = [
        b"GET ", b"HEAD", b"POST", b"PUT ", b"PATC", b"DELE", b"OPTI", b"CONN", b"TRAC", b"PRI ",
    ];
    if METHODS.contains(&&head) {
        return Some(violation(
            "received an HTTP request: this is the PostgreSQL port; HTTP is served at another port",
        ));
    }
    if head[..2] == [0x16, 0x03] {
        return Some(
            violation("received a TLS handshake without an SSLRequest before it")
                .hint("Set sslnegotiation=postgres in the client."),
        );
    }
    None
}

/// The settings in the `options` parameter: `-c name=value`, `-cname=value` and `--name=value`.
/// PostgreSQL's other switches are for its own developers, or change files that are not a client's.
///
/// # Errors
/// 42601 for what is none of them.
pub fn settings_of_options(options: &str) -> Result<Vec<(String, String)>, PgError> {
    let syntax = |message| PgError::fatal(sqlstate::SYNTAX_ERROR, message);
    let mut settings = Vec::new();
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let (switch, setting) = if let Some(setting) = word.strip_prefix("--") {
            ("--", setting.to_owned())
        } else if word == "-c" {
            let next = words.next();
            (
                "-c ",
                next.ok_or_else(|| syntax("option requires an argument -- 'c'".into()))?,
            )
        } else if let Some(setting) = word.strip_prefix("-c") {
            ("-c ", setting.to_owned())
        } else {
            let message = format!("invalid command-line argument for server process: {word}");
            return Err(syntax(message)
                .hint("Only -c name=value and --name=value are understood in options."));
        };
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| syntax(format!("{switch}{setting} requires a value")))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// Splits at white space that no backslash precedes, as PostgreSQL's `pg_split_opts`.
fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// PostgreSQL cuts a longer name here, and in SQL, at the same length: both still meet.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

fn utf8(bytes: &[u8]) -> Result<&str, PgError> {
    std::str::from_utf8(bytes).map_err(|_| {
        PgError::fatal(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            "the startup packet has text that is not UTF-8",
        )
    })
}

fn violation(message: &str) -> PgError {
    PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, rest: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32(8 + rest.len() as u32);
        out.put_u32(code);
        out.extend_from_slice(rest);
        out
    }

    fn startup(params: &[u8]) -> Startup {
        match FirstPacket::split(&mut packet(3 << 16, params)) {
            Ok(Some(FirstPacket::Startup(startup))) => startup,
            other => panic!("{other:?}"),
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn requests() {
        let key = Bytes::from_static(&[7; 32]);
        let table = [
            (packet(SSL_REQUEST, b""), FirstPacket::SslRequest),
            (packet(GSS_ENC_REQUEST, b""), FirstPacket::GssEncRequest),
            (
                packet(CANCEL_REQUEST, &[&[0, 0, 1, 0], &key[..]].concat()),
                FirstPacket::CancelRequest { pid: 256, key },
            ),
        ];
        for (mut buffer, expected) in table {
            assert_eq!(FirstPacket::split(&mut buffer).unwrap(), Some(expected));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn parameters() {
        let got = startup(
            b"user\0ann\0options\0-c a.b=1 --work-mem=2MB -cx=y\\ z\0application_name\0psql\0\0",
        );
        assert_eq!((&*got.user, &*got.database), ("ann", "ann"));
        let settings = [
            ("a.b", "1"),
            ("work_mem", "2MB"),
            ("x", "y z"),
            ("application_name", "psql"),
        ];
        assert_eq!(got.settings, pairs(&settings));
        assert!(!got.must_negotiate());

        let got = startup(b"database\0shop\0user\0ann\0replication\0database\0_pq_.x\0y\0\0");
        assert_eq!(
            (&*got.database, got.replication),
            ("shop", Replication::Database)
        );
        assert!(got.must_negotiate());

        let long = "é".repeat(40);
        let got = startup(format!("user\0{long}\0\0").as_bytes());
        assert_eq!(got.user.len(), 62);
    }

    #[test]
    fn a_newer_minor_is_negotiated() {
        let mut buffer = packet(3 << 16 | 9999, b"user\0a\0\0");
        let Ok(Some(FirstPacket::Startup(got))) = FirstPacket::split(&mut buffer) else {
            panic!()
        };
        assert!(got.must_negotiate());
        assert_eq!(got.negotiated_minor(), 2);
    }

    #[test]
    fn refused() {
        let tls = BytesMut::from(&b"\x16\x03\x01\x02\x00\x01"[..]);
        let table = [
            (
                BytesMut::from("GET / HTTP/1.1\r\n"),
                "08P01",
                "HTTP is served at another port",
            ),
            (
                BytesMut::from("PRI * HTTP/2.0\r\n"),
                "08P01",
                "HTTP is served at another port",
            ),
            (tls, "08P01", "TLS handshake"),
            (
                BytesMut::from("SSH-2.0-"),
                "08P01",
                "invalid length of startup packet",
            ),
            (
                BytesMut::from(&[0, 0, 0, 7][..]),
                "08P01",
                "invalid length of startup packet",
            ),
            (
                BytesMut::from(&[0, 0, 0x27, 0x15][..]),
                "08P01",
                "invalid length",
            ),
            (
                packet(2 << 16, b""),
                "0A000",
                "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
            ),
            (
                packet(4 << 16 | 1, b"user\0a\0\0"),
                "0A000",
                "unsupported frontend protocol 4.1",
            ),
            (
                packet(3 << 16, b""),
                "08P01",
                "expected terminator as last byte",
            ),
            (
                packet(3 << 16, b"user\0a\0"),
                "08P01",
                "expected terminator as last byte",
            ),
            (
                packet(3 << 16, b"user\0a\0\0x"),
                "08P01",
                "expected terminator as last byte",
            ),
            (
                packet(3 << 16, b"\0"),
                "28000",
                "no PostgreSQL user name specified",
            ),
            (
                packet(3 << 16, b"user\0\0\0"),
                "28000",
                "no PostgreSQL user name specified",
            ),
            (packet(3 << 16, b"user\0\xff\0\0"), "22021", "not UTF-8"),
            (
                packet(3 << 16, b"user\0a\0replication\0maybe\0\0"),
                "22023",
                "\"maybe\"",
            ),
            (
                packet(3 << 16, b"user\0a\0options\0-F\0\0"),
                "42601",
                "server process: -F",
            ),
            (
                packet(3 << 16, b"user\0a\0options\0-c\0\0"),
                "42601",
                "requires an argument",
            ),
            (
                packet(3 << 16, b"user\0a\0options\0--a\0\0"),
                "42601",
                "--a requires a value",
            ),
            (
                packet(CANCEL_REQUEST, b"\0\0"),
                "08P01",
                "invalid length of startup packet",
            ),
            (
                packet(CANCEL_REQUEST, b"\0\0\0\x01"),
                "08P01",
                "invalid length of cancel key",
            ),
            (
                packet(CANCEL_REQUEST, &[0; 261]),
                "08P01",
                "invalid length of cancel key",
            ),
        ];
        for (mut buffer, code, message) in table {
            let error = FirstPacket::split(&mut buffer).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[test]
    fn replication_values() {
        let table = [
            ("t", Replication::Physical),
            ("ON", Replication::Physical),
            ("1", Replication::Physical),
            ("of", Replication::No),
            ("no", Replication::No),
        ];
        for (value, expected) in table {
            assert_eq!(Replication::parse(value).unwrap(), expected, "{value}");
        }
        assert!(Replication::parse("").is_err());
        assert!(Replication::parse("o").is_err());
    }

    #[test]
    fn requests_of_ours_are_read() {
        let mut buffer = BytesMut::from(&SSL_REQUEST_PACKET[..]);
        let read = FirstPacket::split(&mut buffer);
        assert_eq!(read, Ok(Some(FirstPacket::SslRequest)));
        cancel_request(&mut buffer, 7, b"key!");
        let key = Bytes::from_static(b"key!");
        let read = FirstPacket::split(&mut buffer);
        assert_eq!(read, Ok(Some(FirstPacket::CancelRequest { pid: 7, key })));
    }

    proptest! {
        #[test]
        fn split_is_total(code in prop_oneof![Just(3u32 << 16), Just(CANCEL_REQUEST), any::<u32>()],
                          rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = FirstPacket::split(&mut packet(code, &rest));
            let _ = FirstPacket::split(&mut BytesMut::from(&rest[..]));
        }

        #[test]
        fn round_trip(minor in 0u16..4, user in "[a-z]{1,9}", database in "[a-z]{1,9}",
                      settings in proptest::collection::vec(("x[a-z_]{0,9}", "[^\0]{0,9}"), 0..4)) {
            let startup = Startup {
                minor, user, database, settings,
                replication: Replication::No,
                unknown_protocol_options: Vec::new(),
            };
            let mut out = BytesMut::new();
            startup.encode(&mut out).unwrap();
            prop_assert_eq!(FirstPacket::split(&mut out).unwrap(), Some(FirstPacket::Startup(startup)));
        }
    }
}
