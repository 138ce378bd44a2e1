//! The configuration: flags over variables of the environment over the file over defaults.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use database::{Durability, Limits};
use dormouse::default_cache_directory;
use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};
use server::{Administrator, Auth, Tls, TlsFiles};
use zeroize::Zeroizing;

use super::args::ServeArgs;
use super::failure::Failure;
use super::settings::{self, Variable};

/// The file that is read if it is there and no other is named.
const FILE: &str = "dormouse.toml";

/// The variable for the administrator's password. It is no setting: those are printed.
const ADMIN_PASSWORD: &str = "DORMOUSE_ADMIN_PASSWORD";

/// Where a value comes from that nobody has set.
const DEFAULTS: &str = "the defaults";

/// The configuration, and where each value comes from.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    figment: Figment,
}

/// The configuration as it is in the file; [`settings`] says what each is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    data: PathBuf,
    cache: Option<PathBuf>,
    log: String,
    server: ServerSection,
    tls: TlsSection,
    auth: AuthSection,
    pgwire: PgwireSection,
    http: HttpSection,
    databases: DatabasesSection,
    node: NodeSection,
    directory: DirectorySection,
    images: ImagesSection,
    maintenance: MaintenanceSection,
    sessions: SessionsSection,
    durability: DurabilitySection,
    journal: JournalSection,
    backend: BackendSection,
    volume: VolumeSection,
    disk: DiskSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerSection {
    insecure_listen: bool,
    drain_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthSection {
    method: Method,
    admin_password_file: Option<PathBuf>,
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Trust,
    Scram,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PgwireTls {
    Off,
    Allow,
    Require,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PgwireSection {
    listen: String,
    tls: PgwireTls,
    message_bytes_max: usize,
    startup_timeout_ms: u64,
    connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSection {
    listen: String,
    body_bytes_max: usize,
    result_bytes_max: usize,
    request_timeout_ms: u64,
    header_timeout_ms: u64,
    connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabasesSection {
    auto_create: bool,
    idle_ms: u64,
    awake_max: usize,
    wakes_max: usize,
    spares_max: usize,
    processes_shared: usize,
    processes_max: usize,
    wake_wait_ms_max: u64,
    wake_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    memory_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectorySection {
    cache_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagesSection {
    bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceSection {
    enabled: bool,
    checkpoint_wal_bytes: u64,
    freeze_age: u32,
    statement_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsSection {
    wait_ms_max: u64,
    idle_holder_ms_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DurabilitySection {
    level: Durability,
    flush_interval_ms: u64,
    flush_entries_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalSection {
    bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendSection {
    memory_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeSection {
    bytes_max: u64,
    dirty_bytes_max: u64,
    wal_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskSection {
    reserve_bytes: u64,
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl Default for Config {
    fn default() -> Self {
        let server = server::Options::default();
        let limits = Limits::default();
        Self {
            data: PathBuf::from("./dormouse-data"),
            cache: None,
            log: "info".to_owned(),
            server: ServerSection {
                insecure_listen: server.insecure_listen,
                drain_ms_max: ms(server.drain_max),
            },
            tls: TlsSection {
                certificate: None,
                key: None,
                client_ca: None,
            },
            auth: AuthSection {
                method: Method::Trust,
                admin_password_file: None,
                timeout_ms: ms(server.pgwire.auth_timeout),
            },
            pgwire: PgwireSection {
                listen: server.pgwire.listen,
                tls: PgwireTls::Allow,
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
                awake_max: limits.awake_max,
                wakes_max: limits.wakes_max,
                spares_max: limits.spares_max,
                processes_shared: limits.processes_shared,
                processes_max: limits.processes_max,
                wake_wait_ms_max: ms(limits.wake_wait_max),
                wake_ms_max: ms(limits.wake_max),
            },
            node: NodeSection {
                memory_bytes_max: limits.node_memory_bytes_max,
            },
            directory: DirectorySection {
                cache_bytes_max: limits.directory_cache_bytes_max,
            },
            images: ImagesSection {
                bytes_max: limits.images_bytes_max,
            },
            maintenance: MaintenanceSection {
                enabled: true,
                checkpoint_wal_bytes: limits.checkpoint_wal_bytes,
                freeze_age: limits.freeze_age,
                statement_ms_max: ms(limits.upkeep_statement_max),
            },
            sessions: SessionsSection {
                wait_ms_max: ms(limits.session_wait_max),
                idle_holder_ms_max: ms(limits.idle_holder),
            },
            durability: DurabilitySection {
                level: Durability::default(),
                flush_interval_ms: ms(limits.flush_interval),
                flush_entries_max: limits.flush_entries_max,
            },
            journal: JournalSection {
                bytes_max: limits.journal_bytes_max,
            },
            backend: BackendSection {
                memory_bytes_max: limits.backend_memory_bytes_max,
            },
            volume: VolumeSection {
                bytes_max: limits.volume_bytes_max,
                dirty_bytes_max: limits.dirty_bytes_max,
                wal_bytes_max: limits.wal_bytes_max,
            },
            disk: DiskSection {
                reserve_bytes: limits.disk_reserve_bytes,
            },
        }
    }
}

impl Config {
    /// Reads the files that it names: certificates, and the administrator's password.
    pub(crate) fn server_options(&self) -> Result<server::Options, Failure> {
        let tls = self.tls()?;
        let auth = self.auth()?;
        Ok(server::Options {
            auth,
            tls,
            pgwire: server::PgwireOptions {
                listen: self.pgwire.listen.clone(),
                tls: match self.pgwire.tls {
                    PgwireTls::Off => server::TlsMode::Off,
                    PgwireTls::Allow => server::TlsMode::Allow,
                    PgwireTls::Require => server::TlsMode::Require,
                },
                auth_timeout: Duration::from_millis(self.auth.timeout_ms),
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
        })
    }

    fn tls(&self) -> Result<Option<Arc<Tls>>, Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        let (certificate, key) = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) if self.pgwire.tls == PgwireTls::Require => {
                return usage("pgwire.tls = \"require\" needs tls.certificate and tls.key");
            }
            (None, None) if self.tls.client_ca.is_some() => {
                return usage("tls.client_ca needs tls.certificate and tls.key");
            }
            (None, None) => return Ok(None),
            (Some(_), None) => return usage("tls.certificate needs tls.key"),
            (None, Some(_)) => return usage("tls.key needs tls.certificate"),
        };
        let files = TlsFiles {
            certificate,
            key,
            client_ca: self.tls.client_ca.clone(),
        };
        let tls = Tls::load(files).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(Arc::new(tls)))
    }

    fn auth(&self) -> Result<Auth, Failure> {
        if self.auth.method == Method::Trust {
            return Ok(Auth::Trust);
        }
        let given = env::var(ADMIN_PASSWORD).ok().map(Zeroizing::new);
        let administrator = match (given, &self.auth.admin_password_file) {
            (Some(secret), _) => Administrator::from_secret(&secret),
            (None, Some(path)) => Administrator::from_file(path),
            (None, None) => {
                return Err(Failure::Usage(format!(
                    "auth.method = \"scram\" needs the administrator's password: \
                     auth.admin_password_file, or the variable {ADMIN_PASSWORD}; `dormouse password` \
                     makes what belongs there"
                )));
            }
        };
        let administrator = administrator.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Auth::Scram(Arc::new(administrator)))
    }

    pub(crate) fn database_options(&self) -> database::Options {
        let cache = self.cache.clone().unwrap_or_else(default_cache_directory);
        database::Options {
            auto_create: self.databases.auto_create,
            durability: self.durability.level,
            maintenance: self.maintenance.enabled,
            limits: Limits {
                backend_memory_bytes_max: self.backend.memory_bytes_max,
                volume_bytes_max: self.volume.bytes_max,
                session_wait_max: Duration::from_millis(self.sessions.wait_ms_max),
                idle_holder: Duration::from_millis(self.sessions.idle_holder_ms_max),
                flush_interval: Duration::from_millis(self.durability.flush_interval_ms),
                flush_entries_max: self.durability.flush_entries_max,
                dirty_bytes_max: self.volume.dirty_bytes_max,
                journal_bytes_max: self.journal.bytes_max,
                idle: Duration::from_millis(self.databases.idle_ms),
                awake_max: self.databases.awake_max,
                wakes_max: self.databases.wakes_max,
                spares_max: self.databases.spares_max,
                processes_shared: self.databases.processes_shared,
                processes_max: self.databases.processes_max,
                wake_wait_max: Duration::from_millis(self.databases.wake_wait_ms_max),
                wake_max: Duration::from_millis(self.databases.wake_ms_max),
                upkeep_statement_max: Duration::from_millis(self.maintenance.statement_ms_max),
                node_memory_bytes_max: self.node.memory_bytes_max,
                images_bytes_max: self.images.bytes_max,
                checkpoint_wal_bytes: self.maintenance.checkpoint_wal_bytes,
                wal_bytes_max: self.volume.wal_bytes_max,
                directory_cache_bytes_max: self.directory.cache_bytes_max,
                disk_reserve_bytes: self.disk.reserve_bytes,
                freeze_age: self.maintenance.freeze_age,
            },
            progress: super::progress::progress(),
            ..database::Options::new(&self.data, cache)
        }
    }
}

impl Loaded {
    /// The configuration as a file that says it again.
    pub(crate) fn to_toml(&self) -> String {
        settings::render(|key| {
            let value = self.figment.find_value(key).ok();
            let value = value.filter(|value| !is_nothing(value)).or_else(|| {
                let cache = default_cache_directory();
                (key == "cache").then(|| Value::from(cache.to_string_lossy().into_owned()))
            });
            let source = self.figment.find_metadata(key);
            let source = source.filter(|source| source.name != DEFAULTS);
            (value, source.map(describe))
        })
    }

    /// What is logged. `RUST_LOG` stands between our own variable and the file.
    pub(crate) fn log_filter(&self) -> String {
        let source = self.figment.find_metadata("log");
        let own = source.is_some_and(|source| matches!(&*source.name, "--log" | "DORMOUSE_LOG"));
        let common = env::var("RUST_LOG").ok();
        match common.filter(|filter| !own && !filter.is_empty()) {
            Some(filter) => filter,
            None => self.config.log.clone(),
        }
    }
}

/// Reads everything.
pub(crate) fn load(args: &ServeArgs) -> Result<Loaded, Failure> {
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(args, variables)
}

fn load_from(
    args: &ServeArgs,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Failure> {
    let mut figment = Figment::from(Named {
        name: DEFAULTS.to_owned(),
        values: Serialized::defaults(Config::default()),
    });
    if let Some(file) = file(args.config.as_deref())? {
        figment = figment.merge(Toml::file_exact(file));
    }
    for (name, value) in variables {
        match settings::variable(&name, &value) {
            Variable::Setting(key, value) => {
                let values = Serialized::default(key, value);
                figment = figment.merge(Named { name, values });
            }
            Variable::Unknown => {
                return Err(Failure::Usage(format!(
                    "the variable {name} is set, but there is no such setting; `dormouse config` \
                     prints all with their variables"
                )));
            }
            Variable::Other => {}
        }
    }
    let flags = [
        ("--data", "data", &args.data),
        ("--pg", "pgwire.listen", &args.pg),
        ("--http", "http.listen", &args.http),
        ("--log", "log", &args.log),
    ];
    for (name, key, value) in flags {
        if let Some(value) = value {
            let name = name.to_owned();
            let values = Serialized::default(key, Value::from(value.as_str()));
            figment = figment.merge(Named { name, values });
        }
    }
    let config: Config = figment.extract().map_err(|error| refused(&error))?;
    let processes = config.databases.processes_max;
    if !(1..=database::PROCESSES_MAX).contains(&processes) {
        return Err(Failure::Usage(format!(
            "databases.processes_max is {processes}: it must be from 1 to {}",
            database::PROCESSES_MAX
        )));
    }
    Ok(Loaded { config, figment })
}

/// The file to read, if any.
fn file(named: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let path = named.unwrap_or_else(|| Path::new(FILE));
    if path.exists() {
        return Ok(Some(path.to_owned()));
    }
    match named {
        None => Ok(None),
        Some(path) => Err(Failure::Usage(format!(
            "the configuration file {} is not there",
            path.display()
        ))),
    }
}

/// Values under the name of where they come from, for errors.
struct Named<T> {
    name: String,
    values: T,
}

impl<T: Provider> Provider for Named<T> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.values.data()
    }
}

fn refused(error: &figment::Error) -> Failure {
    let source = error.metadata.as_ref().map(describe);
    let source = source.unwrap_or_else(|| "the configuration".to_owned());
    let path = error.path.join(".");
    Failure::Usage(match &error.kind {
        Kind::UnknownField(field, known) => {
            let section = path.strip_suffix(field).unwrap_or(&path);
            let section = section.trim_end_matches('.');
            let dot = if section.is_empty() { "" } else { "." };
            let known = known.join(", ");
            format!("{source}: there is no setting {section}{dot}{field}; there are: {known}")
        }
        kind if path.is_empty() => format!("{source}: {kind}"),
        kind => format!("{source}: {path}: {kind}"),
    })
}

/// Where a value comes from, for people.
fn describe(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ => metadata.name.to_string(),
    }
}

fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Empty(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Path) -> ServeArgs {
        ServeArgs {
            data: None,
            pg: None,
            http: None,
            log: None,
            config: Some(config.to_owned()),
        }
    }

    fn load(file: &str, variables: &[(&str, &str)], pg: Option<&str>) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.toml");
        std::fs::write(&path, file).unwrap();
        let args = ServeArgs {
            pg: pg.map(str::to_owned),
            ..args(&path)
        };
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_from(&args, variables).map_err(|failure| match failure {
            Failure::Usage(message) => message,
            other => panic!("{other:?}"),
        })
    }

    #[track_caller]
    fn refused(file: &str, variables: &[(&str, &str)], words: &[&str]) {
        let error = load(file, variables, None).err().unwrap();
        for word in words {
            assert!(error.contains(word), "no {word} in: {error}");
        }
    }

    #[test]
    fn processes_that_a_database_cannot_have_are_refused() {
        for given in ["0", "101"] {
            let file = format!("[databases]\nprocesses_max = {given}\n");
            refused(&file, &[], &["databases.processes_max", given, "1 to 100"]);
        }
        assert!(load("[databases]\nprocesses_max = 100\n", &[], None).is_ok());
    }

    #[test]
    fn flags_over_variables_over_the_file_over_defaults() {
        let file = "[pgwire]\nlisten = \"a\"\nconnections_max = 7\n[http]\nlisten = \"a\"\n";
        let variables = [
            ("DORMOUSE_PG", "b"),
            ("DORMOUSE_HTTP", "b"),
            ("DORMOUSE_DATABASES__AUTO_CREATE", "false"),
            ("DORMOUSE_DATA", "123"),
            ("DORMOUSE_PORT_7432_TCP", "tcp://10.0.0.1:7432"),
        ];
        let config = load(file, &variables, Some("c")).ok().unwrap().config;
        assert_eq!(config.pgwire.listen, "c");
        assert_eq!(config.http.listen, "b");
        assert_eq!(config.pgwire.connections_max, 7);
        assert!(!config.databases.auto_create);
        assert_eq!(config.data, Path::new("123"));
        assert_eq!(config.http.body_bytes_max, 16 << 20);
    }

    #[test]
    fn unknown_settings_are_named_with_their_source() {
        refused(
            "[http]\nport = 1",
            &[],
            &["test.toml", "http.port", "listen"],
        );
        refused("colour = 1", &[], &["test.toml", "no setting colour"]);
        refused(
            "",
            &[("DORMOUSE_HTTP__PORT", "1")],
            &["DORMOUSE_HTTP__PORT"],
        );
    }

    #[test]
    fn wrong_values_are_named_with_their_source() {
        let variables = [("DORMOUSE_PGWIRE__CONNECTIONS_MAX", "many")];
        let words = ["DORMOUSE_PGWIRE__CONNECTIONS_MAX", "pgwire.connections_max"];
        refused("", &variables, &words);
        let file = "[server]\ndrain_ms_max = -1\n";
        refused(file, &[], &["test.toml", "server.drain_ms_max"]);
        refused("[server\n", &[], &["test.toml"]);
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let failure = load_from(&args(Path::new("/none.toml")), std::iter::empty());
        assert!(matches!(failure, Err(Failure::Usage(text)) if text.contains("/none.toml")));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let variables = [("DORMOUSE_HTTP", "localhost:1"), ("DORMOUSE_CACHE", "/c")];
        let first = load("", &variables, None).ok().unwrap();
        let printed = first.to_toml();
        assert!(
            printed.contains("# Set by DORMOUSE_HTTP\nlisten = \"localhost:1\""),
            "{printed}"
        );
        let again = load(&printed, &[], None).ok().unwrap();
        assert_eq!(again.config, first.config);
    }

    #[test]
    fn the_documentation_shows_the_defaults() {
        let figment = load("", &[], None).ok().unwrap().figment;
        let defaults = settings::render(|key| {
            let value = figment.find_value(key).ok();
            (value.filter(|value| !is_nothing(value)), None)
        });
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(
            document.contains(&defaults),
            "docs/configuration.md does not contain:\n{defaults}"
        );
    }
}
