//! What can be typed behind `dormouse binding`.

use std::path::PathBuf;

use clap::Subcommand;
use server::{
    AllowedDocument, BindingFields, CachingDocument, LimitsDocument, OriginFields, PerAppDocument,
};
use zeroize::Zeroizing;

use crate::cli::args::ServerArgs;
use crate::cli::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct BindingArgs {
    #[command(subcommand)]
    pub(super) command: BindingCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BindingCommand {
    /// Make a binding, once its Postgres has let us in
    #[command(mut_args(with_default))]
    Create {
        /// What it is called, for people
        name: String,
        #[command(flatten)]
        fields: Box<FieldArgs>,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// List all bindings
    List {
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Show a binding, and how its pool stands
    Show {
        /// Its id or its name
        id: String,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Change a binding; what is not told stays. Connections go over to it when they are free
    Change {
        /// Its id or its name
        id: String,
        /// What it is called from now on
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        fields: Box<FieldArgs>,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Delete a binding that no application uses
    Delete {
        /// Its id or its name
        id: String,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Connect as the pool would, and say what came of it
    Check {
        /// Its id or its name
        id: String,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Close the connections of its pool, those in use when they are free
    Restart {
        /// Its id or its name
        id: String,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Make a user of a binding, and print a connection string for it: its password is never seen again
    Credential {
        /// The binding's id or name
        id: String,
        /// What the user is called, for people
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: ServerArgs,
    },
    /// Revoke a user of a binding: nobody comes in by it any more
    Revoke {
        /// The binding's id or name
        id: String,
        /// The user, or what it is called
        user: String,
        #[command(flatten)]
        place: ServerArgs,
    },
}

/// Fields of a binding.
#[derive(Debug, clap::Args)]
pub(super) struct FieldArgs {
    /// Lead to the Postgres of this connection string; - reads it from standard input. Who may list
    /// processes sees it here: better are - and --url-file
    #[arg(long, value_name = "URL", group = "target")]
    url: Option<Zeroizing<String>>,
    /// Lead to the Postgres of the connection string in the first line of a file
    #[arg(long, value_name = "FILE", group = "target")]
    url_file: Option<PathBuf>,
    /// Lead to this database of ours
    #[arg(long, value_name = "NAME", group = "target")]
    database: Option<String>,
    /// Lead each application to a database of its own, made when it is first deployed; other
    /// environments begin as a fork of production's
    #[arg(long, group = "target")]
    per_app: bool,
    /// With --per-app: what production's begins as
    #[arg(long, value_name = "NAME", requires = "per_app")]
    template: Option<String>,
    /// Authorities that alone are believed: a file in PEM
    #[arg(long, value_name = "FILE")]
    sslrootcert: Option<PathBuf>,
    /// A certificate to show: a file in PEM
    #[arg(long, value_name = "FILE", requires = "sslkey")]
    sslcert: Option<PathBuf>,
    /// Its key: a file in PEM
    #[arg(long, value_name = "FILE", requires = "sslcert")]
    sslkey: Option<PathBuf>,
    /// An application that may bind it, OWNER/REPOSITORY or OWNER/REPOSITORY@ENVIRONMENT; again for
    /// more. These alone may from then on; any lets all of them
    #[arg(long, value_name = "APP")]
    allow: Vec<String>,
    /// Connections to the origin
    #[arg(long, value_name = "N")]
    connections_max: Option<u32>,
    /// Of them, those that sessions may keep between transactions
    #[arg(long, value_name = "N")]
    pinned_max: Option<u32>,
    /// For a login
    #[arg(long, value_name = "MS")]
    connect_timeout_ms: Option<u32>,
    /// For a connection, while others have them all
    #[arg(long, value_name = "MS")]
    wait_ms_max: Option<u32>,
    /// After which a connection that nobody uses is closed
    #[arg(long, value_name = "MS")]
    idle_ms: Option<u32>,
    /// Of a statement; 0 for none
    #[arg(long, value_name = "MS")]
    statement_timeout_ms: Option<u32>,
    /// Whether answers may come from the cache
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    cache: Option<String>,
    /// How old an answer of the cache may be
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u32>,
    /// How much older while it is asked anew
    #[arg(long, value_name = "SECONDS")]
    stale_while_revalidate: Option<u32>,
    /// What makes an answer of the cache too old: fresh, for writes through the binding and time; ttl,
    /// for time alone
    #[arg(long, value_name = "MODE", value_parser = ["fresh", "ttl"])]
    cache_mode: Option<String>,
    /// Whether writes made elsewhere make answers too old at once, by logical replication: makes a
    /// publication dormouse_cache of all tables at the origin, see docs/pooler.md
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    cache_replication: Option<String>,
    /// Save it without trying it
    #[arg(long)]
    skip_check: bool,
}

/// What is so of a binding that is made, where nothing else is told. One that is changed keeps what it has.
const DEFAULTS: [(&str, &str); 11] = [
    ("allow", "any"),
    ("connections_max", "20"),
    ("pinned_max", "10"),
    ("connect_timeout_ms", "15000"),
    ("wait_ms_max", "15000"),
    ("idle_ms", "600000"),
    ("statement_timeout_ms", "60000"),
    ("max_age", "60"),
    ("stale_while_revalidate", "15"),
    ("cache_mode", "fresh"),
    ("cache_replication", "off"),
];

/// An argument whose help says its default too.
fn with_default(arg: clap::Arg) -> clap::Arg {
    let default = DEFAULTS.iter().find(|(id, _)| arg.get_id() == id);
    let (Some((_, default)), Some(help)) = (default, arg.get_help()) else {
        return arg;
    };
    let help = format!("{help} [default: {default}]");
    arg.help(help)
}

impl FieldArgs {
    /// What is sent to a server.
    pub(super) fn into_fields(self, name: Option<String>) -> Result<BindingFields, Failure> {
        let mut fields = BindingFields {
            name,
            connection_string: self.connection_string()?,
            origin: self.certificates()?,
            skip_check: self.skip_check,
            database: self.database,
            ..BindingFields::default()
        };
        if self.per_app {
            let template = self.template;
            fields.database_per_app = Some(PerAppDocument { template });
        }
        fields.allowed = all_allowed(&self.allow)?;
        let limits = LimitsDocument {
            connections_max: self.connections_max,
            pinned_max: self.pinned_max,
            connect_timeout_ms: self.connect_timeout_ms,
            wait_ms_max: self.wait_ms_max,
            idle_ms: self.idle_ms,
            statement_timeout_ms: self.statement_timeout_ms,
        };
        let caching = CachingDocument {
            disabled: self.cache.map(|cache| cache == "off"),
            max_age: self.max_age,
            stale_while_revalidate: self.stale_while_revalidate,
            mode: self.cache_mode,
            replication: self
                .cache_replication
                .map(|replication| replication == "on"),
        };
        fields.limits = Some(limits);
        fields.caching = Some(caching);
        Ok(fields)
    }

    fn connection_string(&self) -> Result<Option<String>, Failure> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) if **url == "-" => {
                let mut line = Zeroizing::new(String::new());
                let read = std::io::stdin().read_line(&mut line);
                read.map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
                line
            }
            (Some(url), _) => url.clone(),
            (None, Some(path)) => Zeroizing::new(read(path)?),
            (None, None) => return Ok(None),
        };
        match url.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
            _ => Err(Failure::Usage(
                "there is no connection string in the first line".to_owned(),
            )),
        }
    }

    fn certificates(&self) -> Result<Option<OriginFields>, Failure> {
        let files = [&self.sslrootcert, &self.sslcert, &self.sslkey];
        if files.iter().all(|file| file.is_none()) {
            return Ok(None);
        }
        let read = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        Ok(Some(OriginFields {
            sslrootcert: read(&self.sslrootcert)?,
            sslcert: read(&self.sslcert)?,
            sslkey: read(&self.sslkey)?,
            ..OriginFields::default()
        }))
    }
}

fn read(path: impl AsRef<std::path::Path>) -> Result<String, Failure> {
    let path = path.as_ref();
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Who may bind it: everybody if the list is empty, whoever may now if there is none.
fn all_allowed(told: &[String]) -> Result<Option<Vec<AllowedDocument>>, Failure> {
    let is_any = |text: &String| matches!(text.trim(), "" | "any");
    match told {
        [] => Ok(None),
        [one] if is_any(one) => Ok(Some(Vec::new())),
        several if several.iter().any(is_any) => Err(Failure::Usage(
            "--allow any lets everybody bind it: leave out the others, or it".to_owned(),
        )),
        several => several
            .iter()
            .map(|text| allowed(text))
            .collect::<Result<_, _>>()
            .map(Some),
    }
}

fn allowed(text: &str) -> Result<AllowedDocument, Failure> {
    let (repository, environment) = match text.split_once('@') {
        Some((_, "")) => {
            return Err(Failure::Usage(format!(
                "--allow {text}: there is no environment behind the @; leave the @ out for all of them"
            )));
        }
        Some((repository, environment)) => (repository, Some(environment.to_owned())),
        None => (text, None),
    };
    Ok(AllowedDocument {
        repository: repository.to_owned(),
        environment,
    })
}
