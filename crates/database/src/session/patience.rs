//! How long a session may do nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wire::pg::TransactionStatus;
use wire::{PgError, sqlstate};

use super::Session;

impl Session {
    /// Waits until the session has done nothing for longer than it may: the error that ends it.
    pub fn idle_too_long(&self) -> impl Future<Output = PgError> + Send + use<> {
        let (limits, since) = (self.idle_limits, self.quiet_since);
        let after = |start: Instant, ms: u32| {
            (ms > 0).then(|| start + Duration::from_millis(u64::from(ms)))
        };
        let fatal = |code, text: &str| PgError::fatal(code, text.to_owned());
        let mut ends = Vec::new();
        let in_transaction = self.status != TransactionStatus::Idle;
        if in_transaction {
            ends.extend(after(since, limits.in_transaction_ms).map(|at| {
                let text = "terminating connection due to idle-in-transaction timeout";
                (
                    at,
                    fatal(sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, text),
                )
            }));
            ends.extend(
                after(self.transaction_since, limits.transaction_ms).map(|at| {
                    let text = "terminating connection due to transaction timeout";
                    (at, fatal(sqlstate::TRANSACTION_TIMEOUT, text))
                }),
            );
        } else {
            ends.extend(after(since, limits.session_ms).map(|at| {
                let text = "terminating connection due to idle-session timeout";
                (at, fatal(sqlstate::IDLE_SESSION_TIMEOUT, text))
            }));
        }
        let first = ends.into_iter().min_by_key(|(at, _)| *at);
        let patience = self.node.adjustable.idle_holder.get();
        let holds = self.slot.is_some();
        let database = Arc::clone(&self.database);
        async move {
            let own = async {
                match first {
                    Some((at, error)) => {
                        sleep_until(at).await;
                        error
                    }
                    None => std::future::pending().await,
                }
            };
            let wanted = async {
                if !holds {
                    return std::future::pending().await;
                }
                sleep_until(since + patience).await;
                database.wanted().await;
                PgError::fatal(
                    sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                    "terminating connection: it kept a process of the database, idle, while others waited",
                )
                .detail(format!(
                    "It was idle for {} ms (limit sessions.idle_holder_ms_max), in a transaction or with what \
                     only its process has: temporary tables, session locks, LISTEN, cursors WITH HOLD.",
                    patience.as_millis()
                ))
                .hint("Shorten transactions, or raise databases.processes_max or sessions.idle_holder_ms_max.")
            };
            tokio::select! {
                error = own => error,
                error = wanted => error,
            }
        }
    }
}
