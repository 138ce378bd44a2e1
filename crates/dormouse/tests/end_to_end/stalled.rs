//! Clients that do not read what they have asked for.

use serde_json::{Value, json};

use crate::harness::{Http, Pg, Server, until};

/// More than all sockets and queues on the way take.
const LARGE: &str = "select repeat('x', 1000) from generate_series(1, 1000000)";

/// A session with something that it alone has, in its process.
fn bystander(server: &Server) -> Pg {
    let mut client = server.connect("stalled");
    client.query("create temporary table own (n int)").unwrap();
    client
}

/// Sends a query, and reads nothing.
fn ask_for_lines(http: &mut Http, body: &Value) {
    let body = body.to_string();
    http.send(&format!(
        "POST /v1/databases/stalled/query HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
}

/// Waits until so many run the large statement. The bystander notices nothing.
#[track_caller]
fn until_running(bystander: &mut Pg, count: usize) {
    let quoted = LARGE.replace('\'', "''");
    let sql = format!(
        "select count(*) from pg_stat_activity where query = '{quoted}' and state = 'active'"
    );
    let running = || bystander.query(&sql).unwrap()[0][0].clone().unwrap();
    until(running, |running| *running == count.to_string());
    bystander.query("select * from own").unwrap();
}

#[test]
fn rows_as_lines_that_nobody_reads_end_with_their_time() {
    let server = Server::start();
    let mut bystander = bystander(&server);
    let mut http = server.http();
    ask_for_lines(&mut http, &json!({ "sql": LARGE, "timeoutMs": 3000 }));
    until_running(&mut bystander, 1);
    until_running(&mut bystander, 0);
    let answer = http.response().text();
    let last = answer.lines().last().unwrap();
    assert!(last.contains("57014"), "{last}");
}

#[test]
fn rows_as_lines_leave_while_the_statement_waits() {
    let server = Server::start();
    let mut holder = server.connect("stalled");
    holder.query("select pg_advisory_lock(7)").unwrap();
    let sql = "select g, repeat('x', 10000), case g when 3 then pg_advisory_xact_lock(7) end \
               from generate_series(1, 3) g";
    let mut http = server.http();
    ask_for_lines(&mut http, &json!({ "sql": sql }));
    http.read_until("{\"g\":1,");
    holder.query("select pg_advisory_unlock(7)").unwrap();
    http.read_until("\"rowCount\":3");
}

#[test]
fn a_session_that_nobody_reads_from_ends_its_statement_in_time() {
    let server = Server::start();
    let mut bystander = bystander(&server);
    let mut stalled = server.connect("stalled");
    stalled.query("set statement_timeout = '3s'").unwrap();
    stalled.send_query(LARGE);
    until_running(&mut bystander, 1);
    until_running(&mut bystander, 0);
    let answer = stalled.answer();
    assert_eq!(answer.error.unwrap().code(), "57014");
    // It can be cancelled too, and goes on.
    stalled.query("set statement_timeout = 0").unwrap();
    stalled.send_query(LARGE);
    until_running(&mut bystander, 1);
    let (pid, key) = (stalled.pid, stalled.key.clone());
    Pg::cancel(server.pg, pid, &key);
    until_running(&mut bystander, 0);
    assert_eq!(stalled.answer().error.unwrap().code(), "57014");
    stalled.query("select 1").unwrap();
}
