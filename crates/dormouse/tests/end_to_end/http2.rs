//! What clients of HTTP/2 do that no library would.

use std::io::Read as _;

use crate::harness::Server;
use crate::harness::http2::{
    ACK, DATA, END_STREAM, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// The answer to a request does not wait for the end of a body that nobody reads, and the stream ends in peace.
#[test]
fn a_body_that_comes_behind_the_answer_is_taken() {
    let server = Server::start();
    let mut connection = Http2::open(&server);
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
    let mut connection = Http2::open(&server);
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
    connection.until_let_go();
    // Without an error, and then it is closed.
    let mut rest = Vec::new();
    connection.0.read_to_end(&mut rest).unwrap();
}
