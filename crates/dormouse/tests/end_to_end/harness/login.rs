//! psql with a password, and the settings of servers that ask for one.

use std::process::Command;

use super::{Output, Server, program, run_program};

/// The administrator's password in these tests.
pub(crate) const ADMIN: &str = "the admin's own";

/// Passwords are asked for.
pub(crate) const SCRAM: [(&str, &str); 2] = [
    ("DORMOUSE_AUTH__METHOD", "scram"),
    ("DORMOUSE_ADMIN_PASSWORD", ADMIN),
];

/// One login with psql.
pub(crate) struct Login<'a> {
    pub(crate) server: &'a Server,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
    /// More of libpq's parameters.
    pub(crate) more: &'a str,
}

impl<'a> Login<'a> {
    pub(crate) fn new(server: &'a Server, user: &'a str, password: &'a str) -> Self {
        Self {
            server,
            user,
            password,
            database: "shop",
            more: "",
        }
    }

    pub(crate) fn admin(server: &'a Server) -> Self {
        Self::new(server, "postgres", ADMIN)
    }

    pub(crate) fn to(self, database: &'a str) -> Self {
        Self { database, ..self }
    }

    pub(crate) fn with(self, more: &'a str) -> Self {
        Self { more, ..self }
    }

    /// psql, which says what went wrong with its SQLSTATE.
    pub(crate) fn psql(&self) -> Command {
        let mut command = program("psql", 18).expect("whoever asks has looked");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.arg(format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={} dbname={} {}",
            self.server.pg.port(),
            self.user,
            self.database,
            self.more
        ));
        command.env("PGPASSWORD", self.password);
        command.args(["--no-psqlrc", "-qAtw", "-v", "VERBOSITY=verbose"]);
        command.args(["-v", "ON_ERROR_STOP=1"]);
        command
    }

    pub(crate) fn run(&self, sql: &str) -> Output {
        run_program(self.psql().args(["-c", sql]))
    }

    /// What a statement gives.
    #[track_caller]
    pub(crate) fn gives(&self, sql: &str) -> String {
        self.run(sql).done().trim_end().to_owned()
    }

    /// Why there is no session.
    #[track_caller]
    pub(crate) fn is_refused(&self) -> String {
        self.run("select 1").failed(2)
    }

    /// Why a statement failed.
    #[track_caller]
    pub(crate) fn fails(&self, sql: &str) -> String {
        self.run(sql).failed(1)
    }
}

/// Whether there is a psql that can do all of this.
pub(crate) fn has_psql() -> bool {
    program("psql", 18).is_some()
}
