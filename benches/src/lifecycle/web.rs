//! Queries over HTTP: 1, 16 and 256 clients, of one database and of a thousand, over connections that are kept and
//! over new ones.

use super::{
    Run,
    server::{IDLE_MS, IDLE_NEVER, Server},
    table::{Table, p50_p99},
};
use crate::{
    args::beside_this_program,
    echo::Echo,
    http,
    samples::{Budget, Round},
    session::{Result, Session as _},
};
use serde_json::json;
use std::{net::SocketAddr, thread, time::Instant};

const SQL: &str = "select name from t where id = $1";

/// Rows of each database: more than the server keeps answers.
const ROWS: usize = 10_000;

/// A load: how many clients ask how many databases, and whether each request has a connection of its own.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    databases: usize,
    is_kept: bool,
}

/// What came of it.
struct Outcome {
    samples: Vec<f64>,
    per_second: f64,
}

pub(super) fn run(run: &Run) -> Result<String> {
    let many = run.count(1_000, 20);
    let server = Server::start(run, &[(IDLE_MS, IDLE_NEVER)])?;
    let mut first = server.http("web0")?;
    let budget = Budget {
        warmup: 0,
        iterations: 1,
        limit_ms: 60_000,
    };
    first.simple("create table t (id int primary key, name text)", budget)?;
    let fill = format!("insert into t select n, 'name ' || n from generate_series(1, {ROWS}) n");
    first.simple(&fill, budget)?;
    for number in 1..many {
        first.fork(&format!("web{number}"), "web0")?;
    }
    let mut echo = Echo::start(&beside_this_program("tcp-echo")?)?;
    let mut table = Table::new([
        "clients",
        "databases",
        "connections",
        "requests/s",
        "p50",
        "p99",
        "p50 in echoes",
    ]);
    let firsts = first_uses(server.http, many)?;
    for databases in [1, many] {
        for clients in [1, 16, 256] {
            for is_kept in [true, false] {
                let load = Load {
                    clients,
                    databases,
                    is_kept,
                };
                let outcome = load.run(server.http, run.choose(3_000, 100))?;
                let unit = Budget {
                    warmup: 100,
                    iterations: 5_000,
                    limit_ms: 500,
                };
                let unit = Round::of(echo.ping(unit)?).ok_or("no echo came back")?;
                table.row(load.cells(&outcome, unit.p50)?);
            }
        }
    }
    // Nobody needs what is in them: no time is spent on putting them to sleep.
    server.kill();
    let [p50, p99] = p50_p99(&firsts);
    Ok(format!(
        "`{SQL}` with a random parameter, `POST /v1/databases/NAME/query`, {ROWS} rows a database, all of them awake:\n\n{table}\n\
         The first query of each of the {many}, forked from one, one after the other: p50 {p50} ms, p99 {p99} ms.\n"
    ))
}

/// Asks each database once, and so wakes it; the times, in microseconds.
fn first_uses(address: SocketAddr, databases: usize) -> Result<Vec<f64>> {
    let once = Budget {
        warmup: 0,
        iterations: 1,
        limit_ms: 60_000,
    };
    let mut client = http::Client::connect(address, "web0")?;
    let mut times = Vec::new();
    for number in 0..databases {
        client.turn_to(&format!("web{number}"));
        times.extend(client.prepared(SQL, &[vec![json!(1)]], once)?);
    }
    Ok(times)
}

impl Load {
    fn run(self, address: SocketAddr, limit_ms: u64) -> Result<Outcome> {
        let started = Instant::now();
        let clients: Vec<_> = (0..self.clients)
            .map(|client| {
                thread::spawn(move || {
                    self.client(client, address, limit_ms)
                        .map_err(|error| error.to_string())
                })
            })
            .collect();
        let mut samples = Vec::new();
        for client in clients {
            let own = client.join().map_err(|_| "a client panicked")?;
            samples.extend(own?);
        }
        let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Outcome {
            samples,
            per_second,
        })
    }

    /// The times of one client's requests, in microseconds.
    fn client(self, client: usize, address: SocketAddr, limit_ms: u64) -> Result<Vec<f64>> {
        let budget = Budget {
            warmup: 0,
            iterations: usize::MAX >> 1,
            limit_ms,
        };
        let once = Budget {
            iterations: 1,
            ..budget
        };
        // A different walk for each client, through databases and rows.
        let mut at = client * 7_919;
        let mut kept = http::Client::connect(address, "web0")?;
        let budget = Budget {
            iterations: 1_000_000,
            ..budget
        };
        budget.run(|_| {
            at = at
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = at >> 33;
            let database = format!("web{}", number % self.databases);
            let params = [vec![json!(number / self.databases % ROWS + 1)]];
            if !self.is_kept {
                kept = http::Client::connect(address, &database)?;
            }
            kept.turn_to(&database);
            kept.prepared(SQL, &params, once).map(drop)
        })
    }

    fn cells(self, outcome: &Outcome, echo_us: f64) -> Result<Vec<String>> {
        let round = Round::of(outcome.samples.clone()).ok_or("no request was answered")?;
        Ok(vec![
            self.clients.to_string(),
            self.databases.to_string(),
            if self.is_kept { "kept" } else { "new" }.to_owned(),
            format!("{:.0}", outcome.per_second),
            format!("{:.2} ms", round.p50 / 1e3),
            format!("{:.2} ms", round.p99 / 1e3),
            format!("{:.1}", round.p50 / echo_us),
        ])
    }
}
