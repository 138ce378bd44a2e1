//! How connections end.

use std::sync::{Arc, Weak};

use super::Pool;
use super::state::State;
use crate::server::Server;

impl Pool {
    /// Takes those that nobody has out of use, to be closed.
    pub(super) fn take_idle(state: &mut State) -> impl Iterator<Item = Box<Server>> + use<> {
        let idle = std::mem::take(&mut state.idle);
        for (_, server) in &idle {
            state.closes(server.number);
        }
        idle.into_iter().map(|(_, server)| server)
    }

    /// Closes one that nobody meant to end.
    pub(super) fn lost(&self, server: Box<Server>) {
        // What the origin has acknowledged it may have lost with it.
        self.cache.drop_all();
        self.state.lock().closes(server.number);
        self.close_all([server]);
    }

    /// Closes what is out of use. At the origin they count until it has hung up, and so they do here: who waits has the next
    /// connection only then.
    pub(super) fn close_all(&self, servers: impl IntoIterator<Item = Box<Server>>) {
        let within = self.options().abandoned_max;
        for server in servers {
            let me = Weak::clone(&self.me);
            self.home().spawn(async move {
                server.close(within).await;
                if let Some(me) = me.upgrade() {
                    let mut state = me.state.lock();
                    state.has_closed();
                    me.connect_if_wanted(&mut state);
                }
            });
        }
    }

    /// Closes what nobody has used for long, as long as there is something to close.
    pub(super) fn reap_later(&self) {
        let weak = Weak::clone(&self.me);
        let adjusted = Arc::clone(&self.adjusted);
        tokio::spawn(async move {
            loop {
                // From before the options are read: none of their changes is missed.
                let adjusted = adjusted.notified();
                let Some(idle) = weak.upgrade().map(|me| me.options().idle) else {
                    return;
                };
                tokio::select! {
                    () = tokio::time::sleep(idle) => {}
                    () = adjusted => continue,
                }
                let Some(me) = weak.upgrade() else {
                    return;
                };
                let (old, is_done) = {
                    let mut state = me.state.lock();
                    let all = std::mem::take(&mut state.idle);
                    let (old, young): (Vec<_>, Vec<_>) = all
                        .into_iter()
                        .partition(|(since, _)| since.elapsed() >= idle);
                    state.idle = young;
                    old.iter()
                        .for_each(|(_, server)| state.closes(server.number));
                    // Whoever gives the next one back begins anew.
                    state.is_reaped = !state.idle.is_empty();
                    (old, state.idle.is_empty())
                };
                me.close_all(old.into_iter().map(|(_, server)| server));
                if is_done {
                    return;
                }
            }
        });
    }
}
