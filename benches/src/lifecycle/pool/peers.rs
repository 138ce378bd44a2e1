//! Who is measured: the origin itself, poolers of others, and our pool.

use super::{
    CONNECTIONS,
    other::{ODYSSEY, Other, PGBOUNCER},
    workers,
};
use crate::{
    hosts::{Host as _, Native},
    lifecycle::{
        Run,
        pgbench::{self, Target},
        server::{Server, Settings},
        usage,
    },
    pgwire::Address,
    session::Result,
};
use serde_json::json;
use std::{fs, net::SocketAddr, process::Command};

/// Connections that the origin lets in: those of both pools, and of clients without one.
const ORIGIN_CONNECTIONS: usize = 200;

/// The most clients that come to the origin without a pool.
pub(super) const DIRECT_MAX: usize = 100;

/// Who is measured in a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Direct,
    PgBouncer,
    Odyssey,
    Ours,
    /// Ours, with the result cache.
    Cached,
}

/// All of them, running.
pub(super) struct Peers {
    origin: Native,
    pgbouncer: Other,
    /// If it can be had here.
    odyssey: Option<Other>,
    ours: Server,
    direct: Target,
    pool: Target,
    cached: Target,
}

impl Peers {
    /// Starts them, and fills the origin.
    pub(super) fn start(run: &Run) -> Result<Self> {
        let mut origin = Native::new(&run.tools, &run.folder, true)?;
        origin
            .check()
            .map_err(|error| format!("{error}: `cargo xtask tools` brings a PostgreSQL"))?;
        origin.set(&format!("max_connections={ORIGIN_CONNECTIONS}"));
        // Nothing else is to run there.
        origin.set("autovacuum=off");
        let home = run.folder.join("origin");
        fs::create_dir(&home)?;
        origin.start(&home.join("data"))?;
        let (_, address) = origin.process();
        let Address::Tcp(address) = *address else {
            return Err("BUG: a native server listens on TCP".into());
        };
        let direct = Target {
            name: "the origin",
            address,
            user: "postgres".to_owned(),
            password: String::new(),
            database: "postgres".to_owned(),
        };
        pgbench::load(run, &direct)?;
        let verifier = |user: &str, password: &str| verifier(run, address, user, password);
        let pgbouncer = Other::start(run, &PGBOUNCER, address, verifier)?;
        let odyssey = Other::start(run, &ODYSSEY, address, verifier)
            .inspect_err(|error| eprintln!("  left out: {error}"))
            .ok();
        let mut settings: Settings = vec![("DORMOUSE_BINDINGS__CLIENTS_MAX", "5000".to_owned())];
        settings.extend(workers::settings(run)?);
        let ours = Server::start_with(run, settings)?;
        Ok(Self {
            pool: bind(&ours, address, false)?,
            cached: bind(&ours, address, true)?,
            origin,
            pgbouncer,
            odyssey,
            ours,
            direct,
        })
    }

    /// Whom a turn asks; nobody if that cannot be had here.
    pub(super) fn target(&self, way: Way) -> Option<&Target> {
        match way {
            Way::Direct => Some(&self.direct),
            Way::PgBouncer => Some(&self.pgbouncer.target),
            Way::Odyssey => self.odyssey.as_ref().map(|other| &other.target),
            Way::Ours => Some(&self.pool),
            Way::Cached => Some(&self.cached),
        }
    }

    /// Our server, and the origin's address.
    pub(super) fn ours(&self) -> (&Server, SocketAddr) {
        (&self.ours, self.direct.address)
    }

    /// Processor time that a pooler has had, microseconds; nothing where there is none.
    pub(super) fn cpu_us(&self, way: Way) -> Result<f64> {
        let id = match way {
            Way::Direct => return Ok(0.0),
            Way::PgBouncer => self.pgbouncer.id(),
            Way::Odyssey => match &self.odyssey {
                Some(other) => other.id(),
                None => return Ok(0.0),
            },
            Way::Ours | Way::Cached => self.ours.id(),
        };
        Ok(usage::cpu_seconds(id)? * 1e6)
    }

    /// The versions, for people.
    pub(super) fn versions(&self) -> String {
        let odyssey = self.odyssey.as_ref();
        format!(
            "{} and {}, in front of PostgreSQL 18",
            self.pgbouncer.version,
            odyssey.map_or("no Odyssey", |other| &other.version)
        )
    }

    /// Ends them. Their figures stand, however that goes.
    pub(super) fn stop(mut self) {
        let odyssey = self.odyssey.map_or(Ok(()), Other::stop);
        for stopped in [
            self.ours.stop(),
            self.pgbouncer.stop(),
            odyssey,
            self.origin.stop(),
        ] {
            if let Err(error) = stopped {
                eprintln!("  {error}");
            }
        }
    }
}

/// Makes a binding to the origin, and a user of it.
fn bind(server: &Server, origin: SocketAddr, cached: bool) -> Result<Target> {
    let mut http = server.http("postgres")?;
    let name = if cached { "cached" } else { "plain" };
    http.send(
        "/v1/bindings",
        &json!({
            "name": name,
            "connectionString": format!("postgres://postgres:none@{origin}/postgres"),
            "caching": { "disabled": !cached },
            "limits": { "connectionsMax": CONNECTIONS },
        }),
    )?;
    let path = format!("/v1/bindings/{name}/credentials");
    let made = http.send(&path, &json!({ "name": "bench" }))?;
    let text = |field: &str| {
        let text = made[field].as_str().map(str::to_owned);
        text.ok_or_else(|| format!("a credential without {field}"))
    };
    Ok(Target {
        name: if cached {
            "Dormouse, cached"
        } else {
            "Dormouse"
        },
        address: server.pg,
        user: text("user")?,
        password: text("password")?,
        database: "postgres".to_owned(),
    })
}

/// What the origin stores of a password.
fn verifier(run: &Run, origin: SocketAddr, user: &str, password: &str) -> Result<String> {
    let sql = format!(
        "drop role if exists {user}; create role {user} password '{password}'; \
         select rolpassword from pg_authid where rolname = '{user}'"
    );
    let mut psql = Command::new(run.tools.join("bin/psql"));
    psql.args(["-h", &origin.ip().to_string()])
        .args(["-p", &origin.port().to_string()])
        .args(["-U", "postgres", "-qAtX", "-c", &sql, "postgres"]);
    let output = psql.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().to_owned()),
        false => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
