//! What can be typed.

mod apps;

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use wire::DatabaseName;
use zeroize::Zeroizing;

use super::bindings::BindingArgs;
use super::failure::Failure;

pub(crate) use apps::{AppArgs, AppsArgs, DeployArgs, DevArgs, LogsArgs, RollbackArgs, SourceArgs};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the request failed: PostgreSQL's error, or the name is taken, or not there
  2  the command line or the configuration is wrong
  3  the server cannot be reached, an address not listened on, the data not opened
";

const EXAMPLES: &str = "\
Examples:
  dormouse serve
  psql -h 127.0.0.1 -p 7432 -U postgres shop
  dormouse sql shop \"select * from fruit where price < $1\" --param 2
  dormouse db fork shop shop-try
";

const SERVE_EXAMPLES: &str = "\
Examples:
  dormouse serve
  dormouse serve --data /var/lib/dormouse --pg 127.0.0.1:5432
  DORMOUSE_DATABASES__AUTO_CREATE=false dormouse serve --config /etc/dormouse.toml

When both addresses are served, they are printed to standard output, one a line. SIGTERM and
SIGINT end the server: idle clients are sent away, running statements get server.drain_ms_max.
All settings with their defaults: dormouse config.
";

const PASSWORD_EXAMPLES: &str = "\
The password is read from the terminal, or, if that is none, from the first line of standard input.

Examples:
  dormouse password > admin-password && chmod 600 admin-password
  pwgen 24 1 | tee /dev/tty | dormouse password
";

const SQL_EXAMPLES: &str = "\
Examples:
  dormouse sql shop \"select * from fruit\"
  dormouse sql shop \"insert into fruit values ($1, $2)\" --param apple --param 1.5
  dormouse sql shop \"select $1::jsonb -> 'a'\" --param '{\"a\": 1}'
  dormouse sql shop - < query.sql
  dormouse sql shop \"select count(*) from fruit\" --json | jq .rows[0].count
  dormouse sql shop \"select 1\" --data ./dormouse-data    # without a server
";

const DB_EXAMPLES: &str = "\
Examples:
  dormouse db create shop
  dormouse db list
  dormouse db fork shop shop-try
  dormouse db delete shop-try
  dormouse db list --json | jq -r '.databases[].name'
";

const TOKEN_EXAMPLES: &str = "\
Examples:
  dormouse token create --name ci --scope write --database shop --expires 30d
  dormouse token list
  dormouse token revoke ci
  dormouse token database auth0-1234
  dormouse token list --server https://db.example.com --token-file admin-token
";

const BINDING_EXAMPLES: &str = "\
Examples:
  dormouse binding create shop --url-file shop-url
  dormouse binding create previews --per-app
  dormouse binding credential shop --name reports
  dormouse binding change shop --url - --connections-max 40 < new-url
  dormouse binding list --json | jq -r '.bindings[].id'
";

const DEPLOY_EXAMPLES: &str = "\
Left out are .git, node_modules, .wrangler, dist/.vite and .dormouse. Nothing is built: build before.

Examples:
  dormouse deploy
  dormouse deploy ./shop --repository acme/shop --branch main --commit none
  dormouse deploy --environment staging --var REGION=eu --secret API_KEY
  dormouse deploy --server https://db.example.com --token-file deploy-token
";

const DEV_EXAMPLES: &str = "\
Examples:
  dormouse dev
  dormouse dev ./shop --port 8080 --var REGION=eu
";

const LOGS_EXAMPLES: &str = "\
Examples:
  dormouse logs acme/shop
  dormouse logs acme/shop --follow --level error
  dormouse logs acme/shop --json | jq -r .text
";

const TOP_EXAMPLES: &str = "\
Examples:
  dormouse top
  dormouse top --by time --top 5 --interval 10
  dormouse top --once --json | jq -r '.databases[].name'
";

