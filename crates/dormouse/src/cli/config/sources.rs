//! Where values come from: flags over variables of the environment over the file over defaults.

use std::env;
use std::path::{Path, PathBuf};

use dormouse::default_cache_directory;
use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use server::ReloadDocument;

use super::{Config, opentelemetry};
use crate::cli::args::ServeArgs;
use crate::cli::failure::Failure;
use crate::cli::settings::{self, Variable};

/// The file that is read if it is there and no other is named.
const FILE: &str = "dormouse.toml";

/// Where a value comes from that nobody has set.
const DEFAULTS: &str = "the defaults";

/// The configuration, and where each value comes from.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    figment: Figment,
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

    /// What it becomes when the configuration is like `new`, and what of that changes: live settings are taken over, all
    /// others stay as they are.
    pub(crate) fn become_like(&self, new: &Self) -> Result<(Self, ReloadDocument), Failure> {
        let mut changes = ReloadDocument::default();
        let mut figment = new.figment.clone();
        for key in settings::keys() {
            let value = |figment: &Figment| {
                let value = figment.find_value(key).ok();
                value.filter(|value| !is_nothing(value))
            };
            let (before, after) = (value(&self.figment), value(&new.figment));
            if before.as_ref().map(settings::written) == after.as_ref().map(settings::written) {
                continue;
            }
            if settings::is_live(key) {
                changes.applied.push(key.to_owned());
                continue;
            }
            changes.need_restart.push(key.to_owned());
            let source = self.figment.find_metadata(key).map(describe);
            figment = figment.merge(Named {
                name: source.unwrap_or_else(|| DEFAULTS.to_owned()),
                values: Serialized::default(key, before),
            });
        }
        let config = figment.extract().map_err(|error| refused(&error))?;
        Ok((Self { config, figment }, changes))
    }

    /// What is logged. `RUST_LOG` stands between our own variable and the file.
    pub(crate) fn log_filter(&self) -> String {
        let source = self.figment.find_metadata("log.filter");
        let own = source.is_some_and(|source| matches!(&*source.name, "--log" | "DORMOUSE_LOG"));
        let common = env::var("RUST_LOG").ok();
        match common.filter(|filter| !own && !filter.is_empty()) {
            Some(filter) => filter,
            None => self.config.log.filter.clone(),
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
    let variables: Vec<_> = variables.collect();
    for (name, key, value) in opentelemetry::settings(&variables)? {
        let values = Serialized::default(key, value);
        figment = figment.merge(Named { name, values });
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
        ("--log", "log.filter", &args.log),
    ];
    for (name, key, value) in flags {
        if let Some(value) = value {
            let name = name.to_owned();
            let values = Serialized::default(key, Value::from(value.as_str()));
            figment = figment.merge(Named { name, values });
        }
    }
    let config: Config = figment.extract().map_err(|error| refused(&error))?;
    let ratio = config.telemetry.sample_ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(Failure::Usage(format!(
            "telemetry.sample_ratio is {ratio}: it must be from 0 to 1"
        )));
    }
    let processes = config.databases.processes_max;
    if !(1..=database::PROCESSES_MAX).contains(&processes) {
        return Err(Failure::Usage(format!(
            "databases.processes_max is {processes}: it must be from 1 to {}",
            database::PROCESSES_MAX
        )));
    }
    config.http.check()?;
    config.bindings.check()?;
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
        let file = "[bindings]\nkeepalives_max = 0\n";
        refused(file, &[], &["bindings.keepalives_max", "1 to 127"]);
    }

    #[test]
    fn room_for_bodies_in_which_one_has_none_is_refused() {
        let file = "[http]\nbodies_bytes_max = 1000\n";
        let words = [
            "http.bodies_bytes_max = 1000",
            "http.body_bytes_max = 16777216",
        ];
        refused(file, &[], &words);
        let file = "[http]\nbody_bytes_max = 1000\nbodies_bytes_max = 1000\n";
        assert!(load(file, &[], None).is_ok());
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

    /// Another value than the default, as the file has it.
    fn another(key: &str, default: Option<&Value>) -> String {
        match key {
            "log.format" => return "\"json\"".to_owned(),
            "pgwire.tls" => return "\"off\"".to_owned(),
            "http.tls" => return "\"require\"".to_owned(),
            "auth.method" => return "\"scram\"".to_owned(),
            "durability.level" => return "\"relaxed\"".to_owned(),
            "auth.claims.database" => return "\"all\"".to_owned(),
            "http.proxies" => return "[\"192.0.2.0/24\"]".to_owned(),
            "http.cors.origins" => return "[\"https://b.example\"]".to_owned(),
            "http.bodies_bytes_max" => return "77_000_000".to_owned(),
            "bindings.keepalive_ms" | "bindings.keepalive_each_ms" => return "7_000".to_owned(),
            _ => {}
        }
        let Some(default) = default else {
            return "\"another\"".to_owned();
        };
        match settings::written(default) {
            text if text.starts_with('"') => "\"another\"".to_owned(),
            list if list.starts_with('[') => "[\"another\"]".to_owned(),
            switch if switch == "true" => "false".to_owned(),
            switch if switch == "false" => "true".to_owned(),
            fraction if fraction.contains('.') => "0.5".to_owned(),
            _number => "77".to_owned(),
        }
    }

    fn file_with(settings: &[(&str, &str)]) -> String {
        let line = |(key, value): &(&str, &str)| format!("{key} = {value}\n");
        settings.iter().map(line).collect()
    }

    /// What of a server that runs can be changed by this configuration.
    fn adjustable(loaded: &Loaded) -> String {
        let config = &loaded.config;
        let database = config.database_options();
        let database = (database.limits, database.observe, database.auto_create);
        let others = (
            config.database_options().durability,
            config.database_options().maintenance,
        );
        let server = config.adjustment().ok().unwrap();
        format!(
            "{database:?} {others:?} {server:?} {}",
            loaded.config.log.filter
        )
    }

    #[test]
    fn every_changed_setting_is_applied_or_named() {
        // Without an origin the rest of CORS counts for nothing.
        let origins = ("http.cors.origins", "[\"https://a.example\"]");
        let before = load(&file_with(&[origins]), &[], None).ok().unwrap();
        let mut live = 0;
        for key in settings::keys() {
            let value = another(
                key,
                before
                    .figment
                    .find_value(key)
                    .ok()
                    .filter(|value| !is_nothing(value))
                    .as_ref(),
            );
            let mut changed = vec![(key, &*value)];
            if key != origins.0 {
                changed.push(origins);
            }
            let new = load(&file_with(&changed), &[], None).ok().unwrap();
            assert_ne!(
                new.config, before.config,
                "{key} is not in the configuration"
            );
            let (next, changes) = before.become_like(&new).ok().unwrap();
            let both = [&changes.applied[..], &changes.need_restart].concat();
            assert_eq!(both, [key]);
            if settings::is_live(key) {
                live += 1;
                assert_eq!(changes.applied, [key]);
                assert_eq!(next.config, new.config);
                assert_ne!(
                    adjustable(&next),
                    adjustable(&before),
                    "{key} changes nothing"
                );
            } else {
                assert_eq!(next.config, before.config);
                // It is named until the server has it, and no more when it is as it was.
                let (still, changes) = next.become_like(&new).ok().unwrap();
                assert_eq!(changes.need_restart, [key]);
                let (_, changes) = still.become_like(&before).ok().unwrap();
                assert_eq!(changes, ReloadDocument::default());
            }
        }
        assert!(live > 50, "{live}");
    }

    #[test]
    fn every_setting_is_in_the_table() {
        fn walk(at: &str, value: &serde_json::Value, found: &mut Vec<String>) {
            match value.as_object() {
                Some(section) => {
                    for (name, value) in section {
                        let dot = if at.is_empty() { "" } else { "." };
                        walk(&format!("{at}{dot}{name}"), value, found);
                    }
                }
                None => found.push(at.to_owned()),
            }
        }
        let mut found = Vec::new();
        walk(
            "",
            &serde_json::to_value(Config::default()).unwrap(),
            &mut found,
        );
        found.sort_unstable();
        let mut keys: Vec<_> = settings::keys().collect();
        keys.sort_unstable();
        assert_eq!(found, keys);
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
