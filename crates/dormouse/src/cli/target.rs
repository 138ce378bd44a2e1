//! Where a command's requests go: to a server, or to a data directory in this process.

use std::path::PathBuf;

use database::{DatabaseName, Databases, Options, SessionOptions, Source};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use server::DatabaseDocument;
use wire::http::RowMode;

use super::args::TargetArgs;
use super::failure::Failure;

/// The largest result that is taken from a data directory.
const RESULT_BYTES_MAX: usize = 1 << 30;

/// Where the databases are.
pub(crate) enum Target {
    Server { client: Client, url: String },
    Data(Databases),
}

impl Target {
    pub(crate) async fn open(args: &TargetArgs) -> Result<Self, Failure> {
        match &args.data {
            Some(folder) => Self::open_data(folder.clone()).await,
            None => Ok(Self::Server {
                client: Client::new(),
                url: args.server.trim_end_matches('/').to_owned(),
            }),
        }
    }

    async fn open_data(folder: PathBuf) -> Result<Self, Failure> {
        let options = Options {
            progress: super::progress::progress(),
            ..Options::new(folder, dormouse::default_cache_directory())
        };
        let opened = Databases::open(options).await;
        opened
            .map(Self::Data)
            .map_err(|error| Failure::unavailable(error.to_string()))
    }

    /// Lets go of the data directory.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server { .. } => Ok(()),
            Self::Data(databases) => Ok(databases.close().await?),
        }
    }

    /// The document of a query's result, with rows as arrays or objects.
    pub(crate) async fn query(
        &self,
        name: &DatabaseName,
        sql: &str,
        params: &[Value],
        mode: RowMode,
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Server { .. } => {
                let rows = if mode == RowMode::Arrays {
                    "array"
                } else {
                    "object"
                };
                let body = json!({ "sql": sql, "params": params, "rowMode": rows });
                let path = format!("/v1/databases/{name}/query");
                self.send(Method::POST, &path, Some(&body)).await
            }
            Self::Data(databases) => {
                let options = SessionOptions {
                    origin: "the command line".into(),
                    ..Default::default()
                };
                let mut session = databases.session(name, options).await?;
                let raw = |value: &Value| RawValue::from_string(value.to_string());
                let params: Result<Vec<_>, _> = params.iter().map(raw).collect();
                let params = params.map_err(|error| Failure::Usage(error.to_string()))?;
                let result = session
                    .query_json(sql, &params, mode, RESULT_BYTES_MAX)
                    .await;
                session.close().await;
                Ok(result?)
            }
        }
    }

    pub(crate) async fn create(
        &self,
        name: &DatabaseName,
        from: Option<&DatabaseName>,
    ) -> Result<DatabaseDocument, Failure> {
        match self {
            Self::Server { .. } => {
                let mut body = json!({ "name": name.as_str() });
                if let Some(from) = from {
                    body["from"] = json!({ "database": from.as_str() });
                }
                read(
                    &self
                        .send(Method::POST, "/v1/databases", Some(&body))
                        .await?,
                )
            }
            Self::Data(databases) => {
                let source = from.map_or(Source::Template, |from| Source::Database(from.clone()));
                Ok(databases.create(name, source).await?.into())
            }
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<DatabaseDocument>, Failure> {
        match self {
            Self::Server { .. } => {
                let document = self.send(Method::GET, "/v1/databases", None).await?;
                let document: Value = read(&document)?;
                serde_json::from_value(document["databases"].clone()).map_err(strange)
            }
            Self::Data(databases) => Ok(databases
                .list()?
                .into_iter()
                .map(DatabaseDocument::from)
                .collect()),
        }
    }

    pub(crate) async fn info(&self, name: &DatabaseName) -> Result<DatabaseDocument, Failure> {
        match self {
            Self::Server { .. } => read(
                &self
                    .send(Method::GET, &format!("/v1/databases/{name}"), None)
                    .await?,
            ),
            Self::Data(databases) => Ok(databases.info(name)?.into()),
        }
    }

    pub(crate) async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), Failure> {
        match self {
            Self::Server { .. } => {
                let path = format!("/v1/databases/{name}?force={force}");
                self.send(Method::DELETE, &path, None).await.map(drop)
            }
            Self::Data(databases) => Ok(databases.delete(name, force).await?),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, Failure> {
        let Self::Server { client, url } = self else {
            unreachable!("BUG: only a server is sent requests");
        };
        let mut request = client.request(method, format!("{url}{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| unreachable_server(url, &error))?;
        answer(response)
            .await
            .map_err(|error| unreachable_server(url, &error))?
    }
}

async fn answer(response: Response) -> Result<Result<Vec<u8>, Failure>, reqwest::Error> {
    let status: StatusCode = response.status();
    let body = response.bytes().await?.to_vec();
    Ok(if status.is_success() {
        Ok(body)
    } else {
        Err(Failure::request(body))
    })
}

fn unreachable_server(url: &str, error: &reqwest::Error) -> Failure {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    Failure::unavailable(format!(
        "no server at {url}: {reason}\nStart one with `dormouse serve`, name another with \
         --server, or open a data directory with --data."
    ))
}

fn read<T: serde::de::DeserializeOwned>(document: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(document).map_err(strange)
}

fn strange(error: serde_json::Error) -> Failure {
    Failure::unavailable(format!(
        "the server's answer is not a Dormouse server's: {error}"
    ))
}
