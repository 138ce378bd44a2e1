//! Every endpoint, asked by curl: under each way to name a database, over HTTP/1.1 and HTTP/2, compressed and with `If-None-Match`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::provider::{Provider, SigningKey};
use crate::harness::{Server, dormouse, run_program};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// A server, and curl with the tokens that it needs.
struct Curl {
    server: Server,
    _folder: tempfile::TempDir,
    _provider: Provider,
    admin: String,
    /// Of a subject, which has a database of its own.
    subject: String,
    database: String,
    visited: RefCell<BTreeSet<(String, String)>>,
    document: Value,
}

/// A way to name the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Path,
    Header,
    Host,
    Subject,
}

/// What curl said.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim_end())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Curl {
    /// None, and a word about it, without a curl that can do all of this.
    fn start() -> Option<Self> {
        let version = Command::new("curl").arg("--version").output();
        let version = version.map_or_else(
            |_| String::new(),
            |said| String::from_utf8(said.stdout).unwrap(),
        );
        if !version.contains("HTTP2") {
            eprintln!("skipped: there is no curl with HTTP/2 here");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        let mut create = dormouse();
        create.args(["token", "create", "--name", "root", "--scope", "admin"]);
        create.env("DORMOUSE_AUTH__TOKENS_FILE", &tokens);
        let admin = run_program(&mut create).done().trim_end().to_owned();
        let provider = Provider::start();
        let key = SigningKey::new("first");
        provider.publish(&[&key]);
        let subject = key.sign(&provider.claims("anna"));
        let mut name = dormouse();
        name.args(["token", "database", "anna", "--issuer", &provider.url()]);
        let database = run_program(&mut name).done().trim_end().to_owned();
        let server = Server::start_with(&[
            ("DORMOUSE_AUTH__TOKENS_FILE", tokens.to_str().unwrap()),
            ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
            ("DORMOUSE_AUTH__JWT__AUDIENCE", "db"),
            ("DORMOUSE_ROUTING__BASE_DOMAIN", "example.com"),
        ]);
        let mut this = Self {
            server,
            _folder: folder,
            _provider: provider,
            admin,
            subject,
            database,
            visited: RefCell::default(),
            document: Value::Null,
        };
        let said = this.run(&[], "localhost", "/openapi.json", &["-X", "GET"]);
        this.document = said.json();
        Some(this)
    }

    fn run(&self, more: &[&str], host: &str, path: &str, args: &[&str]) -> Said {
        // A WebSocket stays open until curl has had its time, and what comes before may take longer than that.
        let patience = match more.contains(&UPGRADE[1]) {
            true => &["0.5", "4", "60"][..],
            false => &["60"],
        };
        let mut tries = patience
            .iter()
            .map(|seconds| self.try_run(seconds, more, host, path, args));
        let said = tries.find(Option::is_some).flatten();
        said.unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// None if no answer has come within these seconds.
    fn try_run(
        &self,
        seconds: &str,
        more: &[&str],
        host: &str,
        path: &str,
        args: &[&str],
    ) -> Option<Said> {
        let port = self.server.http.port();
        let mut curl = Command::new("curl");
        // Nothing of the user's own configuration, no proxy.
        curl.args([
            "--disable",
            "--noproxy",
            "*",
            "-sS",
            "-i",
            "--max-time",
            seconds,
        ]);
        curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]);
        let holds_token = more.iter().any(|arg| arg.starts_with("authorization:"));
        if !holds_token {
            curl.args(["-H", &format!("authorization: Bearer {}", self.admin)]);
        }
        curl.args(more)
            .args(args)
            .arg(format!("http://{host}:{port}{path}"));
        let said = run_program(&mut curl);
        // 28: its time is over.
        assert!([Some(0), Some(28)].contains(&said.code), "{path}: {said:?}");
        let (head, body) = said.stdout.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Said {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    /// Asks an endpoint, by the path that the document has for it with names in their places.
    fn visit(
        &self,
        (method, template): (&str, &str),
        names: &[(&str, &str)],
        more: &[&str],
        body: Option<&Value>,
    ) -> Said {
        let mut path = template.to_owned();
        for (name, value) in names {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "{path}");
        let body = body.map(Value::to_string);
        let mut args = vec!["-X", method];
        if let Some(body) = &body {
            args.extend(["-H", "content-type: application/json", "-d", body]);
        }
        let host = more.iter().position(|arg| *arg == HOST);
        let (host, more) = match host {
            Some(at) => (more[at + 1], [&more[..at], &more[at + 2..]].concat()),
            None => ("localhost", more.to_vec()),
        };
        let said = self.run(&more, host, &path, &args);
        self.expect_documented(method, template, &said);
        self.visited
            .borrow_mut()
            .insert((method.to_owned(), template.to_owned()));
        said
    }

    /// The answer is one that the document tells of.
    #[track_caller]
    fn expect_documented(&self, method: &str, template: &str, said: &Said) {
        let operation = &self.document["paths"][template][method.to_ascii_lowercase()];
        let answers = operation["responses"].as_object();
        let answers = answers.unwrap_or_else(|| panic!("{method} {template} is not documented"));
        let status = said.status.to_string();
        assert!(
            answers.contains_key(&status),
            "{method} {template}: {said:?}"
        );
    }
}

/// Stands before the host that is asked, among the arguments.
const HOST: &str = "the host:";

/// One of the endpoints of a database, under a way to name it.
struct Asked<'a> {
    curl: &'a Curl,
    way: Way,
    version: &'a str,
}

