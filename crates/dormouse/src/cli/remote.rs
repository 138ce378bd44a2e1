//! A server, asked over HTTP.

mod bindings;

use std::error::Error;

use database::{DatabaseName, Settings};
use reqwest::{Client, Method, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use server::{
    CreatedToken, DatabaseDocument, FiguresPage, NewToken, ReloadDocument, TokenDocument,
};
use wire::http::RowMode;
use zeroize::Zeroizing;

use super::args::AccessArgs;
use super::failure::Failure;

/// A server, asked over HTTP.
pub(crate) struct Remote {
    client: Client,
    /// Without a slash at its end.
    url: String,
    token: Option<Zeroizing<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    sql: &'a str,
    params: &'a [Box<RawValue>],
    row_mode: &'static str,
}

#[derive(Serialize)]
struct Create<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<FromDatabase<'a>>,
}

#[derive(Serialize)]
struct FromDatabase<'a> {
    database: &'a str,
}

#[derive(Deserialize)]
struct List {
    databases: Vec<DatabaseDocument>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Readiness {
    reason: String,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<TokenDocument>,
}

/// What is about deployments is answered in this form.
#[derive(Deserialize)]
struct Envelope {
    data: Value,
}

impl Remote {
    pub(crate) fn new(url: &str, access: &AccessArgs) -> Result<Self, Failure> {
        // The server is most often this machine, which no proxy reaches.
        let config = match url.starts_with("https://") {
            true => server::client_config(access.ca.as_deref()),
            false => server::client_config_of_nobody(),
        };
        let config = config.map_err(|error| Failure::Usage(error.to_string()))?;
        let client = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(config)
            .build();
        let client = client.map_err(|error| Failure::unavailable(innermost(&error)))?;
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            token: access.token()?,
        })
    }

    /// Why the server is not ready, if it is not.
    pub(crate) async fn readiness(&self) -> Result<Option<String>, Failure> {
        let request = self.at(Method::GET, "/readiness");
        let answer = request.send().await;
        let answer = answer.map_err(|error| Failure::unavailable(innermost(&error)))?;
        if answer.status().is_success() {
            return Ok(None);
        }
        let status = answer.status();
        let readiness = answer.json::<Readiness>().await;
        Ok(Some(match readiness {
            Ok(readiness) => readiness.reason,
            Err(_) => format!("it answers {status}"),
        }))
    }

    /// Has it read its configuration again: what came of it.
    pub(crate) async fn reload(&self) -> Result<ReloadDocument, Failure> {
        self.document(self.at(Method::POST, "/v1/reload")).await
    }

    pub(crate) async fn create_token(&self, new: &NewToken) -> Result<CreatedToken, Failure> {
        self.document(self.at(Method::POST, "/v1/tokens").json(new))
            .await
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenDocument>, Failure> {
        let list: Tokens = self.document(self.at(Method::GET, "/v1/tokens")).await?;
        Ok(list.tokens)
    }

    pub(crate) async fn revoke_token(&self, id: &str) -> Result<(), Failure> {
        let path = format!("/v1/tokens/{}", encoded(id));
        self.send(self.at(Method::DELETE, &path)).await.map(drop)
    }

    pub(crate) async fn query(
        &self,
        name: &DatabaseName,
        sql: &str,
        params: &[Box<RawValue>],
        mode: RowMode,
    ) -> Result<Vec<u8>, Failure> {
        let row_mode = match mode {
            RowMode::Objects => "object",
            RowMode::Arrays => "array",
        };
        let statement = Statement {
            sql,
            params,
            row_mode,
        };
        let request = self.request(Method::POST, &format!("/{name}/query"));
        self.send(request.json(&statement)).await
    }

    pub(crate) async fn create(
        &self,
        name: &DatabaseName,
        from: Option<&DatabaseName>,
    ) -> Result<DatabaseDocument, Failure> {
        let create = Create {
            name: name.as_str(),
            from: from.map(|from| FromDatabase {
                database: from.as_str(),
            }),
        };
        self.document(self.request(Method::POST, "").json(&create))
            .await
    }

    pub(crate) async fn list(&self) -> Result<Vec<DatabaseDocument>, Failure> {
        let mut databases = Vec::new();
        let mut after: Option<String> = None;
        loop {
            // A name has no character that an address would want escaped.
            let query = after.map_or_else(String::new, |after| format!("?after={after}"));
            let list: List = self.document(self.request(Method::GET, &query)).await?;
            databases.extend(list.databases);
            after = list.next;
            if after.is_none() {
                return Ok(databases);
            }
        }
    }

    pub(crate) async fn info(&self, name: &DatabaseName) -> Result<DatabaseDocument, Failure> {
        self.document(self.request(Method::GET, &format!("/{name}")))
            .await
    }

    pub(crate) async fn configure(
        &self,
        name: &DatabaseName,
        settings: Settings,
    ) -> Result<DatabaseDocument, Failure> {
        let request = self.request(Method::PUT, &format!("/{name}/settings"));
        self.document(request.json(&settings)).await
    }

    pub(crate) async fn flush(&self, name: &DatabaseName) -> Result<(), Failure> {
        let request = self.request(Method::POST, &format!("/{name}/flush"));
        self.send(request).await.map(drop)
    }

    pub(crate) async fn delete(&self, name: &DatabaseName, force: bool) -> Result<(), Failure> {
        let path = format!("/{name}?force={force}");
        self.send(self.request(Method::DELETE, &path))
            .await
            .map(drop)
    }

    /// What was counted of the `top` databases that have the most of `by`.
    pub(crate) async fn figures(&self, top: usize, by: &str) -> Result<FiguresPage, Failure> {
        let path = format!("/v1/figures?top={top}&by={by}");
        self.document(self.at(Method::GET, &path)).await
    }

    /// Deploys an archive: the body of the answer.
    pub(crate) async fn deploy(
        &self,
        headers: &[(&'static str, String)],
        archive: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let mut request = self.at(Method::POST, "/api/v1/deploy");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.header("content-type", "application/zip");
        self.send(request.body(archive)).await
    }

    /// What is asked about deployments: `data` of the answer.
    pub(crate) async fn data(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let request = self.at(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let Envelope { data } = self.document(request).await?;
        Ok(data)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.at(method, &format!("/v1/databases{path}"))
    }

    fn at(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(&**token),
            None => request,
        }
    }

    async fn document<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let body = self.send(request).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::unavailable(format!(
                "{} does not answer as a Dormouse server: {error}",
                self.url
            ))
        })
    }

    /// The body of a successful answer.
    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let done = response.status().is_success();
        let body = response.bytes().await;
        let body = body.map_err(|error| self.unreachable(&error))?.to_vec();
        if done {
            Ok(body)
        } else {
            Err(Failure::request(body))
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unavailable(format!(
            "no server at {}: {}\nStart one with `dormouse serve`, name another with --server or \
             DORMOUSE_SERVER, or open a data directory with --data.",
            self.url,
            innermost(error)
        ))
    }
}

/// One segment of a path, or a value in a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The innermost reason: the outer ones repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut reason: &dyn Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
