//! Many statements sent before any answer is read, by several clients at once.

use std::sync::Barrier;

use bytes::BytesMut;
use wire::pg::{Target, backend, frontend};
use wire::{PgError, Severity};

use crate::harness::{Pg, Server, extended};

/// One statement of a pipeline.
fn statement(out: &mut BytesMut, name: &[u8], sql: &str) {
    extended::parse(out, name, sql.as_bytes());
    extended::bind(out, name, &[]);
    frontend::describe(out, Target::Portal, b"").unwrap();
    extended::execute(out);
}

/// What came for one `Sync`: for each statement its rows, or its error.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Rows(Vec<String>),
    Error(String),
}

#[track_caller]
fn answer(client: &mut Pg) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rows = Vec::new();
    loop {
        let frame = client.frame().expect("the connection ended");
        let body = frame.body();
        match frame.kind() {
            backend::kind::DATA_ROW => {
                let mut row = backend::DataRow::decode(body).unwrap();
                let value = row.next().unwrap().unwrap();
                rows.push(String::from_utf8(value.to_vec()).unwrap());
            }
            backend::kind::COMMAND_COMPLETE => parts.push(Part::Rows(std::mem::take(&mut rows))),
            backend::kind::ERROR_RESPONSE => {
                assert!(rows.is_empty());
                let error = wire::PgError::decode(body).unwrap();
                parts.push(Part::Error(error.code().to_owned()));
            }
            backend::kind::READY_FOR_QUERY => return parts,
            _ => {}
        }
    }
}

/// Rows that say whose they are: far more of them than fit into the output that waits for a client.
const ROWS: usize = 400;
const LENGTH: usize = 2_000;

fn large(client: usize, number: usize) -> String {
    format!(
        "select rpad('{client}.{number}.' || n || '.', {LENGTH}, '{client}') from generate_series(1, {ROWS}) n"
    )
}

fn large_rows(client: usize, number: usize) -> Part {
    let filler = client.to_string();
    let row = |n: usize| {
        let mut row = format!("{client}.{number}.{n}.");
        while row.len() < LENGTH {
            row.push_str(&filler);
        }
        row.truncate(LENGTH);
        row
    };
    Part::Rows((1..=ROWS).map(row).collect())
}

#[track_caller]
fn is(found: &[Part], expected: &[Part], what: &str) {
    // Megabytes would be printed.
    let lengths = |parts: &[Part]| -> Vec<String> {
        let length = |part: &Part| match part {
            Part::Rows(rows) => {
                let first = rows.first().map_or("", |row| &row[..row.len().min(12)]);
                format!("{} rows from {first}", rows.len())
            }
            Part::Error(code) => code.clone(),
        };
        parts.iter().map(length).collect()
    };
    assert!(
        found == expected,
        "{what}: {:?} instead of {:?}",
        lengths(found),
        lengths(expected)
    );
}

/// Everything that one client sends at once, and reads then.
fn converse(client: &mut Pg, own: usize) {
    // Several statements before one Sync, small and large in turn, then several Syncs, an error among them.
    let mut out = BytesMut::new();
    for number in 0..4 {
        statement(&mut out, b"", &large(own, number));
        statement(&mut out, b"", &format!("select '{own} small {number}'"));
    }
    frontend::sync(&mut out);
    for number in 4..7 {
        statement(&mut out, b"", &large(own, number));
        frontend::sync(&mut out);
    }
    statement(&mut out, b"", &large(own, 7));
    statement(&mut out, b"", "select 1/0");
    statement(&mut out, b"", &large(own, 8));
    frontend::sync(&mut out);
    // What the host has to do with, and a simple query behind.
    statement(
        &mut out,
        b"",
        "select count(*)::text from pg_database where datname = 'order'",
    );
    statement(&mut out, b"", &large(own, 9));
    frontend::sync(&mut out);
    frontend::query(&mut out, large(own, 10).as_bytes()).unwrap();
    client.send(&out);

    let mut expected = Vec::new();
    for number in 0..4 {
        expected.push(large_rows(own, number));
        expected.push(Part::Rows(vec![format!("{own} small {number}")]));
    }
    is(&answer(client), &expected, "before one Sync");
    for number in 4..7 {
        is(
            &answer(client),
            &[large_rows(own, number)],
            "one of several Syncs",
        );
    }
    let failed = [large_rows(own, 7), Part::Error("22012".to_owned())];
    is(&answer(client), &failed, "with an error");
    let listed = [Part::Rows(vec!["1".to_owned()]), large_rows(own, 9)];
    is(&answer(client), &listed, "with the list of databases");
    is(&answer(client), &[large_rows(own, 10)], "a simple query");
}