impl Asked<'_> {
    fn ask(&self, method: &str, rest: &str, id: &str, args: &[&str], body: Option<&Value>) -> Said {
        let Self { curl, way, version } = self;
        let template = match way {
            Way::Path => format!("/v1/databases/{{name}}{rest}"),
            _ => rest.to_owned(),
        };
        let header = format!("x-dormouse-database: {}", curl.database);
        let host = format!("{}.example.com", curl.database);
        let bearer = format!("authorization: Bearer {}", curl.subject);
        let mut more = vec![*version];
        match way {
            Way::Path => {}
            Way::Header => more.extend(["-H", &header]),
            Way::Host => more.extend([HOST, &host]),
            Way::Subject => more.extend(["-H", &bearer]),
        }
        more.extend(args);
        let names = [("name", &*curl.database), ("id", id)];
        let said = self.curl.visit((method, &template), &names, &more, body);
        if *version == VERSIONS[1] {
            assert!(said.head.starts_with("HTTP/2 "), "{said:?}");
        }
        said
    }

    #[track_caller]
    fn get(&self, rest: &str) -> Value {
        let said = self.ask("GET", rest, "", &["--compressed"], None);
        assert_eq!(said.status, 200, "{:?} {rest}: {said:?}", self.way);
        said.json()
    }

    #[track_caller]
    fn post(&self, rest: &str, id: &str, status: u16, body: &Value) -> Said {
        let said = self.ask("POST", rest, id, &["--compressed"], Some(body));
        assert_eq!(said.status, status, "{:?} {rest}: {said:?}", self.way);
        said
    }

    fn all(&self) {
        let one = |sql: &str| json!({"sql": sql, "rowMode": "array"});
        let name = one("select current_database()");
        let of_curl = json!([[self.curl.database]]);
        let said = self.post("/query", "", 200, &name);
        assert_eq!(said.json()["rows"], of_curl, "{:?}", self.way);
        for rest in ["/ping", "/health", "/config", "/liveness", "/readiness"] {
            self.get(rest);
        }
        assert_eq!(self.get("/config")["database"], self.curl.database.as_str());
        assert_eq!(self.get("/health")["state"], "awake");
        assert!(self.get("/schema")["tables"].is_array());

        let statement = json!({"sql": name["sql"]});
        let several = json!({"statements": [statement], "rowMode": "array"});
        for rest in ["/batch", "/transaction"] {
            let said = self.post(rest, "", 200, &several).json();
            assert_eq!(said["results"][0]["rows"], of_curl, "{rest}");
        }
        for end in ["commit", "rollback"] {
            let begun = self.post("/transactions", "", 201, &json!({})).json();
            let id = begun["id"].as_str().unwrap();
            let said = self.post("/transactions/{id}/query", id, 200, &name);
            assert_eq!(said.json()["rows"], of_curl);
            self.post(&format!("/transactions/{{id}}/{end}"), id, 204, &json!({}));
        }
        self.compressed_and_known();
        self.socket();
    }

    fn compressed_and_known(&self) {
        let large = json!({"sql": "select repeat('x', 10000) as x"});
        let said = self.post("/query", "", 200, &large);
        assert!(said.header("content-encoding").is_some(), "{}", said.head);
        assert_eq!(said.json()["rows"][0]["x"].as_str().unwrap().len(), 10_000);
        let tag = said.header("etag").unwrap();
        let known = format!("if-none-match: {tag}");
        let said = self.ask("POST", "/query", "", &["-H", &known], Some(&large));
        assert_eq!((said.status, &*said.body), (304, ""), "{said:?}");
        assert_eq!(said.header("etag"), Some(tag));
    }

    /// curl speaks no WebSocket; it can ask for one.
    fn socket(&self) {
        if self.version == VERSIONS[1] {
            return;
        }
        assert_eq!(self.ask("GET", "/ws", "", UPGRADE, None).status, 101);
    }
}

