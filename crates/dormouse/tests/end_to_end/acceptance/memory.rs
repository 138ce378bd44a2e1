//! Large results, and clients that do not read them: the program's memory stays what it is.

use serde_json::json;
use wire::pg::backend;

use crate::harness::{Origin, Pg, Server, User, until};

/// 100 rows of a million bytes.
const LARGE: &str = "select repeat('x', 1000000) from generate_series(1, 100)";
const LARGE_BYTES: usize = 100_000_000;

/// What the program may need in between, in KiB: buffers, and what an allocator keeps.
const BETWEEN_KIB_MAX: u64 = 64 << 10;

/// What a cache may hold of a result before it knows that it is too large, in KiB.
const RECORDED_KIB_MAX: u64 = 2 * (50 << 10);

/// Reads an answer to its end and keeps nothing of it: the bytes of its rows.
fn skim(client: &mut Pg) -> usize {
    let mut bytes = 0;
    loop {
        let frame = client.frame().expect("the connection ended");
        match frame.kind() {
            backend::kind::DATA_ROW => bytes += frame.body().len(),
            backend::kind::ERROR_RESPONSE => panic!("{:?}", wire::PgError::decode(frame.body())),
            backend::kind::READY_FOR_QUERY => return bytes,
            _ => {}
        }
    }
}

fn begin(caching: bool) -> Option<(Server, Origin, User)> {
    let origin = Origin::start()?;
    // Databases in reserve are made when the server has time.
    let server = Server::start_with(&[("DORMOUSE_DATABASES__SPARES_MAX", "0")]);
    let new = json!({
        "name": "shop", "connectionString": origin.url(), "caching": { "disabled": !caching },
    });
    let made = server.http().post("/v1/bindings", &new);
    assert_eq!(made.status, 201, "{}", made.text());
    let user = User::of(&server, "shop");
    Some((server, origin, user))
}

#[test]
fn behaviour_20_large_results_pass_through() {
    for caching in [false, true] {
        let Some((server, _origin, user)) = begin(caching) else {
            return;
        };
        let mut client = user.session(&server);
        client.gives("select 1");
        let before = server.kib("VmRSS");
        for sql in [LARGE, "select repeat('x', 100000000)"] {
            client.send_query(sql);
            assert!(skim(&mut client) >= LARGE_BYTES);
        }
        let grown = server.kib("VmHWM") - before;
        println!("cached: {caching}; {grown} KiB more than before");
        let recorded = if caching { RECORDED_KIB_MAX } else { 0 };
        assert!(grown < BETWEEN_KIB_MAX + recorded, "{grown} KiB");
        assert_eq!(client.gives("select 2"), "2");
    }
}

#[test]
fn clients_that_do_not_read_cost_little() {
    const CLIENTS: usize = 10;
    let Some((server, origin, user)) = begin(true) else {
        return;
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| user.session(&server)).collect();
    for client in &mut clients {
        client.gives("select 1");
    }
    let before = server.kib("VmRSS");
    for client in &mut clients {
        client.send_query(LARGE);
    }
    // The origin stands still, for nobody takes what it has to say.
    let mut beside = origin.session();
    let stuck = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
    until(
        || beside.gives(stuck),
        |count| *count == CLIENTS.to_string(),
    );
    let grown = server.kib("VmHWM") - before;
    println!("{CLIENTS} clients that do not read: {grown} KiB more than before");
    // Of a million KiB that are there to be had.
    assert!(grown < 2 * BETWEEN_KIB_MAX, "{grown} KiB");
    // Others are served meanwhile, and those who read then have all of it.
    assert_eq!(user.session(&server).gives("select 3"), "3");
    for client in &mut clients[..2] {
        assert!(skim(client) >= LARGE_BYTES);
    }
    drop(clients);
    until(|| beside.gives(stuck), |count| count == "0");
}
