//! A thin HTTP client that shows what is on the wire.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::PATIENCE;

/// One connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, None)
    }

    pub(crate) fn delete(&mut self, path: &str) -> Response {
        self.request("DELETE", path, None)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Response {
        self.request("POST", path, Some(&body.to_string()))
    }

    pub(crate) fn query(&mut self, database: &str, sql: &str) -> Response {
        self.post(
            &format!("/v1/databases/{database}/query"),
            &json!({ "sql": sql }),
        )
    }

    /// A body is sent as JSON.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: Option<&str>) -> Response {
        self.request_with(method, path, &[], body)
    }

    /// With headers besides.
    pub(crate) fn request_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Response {
        let host = headers.iter().find(|(name, _)| *name == "host");
        let host = host.map_or("localhost", |(_, host)| host);
        let more: String = headers
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = body.map_or_else(String::new, |body| {
            format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            )
        });
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}{head}\r\n{}",
            body.unwrap_or_default()
        ));
        self.response()
    }

    /// Sends a request with JSON, and waits for no answer.
    #[track_caller]
    pub(crate) fn send_post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) {
        let body = body.to_string();
        let more: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{more}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &str) {
        self.send_bytes(bytes.as_bytes());
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// As many bytes of this kind as the server takes, at most so many.
    pub(crate) fn send_until_refused(&mut self, byte: u8, count: usize) {
        let chunk = [byte; 64 * 1024];
        for _ in 0..count.div_ceil(chunk.len()) {
            if self.stream.get_mut().write_all(&chunk).is_err() {
                return;
            }
        }
    }

    /// What comes until the server closes the connection.
    pub(crate) fn read_to_end(&mut self, text: &mut String) {
        self.stream.read_to_string(text).unwrap();
    }

    /// Reads until a text has come, in one chunk or more.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            let read = self.stream.fill_buf().unwrap();
            assert!(!read.is_empty(), "{}", String::from_utf8_lossy(&all));
            let count = read.len();
            all.extend_from_slice(read);
            self.stream.consume(count);
        }
    }

    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = self.chunks();
            return response;
        }
        let length = response
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        response.body.resize(length, 0);
        self.stream.read_exact(&mut response.body).unwrap();
        response
    }

    /// The same, if it begins to come within this time.
    pub(crate) fn response_within(&mut self, patience: Duration) -> Option<Response> {
        self.stream
            .get_ref()
            .set_read_timeout(Some(patience))
            .unwrap();
        let has_begun = self.stream.fill_buf().is_ok_and(|read| !read.is_empty());
        self.stream
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .unwrap();
        has_begun.then(|| self.response())
    }

    /// What comes before the body.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Response {
        let mut line = || {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.expect("the answer has a status line");
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Response {
            status,
            headers,
            body: Vec::new(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return body;
            }
        }
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{}",
            self.text()
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A problem document, whatever its status.
    #[track_caller]
    pub(crate) fn problem(&self) -> Value {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The error with this status: its code and its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.problem()["error"];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (text("code"), text("message"))
    }
}
