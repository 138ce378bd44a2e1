//! Who asks: the header `Neon-Connection-String`.

use axum::http::HeaderMap;
use database::DatabaseName;
use wire::http::ConnectionString;
use wire::{PgError, sqlstate};

use crate::pgwire::Login;

const CONNECTION_STRING: &str = "neon-connection-string";

/// Who asks, for which database, and with which settings.
pub(super) struct Entrance {
    pub(super) login: Login,
    pub(super) settings: Vec<(String, String)>,
}

impl Entrance {
    /// # Errors
    /// 28000 without the header, 22023 if it cannot be used.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, PgError> {
        let value = headers.get(CONNECTION_STRING).ok_or_else(|| {
            PgError::error(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                "the header Neon-Connection-String is missing",
            )
            .hint("It names user, password and database: postgresql://user:password@host/database.")
        })?;
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            PgError::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the header Neon-Connection-String is not UTF-8",
            )
        })?;
        let string = ConnectionString::parse(text)?;
        Ok(Self {
            login: Login {
                user: string.user,
                database: string.database,
                password: string.password,
            },
            settings: string.settings,
        })
    }

    /// # Errors
    /// 3D000 if there can be no such database.
    pub(super) fn database(&self) -> Result<DatabaseName, PgError> {
        let name = &self.login.database;
        DatabaseName::parse(name).map_err(|rule| {
            PgError::error(
                sqlstate::INVALID_CATALOG_NAME,
                format!("database \"{name}\" does not exist"),
            )
            .detail(format!("It cannot exist: {rule}."))
        })
    }
}
