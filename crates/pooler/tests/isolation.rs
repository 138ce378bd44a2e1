//! Random programs of several sessions through a pool: each sees what it would see on a connection of its own, and nothing
//! of what others have left behind or were given.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::error::Error;

use harness::{Pooled, Postgres, limited, told};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

const CLIENTS: usize = 4;

/// What a session may do; all is about what belongs to it.
const STATEMENTS: [&str; 43] = [
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
    // `{n}` is the client's own.
    UPDATES,
    "insert into public.triggered values ('{n}')",
    "insert into triggered values ('{n}')",
    LEFT,
    LEFT,
    GIVES,
    GIVES,
    TELLS,
    TELLS,
];

/// Leaves the client's own value of a setting, as the trigger does.
const UPDATES: &str = "update pg_settings set setting = '{n}' where name = 'cursor_tuple_fraction'";

/// What is left: it stays until the end of the transaction at least, and others never see it.
const LEFT: &str = "show cursor_tuple_fraction";
const LEFT_BY_NOBODY: &str = "0.1";

const GIVES: &str = "select nextval('public.numbers')";
const TELLS: &str = "select lastval()";

/// What a client has been given.
#[derive(Debug, Default)]
struct Given {
    number: Option<String>,
    /// In the transaction that is open.
    is_now: bool,
    in_transaction: bool,
}

impl Given {
    /// Whether an answer to [`TELLS`] is right, if a session alone gets the other.
    fn is_right(&self, got: &Answer, alone: &Answer) -> bool {
        match (got, alone) {
            (Ok(rows), Ok(_)) => rows.first() == self.number.as_ref(),
            // Another has had the connection.
            (Err(code), Ok(_)) => code == "55000" && !(self.in_transaction && self.is_now),
            _ => got == alone,
        }
    }

    fn ran(&mut self, sql: &str, got: &Answer) {
        match (sql, got) {
            (GIVES, Ok(rows)) => {
                self.number = rows.first().cloned();
                self.is_now = true;
            }
            ("begin", Ok(_)) if !self.in_transaction => {
                self.in_transaction = true;
                self.is_now = false;
            }
            ("commit" | "rollback", _) => self.in_transaction = false,
            _ => {}
        }
    }
}

type Answer = Result<Vec<String>, String>;

/// The value of any type, as it was sent.
struct Sent(String);

impl<'a> FromSql<'a> for Sent {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.escape_ascii().to_string()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
struct Step {
    client: usize,
    statement: usize,
    /// By a statement that is prepared, where that goes.
    is_prepared: bool,
}

impl Step {
    fn sql(&self) -> String {
        let own = format!("0.5{}", self.client + 1);
        STATEMENTS[self.statement].replace("{n}", &own)
    }
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

async fn run(session: &Client, step: &Step) -> Answer {
    let sql = step.sql();
    // Its numbers are compared as texts.
    let is_number = [GIVES, TELLS].contains(&STATEMENTS[step.statement]);
    if step.is_prepared && (sql.starts_with("select") || sql.starts_with("insert")) {
        let sql = match is_number {
            true => sql.replace("()", "()::text").replace("')", "')::text"),
            false => sql,
        };
        let rows = session.query(&sql, &[]).await;
        let rows = rows.map_err(|error| told(&error).0)?;
        let values = |row: &Row| {
            let value = |at| {
                row.get::<_, Option<Sent>>(at)
                    .map_or_else(|| "NULL".to_owned(), |sent| sent.0)
            };
            (0..row.len()).map(value).collect::<Vec<_>>().join("|")
        };
        return Ok(rows.iter().map(values).collect());
    }
    let answer = session.simple_query(&sql).await;
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
             grant usage on schema s1, s2 to public; grant select on public.t, s1.t to public;
             create sequence public.numbers; grant usage on sequence public.numbers to public;
             create table public.triggered (value text); grant insert on public.triggered to r1;
             create function public.leave() returns trigger language plpgsql as $$ begin
             perform set_config('cursor_tuple_fraction', new.value, false); return new; end $$;
             create trigger leave before insert on public.triggered for each row
             execute function public.leave()",
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
        let mut given: [Given; CLIENTS] = Default::default();
        for (at, step) in steps.iter().enumerate() {
            let (through, alone) = &pairs[step.client];
            let expected = match STATEMENTS[step.statement] {
                // Whoever sets nothing is called as who connected.
                sql if sql.contains("application_name") && !sql.starts_with("set") => continue,
                _ => run(alone, step).await,
            };
            let got = run(through, step).await;
            let given = &mut given[step.client];
            given.ran(STATEMENTS[step.statement], &got);
            let told = || {
                let before = steps[..=at].iter();
                let lines = before.map(|step| format!("{}: {}", step.client, step.sql()));
                lines.collect::<Vec<_>>().join("\n")
            };
            if got.is_err() && expected.is_ok() && STATEMENTS[step.statement] == TELLS {
                // What it has broken is broken there, too.
                alone.simple_query("select 1/0").await.unwrap_err();
            }
            let is_right = match STATEMENTS[step.statement] {
                LEFT if got.is_ok() && expected.is_ok() => {
                    let own = format!("0.5{}", step.client + 1);
                    got == Ok(vec![own]) || got == Ok(vec![LEFT_BY_NOBODY.to_owned()])
                }
                GIVES if got.is_ok() && expected.is_ok() => true,
                TELLS => given.is_right(&got, &expected),
                _ => got == expected,
            };
            assert!(
                is_right,
                "{got:?}, alone {expected:?}, {given:?}, program {program}:\n{}",
                told()
            );
        }
    }
}
