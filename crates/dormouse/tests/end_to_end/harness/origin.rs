//! An external Postgres, and bindings that lead to it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use native::{Native, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Login, Output, Pg, Server, dormouse, run_program, startup};

/// The origin's password in these tests; the rest of a URL has none like it.
pub(crate) const SECRET: &str = "origin-secret-7";

/// A native PostgreSQL that asks for a password.
pub(crate) struct Origin {
    pub(crate) native: Native,
    _folder: TempDir,
}

/// A user of a binding.
pub(crate) struct User {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Origin {
    /// Nothing where there is no PostgreSQL to be had.
    pub(crate) fn start() -> Option<Self> {
        let Some(tools) = std::env::var_os("DORMOUSE_TEST_TOOLS").map(PathBuf::from) else {
            eprintln!("skipped: no native PostgreSQL; `cargo xtask test` brings it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            password: Some(SECRET.to_owned()),
            ..Options::default()
        };
        let native = Native::start(&tools.join("bin"), folder.path(), &options).unwrap();
        Some(Self {
            native,
            _folder: folder,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres:{SECRET}@{}/postgres",
            self.native.address
        )
    }

    /// A session of its own, beside all bindings.
    pub(crate) fn session(&self) -> Pg {
        let mut client = Pg::open(self.native.address);
        client.start_with(&startup("postgres"), SECRET).unwrap();
        client
    }

    /// A binding to it with this name: its document.
    pub(crate) fn bind(&self, server: &Server, name: &str, limits: &Value) -> Value {
        let new = json!({ "name": name, "connectionString": self.url(), "limits": limits });
        let made = server.http().post("/v1/bindings", &new);
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()
    }
}

impl User {
    /// A new one of a binding.
    pub(crate) fn of(server: &Server, binding: &str) -> Self {
        let path = format!("/v1/bindings/{binding}/credentials");
        // Names are of one credential each.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let made = server.http().post(&path, &json!({ "name": name }));
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        Self {
            user: text("user"),
            password: text("password"),
        }
    }

    /// A session without a program of its own.
    pub(crate) fn session(&self, server: &Server) -> Pg {
        Pg::log_in(server.pg, &self.user, &self.password).unwrap()
    }

    pub(crate) fn login<'a>(&'a self, server: &'a Server) -> Login<'a> {
        Login::new(server, &self.user, &self.password)
    }
}

/// `dormouse binding …` of a server.
pub(crate) fn binding(server: &Server, args: &[&str]) -> Output {
    let url = format!("http://{}", server.http);
    run_program(
        dormouse()
            .arg("binding")
            .args(args)
            .args(["--server", &url]),
    )
}
