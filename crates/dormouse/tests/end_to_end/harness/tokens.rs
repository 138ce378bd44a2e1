//! A server that asks for tokens, and one of each scope.

use std::path::Path;

use serde_json::{Value, json};

use super::{Response, Server, dormouse, run_program};

/// A server, and a token of each scope; those of the scopes `write` and `read` are for the database `shop`.
pub(crate) struct Tokens {
    pub(crate) server: Server,
    folder: tempfile::TempDir,
    pub(crate) admin: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

fn create(file: &Path, name: &str, args: &[&str]) -> String {
    let mut command = dormouse();
    command.args(["token", "create", "--name", name]).args(args);
    let made = run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", file));
    made.done().trim_end().to_owned()
}

impl Tokens {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let token = |name: &str, args: &[&str]| create(&file, name, args);
        let admin = token("root", &["--scope", "admin"]);
        let write = token("writer", &["--scope", "write", "--database", "shop"]);
        let read = token("reader", &["--scope", "read", "--database", "shop"]);
        let path = file.to_str().unwrap().to_owned();
        let server = Server::start_with(&[("DORMOUSE_AUTH__TOKENS_FILE", &path)]);
        Self {
            server,
            folder,
            admin,
            write,
            read,
        }
    }

    /// What takes a token out of the file, at once; the server is not told.
    pub(crate) fn revoking_in_file(&self, name: &str) -> impl FnOnce() + use<> {
        let folder = self.folder.path();
        let (file, next) = (folder.join("tokens"), folder.join("next"));
        std::fs::copy(&file, &next).unwrap();
        let mut command = dormouse();
        command.args(["token", "revoke", name]);
        run_program(command.env("DORMOUSE_AUTH__TOKENS_FILE", &next)).done();
        move || std::fs::rename(next, file).unwrap()
    }

    /// Another token.
    pub(crate) fn create(&self, name: &str, args: &[&str]) -> String {
        create(&self.folder.path().join("tokens"), name, args)
    }

    pub(crate) fn post(&self, token: &str, path: &str, body: &Value) -> Response {
        self.post_with(token, path, &[], body)
    }

    /// With the header `Idempotency-Key`.
    pub(crate) fn post_once(&self, token: &str, key: &str, path: &str, body: &Value) -> Response {
        self.post_with(token, path, &[("idempotency-key", key)], body)
    }

    fn post_with(
        &self,
        token: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [&[("authorization", &*bearer)], headers].concat();
        let body = body.to_string();
        let mut http = self.server.http();
        http.request_with("POST", path, &headers, Some(&body))
    }

    pub(crate) fn query(&self, token: &str, sql: &str) -> Response {
        self.post(token, "/query", &json!({ "sql": sql }))
    }

    /// As the administrator, in the same database.
    #[track_caller]
    pub(crate) fn admin(&self, sql: &str) -> Value {
        let path = "/v1/databases/shop/query";
        let answer = self.post(
            &self.admin,
            path,
            &json!({ "sql": sql, "rowMode": "array" }),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["rows"].clone()
    }
}