const UPGRADE: &[&str] = &[
    "-H",
    "connection: upgrade",
    "-H",
    "upgrade: websocket",
    "-H",
    "sec-websocket-version: 13",
    "-H",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// What is asked of the node, and of databases as such.
fn node(curl: &Curl, version: &str) {
    let ask =
        |method: &str, template: &str, names: &[(&str, &str)], status: u16, body: Option<Value>| {
            let more = [version, "--compressed"];
            let said = curl.visit((method, template), names, &more, body.as_ref());
            assert_eq!(said.status, status, "{method} {template}: {said:?}");
            said
        };
    let get = |template: &str| ask("GET", template, &[], 200, None);
    for template in [
        "/v1/databases",
        "/v1/figures",
        "/v1/tokens",
        "/v1/bindings",
        "/metrics",
        "/openapi.json",
    ] {
        get(template);
    }
    // Where no database is named these are about the node.
    for template in ["/ping", "/health", "/config", "/liveness", "/readiness"] {
        get(template);
    }
    let name = &[("name", "made")][..];
    ask(
        "POST",
        "/v1/databases",
        &[],
        201,
        Some(json!({"name": "made"})),
    );
    ask("GET", "/v1/databases/{name}", name, 200, None);
    ask("GET", "/v1/databases/{name}/figures", name, 200, None);
    let settings = json!({"maintenance": false});
    ask(
        "PUT",
        "/v1/databases/{name}/settings",
        name,
        200,
        Some(settings),
    );
    ask("POST", "/v1/databases/{name}/flush", name, 204, None);
    ask("DELETE", "/v1/databases/{name}", name, 204, None);
    ask("POST", "/v1/reload", &[], 200, None);
    let token = json!({"name": "guest", "scope": "read"});
    let made = ask("POST", "/v1/tokens", &[], 201, Some(token)).json();
    let id = made["id"].as_str().unwrap();
    ask("DELETE", "/v1/tokens/{id}", &[("id", id)], 204, None);
    let string = format!(
        "neon-connection-string: postgres://postgres@h/{}",
        curl.database
    );
    let query = json!({"query": "select 1 as one"});
    let more = [version, "--compressed", "-H", &string];
    let said = curl.visit(("POST", "/sql"), &[], &more, Some(&query));
    assert_eq!(said.json()["rows"][0]["one"], 1, "{said:?}");
    if version == VERSIONS[0] {
        assert_eq!(curl.visit(("GET", "/v2"), &[], UPGRADE, None).status, 101);
    }
    bindings(&ask);
    deployments(&ask);
}

/// What asks an endpoint by curl: method, path, names in it, the status that is right, the body.
type Ask<'a> = &'a dyn Fn(&str, &str, &[(&str, &str)], u16, Option<Value>) -> Said;

/// Of a database that is ours; what else they do is for the tests of bindings.
fn bindings(ask: Ask<'_>) {
    ask(
        "POST",
        "/v1/databases",
        &[],
        201,
        Some(json!({"name": "bound"})),
    );
    let own = json!({"name": "own", "database": "bound"});
    let made = ask("POST", "/v1/bindings", &[], 201, Some(own)).json();
    let id = &[("id", made["id"].as_str().unwrap())][..];
    let one = "/v1/bindings/{id}";
    ask("GET", one, id, 200, None);
    ask("PATCH", one, id, 200, Some(json!({"name": "other"})));
    ask("POST", "/v1/bindings/{id}/check", id, 200, None);
    ask("POST", "/v1/bindings/{id}/restart", id, 204, None);
    let credentials = "/v1/bindings/{id}/credentials";
    let made = ask("POST", credentials, id, 201, Some(json!({"name": "app"}))).json();
    let user = made["user"].as_str().unwrap();
    let of_user = [id, &[("user", user)]].concat();
    ask(
        "DELETE",
        "/v1/bindings/{id}/credentials/{user}",
        &of_user,
        204,
        None,
    );
    ask("DELETE", one, id, 204, None);
    ask(
        "DELETE",
        "/v1/databases/{name}",
        &[("name", "bound")],
        204,
        None,
    );

    let configs = "/client/v4/accounts/{account}/hyperdrive/configs";
    let of_none = [("account", "0123"), ("id", "none")];
    ask("GET", configs, &of_none, 200, None);
    ask("POST", configs, &of_none, 400, Some(json!({})));
    let one = "/client/v4/accounts/{account}/hyperdrive/configs/{id}";
    for method in ["GET", "DELETE"] {
        ask(method, one, &of_none, 404, None);
    }
    // It is looked at what is said before of whom.
    ask("PUT", one, &of_none, 400, Some(json!({})));
    ask("PATCH", one, &of_none, 404, Some(json!({})));
}

/// Where nothing is deployed; what else they do is for the tests of apps.
fn deployments(ask: Ask<'_>) {
    let of_none = [("owner", "acme"), ("repository", "none")];
    ask("POST", "/api/v1/deploy", &[], 400, None);
    ask("GET", "/api/v1/deployments", &[], 200, None);
    let one = "/api/v1/deployments/{owner}/{repository}";
    for method in ["GET", "DELETE"] {
        ask(method, one, &of_none, 404, None);
    }
    let back = "/api/v1/deployments/{owner}/{repository}/rollback";
    ask("POST", back, &of_none, 404, Some(json!({})));
    for template in [
        "/api/v1/logs/{owner}/{repository}",
        "/api/v1/usage/{owner}/{repository}",
    ] {
        ask("GET", template, &of_none, 404, None);
    }
}

#[test]
fn every_endpoint_answers_curl_however_the_database_is_named() {
    let Some(curl) = Curl::start() else { return };
    for version in VERSIONS {
        for way in [Way::Path, Way::Header, Way::Host, Way::Subject] {
            let curl = &curl;
            Asked { curl, way, version }.all();
        }
        node(&curl, version);
    }
    let paths = curl.document["paths"].as_object().unwrap();
    let methods = ["get", "head", "post", "put", "patch", "delete"];
    let documented: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = methods.iter().filter(|method| item[**method].is_object());
            methods.map(|method| (method.to_ascii_uppercase(), path.clone()))
        })
        .collect();
    let visited = curl.visited.borrow();
    let missing: Vec<_> = documented.difference(&visited).collect();
    assert!(missing.is_empty(), "not asked: {missing:?}");
}
