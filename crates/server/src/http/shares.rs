//! How much of what the whole node has one token, or one database, may hold: interactive transactions, WebSockets.

use std::collections::HashMap;
use std::sync::Arc;

use database::DatabaseName;
use parking_lot::Mutex;
use wire::{PgError, sqlstate};

use super::Configured;
use super::caller::{Caller, Identity};
use super::tenant::Tenant;

/// What is held, by whom.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<Holder, usize>>);

/// The most that one may hold, and the setting that says so; 0 is as much as there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) what: &'static str,
    pub(super) setting: &'static str,
    pub(super) max: usize,
}

/// One of them is held, for as long as this lives.
#[must_use]
pub(super) struct Held {
    shares: Arc<Shares>,
    holders: Vec<Holder>,
}

/// Who holds something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A token, or user.
    Token(Identity),
    Database(DatabaseName),
}

impl Configured {
    /// A caller's place among interactive transactions, of its share.
    pub(super) fn share_of_transactions(&self, tenant: &Tenant) -> Result<Held, PgError> {
        let what = "interactive transactions";
        let token = Share {
            what,
            setting: "http.token_transactions_max",
            max: self.options.token_transactions_max,
        };
        let database = Share {
            what,
            setting: "http.database_transactions_max",
            max: self.options.database_transactions_max,
        };
        let holders = self.holders(Some(&tenant.caller), Some(&tenant.name), token, database);
        self.transaction_shares.enter(holders)
    }

    /// The same among WebSockets. Of a tunnel it may not be known who has it, nor with which database.
    pub(super) fn share_of_websockets(
        &self,
        caller: Option<&Caller>,
        database: Option<&DatabaseName>,
    ) -> Result<Held, PgError> {
        let (what, options) = ("WebSockets", &self.options.websocket);
        let of_token = Share {
            what,
            setting: "websocket.token_connections_max",
            max: options.token_connections_max,
        };
        let of_database = Share {
            what,
            setting: "websocket.database_connections_max",
            max: options.database_connections_max,
        };
        let holders = self.holders(caller, database, of_token, of_database);
        self.websocket_shares.enter(holders)
    }

    /// Where nobody is asked who they are, all are one, and have no share.
    fn holders(
        &self,
        caller: Option<&Caller>,
        database: Option<&DatabaseName>,
        of_token: Share,
        of_database: Share,
    ) -> impl Iterator<Item = (Holder, Share)> + use<> {
        let caller = caller.filter(|_| self.security.gatekeeper.asks());
        let token = caller.map(|caller| (Holder::Token(caller.identity), of_token));
        let database = database.map(|name| (Holder::Database(name.clone()), of_database));
        token.into_iter().chain(database)
    }
}

impl Shares {
    /// Takes one for each of these.
    ///
    /// # Errors
    /// 53300 if it is more than a share.
    pub(super) fn enter(
        self: &Arc<Self>,
        wanted: impl IntoIterator<Item = (Holder, Share)>,
    ) -> Result<Held, PgError> {
        let mut held = Held {
            shares: Arc::clone(self),
            holders: Vec::new(),
        };
        for (holder, share) in wanted {
            let mut counts = self.0.lock();
            let count = counts.get(&holder).copied().unwrap_or_default();
            if share.max > 0 && count >= share.max {
                return Err(too_many(&holder, share));
            }
            counts.insert(holder.clone(), count + 1);
            drop(counts);
            held.holders.push(holder);
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock();
        for holder in &self.holders {
            match counts.get_mut(holder) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(counts.remove(holder)),
            }
        }
    }
}

fn too_many(holder: &Holder, share: Share) -> PgError {
    let Share { what, setting, max } = share;
    let of = match holder {
        Holder::Token(_) => "this token".to_owned(),
        Holder::Database(name) => format!("the database \"{name}\""),
    };
    PgError::error(
        sqlstate::TOO_MANY_CONNECTIONS,
        format!("too many {what} of {of}: {setting} is {max}"),
    )
    .hint(format!(
        "End some, or raise {setting} in Dormouse's configuration."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let shares = Arc::<Shares>::default();
        let share = |max| Share {
            what: "transactions",
            setting: "some.setting",
            max,
        };
        let shop = || Holder::Database(DatabaseName::parse("shop").unwrap());
        let enter = |token: &str, max| {
            let token = Holder::Token(Identity::of(token, &[]));
            shares.enter([(token, share(max)), (shop(), share(2))])
        };
        let first = enter("a", 1).unwrap();
        let error = enter("a", 1).err().unwrap();
        assert!(error.message().contains("some.setting is 1"), "{error}");
        let _second = enter("b", 1).unwrap();
        // What the refused one had taken it has given back.
        assert!(enter("c", 0).is_err());
        drop(first);
        drop(enter("a", 1).unwrap());
        assert_eq!(shares.0.lock().len(), 2);
    }
}
