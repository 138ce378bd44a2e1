//! Every setting: its name, and what it is for. The configuration file, the environment and
//! `dormouse config` all go by this table.

mod access;
mod bindings;
mod live;
mod workers;

use access::ACCESS;
use bindings::BINDINGS;
use figment::value::{Num, Value};
use workers::WORKERS;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// `section.name`, or `name` at the top of the file.
    key: &'static str,
    /// A variable with a name of its own; every setting in a section also has
    /// `DORMOUSE_SECTION__NAME`.
    variable: Option<&'static str>,
    /// What the value is.
    kind: Kind,
    /// What it is for.
    about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
    /// Texts; in a variable with commas between them.
    List,
    /// From 0 to 1.
    Fraction,
    /// Text that is not shown.
    Secret,
}

/// In the order of the file.
const SETTINGS: &[Setting] = &[
    Setting::text(
        "data",
        "DORMOUSE_DATA",
        "The data directory; made if it is not there. One process at a time has it open.\n\
         Flag: --data",
    ),
    Setting::text(
        "cache",
        "DORMOUSE_CACHE",
        "What can be made anew: compiled code and templates. Data directories share it.\n\
         Default: ${XDG_CACHE_HOME:-$HOME/.cache}/dormouse",
    ),
    Setting::text(
        "log.filter",
        "DORMOUSE_LOG",
        "What is logged to standard error: error, warn, info, debug or trace, or a filter as in\n\
         RUST_LOG, which counts where neither the flag nor DORMOUSE_LOG is given. Flag: --log",
    ),
    Setting::text(
        "log.format",
        "DORMOUSE_LOG__FORMAT",
        "How its lines are written: \"text\", for people; \"json\", an object a line.",
    ),
    Setting::number(
        "log.slow_query_ms",
        "Messages with statements that take as long are logged, with the statement's text but without\n\
         any value in it: docs/observability.md. 0: none are.",
    ),
    Setting::switch(
        "log.slow_query_plan",
        "With the plan of the statement, which is planned again for that before the answer leaves.",
    ),
    Setting::number(
        "log.query_bytes_max",
        "Bytes of a statement's text in the log and in traces. What is longer is cut.",
    ),
    Setting::text(
        "telemetry.otlp_endpoint",
        "DORMOUSE_TELEMETRY__OTLP_ENDPOINT",
        "The collector that gets traces and metrics, by OTLP over HTTP: http://127.0.0.1:4318. Empty:\n\
         nothing is sent. Also OTEL_EXPORTER_OTLP_ENDPOINT.",
    ),
    Setting::secret(
        "telemetry.otlp_headers",
        "DORMOUSE_TELEMETRY__OTLP_HEADERS",
        "Headers for it, such as \"authorization=Bearer%20...\", with commas between. Not shown, and not\n\
         logged. Also OTEL_EXPORTER_OTLP_HEADERS.",
    ),
    Setting::text(
        "telemetry.service_name",
        "DORMOUSE_TELEMETRY__SERVICE_NAME",
        "What we are called there. Also OTEL_SERVICE_NAME.",
    ),
    Setting::text(
        "telemetry.environment",
        "DORMOUSE_TELEMETRY__ENVIRONMENT",
        "Where we run: production, staging.",
    ),
    Setting::text(
        "telemetry.resource_attributes",
        "DORMOUSE_TELEMETRY__RESOURCE_ATTRIBUTES",
        "What else is said of us: \"region=eu,team=data\". Also OTEL_RESOURCE_ATTRIBUTES.",
    ),
    Setting::fraction(
        "telemetry.sample_ratio",
        "The share of requests that is recorded, from 0 to 1, where no caller says whether. Also\n\
         OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.",
    ),
    Setting::switch(
        "telemetry.query_text",
        "Traces have the text of statements, without any value in it.",
    ),
    Setting::number(
        "telemetry.metrics_interval_ms",
        "How often metrics are sent. 0: never. Also OTEL_METRIC_EXPORT_INTERVAL.",
    ),
    Setting::number(
        "telemetry.metrics_databases_max",
        "Databases with metrics of their own, also at /metrics; all others are told as one.",
    ),
    Setting::number(
        "telemetry.figures_databases_max",
        "Databases whose figures are kept while they sleep, some 200 bytes each. Past it those of the\n\
         ones that were used before the others are only kept in the sum.",
    ),
    Setting::number(
        "server.drain_ms_max",
        "How long a stop waits for running statements before it cancels them.",
    ),
    Setting::switch(
        "server.insecure_listen",
        "Listen where other machines can reach us though nobody is asked who they are, or TLS is not\n\
         required: whoever reaches a port may read and change every database.",
    ),
    Setting::text(
        "tls.certificate",
        "DORMOUSE_TLS__CERTIFICATE",
        "The certificate to show, and those between it and the authority: a file in PEM. This one,\n\
         the key and the authorities are read again on SIGHUP, and when they change.",
    ),
    Setting::text(
        "tls.key",
        "DORMOUSE_TLS__KEY",
        "The certificate's private key: a file in PEM.",
    ),
    Setting::text(
        "tls.client_ca",
        "DORMOUSE_TLS__CLIENT_CA",
        "The authorities of clients' certificates: a file in PEM. With it a client must show one.",
    ),
    Setting::text(
        "pgwire.listen",
        "DORMOUSE_PG",
        "Where PostgreSQL's protocol is spoken; port 0 takes a free one. Flag: --pg",
    ),
    Setting::text(
        "pgwire.tls",
        "DORMOUSE_PGWIRE__TLS",
        "Whether it is spoken over TLS: \"off\"; \"allow\", as the client wishes, if there is a\n\
         certificate; \"require\", and who comes without is sent away.",
    ),
    Setting::number(
        "pgwire.connections_max",
        "Sessions at once. Past it a connection fails with 53300.",
    ),
    Setting::number(
        "pgwire.message_bytes_max",
        "The largest message of a client. Past it the connection ends with 54000.",
    ),
    Setting::number(
        "pgwire.startup_timeout_ms",
        "How long a client may take to say which database it wants, a TLS handshake included.",
    ),
    Setting::text(
        "http.listen",
        "DORMOUSE_HTTP",
        "Where HTTP is spoken; port 0 takes a free one. Flag: --http",
    ),
    Setting::string(
        "http.tls",
        "Whether it is spoken over TLS: \"off\"; \"require\", with the certificate of [tls], HTTP/2 and\n\
         HTTP/1.1.",
    ),
    Setting::list(
        "http.proxies",
        "Addresses of proxies that are believed where a request to an app came from (X-Forwarded-For,\n\
         -Host and -Proto): \"127.0.0.0/8\", \"192.0.2.7\". What others say of that is taken out.",
    ),
    Setting::number(
        "http.connections_max",
        "Connections at once. Past it the answer is 503.",
    ),
    Setting::number(
        "http.header_timeout_ms",
        "How long a connection may be without a whole head of a request, quiet time included.",
    ),
    Setting::number(
        "http.body_bytes_max",
        "The largest body of a request. Past it the answer is 413.",
    ),
    Setting::number(
        "http.bodies_bytes_max",
        "Bytes of the bodies of all requests under way: those that still come, and those that are\n\
         worked on. Past it the answer is 503. At least http.body_bytes_max.",
    ),
    Setting::number(
        "http.body_timeout_ms",
        "How long a client may take to send it. Past it the answer is 408.",
    ),
    Setting::number(
        "http.request_timeout_ms",
        "How long a statement may take, the wait for its turn included. Past it it is cancelled,\n\
         and the answer is 504.",
    ),
    Setting::number(
        "http.result_bytes_max",
        "The largest document of a result. Past it the answer is 413.",
    ),
    Setting::number(
        "http.liveness_timeout_ms",
        "How long a database may take to answer GET liveness, its wake included. Past it the answer\n\
         is 503.",
    ),
    Setting::number(
        "http.statements_max",
        "Statements of one batch or transaction. Past it the answer is 413.",
    ),
    Setting::number(
        "http.transactions_max",
        "Interactive transactions open at once. Past it the answer is 503.",
    ),
    Setting::number(
        "http.token_transactions_max",
        "Those of one token, or user. Past it the answer is 503. 0: no limit of its own.",
    ),
    Setting::number(
        "http.database_transactions_max",
        "Those in one database. Past it the answer is 503. 0: no limit of its own.",
    ),
    Setting::number(
        "http.transaction_idle_ms_max",
        "How long an interactive transaction waits for its next request. Past it it is rolled back.",
    ),
    Setting::number(
        "http.idempotency_hours",
        "How long the answer to a request with an Idempotency-Key is kept, in its database.",
    ),
    Setting::number(
        "http.result_cache_entries_max",
        "Answers that are kept in memory and given again while nothing that they depend on has\n\
         changed. Past it the one not asked for the longest goes. 0: none are kept.",
    ),
    Setting::number(
        "http.result_cache_bytes_max",
        "Bytes of these answers. One that is larger than a quarter of it is not kept.",
    ),
    Setting::number("http.result_cache_ttl_ms", "How long one is kept at most."),
    Setting::text(
        "routing.header",
        "DORMOUSE_ROUTING__HEADER",
        "A header that names the database of a request, where its path does not. \"\": none does.",
    ),
    Setting::text(
        "routing.base_domain",
        "DORMOUSE_ROUTING__BASE_DOMAIN",
        "With \"example.com\" requests to shop.example.com are for the database shop, where neither\n\
         path nor header names one. \"\": the host names none.",
    ),
    Setting::switch(
        "routing.token",
        "A token that is for one database names it, where nothing else does.",
    ),
    Setting::list(
        "routing.blocked_names",
        "Names that are no tenants: queries to them are answered with 403.",
    ),
    Setting::number(
        "websocket.connections_max",
        "WebSockets at once, conversations that wait for their client included. Past it the answer\n\
         is 503.",
    ),
    Setting::number(
        "websocket.token_connections_max",
        "Those of one token, or user. Past it the answer is 503. 0: no limit of its own.",
    ),
    Setting::number(
        "websocket.database_connections_max",
        "Those with one database; of tunnels it is not known. Past it the answer is 503. 0: no limit\n\
         of its own.",
    ),
    Setting::text(
        "websocket.origins",
        "DORMOUSE_WEBSOCKET__ORIGINS",
        "The web pages that may open a WebSocket, by their origins, with spaces between them:\n\
         \"https://app.example http://localhost:3000\"; * for all. Programs need none.",
    ),
    Setting::number(
        "websocket.message_bytes_max",
        "The largest message of a client. Past it the socket is closed with 1009.",
    ),
    Setting::number(
        "websocket.requests_max",
        "Requests of one conversation that wait for their answer. Past it the socket is closed\n\
         with 1008.",
    ),
    Setting::number(
        "websocket.requests_bytes_max",
        "Bytes of such requests. Past it the socket is closed with 1008.",
    ),
    Setting::number(
        "websocket.answers_bytes_max",
        "Bytes of answers of one conversation that are kept until the client has them. Past it\n\
         statements wait until it has read some.",
    ),
    Setting::number(
        "websocket.state_bytes_max",
        "Bytes of settings and prepared statements of one conversation.",
    ),
    Setting::number(
        "websocket.transactions_max",
        "Transactions of one conversation at once.",
    ),
    Setting::number(
        "websocket.transaction_idle_ms_max",
        "How long a transaction of a conversation may wait for its next request.",
    ),
    Setting::number(
        "websocket.ping_ms",
        "How often a client is asked whether it is still there; if it says nothing until the next\n\
         time, it is not.",
    ),
    Setting::number(
        "websocket.resume_ms",
        "How long a conversation waits for a client that was cut off; 0 for not at all.",
    ),
    Setting::switch(
        "databases.auto_create",
        "Make a database when it is first asked for.",
    ),
    Setting::number(
        "databases.idle_ms",
        "How long a database without a session stays awake.",
    ),
    Setting::number(
        "databases.awake_max",
        "Databases awake at once. Past it the one that has been quiet for the longest time goes to\n\
         sleep early; if none is quiet, a wake waits.",
    ),
    Setting::number(
        "databases.wakes_max",
        "Databases that wake at the same moment; others wait in the order they came. 0: as many as\n\
         there are processors.",
    ),
    Setting::number(
        "databases.spares_max",
        "Backends kept ready for databases that wake, some 3 MiB of memory each.",
    ),
    Setting::number(
        "databases.processes_shared",
        "Processes of one database that its sessions take turns at, 3 to 8 MiB of memory each. More\n\
         are made when none of them is given back for 10 ms. At most databases.processes_max.",
    ),
    Setting::number(
        "databases.processes_max",
        "Most processes of one database, and so most transactions that are open at once. Past it\n\
         sessions wait. From 1 to 100.",
    ),
    Setting::number(
        "databases.wake_wait_ms_max",
        "How long a database waits for its turn to wake. Past it the connection fails with 53300, or\n\
         with 53200 where memory is what is missing.",
    ),
    Setting::number(
        "databases.wake_ms_max",
        "How long a database may take to start, crash recovery included. Past it the connection\n\
         fails with 57P03.",
    ),
    Setting::number(
        "node.memory_bytes_max",
        "Private memory of the process. Past it quiet databases go to sleep early, and none wakes\n\
         until there is room. 0: three quarters of what the machine or the control group has.",
    ),
    Setting::number(
        "directory.cache_bytes_max",
        "Memory that caches the directory of databases.",
    ),
    Setting::number(
        "etags.databases_max",
        "Databases of which is known which commit has changed each table last, asleep or not, some\n\
         10 to 300 KiB each. Past it that of the one not asked for the longest is forgotten, which\n\
         only costs work. 0: no query has an ETag.",
    ),
    Setting::number(
        "etags.queries_max",
        "Statements, in all databases, of which is known what they depend on, some 300 bytes each.\n\
         Past it those not asked for the longest are forgotten. 0: no query has an ETag.",
    ),
    Setting::number(
        "images.bytes_max",
        "Hibernation images on disk. Past it those of the databases that have slept for the longest\n\
         time go, and these boot when they wake. 0: none are made.",
    ),
    Setting::switch(
        "maintenance.enabled",
        "Vacuum, analyze and freeze quiet databases, by the rules and settings of autovacuum. One\n\
         database can have it otherwise: dormouse db set.",
    ),
    Setting::number(
        "maintenance.checkpoint_wal_bytes",
        "WAL since the last checkpoint of a database, past which one is made as soon as no statement\n\
         runs.",
    ),
    Setting::number(
        "maintenance.freeze_age",
        "Transactions since the oldest one that is not frozen, past which a database is frozen.",
    ),
    Setting::number(
        "maintenance.statement_ms_max",
        "How long one statement of the host's maintenance may take. Past it its table is left until\n\
         something has changed again.",
    ),
    Setting::number(
        "sessions.wait_ms_max",
        "How long a statement waits while other sessions have all processes of its database. Past it\n\
         it fails with 53300.",
    ),
    Setting::number(
        "sessions.idle_holder_ms_max",
        "How long an idle session may keep a process of its database (in a transaction, or by\n\
         temporary tables, session locks, LISTEN, cursors WITH HOLD) while others wait. Past it it\n\
         ends with 25P03.",
    ),
    Setting::number(
        "backend.memory_bytes_max",
        "Memory of one backend, 128 MiB that Postgres reserves included. Past it a statement\n\
         fails with 53200.",
    ),
    Setting::number(
        "volume.bytes_max",
        "What one database stores beyond its template. Past it a statement fails with 53100.",
    ),
    Setting::number(
        "volume.dirty_bytes_max",
        "Pages of one database that are written and in no durable version yet. Past it a version is\n\
         written in the background.",
    ),
    Setting::number(
        "volume.wal_bytes_max",
        "WAL since the last checkpoint of one database. Past it the statement that writes, and keeps\n\
         a checkpoint from being made, fails with 53100.",
    ),
    Setting::number(
        "disk.reserve_bytes",
        "Free bytes of the disk below which no database may grow: statements that write fail with\n\
         53100, so that what was committed can still be kept.",
    ),
    Setting::text(
        "durability.level",
        "DORMOUSE_DURABILITY__LEVEL",
        "What an acknowledged commit has reached: \"local\", this node's disk; \"relaxed\", this process,\n\
         and the disk within flush_interval_ms or flush_entries_max.",
    ),
    Setting::number(
        "durability.flush_interval_ms",
        "The longest time between a commit and its flush to disk, with level \"relaxed\".",
    ),
    Setting::number(
        "durability.flush_entries_max",
        "The most commits of all databases that wait for their flush, with level \"relaxed\".",
    ),
    Setting::number(
        "journal.bytes_max",
        "Length of the journal past which the database that holds its oldest entry is flushed.",
    ),
];

