//! A thin blocking client of the SQL-over-HTTP interface: one connection, kept alive.

use crate::{
    samples::Budget,
    session::{Params, Result, Session, Unsupported},
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    time::Duration,
};

pub(crate) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    database: String,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self {
            stream,
            address,
            database: database.to_owned(),
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Asks another database from now on.
    pub(crate) fn turn_to(&mut self, database: &str) {
        if self.database != database {
            self.database = database.to_owned();
        }
    }

    /// Creates a database.
    pub(crate) fn create(&mut self, name: &str) -> Result<()> {
        let request = self.post("/v1/databases", &json!({ "name": name }).to_string());
        self.round_trip(&request)
    }

    /// Creates a database as a fork of another.
    pub(crate) fn fork(&mut self, name: &str, from: &str) -> Result<()> {
        let body = json!({ "name": name, "from": { "database": from } });
        let request = self.post("/v1/databases", &body.to_string());
        self.round_trip(&request)
    }

    /// Asks a host for a path, whatever is there.
    pub(crate) fn visit(&mut self, host: &str, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.round_trip(request.as_bytes())
    }

    /// The JSON at a path.
    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let body = self.answer(request.as_bytes())?;
        Ok(serde_json::from_slice(&self.buffer[body])?)
    }

    /// Sends JSON to a path; the JSON that comes back.
    pub(crate) fn send(&mut self, path: &str, body: &Value) -> Result<Value> {
        let request = self.post(path, &body.to_string());
        let body = self.answer(&request)?;
        Ok(serde_json::from_slice(&self.buffer[body])?)
    }

    fn post(&self, path: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .into_bytes()
    }

    fn query(&self, body: &str) -> Vec<u8> {
        self.post(&format!("/v1/databases/{}/query", self.database), body)
    }

    fn round_trip(&mut self, request: &[u8]) -> Result<()> {
        self.answer(request).map(drop)
    }

    /// Where in the buffer the body of the answer to a request is.
    fn answer(&mut self, request: &[u8]) -> Result<Range<usize>> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            if let Some(head) = Head::of(&self.buffer[..filled])?
                && filled >= head.end + head.length
            {
                if head.status / 100 == 2 {
                    return Ok(head.end..filled);
                }
                let body = String::from_utf8_lossy(&self.buffer[head.end..filled]);
                return Err(format!("HTTP status {}: {body}", head.status).into());
            }
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            match self.stream.read(&mut self.buffer[filled..])? {
                0 => return Err("the server closed the connection".into()),
                n => filled += n,
            }
        }
    }
}

impl Session for Client {
    fn simple(&mut self, sql: &str, budget: Budget) -> Result<Vec<f64>> {
        let request = self.query(&json!({ "sql": sql }).to_string());
        budget.run(|_| self.round_trip(&request))
    }

    fn prepared(&mut self, sql: &str, params: &[Params], budget: Budget) -> Result<Vec<f64>> {
        let requests: Vec<_> = params
            .iter()
            .map(|params| self.query(&json!({ "sql": sql, "params": params }).to_string()))
            .collect();
        budget.run(|i| self.round_trip(&requests[i % requests.len()]))
    }

    fn transaction(&mut self, _sql: &str, _rows: &[Params]) -> Result<f64> {
        Err(Unsupported("one request is one transaction").into())
    }
}

/// What is needed of a response's head.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    /// The body's length.
    length: usize,
}

impl Head {
    /// The head at the start, once it is there as a whole.
    fn of(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end])?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.ok_or("not an HTTP response")?.parse()?;
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .ok_or("an HTTP response without a length")?;
        Ok(Some(Self {
            status,
            end: end + 4,
            length: length.1.trim().parse()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX: y\r\n\r\n{}";
        let head = Head::of(response).unwrap().unwrap();
        assert_eq!(
            head,
            Head {
                status: 200,
                end: response.len() - 2,
                length: 2
            }
        );
        assert_eq!(Head::of(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert!(Head::of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
