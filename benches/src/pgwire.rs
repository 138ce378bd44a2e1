//! A thin blocking client of the PostgreSQL protocol, the same for every server, so that what it
//! costs is small and equal. It looks at nothing in an answer but errors and its end.

use crate::{
    samples::Budget,
    session::{Error, Params, Result, Session, us},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    filled: usize,
    request: Vec<u8>,
    statements: HashMap<String, String>,
    /// What BackendKeyData says: who to cancel, and the secret for it.
    pub(crate) key: Vec<u8>,
}

/// A server that does not answer for this long has failed.
const TIMEOUT: Duration = Duration::from_secs(600);

impl Client {
    pub(crate) fn connect(address: &Address, database: &str) -> Result<Self> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                Box::new(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                Box::new(stream)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => return Err("no unix sockets on this system".into()),
        };
        let mut client = Self {
            stream,
            buffer: vec![0; 64 * 1024],
            filled: 0,
            request: Vec::new(),
            statements: HashMap::new(),
            key: Vec::new(),
        };
        client.request = startup(database);
        client.round_trip()?;
        Ok(client)
    }

    /// Runs `COPY … FROM STDIN` with these pieces of its data.
    pub(crate) fn copy_in(&mut self, sql: &str, data: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        self.message(b'Q', |m| text(m, sql));
        self.send()?;
        self.answer(b'G')?;
        for piece in data {
            self.message(b'd', |m| m.extend_from_slice(&piece));
            self.send()?;
        }
        self.message(b'c', |_| {});
        self.round_trip()
    }

    /// Asks nothing, and reads until the server ends the session; its reason.
    pub(crate) fn until_ended(&mut self) -> Error {
        match self.answer(b'Z') {
            Err(reason) => reason,
            Ok(()) => "an answer that nobody asked for".into(),
        }
    }

    /// Sends what has been put together, and reads up to ReadyForQuery.
    fn round_trip(&mut self) -> Result<()> {
        self.send()?;
        self.answer(b'Z')
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        self.request.clear();
        Ok(())
    }

    /// Reads up to a message of the kind `last`, or ReadyForQuery after an error.
    fn answer(&mut self, last: u8) -> Result<()> {
        let mut failed: Option<Error> = None;
        let mut at = 0;
        loop {
            // One frame: its type, and its length with the length's own four bytes.
            while let Some(frame) = frame(&self.buffer[at..self.filled]) {
                let Frame { kind, body } = frame;
                let length = 5 + body.len();
                match kind {
                    _ if kind == last || kind == b'Z' => {
                        self.filled = 0;
                        return failed.map_or(Ok(()), Err);
                    }
                    b'E' => {
                        let error = error(body);
                        let fatal = error.starts_with("FATAL") || error.starts_with("PANIC");
                        if fatal {
                            return Err(error.into());
                        }
                        failed.get_or_insert_with(|| error.into());
                    }
                    b'K' => self.key = body.to_vec(),
                    b'R' if body != [0, 0, 0, 0] => {
                        return Err("the server asks for a password".into());
                    }
                    _ => {}
                }
                at += length;
            }
            self.buffer.copy_within(at..self.filled, 0);
            self.filled -= at;
            at = 0;
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(format!("no answer in {} s", TIMEOUT.as_secs()).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds a message to the request.
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        message(&mut self.request, kind, body);
    }

    fn query(&mut self, sql: &str) -> Result<()> {
        self.message(b'Q', |m| text(m, sql));
        self.round_trip()
    }

    fn prepare(&mut self, sql: &str) -> Result<String> {
        if let Some(name) = self.statements.get(sql) {
            return Ok(name.clone());
        }
        let name = format!("s{}", self.statements.len());
        self.message(b'P', |m| {
            text(m, &name);
            text(m, sql);
            m.extend_from_slice(&[0, 0]);
        });
        self.message(b'S', |_| {});
        self.round_trip()?;
        self.statements.insert(sql.to_owned(), name.clone());
        Ok(name)
    }

    fn execute_prepared(&mut self, name: &str, params: &Params) -> Result<()> {
        self.message(b'B', |m| {
            m.push(0);
            text(m, name);
            // All parameters and all results as text.
            m.extend_from_slice(&[0, 0]);
            m.extend_from_slice(&(params.len() as u16).to_be_bytes());
            for param in params {
                let value = match param {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                m.extend_from_slice(&(value.len() as u32).to_be_bytes());
                m.extend_from_slice(value.as_bytes());
            }
            m.extend_from_slice(&[0, 0]);
        });
        self.message(b'E', |m| m.extend_from_slice(&[0; 5]));
        self.message(b'S', |_| {});
        self.round_trip()
    }
}

impl Session for Client {
    fn simple(&mut self, sql: &str, budget: Budget) -> Result<Vec<f64>> {
        budget.run(|_| self.query(sql))
    }

    fn prepared(&mut self, sql: &str, params: &[Params], budget: Budget) -> Result<Vec<f64>> {
        let name = self.prepare(sql)?;
        budget.run(|i| self.execute_prepared(&name, &params[i % params.len()]))
    }

    fn transaction(&mut self, sql: &str, rows: &[Params]) -> Result<f64> {
        let start = Instant::now();
        self.query("begin")?;
        let name = self.prepare(sql)?;
        for row in rows {
            self.execute_prepared(&name, row)?;
        }
        self.query("commit")?;
        Ok(us(start))
    }
}

/// The packet that begins a connection.
pub(crate) fn startup(database: &str) -> Vec<u8> {
    let mut words = vec![0, 3, 0, 0];
    for word in ["user", "postgres", "database", database] {
        text(&mut words, word);
    }
    words.push(0);
    let mut packet = length(words.len()).to_vec();
    packet.append(&mut words);
    packet
}

/// Adds a message to others.
pub(crate) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let bytes = length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&bytes);
}

/// The length word of a message: its own four bytes count.
fn length(body: usize) -> [u8; 4] {
    u32::try_from(body + 4)
        .expect("BUG: a benchmark's message is far below 4 GiB")
        .to_be_bytes()
}

pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
}

/// The frame at the start, if it is there as a whole.
pub(crate) fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&kind, rest) = bytes.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    Some(Frame {
        kind,
        body: rest.get(4..length)?,
    })
}

pub(crate) fn text(message: &mut Vec<u8>, text: &str) {
    message.extend_from_slice(text.as_bytes());
    message.push(0);
}

/// Severity, code and message of an ErrorResponse.
pub(crate) fn error(body: &[u8]) -> String {
    let field = |kind: u8| {
        body.split(|&byte| byte == 0)
            .find(|field| field.first() == Some(&kind))
            .map_or_else(String::new, |field| {
                String::from_utf8_lossy(&field[1..]).into_owned()
            })
    };
    format!("{} {}: {}", field(b'V'), field(b'C'), field(b'M'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let bytes = [b'Z', 0, 0, 0, 5, b'I', b'X'];
        let Frame { kind, body } = frame(&bytes).unwrap();
        assert_eq!((kind, body), (b'Z', &b"I"[..]));
        assert!(frame(&bytes[..5]).is_none());
        assert!(frame(&bytes[..3]).is_none());
    }

    #[test]
    fn an_error_is_told_by_its_fields() {
        assert_eq!(
            error(b"SFEHLER\0VERROR\0C42P01\0Mno table\0\0"),
            "ERROR 42P01: no table"
        );
    }
}
