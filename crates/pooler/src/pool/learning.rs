//! How a pool learns what its origin's catalog says: of its first connection, and then where nobody waits for it.

use std::sync::{Arc, Weak};

use tokio::time::{Duration, Instant, sleep, timeout};

use super::Pool;
use super::lease::Lease;
use super::lore::{Lore, READING_MAX, Teller};
use crate::connect;
use crate::failure::Failure;

/// The part of `connect_timeout_ms` that each statement may take of those for which the first clients wait.
const FIRST_PART: u32 = 4;

/// How long a connection is looked for that nobody wants; then it is waited for behind the others.
const SPARE_MAX: Duration = Duration::from_secs(1);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the connection is kept from clients that wait while there is no other: so long for each that the pool may have.
const KEPT_EACH: Duration = Duration::from_millis(250);

/// An origin that has not told all is left alone for this many times as long as it was asked, and this long at least.
const REST: u32 = 10;
const REST_MIN: Duration = Duration::from_secs(1);

impl Pool {
    /// Learns of the first server what holds for all. What that would take too long for is learned later.
    pub(super) async fn learn(&self, link: &mut connect::Link, epoch: u64) -> Result<(), Failure> {
        let lore = match (self.texts.has_lore(), self.texts.version()) {
            (true, _) | (_, None) => None,
            (false, Some(version)) => {
                let within = self.options().connect_timeout;
                let asking = Lore::read(version, Teller::Link(link), within / FIRST_PART);
                let asked = timeout(within, asking).await;
                Some(asked.unwrap_or_else(|_| Err(Failure::silent(within)))?)
            }
        };
        // Of an origin that is another by now nothing is learned.
        let state = self.state.lock();
        if state.epoch != epoch {
            return Ok(());
        }
        if let Some(lore) = lore {
            self.texts.set_lore(lore);
        }
        let mut parameters = self.parameters.write();
        parameters.get_or_insert_with(|| Arc::new(link.parameters.clone()));
        Ok(())
    }

    /// Asks anew in the background what the catalog says, if nobody does.
    pub(crate) fn learn_again(&self) {
        // While somebody changes the catalog nothing is worth knowing.
        if self.texts.version().is_none() {
            return;
        }
        let Ok(mut next) = Arc::clone(&self.texts.reading).try_lock_owned() else {
            return;
        };
        if *next > Instant::now() {
            return;
        }
        let me = self.weak();
        self.home().spawn(async move {
            let Some(lease) = lease(&me).await else {
                *next = Instant::now() + REST_MIN;
                return;
            };
            let begun = Instant::now();
            if let Some(me) = me.upgrade()
                && !me.learn_of(lease).await
            {
                *next = Instant::now() + REST_MIN.max(begun.elapsed() * REST);
            }
        });
    }

    /// Learns of a connection, which stays as it is, and goes back: whether the origin has told all.
    async fn learn_of(&self, mut lease: Lease) -> bool {
        let Some(version) = self.texts.version() else {
            lease.give_back();
            return true;
        };
        let epoch = lease.epoch;
        let teller = Teller::Server(&mut lease, READING_MAX);
        let read = tokio::select! {
            biased;
            read = Lore::read(version, teller, READING_MAX) => read,
            () = self.is_wanted() => {
                tracing::warn!(
                    binding = &*self.name(),
                    "the catalog could not be read in time: clients wait for the connection"
                );
                lease.abandon(false);
                return false;
            }
        };
        match read {
            Ok(lore) => {
                lease.give_back();
                let is_whole = lore.is_whole;
                self.keep(lore, epoch);
                is_whole
            }
            Err(failure) => {
                tracing::warn!(binding = &*self.name(), %failure, "the catalog could not be read");
                false
            }
        }
    }

    /// Ends when clients have waited for long enough for a connection that is used from now on.
    async fn is_wanted(&self) {
        let connections_max = self.options().connections_max;
        sleep(KEPT_EACH * u32::try_from(connections_max).unwrap_or(u32::MAX)).await;
        loop {
            {
                let mut state = self.state.lock();
                if state.queue.without_left() > 0 && state.total >= connections_max {
                    return;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps what a server of this version of the origin has told, unless it is another by now.
    fn keep(&self, lore: Lore, epoch: u64) {
        let state = self.state.lock();
        if state.epoch == epoch {
            self.texts.set_lore(lore);
        }
    }
}

/// A connection that nobody wants, or else one for which nobody has waited for longer.
async fn lease(pool: &Weak<Pool>) -> Option<Lease> {
    let until = Instant::now() + SPARE_MAX;
    loop {
        let pool = pool.upgrade()?;
        if let Some(lease) = pool.spare_lease().await {
            return Some(lease);
        }
        if Instant::now() >= until {
            // Sessions that keep all connections may do so for long.
            let is_in_vain = {
                let state = pool.state.lock();
                state.total >= pool.options().connections_max && !state.may_come_free()
            };
            return match is_in_vain {
                true => None,
                false => pool.lease(&Arc::from("the pool")).await.ok(),
            };
        }
        drop(pool);
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PoolOptions;
    use crate::origin::Origin;

    /// What the last origin has told says nothing of this one.
    #[tokio::test]
    async fn nothing_is_kept_of_an_origin_of_before() {
        let origin = || Origin::of_url("postgres://a:b@127.0.0.1:1/c").unwrap();
        let pool = Pool::new(origin(), PoolOptions::default());
        pool.keep(Lore::begun(0), 0);
        assert!(pool.texts.has_lore());
        pool.turn_to(origin());
        assert!(!pool.texts.has_lore());
        pool.keep(Lore::begun(0), 0);
        assert!(!pool.texts.has_lore());
        pool.keep(Lore::begun(0), 1);
        assert!(pool.texts.has_lore());
    }
}