/// What a variable of the environment is for.
///
/// Variables without a section's `__` that are none of ours may be anybody's: a cluster in which a
/// service is called dormouse sets `DORMOUSE_PORT`.
pub(crate) enum Variable {
    /// This setting, with this value.
    Setting(&'static str, Value),
    /// Made like one of ours, but there is no such setting.
    Unknown,
    /// Not ours.
    Other,
}

/// Every setting, in the order of the file.
fn all() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(ACCESS).chain(BINDINGS).chain(WORKERS)
}

/// The names of all settings, in the order of the file.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    all().map(|setting| setting.key)
}

/// Whether a setting holds as soon as the configuration is read again.
pub(crate) fn is_live(key: &str) -> bool {
    live::is_live(key)
}

/// A value as it is written in the file.
pub(crate) fn written(value: &Value) -> String {
    toml(value)
}

/// Reads a variable of the environment.
pub(crate) fn variable(name: &str, value: &str) -> Variable {
    let Some(rest) = name.strip_prefix("DORMOUSE_") else {
        return Variable::Other;
    };
    let in_section = rest.contains("__");
    let key = rest.to_ascii_lowercase().replace("__", ".");
    let found =
        all().find(|setting| setting.variable == Some(name) || (in_section && setting.key == key));
    match found {
        Some(setting) => Variable::Setting(setting.key, setting.parse(value)),
        None if in_section => Variable::Unknown,
        None => Variable::Other,
    }
}

