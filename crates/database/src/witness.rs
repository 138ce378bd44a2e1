//! Who changes the list of databases, for whoever keeps a record of it.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::Instrument as _;
use wire::{DatabaseName, PgError, sqlstate};

use crate::node::{Node, Removal, Source, blocking};

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doer {
    /// A token, a subject, a role; `host` for this program.
    pub who: String,
    /// The address that it comes from.
    pub from: Option<SocketAddr>,
}

impl Default for Doer {
    fn default() -> Self {
        Self {
            who: "host".to_owned(),
            from: None,
        }
    }
}

/// A change of the list of databases, or of the settings of one.
#[derive(Debug, Clone)]
pub struct Change {
    /// Who makes it.
    pub doer: Arc<Doer>,
    /// `database.create`, `database.fork`, `database.delete`, `database.rename`, `database.configure`.
    pub action: &'static str,
    /// Of which database.
    pub database: String,
    /// What else there is to say.
    pub detail: Option<String>,
}

/// Keeps a record of changes.
pub trait Witness: Send + Sync {
    /// Writes down that a change begins (`outcome` is none), or what came of it: `ok`, or the SQLSTATE of the error.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// It cannot be written. A change that begins is not made then; of one that was made, who asked for it is told.
    fn write(&self, change: &Change, outcome: Option<&str>) -> Result<(), PgError>;
}

impl Change {
    pub(crate) fn new(
        doer: &Arc<Doer>,
        action: &'static str,
        name: &DatabaseName,
        detail: Option<String>,
    ) -> Self {
        Self {
            doer: Arc::clone(doer),
            action,
            database: name.to_string(),
            detail,
        }
    }
}

impl Node {
    /// Makes a database.
    pub(crate) async fn create(
        self: &Arc<Self>,
        doer: &Arc<Doer>,
        name: &DatabaseName,
        source: Source,
    ) -> Result<(), PgError> {
        let (action, detail) = match &source {
            Source::Template => ("database.create", None),
            Source::Database(parent) => ("database.fork", Some(format!("from {parent}"))),
        };
        let change = Change::new(doer, action, name, detail);
        let (node, name) = (Arc::clone(self), name.clone());
        let work = async move { node.create_unseen(name, source).await };
        self.witnessed(change, work).await
    }

    /// Removes a database.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        doer: &Arc<Doer>,
        name: &DatabaseName,
        removal: Removal,
    ) -> Result<(), PgError> {
        let detail = removal.force.then(|| "by force".to_owned());
        let change = Change::new(doer, "database.delete", name, detail);
        let (node, name) = (Arc::clone(self), name.clone());
        let work = async move { node.delete_unseen(&name, removal).await };
        self.witnessed(change, work).await
    }

    /// Gives a database another name.
    pub(crate) async fn rename(
        self: &Arc<Self>,
        doer: &Arc<Doer>,
        from: &DatabaseName,
        to: &DatabaseName,
    ) -> Result<(), PgError> {
        let change = Change::new(doer, "database.rename", from, Some(format!("to {to}")));
        let (node, from, to) = (Arc::clone(self), from.clone(), to.clone());
        let work = async move { node.rename_unseen(&from, &to).await };
        self.witnessed(change, work).await
    }

    /// Makes a change, with a record of it if one is kept: then it comes to its end also when nobody waits for it
    /// any more.
    pub(crate) async fn witnessed<T: Send + 'static>(
        &self,
        change: Change,
        work: impl Future<Output = Result<T, PgError>> + Send + 'static,
    ) -> Result<T, PgError> {
        let Some(witness) = &self.options.witness else {
            return work.await;
        };
        let all = recorded(Arc::clone(witness), change, work);
        match tokio::spawn(all.in_current_span()).await {
            Ok(done) => done,
            Err(error) => Err(PgError::error(sqlstate::INTERNAL_ERROR, error.to_string())),
        }
    }
}

async fn recorded<T>(
    witness: Arc<dyn Witness>,
    change: Change,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let change = Arc::new(change);
    let write = |outcome: Option<String>| {
        let (witness, change) = (Arc::clone(&witness), Arc::clone(&change));
        blocking(move || witness.write(&change, outcome.as_deref()))
    };
    let begins = write(None).await;
    begins.map_err(|error| error.detail("Nothing was changed."))?;
    let done = work.await;
    let outcome = match &done {
        Ok(_) => "ok",
        Err(error) => error.code(),
    };
    match (write(Some(outcome.to_owned())).await, done) {
        (Err(error), Ok(_)) => Err(error.detail("The change itself was made.")),
        (_, done) => done,
    }
}
