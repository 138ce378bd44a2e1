//! Random programs of several sessions through a pool: each sees what it would see on a connection of its own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use harness::{Pooled, Postgres, limited, told};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use tokio_postgres::{Client, SimpleQueryMessage};

const CLIENTS: usize = 4;

/// What a session may do; all is about what belongs to it.
const STATEMENTS: [&str; 34] = [
    "begin",
    "begin",
    "commit",
    "commit",
    "rollback",
    "savepoint s",
    "rollback to s",
    "select 1/0",
    "set work_mem = '1MB'",
    "set work_mem = '2MB'",
    "set local work_mem = '3MB'",
    "reset work_mem",
    "set search_path = s1",
    "set search_path = s2, public",
    "set role r1",
    "set role r2",
    "reset role",
    "set session authorization r1",
    "reset session authorization",
    "select set_config('app.user', 'ann', false)",
    "select set_config('app.user', 'joe', false)",
    "set time zone 'Asia/Tokyo'",
    "set application_name = 'mine'",
    "reset all",
    "discard all",
    "create temp table if not exists mine (n int)",
    "drop table if exists pg_temp.mine",
    "show work_mem",
    "show search_path",
    "select current_user, session_user",
    "select coalesce(nullif(current_setting('app.user', true), ''), '-')",
    "select to_regclass('pg_temp.mine') is null, to_regclass('t')::text",
    "show timezone; show application_name",
    "select n from t",
];

#[derive(Debug, Clone)]
struct Step {
    client: usize,
    statement: usize,
    /// By a statement that is prepared, where that goes.
    is_prepared: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..CLIENTS, 0..STATEMENTS.len(), any::<bool>()).prop_map(|(client, statement, is_prepared)| {
        Step {
            client,
            statement,
            is_prepared,
        }
    })
}

async fn run(session: &Client, step: &Step) -> Result<Vec<String>, String> {
    let sql = STATEMENTS[step.statement];
    if step.is_prepared && sql.starts_with("select") {
        let rows = session.query(sql, &[]).await;
        let rows = rows.map_err(|error| told(&error).0)?;
        return Ok(vec![format!("{} rows", rows.len())]);
    }
    let answer = session.simple_query(sql).await;
    let answer = answer.map_err(|error| told(&error).0)?;
    let texts = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL"));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    Ok(texts.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_sees_what_is_its_own() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let beside = postgres.session().await;
    beside
        .batch_execute(
            "create role r1; create role r2; create schema s1; create schema s2;
             create table public.t (n int); create table s1.t (n int); create table s2.t (n int);
             insert into public.t values (0); insert into s1.t values (1); insert into s2.t values (2);
             grant usage on schema s1, s2 to public; grant select on public.t, s1.t to public",
        )
        .await
        .unwrap();
    let pooled = Pooled::start(postgres.origin(), limited(CLIENTS)).await;
    let config = Config {
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    for program in 0..40 {
        let steps = proptest::collection::vec(step(), 60);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let mut pairs = Vec::new();
        for _ in 0..CLIENTS {
            // The startup packet of the driver has more settings than the harness' own session.
            pairs.push((pooled.session().await, postgres.session().await));
        }
        for (at, step) in steps.iter().enumerate() {
            let (through, alone) = &pairs[step.client];
            let expected = match STATEMENTS[step.statement] {
                // Whoever sets nothing is called as who connected.
                sql if sql.contains("application_name") && !sql.starts_with("set") => continue,
                _ => run(alone, step).await,
            };
            let got = run(through, step).await;
            let told = || {
                let before = steps[..=at].iter();
                let lines =
                    before.map(|step| format!("{}: {}", step.client, STATEMENTS[step.statement]));
                lines.collect::<Vec<_>>().join("\n")
            };
            assert_eq!(got, expected, "program {program}:\n{}", told());
        }
    }
}
