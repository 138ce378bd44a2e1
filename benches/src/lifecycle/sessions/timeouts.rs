//! How late timeouts come.

use super::peer::{self, Peer};
use crate::{
    lifecycle::{
        Run,
        server::IDLE_NEVER,
        table::{Table, goal, ms, p50},
    },
    session::{Result, Session as _, us},
};
use std::time::Instant;

/// Each timeout, microseconds.
const TIMEOUT_US: f64 = 200_000.0;

/// The lateness to stay below, microseconds.
const GOAL_US: f64 = 10_000.0;

/// A timeout, and what meets it.
struct Case {
    what: &'static str,
    setting: &'static str,
    /// The statement that is ended; where there is none, an idle session in a transaction is.
    sql: Option<&'static str>,
    /// What the error must say.
    code: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        what: "a statement that waits",
        setting: "statement_timeout",
        sql: Some("select pg_sleep(60)"),
        code: "57014",
    },
    Case {
        what: "a busy statement",
        setting: "statement_timeout",
        sql: Some("select count(*) from generate_series(1, 1e9)"),
        code: "57014",
    },
    Case {
        what: "a wait for a row",
        setting: "lock_timeout",
        sql: Some("update held set value = 1 where id = 1"),
        code: "55P03",
    },
    Case {
        what: "an idle transaction",
        setting: "idle_in_transaction_session_timeout",
        sql: None,
        code: "25P03",
    },
    Case {
        what: "an idle transaction",
        setting: "transaction_timeout",
        sql: None,
        code: "25P04",
    },
    Case {
        what: "a statement that waits",
        setting: "transaction_timeout",
        sql: Some("select pg_sleep(60)"),
        code: "25P04",
    },
];

pub(super) fn run(run: &Run) -> Result<String> {
    let times = run.count(50, 3);
    let mut table = Table::new([
        "timeout",
        "of",
        "server",
        "late p50 ms",
        "late most ms",
        "of",
    ]);
    let mut reached = true;
    let mut failed = String::new();
    for peer in [
        peer::ours(run, IDLE_NEVER, &[])?,
        peer::native(run, peer::CONNECTIONS)?,
    ] {
        let mut holder = peer.connect()?;
        holder.execute("create table held (id int primary key, value int)")?;
        holder.execute("insert into held values (1, 0)")?;
        for case in &CASES {
            let Case { what, setting, .. } = case;
            eprintln!("  {setting}, {what}, {}", peer.name);
            let found = held(&peer, || (0..times).map(|_| late(&peer, case)).collect());
            let found: Vec<f64> = match found {
                Ok(found) => found,
                Err(error) => {
                    failed.push_str(&format!("\n- {}, {setting}, {what}: {error}", peer.name));
                    Vec::new()
                }
            };
            let most = found.iter().copied().reduce(f64::max);
            // The goal is ours.
            reached &= peer.name == "native" || most.is_some_and(|most| most <= GOAL_US);
            table.row([
                format!("`{setting}`"),
                (*what).to_owned(),
                peer.name.to_owned(),
                most.map_or_else(|| "–".into(), |_| ms(p50(&found))),
                most.map_or_else(|| "–".into(), ms),
                found.len().to_string(),
            ]);
        }
        peer.stop();
    }
    Ok(format!(
        "### Timeouts of 200 ms\n\n{table}\n\
         What a client waits for the error beyond 200 ms, its own request and the answer's way included. Nothing is \
         pinned.\n\n{}\n{failed}\n",
        goal("Goal, within 10 ms", reached)
    ))
}

/// Does something while a transaction holds the row.
fn held<T>(peer: &Peer, inside: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut holder = peer.connect()?;
    holder.execute("begin")?;
    holder.execute("update held set value = 0 where id = 1")?;
    let done = inside();
    holder.execute("rollback")?;
    done
}

/// How much later than its time a timeout comes, microseconds.
fn late(peer: &Peer, case: &Case) -> Result<f64> {
    // The session may be ended: each has one of its own.
    let mut client = peer.connect()?;
    client.execute(&format!("set {} = 200", case.setting))?;
    let (start, error) = match case.sql {
        Some(sql) => {
            let start = Instant::now();
            match client.execute(sql) {
                Err(error) => (start, error),
                Ok(_) => return Err(format!("`{sql}` ended without an error").into()),
            }
        }
        None => {
            let start = Instant::now();
            client.execute("begin")?;
            (start, client.until_ended())
        }
    };
    let late = us(start) - TIMEOUT_US;
    if error.to_string().contains(case.code) {
        Ok(late)
    } else {
        Err(format!("not {}: {error}", case.code).into())
    }
}
