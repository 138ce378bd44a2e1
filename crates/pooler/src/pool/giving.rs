//! How connections are given, and come back.

use std::sync::{Arc, Weak};

use tokio::sync::oneshot::error::RecvError;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use wire::{PgError, sqlstate};

use super::lease::{Handed, Lease};
use super::making::BACK_OFF;
use super::queue::Turn;
use super::{Pool, closed};
use crate::failure::Failure;
use crate::server::Server;

enum Taken {
    Server(Box<Server>),
    Turn(Turn<Handed>),
}

impl Pool {
    /// Waits for a connection, behind those who wait already.
    ///
    /// # Errors
    ///
    /// 53300 after `waitMsMax` or for more than `waiting_max`; the origin's failure if there is no connection to it.
    pub(crate) async fn lease(&self, label: &Arc<str>) -> Result<Lease, PgError> {
        self.replicate();
        let mut until = None;
        loop {
            let taken = self.take(label)?;
            let server = match taken {
                Taken::Server(server) => server,
                Taken::Turn(turn) => match self.wait(turn, &mut until).await {
                    Ok(Ok(Ok(handed))) => match handed.take() {
                        Some(server) => server,
                        None => return Err(closed()),
                    },
                    Ok(Ok(Err(failure))) => return Err(self.refused(failure.to_error())),
                    Ok(Err(_)) => return Err(self.refused(closed())),
                    Err(_) => return Err(self.refused(self.waited_too_long())),
                },
            };
            let mut lease = self.leased(server)?;
            let idle_for = lease.since.elapsed();
            if lease.is_gone().await {
                drop(lease);
                continue;
            }
            if idle_for > self.options().check_after && lease.ask(";").await.is_err() {
                drop(lease);
                continue;
            }
            if !self.ask_for_writes(&mut lease).await {
                lease.give_back();
                continue;
            }
            return Ok(lease);
        }
    }

    /// Waits for a turn, until a time that the first wait of a client sets.
    async fn wait(
        &self,
        turn: Turn<Handed>,
        until: &mut Option<Instant>,
    ) -> Result<Result<Result<Handed, Failure>, RecvError>, Elapsed> {
        let begun = Instant::now();
        let until = *until.get_or_insert_with(|| begun + self.options().wait_max);
        let waited = timeout_at(until, turn).await;
        let elapsed = begun.elapsed();
        self.state.lock().counts.waits.took(elapsed);
        waited
    }

    fn take(&self, label: &Arc<str>) -> Result<Taken, PgError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed());
        }
        if let Some((_, server)) = state.idle.pop() {
            state.counts.given += 1;
            state.has(server.number, label);
            return Ok(Taken::Server(server));
        }
        if let Some((at, failure)) = &state.failed
            && state.connecting == 0
            && !state.may_come_free()
            && at.elapsed() < BACK_OFF
        {
            let error = failure.to_error();
            state.counts.refused += 1;
            return Err(error);
        }
        let waiting_max = self.options().waiting_max;
        let Some(turn) = state.queue.join(label, waiting_max) else {
            state.counts.refused += 1;
            return Err(PgError::fatal(
                sqlstate::TOO_MANY_CONNECTIONS,
                "Failed to acquire a connection from the pool.",
            )
            .detail(format!(
                "{waiting_max} clients wait for a connection already, as many as waiting_max allows."
            )));
        };
        state.counts.waited += u64::from(state.total >= self.options().connections_max);
        self.connect_if_wanted(&mut state);
        Ok(Taken::Turn(turn))
    }

    /// Gives a connection to who waits for the longest, or keeps it.
    pub(super) fn give(&self, mut server: Box<Server>) {
        let mut state = self.state.lock();
        // Whatever it still has to say or to hear would be somebody else's.
        if server.epoch != state.epoch || server.is_broken || !server.is_free() {
            state.closes(server.number);
            drop(state);
            self.close_all([server]);
            return;
        }
        let now = Instant::now();
        server.since = now;
        state.had(server.number, now);
        let number = server.number;
        let handed = Handed::new(server, Weak::clone(&self.me));
        let server = match state.queue.give(handed) {
            Ok(label) => {
                state.counts.given += 1;
                state.has(number, &label);
                return;
            }
            Err(back) => back.take(),
        };
        state.idle.extend(server.map(|server| (now, server)));
        let was_reaped = std::mem::replace(&mut state.is_reaped, true);
        drop(state);
        if !was_reaped {
            self.reap_later();
        }
    }

    /// A connection that nobody has and nobody waits for.
    pub(crate) async fn spare_lease(&self) -> Option<Lease> {
        let server = {
            let mut state = self.state.lock();
            if state.queue.without_left() > 0 || state.is_closed {
                return None;
            }
            let (_, server) = state.idle.pop()?;
            state.counts.given += 1;
            state.has(server.number, &Arc::from("the pool"));
            server
        };
        let mut lease = self.leased(server).ok()?;
        (!lease.is_gone().await).then_some(lease)
    }

    pub(super) fn leased(&self, server: Box<Server>) -> Result<Lease, PgError> {
        let Some(pool) = self.me.upgrade() else {
            return Err(closed());
        };
        Ok(Lease::new(server, pool))
    }

    fn refused(&self, error: PgError) -> PgError {
        self.state.lock().counts.refused += 1;
        error
    }

    fn waited_too_long(&self) -> PgError {
        let state = self.state.lock();
        let (why, way_out) = match &state.failed {
            Some((_, failure)) => {
                let code = failure
                    .error
                    .as_ref()
                    .map(|error| format!(" ({})", error.code()));
                let why = format!(
                    " The last attempt to add one failed: {failure}{}.",
                    code.unwrap_or_default()
                );
                (why, "See to it that the origin lets the pool in.")
            }
            None => (
                String::new(),
                "Raise connectionsMax or waitMsMax of the binding, or shorten transactions.",
            ),
        };
        let holders = || state.holders.iter().flatten();
        let longest = holders().min_by_key(|holder| holder.since);
        let hint = match longest {
            Some(holder) => format!(
                "The longest of the {} in use is with {} for {:.1} s{}. {way_out}",
                holders().count(),
                holder.label,
                holder.since.elapsed().as_secs_f64(),
                match holder.pin {
                    Some(pin) => format!(", which keeps it for its session, by {}", pin.reason()),
                    None => String::new(),
                },
            ),
            None => "Connections to the origin are being made, and it does not answer.".to_owned(),
        };
        PgError::fatal(
            sqlstate::TOO_MANY_CONNECTIONS,
            "Failed to acquire a connection from the pool.",
        )
        .detail(format!(
            "No connection became free, and none could be added, within {} ms, which is waitMsMax of the binding.{why}",
            self.options().wait_max.as_millis()
        ))
        .hint(hint)
    }
}
