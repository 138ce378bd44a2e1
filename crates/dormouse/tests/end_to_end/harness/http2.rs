//! HTTP/2, frame by frame: for what clients do that no library would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Server;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The largest frame that a server takes unless it says otherwise.
const FRAME_BYTES_MAX: usize = 16_384;

/// A frame: kind, flags, stream and payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

/// One connection.
pub(crate) struct Http2(pub(crate) TcpStream);

impl Http2 {
    pub(crate) fn open(server: &Server) -> Self {
        Self::open_with(server, &[])
    }

    /// One on which nothing of a body comes.
    pub(crate) fn without_window(server: &Server) -> Self {
        // SETTINGS_INITIAL_WINDOW_SIZE is 0.
        let mut this = Self::open_with(server, &[0, 4, 0, 0, 0, 0]);
        // As large as the server allows bodies may be from then on: of a stream, and of the connection.
        while this.next().0 != SETTINGS {}
        this.send(SETTINGS, ACK, 0, &[]);
        while this.next().0 != WINDOW_UPDATE {}
        this
    }

    fn open_with(server: &Server, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(server.http).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut this = Self(stream);
        this.send(SETTINGS, 0, 0, settings);
        this
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    pub(crate) fn next(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        // The last stream and the error, of which 0 is none.
        if kind == GOAWAY && payload[4..8] != [0; 4] {
            panic!("the server ends the connection: {payload:?}");
        }
        (kind, flags, u32::from_be_bytes(stream), payload)
    }

    /// The head of a `POST` whose body follows; as Huffman's code is not used, lengths are those of the texts.
    pub(crate) fn post(&mut self, stream: u32, path: &str) {
        self.post_for(stream, path, "application/json");
    }

    /// The same for an answer of this kind.
    pub(crate) fn post_for(&mut self, stream: u32, path: &str, kind: &str) {
        // Of the static table: `:method: POST`, `:scheme: http`, and the names `:path`, `:authority`, `content-type`,
        // `accept`.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (&[0x04][..], path),
            (&[0x01], "localhost"),
            (&[0x0f, 0x10], "application/json"),
            (&[0x0f, 0x04], kind),
        ] {
            block.extend(name);
            block.push(u8::try_from(value.len()).unwrap());
            block.extend(value.as_bytes());
        }
        self.send(HEADERS, END_HEADERS, stream, &block);
    }

    /// Everything up to a frame of this kind with this flag.
    pub(crate) fn until(&mut self, kind: &[u8], flag: u8) -> Vec<Frame> {
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

    /// Everything up to the last word of a server that lets it go, what it asks meanwhile being answered.
    pub(crate) fn until_let_go(&mut self) {
        loop {
            let (kind, flags, _, payload) = self.next();
            match kind {
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                // The first names no stream that there is: what was on its way is still taken.
                GOAWAY if payload[..4] != [0x7f, 0xff, 0xff, 0xff] => return,
                _ => {}
            }
        }
    }

    /// The body of a request, in as many frames as it takes.
    pub(crate) fn body(&mut self, stream: u32, body: &[u8]) {
        let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() {
                END_STREAM
            } else {
                0
            };
            self.send(DATA, flags, stream, piece);
        }
    }
}