/// A Postgres for every tenant, asleep until asked.
#[derive(Debug, Parser)]
#[command(
    name = "dormouse",
    version,
    max_term_width = 100,
    after_help = format!("{EXAMPLES}\n{EXIT_CODES}")
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the databases of a data directory, over PostgreSQL's protocol and HTTP
    #[command(after_help = format!("{SERVE_EXAMPLES}\n{EXIT_CODES}"))]
    Serve(ServeArgs),
    /// Print the configuration that `serve` would use, as TOML with comments
    Config(ServeArgs),
    /// Print what a server keeps of a password, for auth.admin_password_file or CREATE ROLE
    #[command(after_help = PASSWORD_EXAMPLES)]
    Password,
    /// Run one SQL statement in a database
    #[command(after_help = format!("{SQL_EXAMPLES}\n{EXIT_CODES}"))]
    Sql(SqlArgs),
    /// Create, list, fork and delete databases
    #[command(after_help = format!("{DB_EXAMPLES}\n{EXIT_CODES}"))]
    Db(DbArgs),
    /// Look for what would keep a server from doing its work: configuration, files, disk, limits, the server itself
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Have a server read its configuration again, as SIGHUP does
    #[command(after_help = EXIT_CODES)]
    Reload(ServerArgs),
    /// Make, change and delete managed bindings: what env.DB of a deployed backend leads to
    #[command(after_help = format!("{BINDING_EXAMPLES}\n{EXIT_CODES}"))]
    Binding(BindingArgs),
    /// Make, list and revoke tokens for HTTP
    #[command(after_help = format!("{TOKEN_EXAMPLES}\n{EXIT_CODES}"))]
    Token(TokenArgs),
    /// Show which databases of a server are used most, again and again
    #[command(after_help = format!("{TOP_EXAMPLES}\n{EXIT_CODES}"))]
    Top(TopArgs),
    /// Deploy a backend in JavaScript or TypeScript, or a site, from a folder
    #[command(after_help = format!("{DEPLOY_EXAMPLES}\n{EXIT_CODES}"))]
    Deploy(DeployArgs),
    /// Run what is in a folder on this machine, with its databases, and again whenever it changes
    #[command(after_help = format!("{DEV_EXAMPLES}\n{EXIT_CODES}"))]
    Dev(DevArgs),
    /// List what is deployed
    #[command(after_help = EXIT_CODES)]
    Apps(AppsArgs),
    /// Print what a backend has logged
    #[command(after_help = format!("{LOGS_EXAMPLES}\n{EXIT_CODES}"))]
    Logs(LogsArgs),
    /// Let an earlier version of what is deployed serve again
    #[command(after_help = EXIT_CODES)]
    Rollback(RollbackArgs),
    /// Take away what is deployed, all versions of it
    #[command(after_help = EXIT_CODES)]
    Undeploy(AppArgs),
    /// Compile a backend: what a server begins with one
    #[command(name = super::apps::COMPILE, hide = true)]
    BackendCompile,
    /// Become the program that follows, and end with who started this
    #[command(name = super::apps::LAUNCH, hide = true)]
    BackendLaunch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

/// Flags win over `DORMOUSE_*` variables, these over the configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The data directory; made if it is not there [env: DORMOUSE_DATA] [default: ./dormouse-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Where to speak PostgreSQL's protocol; port 0 takes a free one [env: DORMOUSE_PG] [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDR")]
    pub(crate) pg: Option<String>,
    /// Where to speak HTTP; port 0 takes a free one [env: DORMOUSE_HTTP] [default: 127.0.0.1:7433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// What to log to standard error: a level, or a filter as in RUST_LOG [env: DORMOUSE_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// The configuration file [default: ./dormouse.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        env = "DORMOUSE_SERVER",
        default_value = "http://127.0.0.1:7433"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Fail if the server does not answer
    #[arg(long)]
    pub(crate) expect_server: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the databases are.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        env = "DORMOUSE_SERVER",
        default_value = "http://127.0.0.1:7433"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Open this data directory in this process instead; no server may have it open
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON, for programs: the document that HTTP answers; errors too, to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a server knows us, and we it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct AccessArgs {
    /// The token to show to the server. Who may list processes sees it here: better are the variable
    /// and --token-file
    #[arg(long, env = "DORMOUSE_TOKEN", hide_env_values = true)]
    token: Option<Zeroizing<String>>,
    /// A file whose first line is the token
    #[arg(long, value_name = "FILE", env = "DORMOUSE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Authorities of the server's certificate, besides those of the system: a file in PEM
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CA")]
    pub(crate) ca: Option<PathBuf>,
}

impl AccessArgs {
    /// The token, if there is one.
    pub(crate) fn token(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let (None, Some(path)) = (&self.token, &self.token_file) else {
            return Ok(self.token.clone());
        };
        let failed = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let text = Zeroizing::new(text);
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Some(Zeroizing::new(line.to_owned()))),
            _ => Err(failed("there is no token in its first line".to_owned())),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// Where tokens are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct TokensArgs {
    /// The server's configuration file, for auth.tokens_file [default: ./dormouse.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Ask this server instead of changing the file
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it: it is never seen again
    Create {
        /// What it is called, for people
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_parser = ["read", "write", "admin", "deploy"])]
        scope: String,
        /// The only database that it reaches
        #[arg(long, value_name = "NAME")]
        database: Option<DatabaseName>,
        /// The role of its sessions, if not that of its scope
        #[arg(long)]
        role: Option<String>,
        /// With the scope deploy: the only repository that it deploys, or OWNER/* for all of an owner
        #[arg(long, value_name = "OWNER/REPO")]
        repository: Option<String>,
        /// How long it is accepted: 90s, 15m, 12h, 30d, 4w [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u64>,
        /// The largest body of a request, as 64KiB [default: as the server and the database allow]
        #[arg(long, value_name = "BYTES", value_parser = some_bytes)]
        body_bytes_max: Option<NonZeroU64>,
        /// The largest result, also of one that is streamed
        #[arg(long, value_name = "BYTES", value_parser = some_bytes)]
        result_bytes_max: Option<NonZeroU64>,
        #[command(flatten)]
        place: TokensArgs,
    },
    /// List all tokens
    List {
        #[command(flatten)]
        place: TokensArgs,
    },
    /// Revoke a token by its id or name: within a second no server accepts it
    Revoke {
        id: String,
        #[command(flatten)]
        place: TokensArgs,
    },
    /// Print the name of a subject's database, with auth.claims.database = "subject"
    Database {
        /// The claim sub of its tokens
        subject: String,
        /// The claim iss of its tokens [default: auth.jwt.issuer, or auth.introspection.url]
        #[arg(long)]
        issuer: Option<String>,
        /// The server's configuration file [default: ./dormouse.toml, if it is there]
        #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// Reads a time as `30d`.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and a unit: 90s, 15m, 12h, 30d or 4w".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let length = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number = text
        .strip_suffix(unit)
        .and_then(|digits| digits.parse::<u64>().ok());
    number
        .and_then(|number| number.checked_mul(length))
        .ok_or_else(wrong)
}

