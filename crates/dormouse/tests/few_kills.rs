//! The crash test with a few kills, and a test of the crash test: that it notices what is wrong.
//! They are here because only here cargo builds the program first; `cargo run -p dormouse-crashtest`
//! runs the same for as long as one likes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crashtest::child::Launch;
use crashtest::member::Member;
use crashtest::op::Op;
use crashtest::random::Random;
use crashtest::session::Session;
use crashtest::shared::Shared;
use crashtest::stage::{Up, stage};
use crashtest::transaction::{Style, Transaction};
use crashtest::trouble::Trouble;
use crashtest::visit::Visit;
use crashtest::{Durability, Options, Until, checker, http, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dormouse");

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_in_a_few_kills() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        dormouse: PathBuf::from(PROGRAM),
        folder: folder.path().to_owned(),
        until: Until::Kills(6),
        databases: 4,
        seed: 20_260,
        durability: Durability::Local,
        check_all_every: 1,
        idle: Duration::from_millis(300),
        evidence: false,
        settings: Vec::new(),
    };
    match run(options, Arc::default(), |_line| {}).await {
        Ok(summary) => {
            assert!(summary.count("commits acknowledged") > 0, "{summary}");
            assert!(summary.count("full checks") > 0, "{summary}");
        }
        Err(failure) => {
            let kept = folder.keep();
            panic!("{failure}\n{}", kept.display());
        }
    }
}

/// What is done behind the model's back, and a word of what the checker says to it.
const SABOTAGE: [(&str, &str); 17] = [
    (
        "UPDATE accounts SET balance = balance + 1 WHERE id = 7",
        "sum",
    ),
    (
        "UPDATE accounts SET balance = balance + CASE id WHEN 7 THEN 1 ELSE -1 END WHERE id IN (7, 8)",
        "the balance of 7",
    ),
    ("DELETE FROM accounts WHERE id = 49", "49 rows"),
    (
        "DELETE FROM log WHERE (client, seq) = (1, 2)",
        "row 2 of client 1 is missing",
    ),
    (
        "DELETE FROM log WHERE (client, seq) = (1, 3)",
        "row 3 of client 1 is missing",
    ),
    (
        "UPDATE log SET payload = overlay(payload placing '~' from 6) WHERE seq = 2",
        "from byte 5",
    ),
    (
        "UPDATE log SET crc = crc + 1 WHERE seq = 3",
        "row 3 of client 1 is foreign",
    ),
    (
        "INSERT INTO log VALUES (2000001, 1, '2000001/1:', 0)",
        "never committed here",
    ),
    ("DELETE FROM bulk WHERE id = 500", "bulk"),
    ("UPDATE bulk SET note = 'x' WHERE id = 500", "bulk"),
    ("DELETE FROM t1 WHERE id = 3", "t1"),
    ("UPDATE t1 SET c4 = 5 WHERE id = 3", "t1"),
    ("CREATE TABLE t2 (id int)", "too many [\"t2\"]"),
    (
        "ALTER TABLE t1 ALTER c4 TYPE bigint",
        "missing [\"t1 c4 integer\"]",
    ),
    ("DROP INDEX bulk_note", "missing [\"bulk_note\"]"),
    // An index that lacks rows of its table.
    (
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'bulk_note'::regclass; \
         CREATE TEMP TABLE moved AS SELECT * FROM bulk WHERE id < 9; \
         DELETE FROM bulk WHERE id < 9; INSERT INTO bulk SELECT * FROM moved; \
         UPDATE pg_index SET indisready = true WHERE indexrelid = 'bulk_note'::regclass",
        "lacks matching index tuple",
    ),
    // A table with rows that are older than it says.
    (
        "UPDATE pg_class SET relfrozenxid = pg_current_xact_id()::xid WHERE relname = 'accounts'",
        "verify_heapam",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_notices_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path());
    let mut child = launch.start(0).unwrap();
    let (pg, http) = child.ready().await.unwrap();
    http::create_database(http, "known").await.unwrap();
    let up = Up {
        epoch: 0,
        pg,
        http,
        check_all: true,
        work: true,
    };
    let (shared, _events) = Shared::new(5, Durability::Local, Duration::from_secs(1), 1);
    let (_director, audience) = stage();
    let mut member = Member::new("known".to_owned(), [1, 2, 3], &shared, 0);
    let session = member.open(up, &shared, &audience).await.unwrap();
    let visit = Visit {
        session: &session,
        member: &member,
        shared: &shared,
    };
    visit.transact(&Transaction::set_up()).await.unwrap();
    for ops in known() {
        let transaction = Transaction::committed(ops, Style::Simple);
        visit.transact(&transaction).await.unwrap();
    }
    member.check(&session, &shared).await.unwrap();
    let state = member.model.lock().head().clone();
    for (sabotage, word) in SABOTAGE {
        session.run(&format!("BEGIN; {sabotage}")).await.unwrap();
        let told = checker::check(&session, "known", &state, shared.seed).await;
        let Err(Trouble::Broken(told)) = told else {
            panic!("{sabotage}: {told:?}");
        };
        assert!(told.contains(word), "{sabotage}: {told}");
        session.run("ROLLBACK").await.unwrap();
    }
    // And with nothing wrong it is content, after any work.
    let mut random = Random::of(5, &[]);
    for _ in 0..60 {
        visit.step(&mut random).await.unwrap();
    }
    member.check(&session, &shared).await.unwrap();
    session.close().await.unwrap();
    commits_behind_the_model(&mut member, up, &shared, &audience).await;
    child.stop().await.unwrap();
}

/// A database that shows a transaction that was never sent, or lacks one that was acknowledged.
async fn commits_behind_the_model(
    member: &mut Member,
    up: Up,
    shared: &Shared,
    audience: &crashtest::stage::Audience,
) {
    for (change, word) in [
        ("n + 1", "only"),
        ("n - 2", "acknowledged transactions are missing"),
    ] {
        let session = Session::open(up.pg, "known").await.unwrap();
        session
            .run(&format!("UPDATE version SET n = {change}"))
            .await
            .unwrap();
        session.close().await.unwrap();
        let told = member.open(up, shared, audience).await.unwrap_err();
        assert!(told.to_string().contains(word), "{told}");
    }
    let session = Session::open(up.pg, "known").await.unwrap();
    for change in [
        "UPDATE version SET n = n + 1",
        "ALTER SYSTEM SET deadlock_timeout = 999999",
    ] {
        session.run(change).await.unwrap();
    }
    session.close().await.unwrap();
    let told = member.open(up, shared, audience).await.unwrap_err();
    assert!(told.to_string().contains("ALTER SYSTEM"), "{told}");
}

/// A little of everything that is sabotaged.
fn known() -> Vec<Vec<Op>> {
    let appended = (1..=3).map(|seq| Op::Append { client: 1, seq });
    vec![
        appended.collect(),
        vec![
            Op::Bulk {
                client: 1,
                first: 1,
                last: 1_000,
            },
            Op::BulkIndex(true),
        ],
        vec![
            Op::CreateTable {
                table: 1,
                column: 4,
            },
            Op::Fill {
                table: 1,
                first: 1,
                last: 10,
            },
        ],
    ]
}

fn launch(folder: &Path) -> Launch {
    Launch {
        program: PathBuf::from(PROGRAM),
        folder: folder.to_owned(),
        settings: Vec::new(),
    }
}
