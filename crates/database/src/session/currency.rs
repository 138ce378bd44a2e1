//! As of which commit the answer to a session's query will be.

use std::sync::Arc;

use bytes::BytesMut;
use wire::pg::frontend::Parse;
use wire::pg::{TransactionStatus, backend, frames, frontend};
use wire::{PgError, sqlstate};

use super::Session;
use super::seating::Unseated;
use crate::currency::Currency;
use crate::dependencies::{
    Dependencies, PRINT, QueryKey, Tables, Tree, Uncacheable, found, look_up, says_now,
};
use crate::slot::no_backend;
use crate::versions::{Exchange, Start, Tracker};
use crate::wake::settings_hash;

/// What Postgres says before the tree that it prints.
const TREE: &str = "rewritten parse tree:";

impl Session {
    /// As of which commit the answer to a query will be that this session runs next: at least as of that one. It
    /// finds out what the query depends on if that is not known, which takes about a millisecond. `query` is of
    /// `sql`, and of the role and all settings of this session.
    ///
    /// # Errors
    ///
    /// 57P02 if the backend ended, and what [`exchange`](Self::exchange) gives.
    pub async fn currency(&mut self, query: &QueryKey, sql: &str) -> Result<Currency, PgError> {
        let was_traced = std::mem::replace(&mut self.is_traced, false);
        self.is_unasked = true;
        let currency = self.find_currency(query, sql).await;
        self.is_unasked = false;
        self.is_traced = was_traced;
        currency
    }

    async fn find_currency(&mut self, query: &QueryKey, sql: &str) -> Result<Currency, PgError> {
        if self.status != TransactionStatus::Idle || !self.at_rest {
            return Ok(Currency::Never(Uncacheable::InTransaction));
        }
        if !self.node.versions.are_kept() {
            return Ok(Currency::Unknown);
        }
        let Some(tracker) = self.tracker().await? else {
            return Ok(Currency::Never(Uncacheable::Settings));
        };
        let Some(catalog) = tracker.catalog() else {
            return Ok(Currency::Unknown);
        };
        let id = self.database.id;
        let known = self.node.known.get(id, query, tracker.epoch(), catalog);
        let dependencies = match known {
            Some(known) => known,
            // Who looks now may see the catalog as it was before.
            None if self.database.running.may_have_made(catalog) => return Ok(Currency::Unknown),
            None => {
                let found = Arc::new(Dependencies {
                    epoch: tracker.epoch(),
                    catalog,
                    found: self.depends_on(sql).await?,
                });
                self.node.known.insert(id, query, &found);
                found
            }
        };
        let currency = self.database.version(&tracker, &dependencies, query);
        Ok(match currency {
            Some(Currency::Version(version))
                if self.database.running.may_have_made(version.commit()) =>
            {
                Currency::Unknown
            }
            Some(currency) => currency,
            None => Currency::Unknown,
        })
    }

    /// Who reads the log along, from now on if nobody did; `None` while nobody can tell by which settings the
    /// backend goes.
    async fn tracker(&mut self) -> Result<Option<Arc<Tracker>>, PgError> {
        if let Some(known) = self.node.versions.get(self.database.id) {
            let told = self.database.running.told();
            if told.is_some_and(|told| told > known.read_to()) {
                self.flush_own_wal().await?;
            }
            return Ok(Some(known));
        }
        self.begin_tracker().await
    }

    async fn begin_tracker(&mut self) -> Result<Option<Arc<Tracker>>, PgError> {
        let epoch = getrandom::u64()
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        self.take_seat(false).await.map_err(Unseated::error)?;
        let backend = self.slot.as_mut().and_then(|slot| slot.backend.as_mut());
        let backend = backend.ok_or_else(no_backend)?;
        let volume = backend.volume();
        let position = backend.wal_position().await;
        // Whoever gets a number from now on writes behind that position.
        let transaction = backend.next_transaction();
        let begun = position.map(|position| Start {
            epoch,
            position,
            transaction,
        });
        let tracker = match begun {
            Ok(_) if settings_hash(&volume) != self.database.running.settings_hash() => Ok(None),
            Ok(start) => {
                let tracker = Arc::new(Tracker::new(start));
                self.node.versions.begin(&self.database, &volume, &tracker);
                Ok(Some(tracker))
            }
            Err(error) => Err(self.backend_ended(&error, bytes::Bytes::new()).error),
        };
        self.park().await;
        tracker
    }

