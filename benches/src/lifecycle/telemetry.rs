//! What telemetry costs: the same queries on servers that send none, a share, and all of their traces to a
//! collector on this machine, in turns.

use super::{
    Run,
    server::{Server, Settings},
    table::Table,
};
use crate::{
    http, pgwire,
    samples::{Budget, median},
    session::{Result, Session},
};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
};

/// Another build of the server, for comparison.
const BEFORE: &str = "DORMOUSE_BENCH_BEFORE";

/// One way to run the server.
struct Variant {
    name: &'static str,
    server: Server,
    pgwire: pgwire::Client,
    http: http::Client,
    /// Of each turn, by protocol: queries a second, and the server's processor time of one in microseconds.
    turns: [Vec<Turn>; 2],
}

#[derive(Clone, Copy)]
struct Turn {
    per_second: f64,
    cpu_us: f64,
}

pub(super) fn run(run: &Run) -> Result<String> {
    let collector = collector()?;
    let rounds = run.count(40, 3);
    let endpoint = format!("http://{collector}");
    let before = env::var_os(BEFORE).map(PathBuf::from);
    let mut variants = Vec::new();
    if let Some(before) = &before {
        variants.push(Variant::start(run, "before", before, Vec::new())?);
    }
    for (name, ratio) in [
        ("off", None),
        // What two of a kind differ by is what this machine cannot tell.
        ("off, another", None),
        ("0.01", Some("0.01")),
        ("1.0", Some("1.0")),
    ] {
        let settings = ratio.map_or_else(Vec::new, |ratio| {
            vec![
                ("DORMOUSE_TELEMETRY__OTLP_ENDPOINT", endpoint.clone()),
                ("DORMOUSE_TELEMETRY__SAMPLE_RATIO", ratio.to_owned()),
            ]
        });
        variants.push(Variant::start(run, name, &run.program, settings)?);
    }
    for round in 0..rounds {
        let count = variants.len();
        for at in 0..count {
            variants[(round + at) % count].turn(run)?;
        }
    }
    let text = report(&variants, rounds);
    for variant in variants {
        variant.server.stop()?;
    }
    Ok(text)
}

impl Variant {
    fn start(
        run: &Run,
        name: &'static str,
        program: &std::path::Path,
        settings: Settings,
    ) -> Result<Self> {
        let own = Run {
            program: program.to_owned(),
            tools: run.tools.clone(),
            folder: run.folder.join(name),
            quick: run.quick,
            count: run.count,
        };
        fs::create_dir(&own.folder)?;
        let server = Server::start_with(&own, settings)?;
        let address = pgwire::Address::Tcp(server.pg);
        let mut pgwire = pgwire::Client::connect(&address, "cost")?;
        pgwire.execute("create table t (id int primary key, name text)")?;
        pgwire.execute("insert into t select n, 'name ' || n from generate_series(1, 10000) n")?;
        let http = server.http("cost")?;
        Ok(Self {
            name,
            server,
            pgwire,
            http,
            turns: Default::default(),
        })
    }

    /// Queries over each protocol for a fraction of a second.
    fn turn(&mut self, run: &Run) -> Result<()> {
        let budget = Budget {
            warmup: 20,
            iterations: 100_000,
            limit_ms: run.choose(300, 50),
        };
        let sql = "select name from t where id = $1";
        let params: Vec<_> = (0..budget.runs())
            .map(|n| vec![serde_json::json!(n % 10_000 + 1)])
            .collect();
        let clients: [&mut dyn Session; 2] = [&mut self.pgwire, &mut self.http];
        for (client, turns) in clients.into_iter().zip(&mut self.turns) {
            let cpu = self.server.cpu_seconds()?;
            let samples = client.prepared(sql, &params, budget)?;
            let cpu_us = (self.server.cpu_seconds()? - cpu) * 1e6;
            let elapsed_us: f64 = samples.iter().sum();
            let count = samples.len() as f64;
            turns.push(Turn {
                per_second: count / elapsed_us * 1e6,
                cpu_us: cpu_us / (count + budget.warmup as f64),
            });
        }
        Ok(())
    }
}

fn report(variants: &[Variant], rounds: usize) -> String {
    let mut table = Table::new([
        "traces",
        "pgwire, prepared: queries/s",
        "of those without",
        "processor time of one",
        "HTTP: queries/s",
        "of those without",
        "processor time of one",
    ]);
    let off = variants.iter().find(|variant| variant.name == "off");
    for variant in variants {
        let mut cells = vec![variant.name.to_owned()];
        for protocol in 0..2 {
            let turns = &variant.turns[protocol];
            let speeds = turns.iter().map(|turn| turn.per_second);
            // Within a round, since the machine is not the same in the next.
            let ratios = off.into_iter().flat_map(|off| {
                let pairs = turns.iter().zip(&off.turns[protocol]);
                pairs.map(|(own, off)| own.per_second / off.per_second)
            });
            cells.extend([
                format!("{:.0}", median(speeds).unwrap_or(0.0)),
                format!("{:.3}", median(ratios).unwrap_or(0.0)),
                format!(
                    "{:.1} us",
                    turns.iter().map(|turn| turn.cpu_us).sum::<f64>() / turns.len() as f64
                ),
            ]);
        }
        table.row(cells);
    }
    format!(
        "### What telemetry costs\n\nOne client, a select by primary key, {rounds} turns of each; medians, and means \
         of the processor time. The collector is on the same machine and drops what it gets.\n\n{}",
        table
    )
}

/// A collector that takes everything and keeps nothing.
fn collector() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::io::Result::ok) {
            // It ends with the connection.
            thread::spawn(move || take(stream));
        }
    });
    Ok(address)
}

fn take(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).ok()?;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).ok()?;
    }
}
