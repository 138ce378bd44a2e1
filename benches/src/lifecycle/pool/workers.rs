//! A deployed backend that asks a Postgres for each request, without the pool, with it, and with the cache.

use super::peers::Peers;
use crate::{
    hosts::free_address,
    http,
    lifecycle::{
        Run,
        server::Settings,
        table::{Table, ms},
    },
    process::Running,
    samples::{Budget, Round, median},
    session::Result,
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

/// What the backends ask, and what that is called in the table.
const QUERIES: [(&str, &str); 2] = [
    ("select now() as now", "now()"),
    (
        "select abalance as now from pgbench_accounts where aid = 1",
        "a row",
    ),
];

const CLIENTS: [usize; 3] = [1, 16, 64];

/// Where deployed backends are found.
const HOST: &str = "bench.apps.localhost";

/// A backend like the one that the platform's document prints.
const BACKEND: &str = r#"import postgres from "postgres";
export default {
  async fetch(_request: Request, env: { DB: { connectionString: string } }) {
    const sql = postgres(env.DB.connectionString);
    const rows = await sql`QUERY`;
    return Response.json({ now: rows[0]?.now });
  }
};
"#;

const FLAGS: &str = r#"{ "compatibility_flags": ["nodejs_compat_v2"] }"#;

/// A backend that runs somewhere.
struct Backend {
    name: String,
    address: SocketAddr,
    path: String,
    /// Requests a second, by the number of clients.
    rates: [Vec<f64>; CLIENTS.len()],
    times: [Vec<f64>; CLIENTS.len()],
}

/// What our server has to be told to run backends.
pub(super) fn settings(run: &Run) -> Result<Settings> {
    let folder = run.tools.join("node_modules/@cloudflare");
    let Ok(packages) = fs::read_dir(&folder) else {
        // Only one part wants it.
        return Ok(Settings::new());
    };
    for package in packages {
        let program = package?.path().join("bin/workerd");
        if program.is_file() {
            let program = program.to_str().ok_or("--tools needs a name in UTF-8")?;
            return Ok(vec![("DORMOUSE_WORKERS__WORKERD", program.to_owned())]);
        }
    }
    Ok(Settings::new())
}

pub(super) fn run(run: &Run) -> Result<String> {
    let rounds = run.count(3, 1);
    let limit_ms = run.choose(2_000, 500);
    let peers = Peers::start(run)?;
    let (server, origin) = peers.ours();
    let mut backends = Vec::new();
    let mut without = Vec::new();
    for (number, (query, asks)) in QUERIES.into_iter().enumerate() {
        let code = bundled(run, &BACKEND.replace("QUERY", query))?;
        let folder = |name: &str| folder(run, &format!("{name}{number}"), name, &code);
        let dev = Dev::start(run, &folder("none")?, origin)?;
        backends.push(Backend::new(
            format!("{asks}, no pool"),
            dev.address,
            "/bench/".to_owned(),
        ));
        without.push(dev);
        for (binding, name) in [("plain", "the pool"), ("cached", "pool and cache")] {
            let mut http = server.http("postgres")?;
            let shown = http.get(&format!("/v1/bindings/{binding}"))?;
            let id = shown["id"].as_str().ok_or("a binding without an id")?;
            let repository = format!("bench/{binding}{number}");
            deploy(run, &folder(id)?, &repository, server.http)?;
            let path = format!("/{binding}{number}/");
            backends.push(Backend::new(format!("{asks}, {name}"), server.http, path));
        }
    }
    for round in 0..rounds {
        eprintln!("  round {} of {rounds}", round + 1);
        let turn = round % backends.len();
        backends.rotate_left(turn);
        for backend in &mut backends {
            backend.measure(limit_ms)?;
        }
        backends.rotate_right(turn);
    }
    drop(without);
    peers.stop();
    let mut table = Table::new([
        "requests a second, p50 and p99 ms",
        "1 client",
        "16 clients",
        "64 clients",
    ]);
    for backend in backends {
        table.row(backend.cells());
    }
    Ok(format!(
        "### Through workerd\n\n\
         A backend with `postgres(env.DB.connectionString)` for each request, as the document prints it: what is asked, and \
         how it gets to the Postgres. Without a pool it runs in `dormouse dev --direct`. {rounds} rounds in turns, medians. The \
         answer to `now()` is never cached; what the driver asks at each connection, for types, is.\n\n{table}\n"
    ))
}

impl Backend {
    fn new(name: String, address: SocketAddr, path: String) -> Self {
        Self {
            name,
            address,
            path,
            rates: Default::default(),
            times: Default::default(),
        }
    }

    fn measure(&mut self, limit_ms: u64) -> Result<()> {
        for (index, clients) in CLIENTS.into_iter().enumerate() {
            let started = Instant::now();
            let threads: Vec<_> = (0..clients)
                .map(|_| {
                    let (address, path) = (self.address, self.path.clone());
                    thread::spawn(move || {
                        client(address, &path, limit_ms).map_err(|error| error.to_string())
                    })
                })
                .collect();
            let mut times = Vec::new();
            for thread in threads {
                times.extend(thread.join().map_err(|_| "a client panicked")??);
            }
            let took = started.elapsed().as_secs_f64();
            self.rates[index].push(times.len() as f64 / took);
            self.times[index].extend(times);
        }
        Ok(())
    }

    fn cells(self) -> Vec<String> {
        let mut cells = vec![self.name];
        for (rates, times) in self.rates.into_iter().zip(self.times) {
            cells.push(match (median(rates), Round::of(times)) {
                (Some(rate), Some(times)) => {
                    format!("{rate:.0}; {}, {}", ms(times.p50), ms(times.p99))
                }
                _ => "–".to_owned(),
            });
        }
        cells
    }
}

/// The times of one client's requests, microseconds.
fn client(address: SocketAddr, path: &str, limit_ms: u64) -> Result<Vec<f64>> {
    let mut client = http::Client::connect(address, "none")?;
    let budget = Budget {
        warmup: 1,
        iterations: 1_000_000,
        limit_ms,
    };
    budget.run(|_| client.visit(HOST, path))
}

/// A server for one backend, whose binding leads straight to the origin; ended when dropped.
struct Dev {
    _running: Running,
    address: SocketAddr,
}

impl Dev {
    fn start(run: &Run, folder: &Path, origin: SocketAddr) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(&run.program);
        command
            .args(["dev", "--direct"])
            .arg(folder)
            .args(["--port", &address.port().to_string()])
            .args([
                "--repository",
                "bench/bench",
                "--branch",
                "main",
                "--commit",
                "none",
            ])
            .env(
                "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_DB",
                format!("postgres://postgres:none@{origin}/postgres?sslmode=disable"),
            )
            .envs(settings(run)?);
        let mut running = Running::start(&mut command, &folder.with_extension("log"), false)?;
        running.until_ready(|| http::Client::connect(address, "none")?.visit(HOST, "/bench/"))?;
        Ok(Self {
            _running: running,
            address,
        })
    }
}