    /// Hands the log to the volume that commits did not wait for.
    async fn flush_own_wal(&mut self) -> Result<(), PgError> {
        self.take_seat(false).await.map_err(Unseated::error)?;
        let backend = self.slot.as_mut().and_then(|slot| slot.backend.as_mut());
        let flushed = backend.ok_or_else(no_backend)?.flush_wal().await;
        if let Err(error) = flushed {
            return Err(self.backend_ended(&error, bytes::Bytes::new()).error);
        }
        self.park().await;
        Ok(())
    }

    /// What a statement depends on, found by Postgres.
    async fn depends_on(&mut self, sql: &str) -> Result<Result<Tables, Uncacheable>, PgError> {
        let Some(printed) = self.printed(sql).await? else {
            return Ok(Err(Uncacheable::NotUnderstood));
        };
        let tree = match Tree::read(&printed) {
            Ok(tree) if tree.has_time_constant && says_now(sql) => {
                return Ok(Err(Uncacheable::Time));
            }
            Ok(tree) => tree,
            Err(reason) => return Ok(Err(reason)),
        };
        match self.query(&look_up(&tree), &[]).await {
            Ok(answer) => Ok(found(&tree, &answer.rows)),
            Err(error) => {
                tracing::debug!(error = %error.for_log(), "what a query depends on cannot be looked up");
                Ok(Err(Uncacheable::NotUnderstood))
            }
        }
    }

    /// The tree of a statement as Postgres prints it; `None` if it does not.
    async fn printed(&mut self, sql: &str) -> Result<Option<String>, PgError> {
        let mut messages = BytesMut::new();
        frontend::query(&mut messages, PRINT.as_bytes())?;
        Parse {
            statement: b"",
            sql: sql.as_bytes(),
            param_oids: Vec::new(),
        }
        .encode(&mut messages)?;
        frontend::sync(&mut messages);
        frontend::query(&mut messages, b"ROLLBACK")?;
        let answer = self.exchange(messages.freeze(), None).await;
        let (answer, _) = answer.map_err(|ended| ended.error)?;
        let mut rounds = 0;
        let mut printed = None;
        for (kind, body) in frames(&answer) {
            match kind {
                backend::kind::READY_FOR_QUERY => rounds += 1,
                backend::kind::ERROR_RESPONSE => return Ok(None),
                backend::kind::NOTICE_RESPONSE if rounds == 1 => {
                    let notice = PgError::decode(body)?;
                    if notice.message() != TREE {
                        continue;
                    }
                    let tree = notice.get(wire::pg::ErrorField::Detail);
                    // There is one for each statement.
                    if printed.is_some() {
                        return Ok(None);
                    }
                    printed = tree.map(str::to_owned);
                }
                _ => {}
            }
        }
        Ok(printed)
    }

    /// An exchange is over, whose commits are known to all from now on.
    pub(super) async fn end_exchange(&mut self, exchange: Exchange, in_order: bool) {
        if !in_order {
            return;
        }
        if exchange.tracker().is_none() {
            exchange.end(0);
            return;
        }
        let backend = self.slot.as_mut().and_then(|slot| slot.backend.as_mut());
        let Some(backend) = backend else {
            return;
        };
        match backend.wal_position().await {
            Ok(position) => exchange.end(position),
            Err(error) => {
                tracing::warn!(database = %self.database.name(), %error, "a backend ended");
                if let Some(slot) = &mut self.slot {
                    slot.lose(&self.database);
                }
            }
        }
    }
}
