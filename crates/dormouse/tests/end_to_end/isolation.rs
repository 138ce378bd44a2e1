//! Databases from one template, and sessions of one database, are apart.

use std::sync::Barrier;

use crate::harness::{Pg, Server, startup};

const COUNT: usize = 100;

#[test]
fn a_hundred_databases_each_with_its_own_rows() {
    let server = Server::start();
    for n in 0..COUNT {
        let sql = format!("create table t as select {n} as n, md5('{n}') as s");
        server.connect(&format!("tenant_{n}")).query(&sql).unwrap();
    }
    for n in (0..COUNT).rev() {
        let rows = server.sql(
            &format!("tenant_{n}"),
            "select n, s = md5(n::text) as own from t",
        );
        assert_eq!(rows["rows"], serde_json::json!([{"n": n, "own": true}]));
    }
    let list = server.http().get("/v1/databases").json();
    assert!(list["databases"].as_array().unwrap().len() >= COUNT);
    // Nobody's random numbers are anybody else's.
    let mut seen = std::collections::HashSet::new();
    for n in 0..COUNT {
        let sql = "select random()::text || gen_random_uuid() as r";
        let row = server.sql(&format!("tenant_{n}"), sql);
        assert!(seen.insert(row["rows"][0]["r"].to_string()), "tenant_{n}");
    }
}

/// Pairs of sessions, the first process and further ones: one that reads, one that writes.
const PAIRS: [(usize, usize); 4] = [(0, 1), (1, 0), (1, 2), (2, 1)];

#[test]
fn a_snapshot_keeps_its_rows_when_their_pages_are_cleared() {
    let server = Server::start();
    let mut clients = [(); 3].map(|()| server.connect("snapshot"));
    let table = "create table t as select id, 0 as n from generate_series(0, 9) id";
    clients[0].query(table).unwrap();
    let all = "select * from t order by id";
    for (reader, writer) in PAIRS {
        let begin = "begin isolation level repeatable read";
        clients[reader].query(begin).unwrap();
        let before = clients[reader].query(all).unwrap();
        let change = "do $$ begin for i in 1..500 loop \
                      update t set n = n + 1 where id = i % 10; commit; end loop; end $$";
        clients[writer].query(change).unwrap();
        assert_eq!(clients[reader].query(all).unwrap(), before);
        clients[reader].query("commit").unwrap();
    }
}

#[test]
fn a_table_that_another_session_reads_is_locked() {
    let server = Server::start();
    let mut clients = [(); 3].map(|()| server.connect("locks"));
    clients[0].query("create table t (n int)").unwrap();
    for (reader, writer) in PAIRS {
        clients[reader].query("begin; select * from t").unwrap();
        clients[writer].query("set lock_timeout = 20").unwrap();
        let error = clients[writer].query("alter table t add m int");
        assert_eq!(error.unwrap_err().code(), "55P03");
        clients[reader].query("commit").unwrap();
    }
}
/// Sessions that a database is asked for at once, before it has ever been awake.
const AT_ONCE: usize = 8;

#[test]
fn the_first_sessions_of_a_database_come_at_once() {
    let server = Server::start_with(&[("DORMOUSE_SESSIONS__WAIT_MS_MAX", "5000")]);
    for n in 0..20 {
        let database = format!("at_once_{n}");
        let all_are_there = Barrier::new(AT_ONCE);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let client = Pg::connect(server.pg, &startup(&database));
                    all_are_there.wait();
                    assert!(client.is_ok(), "{database}: {:?}", client.err());
                });
            }
        });
    }
}
