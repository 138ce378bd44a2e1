//! A session that is put into a process.

use std::sync::Arc;

use bytes::BytesMut;
use engine::{PreparedStatement, SessionIdentity, SessionRefused, SessionState};
use wire::pg::frontend;
use wire::{PgError, sqlstate};

use super::seating::Unseated;
use crate::database::Database;
use crate::role_settings;
use crate::seat::{Occupant, Seat};
use crate::slot::{self, Slot};

/// A session that is put into a process.
pub(super) struct Newcomer {
    pub(super) database: Arc<Database>,
    /// Of a role that is still to be found: its name.
    pub(super) role: Option<String>,
    pub(super) identity: SessionIdentity,
    pub(super) seat: Arc<Seat>,
    pub(super) process_id: u32,
    /// It has no defaults of its role and database yet.
    pub(super) is_new: bool,
}

impl Newcomer {
    /// Takes the process over from the session before it: the prepared statements that this one has, but
    /// this process not.
    pub(super) async fn sit(
        &mut self,
        slot: &mut Slot,
    ) -> Result<Vec<PreparedStatement>, Unseated> {
        slot.vacate().await.map_err(Unseated::Broken)?;
        let state = self.seat.take().ok_or_else(|| {
            let error = PgError::fatal(
                sqlstate::CRASH_SHUTDOWN,
                "the process that had the session's settings and statements has ended",
            );
            Unseated::Ended(error.hint("Connect again: what was committed is kept."))
        })?;
        match self.begin(slot, &state).await {
            Ok(()) => {
                slot.occupant = Occupant::of(&self.seat);
                Ok(state.statements)
            }
            Err(unseated) => {
                // Another process will do.
                if matches!(unseated, Unseated::Broken(_)) {
                    self.seat.put_back(state);
                }
                Err(unseated)
            }
        }
    }

    /// Gives the session's identity and what it has to a process that is nobody's.
    async fn begin(&mut self, slot: &mut Slot, state: &SessionState) -> Result<(), Unseated> {
        let failed = |error| Unseated::Broken(slot::start_error(&error));
        if let Some(role) = &self.role {
            let backend = slot.backend.as_mut();
            let backend = backend.ok_or_else(|| Unseated::Broken(slot::no_backend()))?;
            let found = backend.role(role).await.map_err(failed)?;
            self.identity.user = found.ok_or_else(|| Unseated::Ended(unknown(role)))?;
        }
        if self.is_new {
            let user = self.identity.user;
            let found = role_settings::of(slot, &self.database, user).await;
            let found = found.map_err(|error| unseated(slot, error))?;
            self.identity.defaults.splice(0..0, found);
        }
        let begin = slot
            .backend
            .as_mut()
            .ok_or_else(|| Unseated::Broken(slot::no_backend()))?;
        // Whatever comes of it, the process is not as new any more.
        slot.is_used = true;
        let began = begin.begin_session(&self.identity, state).await;
        if let Some(refused) = began.map_err(failed)? {
            return Err(Unseated::Ended(self.refused(&refused)));
        }
        begin
            .set_process_id(self.process_id)
            .await
            .map_err(failed)?;
        let has_reports = begin.take_reports();
        if has_reports {
            // What the process has told its former client last is nothing to this one.
            let mut sync = BytesMut::new();
            frontend::sync(&mut sync);
            let asked = slot.ask(&sync).await;
            asked.map_err(|error| unseated(slot, error))?;
        }
        Ok(())
    }

    fn refused(&self, refused: &SessionRefused) -> PgError {
        match refused {
            SessionRefused::UnknownRole => PgError::fatal(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                "the role of the session does not exist any more",
            ),
            SessionRefused::Error(said) => match slot::check(said) {
                Err(error) => PgError::fatal(error.code(), error.message().to_owned()),
                Ok(()) => PgError::fatal(
                    sqlstate::INTERNAL_ERROR,
                    "the session's settings were refused",
                ),
            },
        }
    }
}

/// An error of a statement: the process may have ended by it.
fn unseated(slot: &Slot, error: PgError) -> Unseated {
    match &slot.backend {
        Some(backend) if !backend.is_broken() => Unseated::Ended(error),
        _ => Unseated::Broken(error),
    }
}

fn unknown(role: &str) -> PgError {
    PgError::fatal(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("role \"{role}\" does not exist"),
    )
}
