//! A client that sees each byte.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::PgError;
use wire::pg::frontend::{self, Bind, Execute, Parse};
use wire::pg::startup::Startup;
use wire::pg::{Format, Frame, Target};

/// A session without a driver.
pub(crate) struct Wired {
    stream: TcpStream,
    inbox: BytesMut,
    pub(crate) out: BytesMut,
    address: SocketAddr,
    /// What cancels its statements.
    key: Vec<u8>,
}

impl Wired {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wired = Self {
            stream,
            inbox: BytesMut::new(),
            out: BytesMut::new(),
            address,
            key: Vec::new(),
        };
        let startup = Startup::new("postgres", "postgres");
        startup.encode(&mut wired.out).unwrap();
        let greeting = wired.until(b'Z').await;
        let key = greeting.iter().find(|frame| frame.kind() == b'K');
        wired.key = key.unwrap().body().to_vec();
        wired
    }

    /// Cancels what it does, and waits until that is done.
    pub(crate) async fn cancel(&self) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = u32::try_from(self.key.len() + 8).unwrap();
        let code = 80_877_102_u32;
        let head = [length.to_be_bytes(), code.to_be_bytes()].concat();
        stream
            .write_all(&[&head[..], &self.key].concat())
            .await
            .unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    /// Sends what is to be sent, and waits for nothing.
    pub(crate) async fn send(&mut self) {
        self.stream.write_all(&self.out.split()).await.unwrap();
    }

    /// Sends what is to be sent, and reads to the end of the first message of this kind: all frames.
    pub(crate) async fn until(&mut self, kind: u8) -> Vec<Frame> {
        self.send().await;
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = Frame::split(&mut self.inbox, usize::MAX).unwrap() {
                let is_last = frame.kind() == kind;
                frames.push(frame);
                if is_last {
                    return frames;
                }
            }
            let read = self.stream.read_buf(&mut self.inbox).await.unwrap();
            assert!(read > 0, "the server hung up after {}", kinds(&frames));
        }
    }

    /// A simple query.
    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Frame> {
        frontend::query(&mut self.out, sql.as_bytes()).unwrap();
        self.until(b'Z').await
    }

    pub(crate) fn parse(&mut self, name: &str, sql: &str, oids: &[u32]) -> &mut Self {
        let parse = Parse {
            statement: name.as_bytes(),
            sql: sql.as_bytes(),
            param_oids: oids.to_vec(),
        };
        parse.encode(&mut self.out).unwrap();
        self
    }

    pub(crate) fn bind(&mut self, name: &str, params: &[&str], format: Format) -> &mut Self {
        let params = params.iter().map(|param| Some(param.as_bytes()));
        let bind = Bind {
            portal: b"",
            statement: name.as_bytes(),
            params: params.map(frontend::Param::text).collect(),
            result_formats: vec![format],
        };
        bind.encode(&mut self.out).unwrap();
        self
    }

    pub(crate) fn describe(&mut self, target: Target, name: &str) -> &mut Self {
        frontend::describe(&mut self.out, target, name.as_bytes()).unwrap();
        self
    }

    pub(crate) fn close(&mut self, name: &str) -> &mut Self {
        frontend::close(&mut self.out, Target::Statement, name.as_bytes()).unwrap();
        self
    }

    /// The answer to `Describe` of a statement.
    pub(crate) async fn until_described(&mut self) -> Vec<Frame> {
        let mut frames = self.until(b't').await;
        loop {
            frames.extend(self.frame().await);
            if let Some(b'T' | b'n') = frames.last().map(Frame::kind) {
                return frames;
            }
        }
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::split(&mut self.inbox, usize::MAX).unwrap() {
                return Some(frame);
            }
            let read = self.stream.read_buf(&mut self.inbox).await.unwrap();
            assert!(read > 0, "the server hung up");
        }
    }

    pub(crate) fn execute(&mut self, rows_max: i32) -> &mut Self {
        let execute = Execute {
            portal: b"",
            rows_max,
        };
        execute.encode(&mut self.out).unwrap();
        self
    }

    pub(crate) fn flush(&mut self) -> &mut Self {
        frontend::flush(&mut self.out);
        self
    }

    pub(crate) async fn sync(&mut self) -> Vec<Frame> {
        frontend::sync(&mut self.out);
        self.until(b'Z').await
    }
}

/// The kinds of messages, for people.
pub(crate) fn kinds(frames: &[Frame]) -> String {
    frames
        .iter()
        .map(|frame| char::from(frame.kind()))
        .collect()
}

/// All bytes.
pub(crate) fn bytes(frames: &[Frame]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| frame.bytes().to_vec())
        .collect()
}

/// The texts of all values, rows apart by spaces; an error by its code.
pub(crate) fn values(frames: &[Frame]) -> String {
    let mut texts = Vec::new();
    for frame in frames {
        match frame.kind() {
            b'D' => {
                let row = wire::pg::backend::DataRow::decode(frame.body()).unwrap();
                let value = |value: Option<&[u8]>| match value {
                    Some(value) => String::from_utf8_lossy(value).into_owned(),
                    None => "NULL".to_owned(),
                };
                texts.push(row.map(value).collect::<Vec<_>>().join("|"));
            }
            b'E' => {
                let error = PgError::decode(frame.body()).unwrap();
                texts.push(format!("{} {}", error.code(), error.message()));
            }
            _ => {}
        }
    }
    texts.join(" ")
}

/// What notices say.
pub(crate) fn notices(frames: &[Frame]) -> Vec<String> {
    let notices = frames.iter().filter(|frame| frame.kind() == b'N');
    let text = |frame: &Frame| PgError::decode(frame.body()).unwrap().message().to_owned();
    notices.map(text).collect()
}