fn at_once(server: &Server, clients: usize) {
    let all_are_there = Barrier::new(clients);
    std::thread::scope(|scope| {
        for own in 0..clients {
            let all_are_there = &all_are_there;
            scope.spawn(move || {
                let mut client = server.connect("order");
                all_are_there.wait();
                for _ in 0..3 {
                    converse(&mut client, own);
                }
            });
        }
    });
}

#[test]
fn each_client_gets_its_own_answers_in_order() {
    at_once(&Server::start(), 4);
}

#[test]
fn each_client_of_few_processes_gets_its_own_answers_in_order() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__PROCESSES_MAX", "2")]);
    at_once(&server, 6);
}

#[test]
fn statements_prepared_elsewhere_answer_in_order_too() {
    let server = Server::start_with(&[("DORMOUSE_DATABASES__PROCESSES_MAX", "1")]);
    let mut clients = [(); 3].map(|()| server.connect("order"));
    let names: [&[u8]; 2] = [b"one", b"two"];
    for (own, client) in clients.iter_mut().enumerate() {
        let mut out = BytesMut::new();
        for (number, name) in names.iter().enumerate() {
            extended::parse(&mut out, name, large(own, number).as_bytes());
        }
        frontend::sync(&mut out);
        client.send(&out);
        assert!(answer(client).is_empty());
    }
    // Each has been made to leave the process, and so its statements are prepared again in the midst.
    for _ in 0..3 {
        for (own, client) in clients.iter_mut().enumerate() {
            let mut out = BytesMut::new();
            statement(&mut out, b"", &large(own, 5));
            for name in names {
                extended::bind(&mut out, name, &[]);
                extended::execute(&mut out);
            }
            frontend::sync(&mut out);
            client.send(&out);
        }
        for (own, client) in clients.iter_mut().enumerate() {
            let expected = [large_rows(own, 5), large_rows(own, 0), large_rows(own, 1)];
            is(&answer(client), &expected, "prepared statements");
        }
    }
}

#[test]
fn a_copy_finds_the_messages_that_came_with_it() {
    let server = Server::start();
    let mut other = server.connect("copy");
    other.query("create table t (n int)").unwrap();
    other.query("begin; insert into t values (1)").unwrap();
    let mut client = server.connect("copy");
    // With a statement of the host's, messages of extended queries are looked at one by one.
    let mut out = BytesMut::new();
    extended::parse(&mut out, b"ours", b"drop database no_such_database");
    frontend::sync(&mut out);
    client.send(&out);
    assert!(client.answer().error.is_none());

    out.clear();
    frontend::query(&mut out, b"copy t from stdin").unwrap();
    frontend::copy_data(&mut out, b"2\n3\n").unwrap();
    frontend::copy_done(&mut out);
    statement(&mut out, b"", "select sum(n) from t");
    frontend::sync(&mut out);
    client.send(&out);
    assert_eq!(client.answer().tags, ["COPY 2"]);
    assert_eq!(client.answer().rows, [[Some("5".to_owned())]]);

    // One that is none of a COPY ends the session, as natively, with one word about it.
    out.clear();
    frontend::query(&mut out, b"copy t from stdin").unwrap();
    frontend::describe(&mut out, Target::Portal, b"").unwrap();
    frontend::copy_fail(&mut out, b"enough").unwrap();
    frontend::sync(&mut out);
    client.send(&out);
    let mut errors = Vec::new();
    while let Some(frame) = client.frame() {
        if frame.kind() == backend::kind::ERROR_RESPONSE {
            let error = PgError::decode(frame.body()).unwrap();
            errors.push((error.severity(), error.code().to_owned()));
        }
    }
    let code = || "08P01".to_owned();
    let expected = [(Severity::Error, code()), (Severity::Fatal, code())];
    assert_eq!(errors, expected);
    other.query("commit").unwrap();
    assert_eq!(
        other.query("select sum(n) from t").unwrap(),
        [[Some("6".to_owned())]]
    );
}
