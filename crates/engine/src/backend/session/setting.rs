//! Settings of a session.

use super::SessionRefused;
use super::calls::Protected;
use crate::backend::Backend;
use crate::error::BackendError;
use crate::settings::{self, SettingSource};

/// Of `GucContext`.
pub(super) const PGC_POSTMASTER: u32 = 1;
pub(super) const PGC_SU_BACKEND: u32 = 3;
pub(super) const PGC_BACKEND: u32 = 4;
pub(super) const PGC_SUSET: u32 = 5;
const PGC_USERSET: u32 = 6;

impl Backend {
    /// Whether settings were changed of which a client may have to be told, since this was last asked.
    pub fn take_reports(&mut self) -> bool {
        std::mem::take(&mut self.seated.has_reports)
    }

    /// Settings that clients are told of and that are not at their defaults: name and value.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        settings::reported(memory, host.module.addresses.settings)
    }

    pub(super) fn changed_settings(&self) -> Vec<settings::Setting> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        settings::changed(memory, host.module.addresses.settings)
    }

    /// Sets all settings, or none: which was refused, and how.
    pub(super) async fn restore_settings(
        &mut self,
        settings: &[&(String, String)],
        roles: &[(String, u32)],
    ) -> Result<Option<(usize, SessionRefused)>, BackendError> {
        if settings.is_empty() {
            return Ok(None);
        }
        self.seated.has_reports = true;
        let source = SettingSource::Session as u32;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let context = match self.function::<(), u32>("superuser", ()).await? {
            0 => PGC_USERSET,
            _ => PGC_SUSET,
        };
        for (index, (name, value)) in settings.iter().enumerate() {
            let role = roles.iter().find(|(setting, _)| setting == name);
            let renamed = match role {
                Some((_, id)) => Some(self.role_name(*id).await?.unwrap_or_default()),
                None => None,
            };
            let value = renamed.as_ref().unwrap_or(value);
            let outcome = self
                .set_protected(name, Some(value), context, source)
                .await?;
            if let Protected::Refused(error) = outcome {
                self.end(guard);
                // No role has an empty name.
                let is_gone = renamed.is_some_and(|name| name.is_empty());
                let refused = match is_gone {
                    true => SessionRefused::UnknownRole,
                    false => SessionRefused::Error(error),
                };
                return Ok(Some((index, refused)));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok(None)
    }

    /// What a role is called now. In a transaction.
    async fn role_name(&mut self, id: u32) -> Result<Option<String>, BackendError> {
        let name = self
            .function::<_, u32>("GetUserNameFromId", (id, 1u32))
            .await?;
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        Ok((name != 0).then(|| settings::text(memory, name)).flatten())
    }

    /// `SetConfigOption` where no error is expected.
    pub(super) async fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        context: u32,
        source: u32,
    ) -> Result<(), BackendError> {
        match self.set_protected(name, value, context, source).await? {
            Protected::Done(()) => Ok(()),
            Protected::Refused(error) => {
                let error = String::from_utf8_lossy(&error).into_owned();
                Err(BackendError::Crashed(format!(
                    "{name} was not reset: {error}"
                )))
            }
        }
    }

    pub(super) async fn set_protected(
        &mut self,
        name: &str,
        value: Option<&str>,
        context: u32,
        source: u32,
    ) -> Result<Protected<()>, BackendError> {
        let name = self.c_string(name).await?;
        let value = match value {
            Some(value) => self.c_string(value).await?,
            None => 0,
        };
        let outcome = self
            .protected::<_, ()>("SetConfigOption", (name, value, context, source))
            .await?;
        self.free(name).await?;
        self.free(value).await?;
        Ok(outcome)
    }
}
