//! What the host does for a session beside its backend: database statements, the list of databases, what a
//! full disk forbids.

use std::sync::Arc;

use engine::{Backend, BackendError, User};
use wire::pg::{DatabaseStatement, Frame, TransactionStatus, statement};
use wire::{DatabaseName, PgError, sqlstate};

use super::{Session, SessionEnded, as_error, sql};
use crate::catalog;
use crate::disk_watch::Room;
use crate::node::{Removal, Source};
use crate::slot;

impl Session {
    pub(super) async fn run_database_statement(
        &mut self,
        found: &DatabaseStatement,
    ) -> Result<(), PgError> {
        self.allow(found).await?;
        let name = |text: &str, code: &str| {
            DatabaseName::parse(text).map_err(|error| PgError::error(code, error.to_string()))
        };
        let node = Arc::clone(&self.node);
        match found {
            DatabaseStatement::Create {
                name: text,
                template,
                ..
            } => {
                let new = name(text, sqlstate::INVALID_NAME)?;
                let source = match template.as_deref() {
                    None | Some("template0" | "template1") => Source::Template,
                    Some(parent) => Source::Database(name(parent, sqlstate::INVALID_CATALOG_NAME)?),
                };
                node.create(&self.doer, &new, source)
                    .await
                    .map_err(as_error)
            }
            DatabaseStatement::Drop {
                name: text,
                if_exists,
                force,
            } => {
                let old = name(text, sqlstate::INVALID_CATALOG_NAME);
                if let Ok(old) = &old
                    && *old == self.database.name()
                {
                    return Err(PgError::error(
                        sqlstate::OBJECT_IN_USE,
                        "cannot drop the currently open database",
                    ));
                }
                let dropped = match &old {
                    Ok(old) => node.delete(&self.doer, old, Removal::any(*force)).await,
                    Err(error) => Err(error.clone()),
                };
                match dropped {
                    Err(error) if *if_exists && error.code() == sqlstate::INVALID_CATALOG_NAME => {
                        Ok(())
                    }
                    result => result.map_err(as_error),
                }
            }
            DatabaseStatement::Rename { from, to } => {
                let from = name(from, sqlstate::INVALID_CATALOG_NAME)?;
                let to = name(to, sqlstate::INVALID_NAME)?;
                if from == self.database.name() {
                    return Err(PgError::error(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        "current database cannot be renamed",
                    ));
                }
                node.rename(&self.doer, &from, &to).await.map_err(as_error)
            }
        }
    }

    /// Brings `pg_database` up to date before a statement that mentions it.
    pub(super) async fn refresh_catalog(&mut self, frame: &Frame) -> Result<(), SessionEnded> {
        let generation = self.node.generation();
        let shown = self.slot.as_ref().and_then(|slot| slot.catalog_generation);
        if shown == Some(generation)
            || !sql(frame).is_some_and(|text| statement::mentions(text, "pg_database"))
        {
            return Ok(());
        }
        let own = self.database.id;
        let others = self.node.directory.page(None, catalog::DATABASES_MAX + 1);
        let others = others.map_err(|error| self.ended(error))?;
        let others = others
            .into_iter()
            .filter(|(_, record)| record.id != own.get())
            .map(|(name, record)| (record.id, name));
        let sql = catalog::refresh(others);
        // What users have made under the names that stand in it must not run with the superuser's rights.
        // Unless it is named, the schema for temporary tables, and types, comes first.
        let sql = format!("SET LOCAL search_path = pg_catalog, pg_temp; {sql}");
        // Only the superuser may write the catalog.
        let user = self.become_superuser().await?;
        let output = self.run_all(&sql).await?;
        self.set_user(user).await?;
        match slot::check(&output) {
            Ok(()) => {
                if let Some(slot) = &mut self.slot {
                    slot.catalog_generation = Some(generation);
                }
            }
            // The list is then what it was; the statement itself must not suffer.
            Err(error) => {
                tracing::warn!(error = %error.for_log(), "pg_database could not be refreshed");
            }
        }
        Ok(())
    }

    pub(super) async fn become_superuser(&mut self) -> Result<User, SessionEnded> {
        let backend = self.backend()?;
        let became = backend.become_superuser().await;
        became.map_err(|error| self.lost(&error))
    }

    pub(super) async fn set_user(&mut self, user: User) -> Result<(), SessionEnded> {
        let backend = self.backend()?;
        let set = backend.set_user(user).await;
        set.map_err(|error| self.lost(&error))
    }

    fn backend(&mut self) -> Result<&mut Backend, SessionEnded> {
        let ended = self.ended(slot::no_backend());
        let backend = self.slot.as_mut().and_then(|slot| slot.backend.as_mut());
        backend.ok_or(ended)
    }

    /// The backend ended under a statement of ours.
    fn lost(&mut self, error: &BackendError) -> SessionEnded {
        if let Some(slot) = &mut self.slot {
            slot.lose(&self.database);
        }
        self.ended(slot::start_error(error))
    }

    /// Makes the transactions that follow read-only when the disk is all but full, and no longer when it
    /// is not. Who says READ WRITE writes nevertheless.
    pub(super) async fn mind_the_disk(&mut self) -> Result<(), PgError> {
        let critical = self.node.disk.room() == Room::Critical;
        if critical == self.read_only || self.status != TransactionStatus::Idle || !self.at_rest {
            return Ok(());
        }
        let Some(slot) = self.slot.as_mut() else {
            return Ok(());
        };
        // A client may have chosen it for itself.
        let chosen = "pg_catalog.current_setting('dormouse.read_only', true)";
        let sql = match critical {
            true => "SELECT pg_catalog.set_config('dormouse.read_only', \
                     pg_catalog.current_setting('default_transaction_read_only'), false), \
                     pg_catalog.set_config('default_transaction_read_only', 'on', false)"
                .to_owned(),
            false => format!(
                "SELECT pg_catalog.set_config('default_transaction_read_only', {chosen}, false)"
            ),
        };
        if let Err(error) = slot.run_named(&sql).await {
            if slot.backend.is_none() {
                slot.lose(&self.database);
            }
            return Err(error);
        }
        self.read_only = critical;
        Ok(())
    }
}
