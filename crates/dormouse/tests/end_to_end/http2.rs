//! HTTP/2, frame by frame: what clients do that no library would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::Server;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame: kind, flags, stream and payload.
type Frame = (u8, u8, u32, Vec<u8>);

struct Connection(TcpStream);

impl Connection {
    fn open(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.http).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut this = Self(stream);
        this.send(SETTINGS, 0, 0, &[]);
        this
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    fn next(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        (kind, flags, u32::from_be_bytes(stream), payload)
    }

    /// The head of a `POST` whose body follows; as Huffman's code is not used, lengths are those of the texts.
    fn post(&mut self, stream: u32, path: &str) {
        // Of the static table: `:method: POST`, `:scheme: http`, and the names `:path`, `:authority`, `content-type`.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (&[0x04][..], path),
            (&[0x01], "localhost"),
            (&[0x0f, 0x10], "application/json"),
        ] {
            block.extend(name);
            block.push(u8::try_from(value.len()).unwrap());
            block.extend(value.as_bytes());
        }
        self.send(HEADERS, END_HEADERS, stream, &block);
    }

    /// Everything up to a frame of this kind with this flag.
    fn until(&mut self, kind: &[u8], flag: u8) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            let is_last = kind.contains(&frame.0) && frame.1 & flag != 0;
            frames.push(frame);
            if is_last {
                return frames;
            }
        }
    }
}

/// The answer to a request does not wait for the end of a body that nobody reads, and the stream ends in peace.
#[test]
fn a_body_that_comes_behind_the_answer_is_taken() {
    let server = Server::start();
    let mut connection = Connection::open(&server);
    for stream in [1, 3, 5] {
        connection.post(stream, "/nowhere");
        let mut frames = connection.until(&[HEADERS, DATA], END_STREAM);
        connection.send(DATA, 0, stream, b"{\"sql\":");
        connection.send(DATA, END_STREAM, stream, b"\"select 1\"}");
        connection.send(PING, 0, 0, &[0; 8]);
        frames.extend(connection.until(&[PING], ACK));
        let kinds: Vec<_> = frames.iter().map(|(kind, ..)| *kind).collect();
        for unwanted in [RST_STREAM, GOAWAY] {
            assert!(!kinds.contains(&unwanted), "{frames:?}");
        }
        assert!(kinds.contains(&HEADERS), "{frames:?}");
    }
}

/// Who asks nothing gives its place to others, also if it answers every ping.
#[test]
fn a_connection_without_requests_ends() {
    let server = Server::start_with(&[("DORMOUSE_HTTP__HEADER_TIMEOUT_MS", "500")]);
    let mut connection = Connection::open(&server);
    connection.post(1, "/nowhere");
    connection.send(DATA, END_STREAM, 1, b"{}");
    connection.until(&[HEADERS, DATA], END_STREAM);
    let mut pings = 0;
    loop {
        let (kind, flags, _, payload) = connection.next();
        match kind {
            PING if flags & ACK == 0 => {
                connection.send(PING, ACK, 0, &payload);
                pings += 1;
            }
            GOAWAY => break,
            _ => assert!(kind == SETTINGS || kind == WINDOW_UPDATE, "{kind}"),
        }
    }
    assert!(pings > 0);
    // Without an error, and then it is closed.
    let mut rest = Vec::new();
    connection.0.read_to_end(&mut rest).unwrap();
}
