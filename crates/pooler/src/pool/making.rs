//! How connections come about.

use std::sync::{Arc, Weak};

use tokio::time::{Duration, Instant, sleep};

use super::Pool;
use super::state::State;
use crate::connect;
use crate::failure::Failure;
use crate::server::Server;

/// After a failure nobody tries again for this long, unless a connection has come about meanwhile.
pub(super) const BACK_OFF: Duration = Duration::from_millis(200);

impl Pool {
    /// Begins connections for those who wait and whom none that is being made will serve. While the origin lets nobody in it is
    /// one at a time.
    pub(super) fn connect_if_wanted(&self, state: &mut State) {
        let room = self.options().connections_max.saturating_sub(state.total);
        if room == 0 || state.is_closed {
            return;
        }
        let wanted = state.queue.without_left().saturating_sub(state.connecting);
        let mut now = wanted.min(room);
        if let Some((at, _)) = &state.failed {
            let is_wanted = now > 0 && state.connecting == 0;
            let rest = BACK_OFF.saturating_sub(at.elapsed());
            if is_wanted && !rest.is_zero() {
                self.try_again_in(rest, state);
                return;
            }
            now = usize::from(is_wanted);
        }
        for _ in 0..now {
            self.connect(state);
        }
    }

    /// Begins a connection.
    fn connect(&self, state: &mut State) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        state.total += 1;
        state.connecting += 1;
        let origin = Arc::clone(&state.origin);
        let (epoch, doubts) = (state.epoch, state.doubts);
        // In a task of its own: who waits may leave, and the connection is the next one's.
        self.home().spawn(async move {
            let options = me.options();
            let (within, settings) = (options.connect_timeout, options.settings());
            let begun = Instant::now();
            let connecting = connect::connect(&origin, &options.dialing, within, &settings);
            let mut connected = connecting.await;
            if let Ok(link) = &mut connected
                && let Err(failure) = me.learn(link, epoch).await
            {
                connected = Err(failure);
            }
            me.connected(connected.map(|link| (link, begun.elapsed())), epoch, doubts);
        });
    }

    /// Looks again whether somebody waits.
    fn try_again_in(&self, rest: Duration, state: &mut State) {
        if std::mem::replace(&mut state.is_retried, true) {
            return;
        }
        let me = Weak::clone(&self.me);
        self.home().spawn(async move {
            sleep(rest).await;
            if let Some(me) = me.upgrade() {
                let mut state = me.state.lock();
                state.is_retried = false;
                me.connect_if_wanted(&mut state);
            }
        });
    }

    /// A connection was made, in this time, or was not.
    fn connected(
        &self,
        connected: Result<(connect::Link, Duration), Failure>,
        epoch: u64,
        doubts: u64,
    ) {
        let mut state = self.state.lock();
        state.connecting -= 1;
        match connected {
            Ok((mut link, took)) => {
                link.key.cancels = Some(Arc::clone(&self.cancels));
                state.counts.connected += 1;
                state.counts.connects.took(took);
                state.failed = None;
                let number = state.free_numbers.pop().unwrap_or(state.holders.len());
                if number == state.holders.len() {
                    state.holders.push(None);
                }
                drop(state);
                let mut server = Box::new(Server::new(link, &self.options(), epoch));
                server.number = number;
                server.doubts = doubts;
                if let Some(known) = self.parameters()
                    && known == server.parameters
                {
                    server.parameters = known;
                }
                self.give(server);
                // More of those who wait than one, after a failure.
                self.connect_if_wanted(&mut self.state.lock());
            }
            Err(failure) => {
                let binding = self.name();
                tracing::warn!(binding = &*binding, kind = failure.kind.name(), %failure, "the origin did not let the pool in");
                state.counts.failed += 1;
                state.total -= 1;
                if state.epoch != epoch {
                    // It says nothing of where the origin is now.
                    self.connect_if_wanted(&mut state);
                    return;
                }
                state.failed = Some((Instant::now(), failure.clone()));
                if state.connecting > 0 {
                    // They may do better.
                    return;
                }
                match state.may_come_free() {
                    true => self.connect_if_wanted(&mut state),
                    false => state.queue.refuse_all(&failure),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::options::PoolOptions;
    use crate::origin::Origin;

    /// What the log says.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<String>>);

    impl Visit for Heard {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.lock().push_str(&format!("{field}={value:?} "));
        }
    }

    impl Subscriber for Heard {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// A node has many.
    #[tokio::test]
    async fn the_log_names_the_binding() {
        let heard = Heard::default();
        let _hears = tracing::subscriber::set_default(heard.clone());
        // Nobody listens there.
        let origin = Origin::of_url("postgres://a:b@127.0.0.1:1/c").unwrap();
        let pool = Pool::new(origin, PoolOptions::default());
        pool.set_name("shop");
        assert!(pool.lease(&Arc::from("somebody")).await.is_err());
        let said = heard.0.lock().clone();
        assert!(said.contains("did not let the pool in"), "{said}");
        assert!(said.contains("binding=\"shop\""), "{said}");
    }
}
