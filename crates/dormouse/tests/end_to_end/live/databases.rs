//! Settings of databases: how they wake, sleep, are kept in order, and how much they may be.

use super::{Case, Live, RESIDENT, at_once, in_time, until};

/// What is to happen does not happen by this.
const BASE: &str = "\
databases.idle_ms = 600000
databases.spares_max = 0
databases.wake_ms_max = 600000
maintenance.enabled = false
maintenance.checkpoint_wal_bytes = 1000000000000
maintenance.statement_ms_max = 6000000
volume.dirty_bytes_max = 1000000000000
journal.bytes_max = 1000000000000
http.liveness_timeout_ms = 600000
";

/// A file of the journal.
const JOURNAL_BYTES: f64 = 16_777_216.0;

pub(super) const CASES: &[Case] = &[
    at_once("databases.auto_create", "false", |live| {
        live.http().query(&live.fresh(), "select 1").status == 404
    }),
    in_time("databases.spares_max", "16", |live| {
        // Each is some 3 MiB, and what is mapped with it.
        let enough = live.resident.get() + 48e6;
        until(|| live.metric(RESIDENT), |now| *now > enough);
        true
    }),
    in_time("databases.wake_ms_max", "1", |live| {
        let code = || {
            let answer = live.http().query(&live.fresh(), "select 1");
            (answer.status != 200).then(|| answer.error(answer.status).0)
        };
        until(code, |code| code.as_deref() == Some("57P03"));
        true
    }),
    at_once("backend.memory_bytes_max", "209715200", |live| {
        let answer = live
            .http()
            .query(&live.fresh(), "select length(repeat('x', 200000000))");
        answer.status != 200
    }),
    at_once("volume.bytes_max", "0", |live| fills(live) == 507),
    at_once("volume.wal_bytes_max", "1000000", |live| fills(live) == 507),
    at_once("durability.level", "\"relaxed\"", |live| {
        let config = live.http().get("/v1/databases/shop/config").json();
        config["durability"] == "relaxed"
    }),
    in_time("maintenance.checkpoint_wal_bytes", "1", |live| {
        live.grows("dormouse_checkpoints_total ", 0.0, || writes(live))
    }),
    in_time("volume.dirty_bytes_max", "65536", |live| {
        live.grows("dormouse_versions_total ", 0.0, || writes(live))
    }),
    in_time("journal.bytes_max", "1", |live| {
        let wal = || live.metric("dormouse_wal_bytes_total ");
        let before = wal();
        while wal() < before + JOURNAL_BYTES * 2.0 {
            writes(live);
        }
        // The file that is written to stays.
        until(
            || live.metric("dormouse_journal_bytes "),
            |bytes| *bytes <= JOURNAL_BYTES,
        );
        true
    }),
    in_time("maintenance.enabled", "true", |live| {
        live.grows("dormouse_vacuums_total ", 0.0, || writes(live))
    }),
    in_time(
        "maintenance.freeze_age",
        "10\nmaintenance.enabled = true",
        |live| {
            live.grows("dormouse_freezes_total ", 0.0, || {
                for _ in 0..20 {
                    live.server.sql("shop", "insert into t values ('x')");
                }
            })
        },
    ),
    in_time(
        "maintenance.statement_ms_max",
        "200\nmaintenance.enabled = true",
        |live| {
            let slow = live.fresh();
            let mut session = live.server.connect(&slow);
            // The statistics of an index on an expression evaluate it.
            session
            .query(
                "begin; create table switch (n int); \
                 create function slow(n int) returns int immutable language plpgsql as \
                 'begin if exists (select from public.switch) then perform pg_sleep(600); end if; return n; end'; \
                 create table t (n int); create index on t (slow(n)); \
                 insert into t select generate_series(1, 20000); insert into switch values (1); commit",
            )
            .unwrap();
            drop(session);
            until(
                || live.server.log(),
                |log| log.contains("maintenance.statement_ms_max"),
            );
            true
        },
    ),
    in_time("databases.idle_ms", "100", |live| {
        live.server.until_awake(0);
        true
    }),
];

/// Sessions have one process between them.
const BASE_OF_ONE_PROCESS: &str = "\
databases.processes_max = 1
sessions.wait_ms_max = 600000
sessions.idle_holder_ms_max = 600000
http.liveness_timeout_ms = 600000
http.request_timeout_ms = 600000
";

pub(super) const SHORT_OF_PROCESSES: &[Case] = &[
    in_time("sessions.wait_ms_max", "100", |live| {
        let _holder = holder(live);
        live.code("select 1").as_deref() == Some("53300")
    }),
    in_time("sessions.idle_holder_ms_max", "100", |live| {
        let mut holder = holder(live);
        assert_eq!(live.code("select 1"), None);
        holder.last_word().code() == "25P03"
    }),
    in_time("http.liveness_timeout_ms", "100", |live| {
        let _holder = holder(live);
        live.http().get("/v1/databases/shop/liveness").status == 503
    }),
];

/// Who has the process, and keeps it.
fn holder(live: &Live) -> crate::harness::Pg {
    let mut holder = live.server.connect("shop");
    holder.query("begin; select 1").unwrap();
    holder
}

/// Writes some megabytes into a table of its own.
fn writes(live: &Live) {
    let name = live.fresh();
    let sql = format!(
        "create table {name} as select repeat('x', 100) as x from generate_series(1, 20000)"
    );
    live.server.sql("shop", &sql);
    live.server.sql("shop", &format!("delete from {name}"));
}

/// What a database of its own is told that is to hold some megabytes more.
fn fills(live: &Live) -> u16 {
    let name = live.fresh();
    let mut http = live.http();
    http.query(&name, "create table t (x text)");
    let fill = "insert into t select repeat('x', 100) from generate_series(1, 50000)";
    http.query(&name, fill).status
}

#[test]
fn settings_of_databases() {
    let live = Live::start(BASE);
    live.server.sql("shop", "create table t (x text)");
    live.try_all(CASES);
}

#[test]
fn settings_of_who_waits_for_a_process() {
    let live = Live::start(BASE_OF_ONE_PROCESS);
    live.server.sql("shop", "select 1");
    live.try_all(SHORT_OF_PROCESSES);
}
