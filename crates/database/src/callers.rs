//! The roles of those who come without a role of their own: over HTTP, with a scope.

use std::sync::Arc;

use volume::DatabaseId;
use wire::{DatabaseName, PgError, sqlstate};

use crate::authority::Authority;
use crate::database::Database;
use crate::databases::Databases;
use crate::session::{Canceller, Session, SessionOptions, host_settings};

/// The role of who may only read: what `pg_read_all_data` may.
pub const READ_ROLE: &str = "dormouse_read";

/// The role of who may read and write: it makes tables of its own too, but is no superuser.
pub const WRITE_ROLE: &str = "dormouse_write";

/// Makes both roles where they are missing, and the host's schema, before somebody else takes its name. Nobody can log
/// in as them with a password.
const MAKE_ROLES: &str = "DO $$ BEGIN \
    IF pg_catalog.to_regnamespace('dormouse') IS NULL THEN \
        CREATE SCHEMA dormouse; \
    END IF; \
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'dormouse_read') THEN \
        CREATE ROLE dormouse_read; \
        GRANT pg_read_all_data TO dormouse_read; \
    END IF; \
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'dormouse_write') THEN \
        CREATE ROLE dormouse_write; \
        GRANT pg_read_all_data, pg_write_all_data TO dormouse_write; \
        EXECUTE pg_catalog.format('GRANT CREATE ON DATABASE %I TO dormouse_write', pg_catalog.current_database()); \
        IF pg_catalog.to_regnamespace('public') IS NOT NULL THEN \
            GRANT CREATE ON SCHEMA public TO dormouse_write; \
        END IF; \
    END IF; \
END $$";

impl Databases {
    /// Begins a session as [`session`](Self::session) does, for one who has a scope rather than a password: the
    /// roles of scopes are made where they are missing, and so is the database, if `may_create` and the
    /// configuration has databases made on first use.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub async fn session_of_scope(
        &self,
        name: &DatabaseName,
        options: SessionOptions,
        may_create: bool,
    ) -> Result<Session, PgError> {
        let database = match may_create {
            true => self.find_or_make(name).await?,
            false => self.node.find(name)?,
        };
        let is_of_scope = [READ_ROLE, WRITE_ROLE].contains(&&*options.user);
        let begun = self.begin(Arc::clone(&database), options.clone()).await;
        match begun {
            Err(error)
                if is_of_scope && error.code() == sqlstate::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                self.make_roles(name).await?;
                self.begin(database, options).await
            }
            begun => begun,
        }
    }

    /// Sees to it that a database is there, if the configuration has databases made on first use: its id.
    ///
    /// # Errors
    /// 3D000 if it is not there, and none is made.
    pub async fn ensure(&self, name: &DatabaseName) -> Result<DatabaseId, PgError> {
        Ok(self.find_or_make(name).await?.id)
    }

    async fn find_or_make(&self, name: &DatabaseName) -> Result<Arc<Database>, PgError> {
        match self.node.find(name) {
            Err(error)
                if self.node.adjustable.auto_create.get()
                    && error.code() == sqlstate::INVALID_CATALOG_NAME =>
            {
                self.node.find_or_create(&self.doer, name).await
            }
            found => found,
        }
    }

    /// The same for who may not make databases: they must be there.
    ///
    /// # Errors
    /// 3D000 if it is not.
    pub async fn ensure_for(&self, name: &DatabaseName, may_create: bool) -> Result<(), PgError> {
        match may_create {
            true => self.ensure(name).await.map(drop),
            false => self.expect(name),
        }
    }

    async fn make_roles(&self, name: &DatabaseName) -> Result<(), PgError> {
        // Who makes them at the same time makes them wholly, or not at all.
        const TRIES: usize = 3;
        let mut made = Ok(());
        for _ in 0..TRIES {
            made = self.order_as_host(name, MAKE_ROLES).await;
            match &made {
                Err(error) if ["23505", "42710", "42P06"].contains(&error.code()) => {}
                _ => break,
            }
        }
        made
    }

    /// Runs a statement of this program's own in a database, as its administrator, for a few seconds at most. It is
    /// cancelled when nobody waits for it any more.
    async fn order_as_host(&self, name: &DatabaseName, sql: &'static str) -> Result<(), PgError> {
        let options = SessionOptions {
            settings: host_settings(),
            origin: "host".to_owned(),
            authority: Authority::Host,
            ..SessionOptions::default()
        };
        let database = self.node.find(name)?;
        let mut session = Session::begin(Arc::clone(&self.node), database, options).await?;
        let waiting = CancelledWhenDropped(session.canceller());
        let running = tokio::spawn(async move {
            let done = session.query(sql, &[]).await;
            session.close().await;
            done.map(drop)
        });
        let done = running.await;
        drop(waiting);
        done.unwrap_or_else(|error| {
            Err(PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))
        })
    }
}

/// Somebody waits for a session of ours.
struct CancelledWhenDropped(Canceller);

impl Drop for CancelledWhenDropped {
    fn drop(&mut self) {
        // It does nothing where nothing runs any more.
        self.0.cancel();
    }
}