/// The whole file. `lookup` gives a setting's value, and where it comes from if it is no default.
pub(crate) fn render(lookup: impl Fn(&str) -> (Option<Value>, Option<String>)) -> String {
    let mut out = String::new();
    let mut section = "";
    for setting in all() {
        if !out.is_empty() {
            out.push('\n');
        }
        if let Some((this, _)) = setting.key.rsplit_once('.')
            && this != section
        {
            section = this;
            out.push_str(&format!("[{section}]\n"));
        }
        let (value, source) = lookup(setting.key);
        out.push_str(&setting.render(value.as_ref(), source.as_deref()));
    }
    out
}

impl Setting {
    const fn text(key: &'static str, variable: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: Some(variable),
            kind: Kind::Text,
            about,
        }
    }

    /// A text whose variable has no name of its own.
    const fn string(key: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: None,
            kind: Kind::Text,
            about,
        }
    }

    const fn number(key: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: None,
            kind: Kind::Number,
            about,
        }
    }

    const fn fraction(key: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: None,
            kind: Kind::Fraction,
            about,
        }
    }

    const fn secret(key: &'static str, variable: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: Some(variable),
            kind: Kind::Secret,
            about,
        }
    }

    const fn switch(key: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: None,
            kind: Kind::Switch,
            about,
        }
    }

    const fn list(key: &'static str, about: &'static str) -> Self {
        Self {
            key,
            variable: None,
            kind: Kind::List,
            about,
        }
    }

    /// The value of a variable. What is no number and no switch stays text, and is refused later
    /// with the name of the variable.
    fn parse(&self, value: &str) -> Value {
        let text = || Value::from(value);
        match self.kind {
            Kind::Text | Kind::Secret => text(),
            Kind::Fraction => value.parse::<f64>().map_or_else(|_| text(), Value::from),
            Kind::Number => value.parse::<u64>().map_or_else(|_| text(), Value::from),
            Kind::Switch => value.parse::<bool>().map_or_else(|_| text(), Value::from),
            Kind::List => {
                let texts = value.split(',').map(str::trim);
                let texts = texts.filter(|text| !text.is_empty());
                Value::from(texts.collect::<Vec<_>>())
            }
        }
    }

    /// The setting in the file, with comments.
    fn render(&self, value: Option<&Value>, source: Option<&str>) -> String {
        let variable = self.variable.map_or_else(
            || {
                let key = self.key.replace('.', "__");
                format!("DORMOUSE_{}", key.to_ascii_uppercase())
            },
            str::to_owned,
        );
        let when = match is_live(self.key) {
            true => "live",
            false => "restart",
        };
        let mut about = format!("{}\nVariable: {variable} ({when})", self.about);
        if let Some(source) = source {
            about.push_str(&format!("\nSet by {source}"));
        }
        let about: String = about.lines().map(|line| format!("# {line}\n")).collect();
        let name = self.key.rsplit('.').next().unwrap_or(self.key);
        match value {
            Some(_) if self.kind == Kind::Secret => format!("{about}# {name} = \"\"\n"),
            Some(value) => format!("{about}{name} = {}\n", toml(value)),
            None => format!("{about}# {name} = \"\"\n"),
        }
    }
}

