//! Bindings that somebody lends for as long as this process runs.

use std::time::Duration;

use pooler::{Binding, BindingTarget, BindingsError, Caching, Failure, Limits, Origin, UrlError};

use super::ManagedBindings;

/// Why a binding cannot be lent.
#[derive(Debug, thiserror::Error)]
pub enum LendError {
    /// Its connection string is wrong; what is in it is not told.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It cannot be a binding.
    #[error(transparent)]
    Binding(#[from] BindingsError),
}

impl ManagedBindings {
    /// A binding to an external Postgres that is on no disk: its id. It begins as every binding does.
    ///
    /// # Errors
    ///
    /// Which part of the connection string is wrong; if another binding has the name.
    pub fn lend(&self, name: &str, connection_string: &str) -> Result<String, LendError> {
        let binding = self.bindings.lend(Binding {
            id: String::new(),
            name: name.to_owned(),
            target: BindingTarget::Origin(Origin::of_url(connection_string)?),
            limits: Limits::default(),
            caching: Caching::default(),
            allowed: Vec::new(),
            credentials: Vec::new(),
            created_ms: 0,
            modified_ms: 0,
        })?;
        Ok(binding.id.clone())
    }

    /// Whether the external Postgres of a binding lets us in, if that is what it leads to.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub async fn try_origin(&self, id: &str) -> Result<(), Failure> {
        let Ok(binding) = self.bindings.get(id) else {
            return Ok(());
        };
        let BindingTarget::Origin(origin) = &binding.target else {
            return Ok(());
        };
        let within = Duration::from_millis(binding.limits.connect_timeout_ms.into());
        pooler::check(origin, within).await.map(|_| ())
    }
}
