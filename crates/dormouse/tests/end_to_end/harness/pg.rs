//! A thin client of PostgreSQL's protocol.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use wire::PgError;
use wire::pg::authentication::{self, Request};
use wire::pg::scram;
use wire::pg::startup::{Replication, Startup};
use wire::pg::{Frame, TransactionStatus, backend, frontend};

use super::PATIENCE;

pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// One connection.
pub(crate) struct Pg {
    stream: TcpStream,
    buffer: BytesMut,
    pub(crate) pid: u32,
    pub(crate) key: Bytes,
    pub(crate) parameters: Vec<(String, String)>,
    /// Of `NegotiateProtocolVersion`, if there was one.
    pub(crate) negotiated: Option<Bytes>,
}

/// What came up to `ReadyForQuery`.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Rows,
    pub(crate) tags: Vec<String>,
    pub(crate) error: Option<PgError>,
    pub(crate) status: TransactionStatus,
}

/// A wish for a session as `postgres`.
pub(crate) fn startup(database: &str) -> Startup {
    Startup {
        minor: 0,
        user: "postgres".to_owned(),
        database: database.to_owned(),
        replication: Replication::No,
        settings: Vec::new(),
        unknown_protocol_options: Vec::new(),
    }
}

impl Pg {
    /// A connection that has said nothing yet.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: BytesMut::new(),
            pid: 0,
            key: Bytes::new(),
            parameters: Vec::new(),
            negotiated: None,
        }
    }

    /// A session.
    pub(crate) fn connect(address: SocketAddr, startup: &Startup) -> Result<Self, PgError> {
        let mut client = Self::open(address);
        client.start(startup)?;
        Ok(client)
    }

    /// A session of a user of a binding, who has a password.
    pub(crate) fn log_in(address: SocketAddr, user: &str, password: &str) -> Result<Self, PgError> {
        let mut client = Self::open(address);
        client.start_with(&Startup::new(user, "any"), password)?;
        Ok(client)
    }

    pub(crate) fn start(&mut self, startup: &Startup) -> Result<(), PgError> {
        self.start_with(startup, "")
    }

    pub(crate) fn start_with(&mut self, startup: &Startup, password: &str) -> Result<(), PgError> {
        let mut login = Scram::default();
        let mut out = BytesMut::new();
        startup.encode(&mut out).unwrap();
        self.send(&out);
        loop {
            let frame = self
                .frame()
                .expect("the server closed the connection without a word");
            let body = frame.body();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            match frame.kind() {
                backend::kind::ERROR_RESPONSE => return Err(PgError::decode(body).unwrap()),
                backend::kind::AUTHENTICATION => {
                    let answer = login.answer(&Request::decode(body).unwrap(), password);
                    self.send(&answer);
                }
                backend::kind::PARAMETER_STATUS => {
                    let (name, value) = backend::decode_parameter_status(body).unwrap();
                    self.parameters.push((text(name), text(value)));
                }
                backend::kind::BACKEND_KEY_DATA => {
                    let (pid, key) = backend::decode_backend_key_data(body).unwrap();
                    self.pid = pid;
                    self.key = Bytes::copy_from_slice(key);
                }
                backend::kind::NEGOTIATE_PROTOCOL_VERSION => {
                    self.negotiated = Some(Bytes::copy_from_slice(body));
                }
                backend::kind::READY_FOR_QUERY => return Ok(()),
                _ => {}
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send_query(&mut self, sql: &str) {
        let mut out = BytesMut::new();
        frontend::query(&mut out, sql.as_bytes()).unwrap();
        self.send(&out);
    }

    /// Sends bytes from another thread, as far as the server takes them.
    pub(crate) fn send_what_is_taken(&self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            // That it takes no more is no failure.
            let _ = stream.write_all(&bytes);
        })
    }

    /// Says that no more comes, but goes on listening.
    pub(crate) fn shut_down(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next message; nothing once the server has closed the connection.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::split(&mut self.buffer, usize::MAX).unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => panic!("reading from the server: {error}"),
            }
        }
    }

    /// Bytes that are no message: answers to wishes for encryption.
    pub(crate) fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// The next message of this kind; others are passed over.
    #[track_caller]
    pub(crate) fn until_kind(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().expect("the connection ended");
            if frame.kind() == kind {
                return frame;
            }
            assert_ne!(
                frame.kind(),
                backend::kind::ERROR_RESPONSE,
                "{:?}",
                PgError::decode(frame.body())
            );
        }
    }

    /// The error that ends the connection.
    #[track_caller]
    pub(crate) fn last_word(&mut self) -> PgError {
        let mut last = None;
        while let Some(frame) = self.frame() {
            if frame.kind() == backend::kind::ERROR_RESPONSE {
                last = Some(PgError::decode(frame.body()).unwrap());
            }
        }
        last.expect("the connection ended without an error")
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer {
            rows: Vec::new(),
            tags: Vec::new(),
            error: None,
            status: TransactionStatus::Idle,
        };
        loop {
            let frame = self.frame().expect("the connection ended");
            let body = frame.body();
            match frame.kind() {
                backend::kind::DATA_ROW => {
                    let row = backend::DataRow::decode(body).unwrap();
                    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                    answer.rows.push(row.map(|value| value.map(text)).collect());
                }
                backend::kind::COMMAND_COMPLETE => {
                    let tag = String::from_utf8(body[..body.len() - 1].to_vec()).unwrap();
                    answer.tags.push(tag);
                }
                backend::kind::ERROR_RESPONSE => {
                    answer.error = Some(PgError::decode(body).unwrap());
                }
                backend::kind::READY_FOR_QUERY => {
                    answer.status = backend::decode_ready_for_query(body).unwrap();
                    return answer;
                }
                _ => {}
            }
        }
    }

    /// The first value that a statement gives, which must work.
    #[track_caller]
    pub(crate) fn gives(&mut self, sql: &str) -> String {
        let rows = self
            .query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let value = rows.first().and_then(|row| row.first()?.clone());
        value.unwrap_or_default()
    }

    /// Runs statements; the rows of all of them.
    #[track_caller]
    pub(crate) fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        self.send_query(sql);
        let answer = self.answer();
        answer.error.map_or(Ok(answer.rows), Err)
    }

    /// Sends a wish to cancel that session's statement.
    pub(crate) fn cancel(address: SocketAddr, pid: u32, key: &[u8]) {
        let mut packet = Vec::new();
        packet.extend_from_slice(&(12 + key.len() as u32).to_be_bytes());
        packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
        packet.extend_from_slice(&pid.to_be_bytes());
        packet.extend_from_slice(key);
        let mut client = Self::open(address);
        client.send(&packet);
        assert!(client.frame().is_none(), "a cancel request has no answer");
    }
}

/// How far a login has come.
#[derive(Default)]
struct Scram {
    client: Option<scram::Client>,
    proof: Option<scram::Proof>,
}

impl Scram {
    /// What is said to the server's request.
    fn answer(&mut self, request: &Request<'_>, password: &str) -> BytesMut {
        let mut out = BytesMut::new();
        match request {
            Request::Ok => {}
            Request::Sasl { mechanisms } => {
                let nonce = [7; scram::NONCE_BYTES];
                let client = scram::Client::choose(mechanisms, &scram::Channel::Plain, &nonce);
                let client = client.unwrap();
                let first = client.first();
                authentication::sasl_initial(&mut out, client.mechanism(), first.as_bytes())
                    .unwrap();
                self.client = Some(client);
            }
            Request::SaslContinue(challenge) => {
                let client = self.client.take().unwrap();
                let (last, proof) = client.prove(password, challenge).unwrap();
                authentication::sasl_response(&mut out, last.as_bytes()).unwrap();
                self.proof = Some(proof);
            }
            Request::SaslFinal(outcome) => self.proof.take().unwrap().judge(outcome).unwrap(),
            other => panic!("the server asks for {other:?}"),
        }
        out
    }
}
