//! What a session does between two statements, or while its client says nothing.

use std::sync::Arc;

use bytes::Bytes;
use wire::pg::TransactionStatus;

use super::{Session, SessionEnded};

impl Session {
    /// Whether [`rest`](Self::rest) has anything to do.
    pub fn wants_rest(&self) -> bool {
        let volume = self.database.volume_now();
        let max = self.node.adjustable.checkpoint_wal_bytes.get();
        self.status == TransactionStatus::Idle
            && self.at_rest
            && volume.is_some_and(|volume| self.database.wal_since_checkpoint(&volume) > max)
    }

    /// Does what is due between two statements, once the last one's answer is with the client: a checkpoint
    /// after much WAL. It costs nothing if none is due.
    pub async fn rest(&mut self) {
        if self.status != TransactionStatus::Idle || !self.at_rest {
            return;
        }
        let mut own = self.own_slot();
        let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) else {
            return;
        };
        if let Err(error) = slot.checkpoint_if_due(&self.node, &self.database).await {
            tracing::warn!(database = %self.database.name(), %error, "a backend ended");
            slot.lose(&self.database);
        }
    }

    /// Waits until another process has sent a signal to that of this session, which does nothing: there may be a
    /// notification.
    pub fn signalled(&self) -> impl Future<Output = ()> + Send + use<> {
        let slot = self.slot.as_ref().filter(|_| self.at_rest);
        let kept = slot.and_then(|slot| Some(slot.backend.as_ref()?.interrupter()));
        let process = kept.or_else(|| self.parked.clone());
        async move {
            match process {
                Some(process) => process.asked().await,
                None => std::future::pending().await,
            }
        }
    }

    /// What Postgres tells the client unasked: notifications of the channels that it listens to.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`] if the backend ended, as by `pg_terminate_backend`.
    pub async fn take_signals(&mut self) -> Result<Bytes, SessionEnded> {
        if self.slot.is_none() {
            let own = self.own_slot_soon();
            let Some(own) = own.await else {
                // Who has made it leave has taken them.
                self.parked = None;
                return Ok(Bytes::new());
            };
            self.slot = Some(own.keep());
        }
        let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) else {
            return Ok(Bytes::new());
        };
        // A cancel came too late.
        backend.clear_cancel();
        let outcome = backend.take_signals().await;
        let output = backend.output().split().freeze();
        match outcome {
            Ok(()) => {
                if self.status == TransactionStatus::Idle {
                    self.park().await;
                }
                Ok(output)
            }
            Err(error) => Err(self.backend_ended(&error, output)),
        }
    }

    /// Waits until another session wants to come in beside this one, and this one can help it.
    pub fn share_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let is_first = self.slot.as_ref().is_some_and(|slot| !slot.is_further);
        let database = Arc::clone(&self.database);
        async move {
            match is_first {
                true => database.further.asked().await,
                false => std::future::pending().await,
            }
        }
    }

    /// Makes room beside itself, if another session wants to come in; for between two statements.
    pub fn share(&mut self) {
        let further = &self.database.further;
        if let Some(slot) = self.slot.as_mut()
            && further.is_asked()
        {
            further.share(slot);
        }
    }

    /// Hands the WAL of commits that did not wait for it (`synchronous_commit = off`) to the disk, as a
    /// WAL writer does; for whoever finds the session silent. It costs microseconds if there is none.
    pub async fn flush_wal(&mut self) {
        let mut own = self.own_slot();
        let Some(slot) = self.slot.as_deref_mut().or(own.as_deref_mut()) else {
            return;
        };
        let Some(backend) = slot.backend.as_mut() else {
            return;
        };
        match backend.flush_wal().await {
            Ok(false) => {}
            Ok(true) => self.node.counters.wal_flushes.one(),
            Err(error) => {
                tracing::warn!(database = %self.database.name(), %error, "a backend ended");
                slot.lose(&self.database);
            }
        }
    }
}
