//! The beginning of a session.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use wire::PgError;
use wire::pg::startup::Startup;
use wire::pg::{TransactionStatus, backend};

use super::Client;
use crate::server::Parameters;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Everything from `AuthenticationOk` to `ReadyForQuery`; which version is spoken was told before. A server is asked only where a setting may be refused,
    /// or where none has told its parameters yet.
    pub(super) async fn greet(&mut self, startup: &Startup) -> Result<(), PgError> {
        for (name, value) in &startup.settings {
            if !is_default(name, value) {
                self.settings.put(name, Some(value.clone()));
            }
        }
        let is_plain = self.settings.names().all(|name| name == "application_name");
        self.told = match self.pool.parameters() {
            Some(parameters) if is_plain => parameters,
            _ => self.parameters_of_a_server().await?,
        };
        if let Some(program) = self.settings.get("application_name") {
            Arc::make_mut(&mut self.told).insert("application_name".to_owned(), program.to_owned());
        }
        let out = &mut self.side.outbox;
        backend::authentication_ok(out);
        for (name, value) in self.told.iter() {
            backend::parameter_status(out, name, value);
        }
        backend::backend_key_data(out, self.identity.pid, &self.identity.key);
        backend::ready_for_query(out, TransactionStatus::Idle);
        Ok(())
    }

    async fn parameters_of_a_server(&mut self) -> Result<Parameters, PgError> {
        let mut lease = self.pool.lease(&self.identity.label).await?;
        if let Err(failure) = lease.become_of(self.number, &mut self.settings).await {
            return Err(failure.to_error());
        }
        let parameters = lease.parameters.clone();
        lease.give_back();
        Ok(parameters)
    }
}

/// Servers have it already.
fn is_default(name: &str, value: &str) -> bool {
    let value: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    name.eq_ignore_ascii_case("client_encoding")
        && (value.eq_ignore_ascii_case("utf8") || value.eq_ignore_ascii_case("unicode"))
}
