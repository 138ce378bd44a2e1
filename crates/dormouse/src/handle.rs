//! One database of an open data directory.

use database::{DatabaseName, Databases, SessionOptions};

use crate::Error;
use crate::rows::Rows;
use crate::session::Session;
use crate::to_text::ToText;

/// The role of an embedder: the superuser that every database has.
const USER: &str = "postgres";

/// One database. Holding it costs nothing: the database sleeps until it is asked.
#[derive(Clone)]
pub struct Database {
    databases: Databases,
    name: DatabaseName,
}

impl Database {
    pub(crate) fn new(databases: Databases, name: DatabaseName) -> Self {
        Self { databases, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Runs one statement in a transaction of its own.
    pub async fn query(&self, sql: &str, params: &[&(dyn ToText + Sync)]) -> Result<Rows, Error> {
        let mut session = self.session().await?;
        let rows = session.query(sql, params).await;
        session.close().await;
        rows
    }

    /// Begins a session. While it lives, others of the same database wait.
    pub async fn session(&self) -> Result<Session, Error> {
        let options = SessionOptions {
            user: USER.to_owned(),
            settings: Vec::new(),
            origin: "the embedding program".to_owned(),
            ..SessionOptions::default()
        };
        let session = self.databases.session(&self.name, options).await?;
        Ok(Session::new(session))
    }
}
