//! Whose session it is: the role, and the defaults of its settings.

use super::calls::Protected;
use super::setting::{PGC_BACKEND, PGC_POSTMASTER, PGC_SU_BACKEND, PGC_SUSET};
use crate::backend::Backend;
use crate::backend::pgproc::PROC_DATABASE;
use crate::error::BackendError;
use crate::host::{read_u32, write_u32};
use crate::landmarks::sessions as at;
use crate::settings::{self, SettingSource};

/// Offsets in `PgBackendStatus`.
const STATUS_DATABASE: u32 = 48;
const STATUS_USER: u32 = 52;

/// Who has a session, and what its settings return to when they are reset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionIdentity {
    /// Object id of the role: a name may become another's.
    pub user: u32,
    /// What the client, the role and the database asked for: name, value, and who of them.
    pub defaults: Vec<(String, String, SettingSource)>,
}

/// Why a session cannot be as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionRefused {
    /// There is no such role any more.
    UnknownRole,
    /// Postgres said why: its messages, with an `ErrorResponse`.
    Error(Vec<u8>),
}

impl Backend {
    /// Object id of the role of that name.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn role(&mut self, name: &str) -> Result<Option<u32>, BackendError> {
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let text = self.c_string(name).await?;
        let role = self
            .function::<_, u32>("get_role_oid", (text, 1u32))
            .await?;
        self.free(text).await?;
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok((role != 0).then_some(role))
    }

    /// Gives the process the user and the defaults of a session.
    pub(super) async fn identify(
        &mut self,
        identity: &SessionIdentity,
    ) -> Result<Option<SessionRefused>, BackendError> {
        /// Of the roles by object id among the caches.
        const AUTHOID: u32 = 11;
        let before = self.seated.identity.take();
        self.seated.has_reports = true;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        self.undo_defaults().await?;
        if before.is_none_or(|before| before.user != identity.user) {
            // Postgres ends a process that is to be of a role that is not there.
            let exists = self
                .function::<_, u32>("SearchSysCacheExists", (AUTHOID, identity.user, 0, 0, 0))
                .await?;
            if exists != 0 {
                self.function::<_, ()>(at::INIT_SESSION_USER, (0u32, identity.user, 1u32))
                    .await?;
            } else {
                self.function::<(), ()>("CommitTransactionCommand", ())
                    .await?;
                self.end(guard);
                return Ok(Some(SessionRefused::UnknownRole));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.tell_user(identity.user);
        self.end(guard);
        for (name, value, source) in &identity.defaults {
            if let Some(error) = self.set_default(name, value, *source).await? {
                if *source == SettingSource::Client {
                    return Ok(Some(error));
                }
                // As Postgres does: nobody could log in to mend it.
                tracing::warn!(setting = name, value, "a default cannot be set");
            }
        }
        self.seated.identity = Some(identity.clone());
        Ok(None)
    }

    /// One default, in a transaction of its own: what was set before it stays known if it is refused.
    async fn set_default(
        &mut self,
        name: &str,
        value: &str,
        source: SettingSource,
    ) -> Result<Option<SessionRefused>, BackendError> {
        let replaced = &self.seated.replaced;
        if !replaced
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            let found = self.changed_settings().into_iter();
            let was = found
                .filter(|setting| setting.name.eq_ignore_ascii_case(name))
                .map(|setting| (setting.value, setting.source))
                .next();
            self.seated.replaced.push((name.to_owned(), was));
        }
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let context = match source {
            SettingSource::Client => match self.function::<(), u32>("superuser", ()).await? {
                0 => PGC_BACKEND,
                _ => PGC_SU_BACKEND,
            },
            _ => PGC_SUSET,
        };
        let outcome = self
            .set_protected(name, Some(value), context, source as u32)
            .await?;
        if let Protected::Done(()) = outcome {
            self.function::<(), ()>("CommitTransactionCommand", ())
                .await?;
        }
        self.end(guard);
        Ok(match outcome {
            Protected::Done(()) => None,
            Protected::Refused(error) => Some(SessionRefused::Error(error)),
        })
    }

    /// Gives settings back the defaults that they had before the present session's.
    async fn undo_defaults(&mut self) -> Result<(), BackendError> {
        let replaced = std::mem::take(&mut self.seated.replaced);
        for (name, was) in replaced {
            let changed = self.changed_settings();
            let Some(setting) = changed
                .iter()
                .find(|setting| setting.name.eq_ignore_ascii_case(&name))
            else {
                continue;
            };
            let memory = self.store.data().guest().memory;
            let bytes = memory.data_mut(&mut self.store);
            // A stronger source would keep its default.
            match was {
                Some((value, source)) => {
                    settings::weaken(bytes, setting.address);
                    self.set(&name, Some(&value), PGC_POSTMASTER, source as u32)
                        .await?;
                }
                None => {
                    settings::unlink(bytes, setting.address);
                    self.set(&name, None, PGC_POSTMASTER, 0).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells the other processes whose session this is.
    fn tell_user(&mut self, user: u32) {
        let host = self.store.data();
        let addresses = host.module.addresses;
        let memory = host.guest().memory;
        let bytes = memory.data_mut(&mut self.store);
        let own = read_u32(bytes, addresses.my_proc);
        let status = read_u32(bytes, addresses.my_status);
        if status != 0 && own != 0 {
            let database = read_u32(bytes, own + PROC_DATABASE);
            write_u32(bytes, status + STATUS_DATABASE, database);
            write_u32(bytes, status + STATUS_USER, user);
        }
    }
}
