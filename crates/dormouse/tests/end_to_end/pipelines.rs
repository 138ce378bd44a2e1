//! Many statements sent before any answer is read, by several clients at once.

use std::sync::Barrier;

use bytes::BytesMut;
use wire::pg::{Target, backend, frontend};

use crate::harness::{Pg, Server};

/// One statement of a pipeline.
fn statement(out: &mut BytesMut, name: &[u8], sql: &str) {
    frontend::Parse {
        statement: name,
        sql: sql.as_bytes(),
        param_oids: vec![],
    }
    .encode(out)
    .unwrap();
    frontend::Bind {
        portal: b"",
        statement: name,
        params: vec![],
        result_formats: vec![],
    }
    .encode(out)
    .unwrap();
    frontend::describe(out, Target::Portal, b"").unwrap();
    frontend::Execute {
        portal: b"",
        rows_max: 0,
    }
    .encode(out)
    .unwrap();
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
            frontend::Parse {
                statement: name,
                sql: large(own, number).as_bytes(),
                param_oids: vec![],
            }
            .encode(&mut out)
            .unwrap();
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
                frontend::Bind {
                    portal: b"",
                    statement: name,
                    params: vec![],
                    result_formats: vec![],
                }
                .encode(&mut out)
                .unwrap();
                frontend::Execute {
                    portal: b"",
                    rows_max: 0,
                }
                .encode(&mut out)
                .unwrap();
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
