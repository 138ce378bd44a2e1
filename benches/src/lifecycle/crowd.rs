//! Many clients on one thread: each in a database by pgwire, each with one request at a time. What
//! a request costs here is one write, one read and a share of one poll.

use crate::{
    pgwire::{error, frame, message, startup, text},
    session::{Result, us},
};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A server that answers nobody for this long has failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The clients. They are told apart by the numbers that [`join`](Self::join) gives.
pub(super) struct Crowd {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    members: Vec<Option<Member>>,
    answers: VecDeque<Answer>,
}

struct Member {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    sent: usize,
    joining: Instant,
    /// When the request under way began.
    asked: Option<Instant>,
    row: Option<Instant>,
    error: Option<String>,
}

/// The end of a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whose.
    pub(super) member: usize,
    /// From the request to the end of its answer, microseconds.
    pub(super) us: f64,
    /// From the beginning of the connection to the first row of this answer, microseconds.
    pub(super) row_since_joining_us: Option<f64>,
    /// The first error. A member whose connection has ended is gone.
    pub(super) error: Option<String>,
}

impl Answer {
    /// The answer, if it is no error.
    pub(super) fn checked(self) -> Result<Self> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }
}

impl Crowd {
    /// Nobody yet, at a server.
    pub(super) fn new(server: SocketAddr) -> Result<Self> {
        Ok(Self {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            members: Vec::new(),
            answers: VecDeque::new(),
        })
    }

    /// Begins a connection to a database. Its answer comes when the server is ready for a request.
    pub(super) fn join(&mut self, database: &str) -> Result<usize> {
        let joining = Instant::now();
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        let free = self.members.iter().position(Option::is_none);
        let number = free.unwrap_or(self.members.len());
        self.poll.registry().register(
            &mut stream,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let member = Member {
            stream,
            input: vec![0; 2048],
            filled: 0,
            output: startup(database),
            sent: 0,
            joining,
            asked: Some(joining),
            row: None,
            error: None,
        };
        match self.members.get_mut(number) {
            Some(place) => *place = Some(member),
            None => self.members.push(Some(member)),
        }
        // What cannot be sent before the connection stands goes when it can be written to.
        Ok(number)
    }

    /// Sends a request: whole messages, the last of which brings ReadyForQuery.
    pub(super) fn ask(&mut self, number: usize, request: &[u8]) -> Result<()> {
        let member = self.member(number)?;
        member.asked = Some(Instant::now());
        member.row = None;
        member.output.extend_from_slice(request);
        member.write()?;
        Ok(())
    }

    /// Ends a connection as a client does that goes.
    pub(super) fn leave(&mut self, number: usize) -> Result<()> {
        let member = self.member(number)?;
        member.output.extend_from_slice(&[b'X', 0, 0, 0, 4]);
        member.write()?;
        self.members[number] = None;
        Ok(())
    }

    /// The next answer, of whomever.
    pub(super) fn next(&mut self) -> Result<Answer> {
        let start = Instant::now();
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            if start.elapsed() > TIMEOUT {
                return Err(format!("nobody had an answer in {} s", TIMEOUT.as_secs()).into());
            }
            match self.poll.poll(&mut self.events, Some(TIMEOUT)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &self.events {
                let number = event.token().0;
                let Some(Some(member)) = self.members.get_mut(number) else {
                    continue;
                };
                let served = if event.is_writable() {
                    member.write()
                } else {
                    Ok(())
                };
                let served = served.and_then(|()| {
                    if event.is_readable() {
                        member.read(number, &mut self.answers)
                    } else {
                        Ok(())
                    }
                });
                if let Err(error) = served {
                    let error = member.error.take().unwrap_or_else(|| error.to_string());
                    self.answers.push_back(Answer {
                        member: number,
                        us: us(member.asked.unwrap_or(member.joining)),
                        row_since_joining_us: None,
                        error: Some(error),
                    });
                    self.members[number] = None;
                }
            }
        }
    }

    /// The answer to a request, where nobody else has one under way.
    pub(super) fn answer(&mut self, number: usize) -> Result<Answer> {
        let answer = self.next()?.checked()?;
        if answer.member != number {
            return Err("BUG: an answer to somebody else".into());
        }
        Ok(answer)
    }

    fn member(&mut self, number: usize) -> Result<&mut Member> {
        let member = self.members.get_mut(number).and_then(Option::as_mut);
        member.ok_or_else(|| "the connection has ended".into())
    }
}

impl Member {
    fn write(&mut self) -> Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    fn read(&mut self, number: usize, answers: &mut VecDeque<Answer>) -> Result<()> {
        loop {
            if self.filled == self.input.len() {
                self.input.resize(self.filled * 2, 0);
            }
            let room = self.input.len() - self.filled;
            let n = match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.filled += n;
            answers.extend(self.frames(number));
            // A short read has taken all: the next bytes are a new event.
            if n < room {
                return Ok(());
            }
        }
    }

    /// Takes the whole frames of the input; an answer if one of them ends it.
    fn frames(&mut self, number: usize) -> Option<Answer> {
        let mut at = 0;
        let mut answer = None;
        while let Some(frame) = frame(&self.input[at..self.filled]) {
            match frame.kind {
                b'D' if self.row.is_none() => self.row = Some(Instant::now()),
                b'E' => {
                    let error = error(frame.body);
                    self.error.get_or_insert(error);
                }
                b'Z' => {
                    let row = self.row.take();
                    answer = self.asked.take().map(|asked| Answer {
                        member: number,
                        us: us(asked),
                        row_since_joining_us: row
                            .map(|row| (row - self.joining).as_secs_f64() * 1e6),
                        error: self.error.take(),
                    });
                }
                _ => {}
            }
            at += 5 + frame.body.len();
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        answer
    }
}

/// A request: a statement in the simple protocol.
pub(super) fn query(sql: &str) -> Vec<u8> {
    let mut request = Vec::new();
    message(&mut request, b'Q', |m| text(m, sql));
    request
}

/// A request: prepares a statement without parameters for [`execute`].
pub(super) fn prepare(sql: &str) -> Vec<u8> {
    let mut request = Vec::new();
    message(&mut request, b'P', |m| {
        text(m, "s");
        text(m, sql);
        m.extend_from_slice(&[0, 0]);
    });
    message(&mut request, b'S', |_| {});
    request
}

/// A request: runs what was prepared.
pub(super) fn execute() -> Vec<u8> {
    let mut request = Vec::new();
    message(&mut request, b'B', |m| {
        text(m, "");
        text(m, "s");
        m.extend_from_slice(&[0; 6]);
    });
    message(&mut request, b'E', |m| m.extend_from_slice(&[0; 5]));
    message(&mut request, b'S', |_| {});
    request
}