fn toml(value: &Value) -> String {
    if let Some(texts) = value.as_array() {
        let texts: Vec<String> = texts.iter().map(toml).collect();
        return format!("[{}]", texts.join(", "));
    }
    if let Some(number) = value.to_f64() {
        // With a point, also where nothing is behind it.
        return format!("{number:?}");
    }
    // What is read from a file has a sign.
    let number = value.to_num().and_then(Num::to_u128_lossy);
    match (value.as_str(), value.to_bool(), number) {
        (Some(text), ..) => quoted(text),
        (_, Some(switch), _) => switch.to_string(),
        (.., Some(number)) => grouped(&number.to_string()),
        _ => "\"\"".to_owned(),
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `67_108_864`
fn grouped(digits: &str) -> String {
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups = groups.map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_find_their_settings() {
        let key = |name| match variable(name, "1") {
            Variable::Setting(key, _) => Some(key),
            _ => None,
        };
        assert_eq!(key("DORMOUSE_PG"), Some("pgwire.listen"));
        assert_eq!(
            key("DORMOUSE_PGWIRE__CONNECTIONS_MAX"),
            Some("pgwire.connections_max")
        );
        assert_eq!(key("DORMOUSE_HTTP__LISTEN"), Some("http.listen"));
        assert_eq!(key("DORMOUSE_AUTH__JWT__ISSUER"), Some("auth.jwt.issuer"));
        let unknown = variable("DORMOUSE_HTTP__PORT", "");
        assert!(matches!(unknown, Variable::Unknown));
        for other in ["DORMOUSE_PORT", "HOME"] {
            assert!(matches!(variable(other, ""), Variable::Other));
        }
    }

    #[test]
    fn values_are_toml() {
        assert_eq!(toml(&Value::from("a\"b\\\n")), "\"a\\\"b\\\\\\u000A\"");
        assert_eq!(toml(&Value::from(67_108_864_u64)), "67_108_864");
        assert_eq!(toml(&Value::from(100_u64)), "100");
        assert_eq!(toml(&Value::from(600_000_i64)), "600_000");
        assert_eq!(toml(&Value::from(true)), "true");
        assert_eq!(toml(&Value::from(vec!["a", "b"])), "[\"a\", \"b\"]");
    }
}
