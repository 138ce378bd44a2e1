//! The configuration of `serve`: flags over `DORMOUSE_*` over the file over defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use database::Limits;
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};

use super::args::ServeArgs;
use super::failure::Failure;

/// The file that is read if it is there and no other is named.
const FILE: &str = "dormouse.toml";

/// Every setting. The names here are the names in errors and documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) log: String,
    pub(crate) server: ServerSection,
    pub(crate) pgwire: PgwireSection,
    pub(crate) http: HttpSection,
    pub(crate) databases: DatabasesSection,
    pub(crate) sessions: SessionsSection,
    pub(crate) durability: DurabilitySection,
    pub(crate) backend: BackendSection,
    pub(crate) volume: VolumeSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSection {
    insecure_listen: bool,
    drain_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PgwireSection {
    listen: String,
    message_bytes_max: usize,
    startup_timeout_ms: u64,
    connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpSection {
    listen: String,
    body_bytes_max: usize,
    result_bytes_max: usize,
    request_timeout_ms: u64,
    header_timeout_ms: u64,
    connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabasesSection {
    auto_create: bool,
    idle_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionsSection {
    wait_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DurabilitySection {
    flush_interval_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendSection {
    memory_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeSection {
    bytes_max: u64,
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl Default for Config {
    fn default() -> Self {
        let server = server::Options::default();
        let limits = Limits::default();
        Self {
            data: PathBuf::from("dormouse-data"),
            log: "info".to_owned(),
            server: ServerSection {
                insecure_listen: server.insecure_listen,
                drain_ms_max: ms(server.drain_max),
            },
            pgwire: PgwireSection {
                listen: server.pgwire.listen,
                message_bytes_max: server.pgwire.message_bytes_max,
                startup_timeout_ms: ms(server.pgwire.startup_timeout),
                connections_max: server.pgwire.connections_max,
            },
            http: HttpSection {
                listen: server.http.listen,
                body_bytes_max: server.http.body_bytes_max,
                result_bytes_max: server.http.result_bytes_max,
                request_timeout_ms: ms(server.http.request_timeout),
                header_timeout_ms: ms(server.http.header_timeout),
                connections_max: server.http.connections_max,
            },
            databases: DatabasesSection {
                auto_create: true,
                idle_ms: ms(limits.idle),
            },
            sessions: SessionsSection {
                wait_ms_max: ms(limits.session_wait_max),
            },
            durability: DurabilitySection {
                flush_interval_ms: ms(limits.flush_interval),
            },
            backend: BackendSection {
                memory_bytes_max: limits.backend_memory_bytes_max,
            },
            volume: VolumeSection {
                bytes_max: limits.volume_bytes_max,
            },
        }
    }
}

impl Config {
    pub(crate) fn server_options(&self) -> server::Options {
        server::Options {
            pgwire: server::PgwireOptions {
                listen: self.pgwire.listen.clone(),
                message_bytes_max: self.pgwire.message_bytes_max,
                startup_timeout: Duration::from_millis(self.pgwire.startup_timeout_ms),
                connections_max: self.pgwire.connections_max,
            },
            http: server::HttpOptions {
                listen: self.http.listen.clone(),
                body_bytes_max: self.http.body_bytes_max,
                result_bytes_max: self.http.result_bytes_max,
                request_timeout: Duration::from_millis(self.http.request_timeout_ms),
                header_timeout: Duration::from_millis(self.http.header_timeout_ms),
                connections_max: self.http.connections_max,
            },
            insecure_listen: self.server.insecure_listen,
            drain_max: Duration::from_millis(self.server.drain_ms_max),
        }
    }

    pub(crate) fn database_options(&self) -> database::Options {
        let cache = dormouse::default_cache_directory();
        database::Options {
            auto_create: self.databases.auto_create,
            limits: Limits {
                backend_memory_bytes_max: self.backend.memory_bytes_max,
                volume_bytes_max: self.volume.bytes_max,
                session_wait_max: Duration::from_millis(self.sessions.wait_ms_max),
                flush_interval: Duration::from_millis(self.durability.flush_interval_ms),
                idle: Duration::from_millis(self.databases.idle_ms),
            },
            progress: super::progress::progress(),
            ..database::Options::new(&self.data, cache)
        }
    }

    /// The configuration as a file that says what each setting is for.
    pub(crate) fn to_toml(&self) -> String {
        let text = |value: &dyn std::fmt::Display| toml_string(&value.to_string());
        format!(
            "# The data directory.\ndata = {}\n\
             # What is logged to standard error: a level, or a filter as in RUST_LOG.\nlog = {}\n\n\
             [server]\n\
             # Whether to listen where other machines can connect. There is no authentication:\n\
             # whoever reaches a port may do everything.\ninsecure_listen = {}\n\
             # How long a stop waits for running statements before it cancels them.\n\
             drain_ms_max = {}\n\n\
             [pgwire]\n\
             # Where PostgreSQL's protocol is spoken. Port 0 takes a free one.\nlisten = {}\n\
             # The largest message of a client.\nmessage_bytes_max = {}\n\
             # How long a client may take to say what it wants.\nstartup_timeout_ms = {}\n\
             # Sessions at once.\nconnections_max = {}\n\n\
             [http]\n\
             # Where HTTP is spoken. Port 0 takes a free one.\nlisten = {}\n\
             # The largest body of a request.\nbody_bytes_max = {}\n\
             # The largest document of a result.\nresult_bytes_max = {}\n\
             # How long a request may take, the wait for its turn included.\n\
             request_timeout_ms = {}\n\
             # How long a client may take to send the head of a request.\nheader_timeout_ms = {}\n\
             # Connections at once.\nconnections_max = {}\n\n\
             [databases]\n\
             # Whether a database that is asked for and not there is made.\nauto_create = {}\n\
             # How long a database without a session stays awake.\nidle_ms = {}\n\n\
             [sessions]\n\
             # Longest wait for a database that another session uses.\nwait_ms_max = {}\n\n\
             [durability]\n\
             # Longest time between a commit and its flush to disk.\nflush_interval_ms = {}\n\n\
             [backend]\n\
             # Most memory of one database's Postgres.\nmemory_bytes_max = {}\n\n\
             [volume]\n\
             # Most bytes that one database stores beyond its template.\nbytes_max = {}\n",
            text(&self.data.display()),
            text(&self.log),
            self.server.insecure_listen,
            self.server.drain_ms_max,
            text(&self.pgwire.listen),
            self.pgwire.message_bytes_max,
            self.pgwire.startup_timeout_ms,
            self.pgwire.connections_max,
            text(&self.http.listen),
            self.http.body_bytes_max,
            self.http.result_bytes_max,
            self.http.request_timeout_ms,
            self.http.header_timeout_ms,
            self.http.connections_max,
            self.databases.auto_create,
            self.databases.idle_ms,
            self.sessions.wait_ms_max,
            self.durability.flush_interval_ms,
            self.backend.memory_bytes_max,
            self.volume.bytes_max,
        )
    }
}

/// A basic string of TOML.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// Reads the configuration.
pub(crate) fn load(args: &ServeArgs) -> Result<Config, Failure> {
    let file = match &args.config {
        Some(path) if !path.exists() => {
            return Err(Failure::Usage(format!(
                "the configuration file {} is not there",
                path.display()
            )));
        }
        Some(path) => path.clone(),
        None => PathBuf::from(FILE),
    };
    merge(&file, args).extract().map_err(|error| {
        let reasons: Vec<String> = error.into_iter().map(|one| one.to_string()).collect();
        Failure::Usage(format!(
            "the configuration is wrong: {}; `dormouse config` prints every setting",
            reasons.join("; ")
        ))
    })
}

fn merge(file: &Path, args: &ServeArgs) -> Figment {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if file.exists() {
        figment = figment.merge(Toml::file_exact(file));
    }
    // `DORMOUSE_SECTION__NAME`; single words have a meaning of their own.
    let sections = Env::prefixed("DORMOUSE_")
        .filter(|key| key.as_str().contains("__"))
        .split("__");
    figment = figment.merge(sections);
    let short = [
        ("data", "DORMOUSE_DATA", &args.data),
        ("pgwire.listen", "DORMOUSE_PG", &args.pg),
        ("http.listen", "DORMOUSE_HTTP", &args.http),
        ("log", "DORMOUSE_LOG", &args.log),
    ];
    for (key, variable, flag) in short {
        if let Some(value) = flag.clone().or_else(|| std::env::var(variable).ok()) {
            figment = figment.merge(Serialized::default(key, value));
        }
    }
    figment
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn args(words: &[&str]) -> ServeArgs {
        let words = ["dormouse", "serve"].iter().chain(words);
        match super::super::args::Args::parse_from(words).command {
            super::super::args::Command::Serve(args) => args,
            _ => unreachable!("BUG: `serve` was parsed"),
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dormouse.toml");
        std::fs::write(&file, Config::default().to_toml()).unwrap();
        let read: Config = merge(&file, &args(&[])).extract().unwrap();
        assert_eq!(read, Config::default());
    }

    #[test]
    fn flags_win_and_unknown_keys_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dormouse.toml");
        std::fs::write(
            &file,
            "[pgwire]\nlisten = \"127.0.0.1:1\"\n[databases]\nauto_create = false",
        )
        .unwrap();
        let read: Config = merge(&file, &args(&["--pg", "127.0.0.1:2"]))
            .extract()
            .unwrap();
        assert_eq!(read.pgwire.listen, "127.0.0.1:2");
        assert!(!read.databases.auto_create);
        std::fs::write(&file, "[databases]\nauto_crate = false").unwrap();
        let error = merge(&file, &args(&[]))
            .extract::<Config>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("auto_crate") && error.contains("dormouse.toml"),
            "{error}"
        );
    }
}
