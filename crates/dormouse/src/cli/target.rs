//! Where the databases are: behind a server, or in a data directory opened here.

use database::{DatabaseName, Databases, Options, PgError, SessionOptions, Settings, Source};
use dormouse::default_cache_directory;
use serde_json::value::RawValue;
use server::DatabaseDocument;
use wire::SizeLimit;
use wire::http::RowMode;

use super::args::TargetArgs;
use super::failure::Failure;
use super::remote::Remote;

/// The largest result that is taken from a data directory, in bytes of JSON; a server has limits of its own.
const RESULT_MAX: SizeLimit = SizeLimit {
    bytes: 1 << 30,
    name: "what dormouse sql takes from a data directory",
    remedy: "serve the data directory, and ask for it with psql",
};

/// Where the databases are.
pub(crate) enum Target {
    Server(Remote),
    Data(Databases),
}

impl Target {
    pub(crate) async fn open(args: &TargetArgs) -> Result<Self, Failure> {
        let Some(data) = &args.data else {
            return Remote::new(&args.server, &args.access).map(Self::Server);
        };
        let options = Options {
            progress: super::progress::progress(),
            ..Options::new(data, default_cache_directory())
        };
        let opened = Databases::open(options).await;
        opened
            .map(Self::Data)
            .map_err(|error| Failure::unavailable(error.to_string()))
    }

    /// Puts the databases to rest, if they are here.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::Data(databases) => Ok(databases.close().await?),
        }
    }

    /// The document of a statement's result.
    pub(crate) async fn query(
        &self,
        name: &DatabaseName,
        sql: &str,
        params: &[Box<RawValue>],
        mode: RowMode,
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Server(remote) => remote.query(name, sql, params, mode).await,
            Self::Data(databases) => Ok(query_here(databases, name, sql, params, mode).await?),
        }
    }

    pub(crate) async fn create(
        &self,
        name: &DatabaseName,
        from: Option<&DatabaseName>,
    ) -> Result<DatabaseDocument, Failure> {
        match self {
            Self::Server(remote) => remote.create(name, from).await,
            Self::Data(databases) => {
                let source = from.map_or(Source::Template, |from| Source::Database(from.clone()));
                Ok(databases.create(name, source).await?.into())
            }
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<DatabaseDocument>, Failure> {
        match self {
            Self::Server(remote) => remote.list().await,
            Self::Data(databases) => {
                let infos = databases.list(None, usize::MAX)?;
                Ok(infos.into_iter().map(Into::into).collect())
            }
        }
    }

    pub(crate) async fn info(&self, name: &DatabaseName) -> Result<DatabaseDocument, Failure> {
        match self {
            Self::Server(remote) => remote.info(name).await,
            Self::Data(databases) => Ok(databases.info(name)?.into()),
        }
    }

    pub(crate) async fn configure(
        &self,
        name: &DatabaseName,
        settings: Settings,
    ) -> Result<DatabaseDocument, Failure> {
        match self {
            Self::Server(remote) => remote.configure(name, settings).await,
            Self::Data(databases) => Ok(databases.configure(name, settings).await?.into()),
        }
    }

    pub(crate) async fn flush(&self, name: &DatabaseName) -> Result<(), Failure> {
        match self {
            Self::Server(remote) => remote.flush(name).await,
            Self::Data(databases) => Ok(databases.flush(name).await?),
        }
    }

    pub(crate) async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), Failure> {
        match self {
            Self::Server(remote) => remote.delete(name, force).await,
            Self::Data(databases) => Ok(databases.delete(name, force).await?),
        }
    }
}

async fn query_here(
    databases: &Databases,
    name: &DatabaseName,
    sql: &str,
    params: &[Box<RawValue>],
    mode: RowMode,
) -> Result<Vec<u8>, PgError> {
    let options = SessionOptions {
        origin: "dormouse sql".to_owned(),
        ..SessionOptions::default()
    };
    let mut session = databases.session(name, options).await?;
    let params: Vec<&RawValue> = params.iter().map(|param| &**param).collect();
    let document = session.query_json(sql, &params, mode, RESULT_MAX).await;
    session.close().await;
    document
}