/// Deploys a folder.
fn deploy(run: &Run, folder: &Path, repository: &str, server: SocketAddr) -> Result<()> {
    let output = Command::new(&run.program)
        .arg("deploy")
        .arg(folder)
        .args([
            "--repository",
            repository,
            "--branch",
            "main",
            "--commit",
            "none",
        ])
        .args(["--server", &format!("http://{server}")])
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("deploy: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// A folder to deploy, with this code and this binding.
fn folder(run: &Run, name: &str, binding: &str, code: &str) -> Result<PathBuf> {
    let folder = run.folder.join(name);
    fs::create_dir_all(folder.join("dist/server"))?;
    let manifest =
        format!(r#"{{"bindings": {{"hyperdrive": [{{"binding": "DB", "id": "{binding}"}}]}}}}"#);
    fs::write(folder.join("w7s.json"), manifest)?;
    fs::write(folder.join("dist/server/index.js"), code)?;
    fs::write(folder.join("dist/server/wrangler.json"), FLAGS)?;
    Ok(folder)
}

/// What esbuild makes of a source and the driver.
fn bundled(run: &Run, source: &str) -> Result<String> {
    let folder = run.folder.join("bundle");
    let packages = run.tools.join("node_modules");
    if !folder.exists() {
        fs::create_dir(&folder)?;
        symlink(&packages, folder.join("node_modules"))?;
    }
    fs::write(folder.join("index.ts"), source)?;
    let output = Command::new(packages.join(".bin/esbuild"))
        .args(["index.ts", "--bundle", "--format=esm"])
        .args(["--conditions=workerd,worker,browser"])
        .args(["--external:cloudflare:*", "--external:node:*"])
        .current_dir(&folder)
        .output()
        .map_err(|error| format!("esbuild: {error}: `cargo xtask bench pool` brings it"))?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("esbuild: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
