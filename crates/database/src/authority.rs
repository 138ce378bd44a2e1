//! What a session may do beyond its own database.
//!
//! Postgres knows the roles of one database; these rules are the host's. They follow PostgreSQL's, where
//! every database belongs to the administrator of the node.

use wire::pg::backend::{self, DataRow};
use wire::pg::{DatabaseStatement, frames};
use wire::{PgError, sqlstate};

use crate::session::Session;
use crate::slot;

/// What a session may do beyond its own database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authority {
    /// Everything: the administrator of the node, and whoever comes where nobody is asked for a
    /// password.
    #[default]
    Node,
    /// What its role may: the database must be there, and only who has CREATEDB makes others. The
    /// session cannot become a role that its own may not become.
    Role,
    /// Everything within its own database, as its superuser, and nothing beyond: who comes by a binding.
    Database,
    /// What this program asks for its own ends; it changes nothing that is remembered of roles.
    Host,
}

/// Attributes of the role that a session acts as; whether it owns the database that it is in.
const ATTRIBUTES: &str = "SELECT r.rolsuper OR r.rolcreatedb, \
     r.rolsuper OR pg_catalog.pg_has_role(r.oid, d.datdba, 'USAGE') \
     FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
     WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER AND d.oid OPERATOR(pg_catalog.=) 5::pg_catalog.oid";

impl Session {
    /// Whether the session may run a statement about databases.
    ///
    /// # Errors
    /// 42501 if it may not.
    pub(crate) async fn allow(&mut self, statement: &DatabaseStatement) -> Result<(), PgError> {
        if self.authority() == Authority::Node {
            return Ok(());
        }
        match statement {
            DatabaseStatement::Create { .. } if self.authority() == Authority::Database => {
                Err(denied("permission denied to create database".to_owned())
                    .detail("Whoever comes by a binding has its database, and no other."))
            }
            DatabaseStatement::Create { template, .. } => {
                let (may_create, is_owner) = self.attributes().await?;
                if !may_create {
                    return Err(denied("permission denied to create database".to_owned()));
                }
                match template.as_deref() {
                    None | Some("template0" | "template1") => Ok(()),
                    Some(own) if own == self.database().as_str() && is_owner => Ok(()),
                    // Whether there is such a database is not said either.
                    Some(other) => Err(denied(format!(
                        "permission denied to copy database \"{other}\""
                    ))
                    .detail("A role may copy the database that it is in, if it owns it.")),
                }
            }
            DatabaseStatement::Drop { name, .. } => Err(not_owner(name)),
            DatabaseStatement::Rename { from, .. } => Err(not_owner(from)),
        }
    }

    async fn attributes(&mut self) -> Result<(bool, bool), PgError> {
        let output = self
            .run_all(ATTRIBUTES)
            .await
            .map_err(|ended| ended.error)?;
        slot::check(&output)?;
        let row = frames(&output).find(|(kind, _)| *kind == backend::kind::DATA_ROW);
        let mut row = row.map(|(_, body)| DataRow::decode(body)).transpose()?;
        let mut is = || row.as_mut().and_then(Iterator::next) == Some(Some(b"t"));
        Ok((is(), is()))
    }
}

fn not_owner(name: &str) -> PgError {
    denied(format!("must be owner of database {name}"))
        .detail("Databases belong to the node's administrator, the role \"postgres\".")
}

fn denied(message: String) -> PgError {
    PgError::error(sqlstate::INSUFFICIENT_PRIVILEGE, message)
}
