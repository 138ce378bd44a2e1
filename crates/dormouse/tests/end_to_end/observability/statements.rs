//! `pg_stat_statements`, which is preloaded.

use crate::harness::{Pg, Server};

const COUNTED: &str =
    "select sum(calls)::text from pg_stat_statements where query like '%from marked%'";

fn calls(session: &mut Pg) -> String {
    session.query(COUNTED).unwrap()[0][0]
        .clone()
        .unwrap_or_default()
}

#[test]
fn statements_of_all_sessions_are_counted_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let idle = [("DORMOUSE_DATABASES__IDLE_MS", "100")];
    let mut server = Server::start_in(folder.path(), &idle);
    let mut session = server.connect("stats");
    session
        .query("create extension pg_stat_statements")
        .unwrap();
    session.query("create table marked (n int)").unwrap();
    let mut other = server.connect("stats");
    // At the same time, so in processes of their own.
    session.query("begin").unwrap();
    other.query("select count(*) from marked").unwrap();
    session.query("select count(*) from marked").unwrap();
    session.query("commit").unwrap();
    assert_eq!(calls(&mut session), "2");
    drop((session, other));

    // A sleep is no restart.
    server.until_awake(0);
    let mut session = server.connect("stats");
    let before = calls(&mut session);
    session.query("select count(*) from marked").unwrap();
    assert_eq!((before.as_str(), &*calls(&mut session)), ("2", "3"));

    // What was written since keeps the image from being used again: PostgreSQL starts, and begins anew.
    session.query("create table more ()").unwrap();
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    drop(server);
    let server = Server::start_in(folder.path(), &idle);
    let mut session = server.connect("stats");
    assert_eq!(calls(&mut session), "");
    session.query("select count(*) from marked").unwrap();
    assert_eq!(calls(&mut session), "1");
}
