//! What a session has in its process: taken out of it, and put into another.
//!
//! A session that is between two transactions can leave its process, so that few processes serve many
//! sessions. What it has there is read where Postgres keeps it, not guessed from what it was sent, and put
//! back by Postgres' own functions. What cannot be moved [binds](Bond) it to the process.

mod bond;
mod calls;
mod identity;
mod idle_limits;
mod process_id;
mod sequences;
mod setting;
mod signals;
mod statements;

pub use bond::Bond;
pub use identity::{SessionIdentity, SessionRefused};
pub use idle_limits::IdleLimits;
pub use sequences::Sequences;
pub use statements::PreparedStatement;

use self::calls::Protected;
use self::setting::PGC_SUSET;
use crate::backend::Backend;
use crate::error::BackendError;
use crate::host::{read_u32, write_u32};
use crate::settings::{self, SettingSource};

/// What a session has of its own beside its identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Settings, by name.
    pub settings: Vec<(String, String)>,
    /// Object ids of the roles that settings name: a name may become another's.
    pub roles: Vec<(String, u32)>,
    /// Prepared statements; the unnamed one has no name.
    pub statements: Vec<PreparedStatement>,
    /// What `currval` and `lastval` tell, and values that are cached.
    pub sequences: Sequences,
}

/// What a backend was given for its present session.
#[derive(Debug, Default)]
pub(super) struct Seated {
    identity: Option<SessionIdentity>,
    /// Settings that were given as defaults, with what they were before, if that was not the default.
    replaced: Vec<(String, Option<(String, SettingSource)>)>,
    /// Settings were changed of which the client may have to be told.
    has_reports: bool,
}

impl Backend {
    /// What the session has here. To be asked between two transactions.
    pub fn session_state(&self) -> SessionState {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let addresses = host.module.addresses;
        let (mut settings, mut roles) = (Vec::new(), Vec::new());
        if settings::any_of_session(memory, addresses.settings) {
            for setting in settings::changed(memory, addresses.settings) {
                if !setting.is_of_session() {
                    continue;
                }
                let role = match setting.name.as_str() {
                    "session_authorization" | "role" => settings::role(memory, setting.address),
                    _ => 0,
                };
                if role != 0 {
                    roles.push((setting.name.clone(), role));
                }
                settings.push((setting.name, setting.value));
            }
            // A role is one that the session's user may have; it comes last.
            settings.sort_by_key(|(name, _)| match name.as_str() {
                "session_authorization" => 0,
                "role" => 2,
                _ => 1,
            });
        }
        SessionState {
            settings,
            roles,
            statements: statements::all(memory, &addresses),
            sequences: Sequences::of(memory, &addresses),
        }
    }

    /// The text of a statement that the session has prepared; without a name, of the unnamed one.
    pub fn statement_sql(&self, name: &str) -> Option<String> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let statements = statements::all(memory, &host.module.addresses);
        let mut found = statements.into_iter().filter(|one| one.name == name);
        found.next().map(|statement| statement.sql)
    }

    /// Takes everything of the session that [`session_state`](Self::session_state) tells, but for its
    /// prepared statements, which are closed by messages. Between two transactions only.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn clear_session(&mut self) -> Result<(), BackendError> {
        let host = self.store.data();
        let memory = host.guest().memory;
        let addresses = host.module.addresses;
        let bytes = memory.data(&self.store);
        let table = read_u32(bytes, addresses.sequences);
        let names: Vec<String> = settings::changed(bytes, addresses.settings)
            .into_iter()
            .filter(settings::Setting::is_of_session)
            .map(|setting| setting.name)
            .collect();
        if table != 0 {
            let guard = self.begin().await?;
            self.function::<u32, ()>("hash_destroy", table).await?;
            let bytes = memory.data_mut(&mut self.store);
            write_u32(bytes, addresses.sequences, 0);
            write_u32(bytes, addresses.last_sequence, 0);
            self.end(guard);
        }
        if names.is_empty() {
            return Ok(());
        }
        self.seated.has_reports = true;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        for name in &names {
            let source = SettingSource::Session as u32;
            let reset = self.set_protected(name, None, PGC_SUSET, source).await?;
            if let Protected::Refused(error) = reset {
                // This process cannot be another session's, but it leaves the others in good order.
                self.end(guard);
                let error = String::from_utf8_lossy(&error).into_owned();
                return Err(BackendError::Crashed(format!(
                    "{name} is not reset: {error}"
                )));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok(())
    }

    /// Makes this process one of another session, of which only the prepared statements are missing then.
    /// What the one before it had must be cleared. `Some` if it cannot be: a role that is not there, a value
    /// that is none.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn begin_session(
        &mut self,
        identity: &SessionIdentity,
        state: &SessionState,
    ) -> Result<Option<SessionRefused>, BackendError> {
        if self.seated.identity.as_ref() != Some(identity)
            && let Some(refused) = self.identify(identity).await?
        {
            return Ok(Some(refused));
        }
        self.forget_activity().await?;
        self.restore_sequences(&state.sequences).await?;
        let mut wanted: Vec<_> = state.settings.iter().collect();
        loop {
            let restored = self.restore_settings(&wanted, &state.roles).await?;
            let Some((refused, error)) = restored else {
                return Ok(None);
            };
            let (name, value) = wanted.remove(refused);
            if ["role", "session_authorization"].contains(&name.as_str()) {
                return Ok(Some(error));
            }
            // Something that it needs has gone meanwhile: it would fail where it is used.
            tracing::warn!(
                setting = name,
                value,
                "a session's setting is not set again"
            );
        }
    }

    /// What the session before was seen to run is not this one's.
    async fn forget_activity(&mut self) -> Result<(), BackendError> {
        /// `STATE_IDLE` of `BackendState`.
        const IDLE: u32 = 2;
        let guard = self.begin().await?;
        let nothing = self.c_string("").await?;
        self.function::<_, ()>("pgstat_report_activity", (IDLE, nothing))
            .await?;
        self.free(nothing).await?;
        self.end(guard);
        Ok(())
    }
}
