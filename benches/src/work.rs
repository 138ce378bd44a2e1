//! What is measured: the tables, the statements, the sizes.

use crate::{results::Metric, samples::Budget, session::Params};
use serde_json::json;
use std::time::Duration;

/// How much of everything.
pub(crate) struct Sizes {
    pub(crate) starts: usize,
    /// Databases that each way creates at most, and the time in which it does.
    pub(crate) creates: usize,
    pub(crate) create_time: Duration,
    pub(crate) rounds: usize,
    pub(crate) large_rounds: usize,
    pub(crate) statement: Budget,
    pub(crate) echo: Budget,
    pub(crate) accounts: usize,
    pub(crate) inserts: usize,
    pub(crate) big: usize,
}

impl Sizes {
    pub(crate) fn full(rounds: usize) -> Self {
        Self {
            starts: 3,
            creates: 21,
            create_time: Duration::from_secs(8),
            rounds,
            large_rounds: rounds.min(3),
            statement: Budget {
                warmup: 50,
                iterations: 1000,
                limit_ms: 300,
            },
            echo: Budget {
                warmup: 50,
                iterations: 500,
                limit_ms: 50,
            },
            accounts: 10_000,
            inserts: 25_000,
            big: 1_000_000,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            starts: 1,
            creates: 3,
            create_time: Duration::from_secs(2),
            rounds: 2,
            large_rounds: 1,
            statement: Budget {
                warmup: 20,
                iterations: 200,
                limit_ms: 200,
            },
            echo: Budget {
                warmup: 20,
                iterations: 200,
                limit_ms: 20,
            },
            accounts: 10_000,
            inserts: 1_000,
            big: 50_000,
        }
    }
}

/// The statements that fill an empty database.
pub(crate) fn load(sizes: &Sizes) -> Vec<String> {
    let Sizes { accounts, big, .. } = sizes;
    vec![
        "create table account (id int primary key, balance bigint not null, note text not null)"
            .to_owned(),
        format!(
            "insert into account \
             select g, g * 10, 'account ' || g from generate_series(1, {accounts}) g"
        ),
        "create table ledger (id int primary key, account int not null, \
         amount numeric(12,2) not null, note text not null)"
            .to_owned(),
        format!(
            "create table big as select g as id, g % 1000 as grp, \
             g::bigint * 7919 % 100003 as val from generate_series(1, {big}) g"
        ),
        "vacuum analyze account".to_owned(),
        "vacuum analyze big".to_owned(),
        "checkpoint".to_owned(),
    ]
}

pub(crate) fn sql(metric: Metric) -> &'static str {
    match metric {
        Metric::Simple | Metric::Prepared => "select 1",
        Metric::Select => "select id, balance, note from account where id = $1",
        Metric::Update => "update account set balance = $2 where id = $1",
        Metric::Inserts => "insert into ledger (id, account, amount, note) values ($1, $2, $3, $4)",
        Metric::Aggregate | Metric::AggregateParallel => {
            "select sum(val), count(*), avg(val) from big where grp < 500"
        }
        Metric::StartCold
        | Metric::StartWarm
        | Metric::Open
        | Metric::Create
        | Metric::CreateFirst => "select 1",
    }
}

/// Parameters for so many runs, the same for every peer in a round.
pub(crate) fn params(metric: Metric, keys: &mut Keys, runs: usize) -> Vec<Params> {
    (0..runs)
        .map(|run| match metric {
            Metric::Select => vec![json!(keys.next(10_000))],
            Metric::Update => vec![json!(keys.next(10_000)), json!(run)],
            _ => Vec::new(),
        })
        .collect()
}

/// Rows for the transaction of inserts.
pub(crate) fn rows(count: usize) -> Vec<Params> {
    (1..=count)
        .map(|id| {
            let amount = format!("{}.{:02}", id * 37 % 5000, id % 100);
            vec![
                json!(id),
                json!(id % 500),
                json!(amount),
                json!(format!("entry number {id}")),
            ]
        })
        .collect()
}

/// Keys in no order, the same in every run.
pub(crate) struct Keys(u64);

impl Keys {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// From 1 to `most`.
    fn next(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most + 1
    }
}
