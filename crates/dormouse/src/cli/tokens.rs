//! `dormouse token`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use serde_json::json;
use server::{CreatedToken, NewToken, TokenDocument, Tokens, TokensError, subject_database};

use super::args::{ServeArgs, TokenArgs, TokenCommand, TokensArgs};
use super::config::{self, Loaded};
use super::databases::size;
use super::failure::Failure;
use super::remote::Remote;
use super::table::Table;

/// Where tokens are kept.
enum Place {
    File(Tokens),
    Server(Remote),
}

/// Makes, lists or revokes tokens.
pub(crate) async fn run(args: TokenArgs) -> Result<(), Failure> {
    let said = match args.command {
        TokenCommand::Create {
            name,
            scope,
            database,
            role,
            repository,
            expires,
            body_bytes_max,
            result_bytes_max,
            place,
        } => {
            let new = NewToken {
                name,
                scope,
                database: database.map(|name| name.to_string()),
                role,
                repository,
                expires_seconds: expires,
                body_bytes_max,
                result_bytes_max,
            };
            let created = Place::open(&place)?.create(new).await;
            told(
                &created.map_err(|failure| failure.in_json(place.json))?,
                place.json,
            )
        }
        TokenCommand::List { place } => {
            let tokens = Place::open(&place)?.list().await;
            let tokens = tokens.map_err(|failure| failure.in_json(place.json))?;
            if place.json {
                format!("{}\n", json!({ "tokens": tokens }))
            } else {
                listed(&tokens)
            }
        }
        TokenCommand::Revoke { id, place } => {
            let revoked = Place::open(&place)?.revoke(&id).await;
            revoked.map_err(|failure| failure.in_json(place.json))?;
            if place.json {
                String::new()
            } else {
                format!("revoked {id}\n")
            }
        }
        TokenCommand::Database {
            subject,
            issuer,
            config,
        } => database(&subject, issuer.as_deref(), config)?,
    };
    super::print(&said);
    Ok(())
}

impl Place {
    fn open(args: &TokensArgs) -> Result<Self, Failure> {
        if let Some(server) = &args.server {
            return Remote::new(server, &args.access).map(Self::Server);
        }
        load(args.config.clone())?.config.tokens().map(Self::File)
    }

    async fn create(&self, new: NewToken) -> Result<CreatedToken, Failure> {
        match self {
            Self::File(tokens) => tokens.create(new).map_err(failure),
            Self::Server(server) => server.create_token(&new).await,
        }
    }

    async fn list(&self) -> Result<Vec<TokenDocument>, Failure> {
        match self {
            Self::File(tokens) => tokens.list().map_err(failure),
            Self::Server(server) => server.tokens().await,
        }
    }

    async fn revoke(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::File(tokens) => tokens.revoke(id).map(drop).map_err(failure),
            Self::Server(server) => server.revoke_token(id).await,
        }
    }
}

/// The server's configuration.
fn load(config: Option<PathBuf>) -> Result<Loaded, Failure> {
    config::load(&ServeArgs {
        data: None,
        pg: None,
        http: None,
        log: None,
        config,
    })
}

fn failure(error: TokensError) -> Failure {
    let code = match error {
        TokensError::File { .. } | TokensError::Random(_) => {
            return Failure::unavailable(error.to_string());
        }
        TokensError::Taken(_) => wire::sqlstate::DUPLICATE_OBJECT,
        TokensError::Unknown(_) => wire::sqlstate::UNDEFINED_OBJECT,
        TokensError::Invalid(_) => wire::sqlstate::INVALID_PARAMETER_VALUE,
        TokensError::Full => wire::sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
    };
    wire::PgError::error(code, error.to_string()).into()
}

/// The token alone goes to standard output, so that it can be kept in a file.
fn told(created: &CreatedToken, json: bool) -> String {
    if json {
        return format!("{}\n", json!(created));
    }
    eprintln!("The token {} is not shown again:", created.document.id);
    format!("{}\n", created.token)
}

fn listed(tokens: &[TokenDocument]) -> String {
    let mut table = Table::default();
    for name in [
        "id",
        "name",
        "scope",
        "database",
        "role",
        "repository",
        "created",
        "expires",
        "body",
        "result",
    ] {
        table.column(name, false);
    }
    for token in tokens {
        table.row([
            token.id.clone(),
            token.name.clone(),
            token.scope.clone(),
            token.database.clone().unwrap_or_default(),
            token.role.clone().unwrap_or_default(),
            token.repository.clone().unwrap_or_default(),
            token.created_at.clone(),
            token.expires_at.clone().unwrap_or_default(),
            bytes(token.body_bytes_max),
            bytes(token.result_bytes_max),
        ]);
    }
    table.render()
}

/// A limit, if there is one.
fn bytes(max: Option<NonZeroU64>) -> String {
    max.map_or_else(String::new, |max| size(max.get()))
}

fn database(
    subject: &str,
    issuer: Option<&str>,
    config: Option<PathBuf>,
) -> Result<String, Failure> {
    let loaded = load(config)?;
    let (configured, prefix) = loaded.config.subjects();
    let issuer = issuer.or(configured).ok_or_else(|| {
        Failure::Usage(
            "who issues the tokens is not known: --issuer, or auth.jwt.issuer".to_owned(),
        )
    })?;
    Ok(format!("{}\n", subject_database(prefix, issuer, subject)))
}
