//! What can be typed about what is deployed.

use std::path::PathBuf;

use super::ServerArgs;

/// Which app.
#[derive(Debug, clap::Args)]
pub(crate) struct AppArgs {
    /// The repository
    #[arg(value_name = "OWNER/REPO")]
    pub(crate) repository: String,
    /// Which of its deployments
    #[arg(long, value_name = "NAME", default_value = "production")]
    pub(crate) environment: String,
    #[command(flatten)]
    pub(crate) target: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeployArgs {
    /// The folder: with worker/, backend/ or dist/server/, or a site that is built
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) target: ServerArgs,
}

/// What a deployment is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The repository that it is called by [default: that of git's remote origin]
    #[arg(long, value_name = "OWNER/REPO")]
    pub(crate) repository: Option<String>,
    /// The branch [default: git's]. main and master are production
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// The commit [default: git's]
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: Option<String>,
    /// Which of the repository's deployments it is [default: that of the branch]
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// A variable in the backend's env; without a value that of the variable of this name here
    #[arg(long = "var", value_name = "NAME[=VALUE]")]
    pub(crate) vars: Vec<String>,
    /// A secret there. Who may list processes sees a value here: better give the name alone
    #[arg(long = "secret", value_name = "NAME[=VALUE]")]
    pub(crate) secrets: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AppsArgs {
    #[command(flatten)]
    pub(crate) target: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// To which version [default: the one before]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Go on with what comes
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only entries of this level
    #[arg(long, value_parser = ["debug", "info", "log", "warn", "error"])]
    pub(crate) level: Option<String>,
    /// Only entries of this kind
    #[arg(long, value_parser = ["console", "exception", "outcome"])]
    pub(crate) kind: Option<String>,
    /// How many entries at most
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub(crate) limit: u64,
    /// How far back
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=168))]
    pub(crate) hours: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// The folder: with worker/, backend/ or dist/server/, or a site that is built
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Where it is served on this machine; 0 takes a free port
    #[arg(long, default_value_t = 7433)]
    pub(crate) port: u16,
    /// Where its databases are kept [default: DIR/.dormouse]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// What the server logs: a level, or a filter as in RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,
    /// The configuration file [default: ./dormouse.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Lead the bindings of CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_… straight to their Postgres: without pool,
    /// cache and TLS
    #[arg(long)]
    pub(crate) direct: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}
