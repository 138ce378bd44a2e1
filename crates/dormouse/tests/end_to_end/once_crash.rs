//! "Not done twice, across a crash too": the server is killed between and amid requests with keys, and they come again.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server};

const WRITERS: u32 = 4;
const KILLS: u32 = 8;
/// Answers between two kills, at least.
const ANSWERS: u32 = 6;

/// What a server has said to a request, if it came to that.
struct Said {
    body: Value,
    is_replayed: bool,
}

fn request(number: u32) -> (&'static str, Value) {
    let insert = "insert into t values ($1) returning n, gen_random_uuid() as proof";
    let statement = json!({"sql": insert, "params": [number]});
    match number % 3 {
        0 => ("query", statement),
        1 => (
            "batch",
            json!({"statements": [{"sql": "select 1/0"}, statement]}),
        ),
        _ => (
            "transaction",
            json!({"statements": [{"sql": "select 1"}, statement]}),
        ),
    }
}

/// Asks on a connection of its own, which may break at any byte.
fn ask(address: SocketAddr, number: u32) -> Option<Said> {
    let (path, body) = request(number);
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = format!(
        "POST /v1/databases/shop/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         idempotency-key: key-{number}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = serde_json::from_str(body).ok()?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    Some(Said {
        body,
        is_replayed: head.contains("idempotency-replayed: true"),
    })
}

/// Asks for one number after the other until the server is gone: what it said, and up to which number it was asked.
fn write(address: SocketAddr, next: &AtomicU32, answers: &AtomicU32) -> HashMap<u32, Value> {
    let mut said = HashMap::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = ask(address, number) else {
            return said;
        };
        assert!(!answer.is_replayed, "{number} was new");
        said.insert(number, answer.body);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_request_with_a_key_is_done_once_whenever_the_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(folder.path(), &[]);
    server.sql("shop", "create table t (n int)");
    let next = AtomicU32::new(0);
    let mut said: HashMap<u32, Value> = HashMap::new();
    for kill in 1..=KILLS {
        let (address, answers) = (server.http, AtomicU32::new(0));
        let first = next.load(Ordering::Relaxed);
        let heard: Vec<HashMap<u32, Value>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|_| scope.spawn(|| write(address, &next, &answers)))
                .collect();
            // At another place of their work each time.
            while answers.load(Ordering::Relaxed) < ANSWERS + kill {
                std::thread::yield_now();
            }
            server.signal(Signal::KILL);
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        server.wait();
        said.extend(heard.into_iter().flatten());
        server = Server::start_in(folder.path(), &[]);
        // All come again: those that were answered, those that nobody knows of, and those from before.
        for number in 0..next.load(Ordering::Relaxed) {
            let again = ask(server.http, number).unwrap();
            match said.get(&number) {
                Some(before) => {
                    assert!(again.is_replayed, "{number} was done twice");
                    assert_eq!(again.body, *before, "{number}");
                }
                None => {
                    assert!(number >= first, "{number} was not asked for again");
                    said.insert(number, again.body);
                }
            }
        }
        let sql = "select count(*)::int as rows, count(distinct n)::int as numbers from t";
        let found = server.sql("shop", sql)["rows"][0].clone();
        let asked = next.load(Ordering::Relaxed);
        assert_eq!(found, json!({"rows": asked, "numbers": asked}));
    }
}