#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    /// The database; made on first use, unless the server's databases.auto_create is off
    #[arg(value_name = "NAME")]
    pub(crate) name: DatabaseName,
    /// One statement; `-` reads it from standard input
    pub(crate) sql: String,
    /// The value of $1, and again for $2 and so on: text that PostgreSQL reads by the parameter's
    /// type. A JSON array or object also becomes an array, json or jsonb
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) params: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    pub(crate) command: DbCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Create a database
    Create {
        name: DatabaseName,
        /// Begin as a copy of this database instead of an empty one
        #[arg(long, value_name = "NAME")]
        from: Option<DatabaseName>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// List all databases
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show one database
    Info {
        name: DatabaseName,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Create a database that begins as a copy of another
    Fork {
        from: DatabaseName,
        to: DatabaseName,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Set what is otherwise in one database than in the others
    Set {
        name: DatabaseName,
        /// What an acknowledged commit has reached; "default" is as in the configuration
        #[arg(long, value_enum, value_name = "LEVEL")]
        durability: Option<DurabilityArg>,
        /// Whether the host vacuums, analyzes and freezes it; "default" is as in the configuration
        #[arg(long, value_enum, value_name = "SWITCH")]
        maintenance: Option<SwitchArg>,
        /// Bytes past which it does not grow; "default" is volume.bytes_max of the configuration
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        bytes_max: Option<BytesArg>,
        /// Bytes from which on the server's log says that it is large; "default" is never
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        bytes_warn: Option<BytesArg>,
        /// The largest body of a request over HTTP, or message in a WebSocket; "default" is as in the configuration
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        body_bytes_max: Option<BytesArg>,
        /// The largest result over HTTP, also of one that is streamed; "default" is as in the configuration
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        result_bytes_max: Option<BytesArg>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Wait until everything acknowledged is on disk, whatever the durability
    Flush {
        name: DatabaseName,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Delete a database for good
    Delete {
        name: DatabaseName,
        /// End its sessions first
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        target: TargetArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        env = "DORMOUSE_SERVER",
        default_value = "http://127.0.0.1:7433"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Print what HTTP answers; errors too, to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        env = "DORMOUSE_SERVER",
        default_value = "http://127.0.0.1:7433"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Those that have the most of what, since the server started
    #[arg(long, value_enum, default_value_t = ByArg::Queries)]
    pub(crate) by: ByArg,
    /// How many databases
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
    /// Seconds from one look to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval: u64,
    /// Look once, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Print what HTTP answers, a document a line; errors too, to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// What databases are put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ByArg {
    Queries,
    Time,
    Errors,
    Rows,
    Bytes,
    Wal,
    Wakes,
    Waits,
    Hits,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn times() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        for wrong in ["", "d", "30", "-1d", "1y", "1\u{e9}", "99999999999999999w"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

/// A number of bytes; none is what the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BytesArg(pub(crate) Option<u64>);

/// Reads a size as `500MiB`, or `default`.
fn bytes(text: &str) -> Result<BytesArg, String> {
    if text == "default" {
        return Ok(BytesArg(None));
    }
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("the units are B, KiB, MiB, GiB and TiB".to_owned()),
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit));
    bytes
        .map(|bytes| BytesArg(Some(bytes)))
        .ok_or_else(|| "write a number and a unit, as 500MiB, or default".to_owned())
}

/// Reads a size that is not none.
fn some_bytes(text: &str) -> Result<NonZeroU64, String> {
    let BytesArg(bytes) = bytes(text)?;
    let some = bytes.and_then(NonZeroU64::new);
    some.ok_or_else(|| "write a number above 0 and a unit, as 64KiB".to_owned())
}

/// A durability level, or what the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    Local,
    Relaxed,
    Default,
}

/// On, off, or what the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SwitchArg {
    On,
    Off,
    Default,
}
