//! How a session begins.

use std::sync::Arc;

use engine::{IdleLimits, SessionIdentity, SettingSource};
use tokio::time::Instant;
use wire::pg::TransactionStatus;
use wire::{PgError, sqlstate};

use super::seating::Unseated;
use super::{Present, Session, SessionOptions, node_number, set_parameter};
use crate::authority::Authority;
use crate::database::Database;
use crate::node::Node;
use crate::prepared::Absent;
use crate::seat::Seat;
use crate::session::cancel::Line;
use crate::session::measure::{Carried, Seating};
use crate::slot::{self, SUPERUSER_ID};
use crate::statements::Statements;
use crate::template::SUPERUSER;
use crate::trace::is_traced;

/// Session numbers below it are those of processes that no session has.
const PROCESS_ID_MIN: u32 = 1 << 16;

impl Session {
    pub(crate) async fn begin(
        node: Arc<Node>,
        database: Arc<Database>,
        options: SessionOptions,
    ) -> Result<Self, PgError> {
        options.check()?;
        let mut id = [0; 4];
        getrandom::fill(&mut id)
            .map_err(|error| PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        // The administrator is who it is, whatever the database calls it now.
        let is_superuser = options.user.is_empty()
            || options.user == SUPERUSER && options.authority != Authority::Role;
        let came_as = match is_superuser {
            true => SUPERUSER.to_owned(),
            false => options.user.clone(),
        };
        let role = (!is_superuser).then_some(options.user);
        let settings = options.settings.into_iter();
        let mut session = Self {
            identity: SessionIdentity {
                user: SUPERUSER_ID,
                defaults: settings
                    .map(|(name, value)| (name, value, SettingSource::Client))
                    .collect(),
            },
            authority: options.authority,
            doer: Arc::default(),
            present: node_number(&node),
            node,
            database,
            slot: None,
            permit: None,
            home: None,
            seat: Seat::new(),
            absent: Absent::default(),
            parameters: Vec::new(),
            process_id: u32::from_le_bytes(id) >> 1 | PROCESS_ID_MIN,
            status: TransactionStatus::Idle,
            at_rest: true,
            quiet_since: Instant::now(),
            transaction_since: Instant::now(),
            transaction_number: 0,
            idle_limits: IdleLimits::default(),
            statements: Statements::default(),
            skipping: false,
            read_only: false,
            runs: tokio::sync::watch::Sender::new(0),
            line: Arc::new(Line::default()),
            has_left: false,
            came_as,
            label: options.label,
            seating: Seating::default(),
            carried: Carried::default(),
            is_traced: is_traced(),
            is_unasked: false,
            role,
            parked: None,
        };
        session.database.sessions.lock().push(Present {
            id: session.present,
            origin: options.origin,
            canceller: session.canceller(),
        });
        let remembered = &session.node.credentials;
        remembered.session_begins(&session.database, session.authority);
        let began = Instant::now();
        session.take_seat(true).await.map_err(Unseated::error)?;
        // The first statement counts what its session waited for.
        session.carried = Carried {
            seating: std::mem::take(&mut session.seating),
            elapsed: began.elapsed(),
        };
        session.greet()?;
        session.park().await;
        Ok(session)
    }

    /// Finds out what the client is to be told of its settings.
    fn greet(&mut self) -> Result<(), PgError> {
        let Some(slot) = self.slot.as_mut() else {
            return Err(slot::no_backend());
        };
        self.parameters = slot.parameters.clone();
        if let Some(backend) = &slot.backend {
            for (name, value) in backend.reported_settings() {
                set_parameter(&mut self.parameters, name.as_bytes(), value.as_bytes());
            }
        }
        Ok(())
    }
}
