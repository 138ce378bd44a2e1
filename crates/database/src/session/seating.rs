//! How a session comes to a process, and leaves it.
//!
//! A session that is between two transactions lets go of its process. What it has there stays, and costs it
//! nothing if it comes back before another session has taken the process.

use std::sync::Arc;

use engine::{Bond, PreparedStatement};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::Instrument as _;
use wire::pg::TransactionStatus;
use wire::{PgError, sqlstate};

use super::Session;
use super::newcomer::Newcomer;
use crate::further::{self, Given, Taken};
use crate::slot::Slot;
use crate::trace::TRACE;
use crate::wake;

/// Why a session has no process.
pub(super) enum Unseated {
    /// Others have all of them, or the database cannot wake: it may be asked again.
    Busy(PgError),
    /// The process that it was to have has ended: another will do.
    Broken(PgError),
    /// It cannot go on.
    Ended(PgError),
}

impl Unseated {
    pub(super) fn error(self) -> PgError {
        match self {
            Self::Busy(error) | Self::Broken(error) | Self::Ended(error) => error,
        }
    }
}

impl Session {
    /// Makes sure that the session has a process.
    pub(super) async fn take_seat(&mut self, is_new: bool) -> Result<(), Unseated> {
        /// A process that ends while another session is to leave it is not this one's fault.
        const TRIES: usize = 3;
        let mut outcome = Ok(());
        for _ in 0..TRIES {
            if self.slot.is_some() {
                return Ok(());
            }
            outcome = self.try_take_seat(is_new).await;
            match &outcome {
                Err(Unseated::Broken(_)) => {}
                _ => break,
            }
        }
        outcome.map_err(|unseated| match unseated {
            Unseated::Broken(error) => Unseated::Busy(error),
            unseated => unseated,
        })
    }

    async fn try_take_seat(&mut self, is_new: bool) -> Result<(), Unseated> {
        let limit = self.node.adjustable.session_wait_max.get();
        let until = Instant::now() + limit;
        let line = Arc::clone(&self.line);
        let taking = further::take(
            &self.node,
            &self.database,
            &self.seat,
            self.home.as_ref(),
            until,
        );
        let began = Instant::now();
        let span = match self.is_traced {
            true => {
                tracing::trace_span!(target: TRACE, "wait", dormouse.waited = tracing::field::Empty)
            }
            false => tracing::Span::none(),
        };
        let taken = tokio::select! {
            biased;
            taken = taking.instrument(span.clone()) => taken.map_err(Unseated::Busy)?,
            () = line.cancelled() => {
                return Err(Unseated::Busy(PgError::error(
                    sqlstate::QUERY_CANCELED,
                    "canceling statement due to user request",
                )));
            }
        };
        let Some(Taken {
            mut slot,
            shelf,
            waited,
            permit,
        }) = taken
        else {
            self.seating.wait += began.elapsed();
            self.seating.waited = true;
            return Err(Unseated::Busy(self.database.busy(limit.as_millis())));
        };
        span.record("dormouse.waited", waited);
        drop(span);
        self.seating.wait += began.elapsed();
        self.seating.waited |= waited;
        if self.database.is_dropped() {
            return Err(Unseated::Ended(self.database.dropped_error()));
        }
        let works = slot
            .backend
            .as_ref()
            .is_some_and(|backend| !backend.is_broken());
        if !works || !slot.occupant.is(&self.seat) {
            let (settled, statements) = self.settle(slot, is_new).await?;
            slot = settled;
            self.absent.add(statements);
        }
        if self.database.is_dropped() {
            slot.lose(&self.database);
            return Err(Unseated::Ended(self.database.dropped_error()));
        }
        let interrupter = slot.backend.as_ref().map(engine::Backend::interrupter);
        if let Some(interrupter) = interrupter.clone().filter(|_| !slot.is_further) {
            self.database.further.has_first(interrupter);
        }
        self.line.set(interrupter);
        self.parked = None;
        self.slot = Some(slot);
        self.permit = Some(permit);
        self.home = Some(shelf);
        Ok(())
    }

