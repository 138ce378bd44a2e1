//! WebSockets that do nothing, of databases that sleep: what each takes.

use super::{
    Run, fill,
    server::{IDLE_MS, Server},
    table::{Table, each, goal, mib},
    usage::raise_file_limit,
};
use crate::session::Result;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The memory of one to stay below, bytes.
const GOAL: u64 = 16 << 10;

/// Databases that they are of.
const DATABASES: usize = 1_000;

/// WebSockets that are there before the memory is first looked at.
const FIRST: usize = 1_000;

/// Falls asleep soon.
const IDLE: u64 = 200;

/// `select 1` as one text message, masked with zeroes.
const REQUEST: &[u8] = b"\x81\x9a\0\0\0\0{\"id\":1,\"sql\":\"select 1\"} ";

/// What the answer to it ends with.
const ANSWER_END: &[u8] = b"\"rowCount\":1}";

pub(super) fn run(run: &Run) -> Result<String> {
    raise_file_limit()?;
    let databases = run.choose(DATABASES, 50);
    let first = run.choose(FIRST, 100).max(databases);
    let count = run.count(10_000, 500).max(first + 1);
    let settings = [
        (IDLE_MS, IDLE),
        ("DORMOUSE_WEBSOCKET__CONNECTIONS_MAX", 1_000_000),
        // Their client does not read while the others are opened.
        ("DORMOUSE_WEBSOCKET__PING_MS", 3_600_000),
    ];
    let server = Server::start(run, &settings)?;
    fill::create(&server, databases)?;
    let mut sockets = Vec::with_capacity(count);
    let mut with = |upto: usize, asks: bool| -> Result<u64> {
        for number in sockets.len()..upto {
            let name = fill::name(number % databases);
            sockets.push(open(server.http, &name, asks)?);
        }
        server.until_all_asleep()?;
        Ok(server.memory()?.anonymous)
    };
    // Everything has been used once.
    let before = with(first, true)?;
    let half = first + (count - first) / 2;
    let opened = with(half, false)?;
    let asked = with(count, true)?;
    let mut table = Table::new(["anonymous memory", "MiB before", "MiB with all", "each"]);
    for (what, before, after, number) in [
        ("only opened", before, opened, half - first),
        ("each has asked `select 1`", opened, asked, count - half),
    ] {
        table.row([
            format!("{number} WebSockets, {what}"),
            mib(before),
            mib(after),
            each(after, before, number),
        ]);
    }
    drop(sockets);
    server.stop()?;
    let most = opened.saturating_sub(before) / (half - first) as u64;
    let most = most.max(asked.saturating_sub(opened) / (count - half) as u64);
    Ok(format!(
        "### {count} idle WebSockets, their {databases} databases asleep\n\n{table}\n\
         \"Before\" is with those of the lines above, {first} at first.\n\n{}\n",
        goal("Goal, at most 16 KiB each", most <= GOAL),
    ))
}

/// A WebSocket whose client has seen that it is open, or the answer to a question.
fn open(address: SocketAddr, database: &str, asks: bool) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = format!(
        "GET /v1/databases/{database}/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: dormouse.v1\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    until(&mut stream, b"}}")?;
    if asks {
        stream.write_all(REQUEST)?;
        until(&mut stream, ANSWER_END)?;
    }
    Ok(stream)
}

/// Reads until what has come ends like this.
fn until(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with(end) {
        match stream.read(&mut buffer)? {
            0 => return Err(format!("it ended: {}", String::from_utf8_lossy(&seen)).into()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}