    /// Puts the session into a process. What was begun goes on to its end, though nobody may wait for it any
    /// more: what another session has there is on its way then.
    async fn settle(
        &mut self,
        mut slot: OwnedMutexGuard<Slot>,
        is_new: bool,
    ) -> Result<(OwnedMutexGuard<Slot>, Vec<PreparedStatement>), Unseated> {
        if !slot.is_further {
            let began = Instant::now();
            let asleep = !slot.works();
            let awake = wake::to_its_end(slot, &self.node, &self.database).await;
            if asleep {
                self.seating.wake += began.elapsed();
            }
            slot = awake.map_err(Unseated::Busy)?;
        }
        let mut newcomer = Newcomer {
            database: Arc::clone(&self.database),
            role: self.role.take(),
            identity: self.identity.clone(),
            seat: Arc::clone(&self.seat),
            process_id: self.process_id,
            is_new,
        };
        let mut given = Given::new(slot, &self.database);
        let settling = async move {
            let sat = newcomer.sit(&mut given).await;
            let broken = given
                .backend
                .as_ref()
                .is_none_or(engine::Backend::is_broken);
            if sat.is_err() && broken {
                given.lose(&newcomer.database);
            }
            (given, newcomer, sat)
        };
        let settling = tokio::spawn(settling.in_current_span());
        let (given, newcomer, sat) = settling.await.map_err(|error| {
            let error = PgError::fatal(sqlstate::INTERNAL_ERROR, error.to_string());
            Unseated::Ended(error)
        })?;
        if matches!(sat, Err(Unseated::Broken(_))) {
            self.role = newcomer.role;
        }
        let statements = sat?;
        self.identity = newcomer.identity;
        Ok((given.keep(), statements))
    }

    /// Lets go of the process, if the session can leave it.
    pub(super) async fn park(&mut self) {
        let Some(slot) = self.slot.as_mut() else {
            return;
        };
        self.quiet_since = Instant::now();
        let Some(backend) = slot.backend.as_ref() else {
            return;
        };
        self.idle_limits = backend.idle_limits();
        let may_leave = self.status == TransactionStatus::Idle && self.at_rest && !self.skipping;
        if backend.is_broken() {
            slot.lose(&self.database);
            self.let_go();
            return;
        }
        if !may_leave {
            return;
        }
        match backend.bond() {
            None => {}
            Some(Bond::TemporaryTables) => match slot.has_temporary().await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    tracing::debug!(%error, "a session keeps its process");
                    return;
                }
            },
            Some(_) => return,
        }
        let backend = slot.backend.as_ref();
        self.parked = backend.map(engine::Backend::interrupter);
        slot.used_at = Some(std::time::Instant::now());
        slot.be_quiet();
        self.let_go();
    }

    /// Lets another session have the process.
    fn let_go(&mut self) {
        self.line.set(None);
        self.slot = None;
        self.permit = None;
        self.database.further.freed();
        self.node.admission.left();
    }

    /// The process that the session has let go of, if it still is its process and nobody looks at it now.
    pub(super) fn own_slot(&self) -> Option<Given> {
        let slot = Arc::clone(self.home.as_ref()?).try_lock_owned().ok()?;
        // Who looked meanwhile has found it taken, also if it is another session's.
        let given = Given::new(slot, &self.database);
        given.occupant.is(&self.seat).then_some(given)
    }

    /// The same, once nobody looks at it any more.
    pub(super) fn own_slot_soon(&self) -> impl Future<Output = Option<Given>> + Send + use<> {
        let (home, seat) = (self.home.clone(), Arc::clone(&self.seat));
        let database = Arc::clone(&self.database);
        async move {
            let shelf = home?;
            let slot = tokio::select! {
                biased;
                () = seat.left() => return None,
                slot = shelf.lock_owned() => slot,
            };
            let given = Given::new(slot, &database);
            given.occupant.is(&seat).then_some(given)
        }
    }
}
